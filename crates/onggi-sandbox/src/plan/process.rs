//! `process` → operations between the finished view and the program; the one code path of create and exec.
//!
//! Order: what needs privilege first; close-on-exec before any filter; seccomp before the privileges go when
//! no_new_privs is off, else as the last thing before exec.

use std::path::PathBuf;

use onggi_spec::{
    capability,
    oci::runtime::{LinuxCapabilities, LinuxNamespaceType, LinuxSeccomp, Process},
};

use super::{
    CapabilitySets, ParentOp, ProcessOp, Rlimit, SandboxFacts,
    build::{Context, start_hooks},
};
use crate::{
    child::DEFAULT_UMASK,
    error::{Result, StartFailureError},
};

/// What distinguishes the uses of one process plan.
pub(crate) struct ProcessContext<'a> {
    pub(crate) process: &'a Process,
    pub(crate) seccomp: Option<&'a LinuxSeccomp>,
    pub(crate) facts: &'a SandboxFacts,
    /// setgroups(2) is possible.
    pub(crate) setgroups: bool,
    pub(crate) preserve_fds: u32,
    pub(crate) die_with_parent: bool,
}

/// Operations of the runtime after the clone, and of the child.
pub(super) fn plan_process(cx: &Context<'_>) -> Result<(Vec<ParentOp>, Vec<ProcessOp>)> {
    let pc = ProcessContext {
        process: cx.process,
        seccomp: cx.linux.seccomp.as_ref(),
        facts: cx.facts,
        setgroups: cx.namespaces.setgroups_allowed(cx.facts),
        preserve_fds: cx.input.preserve_fds,
        die_with_parent: cx.input.die_with_parent,
    };
    // Inside a user namespace the child cannot raise a hard limit, its privileged creator can.
    let by_parent = cx.facts.privileged && cx.namespaces.makes(LinuxNamespaceType::User);
    let limits = rlimits(cx.process)?;
    let mut ops = Vec::new();
    let mut parent = Vec::new();
    match by_parent {
        true => parent.extend(limits.into_iter().map(ParentOp::Rlimit)),
        false => ops.extend(limits.into_iter().map(ProcessOp::Rlimit)),
    }
    ops.extend(before_start(&pc)?);
    if cx.input.wait_for_start {
        ops.push(ProcessOp::AwaitStart);
    }
    ops.extend(start_hooks(cx.input.config));
    if cx.input.init {
        ops.push(ProcessOp::ForkInit);
    }
    ops.extend(credentials_and_exec(&pc)?);
    Ok((parent, ops))
}

/// The same for a process that enters an existing container.
pub(crate) fn plan_exec(pc: &ProcessContext<'_>) -> Result<Vec<ProcessOp>> {
    let mut ops: Vec<ProcessOp> = rlimits(pc.process)?.into_iter().map(ProcessOp::Rlimit).collect();
    ops.extend(before_start(pc)?);
    ops.extend(credentials_and_exec(pc)?);
    Ok(ops)
}

fn before_start(pc: &ProcessContext<'_>) -> Result<Vec<ProcessOp>> {
    let process = pc.process;
    let mut ops = Vec::new();
    if let Some(value) = process.oom_score_adj {
        if !(-1000..=1000).contains(&value) {
            return Err(StartFailureError::new(format!("process.oomScoreAdj {value} is not in -1000..=1000")));
        }
        ops.push(ProcessOp::OomScore { value });
    }
    ops.extend(process.scheduler.clone().map(ProcessOp::Scheduler));
    ops.extend(process.io_priority.clone().map(ProcessOp::IoPriority));
    ops.push(ProcessOp::EnterDirectory { path: PathBuf::from(&process.cwd), again: false });
    ops.push(ProcessOp::CheckCommand);
    if process.user.uid != 0 {
        ops.push(ProcessOp::OwnStdio { uid: process.user.uid });
    }
    ops.extend(labels(pc)?);
    Ok(ops)
}

/// A label that was asked for and cannot be had is an error: running without it would be weaker than asked.
fn labels(pc: &ProcessContext<'_>) -> Result<Vec<ProcessOp>> {
    let mut ops = Vec::new();
    let missing = |what: &str, lsm: &str| {
        StartFailureError::new(format!("{what} is set, but this kernel runs without {lsm}"))
            .hint(format!("remove {what} or boot with {lsm} enabled"))
    };
    if let Some(profile) = pc.process.apparmor_profile.as_ref().filter(|p| !p.is_empty()) {
        if !pc.facts.apparmor {
            return Err(missing("process.apparmorProfile", "AppArmor"));
        }
        ops.push(ProcessOp::AppArmor { profile: profile.clone() });
    }
    if let Some(label) = pc.process.selinux_label.as_ref().filter(|l| !l.is_empty()) {
        if !pc.facts.selinux {
            return Err(missing("process.selinuxLabel", "SELinux"));
        }
        ops.push(ProcessOp::SeLinux { label: label.clone() });
    }
    Ok(ops)
}

fn credentials_and_exec(pc: &ProcessContext<'_>) -> Result<Vec<ProcessOp>> {
    let process = pc.process;
    let user = &process.user;
    let mut ops = Vec::new();
    if process.terminal {
        ops.push(ProcessOp::AttachTerminal);
    }
    let preserved = pc.preserve_fds.checked_add(3).ok_or_else(|| StartFailureError::new("too many preserved fds"))?;
    ops.push(ProcessOp::CloseOnExec { from: preserved });
    if process.no_new_privileges {
        ops.push(ProcessOp::NoNewPrivileges);
    }
    let seccomp = pc.seccomp.map(|policy| ProcessOp::Seccomp { policy: Box::new(policy.clone()) });
    if !process.no_new_privileges {
        ops.extend(seccomp.clone());
    }
    let sets = process.capabilities.as_ref().map(capability_sets).transpose()?;
    ops.extend(sets.map(|s| ProcessOp::BoundingSet { keep: s.bounding }));
    ops.push(credentials(pc)?);
    ops.extend(sets.map(ProcessOp::Capabilities));
    ops.push(ProcessOp::Umask { mask: user.umask.unwrap_or(DEFAULT_UMASK) & 0o777 });
    ops.push(ProcessOp::EnterDirectory { path: PathBuf::from(&process.cwd), again: true });
    if pc.die_with_parent {
        ops.push(ProcessOp::DieWithParent);
    }
    if process.no_new_privileges {
        ops.extend(seccomp);
    }
    ops.push(exec(process)?);
    Ok(ops)
}

fn credentials(pc: &ProcessContext<'_>) -> Result<ProcessOp> {
    let user = &pc.process.user;
    if user.uid == u32::MAX || user.gid == u32::MAX || user.additional_gids.contains(&u32::MAX) {
        return Err(StartFailureError::new("process.user: 4294967295 is not an id"));
    }
    let wants_groups = user.additional_gids.iter().any(|g| *g != user.gid);
    if wants_groups && !pc.setgroups {
        return Err(StartFailureError::new(
            "process.user.additionalGids: setgroups(2) is denied in this user namespace",
        )
        .hint("without root a container has only its user's own groups"));
    }
    let groups = pc.setgroups.then(|| user.additional_gids.clone());
    Ok(ProcessOp::Credentials { uid: user.uid, gid: user.gid, groups })
}

fn exec(process: &Process) -> Result<ProcessOp> {
    if process.args.first().is_none_or(String::is_empty) {
        return Err(StartFailureError::new("no command was given")
            .hint("name a program after the image, or use an image with an entrypoint"));
    }
    if process.args.iter().chain(&process.env).any(|s| s.contains('\0')) {
        return Err(StartFailureError::new("process.args or process.env contains a NUL byte"));
    }
    Ok(ProcessOp::Exec { args: process.args.clone(), env: process.env.clone() })
}

fn capability_sets(caps: &LinuxCapabilities) -> Result<CapabilitySets> {
    Ok(CapabilitySets {
        bounding: mask(&caps.bounding)?,
        effective: mask(&caps.effective)?,
        permitted: mask(&caps.permitted)?,
        inheritable: mask(&caps.inheritable)?,
        ambient: mask(&caps.ambient)?,
    })
}

fn mask(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |mask, name| {
        let n = capability::number(name)
            .ok_or_else(|| StartFailureError::new(format!("process.capabilities: {name:?} is not a capability")))?;
        Ok(mask | 1 << n)
    })
}

fn rlimits(process: &Process) -> Result<Vec<Rlimit>> {
    let mut out: Vec<Rlimit> = Vec::new();
    for limit in &process.rlimits {
        let fail = |why: &str| Err(StartFailureError::new(format!("process.rlimits {}: {why}", limit.typ)));
        let Some(number) = onggi_sys::rlimit::number(&limit.typ) else { return fail("is not a resource limit") };
        if limit.soft > limit.hard {
            return fail("the soft limit exceeds the hard one");
        }
        if out.iter().any(|l| l.number == number) {
            return fail("appears twice");
        }
        out.push(Rlimit { name: limit.typ.clone(), number, soft: limit.soft, hard: limit.hard });
    }
    Ok(out)
}

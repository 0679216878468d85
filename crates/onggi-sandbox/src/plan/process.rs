//! `process` → operations between the finished view and the program; the one code path of create and exec.
//!
//! Order, which is runc's: what needs privilege first; close-on-exec before any filter; then the credentials of
//! the program. A created container waits for `start` with the program's credentials and under its filter, and its
//! startContainer hooks have no more rights than the program.

use std::{collections::BTreeSet, path::PathBuf};

use onggi_spec::{
    capability,
    oci::runtime::{Linux, LinuxCapabilities, LinuxNamespaceType, Process, Spec},
};

use super::{
    CapabilitySets, ParentOp, ProcessOp, Rlimit, SandboxFacts, attributes,
    build::{Context, start_hooks},
    devices,
    environment::environment,
};
use crate::{
    child::DEFAULT_UMASK,
    error::{Result, StartFailureError},
};

/// What distinguishes the uses of one process plan.
pub(crate) struct ProcessContext<'a> {
    pub(crate) process: &'a Process,
    pub(crate) linux: &'a Linux,
    pub(crate) facts: &'a SandboxFacts,
    /// setgroups(2) is possible.
    pub(crate) setgroups: bool,
    /// See [`keeps_groups`].
    pub(crate) keep_groups: bool,
    pub(crate) preserve_fds: u32,
    pub(crate) die_with_parent: bool,
    /// Its program runs when somebody opens a FIFO.
    pub(crate) waits_for_reader: bool,
    pub(crate) purpose: Purpose,
    /// Its /dev is made for it.
    pub(crate) own_devices: bool,
}

/// What the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A container's first one, which runs at once.
    Run,
    /// A container's first one, which waits for `start`.
    Create,
    /// A further one.
    Exec,
}

/// The operations of a process, by who carries them out.
#[derive(Debug, Default)]
pub(crate) struct ProcessPlan {
    /// The runtime, after the clone.
    pub(crate) parent: Vec<ParentOp>,
    /// The process itself.
    pub(crate) child: Vec<ProcessOp>,
    /// What will not be done.
    pub(crate) notes: Vec<String>,
}

/// Operations of the runtime after the clone, and of the child.
pub(super) fn plan_process(cx: &Context<'_>) -> Result<ProcessPlan> {
    let pc = ProcessContext {
        process: cx.process,
        linux: cx.linux,
        facts: cx.facts,
        setgroups: cx.namespaces.setgroups_allowed(cx.facts),
        keep_groups: keeps_groups(cx.input.config),
        preserve_fds: cx.input.preserve_fds,
        die_with_parent: cx.input.die_with_parent,
        waits_for_reader: false,
        purpose: if cx.input.wait_for_start { Purpose::Create } else { Purpose::Run },
        own_devices: devices::are_made(cx),
    };
    // Inside a user namespace the child cannot raise a hard limit nor lower its score, its privileged creator can.
    let by_parent = cx.facts.privileged && cx.namespaces.makes(LinuxNamespaceType::User);
    let mut plan = ProcessPlan::default();
    limits(cx.process, by_parent, &mut plan)?;
    if plan.parent.iter().any(|op| matches!(op, ParentOp::Rlimit(_))) {
        plan.child.push(ProcessOp::AwaitLimits);
    }
    preparation(&pc, &mut plan)?;
    if cx.input.init {
        plan.child.push(ProcessOp::ForkInit);
    }
    credentials(&pc, &mut plan)?;
    if pc.purpose == Purpose::Create {
        plan.child.push(ProcessOp::AwaitStart);
    }
    plan.child.extend(start_hooks(cx.input.config));
    plan.child.push(exec(&pc)?);
    Ok(plan)
}

/// The same for a process that enters an existing container.
///
/// `by_parent`: it is in a user namespace, where it may not raise limits nor lower its score, and its creator may.
pub(crate) fn plan_exec(pc: &ProcessContext<'_>, by_parent: bool) -> Result<ProcessPlan> {
    let mut plan = ProcessPlan::default();
    limits(pc.process, by_parent, &mut plan)?;
    preparation(pc, &mut plan)?;
    credentials(pc, &mut plan)?;
    if pc.waits_for_reader {
        plan.child.push(ProcessOp::AwaitReader);
    }
    plan.child.push(exec(pc)?);
    Ok(plan)
}

fn limits(process: &Process, by_parent: bool, plan: &mut ProcessPlan) -> Result<()> {
    let (limits, score) = (rlimits(process)?, oom_score(process)?);
    match by_parent {
        true => {
            plan.parent.extend(limits.into_iter().map(ParentOp::Rlimit));
            plan.parent.extend(score.map(|value| ParentOp::OomScore { value }));
        }
        false => {
            plan.child.extend(limits.into_iter().map(ProcessOp::Rlimit));
            plan.child.extend(score.map(|value| ProcessOp::OomScore { value }));
        }
    }
    Ok(())
}

fn oom_score(process: &Process) -> Result<Option<i32>> {
    match process.oom_score_adj {
        Some(value) if !(-1000..=1000).contains(&value) => {
            Err(StartFailureError::new(format!("process.oomScoreAdj {value} is not in -1000..=1000")))
        }
        value => Ok(value),
    }
}

/// What needs privilege or the runtime's view, before any of it is given up.
fn preparation(pc: &ProcessContext<'_>, plan: &mut ProcessPlan) -> Result<()> {
    let process = pc.process;
    let ops = &mut plan.child;
    ops.extend(affinity(pc)?);
    if let Some(scheduler) = &process.scheduler {
        attributes::scheduler(scheduler)?;
        ops.push(ProcessOp::Scheduler(scheduler.clone()));
    }
    if let Some(priority) = &process.io_priority {
        attributes::io_priority(priority)?;
        ops.push(ProcessOp::IoPriority(priority.clone()));
    }
    let policy = pc.linux.memory_policy.as_ref().map(attributes::memory_policy).transpose()?.flatten();
    ops.extend(policy.map(|(mode, nodes)| ProcessOp::MemoryPolicy { mode, nodes }));
    if let Some(personality) = &pc.linux.personality {
        ops.push(ProcessOp::Personality { persona: attributes::personality(personality)? });
        if !personality.flags.is_empty() {
            plan.notes.push(format!("linux.personality.flags {:?} are ignored: none is defined", personality.flags));
        }
    }
    ops.push(ProcessOp::EnterDirectory { path: working_directory(process)?, again: false });
    ops.push(ProcessOp::CheckCommand);
    if !environment(&process.env)?.has_home {
        ops.push(ProcessOp::Home { uid: process.user.uid });
    }
    if process.user.uid != 0 {
        ops.push(ProcessOp::OwnStdio { uid: process.user.uid });
    }
    ops.extend(labels(pc)?);
    Ok(())
}

/// `process.cwd`, which the specification wants absolute.
pub(super) fn working_directory(process: &Process) -> Result<PathBuf> {
    let fail = |why: &str| Err(StartFailureError::new(format!("process.cwd {:?}: {why}", process.cwd)));
    match process.cwd.as_str() {
        "" => fail("Cwd property must not be empty"),
        cwd if !cwd.starts_with('/') => fail("Cwd must be an absolute path: it is not an absolute path"),
        cwd if cwd.contains('\0') => fail("it contains a NUL byte"),
        cwd => Ok(PathBuf::from(cwd)),
    }
}

/// The CPUs that the runtime's caller happened to be pinned to are not the container's. `execCPUAffinity` is for
/// `exec` alone; an initial affinity without a final one stays (the runtime has set it before the clone).
fn affinity(pc: &ProcessContext<'_>) -> Result<Option<ProcessOp>> {
    let Some(asked) = &pc.process.exec_cpu_affinity else { return Ok(Some(ProcessOp::Affinity { cpus: None })) };
    let initial = attributes::cpu_list("initial", asked.initial.as_ref())?;
    let last = attributes::cpu_list("final", asked.final_.as_ref())?;
    Ok(match (initial, last) {
        // Lists that are wrong are told at once, not at the first exec.
        _ if pc.purpose != Purpose::Exec => Some(ProcessOp::Affinity { cpus: None }),
        (_, Some(mask)) => Some(ProcessOp::Affinity { cpus: Some(mask) }),
        (Some(_), None) => None,
        (None, None) => Some(ProcessOp::Affinity { cpus: None }),
    })
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

/// From here on the process is what the program will be. Seccomp before the privileges go when no_new_privs does
/// not allow it later, else last, so that the filter has to allow nothing of ours but the way to exec.
fn credentials(pc: &ProcessContext<'_>, plan: &mut ProcessPlan) -> Result<()> {
    let process = pc.process;
    let user = &process.user;
    let sets = capability_sets(process.capabilities.as_ref(), &mut plan.notes);
    let ops = &mut plan.child;
    if process.terminal {
        ops.push(ProcessOp::AttachTerminal);
    }
    let preserved = pc.preserve_fds.checked_add(3).ok_or_else(|| StartFailureError::new("too many preserved fds"))?;
    ops.push(ProcessOp::CloseOnExec { from: preserved });
    if pc.own_devices && !process.terminal {
        ops.push(ProcessOp::ReopenNull);
    }
    if process.no_new_privileges {
        ops.push(ProcessOp::NoNewPrivileges);
    }
    // Root is kept from nothing but what is on a noexec mount, so it need not be root of the container yet. Podman
    // reads the reason from `create` alone.
    if pc.purpose == Purpose::Create && user.uid == 0 {
        ops.push(ProcessOp::CheckAccess);
    }
    let seccomp = pc.linux.seccomp.as_ref().map(|policy| ProcessOp::Seccomp { policy: Box::new(policy.clone()) });
    if !process.no_new_privileges {
        ops.extend(seccomp.clone());
    }
    ops.push(ProcessOp::BoundingSet { keep: sets.bounding });
    ops.push(ids(pc)?);
    ops.push(ProcessOp::Capabilities(sets));
    ops.push(ProcessOp::Umask { mask: user.umask.unwrap_or(DEFAULT_UMASK) & 0o777 });
    ops.push(ProcessOp::EnterDirectory { path: working_directory(process)?, again: true });
    if pc.die_with_parent {
        ops.push(ProcessOp::DieWithParent);
    }
    if pc.purpose == Purpose::Create && user.uid != 0 {
        ops.push(ProcessOp::CheckAccess);
    }
    if process.no_new_privileges {
        ops.extend(seccomp);
    }
    Ok(())
}

/// The supplementary groups of whoever called stay, whatever the configuration lists. crun's annotation, which
/// Podman gives for `--group-add keep-groups`: without root a container cannot be given them by number.
pub(crate) fn keeps_groups(config: &Spec) -> bool {
    config.annotations.get("run.oci.keep_original_groups").is_some_and(|v| v == "1" || v == "true")
}

fn ids(pc: &ProcessContext<'_>) -> Result<ProcessOp> {
    let user = &pc.process.user;
    if user.uid == u32::MAX || user.gid == u32::MAX || user.additional_gids.contains(&u32::MAX) {
        return Err(StartFailureError::new("process.user: 4294967295 is not an id"));
    }
    if pc.keep_groups {
        return Ok(ProcessOp::Credentials { uid: user.uid, gid: user.gid, groups: None });
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

fn exec(pc: &ProcessContext<'_>) -> Result<ProcessOp> {
    let process = pc.process;
    if process.args.is_empty() {
        return Err(StartFailureError::new("no command was given: process.args must not be empty")
            .hint("name a program: after the image, as the image's entrypoint, or in process.args of config.json"));
    }
    if process.args.iter().any(|s| s.contains('\0')) {
        return Err(StartFailureError::new("process.args contains a NUL byte"));
    }
    Ok(ProcessOp::Exec { args: process.args.clone(), env: environment(&process.env)?.entries })
}

/// Without `capabilities` there are none. Names that nobody knows are ignored, with a warning, as the
/// specification demands: a newer configuration must run on an older runtime.
fn capability_sets(caps: Option<&LinuxCapabilities>, notes: &mut Vec<String>) -> CapabilitySets {
    let Some(caps) = caps else { return CapabilitySets::default() };
    let all = [&caps.bounding, &caps.effective, &caps.permitted, &caps.inheritable, &caps.ambient];
    let unknown: BTreeSet<&str> =
        all.into_iter().flatten().map(String::as_str).filter(|n| capability::number(n).is_none()).collect();
    if !unknown.is_empty() {
        let list = unknown.iter().map(|n| n.escape_debug().to_string()).collect::<Vec<_>>().join(", ");
        notes.push(format!("process.capabilities: ignoring unknown or unavailable capabilities: [{list}]"));
    }
    let mask = |names: &[String]| names.iter().filter_map(|n| capability::number(n)).fold(0, |m, n| m | 1 << n);
    CapabilitySets {
        bounding: mask(&caps.bounding),
        effective: mask(&caps.effective),
        permitted: mask(&caps.permitted),
        inheritable: mask(&caps.inheritable),
        ambient: mask(&caps.ambient),
    }
}

fn rlimits(process: &Process) -> Result<Vec<Rlimit>> {
    let mut out: Vec<Rlimit> = Vec::new();
    for limit in &process.rlimits {
        let fail = |why: &str| Err(StartFailureError::new(format!("process.rlimits {}: {why}", limit.typ)));
        let Some(number) = onggi_sys::rlimit::number(&limit.typ) else {
            return fail("invalid rlimit type: is not a resource limit");
        };
        if limit.soft > limit.hard {
            return fail("the soft limit exceeds the hard one");
        }
        if out.iter().any(|l| l.number == number) {
            return fail("duplicated rlimit: appears twice");
        }
        out.push(Rlimit { name: limit.typ.clone(), number, soft: limit.soft, hard: limit.hard });
    }
    Ok(out)
}

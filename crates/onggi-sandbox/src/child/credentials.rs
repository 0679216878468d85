//! Ids, groups, capabilities, limits, labels, filter: what the program is allowed to be.

use std::os::fd::{AsFd, AsRawFd};

use onggi_spec::{
    capability::names as capability_names,
    oci::runtime::{LinuxIoPriority, Scheduler},
};
use onggi_sys::{
    Errno, SysContext,
    cred::{self, Capabilities},
    rlimit::{self, Limit},
    sched,
};
use rustix::fs::{FileType, Gid, Uid};

use super::Child;
use crate::{
    channel::Message,
    error::{Result, StartFailureError, Step},
    plan::{CapabilitySets, Rlimit, attributes},
    sources,
};

/// Takes the ids that the user namespace gives its root (uid and gid; where 0 is not mapped, the first that
/// are); absent ones are read from this process's own maps, so /proc must be the host's then.
pub(crate) fn become_root(clear_groups: bool, ids: Option<(u32, u32)>) -> Result<()> {
    let step = || "become root of the user namespace".to_string();
    let (uid, gid) = match ids {
        Some(ids) => ids,
        None => sources::first_ids("self").step(step)?,
    };
    if clear_groups {
        match cred::set_groups(&[]) {
            // A user namespace that was joined may have been made without that right.
            Err(e) if e.errno == Errno::PERM && ids.is_none() => {}
            r => r.step(step)?,
        }
    }
    cred::keep_capabilities(true).step(step)?;
    cred::set_gid(gid).step(step)?;
    cred::set_uid(uid).step(step)?;
    cred::keep_capabilities(false).step(step)?;
    if uid != 0 {
        let all = cred::capabilities().step(step)?;
        cred::set_capabilities(Capabilities { effective: all.permitted, ..all }).step(step)?;
    }
    Ok(())
}

impl Child {
    /// A hard limit that may not be raised stays, with a note.
    pub(super) fn rlimit(&self, limit: &Rlimit) -> Result<()> {
        let step = || format!("set {}", limit.name);
        let wanted = Limit { soft: limit.soft, hard: limit.hard };
        match rlimit::set(limit.number, wanted) {
            Err(e) if e.errno == Errno::PERM => {}
            r => return r.step(step),
        }
        let current = rlimit::get(limit.number).step(step)?;
        let kept = Limit { soft: limit.soft.min(current.hard), hard: limit.hard.min(current.hard) };
        rlimit::set(limit.number, kept).step(step)?;
        self.note(sources::limit_kept(&limit.name, current.hard, limit.hard));
        Ok(())
    }

    pub(super) fn oom_score(&mut self, value: i32) -> Result<()> {
        match self.write_own("oom_score_adj", value.to_string().as_bytes()) {
            Err(e) if e.0.errno == Errno::ACCESS.raw_os_error() => {
                self.note(sources::score_kept(value));
                Ok(())
            }
            r => r,
        }
    }

    /// Only privilege can limit it; what has none keeps nothing that it could lose.
    pub(super) fn bounding_set(&self, keep: u64) -> Result<()> {
        cred::limit_bounding_set(keep).step(|| "limit the bounding set".into())
    }

    pub(super) fn credentials(&self, uid: u32, gid: u32, groups: Option<&[u32]>) -> Result<()> {
        let step = || format!("become uid {uid}, gid {gid}");
        if let Some(groups) = groups {
            cred::set_groups(groups).step(step)?;
        }
        let mapped = |r: onggi_sys::Result<()>| {
            r.map_err(|e| {
                let failure = StartFailureError::from_sys(step(), &e);
                match e.errno {
                    Errno::INVAL => failure.hint("the id is not mapped in the container's user namespace"),
                    _ => failure,
                }
            })
        };
        mapped(cred::set_gid(gid))?;
        if self.keep_capabilities && uid != 0 {
            cred::keep_capabilities(true).step(step)?;
            mapped(cred::set_uid(uid))?;
            return cred::keep_capabilities(false).step(step);
        }
        mapped(cred::set_uid(uid))
    }

    /// What the caller does not have, this kernel does not know, or one set keeps out of another cannot be given; the
    /// specification wants a warning then, not a failure.
    pub(super) fn capabilities(&self, wanted: CapabilitySets) -> Result<()> {
        let step = || "set capabilities".to_string();
        let held = cred::capabilities().step(step)?.permitted;
        let lost = (wanted.permitted | wanted.effective | wanted.inheritable) & !held;
        self.not_granted(lost, "cannot be granted: the runtime does not have them");
        let permitted = wanted.permitted & held;
        self.not_granted(wanted.effective & held & !permitted, "cannot be effective: they are not permitted");
        let inheritable = self.inheritable(wanted.inheritable & held).step(step)?;
        let sets = Capabilities { effective: wanted.effective & permitted, permitted, inheritable };
        cred::set_capabilities(sets).step(step)?;
        let ambient = wanted.ambient & permitted & inheritable;
        self.not_ambient(wanted, wanted.ambient & !ambient & !lost, permitted).step(step)?;
        cred::set_ambient(ambient).step(step)
    }

    /// One line for all. Nothing where it changes nothing: some engines ask for ambient capabilities and leave out the
    /// inheritable ones, and what root executes has those of the bounding set, ambient or not.
    fn not_ambient(&self, wanted: CapabilitySets, missing: u64, permitted: u64) -> onggi_sys::Result<()> {
        let given_to_root =
            wanted.inheritable == 0 && missing & !permitted == 0 && rustix::process::geteuid().is_root();
        if missing == 0 || (given_to_root && missing & !cred::bounding_set()? == 0) {
            return Ok(());
        }
        let names = capability_names(missing);
        let why = "not both permitted and inheritable";
        self.note(format!("can't raise ambient capability {names}: operation not permitted: {why}"));
        Ok(())
    }

    /// capset(2): nothing is inheritable that the bounding set lacks.
    fn inheritable(&self, wanted: u64) -> onggi_sys::Result<u64> {
        if wanted == 0 {
            return Ok(0);
        }
        let bounding = cred::bounding_set()?;
        self.not_granted(wanted & !bounding, "cannot be inheritable: they are not in the bounding set");
        Ok(wanted & bounding)
    }

    fn not_granted(&self, capabilities: u64, why: &str) {
        if capabilities != 0 {
            self.note(format!("capabilities [{}] {why}", capability_names(capabilities)));
        }
    }

    /// Pipes and sockets are given to the user, so that /dev/stdout can be opened again; files and terminals
    /// of the host stay whose they are.
    pub(super) fn own_stdio(&self, uid: u32) {
        let own = |fd: std::os::fd::BorrowedFd<'_>| {
            let Ok(stat) = rustix::fs::fstat(fd) else { return };
            if matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket) {
                // Without the right to do so the stream still works, only reopening it does not.
                let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None::<Gid>);
            }
        };
        match &self.prepared.stdio {
            Some(fds) => fds.iter().for_each(|fd| own(fd.as_fd())),
            None => {
                own(std::io::stdin().as_fd());
                own(std::io::stdout().as_fd());
                own(std::io::stderr().as_fd());
            }
        }
    }

    /// Writes the label and reads it back.
    pub(super) fn label(&mut self, lsm: Lsm, label: &str) -> Result<()> {
        let (file, value) = match lsm {
            Lsm::AppArmor => ("attr/apparmor/exec", format!("exec {label}")),
            Lsm::SeLinux => ("attr/exec", label.to_owned()),
        };
        self.write_own(file, value.as_bytes()).map_err(|e| label_failure(lsm, label, e))?;
        let got = self.read_own(file)?;
        let right = got == value || got == label || got.split_whitespace().next() == Some(label);
        if right {
            return Ok(());
        }
        Err(StartFailureError::new(format!("label {label:?} did not take: the kernel has {got:?}")))
    }

    /// Loads the filter; a policy that asks an agent hands its descriptor to the runtime and waits until the
    /// agent has it. From then on this process makes as few kinds of calls as possible: write, read, close.
    pub(super) fn load_filter(&mut self) -> Result<()> {
        let Some(filter) = self.prepared.filter.take() else { return Ok(()) };
        let listener =
            onggi_sys::seccomp::load(&filter.program, filter.flags).step(|| "load the seccomp filter".into())?;
        let Some(listener) = listener else { return Ok(()) };
        match filter.fetched_by_number {
            true => self.channel.send(&Message::ListenerNumber(listener.as_raw_fd()))?,
            false => {
                self.channel.send(&Message::Listener(listener.try_clone().sys("dup", || "listener").step(hand)?))?
            }
        }
        self.channel.await_go()
    }
}

/// runc's words for a profile; a missing one is ENOENT, which says nothing to anybody.
fn label_failure(lsm: Lsm, label: &str, e: StartFailureError) -> StartFailureError {
    if lsm != Lsm::AppArmor {
        return e;
    }
    let mut e = e;
    let missing = e.0.errno == Errno::NOENT.raw_os_error();
    // crun's words, then runc's.
    let why = if missing { "profile not loaded" } else { "the kernel refuses it" };
    e.0.step =
        format!("unable to apply apparmor profile `{label}`: {why}: apparmor failed to apply profile: {}", e.0.step);
    if missing {
        return e.hint(
            "load it with apparmor_parser --replace FILE; /sys/kernel/security/apparmor/profiles lists what is loaded",
        );
    }
    e
}

fn hand() -> String {
    "hand the seccomp listener over".into()
}

/// A label's security module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lsm {
    AppArmor,
    SeLinux,
}

/// Deadline tasks need every CPU of the machine (sched_setattr(2), EPERM).
pub(super) fn scheduler(s: &Scheduler) -> Result<()> {
    let attributes = attributes::scheduler(s)?;
    sched::set_attributes(attributes).map_err(|e| {
        let failure = StartFailureError::from_sys(format!("set scheduler {}", s.policy), &e);
        match e.errno {
            Errno::PERM if s.policy == "SCHED_DEADLINE" => failure
                .hint("it needs CAP_SYS_NICE and every CPU: process scheduler can't be used together with AllowedCPUs"),
            Errno::PERM => failure.hint("it needs CAP_SYS_NICE, or real-time time of the cgroup"),
            _ => failure,
        }
    })
}

pub(super) fn io_priority(p: &LinuxIoPriority) -> Result<()> {
    let (class, priority) = attributes::io_priority(p)?;
    sched::set_io_priority(class, priority).step(|| format!("set I/O priority {}", p.class))
}

/// Every CPU that the cpuset has; a kernel that refuses even that keeps what there was.
pub(super) fn affinity(cpus: Option<&[u64]>) -> Result<()> {
    const EVERY: [u64; sched::MAX_CPUS / 64] = [u64::MAX; sched::MAX_CPUS / 64];
    match cpus {
        Some(mask) => sched::set_affinity(mask).step(|| "set process.execCPUAffinity.final".into()),
        None => {
            let _ = sched::set_affinity(&EVERY);
            Ok(())
        }
    }
}

pub(super) fn memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    sched::set_memory_policy(mode, nodes).map_err(|e| {
        let failure = StartFailureError::from_sys("set linux.memoryPolicy: set_mempolicy", &e);
        match e.errno {
            Errno::NOSYS => failure.hint("this kernel is built without NUMA policies"),
            Errno::INVAL => failure.hint("invalid argument: the mode does not allow these nodes or flags"),
            _ => failure,
        }
    })
}

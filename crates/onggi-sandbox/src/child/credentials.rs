//! Ids, groups, capabilities, limits, labels, filter: what the program is allowed to be.

use std::os::fd::AsFd;

use onggi_spec::oci::runtime::{LinuxIoPriority, Scheduler};
use onggi_sys::{
    Errno,
    cred::{self, Capabilities},
    rlimit::{self, Limit},
    sched::{self, SchedulerAttributes},
};
use rustix::fs::{FileType, Gid, Uid};

use super::Child;
use crate::{
    error::{Result, StartFailureError, Step},
    plan::{CapabilitySets, Rlimit},
};

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
        self.note(format!(
            "{} stays at {}: raising it to {} needs CAP_SYS_RESOURCE",
            limit.name, current.hard, limit.hard
        ));
        Ok(())
    }

    pub(super) fn oom_score(&mut self, value: i32) -> Result<()> {
        match self.write_own("oom_score_adj", value.to_string().as_bytes()) {
            Err(e) if e.0.errno == Errno::ACCESS.raw_os_error() => {
                self.note(format!("oom_score_adj stays: lowering it to {value} needs CAP_SYS_RESOURCE"));
                Ok(())
            }
            r => r,
        }
    }

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

    /// What the caller does not have cannot be given; runtime-spec wants a warning then.
    pub(super) fn capabilities(&self, wanted: CapabilitySets) -> Result<()> {
        let step = || "set capabilities".to_string();
        let held = cred::capabilities().step(step)?.permitted;
        let lost = (wanted.permitted | wanted.effective) & !held;
        if lost != 0 {
            self.note(format!("capabilities {lost:#x} cannot be given: the runtime does not have them"));
        }
        let permitted = wanted.permitted & held;
        let inheritable = wanted.inheritable & (held | wanted.bounding);
        let sets = Capabilities { effective: wanted.effective & permitted, permitted, inheritable };
        cred::set_capabilities(sets).step(step)?;
        cred::set_ambient(wanted.ambient & permitted & inheritable).step(step)
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
        self.write_own(file, value.as_bytes())?;
        let got = self.read_own(file)?;
        let right = got == value || got == label || got.split_whitespace().next() == Some(label);
        if right {
            return Ok(());
        }
        Err(StartFailureError::new(format!("label {label:?} did not take: the kernel has {got:?}")))
    }

    pub(super) fn load_filter(&mut self) -> Result<()> {
        let Some(filter) = self.prepared.filter.take() else { return Ok(()) };
        onggi_sys::seccomp::load(&filter.program, filter.flags).map(drop).step(|| "load the seccomp filter".into())
    }
}

/// A label's security module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lsm {
    AppArmor,
    SeLinux,
}

pub(super) fn scheduler(s: &Scheduler) -> Result<()> {
    const POLICIES: [(&str, u32); 7] = [
        ("SCHED_OTHER", 0),
        ("SCHED_FIFO", 1),
        ("SCHED_RR", 2),
        ("SCHED_BATCH", 3),
        ("SCHED_ISO", 4),
        ("SCHED_IDLE", 5),
        ("SCHED_DEADLINE", 6),
    ];
    const FLAGS: [(&str, u64); 7] = [
        ("SCHED_FLAG_RESET_ON_FORK", 0x01),
        ("SCHED_FLAG_RECLAIM", 0x02),
        ("SCHED_FLAG_DL_OVERRUN", 0x04),
        ("SCHED_FLAG_KEEP_POLICY", 0x08),
        ("SCHED_FLAG_KEEP_PARAMS", 0x10),
        ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
        ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
    ];
    let bad = |what: &str| StartFailureError::new(format!("process.scheduler: {what:?} is unknown"));
    let policy = POLICIES.iter().find(|(n, _)| *n == s.policy).ok_or_else(|| bad(&s.policy))?.1;
    let mut flags = 0;
    for flag in &s.flags {
        flags |= FLAGS.iter().find(|(n, _)| n == flag).ok_or_else(|| bad(flag))?.1;
    }
    let attributes = SchedulerAttributes {
        policy,
        flags,
        nice: s.nice,
        priority: u32::try_from(s.priority).map_err(|_| bad("priority"))?,
        runtime: s.runtime,
        deadline: s.deadline,
        period: s.period,
    };
    sched::set_attributes(attributes).step(|| format!("set scheduler {}", s.policy))
}

pub(super) fn io_priority(p: &LinuxIoPriority) -> Result<()> {
    let class = match p.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(StartFailureError::new(format!("process.ioPriority: class {other:?} is unknown"))),
    };
    if !(0..=7).contains(&p.priority) {
        return Err(StartFailureError::new(format!("process.ioPriority: priority {} is not in 0..=7", p.priority)));
    }
    sched::set_io_priority(class, p.priority as u32).step(|| format!("set I/O priority {}", p.class))
}

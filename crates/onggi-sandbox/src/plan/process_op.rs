//! `ProcessOp`: what makes the process what the configuration says, between the finished view and the program.

use std::path::PathBuf;

use onggi_spec::oci::runtime::{Hook, LinuxIoPriority, LinuxSeccomp, Scheduler};
use serde::{Deserialize, Serialize};

use super::Rlimit;

/// The five capability sets as masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapabilitySets {
    /// Bounding.
    pub bounding: u64,
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
    /// Ambient.
    pub ambient: u64,
}

/// An operation on the process, between the finished view and the program. Shared by create and exec (I11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ProcessOp {
    /// /proc/self/oom_score_adj.
    OomScore {
        /// -1000..=1000.
        value: i32,
    },
    /// setrlimit(2).
    Rlimit(Rlimit),
    /// The runtime sets the limits ([`super::ParentOp::Rlimit`]): before, its own work here would be under them.
    AwaitLimits,
    /// sched_setattr(2).
    Scheduler(Scheduler),
    /// ioprio_set(2).
    IoPriority(LinuxIoPriority),
    /// sched_setaffinity(2): these CPUs, or all that the cpuset has: what the caller was pinned to is not the
    /// container's.
    Affinity {
        /// Mask; `None` is every CPU.
        cpus: Option<Vec<u64>>,
    },
    /// set_mempolicy(2).
    MemoryPolicy {
        /// MPOL_* and MPOL_F_* bits.
        mode: u32,
        /// Node mask.
        nodes: Vec<u64>,
    },
    /// personality(2).
    Personality {
        /// PER_*.
        persona: u32,
    },
    /// HOME of the user from the container's own /etc/passwd, else `/`: the configuration has none.
    Home {
        /// User.
        uid: u32,
    },
    /// chdir(2), verified to be inside the root (I3). Without permission it is tried again after the
    /// credentials have changed.
    EnterDirectory {
        /// Path.
        path: PathBuf,
        /// The second try: done only when the first was refused.
        again: bool,
    },
    /// The program exists and can be executed; looked up in the container's own PATH (I6).
    CheckCommand,
    /// The user may execute the program: a failure of `create`, not only of `start`.
    CheckAccess,
    /// Wait for `start`.
    AwaitStart,
    /// Wait until somebody opens the FIFO that `exec` was told of.
    AwaitReader,
    /// startContainer hooks, in the container.
    Hooks {
        /// Hooks.
        hooks: Vec<Hook>,
    },
    /// Owner of the standard streams that are pipes, so that /dev/stdout can be opened again.
    OwnStdio {
        /// Owner.
        uid: u32,
    },
    /// Standard streams that are the host's /dev/null become the container's own (runc).
    ReopenNull,
    /// PID 1 stays as the reaper; what follows happens in its child, and its credentials change too.
    ForkInit,
    /// Controlling terminal and standard streams from the pseudo-terminal.
    AttachTerminal,
    /// /proc/self/attr/apparmor/exec.
    AppArmor {
        /// Profile.
        profile: String,
    },
    /// /proc/self/attr/exec.
    SeLinux {
        /// Label.
        label: String,
    },
    /// prctl(PR_SET_NO_NEW_PRIVS).
    NoNewPrivileges,
    /// seccomp(2), while CAP_SYS_ADMIN or no_new_privs allows it.
    Seccomp {
        /// Policy.
        policy: Box<LinuxSeccomp>,
    },
    /// PR_CAPBSET_DROP of what is not kept.
    BoundingSet {
        /// Kept.
        keep: u64,
    },
    /// setgroups(2), setresgid(2), setresuid(2), permitted capabilities kept for the next step.
    Credentials {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Supplementary groups; `None` leaves the caller's, where setgroups(2) is denied or they are to stay.
        groups: Option<Vec<u32>>,
    },
    /// capset(2) and the ambient set.
    Capabilities(CapabilitySets),
    /// umask(2).
    Umask {
        /// Mask.
        mask: u32,
    },
    /// close_range(2) with CLOSE_RANGE_CLOEXEC.
    CloseOnExec {
        /// First descriptor that the program does not inherit.
        from: u32,
    },
    /// PR_SET_PDEATHSIG SIGKILL.
    DieWithParent,
    /// execve(2).
    Exec {
        /// argv.
        args: Vec<String>,
        /// Environment.
        env: Vec<String>,
    },
}

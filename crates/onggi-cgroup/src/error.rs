//! What can go wrong with control groups, as an operation with its fields.

use std::{io, path::PathBuf};

use crate::systemd::BusError;

/// A failure to plan, make, read or remove control groups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A limit needs a controller that this kernel or layout does not offer.
    #[error("the requested cgroup controller `{controller}` is not available, so the {what} cannot be kept")]
    ControllerMissing {
        /// `memory`.
        controller: String,
        /// The limit in words.
        what: String,
    },
    /// A limit was asked for by a user who may not write to any cgroup.
    #[error(
        "the {what} needs a cgroup, and this user may not make one: rootless needs no limits + no cgrouppath when \
         no permission is granted for cgroups"
    )]
    Rootless {
        /// The limit in words.
        what: String,
    },
    /// A limit was asked for and no cgroup filesystem is mounted.
    #[error("the {what} needs a cgroup, and no cgroup filesystem is mounted")]
    NotMounted {
        /// The limit in words.
        what: String,
    },
    /// `linux.resources.unified` names files of version 2.
    #[error("invalid configuration: cannot use unified on cgroup v1 ({file})")]
    Unified {
        /// The first file, cut.
        file: String,
    },
    /// A member of `linux.resources.unified` that cannot be a control file; the words are crun's.
    #[error("linux.resources.unified: the specified key has not the form CONTROLLER.VALUE `{key}`")]
    UnifiedKey {
        /// Its name, cut.
        key: String,
    },
    /// A value outside its range.
    #[error("{member} is {value}: {reason}")]
    BadValue {
        /// The member: `linux.resources.memory.swap`.
        member: String,
        /// The value, cut.
        value: String,
        /// The rule.
        reason: &'static str,
    },
    /// A `cgroupsPath` that is empty, the root, or leaves it.
    #[error("the cgroup path {path:?} {reason}")]
    BadPath {
        /// The path, cut.
        path: String,
        /// The rule.
        reason: &'static str,
    },
    /// The directory of a new container holds processes already.
    #[error("container's cgroup is not empty: {count} process(es) found in {path}")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// The directory of a new container is frozen: its first process would never run.
    #[error("container's cgroup unexpectedly frozen: {path}")]
    Frozen {
        /// The directory.
        path: PathBuf,
    },
    /// A memory limit below what is used and cannot be taken away.
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    MemoryBusy {
        /// The limit, bytes.
        limit: String,
        /// Bytes in use.
        usage: String,
        /// Most bytes that were in use.
        peak: String,
    },
    /// `memory.checkBeforeUpdate`: a limit below what is used.
    #[error("rejecting {what} {limit} <= usage {usage}")]
    BelowUsage {
        /// `memory limit`, `memory+swap limit`.
        what: &'static str,
        /// Bytes.
        limit: i64,
        /// Bytes.
        usage: u64,
    },
    /// Version 2: a group has processes or gives controllers to its children.
    #[error(
        "cannot give the controller {controller} to groups below {path}: it has {count} process(es) of its own, and \
         cgroup v2 allows either"
    )]
    InternalProcesses {
        /// The group that would have to give.
        path: PathBuf,
        /// What it would have to give.
        controller: String,
        /// How many processes it has.
        count: usize,
    },
    /// mkdir(2).
    #[error("make the cgroup {path}")]
    MakeDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A write to a control file.
    #[error("set the {what}: write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The limit in words.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A read of a control file.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// kill(2) or pidfd_open(2).
    #[error("kill process {pid} of the cgroup {path}")]
    Kill {
        /// The process.
        pid: i32,
        /// Its cgroup.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program that stands for the device rules on version 2.
    #[error("attach the device rules to the cgroup {path}")]
    DeviceFilter {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: onggi_sys::SysError,
    },
    /// A configuration that no systemd unit can be made of.
    #[error("{0}")]
    SystemdPlan(String),
    /// systemd was asked for something.
    #[error("{what}")]
    Systemd {
        /// Who, and what was asked.
        what: String,
        /// Why not.
        #[source]
        source: BusError,
    },
    /// chown(2).
    #[error("give {path} to user {uid}")]
    Delegate {
        /// The directory or file.
        path: PathBuf,
        /// The user.
        uid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// rmdir(2).
    #[error("remove the cgroup {path}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Processes that do not end although they were killed.
    #[error("the cgroup {path} still has processes {seconds} s after they were killed")]
    StillPopulated {
        /// The directory.
        path: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
    /// More than one of the above; the work went on past each.
    #[error("{}", .errors.iter().map(describe).collect::<Vec<_>>().join("; "))]
    Several {
        /// All of them.
        errors: Vec<CgroupError>,
    },
    /// The freezer did not reach the state that was asked for.
    #[error("the cgroup {path} is not {state} after {seconds} s")]
    NotFrozen {
        /// The directory.
        path: PathBuf,
        /// `frozen` or `thawed`.
        state: &'static str,
        /// How long we waited.
        seconds: u64,
    },
}

impl CgroupError {
    /// The system call that failed; empty when none did.
    pub fn call(&self) -> &'static str {
        match self {
            Self::MakeDir { .. } => "mkdir",
            Self::Write { .. } => "write",
            Self::Read { .. } => "read",
            Self::Kill { .. } => "kill",
            Self::Remove { .. } => "rmdir",
            Self::Delegate { .. } => "chown",
            Self::DeviceFilter { .. } => "bpf",
            _ => "",
        }
    }

    /// The error number of that call; 0 when none failed.
    pub fn errno(&self) -> i32 {
        match self {
            Self::MakeDir { source, .. }
            | Self::Write { source, .. }
            | Self::Read { source, .. }
            | Self::Kill { source, .. }
            | Self::Delegate { source, .. }
            | Self::Remove { source, .. } => source.raw_os_error().unwrap_or(0),
            Self::DeviceFilter { source, .. } => source.raw(),
            // What the kernel would say, for some controllers.
            Self::InternalProcesses { .. } => rustix::io::Errno::BUSY.raw_os_error(),
            _ => 0,
        }
    }

    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ControllerMissing { controller, .. } => format!(
                "leave the limit out, or enable the controller (see /proc/cgroups and the boot options \
                 cgroup_enable={controller}, cgroup_no_v1=)"
            ),
            Self::Rootless { .. } => "leave the limit out, run as root, or run in a subtree that was delegated to \
                                      this user (cgroup v2: systemd-run --user --scope -p Delegate=yes, or \
                                      --systemd-cgroup)"
                .into(),
            Self::NotMounted { .. } => "mount -t cgroup2 none /sys/fs/cgroup".into(),
            Self::Unified { .. } => "leave linux.resources.unified out; only cgroup version 2 has it".into(),
            Self::UnifiedKey { .. } => "use the name of a control file such as memory.high".into(),
            Self::Systemd { source: BusError::NoBus { .. }, .. } => {
                "systemd must run, and for an ordinary user a session of its own (XDG_RUNTIME_DIR, loginctl \
                 enable-linger); otherwise leave out what asks for it (--systemd-cgroup; --scope, --unit and --slice of limit)"
                    .into()
            }
            Self::BadPath { .. } => "use a path such as /onggi/ID".into(),
            Self::DeviceFilter { .. } => {
                "the kernel needs CONFIG_CGROUP_BPF, and this user CAP_BPF and CAP_NET_ADMIN".into()
            }
            Self::InternalProcesses { path, .. } => format!(
                "move them to a group below it (onggi cgroup create and mv, or echo PID to cgroup.procs), or choose a \
                 cgroups path that does not go through {}",
                path.display()
            ),
            Self::InUse { .. } => "remove the container that has it, or use another id".into(),
            Self::Write { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "this kernel does not have the file: leave the limit out".into()
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
                "the kernel refuses this value: check it against the limits of the parent cgroup".into()
            }
            Self::MakeDir { source, .. } | Self::Write { source, .. }
                if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                "run as root, with the cgroup filesystem mounted read-write".into()
            }
            _ => return None,
        })
    }
}

/// With the cause, because a list of errors has no single source.
fn describe(e: &CgroupError) -> String {
    match std::error::Error::source(e) {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    }
}

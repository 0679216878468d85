//! What can go wrong with groups by hand; each says what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use onggi_cgroup::CgroupError;
use rustix::io::Errno;

use super::Version;

/// Processes that an error lists.
const LISTED: usize = 10;

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// There are no control groups on this machine.
    #[error("no cgroup filesystem is mounted")]
    NotMounted,
    /// A named controller has no hierarchy.
    #[error("there is no controller {controller}")]
    NoController {
        /// As written, cut.
        controller: String,
        /// Those that there are.
        available: Vec<String>,
    },
    /// The group is in none of its hierarchies.
    #[error("there is no control group {group}")]
    NoGroup {
        /// As written.
        group: String,
    },
    /// The group stays as it is.
    #[error("{0} is the root of the hierarchy, which always is")]
    Root(String),
    /// A signal would end the machine.
    #[error("{0} is the root of the hierarchy: every process of this machine is in it or below it")]
    Everything(String),
    /// A word that is neither of the vocabulary nor a control file.
    #[error("there is no setting {key:?}")]
    UnknownKey {
        /// As written, cut.
        key: String,
        /// One that looks like it.
        near: Option<String>,
    },
    /// The group lacks the controller of a setting.
    #[error("{key} needs the {controller} controller, in which the group {group} is not")]
    NotIn {
        /// The word.
        key: String,
        /// The controller.
        controller: String,
        /// The group.
        group: String,
    },
    /// A setting that this version cannot keep.
    #[error("{key} has no counterpart in cgroup {}: {why}", .version.name())]
    NoTwin {
        /// The word.
        key: String,
        /// What this machine has.
        version: Version,
        /// The difference in words.
        why: &'static str,
    },
    /// A control file that only shows.
    #[error("{file} can only be read")]
    ReadOnly {
        /// The file.
        file: String,
    },
    /// A value outside the setting's grammar or range.
    #[error("{key}={value:?}: {reason}")]
    BadValue {
        /// The word.
        key: String,
        /// As written, cut.
        value: String,
        /// The range.
        reason: String,
    },
    /// A group with processes cannot be removed.
    #[error("the group {group} has {}: {}", count(.processes.len()), list(.processes))]
    Busy {
        /// The group.
        group: String,
        /// Their numbers and commands.
        processes: Vec<(i32, String)>,
    },
    /// A group with groups below it cannot be removed by itself.
    #[error("the group {group} has groups below it: {}", .children.join(", "))]
    HasChildren {
        /// The group.
        group: String,
        /// Their names.
        children: Vec<String>,
    },
    /// Version 2: a group has processes or gives controllers to its children.
    #[error(
        "{} cannot give {controllers} to its children: it has {} of its own ({}), and cgroup v2 allows either",
        .dir.display(), count(.processes.len()), list(.processes)
    )]
    InternalProcesses {
        /// The group.
        dir: PathBuf,
        /// `cpu memory`.
        controllers: String,
        /// Their numbers and commands.
        processes: Vec<(i32, String)>,
    },
    /// Version 2: a group that gives controllers to its children takes no processes.
    #[error(
        "{} takes no processes: it gives controllers ({controllers}) to its children, and cgroup v2 allows either",
        .dir.display()
    )]
    TakesNoProcesses {
        /// The group.
        dir: PathBuf,
        /// What it gives.
        controllers: String,
    },
    /// Version 2: below a group that has processes and gives controllers there are only threads.
    #[error(
        "{} takes no processes (its cgroup.type is {kind}): {} above it has {} of its own ({}) and gives controllers \
         ({controllers}) to its children, and cgroup v2 allows either",
        .dir.display(), .domain.display(), count(.processes.len()), list(.processes)
    )]
    OnlyThreads {
        /// The group.
        dir: PathBuf,
        /// `domain invalid` or `threaded`.
        kind: String,
        /// The one above.
        domain: PathBuf,
        /// What that one gives.
        controllers: String,
        /// Numbers and commands of its processes.
        processes: Vec<(i32, String)>,
    },
    /// A process that is not there.
    #[error("there is no process {pid}")]
    NoProcess {
        /// Its number.
        pid: i32,
    },
    /// A device of an I/O setting.
    #[error("{device} is no block device")]
    NoDevice {
        /// As written.
        device: String,
    },
    /// A file of a snapshot.
    #[error("line {line} of the snapshot: {reason}")]
    Snapshot {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A file or directory.
    #[error("cannot {operation} {}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// This machine has another init.
    #[error("systemd does not run here, and nothing else makes groups at boot")]
    NoSystemd,
    /// systemctl(1) says no.
    #[error("systemctl {words}: {said}")]
    Systemctl {
        /// Its arguments.
        words: String,
        /// Its words, cut.
        said: String,
    },
    /// A system call.
    #[error("cannot {operation}")]
    Sys {
        /// What was tried.
        operation: String,
        /// Why not.
        source: onggi_sys::SysError,
    },
    /// Below.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

fn count(n: usize) -> String {
    if n == 1 { "1 process".into() } else { format!("{n} processes") }
}

fn list(processes: &[(i32, String)]) -> String {
    let one = |(pid, command): &(i32, String)| format!("{pid} {}", command.chars().take(40).collect::<String>());
    let shown: Vec<String> = processes.iter().take(LISTED).map(one).collect();
    let more = if processes.len() > LISTED { ", …" } else { "" };
    shown.join(", ") + more
}

/// All of them, for a command line.
fn numbers(processes: &[(i32, String)]) -> String {
    let all: Vec<String> = processes.iter().take(LISTED).map(|(pid, _)| pid.to_string()).collect();
    let more = if processes.len() > LISTED { " …" } else { "" };
    all.join(" ") + more
}

/// The group of a directory of version 2, as this program names it where the hierarchy is mounted as usual.
fn group(dir: &Path) -> String {
    let group = dir.strip_prefix("/sys/fs/cgroup").unwrap_or(dir);
    group.display().to_string()
}

impl GroupError {
    /// What the user may do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotMounted => "mount -t cgroup2 none /sys/fs/cgroup".into(),
            Self::NoController { available, .. } => format!("there are {}", available.join(", ")),
            Self::NoGroup { group } => format!("make it with: onggi cgroup create {group}"),
            Self::UnknownKey { near: Some(near), .. } => format!("did you mean {near}?"),
            Self::UnknownKey { .. } => {
                "onggi cgroup set --help lists the settings; names of control files are settings too".into()
            }
            Self::NotIn { controller, group, .. } => format!("onggi cgroup create {controller}:{group} puts it there"),
            Self::Busy { group, .. } => format!(
                "onggi cgroup rm --to-parent {group} moves them to the parent as cgdelete does, --kill ends them"
            ),
            Self::HasChildren { group, .. } => format!("onggi cgroup rm -r {group} removes them too"),
            Self::InternalProcesses { dir, processes, .. } => format!(
                "move them to a group below it first: onggi cgroup create {0}/leaf; onggi cgroup mv {0}/leaf {1}",
                group(dir),
                numbers(processes)
            ),
            Self::TakesNoProcesses { dir, .. } => {
                format!("use a group below it: onggi cgroup create {}/leaf", group(dir))
            }
            Self::OnlyThreads { domain, controllers, processes, .. } => format!(
                "take the controllers back, and with them the limits below: echo {:?} > {}/cgroup.subtree_control; or move \
                 its processes elsewhere: onggi cgroup mv GROUP {}; single threads of them may enter with mv --threads, \
                 where cgroup.type is threaded",
                controllers.split(' ').map(|c| format!("-{c}")).collect::<Vec<_>>().join(" "),
                domain.display(),
                numbers(processes)
            ),
            Self::NoSystemd => {
                "keep the file of onggi cgroup snapshot, and have your init run onggi cgroup restore FILE".into()
            }
            Self::NoProcess { .. } => "ps -e lists processes".into(),
            Self::NoDevice { .. } => "name a disk as /dev/sda or 8:0; lsblk lists them".into(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "a version 1 cpuset takes processes when it has CPUs and memory nodes: onggi cgroup set GROUP cpuset=0 \
                 cpuset-mems=0"
                    .into()
            }
            Self::Io { source, .. }
            | Self::Cgroup(CgroupError::MakeDir { source, .. } | CgroupError::Write { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "the group belongs to somebody else: try sudo, or have it given to you (create --owner)".into()
            }
            Self::Sys { source, .. } if matches!(source.errno, Errno::PERM | Errno::ACCESS) => {
                "only root raises priorities and limits, and touches processes of other users".into()
            }
            Self::Cgroup(e) => return e.hint(),
            Self::Everything(_) => "name the groups that are meant: onggi cgroup ls".into(),
            Self::Root(_)
            | Self::NoTwin { .. }
            | Self::ReadOnly { .. }
            | Self::BadValue { .. }
            | Self::Snapshot { .. }
            | Self::Systemctl { .. }
            | Self::Sys { .. }
            | Self::Io { .. } => return None,
        })
    }
}

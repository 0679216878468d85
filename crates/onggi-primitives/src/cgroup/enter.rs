//! A process enters a group, and why it may not.
//!
//! Version 2 has two rules that the kernel tells with a bare EBUSY or EOPNOTSUPP (cgroup-v2.rst, "No Internal Process
//! Constraint", "Threads"): a group has processes or gives controllers to its children, and below one that has both
//! (a threaded domain) there are only threads. Here they become sentences that name the groups and the processes.

use std::{fs, io, io::Write as _, path::Path};

use rustix::io::Errno;

use super::{
    GroupError,
    members::{commands, members},
};

/// Writes a process's number (`0` is the caller) to `cgroup.procs`, `cgroup.threads` or `tasks`. Returns what the group
/// has become by it, where that is a surprise.
///
/// # Errors
/// The kernel refuses, or the process is gone.
pub(super) fn enter(file: &Path, pid: &str) -> Result<Vec<String>, GroupError> {
    let dir = file.parent().unwrap_or(file);
    let before = kind(dir);
    let written = fs::OpenOptions::new().write(true).open(file).and_then(|mut f| f.write_all(pid.as_bytes()));
    match written {
        Err(source) => Err(refused(file, pid, source)),
        Ok(()) if before == "domain" && kind(dir) == "domain threaded" => Ok(vec![format!(
            "{} gives controllers ({}) to its children and has processes now: no process can enter the groups below it, \
             only threads",
            dir.display(),
            given(dir)
        )]),
        Ok(()) => Ok(Vec::new()),
    }
}

fn refused(file: &Path, pid: &str, source: io::Error) -> GroupError {
    let dir = file.parent().unwrap_or(file);
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::SRCH) => GroupError::NoProcess { pid: pid.parse().unwrap_or(0) },
        Some(Errno::BUSY) if !given(dir).is_empty() => {
            GroupError::TakesNoProcesses { dir: dir.to_owned(), controllers: given(dir) }
        }
        Some(Errno::OPNOTSUPP) => below_threads(dir, source),
        _ => GroupError::Io { operation: "move a process by", path: file.to_owned(), source },
    }
}

/// The group above that has both, which makes threads of everything below it.
fn below_threads(dir: &Path, source: io::Error) -> GroupError {
    let kind = kind(dir);
    let Some(domain) = dir.ancestors().skip(1).find(|above| self::kind(above) == "domain threaded") else {
        return GroupError::Io { operation: "move a process into", path: dir.to_owned(), source };
    };
    GroupError::OnlyThreads {
        dir: dir.to_owned(),
        kind,
        domain: domain.to_owned(),
        controllers: given(domain),
        processes: commands(&members(domain)),
    }
}

/// `cgroup.type`; empty on version 1 and for the root.
fn kind(dir: &Path) -> String {
    fs::read_to_string(dir.join("cgroup.type")).unwrap_or_default().trim().to_owned()
}

/// `cgroup.subtree_control`.
fn given(dir: &Path) -> String {
    fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default().trim().to_owned()
}

//! The processes of a container's groups: listing and killing.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Instant,
};

use onggi_sys::small_file;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::{CgroupError, Paths, apply};

/// Version 1 hierarchies to ask for processes, best first.
const PREFERRED: [&str; 4] = ["freezer", "pids", "memory", "devices"];

/// Every process in the container's groups and in groups below them, ascending. Pids are those of the
/// reader's pid namespace; processes outside of it are left out.
pub fn pids(paths: &Paths) -> Result<Vec<i32>, CgroupError> {
    let mut found = BTreeSet::new();
    for dir in representative(paths) {
        collect(dir, &mut found)?;
    }
    Ok(found.into_iter().collect())
}

/// Sends SIGKILL to every process of the groups, and to those that they fork meanwhile. Does not wait.
pub fn kill_all(paths: &Paths) -> Result<(), CgroupError> {
    for dir in distinct(paths) {
        kill_group(&dir)?;
    }
    // A version 1 frozen process dies only after it is thawed.
    match paths.get("freezer").map(|dir| apply::write(&dir.join("freezer.state"), "THAWED", "freezer")) {
        Some(Err(e)) if !is_gone(e.errno()) => Err(e),
        _ => Ok(()),
    }
}

/// The unified directory, and the best version 1 one: together they see every process.
fn representative(paths: &Paths) -> impl Iterator<Item = &PathBuf> {
    let v1 = PREFERRED
        .iter()
        .find_map(|c| paths.get(*c))
        .or_else(|| paths.iter().find(|(c, _)| !c.is_empty()).map(|(_, p)| p));
    paths.get("").into_iter().chain(v1)
}

/// Each directory once: controllers may share one.
pub(crate) fn distinct(paths: &Paths) -> BTreeSet<PathBuf> {
    paths.values().cloned().collect()
}

/// Kills one group and those below it: at once where the kernel can (5.14), else one by one.
pub(crate) fn kill_group(dir: &Path) -> Result<(), CgroupError> {
    match apply::write(&dir.join("cgroup.kill"), "1", "kill of the group") {
        Ok(()) => return Ok(()),
        Err(e) if is_gone(e.errno()) => {}
        // Threaded groups refuse it.
        Err(e) if e.errno() == Errno::OPNOTSUPP.raw_os_error() => {}
        Err(e) => return Err(e),
    }
    open_members(dir)?.into_iter().try_for_each(|(pid, fd)| kill(dir, pid, &fd))
}

/// Waits until the processes that are in the group now have ended, at most until `deadline`.
pub(crate) fn wait_members(dir: &Path, deadline: Instant) -> Result<(), CgroupError> {
    for (_, fd) in open_members(dir)? {
        wait_readable(&fd, PollFlags::IN, deadline);
    }
    Ok(())
}

/// Blocks until `fd` reports one of `flags` or the deadline has passed. An interruption ends it early:
/// callers look at the state again anyway.
pub(crate) fn wait_readable(fd: &OwnedFd, flags: PollFlags, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    let _ = poll(&mut [PollFd::new(fd, flags)], Some(&timeout));
}

/// A pidfd for each member. A pid could be reused between reading and opening, so only processes that
/// are still listed after they were opened count.
fn open_members(dir: &Path) -> Result<Vec<(i32, OwnedFd)>, CgroupError> {
    let mut before = BTreeSet::new();
    collect(dir, &mut before)?;
    if before.is_empty() {
        return Ok(Vec::new());
    }
    let mut opened = Vec::new();
    for raw in before {
        let Some(pid) = Pid::from_raw(raw) else { continue };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => opened.push((raw, fd)),
            Err(Errno::SRCH) => {}
            Err(e) => return Err(CgroupError::Kill { pid: raw, path: dir.to_owned(), source: e.into() }),
        }
    }
    let mut after = BTreeSet::new();
    collect(dir, &mut after)?;
    opened.retain(|(pid, _)| after.contains(pid));
    Ok(opened)
}

fn kill(dir: &Path, pid: i32, fd: &OwnedFd) -> Result<(), CgroupError> {
    match pidfd_send_signal(fd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(e) => Err(CgroupError::Kill { pid, path: dir.to_owned(), source: e.into() }),
    }
}

/// The processes of one group and of those below it. A group that is gone has none.
///
/// # Errors
/// One of them cannot be read.
pub fn members(dir: &Path) -> Result<BTreeSet<i32>, CgroupError> {
    let mut found = BTreeSet::new();
    collect(dir, &mut found)?;
    Ok(found)
}

/// Adds the members of `dir` and of every group below it. A group that is gone has none.
fn collect(dir: &Path, into: &mut BTreeSet<i32>) -> Result<(), CgroupError> {
    let file = dir.join("cgroup.procs");
    let text = match small_file::read_text(&file) {
        Ok(text) => text,
        Err(e) if is_gone(e.raw_os_error().unwrap_or(0)) => return Ok(()),
        // A threaded group of version 2 lists its processes in its parent.
        Err(e) if e.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => return Ok(()),
        Err(source) => return Err(CgroupError::Read { path: file, source }),
    };
    // 0 stands for a process outside our pid namespace.
    into.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 0));
    children(dir)?.iter().try_for_each(|child| collect(child, into))
}

/// Groups directly below `dir`.
pub(crate) fn children(dir: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let fail = |source: io::Error| CgroupError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(e) if is_gone(e.raw_os_error().unwrap_or(0)) => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if entry.file_type().map_err(fail)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// No such file, or a control file of a group that was removed after it was opened.
pub(crate) fn is_gone(errno: i32) -> bool {
    [Errno::NOENT.raw_os_error(), Errno::NODEV.raw_os_error()].contains(&errno)
}

//! Removal: kill what is left, wait for it, remove the directories from the leaves up. Idempotent.
//!
//! Version 2 tells when a group is empty (`cgroup.events`), so nothing is polled there. Version 1 does
//! not: its members are waited for by pidfd, and what remains (a dying task leaves its group a moment
//! after its pidfd fires) is tried again with a growing pause.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::event::PollFlags;

use crate::{
    CgroupError, Paths,
    procs::{self, children, distinct, is_gone},
};

/// How long killed processes may take to end: one in an uninterruptible call of a slow disk is gone by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// First and longest pause between two tries on version 1.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(10));

/// How long a group that somebody else removes meanwhile may go unnoticed.
const LOOK: Duration = Duration::from_millis(50);

/// Removes the container's groups and those below them, killing every process in them. What is already
/// gone is success. A failure on one does not keep the others.
pub fn remove(paths: &Paths) -> Result<(), CgroupError> {
    let deadline = Instant::now() + PATIENCE;
    let mut errors = Vec::new();
    // First without any look inside: normally every group is empty by now.
    let mut busy: Vec<PathBuf> = distinct(paths).into_iter().filter(|p| try_remove(p, &mut errors)).collect();
    if !busy.is_empty()
        && let Err(e) = procs::kill_all(paths)
    {
        errors.push(e);
    }
    let mut pause = PAUSES.0;
    while !busy.is_empty() {
        for dir in &busy {
            if let Err(e) = kill_and_wait(dir, deadline) {
                errors.push(e);
            }
        }
        busy.retain(|p| try_remove(p, &mut errors));
        if Instant::now() >= deadline {
            let late = |path| CgroupError::StillPopulated { path, seconds: PATIENCE.as_secs() };
            errors.extend(busy.drain(..).map(late));
        } else if !busy.is_empty() {
            thread::sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }
    match errors.len() {
        0 | 1 => errors.pop().map_or(Ok(()), Err),
        _ => Err(CgroupError::Several { errors }),
    }
}

/// Removes one tree. True when it must be tried again because it is busy.
fn try_remove(dir: &Path, errors: &mut Vec<CgroupError>) -> bool {
    match remove_tree(dir) {
        Ok(()) => false,
        Err(CgroupError::Remove { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => true,
        Err(e) => {
            errors.push(e);
            false
        }
    }
}

fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    if rmdir(dir).is_ok() {
        return Ok(());
    }
    for child in children(dir)? {
        remove_tree(&child)?;
    }
    rmdir(dir)
}

fn rmdir(dir: &Path) -> Result<(), CgroupError> {
    match fs::remove_dir(dir) {
        Err(e) if !is_gone(e.raw_os_error().unwrap_or(0)) => {
            Err(CgroupError::Remove { path: dir.to_owned(), source: e })
        }
        _ => Ok(()),
    }
}

fn kill_and_wait(dir: &Path, deadline: Instant) -> Result<(), CgroupError> {
    procs::kill_group(dir)?;
    match Events::open(dir)? {
        Some(events) => events.wait("populated", '0', deadline).map(|_| ()),
        None => procs::wait_members(dir, deadline),
    }
}

/// `cgroup.events` of a version 2 group.
pub(crate) struct Events {
    file: OwnedFd,
    path: PathBuf,
}

impl Events {
    /// `None` on version 1, and when the group is gone.
    pub(crate) fn open(dir: &Path) -> Result<Option<Self>, CgroupError> {
        let path = dir.join("cgroup.events");
        match fs::File::open(&path) {
            Ok(file) => Ok(Some(Self { file: file.into(), path })),
            Err(e) if is_gone(e.raw_os_error().unwrap_or(0)) => Ok(None),
            Err(source) => Err(CgroupError::Read { path, source }),
        }
    }

    /// Blocks until `key` has the `wanted` value; false when the deadline passed first. A group that
    /// was removed meanwhile counts as reached.
    pub(crate) fn wait(&self, key: &str, wanted: char, deadline: Instant) -> Result<bool, CgroupError> {
        loop {
            match self.value(key)? {
                Some(value) if value != wanted => {}
                _ => return Ok(true),
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            // A group's removal wakes nobody who waits for its events.
            let look = deadline.min(Instant::now() + LOOK);
            procs::wait_readable(&self.file, PollFlags::PRI, look);
        }
    }

    fn value(&self, key: &str) -> Result<Option<char>, CgroupError> {
        let mut buffer = [0; 256];
        match rustix::io::pread(&self.file, &mut buffer[..], 0) {
            Ok(n) => {
                let text = String::from_utf8_lossy(&buffer[..n]);
                let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
                Ok(line.and_then(|value| value.chars().next()))
            }
            Err(e) if is_gone(e.raw_os_error()) => Ok(None),
            Err(e) => Err(CgroupError::Read { path: self.path.clone(), source: e.into() }),
        }
    }
}

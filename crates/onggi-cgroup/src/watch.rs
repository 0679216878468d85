//! Waiting for what happens to a container's memory: the OOM killer, and pressure.
//!
//! Version 1 has eventfds that are registered in `cgroup.event_control` (memory.oom_control,
//! memory.pressure_level). Version 2 makes `memory.events` readable with POLLPRI when it changes, and
//! `memory.pressure` takes a trigger (Documentation/accounting/psi.rst).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::{CgroupError, Paths, apply, procs::is_gone, stats::Fields};

/// How much pressure is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Memory is being reclaimed.
    Low,
    /// Swapping, or reclaim of what is in use.
    Medium,
    /// Close to the OOM killer.
    Critical,
}

impl Pressure {
    /// The level of version 1.
    fn level(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::Critical => "critical",
        }
    }

    /// The trigger of version 2: so many microseconds of stall in a window of a second (two for a user
    /// without privilege, who may not ask for less).
    fn trigger(self) -> &'static str {
        match self {
            Self::Low => "some 100000 2000000",
            Self::Medium => "some 500000 2000000",
            Self::Critical => "full 500000 2000000",
        }
    }
}

/// What a look at a [`Watch`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing within the time.
    Nothing,
    /// It happened.
    Event,
    /// The container's group is gone or empty: nothing more will happen.
    Gone,
    /// The caller's own descriptor is readable.
    Caller,
}

/// A registered interest in one thing.
#[derive(Debug)]
pub struct Watch {
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// An eventfd, and the directory whose disappearance makes it fire too. The registered file stays open.
    Eventfd { events: File, dir: PathBuf, _registered: File },
    /// `memory.events` and the OOM kills that were counted when it was read last.
    Counter { file: OwnedFd, dir: PathBuf, kills: u64 },
    /// A pressure file with its trigger.
    Trigger { file: File, dir: PathBuf },
}

impl Watch {
    /// Kills by the OOM killer.
    ///
    /// # Errors
    /// The container has no memory controller, or its files cannot be opened.
    pub fn oom(paths: &Paths) -> Result<Self, CgroupError> {
        let source = match (paths.get("memory"), paths.get("")) {
            (Some(dir), _) => register(dir, "memory.oom_control", "")?,
            (None, Some(dir)) => {
                let path = dir.join("memory.events");
                let file = File::open(&path).map_err(|source| CgroupError::Read { path, source })?;
                Source::Counter { file: file.into(), dir: dir.clone(), kills: kills(dir)? }
            }
            (None, None) => return Err(missing("events of the OOM killer")),
        };
        Ok(Self { source })
    }

    /// Memory pressure.
    ///
    /// # Errors
    /// As [`Watch::oom`]; also a kernel without pressure information.
    pub fn pressure(paths: &Paths, level: Pressure) -> Result<Self, CgroupError> {
        let source = match (paths.get("memory"), paths.get("")) {
            (Some(dir), _) => register(dir, "memory.pressure_level", level.level())?,
            (None, Some(dir)) => {
                let path = dir.join("memory.pressure");
                let opened = OpenOptions::new().read(true).write(true).open(&path);
                let file = opened.map_err(|source| CgroupError::Read { path: path.clone(), source })?;
                rustix::io::write(&file, level.trigger().as_bytes()).map_err(|e| CgroupError::Write {
                    path,
                    value: level.trigger().into(),
                    what: "trigger of memory pressure".into(),
                    source: e.into(),
                })?;
                Source::Trigger { file, dir: dir.clone() }
            }
            (None, None) => return Err(missing("events of memory pressure")),
        };
        Ok(Self { source })
    }

    /// Waits for an event, for `caller` to become readable, or for the time to pass.
    ///
    /// # Errors
    /// poll(2) or a read of the group's files.
    pub fn wait(&mut self, caller: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<Seen, CgroupError> {
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let mut fds = [self.poll_fd(), PollFd::from_borrowed_fd(caller, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Seen::Nothing),
            Ok(_) => {}
            Err(e) => return Err(CgroupError::Read { path: self.dir().to_owned(), source: e.into() }),
        }
        let ready = fds.map(|fd| !fd.revents().is_empty());
        if ready[0] {
            return self.look();
        }
        Ok(if ready[1] { Seen::Caller } else { Seen::Nothing })
    }

    fn dir(&self) -> &Path {
        match &self.source {
            Source::Eventfd { dir, .. } | Source::Counter { dir, .. } | Source::Trigger { dir, .. } => dir,
        }
    }

    fn poll_fd(&self) -> PollFd<'_> {
        match &self.source {
            Source::Eventfd { events, .. } => PollFd::new(events, PollFlags::IN),
            Source::Counter { file, .. } => PollFd::new(file, PollFlags::PRI),
            Source::Trigger { file, .. } => PollFd::new(file, PollFlags::PRI),
        }
    }

    fn look(&mut self) -> Result<Seen, CgroupError> {
        if !self.dir().join("cgroup.procs").exists() {
            return Ok(Seen::Gone);
        }
        match &mut self.source {
            Source::Eventfd { events, dir, .. } => {
                let mut count = [0; 8];
                events.read_exact(&mut count).map_err(|source| CgroupError::Read { path: dir.clone(), source })?;
                Ok(Seen::Event)
            }
            Source::Counter { file, dir, kills: known } => {
                // POLLPRI stays until the file is read through the same descriptor.
                let mut buffer = [0; 512];
                match rustix::io::pread(&*file, &mut buffer[..], 0) {
                    Err(e) if is_gone(e.raw_os_error()) => return Ok(Seen::Gone),
                    Err(e) => return Err(CgroupError::Read { path: dir.clone(), source: e.into() }),
                    Ok(_) => {}
                }
                let now = kills(dir)?;
                let more = now > *known;
                *known = now;
                Ok(if more { Seen::Event } else { Seen::Nothing })
            }
            Source::Trigger { .. } => Ok(Seen::Event),
        }
    }
}

fn missing(what: &str) -> CgroupError {
    CgroupError::ControllerMissing { controller: "memory".into(), what: what.into() }
}

fn kills(dir: &Path) -> Result<u64, CgroupError> {
    Ok(Fields::read(dir, "memory.events")?.get("oom_kill"))
}

/// `cgroup.event_control` (Documentation/admin-guide/cgroup-v1/memory.rst): "eventfd file argument".
fn register(dir: &Path, file: &str, argument: &str) -> Result<Source, CgroupError> {
    let path = dir.join(file);
    let registered = File::open(&path).map_err(|source| CgroupError::Read { path, source })?;
    let events: File = match eventfd(0, EventfdFlags::CLOEXEC) {
        Ok(fd) => fd.into(),
        Err(e) => return Err(CgroupError::Read { path: "eventfd".into(), source: io::Error::from(e) }),
    };
    let line = format!("{} {} {argument}", events.as_raw_fd(), registered.as_raw_fd());
    apply::write(&dir.join("cgroup.event_control"), line.trim_end(), "memory events")?;
    Ok(Source::Eventfd { events, dir: dir.to_owned(), _registered: registered })
}

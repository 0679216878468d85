//! A process that stands ready before its program until somebody opens a FIFO (`exec --exec-wait-fifo`).
//!
//! The runtime holds the writing end, so that whoever opens the FIFO for reading is not kept waiting, and watches it
//! with inotify(7). The process inherits both, waits with a single read(2), which no reasonable filter forbids, and
//! closes both by executing its program: that is the end of file which the reader sees. No path is resolved in the
//! container, and nothing depends on what its user may open.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use onggi_sys::{Errno, SysContext};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{
        FileType, Mode, OFlags,
        inotify::{self, CreateFlags, WatchFlags},
    },
};

use crate::error::{Result, StartFailureError, Step};

/// Both ends of the wait, to be inherited until exec.
#[derive(Debug)]
pub(crate) struct WaitFifo {
    /// Writing end: who opens the other sees end of file when the program runs.
    pub(crate) end: OwnedFd,
    /// Readable when somebody has opened the FIFO; absent when a reader was there before us.
    pub(crate) opened: Option<OwnedFd>,
}

/// Room for one event without a name.
const EVENT: usize = 64;

impl WaitFifo {
    /// Opens the FIFO of the caller.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let step = || format!("failed to open exec wait fifo {}", path.display());
        let context = || format!("{path:?}");
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = rustix::fs::open(path, flags, Mode::empty()).sys("open", context).step(step)?;
        let stat = rustix::fs::fstat(&found).sys("fstat", context).step(step)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
            return Err(StartFailureError::new(format!("exec wait fifo {} is not a fifo", path.display()))
                .hint("make one with mkfifo(1)"));
        }
        // What was looked at is what is opened.
        let same = format!("/proc/self/fd/{}", found.as_raw_fd());
        let open = |flags| rustix::fs::open(same.as_str(), flags | OFlags::CLOEXEC, Mode::empty()).sys("open", context);
        // With both ends open, opening one does not wait.
        let both = open(OFlags::RDWR).step(step)?;
        let end = open(OFlags::WRONLY).step(step)?;
        drop(both);
        let watch = inotify::init(CreateFlags::CLOEXEC).sys("inotify_init", || "").step(step)?;
        inotify::add_watch(&watch, same.as_str(), WatchFlags::OPEN).sys("inotify_add_watch", context).step(step)?;
        // Whoever came before the watch shows here, whoever comes later there.
        let opened = if has_reader(&end).step(step)? { None } else { Some(watch) };
        Ok(Self { end, opened })
    }

    /// Waits in the new process, between its last preparation and its program.
    pub(crate) fn wait(&self) -> Result<()> {
        let Some(opened) = &self.opened else { return Ok(()) };
        let mut event = [0; EVENT];
        loop {
            match rustix::io::read(opened, &mut event) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => {
                    return Err(onggi_sys::SysError::new("read", "inotify", e))
                        .step(|| "wait for the reader of the exec wait fifo".into());
                }
            }
        }
    }
}

/// A pipe without any reader is in error (poll(2)).
fn has_reader(end: &OwnedFd) -> onggi_sys::Result<bool> {
    let mut fds = [PollFd::new(end, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).sys("poll", || "fifo")?;
    Ok(!fds[0].revents().contains(PollFlags::ERR))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::unix::fs::FileTypeExt, thread};

    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn whoever_opens_the_fifo_ends_the_wait_and_sees_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(std::fs::metadata(&path).unwrap().file_type().is_fifo());
        let wait = WaitFifo::open(&path).unwrap();
        assert!(wait.opened.is_some());
        let reader = thread::spawn({
            let path = path.clone();
            move || {
                let mut text = String::new();
                File::open(path).unwrap().read_to_string(&mut text).unwrap()
            }
        });
        wait.wait().unwrap();
        drop(wait);
        assert_eq!(reader.join().unwrap(), 0);
    }

    #[test]
    fn what_is_no_fifo_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let missing = WaitFifo::open(&path).unwrap_err().to_string();
        assert!(missing.contains("failed to open exec wait fifo"), "{missing}");
        std::fs::write(&path, "").unwrap();
        assert!(WaitFifo::open(&path).unwrap_err().to_string().contains("is not a fifo"));
    }
}

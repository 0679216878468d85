//! Waiting for a process in the foreground: signals are forwarded, a terminal is copied, readiness is passed
//! on, the process's exit code becomes ours. One loop over poll(2).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use onggi_sandbox::StartFailureError;
use onggi_sys::{SysContext, event::SignalFd, process, pty, signal::number};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{CliError, notify::Notify, terminal::Raw};

const BUFFER: usize = 16 * 1024;
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

fn failed(e: onggi_sys::SysError) -> CliError {
    StartFailureError::from_sys("wait for the container", &e).into()
}

/// Blocks the signals that are to be forwarded, before the process exists: none is lost, and none kills the
/// runtime while something is half made. With `subreaper`, orphans of a container without a pid namespace
/// become our children.
pub(super) fn prepare(subreaper: bool) -> Result<SignalFd, CliError> {
    if subreaper {
        process::set_subreaper(true).map_err(failed)?;
    }
    // 32 and 33 belong to the C library.
    let all: Vec<i32> = (1..=64).filter(|n| !matches!(*n, number::KILL | number::STOP | 32 | 33)).collect();
    SignalFd::block(&all).map_err(failed)
}

/// Signals that are about this program and not about the container: its children, Go's own scheduling, and
/// what the terminal says to a background process.
fn is_own(signal: i32) -> bool {
    matches!(signal, number::CHLD | number::URG | number::TTIN | number::TTOU | number::WINCH)
}

/// A process that is our child, and what is relayed for it.
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// The terminal's master.
    pub(super) console: Option<OwnedFd>,
    /// Its readiness is passed on.
    pub(super) notify: Option<Notify>,
}

/// What poll(2) found: a signal, input, output of the terminal, a notification.
type Ready = [bool; 4];

impl Process {
    /// Waits for its end; returns its exit code.
    pub(super) fn wait(mut self, signals: &SignalFd) -> Result<i32, CliError> {
        let raw = self.console.is_some().then(Raw::enter);
        let mut stdin_open = self.console.is_some();
        self.copy_size();
        // Only a terminal is copied.
        let mut buffer = vec![0u8; if self.console.is_some() { BUFFER } else { 0 }];
        let code = loop {
            let [signal, stdin, console, notify] = self.poll(signals, stdin_open)?;
            if console {
                self.read_console(&mut buffer);
            }
            if let Some(console) = self.console.as_ref().filter(|_| stdin) {
                stdin_open = copy(io::stdin().as_fd(), console.as_fd(), &mut buffer);
            }
            if notify && self.notify.as_mut().is_none_or(Notify::pass_on) {
                self.notify = None;
            }
            if signal && let Some(code) = self.handle(signals)? {
                break code;
            }
        };
        // What it wrote before its end is still in the terminal.
        while self.console.as_ref().is_some_and(readable) {
            self.read_console(&mut buffer);
        }
        drop(raw);
        Ok(code)
    }

    fn poll(&self, signals: &SignalFd, stdin_open: bool) -> Result<Ready, CliError> {
        let stdin = io::stdin();
        let sources = [
            Some(signals.as_fd()),
            stdin_open.then(|| stdin.as_fd()).filter(|_| self.console.is_some()),
            self.console.as_ref().map(AsFd::as_fd),
            self.notify.as_ref().map(Notify::as_fd),
        ];
        let mut fds: Vec<_> = sources.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(Ready::default()),
            r => r.sys("poll", || "").map_err(failed)?,
        };
        let mut found = fds.iter().map(|fd| !fd.revents().is_empty());
        Ok(sources.map(|source| source.is_some() && found.next().unwrap_or(false)))
    }

    fn copy_size(&self) {
        if let Some(console) = &self.console
            && let Ok((columns, rows)) = pty::size(io::stdin().as_fd())
        {
            let _ = pty::set_size(console.as_fd(), columns, rows);
        }
    }

    /// Everything has been read once the last process that holds the terminal is gone.
    fn read_console(&mut self, buffer: &mut [u8]) {
        let open = self.console.as_ref().is_some_and(|c| copy(c.as_fd(), io::stdout().as_fd(), buffer));
        if !open {
            self.console = None;
        }
    }

    /// Reads every pending signal; the exit code when the process has ended.
    fn handle(&self, signals: &SignalFd) -> Result<Option<i32>, CliError> {
        while let Some(signal) = signals.read() {
            match signal {
                number::CHLD => {
                    if let Some(code) = self.reap()? {
                        return Ok(Some(code));
                    }
                }
                number::WINCH => self.copy_size(),
                n if is_own(n) => {}
                // The process may have ended meanwhile; then SIGCHLD is next.
                n => drop(process::pidfd_kill(self.pidfd.as_fd(), n)),
            }
        }
        Ok(None)
    }

    /// Reaps whatever has ended.
    fn reap(&self) -> Result<Option<i32>, CliError> {
        let mut code = None;
        loop {
            match process::reap_any() {
                Ok(Some((pid, exit))) if pid == self.pid => code = Some(exit.code()),
                Ok(Some(_)) => {}
                Err(e) if e.errno != Errno::CHILD => return Err(failed(e)),
                _ => return Ok(code),
            }
        }
    }
}

fn readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&NOW)).is_ok_and(|n| n > 0)
}

/// One read and its writes; false at the end. A terminal master reports EIO when its last slave is closed.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
    let n = match rustix::io::read(from, &mut *buffer) {
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Ok(0) | Err(_) => return false,
        Ok(n) => n,
    };
    let mut left = &buffer[..n];
    while !left.is_empty() {
        match rustix::io::write(to, left) {
            Err(Errno::INTR) => {}
            Ok(written) => left = &left[written..],
            Err(_) => return false,
        }
    }
    true
}

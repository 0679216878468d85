//! The foreground with a terminal: bytes between ours and the container's, raw mode, window size.

use std::{
    io::{self, IsTerminal},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use onggi_sandbox::StartFailureError;
use onggi_spec::oci::runtime::{ConsoleSize, Process};
use onggi_sys::{process, pty, signal};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    termios::{OptionalActions, Termios},
};

use super::CliError;

const BUFFER: usize = 16 * 1024;
/// How often the size is compared and the process looked at while nothing else happens.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Gives a process without a console size that of our own terminal.
pub(super) fn inherit_size(process: Option<&mut Process>) {
    let Some(process) = process.filter(|p| p.console_size.is_none()) else { return };
    if let Ok((width, height)) = pty::size(io::stdin().as_fd()) {
        process.console_size = Some(ConsoleSize { height: height.into(), width: width.into() });
    }
}

/// Raw mode for as long as this lives.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Self(None);
        }
        let Ok(old) = rustix::termios::tcgetattr(&stdin) else { return Self(None) };
        let mut raw = old.clone();
        raw.make_raw();
        let set = rustix::termios::tcsetattr(&stdin, OptionalActions::Flush, &raw);
        Self(set.is_ok().then_some(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(old) = &self.0 {
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, old);
        }
    }
}

/// Copies until the process has ended and its last output was read; returns its exit code.
pub(super) fn relay(pidfd: &OwnedFd, master: OwnedFd) -> Result<i32, CliError> {
    let failed = |e: onggi_sys::SysError| CliError::from(StartFailureError::from_sys("relay the terminal", &e));
    let raw = Raw::enter();
    let (mut stdin_open, mut master_open) = (true, true);
    let mut size = None;
    let mut buffer = vec![0u8; BUFFER];
    while master_open {
        follow_size(&master, &mut size);
        let (stdin_ready, master_ready) = wait_readable(stdin_open, master.as_fd());
        if stdin_ready {
            stdin_open = copy(io::stdin().as_fd(), master.as_fd(), &mut buffer);
        }
        if master_ready {
            master_open = copy(master.as_fd(), io::stdout().as_fd(), &mut buffer);
        } else if ended(pidfd) {
            // Something else holds the terminal; the container's own process is gone.
            break;
        }
    }
    drop(raw);
    let _ = signal::block_all();
    process::wait_pidfd(pidfd.as_fd()).map(process::Exit::code).map_err(failed)
}

fn follow_size(master: &OwnedFd, last: &mut Option<(u16, u16)>) {
    let now = pty::size(io::stdin().as_fd()).ok();
    if now != *last {
        if let Some((columns, rows)) = now {
            let _ = pty::set_size(master.as_fd(), columns, rows);
        }
        *last = now;
    }
}

fn ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
}

fn wait_readable(stdin_open: bool, master: BorrowedFd<'_>) -> (bool, bool) {
    let stdin = io::stdin();
    let mut fds = vec![PollFd::from_borrowed_fd(master, PollFlags::IN)];
    if stdin_open {
        fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
    }
    if poll(&mut fds, Some(&TICK)).is_err() {
        return (false, false);
    }
    let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    (fds.get(1).is_some_and(ready), ready(&fds[0]))
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

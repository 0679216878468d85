//! Stays with a foreground process: forwards signals, copies a terminal, returns its exit code.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use onggi_sys::{
    Result, SysError,
    event::SignalFd,
    process::{pidfd_kill, wait_pidfd},
    pty,
    signal::number,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    termios::{self, OptionalActions, Termios},
};

/// SIGUSR1 (signal(7), x86-64 and arm64).
const USR1: i32 = 10;
/// SIGUSR2.
const USR2: i32 = 12;
/// Signals that are passed on; SIGKILL and SIGSTOP cannot be, SIGCHLD and SIGURG are our own business.
const FORWARDED: [i32; 9] = [
    number::HUP,
    number::INT,
    number::QUIT,
    USR1,
    USR2,
    number::TERM,
    number::CONT,
    number::TSTP,
    number::WINCH,
];
/// Bytes copied at a time.
const CHUNK: usize = 16 * 1024;

/// Waits for the process behind `pidfd`, a child of ours. `master` is its terminal, if it has one.
///
/// # Errors
/// A system call of ours failed; the process may still run.
pub(crate) fn stay(pidfd: BorrowedFd<'_>, master: Option<OwnedFd>) -> Result<i32> {
    let signals = SignalFd::block(&FORWARDED)?;
    let Some(master) = master else {
        wait_without_terminal(pidfd, &signals)?;
        return Ok(wait_pidfd(pidfd)?.code());
    };
    let raw = RawInput::enter();
    copy_size(&master);
    copy_terminal(pidfd, &master, &signals)?;
    drop(raw);
    Ok(wait_pidfd(pidfd)?.code())
}

fn wait_without_terminal(pidfd: BorrowedFd<'_>, signals: &SignalFd) -> Result<()> {
    loop {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        wait(&mut fds)?;
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        forward(pidfd, signals, None)?;
    }
}

fn copy_terminal(pidfd: BorrowedFd<'_>, master: &OwnedFd, signals: &SignalFd) -> Result<()> {
    let stdin = io::stdin();
    let mut input_open = true;
    loop {
        let input = if input_open { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(&pidfd, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(master, PollFlags::IN),
            PollFd::new(&stdin, input),
        ];
        wait(&mut fds)?;
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        forward(pidfd, signals, Some(master))?;
        if ready[2] && !copy_output(master) {
            return Ok(());
        }
        if ready[0] && !ready[2] {
            return Ok(());
        }
        if ready[3] && input_open {
            input_open = copy_input(master);
        }
    }
}

/// False at the end: a terminal whose other side is closed reads as EIO.
fn copy_output(master: &OwnedFd) -> bool {
    let mut buffer = [0u8; CHUNK];
    match rustix::io::read(master, &mut buffer) {
        Ok(n @ 1..) => {
            let mut out = io::stdout().lock();
            // Nobody reads our stdout any more: the process goes on without a reader.
            let _ = out.write_all(&buffer[..n]).and_then(|()| out.flush());
            true
        }
        Err(Errno::INTR | Errno::AGAIN) => true,
        _ => false,
    }
}

/// False when our stdin has ended.
fn copy_input(master: &OwnedFd) -> bool {
    let mut buffer = [0u8; CHUNK];
    match io::stdin().read(&mut buffer) {
        Ok(n @ 1..) => {
            let mut rest = &buffer[..n];
            while let Ok(written @ 1..) = rustix::io::write(master, rest) {
                rest = &rest[written..];
            }
            true
        }
        _ => false,
    }
}

fn forward(pidfd: BorrowedFd<'_>, signals: &SignalFd, master: Option<&OwnedFd>) -> Result<()> {
    while let Some(signal) = signals.read() {
        if signal == number::WINCH {
            master.into_iter().for_each(copy_size);
            continue;
        }
        match pidfd_kill(pidfd, signal) {
            Err(e) if e.raw() != Errno::SRCH.raw_os_error() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Gives the terminal the size of ours; without one it keeps its own.
fn copy_size(master: &OwnedFd) {
    if let Ok((columns, rows)) = pty::size(io::stdin().as_fd()) {
        // The terminal may be closed already.
        let _ = pty::set_size(master.as_fd(), columns, rows);
    }
}

fn wait(fds: &mut [PollFd<'_>]) -> Result<()> {
    match poll(fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(SysError::new("poll", "", e)),
    }
}

/// Our stdin in raw mode, restored when dropped; nothing when it is no terminal.
struct RawInput(Option<Termios>);

impl RawInput {
    fn enter() -> Self {
        let saved = termios::tcgetattr(io::stdin()).ok();
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            raw.make_raw();
            // A terminal that refuses raw mode is used as it is.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw);
        }
        Self(saved)
    }
}

impl Drop for RawInput {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            // It may have been closed; then there is nothing to restore.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, saved);
        }
    }
}

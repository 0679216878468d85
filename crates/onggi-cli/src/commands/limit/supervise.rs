//! Waits for a command that is limited, hands signals on to it, and keeps its share where no group does.

use std::{
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    process::Command,
    time::Instant,
};

use onggi_primitives::limit::{Duty, Inside};
use onggi_sys::process::{pidfd_kill, pidfd_open, reap_any, set_subreaper};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::error::CliError;

/// What the command gets in our place.
const HANDED_ON: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM];

/// Signals that have come, each with a stream that gets a byte when it does.
struct Inbox(Vec<(i32, UnixStream)>);

impl Inbox {
    fn open() -> io::Result<Self> {
        let one = |signal: i32| {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal, write)?;
            Ok((signal, read))
        };
        HANDED_ON.into_iter().map(one).collect::<io::Result<_>>().map(Self)
    }

    fn arrived(&self) -> Vec<i32> {
        let came = |(_, stream): &&(i32, UnixStream)| matches!((&mut &*stream).read(&mut [0; 16]), Ok(1..));
        self.0.iter().filter(came).map(|(signal, _)| *signal).collect()
    }
}

/// Runs the command; its exit code, or 128 and the signal.
pub(super) fn command(inside: &Inside, duty: Option<u64>) -> Result<u8, CliError> {
    let inbox = Inbox::open().map_err(CliError::Signals)?;
    if duty.is_some() {
        // What the command leaves behind stays below us, where it is counted.
        let _ = set_subreaper(true);
    }
    let own = "/proc/self/exe";
    let failed = |source| CliError::Execute { program: own.into(), source };
    let mut program = Command::new(own);
    program.args(["__limit", &serde_json::to_string(inside)?]);
    let child = program.spawn().map_err(failed)?;
    let pid = child.id().cast_signed();
    let duty = duty.map(|nano| Duty::new(&[pid], nano));
    wait(pid, &inbox, duty).map_err(failed)
}

fn wait(pid: i32, inbox: &Inbox, mut duty: Option<Duty>) -> io::Result<u8> {
    let pidfd = pidfd_open(pid)?;
    loop {
        let pause = duty.as_mut().and_then(|duty| duty.step(Instant::now()));
        let pause = pause.map(|p| Timespec { tv_sec: 0, tv_nsec: i64::from(p.subsec_nanos()) });
        let mut watched = vec![PollFd::new(&pidfd, PollFlags::IN)];
        watched.extend(inbox.0.iter().map(|(_, stream)| PollFd::new(stream, PollFlags::IN)));
        match poll(&mut watched, pause.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ended = !watched[0].revents().is_empty();
        for signal in inbox.arrived() {
            if !from_terminal(signal) {
                // It may have ended by itself.
                let _ = pidfd_kill(pidfd.as_fd(), signal);
            }
        }
        if !ended {
            continue;
        }
        while let Some((reaped, exit)) = reap_any()? {
            if reaped == pid {
                return Ok(u8::try_from(exit.code()).unwrap_or(u8::MAX));
            }
        }
    }
}

/// Keys of a terminal reach everybody in its foreground: the command has them already.
fn from_terminal(signal: i32) -> bool {
    if !matches!(signal, SIGINT | SIGQUIT) {
        return false;
    }
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Keeps processes that are not ours to their share, until they end or a signal tells us to stop.
pub(super) fn processes(mut duty: Duty) -> Result<u8, CliError> {
    let inbox = Inbox::open().map_err(CliError::Signals)?;
    while let Some(pause) = duty.step(Instant::now()) {
        let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let mut watched: Vec<PollFd<'_>> = inbox.0.iter().map(|(_, s)| PollFd::new(s, PollFlags::IN)).collect();
        let _ = poll(&mut watched, Some(&pause));
        if !inbox.arrived().is_empty() {
            break;
        }
    }
    duty.release();
    Ok(0)
}

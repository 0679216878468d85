//! The command that is run in other namespaces.

use std::{
    ffi::OsStr,
    io::{self, Read as _},
    os::{
        fd::AsFd as _,
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use onggi_sys::process::{pidfd_kill, pidfd_open};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::error::CliError;

/// What this process becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Become {
    /// The command.
    Command,
    /// The parent of the command, which waits for it.
    Child,
}

/// The words, or the user's shell.
pub(crate) fn command_or_shell(words: Vec<String>) -> Vec<String> {
    let shell = || std::env::var("SHELL").ok().filter(|s| !s.is_empty()).unwrap_or_else(|| "/bin/sh".to_owned());
    if words.is_empty() { vec![shell()] } else { words }
}

/// Runs a command; the exit code is its own.
pub(crate) fn run(words: &[impl AsRef<OsStr>], how: Become) -> Result<u8, CliError> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(CliError::usage("there is no command", "name one"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    let failed = |source| CliError::Execute { program: program.as_ref().to_string_lossy().into_owned(), source };
    match how {
        Become::Command => Err(failed(command.exec())),
        Become::Child => wait(&mut command).map_err(failed),
    }
}

/// Runs a child. The terminal's signals reach it by themselves, the others are handed on. There is no thread for
/// that: a process whose children are in another pid namespace cannot make one (EINVAL of clone(2)).
fn wait(command: &mut Command) -> io::Result<u8> {
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::clone(&ignored))?;
    }
    let handed_on: Vec<(i32, UnixStream)> =
        [SIGHUP, SIGTERM].into_iter().map(|signal| Ok((signal, announced(signal)?))).collect::<io::Result<_>>()?;
    let mut child = command.spawn()?;
    let pidfd = pidfd_open(child.id().cast_signed())?;
    loop {
        let mut watched = vec![PollFd::new(&pidfd, PollFlags::IN)];
        watched.extend(handed_on.iter().map(|(_, stream)| PollFd::new(stream, PollFlags::IN)));
        match poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ended = !watched[0].revents().is_empty();
        for (signal, stream) in &handed_on {
            if matches!((&*stream).read(&mut [0; 16]), Ok(1..)) {
                // It may have ended by itself.
                let _ = pidfd_kill(pidfd.as_fd(), *signal);
            }
        }
        if ended {
            break;
        }
    }
    let status = child.wait()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// A stream that gets a byte whenever the signal arrives.
fn announced(signal: i32) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, write)?;
    Ok(read)
}

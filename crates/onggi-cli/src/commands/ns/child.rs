//! The command that is run in other namespaces.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    process::{Child, Command},
    sync::{Arc, atomic::AtomicBool},
};

use onggi_sys::process::{pidfd_kill, pidfd_open};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::error::CliError;

/// The words, or the user's shell.
pub(crate) fn command_or_shell(words: Vec<String>) -> Vec<String> {
    let shell = || std::env::var("SHELL").ok().filter(|s| !s.is_empty()).unwrap_or_else(|| "/bin/sh".to_owned());
    if words.is_empty() { vec![shell()] } else { words }
}

/// A command that is to be run here.
pub(crate) struct Program<'p, W> {
    /// Program and arguments.
    pub(crate) words: &'p [W],
    /// Its environment, instead of ours.
    pub(crate) environment: Option<&'p [(OsString, OsString)]>,
}

/// Becomes a command.
pub(crate) fn become_command(words: &[impl AsRef<OsStr>]) -> Result<u8, CliError> {
    Program { words, environment: None }.become_it()
}

/// Runs a command as a child; the exit code is its own. `started` is called once it is there.
pub(crate) fn run(words: &[impl AsRef<OsStr>], started: impl FnOnce() -> Result<(), CliError>) -> Result<u8, CliError> {
    Program { words, environment: None }.run(started)
}

impl<W: AsRef<OsStr>> Program<'_, W> {
    /// This process becomes it.
    pub(crate) fn become_it(&self) -> Result<u8, CliError> {
        let source = self.prepare()?.exec();
        Err(self.failed(source))
    }

    /// A child becomes it; the exit code is its own. `started` is called once it is there.
    pub(crate) fn run(&self, started: impl FnOnce() -> Result<(), CliError>) -> Result<u8, CliError> {
        let watched = Watched::start(&mut self.prepare()?).map_err(|e| self.failed(e))?;
        let allowed = started();
        let code = watched.wait().map_err(|e| self.failed(e))?;
        allowed.map(|()| code)
    }

    fn prepare(&self) -> Result<Command, CliError> {
        let Some((program, arguments)) = self.words.split_first() else {
            return Err(CliError::usage("there is no command", "name one"));
        };
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(environment) = self.environment {
            command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        }
        Ok(command)
    }

    fn failed(&self, source: io::Error) -> CliError {
        let program = self.words.first().map(|word| word.as_ref().to_string_lossy().into_owned());
        CliError::Execute { program: program.unwrap_or_default(), source }
    }
}

/// A child. The terminal's signals reach it by themselves, the others are handed on. There is no thread for that: a
/// process whose children are in another pid namespace cannot make one (EINVAL of clone(2)).
struct Watched {
    child: Child,
    pidfd: OwnedFd,
    handed_on: Vec<(i32, UnixStream)>,
}

impl Watched {
    fn start(command: &mut Command) -> io::Result<Self> {
        let ignored = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::clone(&ignored))?;
        }
        let handed_on =
            [SIGHUP, SIGTERM].into_iter().map(|signal| Ok((signal, announced(signal)?))).collect::<io::Result<_>>()?;
        let child = command.spawn()?;
        let pidfd = pidfd_open(child.id().cast_signed())?;
        Ok(Self { child, pidfd, handed_on })
    }

    fn wait(mut self) -> io::Result<u8> {
        loop {
            let mut watched = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            watched.extend(self.handed_on.iter().map(|(_, stream)| PollFd::new(stream, PollFlags::IN)));
            match poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            let ended = !watched[0].revents().is_empty();
            for (signal, stream) in &self.handed_on {
                if matches!((&*stream).read(&mut [0; 16]), Ok(1..)) {
                    // It may have ended by itself.
                    let _ = pidfd_kill(self.pidfd.as_fd(), *signal);
                }
            }
            if ended {
                break;
            }
        }
        let status = self.child.wait()?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }
}

/// A stream that gets a byte whenever the signal arrives.
fn announced(signal: i32) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, write)?;
    Ok(read)
}

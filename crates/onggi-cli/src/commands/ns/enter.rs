//! `onggi ns enter`, as nsenter(1).

use std::{
    io::{self, Read as _},
    os::{
        fd::AsFd as _,
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::PathBuf,
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use clap::Args;
use onggi_observe::{Kind, Target, enter};
use onggi_sys::process::{pidfd_kill, pidfd_open};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::{cli::GlobalArgs, commands::subject, error::CliError};

/// Arguments of `ns enter`.
#[derive(Debug, Args)]
pub(crate) struct EnterArgs {
    /// Only these kinds; all that differ from yours otherwise: cgroup, ipc, mnt, net, pid, time, user, uts
    #[arg(short = 't', long = "type", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Working directory, as it is called inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// A process, a running container, or a path with a slash to a file that keeps a namespace
    #[arg(value_name = "PID|CONTAINER|FILE")]
    target: String,
    /// Command and its arguments; your shell otherwise
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl EnterArgs {
    /// Enters and runs the command; the exit code is the command's.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let target = match self.target.contains('/') {
            true if !self.kinds.is_empty() => {
                return Err(CliError::usage("a file keeps one namespace, whose kind it knows", "leave --type out"));
            }
            true => Target::File(self.target.into()),
            false => Target::Process { pid: subject::pid(&self.target, global)?, kinds: self.kinds },
        };
        let shell = || vec![std::env::var("SHELL").ok().filter(|s| !s.is_empty()).unwrap_or_else(|| "/bin/sh".into())];
        let words = if self.command.is_empty() { shell() } else { self.command };
        let kinds = enter(&target)?;
        let (program, arguments) = words.split_first().ok_or_else(|| CliError::usage("no command", "give one"))?;
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(dir) = &self.workdir {
            std::env::set_current_dir(dir)
                .map_err(|source| CliError::ReadFile { path: dir.display().to_string(), source })?;
        }
        let failed = |source| CliError::Execute { program: program.clone(), source };
        // Only a child is in another pid or time namespace; without one this process itself becomes the command.
        match kinds.iter().any(|kind| matches!(kind, Kind::Pid | Kind::Time)) {
            false => Err(failed(command.exec())),
            true => wait(&mut command).map_err(failed),
        }
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

//! `onggi ns enter`, as nsenter(1).

use std::path::PathBuf;

use clap::Args;
use onggi_primitives::{Kind, Target, enter};

use super::child;
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
        let words = child::command_or_shell(self.command);
        let kinds = enter(&target)?;
        if let Some(dir) = &self.workdir {
            std::env::set_current_dir(dir)
                .map_err(|source| CliError::ReadFile { path: dir.display().to_string(), source })?;
        }
        // Only a child is in another pid or time namespace; without one this process itself becomes the command.
        let inside = kinds.iter().any(|kind| matches!(kind, Kind::Pid | Kind::Time));
        if inside { child::run(&words, || Ok(())) } else { child::become_command(&words) }
    }
}

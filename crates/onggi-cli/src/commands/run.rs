//! `onggi run`.

use std::io::{self, IsTerminal as _};

use clap::Args;
use onggi_engine::{IdFile, RunOptions};
use onggi_spec::UserNamespace;

use super::explain::{ExplainArg, ExplainFormat};
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{self, progress::Draw},
    request::{Caller, ContainerArgs, qualify},
    session::{self, detach::DetachKeys},
};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Keys that leave the container running and end this command
    #[arg(long, default_value = "ctrl-p,ctrl-q", value_name = "KEYS")]
    detach_keys: DetachKeys,
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
}

impl RunArgs {
    /// Runs a container; the exit code is the container's.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let terminal_size = session::terminal::size();
        let pull = self.container.pull.options()?;
        let id_file = match &self.container.cidfile {
            Some(path) if self.explain.explain.is_none() => Some(IdFile::reserve(path)?),
            _ => None,
        };
        let options = RunOptions { detach: self.detach, terminal_size, pull, id_file, remove_failed: false };
        let name = self.container.image_and_command.first().cloned().unwrap_or_default();
        let mut request = self.container.request(&Caller::of_process()?)?;
        request.stdin_once &= !self.detach;
        let engine = global.engine()?;
        qualify(&engine, &name, &mut request, &options.pull)?;
        if let Some(wanted) = self.explain.explain {
            if matches!(wanted, ExplainFormat::Sh) && request.userns == UserNamespace::Auto {
                return Err(CliError::usage(
                    "--explain=sh cannot show --userns auto: its layers are mounted with mapped ids (mount_setattr(2)), which mount(8) \
                     can do from util-linux 2.39 on only (X-mount.idmap), and scripts are for older ones too",
                    "use --explain or --explain=json",
                ));
            }
            self.explain.shown(&engine.explain(&request)?)?;
            return Ok(0);
        }
        if request.tty && request.interactive && !self.detach && !io::stdin().is_terminal() {
            return Err(CliError::usage("-t needs a terminal on stdin, which is not one", "leave -t out"));
        }
        let started = engine.run(&request, &options, &Draw::new())?;
        render::notes(&started.notes)?;
        if self.detach {
            render::line(started.record.id.as_str())?;
            return Ok(0);
        }
        session::container::run(&engine, started, self.detach_keys)
    }
}

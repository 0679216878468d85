//! `onggi attach`.

use std::io::{self, IsTerminal as _};

use clap::Args;

use crate::{
    cli::GlobalArgs,
    error::CliError,
    session::{self, detach::DetachKeys},
};

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Keys that leave the container running and end this command
    #[arg(long, default_value = "ctrl-p,ctrl-q", value_name = "KEYS")]
    detach_keys: DetachKeys,
    /// Do not connect stdin
    #[arg(long)]
    no_stdin: bool,
    /// Container
    container: String,
}

impl AttachArgs {
    /// Stays with a running container until it ends or the detach keys; the exit code is the container's.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let mut started = engine.attach(&self.container)?;
        let request = &mut started.record.request;
        request.interactive &= !self.no_stdin;
        if request.tty && request.interactive && !io::stdin().is_terminal() {
            return Err(CliError::usage(
                "the container has a terminal, and stdin is not one",
                "run it from a terminal, or with --no-stdin",
            ));
        }
        session::container::run(&engine, started, self.detach_keys)
    }
}

//! `onggi attach`.

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
    /// Container
    container: String,
}

impl AttachArgs {
    /// Stays with a running container until it ends or the detach keys; the exit code is the container's.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        session::container::run(&engine, engine.attach(&self.container)?, self.detach_keys)
    }
}

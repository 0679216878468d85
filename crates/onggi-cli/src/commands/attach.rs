//! `onggi attach`.

use clap::Args;

use crate::{cli::GlobalArgs, error::CliError, session};

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Container
    container: String,
}

impl AttachArgs {
    /// Stays with a running container until it ends or ctrl-p ctrl-q; the exit code is the container's.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        session::container::run(&engine, engine.attach(&self.container)?)
    }
}

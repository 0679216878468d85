//! `onggi __cleanup`: the monitor's exit command.

use clap::Args;
use onggi_spec::ContainerId;

use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `__cleanup`.
#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    /// Full id
    id: String,
}

impl CleanupArgs {
    /// Removes what a container that has ended no longer needs.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let id: ContainerId = self.id.parse()?;
        global.engine()?.cleanup(&id)?;
        Ok(0)
    }
}

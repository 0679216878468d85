//! `onggi wait`.

use clap::Args;

use super::for_each;
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl WaitArgs {
    /// Waits for each container and prints its exit code.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        for_each(&self.containers, |name| Ok(engine.wait(name)?.exit_code.to_string()))
    }
}

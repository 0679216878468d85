//! `onggi start`.

use clap::Args;

use super::for_each;
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl StartArgs {
    /// Starts containers in the background and prints their names as given.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        for_each(&self.containers, |name| {
            engine.start(name)?;
            Ok(name.to_owned())
        })
    }
}

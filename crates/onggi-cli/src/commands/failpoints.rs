//! `onggi __failpoints`: the points at which a crash test can end this program. Only in builds for tests.

use clap::Args;

use crate::{cli::GlobalArgs, error::CliError, render};

/// Arguments of `__failpoints`.
#[derive(Debug, Args)]
pub(crate) struct FailpointsArgs {}

impl FailpointsArgs {
    /// Prints one name per line.
    pub(crate) fn run(self, _global: &GlobalArgs) -> Result<u8, CliError> {
        for name in onggi_engine::failpoint::ALL {
            render::line(name)?;
        }
        Ok(0)
    }
}

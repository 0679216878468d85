//! `onggi export`.

use std::path::PathBuf;

use clap::Args;

use super::save::destination;
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name or id
    container: String,
}

impl ExportArgs {
    /// Writes the archive.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let to = destination(self.output)?;
        global.engine()?.export(&self.container, to)?;
        Ok(0)
    }
}

//! `onggi export`.

use std::path::PathBuf;

use clap::Args;

use super::explain::ExplainArg;
use super::save::destination;
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name or id
    container: String,
}

impl ExportArgs {
    /// Writes the archive.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let place = self.output.as_deref().filter(|p| p.as_os_str() != "-");
        if let Some(code) = self.explain.show(|| Ok(vec![engine.explain_export(&self.container, place)?]))? {
            return Ok(code);
        }
        let to = destination(self.output)?;
        engine.export(&self.container, to)?;
        Ok(0)
    }
}

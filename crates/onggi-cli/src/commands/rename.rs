//! `onggi rename`.

use clap::Args;

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `rename`.
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Container
    container: String,
    /// Its new name
    new_name: String,
}

impl RenameArgs {
    /// Renames a container; says nothing, as Docker.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let plan = || Ok(vec![engine.explain_rename(&self.container, &self.new_name)?]);
        if let Some(code) = self.explain.show(plan)? {
            return Ok(code);
        }
        engine.rename(&self.container, &self.new_name)?;
        Ok(0)
    }
}

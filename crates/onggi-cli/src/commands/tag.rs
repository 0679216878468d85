//! `onggi tag`.

use clap::Args;

use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name or id of an image
    source: String,
    /// New name
    target: String,
}

impl TagArgs {
    /// Gives the image the name.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        global.engine()?.tag(&self.source, &self.target.parse()?)?;
        Ok(0)
    }
}

//! `onggi tag`.

use clap::Args;
use onggi_spec::ImageReference;

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Name or id of an image
    source: String,
    /// New name
    target: String,
}

impl TagArgs {
    /// Gives the image the name.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let (engine, target) = (global.engine()?, ImageReference::given(&self.target)?);
        if let Some(code) = self.explain.show(|| Ok(vec![engine.explain_tag(&self.source, &target)?]))? {
            return Ok(code);
        }
        engine.tag(&self.source, &target)?;
        Ok(0)
    }
}

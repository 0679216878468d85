//! `onggi rmi`.

use clap::Args;

use super::explain::ExplainArg;
use super::for_each;
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `rmi`.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Also when it has several names or a container was made from it
    #[arg(short, long)]
    force: bool,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl RmiArgs {
    /// Removes images and prints what went.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        if let Some(code) = self.explain.each(&self.images, |name| engine.explain_rmi(name, self.force))? {
            return Ok(code);
        }
        for_each(&self.images, |name| {
            let removed = engine.rmi(name, self.force)?;
            let untagged = removed.untagged.iter().map(|n| format!("Untagged: {}", n.familiar()));
            let deleted = removed.deleted.iter().map(|d| format!("Deleted: {d}"));
            Ok(untagged.chain(deleted).collect::<Vec<_>>().join("\n"))
        })
    }
}

//! `onggi rmi`.

use clap::Args;

use super::{explain::ExplainArg, for_each};
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `rmi`.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Also when it has several names or a container was made from it; one that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// An image that is not there is no error
    #[arg(short, long)]
    ignore: bool,
    /// Do not remove untagged parents (there are none)
    #[arg(long)]
    no_prune: bool,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl RmiArgs {
    /// Removes images and prints what went.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let Self { explain, force, ignore, no_prune: _, images } = self;
        let engine = global.engine()?;
        if let Some(code) = explain.each(&images, |name| engine.explain_rmi(name, force))? {
            return Ok(code);
        }
        // As Docker: with -f an image that is not there is reported, but is what was wanted.
        let mut only_missing = true;
        let code = for_each(&images, |name| {
            let removed = engine.rmi(name, force).inspect_err(|e| only_missing &= e.is_no_such_image())?;
            let untagged = removed.untagged.iter().map(|n| format!("Untagged: {}", n.familiar()));
            let deleted = removed.deleted.iter().map(|d| format!("Deleted: {d}"));
            Ok(untagged.chain(deleted).collect::<Vec<_>>().join("\n"))
        })?;
        Ok(if (force || ignore) && only_missing { 0 } else { code })
    }
}

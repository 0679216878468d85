//! `onggi net repair`: the firewall table of the bridge network, after somebody has flushed the rules.

use clap::Args;

use super::failed;
use crate::{cli::GlobalArgs, commands::explain::ExplainArg, error::CliError, render};

/// Arguments of `net repair`.
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    explain: ExplainArg,
}

impl RepairArgs {
    /// Installs what is missing, with the ports of every running container; it may be done again.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let runroot = &engine.paths().runroot;
        if self.explain.explain.is_some() {
            self.explain.shown(&onggi_network::heal_plan(runroot).map_err(failed)?)?;
            return Ok(0);
        }
        let mended = onggi_network::heal(runroot).map_err(failed)?;
        render::line(if mended { "the table ip onggi is whole again" } else { "nothing is missing" })?;
        Ok(0)
    }
}

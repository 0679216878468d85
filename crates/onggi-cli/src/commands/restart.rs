//! `onggi restart`.

use clap::Args;

use super::explain::ExplainArg;
use super::{for_each, stop::GraceArgs};
use crate::{cli::GlobalArgs, error::CliError, render};

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    explain: ExplainArg,
    #[command(flatten)]
    grace: GraceArgs,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl RestartArgs {
    /// Stops containers that run, starts all, and prints their names as given.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let options = self.grace.options()?;
        let engine = global.engine()?;
        if let Some(code) = self.explain.each(&self.containers, |name| engine.explain_restart(name, &options))? {
            return Ok(code);
        }
        for_each(&self.containers, |name| {
            render::notes(&engine.restart(name, &options)?)?;
            Ok(name.to_owned())
        })
    }
}

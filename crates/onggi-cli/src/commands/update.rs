//! `onggi update`.

use clap::Args;

use super::{explain::ExplainArg, for_each};
use crate::{cli::GlobalArgs, error::CliError, render, request::ResourceArgs};

/// Arguments of `update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    explain: ExplainArg,
    #[command(flatten)]
    resources: ResourceArgs,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl UpdateArgs {
    /// Changes limits and prints the names of the containers as given.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let change = self.resources.resources()?;
        if change.first_option().is_none() {
            return Err(CliError::usage("no limit was given", "as in `onggi update --memory 100m --cpus 0.5 NAME`"));
        }
        let engine = global.engine()?;
        if let Some(code) = self.explain.each(&self.containers, |name| engine.explain_update(name, &change))? {
            return Ok(code);
        }
        for_each(&self.containers, |name| {
            render::notes(&engine.update(name, &change)?)?;
            Ok(name.to_owned())
        })
    }
}

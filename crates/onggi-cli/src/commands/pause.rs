//! `onggi pause` and `unpause`.

use clap::Args;
use onggi_engine::{Engine, ListFilter, Status};

use super::{explain::ExplainArg, for_each};
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Every container that runs and is not paused yet
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Containers
    #[arg(required_unless_present = "all", value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Arguments of `unpause`.
#[derive(Debug, Args)]
pub(crate) struct UnpauseArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Every paused container
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Containers
    #[arg(required_unless_present = "all", value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl PauseArgs {
    /// Pauses containers and prints their names as given.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let names = chosen(&engine, self.all, self.containers, false)?;
        if let Some(code) = self.explain.each(&names, |name| engine.explain_pause(name))? {
            return Ok(code);
        }
        for_each(&names, |name| {
            engine.pause(name)?;
            Ok(name.to_owned())
        })
    }
}

impl UnpauseArgs {
    /// Lets containers go on and prints their names as given.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let names = chosen(&engine, self.all, self.containers, true)?;
        if let Some(code) = self.explain.each(&names, |name| engine.explain_unpause(name))? {
            return Ok(code);
        }
        for_each(&names, |name| {
            engine.unpause(name)?;
            Ok(name.to_owned())
        })
    }
}

/// Those that were named, or all that are paused, or are not.
fn chosen(engine: &Engine, all: bool, named: Vec<String>, paused: bool) -> Result<Vec<String>, CliError> {
    if !all {
        return Ok(named);
    }
    let list = engine.list(&ListFilter::default())?;
    let wanted = |status: &Status| matches!(status, Status::Running { paused: is, .. } if *is == paused);
    Ok(list.into_iter().filter(|c| wanted(&c.status)).map(|c| c.record.id.to_string()).collect())
}

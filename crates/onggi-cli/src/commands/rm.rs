//! `onggi rm`.

use clap::Args;
use onggi_engine::ListFilter;

use super::explain::ExplainArg;
use super::for_each;
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Kill it first if it runs
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes too (there are none yet)
    #[arg(short, long)]
    volumes: bool,
    /// Every container that does not run; with -f, every container
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Containers
    #[arg(required_unless_present = "all", value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl RmArgs {
    /// Removes containers and prints their names as given.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let Self { explain, force, volumes: _, all, mut containers } = self;
        let engine = global.engine()?;
        if all {
            let list = engine.list(&ListFilter { all: true, ..ListFilter::default() })?;
            let chosen = list.iter().filter(|c| force || !c.status.is_running());
            containers = chosen.map(|c| c.record.id.to_string()).collect();
        }
        if let Some(code) = explain.each(&containers, |name| engine.explain_rm(name, force))? {
            return Ok(code);
        }
        // As Docker: with -f a container that is not there is reported, but is what was wanted.
        let mut only_missing = true;
        let code = for_each(&containers, |name| {
            engine.rm(name, force).inspect_err(|e| only_missing &= e.is_no_such_container())?;
            Ok(name.to_owned())
        })?;
        Ok(if force && only_missing { 0 } else { code })
    }
}

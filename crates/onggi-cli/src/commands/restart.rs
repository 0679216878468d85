//! `onggi restart`.

use std::time::Duration;

use clap::Args;
use onggi_engine::StopOptions;
use onggi_spec::signal::parse_signal;

use super::for_each;
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Seconds before the container is killed [default: 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u64>,
    /// Signal to send [default: the image's, else TERM]
    #[arg(short, long)]
    signal: Option<String>,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl RestartArgs {
    /// Stops containers that run, starts all, and prints their names as given.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let options = StopOptions {
            timeout: self.time.map(Duration::from_secs),
            signal: self.signal.as_deref().map(parse_signal).transpose()?,
        };
        let engine = global.engine()?;
        for_each(&self.containers, |name| {
            engine.stop(name, &options)?;
            engine.start(name)?;
            Ok(name.to_owned())
        })
    }
}

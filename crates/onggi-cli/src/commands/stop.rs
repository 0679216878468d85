//! `onggi stop`.

use std::time::Duration;

use clap::Args;
use onggi_engine::StopOptions;
use onggi_spec::signal::parse_signal;

use super::explain::ExplainArg;
use super::for_each;
use crate::{cli::GlobalArgs, error::CliError};

/// How `stop` and `restart` stop.
#[derive(Debug, Args)]
pub(crate) struct GraceArgs {
    /// Seconds before the container is killed [default: 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// Signal to send [default: the image's, else TERM]
    #[arg(short, long)]
    signal: Option<String>,
}

impl GraceArgs {
    /// In the engine's terms.
    pub(crate) fn options(&self) -> Result<StopOptions, CliError> {
        Ok(StopOptions {
            // As Docker: a negative number is for ever.
            timeout: self.time.map(|seconds| u64::try_from(seconds).map_or(StopOptions::FOR_EVER, Duration::from_secs)),
            signal: self.signal.as_deref().map(parse_signal).transpose()?,
        })
    }
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    explain: ExplainArg,
    #[command(flatten)]
    grace: GraceArgs,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl StopArgs {
    /// Stops containers and prints their names as given.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let options = self.grace.options()?;
        let engine = global.engine()?;
        if let Some(code) = self.explain.each(&self.containers, |name| engine.explain_stop(name, &options))? {
            return Ok(code);
        }
        // All are asked before any is waited for.
        let mut stopping: Vec<_> = self.containers.iter().map(|name| engine.begin_stop(name, &options)).collect();
        stopping.reverse();
        for_each(&self.containers, |name| {
            if let Some(begun) = stopping.pop() {
                engine.finish_stop(begun?)?;
            }
            Ok(name.to_owned())
        })
    }
}

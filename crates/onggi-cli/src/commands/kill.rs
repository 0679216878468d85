//! `onggi kill`.

use clap::Args;
use onggi_spec::signal::parse_signal;

use super::explain::ExplainArg;
use super::for_each;
use crate::{cli::GlobalArgs, error::CliError};

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Signal to send
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl KillArgs {
    /// Sends the signal and prints the names as given.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let signal = parse_signal(&self.signal)?;
        let engine = global.engine()?;
        if let Some(code) = self.explain.each(&self.containers, |name| engine.explain_kill(name, signal))? {
            return Ok(code);
        }
        for_each(&self.containers, |name| {
            engine.kill(name, signal)?;
            Ok(name.to_owned())
        })
    }
}

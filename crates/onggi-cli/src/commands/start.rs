//! `onggi start`.

use clap::Args;

use super::explain::ExplainArg;
use super::for_each;
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render,
    session::{self, detach::DetachKeys},
};

/// Arguments of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Connect stdout and stderr, forward signals, and exit with the container's code
    #[arg(short, long)]
    attach: bool,
    /// Connect stdin too, if the container was made with -i
    #[arg(short, long)]
    interactive: bool,
    /// Keys that leave the container running and end this command
    #[arg(long, default_value = "ctrl-p,ctrl-q", value_name = "KEYS")]
    detach_keys: DetachKeys,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl StartArgs {
    /// Starts containers and prints their names as given; with -a or -i, stays with the one.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        if let Some(code) = self.explain.each(&self.containers, |name| engine.explain_start(name))? {
            return Ok(code);
        }
        if self.attach || self.interactive {
            let [name] = self.containers.as_slice() else {
                return Err(CliError::usage(
                    "only one container can be attached to",
                    "start the others without -a and -i",
                ));
            };
            let started = engine.start_attached(name, session::terminal::size())?;
            render::notes(&started.notes)?;
            return session::container::run(&engine, started, self.detach_keys);
        }
        for_each(&self.containers, |name| {
            render::notes(&engine.start(name)?)?;
            Ok(name.to_owned())
        })
    }
}

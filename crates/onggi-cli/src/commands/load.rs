//! `onggi load`.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::Args;
use onggi_engine::{LoadFrom, Loaded};
use onggi_spec::image::Platform;

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError, render, request};

/// Arguments of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Read from this file (or directory) instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Nothing but the names of what was loaded: there is no progress to be silent about
    #[arg(short, long)]
    quiet: bool,
    /// Of images for several platforms, the one for this: os[/architecture[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

impl LoadArgs {
    /// Loads and prints the names.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let platform: Option<Platform> = self.platform.as_deref().map(request::parse_platform).transpose()?;
        let engine = global.engine()?;
        let name = self.input.as_ref().map_or_else(|| "standard input".to_owned(), |p| p.display().to_string());
        if let Some(code) = self.explain.show(|| Ok(vec![engine.explain_read_archive("load", &name, None)]))? {
            return Ok(code);
        }
        let from = match self.input {
            Some(path) if path.as_os_str() != "-" => LoadFrom::Path(path),
            _ if io::stdin().is_terminal() => {
                return Err(CliError::usage(
                    "there is no archive on standard input",
                    "name a file with -i, or redirect the input",
                ));
            }
            _ => LoadFrom::Stream(Box::new(io::stdin()), "standard input"),
        };
        for loaded in engine.load(from, platform.as_ref())? {
            render::stdout(&lines(&loaded))?;
        }
        Ok(0)
    }
}

fn lines(loaded: &Loaded) -> String {
    if loaded.names.is_empty() {
        return format!("Loaded image ID: {}\n", loaded.id);
    }
    loaded.names.iter().map(|name| format!("Loaded image: {}\n", name.familiar())).collect()
}

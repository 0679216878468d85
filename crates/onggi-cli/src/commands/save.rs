//! `onggi save`.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::Args;
use onggi_engine::{SaveFormat, SaveTo};

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError, render};

/// Arguments of `save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Write to this file (or directory) instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// docker-archive, oci-archive, oci-dir or docker-dir
    #[arg(long, default_value = "docker-archive", value_name = "FORMAT")]
    format: String,
    /// Several images into one archive (always possible; accepted for Podman's sake)
    #[arg(short = 'm', long, hide = true)]
    multi_image_archive: bool,
    /// Nothing but errors (that is all there is)
    #[arg(short, long, hide = true)]
    quiet: bool,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// The destination of an archive. A terminal is none.
pub(crate) fn destination(output: Option<PathBuf>) -> Result<SaveTo, CliError> {
    match output {
        Some(path) if path.as_os_str() != "-" => Ok(SaveTo::Path(path)),
        _ if io::stdout().is_terminal() => Err(CliError::usage(
            "an archive is not written to a terminal",
            "name a file with -o, or redirect the output",
        )),
        _ => {
            render::readable()?;
            Ok(SaveTo::Stream(Box::new(io::stdout())))
        }
    }
}

impl SaveArgs {
    /// Writes the archive.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let format: SaveFormat = self.format.parse()?;
        if format.is_dir() && self.output.is_none() {
            return Err(CliError::usage("a directory cannot be written to standard output", "name it with -o"));
        }
        let engine = global.engine()?;
        let place = self.output.as_deref().filter(|p| p.as_os_str() != "-");
        if let Some(code) = self.explain.show(|| Ok(vec![engine.explain_save(&self.images, format, place)?]))? {
            return Ok(code);
        }
        let to = destination(self.output)?;
        engine.save(&self.images, format, to)?;
        Ok(0)
    }
}

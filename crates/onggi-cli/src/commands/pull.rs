//! `onggi pull`.

use clap::Args;
use onggi_spec::{ImageReference, progress::Silent};

use crate::{cli::GlobalArgs, error::CliError, render::progress::Draw, request};

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    options: request::RegistryArgs,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl PullArgs {
    /// Pulls images and prints their full names.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let options = self.options.options()?;
        let engine = global.engine()?;
        super::for_each(&self.images, |name| {
            let reference: ImageReference = name.parse()?;
            match self.quiet {
                true => engine.pull(&reference, &options, &Silent)?,
                false => engine.pull(&reference, &options, &Draw::new())?,
            };
            Ok(reference.to_string())
        })
    }
}

//! `onggi import`.

use std::{io, path::Path};

use clap::Args;
use onggi_engine::{ImportOptions, LoadFrom};
use onggi_spec::ImageReference;

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError, render, request};

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Dockerfile instruction to apply; may be repeated
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Shown by `history`
    #[arg(short, long)]
    message: Option<String>,
    /// What its programs run on: os[/architecture[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Nothing but the id (which is all there is)
    #[arg(short, long, hide = true)]
    quiet: bool,
    /// File, URL, or - for standard input
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    /// Name of the new image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    image: Option<String>,
}

impl ImportArgs {
    /// Makes the image and prints its id.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let options = ImportOptions {
            changes: self.change,
            message: self.message,
            platform: self.platform.as_deref().map(request::parse_platform).transpose()?,
            created: None,
            origin: self.source.clone(),
        };
        let reference = self.image.as_deref().map(ImageReference::given).transpose()?;
        let engine = global.engine()?;
        let plan = || Ok(vec![engine.explain_read_archive("import", &self.source, reference.as_ref())]);
        if let Some(code) = self.explain.show(plan)? {
            return Ok(code);
        }
        let from = match self.source.as_str() {
            "-" => LoadFrom::Stream(Box::new(io::stdin()), "standard input"),
            // Other schemes are refused by their name.
            url if url.contains("://") && !Path::new(url).exists() => LoadFrom::url(url)?,
            path => LoadFrom::Path(path.into()),
        };
        let made = engine.import(from, reference.as_ref(), &options)?;
        if made.entries == 0 {
            render::notes(&[format!("{} has ended without a single file: the image is empty", self.source)])?;
        }
        render::line(made.id.as_str())?;
        Ok(0)
    }
}

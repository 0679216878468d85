//! `onggi commit`.

use clap::{ArgAction, Args};
use onggi_engine::CommitOptions;
use onggi_spec::ImageReference;

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError, render};

/// Arguments of `commit`.
#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Who made it, as in "Name <address>"
    #[arg(short, long)]
    author: Option<String>,
    /// Dockerfile instruction to apply; may be repeated
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Shown by `history`
    #[arg(short, long)]
    message: Option<String>,
    /// Let the container stand still meanwhile [default: true]
    #[arg(short, long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    pause: bool,
    /// Format of the manifest: oci or docker
    #[arg(short, long, default_value = "oci", value_name = "FORMAT")]
    format: String,
    /// Nothing but the id (which is all there is)
    #[arg(short, long, hide = true)]
    quiet: bool,
    /// Name or id
    container: String,
    /// Name of the new image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    image: Option<String>,
}

impl CommitArgs {
    /// Makes the image and prints its id.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let options = CommitOptions {
            author: self.author,
            changes: self.change,
            message: self.message,
            pause: self.pause,
            format: self.format.parse()?,
        };
        let reference = self.image.as_deref().map(ImageReference::given).transpose()?;
        let engine = global.engine()?;
        let plan = || Ok(vec![engine.explain_commit(&self.container, reference.as_ref(), options.pause)?]);
        if let Some(code) = self.explain.show(plan)? {
            return Ok(code);
        }
        let id = engine.commit(&self.container, reference.as_ref(), &options)?;
        render::line(id.as_str())?;
        Ok(0)
    }
}

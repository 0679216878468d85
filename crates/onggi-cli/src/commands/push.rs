//! `onggi push`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use onggi_engine::PushRequest;
use onggi_spec::{ImageReference, image::LayerCompression};

use super::explain::ExplainArg;
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        progress::{Draw, Mode},
    },
    request::ChoiceArgs,
};

/// Arguments of `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Every tag of the repository that is stored here
    #[arg(short, long)]
    all_tags: bool,
    /// Every platform of a multi-platform image; all must be stored (pull --all-platforms)
    #[arg(long)]
    all_platforms: bool,
    /// Also what refers to the image: signatures, attestations (pull --referrers)
    #[arg(long)]
    referrers: bool,
    /// No progress; only the name is printed
    #[arg(short, long)]
    quiet: bool,
    /// Bars, lines, or one JSON object a line on stderr
    #[arg(long, value_enum, default_value_t = Mode::Auto, value_name = "MODE")]
    progress: Mode,
    /// Compress layers that are stored as plain tar; the digest is then another one
    #[arg(long, value_enum, value_name = "FORMAT")]
    compression: Option<Compression>,
    /// Write the digest of what was pushed to this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Accepted as Docker does; there are no trust signatures
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    disable_content_trust: bool,
    #[command(flatten)]
    registry: ChoiceArgs,
    /// Image
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
    /// Push it to there instead of where its name says
    #[arg(value_name = "DESTINATION", conflicts_with = "all_tags")]
    destination: Option<String>,
}

/// Compression of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// gzip, which everything reads.
    Gzip,
    /// zstd, which is smaller and faster.
    Zstd,
}

impl PushArgs {
    /// Pushes and prints what a tag stands for then.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        if !self.disable_content_trust {
            return Err(CliError::usage(
                "trust signatures are not made here",
                "leave --disable-content-trust=false out",
            ));
        }
        let engine = global.engine()?;
        let request = PushRequest {
            compression: self.compression.map(|c| match c {
                Compression::Gzip => LayerCompression::Gzip,
                Compression::Zstd => LayerCompression::Zstd,
            }),
            all_platforms: self.all_platforms,
            referrers: self.referrers,
            choice: self.registry.choice()?,
        };
        let target = self.destination.as_deref().map(|d| d.strip_prefix("docker://").unwrap_or(d));
        let target: Option<ImageReference> = target.map(str::parse).transpose()?;
        let names: Vec<String> = match self.all_tags {
            true => engine.tags_of(&self.name)?.iter().map(ToString::to_string).collect(),
            false => vec![self.name.clone()],
        };
        let plan = |name: &String| engine.explain_push(name, target.as_ref(), &request);
        if let Some(code) = self.explain.each(&names, plan)? {
            return Ok(code);
        }
        let draw = Draw::pushing(if self.quiet { Mode::Quiet } else { self.progress });
        for name in names {
            // An id has a destination beside it; without one it is no name to push to.
            let shown = match &target {
                Some(target) => target.clone(),
                None => name.parse()?,
            };
            if !self.quiet {
                render::line(&format!("The push refers to repository [{}]", repository(&shown)))?;
            }
            let pushed = engine.push(&name, target.as_ref(), &request, &*draw)?;
            render::line(&match self.quiet {
                true => shown.to_string(),
                false => format!("{}: digest: {} size: {}", shown.selector(), pushed.digest, pushed.size),
            })?;
            if let Some(file) = &self.digestfile {
                let path = file.display().to_string();
                std::fs::write(file, pushed.digest.as_str()).map_err(|source| CliError::WriteFile { path, source })?;
            }
        }
        Ok(0)
    }
}

/// As Docker shows it: with the registry, without tag.
fn repository(name: &ImageReference) -> String {
    format!("{}/{}", name.registry(), name.repository())
}

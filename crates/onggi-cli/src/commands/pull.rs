//! `onggi pull`.

use std::mem::ManuallyDrop;

use clap::Args;
use onggi_engine::{Engine, PullOptions, PullPolicy};
use onggi_spec::ImageReference;

use super::explain::ExplainArg;
use crate::{
    cli::{GlobalArgs, early},
    error::CliError,
    render::{
        self,
        progress::{Draw, Mode},
    },
    request::{Policy, RegistryArgs},
};

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Every platform of a multi-platform image: stored, one of them unpacked
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Also what refers to the image: signatures, attestations
    #[arg(long)]
    referrers: bool,
    /// When to ask the registry for an image that is stored
    #[arg(long, visible_alias = "pull", value_enum, default_value_t = Policy::Always, value_name = "WHEN")]
    policy: Policy,
    /// No progress; only the name is printed
    #[arg(short, long)]
    quiet: bool,
    /// Bars, lines, or one JSON object a line on stderr
    #[arg(long, value_enum, default_value_t = Mode::Auto, value_name = "MODE")]
    progress: Mode,
    /// Accepted as Docker does; there are no trust signatures
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    disable_content_trust: bool,
    #[command(flatten)]
    options: RegistryArgs,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl PullArgs {
    /// Pulls images and prints their full names.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        if !self.disable_content_trust {
            return Err(CliError::usage(
                "trust signatures are not verified here",
                "leave --disable-content-trust=false out",
            ));
        }
        let options = PullOptions {
            policy: PullPolicy::from(self.policy),
            all_platforms: self.all_platforms,
            referrers: self.referrers,
            ..self.options.options()?
        };
        // Not closed: the process ends next, and what it would free costs more than leaving it.
        let mut engine = ManuallyDrop::new(global.engine()?);
        if let Some(question) = early::take() {
            engine.expect(question);
        }
        let plan = |name: &String| {
            engine.explain_pull(&self.reference(&engine, name, &options)?, &options).map_err(CliError::from)
        };
        if let Some(code) = self.explain.each(&self.images, plan)? {
            return Ok(code);
        }
        super::for_each(&self.images, |name| self.one(&engine, name, &options))
    }

    fn one(&self, engine: &Engine, name: &str, options: &PullOptions) -> Result<String, CliError> {
        let reference = self.reference(engine, name, options)?;
        let draw = Draw::in_mode(if self.quiet { Mode::Quiet } else { self.progress });
        if !self.all_tags {
            engine.pull(&reference, options, &*draw)?;
            return Ok(reference.to_string());
        }
        if name.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) {
            return Err(CliError::usage("a tag cannot be given together with --all-tags", "leave one of them out"));
        }
        let all = engine.pull_all_tags(&reference, options, &*draw)?;
        drop(draw);
        render::notes(&all.passed_over)?;
        Ok(all.pulled.iter().map(ImageReference::to_string).collect::<Vec<_>>().join("\n"))
    }

    /// What a short name stands for.
    fn reference(&self, engine: &Engine, name: &str, options: &PullOptions) -> Result<ImageReference, CliError> {
        let name = name.strip_prefix("docker://").unwrap_or(name);
        Ok(match self.policy {
            Policy::Always | Policy::Newer => engine.qualify_fresh(name, &options.registry)?,
            Policy::Missing | Policy::Never => engine.qualify(name, &options.registry)?,
        })
    }
}

//! `onggi image copy`.

use clap::{ArgAction, Args};
use onggi_engine::{CopyOptions, Location, RegistryChoice};

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError, render, request};

/// Arguments of `image copy`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Every image of a multi-platform one
    #[arg(short, long)]
    all: bool,
    /// Fail rather than change a manifest
    #[arg(long)]
    preserve_digests: bool,
    /// Write manifests in this format: oci, docker (or v2s2)
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Of images for several platforms, the one for this: os[/architecture[/variant]]
    #[arg(long, value_name = "PLATFORM", conflicts_with = "all")]
    platform: Option<String>,
    /// Verify the source registry's certificate, and refuse plain HTTP except on loopback
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", value_name = "BOOL")]
    src_tls_verify: bool,
    /// The same of the destination registry
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", value_name = "BOOL")]
    dest_tls_verify: bool,
    /// Nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// docker://REFERENCE, NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REFERENCE], dir:DIR
    source: String,
    /// The same
    destination: String,
}

impl CopyArgs {
    /// Copies and prints the digest of what was written.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let place = |text: &str| text.parse::<Location>().map_err(onggi_engine::EngineError::from);
        let (from, to) = (place(&self.source)?, place(&self.destination)?);
        let options = CopyOptions {
            all: self.all,
            platform: self.platform.as_deref().map(request::parse_platform).transpose()?,
            format: self.format.as_deref().map(str::parse).transpose()?,
            preserve_digests: self.preserve_digests,
            source: RegistryChoice { insecure: !self.src_tls_verify, ..RegistryChoice::default() },
            destination: RegistryChoice { insecure: !self.dest_tls_verify, ..RegistryChoice::default() },
        };
        if [&from, &to].iter().any(|place| matches!(place, Location::Registry(_))) {
            options.source.check_auth_file()?;
        }
        let engine = global.engine()?;
        if let Some(code) = self.explain.show(|| Ok(vec![engine.explain_copy(&from, &to)]))? {
            return Ok(code);
        }
        let digest = engine.copy(&from, &to, &options)?;
        if !self.quiet {
            render::line(digest.as_str())?;
        }
        Ok(0)
    }
}

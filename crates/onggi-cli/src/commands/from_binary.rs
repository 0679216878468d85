//! `onggi image from-binary`.

use std::path::PathBuf;

use clap::Args;
use onggi_engine::FromBinary;
use onggi_spec::ImageReference;

use super::explain::{ExplainArg, ExplainFormat};
use crate::{cli::GlobalArgs, error::CliError, render};

/// Arguments of `image from-binary`.
#[derive(Debug, Args)]
pub(crate) struct FromBinaryArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Name of the new image
    #[arg(short, long, value_name = "REPOSITORY[:TAG]")]
    tag: Option<String>,
    /// Command of the image, as words or as a JSON list [default: the first program]
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Also this file or directory, at the same path; may be repeated
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Also what the C library loads to look up users and hosts
    #[arg(long)]
    nss: bool,
    /// Programs of this machine: names or paths
    #[arg(required = true, value_name = "PROGRAM")]
    programs: Vec<String>,
}

impl FromBinaryArgs {
    /// Makes the image and prints its id.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let entrypoint = self.entrypoint.as_deref().map(|text| {
            let list = serde_json::from_str(text).ok();
            list.unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect::<Vec<String>>())
        });
        let request = FromBinary { programs: self.programs, with: self.with, nss: self.nss, entrypoint };
        let engine = global.engine()?;
        let reference = self.tag.as_deref().map(ImageReference::given).transpose()?;
        // In words it is the list of files; the other forms have the steps too.
        if self.explain.explain == Some(ExplainFormat::Words) {
            let files = engine.from_binary_files(&request)?;
            let text: String = files.iter().map(|f| format!("{}\t{}\n", f.path.display(), f.reason)).collect();
            render::stdout(&render::table::align(&text.lines().map(str::to_owned).collect::<Vec<_>>()))?;
            return Ok(0);
        }
        if let Some(code) = self.explain.show(|| Ok(vec![engine.explain_from_binary(&request, reference.as_ref())?]))? {
            return Ok(code);
        }
        let (id, notes) = engine.from_binary(&request, reference.as_ref())?;
        render::notes(&notes)?;
        render::line(id.as_str())?;
        Ok(0)
    }
}

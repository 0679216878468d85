//! `onggi image referrers`.

use clap::Args;
use onggi_spec::quantity::human_size;
use serde_json::{Value, json};

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
    request::ChoiceArgs,
};

const COLUMNS: Columns = Columns {
    headers: &[("Digest", "DIGEST"), ("ArtifactType", "TYPE"), ("Size", "SIZE"), ("MediaType", "MEDIA TYPE")],
    default: "{{.Digest}}\t{{.ArtifactType}}\t{{.Size}}",
};

/// Arguments of `image referrers`.
#[derive(Debug, Args)]
pub(crate) struct ReferrersArgs {
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
    /// What is stored here, without asking the registry
    #[arg(long)]
    stored: bool,
    #[command(flatten)]
    registry: ChoiceArgs,
    /// Image
    #[arg(value_name = "NAME")]
    name: String,
}

impl ReferrersArgs {
    /// Prints the signatures, attestations and the like that refer to an image.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let list = global.engine()?.referrers(&self.name, self.stored, &self.registry.choice()?)?;
        let rows: Vec<Value> = list
            .iter()
            .map(|d| {
                let kind: String = d.artifact_type.iter().flat_map(|t| t.chars()).filter(|c| !c.is_control()).collect();
                json!({
                    "Digest": d.digest, "ArtifactType": kind, "Size": human_size(d.size), "MediaType": d.media_type,
                    "Annotations": d.annotations,
                })
            })
            .collect();
        render::stdout(&format::rows(self.format.as_deref(), &COLUMNS, &rows)?)?;
        Ok(0)
    }
}

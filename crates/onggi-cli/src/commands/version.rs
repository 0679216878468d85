//! `onggi version`.

use clap::Args;
use serde_json::json;

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{self, format},
};

/// Arguments of `version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Template, or `json`
    #[arg(short, long)]
    format: Option<String>,
}

impl VersionArgs {
    /// Prints versions.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let facts = engine.facts();
        let version = env!("CARGO_PKG_VERSION");
        if self.format.is_some() {
            let one = json!({
                "Version": version, "OciVersion": onggi_spec::oci::runtime::OCI_VERSION, "Os": "linux", "Arch": facts.architecture, "KernelVersion": facts.kernel,
            });
            // Docker's names, so that `{{.Client.Version}}` and `{{.Server.Version}}` work.
            let mut value = json!({"Client": one, "Server": one});
            if let Some(map) = one.as_object() {
                map.iter().for_each(|(k, v)| value[k] = v.clone());
            }
            render::stdout(&format::one(self.format.as_deref(), &value)?)?;
            return Ok(0);
        }
        let oci = onggi_spec::oci::runtime::OCI_VERSION;
        let (architecture, kernel) = (&facts.architecture, &facts.kernel);
        render::stdout(&format!(
            "Onggi\n Version:        {version}\n OCI runtime:    {oci}\n OS/Arch:        linux/{architecture}\n Kernel:         {kernel}\n"
        ))?;
        Ok(0)
    }
}

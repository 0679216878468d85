//! `onggi image untag`, `exists`, `tree`.

use clap::Args;
use onggi_spec::quantity::human_size;

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError, render};

/// Arguments of `image untag`.
#[derive(Debug, Args)]
pub(crate) struct UntagArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Name or id
    image: String,
    /// Names to take away [default: all]
    names: Vec<String>,
}

impl UntagArgs {
    /// Takes the names away.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        if let Some(code) = self.explain.show(|| Ok(vec![engine.explain_untag(&self.image, &self.names)?]))? {
            return Ok(code);
        }
        engine.untag(&self.image, &self.names)?;
        Ok(0)
    }
}

/// Arguments of `image exists`.
#[derive(Debug, Args)]
pub(crate) struct ExistsArgs {
    /// Name or id
    image: String,
}

impl ExistsArgs {
    /// 0 when it does, 1 when it does not.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        Ok(u8::from(!global.engine()?.image_exists(&self.image)?))
    }
}

/// Arguments of `image tree`.
#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    /// Name or id
    image: String,
}

impl TreeArgs {
    /// Prints the layers, lowest first.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let (image, names, layers) = global.engine()?.image_tree_of(&self.image)?;
        let mut text = format!(
            "Image ID: {}\nTags:     [{}]\nSize:     {}\nImage Layers\n",
            image.config_digest.short(),
            names.join(" "),
            human_size(image.size)
        );
        for (at, layer) in layers.iter().enumerate() {
            let branch = if at + 1 == layers.len() { "└──" } else { "├──" };
            text.push_str(&format!("{branch} ID: {} Size: {:>10}", layer.chain_id.short(), human_size(layer.size)));
            if !layer.top_of.is_empty() {
                text.push_str(&format!(" Top Layer of: [{}]", layer.top_of.join(" ")));
            }
            text.push('\n');
        }
        render::stdout(&text)?;
        Ok(0)
    }
}

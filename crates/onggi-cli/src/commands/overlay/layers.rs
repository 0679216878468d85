//! `onggi overlay layers`.

use std::path::Path;

use clap::Args;
use onggi_engine::{LayerStep, LayerSteps};
use onggi_primitives::{Overlay, shell};
use serde_json::{Value, json};

use super::mounted;
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{self, format},
};

/// Arguments of `overlay layers`.
#[derive(Debug, Args)]
pub(crate) struct LayersArgs {
    /// Template, or `json`
    #[arg(short, long)]
    format: Option<String>,
    /// An image, a container, or where an overlay is mounted
    #[arg(value_name = "IMAGE|CONTAINER|TARGET")]
    name: String,
}

impl LayersArgs {
    /// Prints the stack from the bottom up, with the commands that compute each name.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let steps = match mounted(Path::new(&self.name))? {
            Some(overlay) => {
                return show(self.format.as_deref(), || mount_text(&overlay), || mount_json(&overlay));
            }
            None => global.engine()?.layer_steps(&self.name)?,
        };
        show(self.format.as_deref(), || text(&steps), || value(&steps))
    }
}

fn show(format: Option<&str>, text: impl Fn() -> String, value: impl Fn() -> Value) -> Result<u8, CliError> {
    render::stdout(&match format {
        None | Some("") => text(),
        format => format::one(format, &value())?,
    })?;
    Ok(0)
}

fn text(steps: &LayerSteps) -> String {
    let mut out = String::new();
    if let Some(image) = &steps.image {
        out += &format!("image     {image}\n");
    }
    for (number, step) in steps.layers.iter().enumerate() {
        out += &format!("\nlayer {}\n", number + 1);
        out += &format!("  DiffID    {}\n", step.diff_id.as_str());
        out += &format!("  ChainID   {}\n            {}\n", step.chain_id.as_str(), computed(step));
        out += &format!("  cache id  {}\n  files     {}\n", step.chain_id.hex(), step.dir.display());
    }
    if let Some(container) = &steps.container {
        out += &format!("\ncontainer {}\n", container.id);
        for (number, dir) in container.lower.iter().enumerate() {
            out += &format!("  {:<9} {}\n", if number == 0 { "lowerdir" } else { "" }, dir.display());
        }
        out += &format!("  upperdir  {}\n  workdir   {}\n", container.upper.display(), container.work.display());
        let merged = container.merged.as_ref().map_or_else(
            || "nowhere: it does not run".to_owned(),
            |path| format!("{} (its own / , in a mount namespace of its own)", path.display()),
        );
        out += &format!("  merged    {merged}\n");
    }
    out
}

/// How the seeds of a name are put together.
fn computed(step: &LayerStep) -> String {
    match &step.parent {
        None => "= DiffID: nothing is below".to_owned(),
        Some(parent) => format!("= sha256 of: {}", command(parent.as_str(), step.diff_id.as_str())),
    }
}

fn command(parent: &str, diff_id: &str) -> String {
    format!("printf '%s %s' {parent} {diff_id} | sha256sum")
}

fn value(steps: &LayerSteps) -> Value {
    let layer = |step: &LayerStep| {
        json!({
            "DiffID": step.diff_id.as_str(),
            "Parent": step.parent.as_ref().map(|p| p.as_str()),
            "ChainID": step.chain_id.as_str(),
            "Command": step.parent.as_ref().map(|p| command(p.as_str(), step.diff_id.as_str())),
            "CacheID": step.chain_id.hex(),
            "Dir": step.dir,
        })
    };
    let container = steps.container.as_ref().map(
        |c| json!({ "Id": c.id, "LowerDir": c.lower, "UpperDir": c.upper, "WorkDir": c.work, "MergedDir": c.merged }),
    );
    let layers: Vec<Value> = steps.layers.iter().map(layer).collect();
    json!({ "Image": steps.image, "Layers": layers, "Container": container })
}

fn mount_text(overlay: &Overlay) -> String {
    let mut out = format!("merged    {}\n", overlay.target.display());
    for (number, dir) in overlay.lower.iter().enumerate() {
        out += &format!("{:<9} {}\n", if number == 0 { "lowerdir" } else { "" }, dir.display());
    }
    match (&overlay.upper, &overlay.work) {
        (Some(upper), work) => {
            let work = work.as_ref().map(|work| work.display().to_string()).unwrap_or_default();
            out += &format!("upperdir  {}\nworkdir   {work}\n", upper.display());
        }
        (None, _) => out += "upperdir  none: nothing can be written\n",
    }
    out += &format!("options   {}\n", overlay.options.join(","));
    out + &format!("by hand   findmnt -o TARGET,OPTIONS {}\n", shell::path(&overlay.target))
}

fn mount_json(overlay: &Overlay) -> Value {
    json!({
        "MergedDir": overlay.target, "LowerDir": overlay.lower, "UpperDir": overlay.upper, "WorkDir": overlay.work,
        "Options": overlay.options, "ReadOnly": overlay.read_only,
    })
}

//! `onggi inspect`, `onggi container inspect`, `onggi image inspect`.

use clap::{Args, ValueEnum};
use onggi_engine::Engine;
use onggi_primitives::kernel::Filters;
use serde_json::Value;

use super::kernel;
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{self, format},
};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Only containers, or only images
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// What the kernel tells of a running container: namespaces, mounts, control groups, capabilities, filters, sockets
    #[arg(long, conflicts_with = "kind")]
    kernel: bool,
    /// Do not stop the process for an instant to read the text of its seccomp filters (with --kernel)
    #[arg(long, requires = "kernel")]
    no_stop: bool,
    #[command(flatten)]
    named: NamedInspectArgs,
}

/// Arguments of `container inspect` and `image inspect`.
#[derive(Debug, Args)]
pub(crate) struct NamedInspectArgs {
    /// Template, or `json`
    #[arg(short, long)]
    format: Option<String>,
    /// Of containers, also their sizes: SizeRw, what it wrote, and SizeRootFs, with its image
    #[arg(short, long)]
    size: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Arguments of `container exists`.
#[derive(Debug, Args)]
pub(crate) struct ExistsArgs {
    /// Name or id
    container: String,
}

impl ExistsArgs {
    /// 0 when it does, 1 when it does not.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        Ok(u8::from(!global.engine()?.container_exists(&self.container)?))
    }
}

impl InspectArgs {
    /// Prints what is found.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        if self.kernel {
            let filters = if self.no_stop { Filters::Count } else { Filters::Decode };
            return kernel::run(&self.named.names, self.named.format.as_deref(), filters, global);
        }
        self.named.show(global, self.kind)
    }
}

impl NamedInspectArgs {
    /// Prints what is found of one kind.
    pub(crate) fn run(self, global: &GlobalArgs, kind: Kind) -> Result<u8, CliError> {
        self.show(global, Some(kind))
    }

    /// A JSON list of all that exist, or a line per template; what does not exist is an error at the end.
    fn show(self, global: &GlobalArgs, kind: Option<Kind>) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for name in &self.names {
            match lookup(&engine, name, kind).and_then(|value| self.with_size(&engine, value)) {
                Ok(value) => found.push(value),
                Err(e) => missing.push(e),
            }
        }
        match self.format.as_deref() {
            None | Some("") => render::line(&format::pretty(&Value::Array(found))?)?,
            // One list on one line, as Docker's.
            Some("json") => render::line(&Value::Array(found).to_string())?,
            Some(template) => {
                for value in &found {
                    render::stdout(&format::structure(template, value)?)?;
                }
            }
        }
        missing.iter().for_each(CliError::print);
        Ok(u8::from(!missing.is_empty()))
    }
}

impl NamedInspectArgs {
    fn with_size(&self, engine: &Engine, mut value: Value) -> Result<Value, CliError> {
        // An image shows its size in any case.
        if self.size
            && value.get("State").is_some()
            && let Some(id) = value["Id"].as_str()
        {
            let (written, whole) = engine.container_sizes(id)?;
            value["SizeRw"] = written.into();
            value["SizeRootFs"] = whole.into();
        }
        Ok(value)
    }
}

fn lookup(engine: &Engine, name: &str, kind: Option<Kind>) -> Result<Value, CliError> {
    Ok(match kind {
        None => engine.inspect(name)?,
        Some(Kind::Container) => engine.inspect_container_named(name)?,
        Some(Kind::Image) => engine.inspect_image_named(name)?,
    })
}

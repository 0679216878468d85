//! `onggi diff`.

use clap::Args;
use onggi_engine::{Change, ChangeKind};
use serde_json::{Map, Value};

use crate::{cli::GlobalArgs, error::CliError, render};

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// `json` for lists of added, changed and deleted paths
    #[arg(long)]
    format: Option<String>,
    /// Container or image
    name: String,
    /// Container or image to compare with [default: what it was made from]
    #[arg(value_name = "OTHER")]
    other: Option<String>,
}

impl DiffArgs {
    /// Prints one line per path.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let changes = global.engine()?.diff(&self.name, self.other.as_deref())?;
        let text = match self.format.as_deref() {
            None | Some("") => changes.iter().map(line).collect(),
            Some("json") => format!("{}\n", json(&changes)),
            Some(_) => return Err(CliError::usage("diff knows no templates", "write --format json, or leave it out")),
        };
        render::stdout(&text)?;
        Ok(0)
    }
}

fn path(change: &Change) -> String {
    format!("/{}", String::from_utf8_lossy(&change.path))
}

fn line(change: &Change) -> String {
    let letter = match change.kind {
        ChangeKind::Added => 'A',
        ChangeKind::Changed => 'C',
        ChangeKind::Deleted => 'D',
    };
    format!("{letter} {}\n", render::table::printable(&path(change)))
}

fn json(changes: &[Change]) -> Value {
    let mut lists = Map::new();
    for (kind, key) in
        [(ChangeKind::Changed, "changed"), (ChangeKind::Added, "added"), (ChangeKind::Deleted, "deleted")]
    {
        let paths: Vec<Value> = changes.iter().filter(|c| c.kind == kind).map(|c| path(c).into()).collect();
        if !paths.is_empty() {
            lists.insert(key.to_owned(), paths.into());
        }
    }
    Value::Object(lists)
}

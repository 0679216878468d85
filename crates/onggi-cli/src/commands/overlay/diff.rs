//! `onggi overlay diff`.

use std::collections::BTreeMap;

use clap::Args;
use onggi_engine::{Change, ChangeKind, overlay_changes};
use onggi_primitives::{Mark, marks};
use serde_json::{Value, json};

use super::stack;
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
        table::printable,
    },
};

const COLUMNS: Columns = Columns {
    headers: &[("Letter", " "), ("Kind", "KIND"), ("Path", "PATH"), ("From", "FROM"), ("Meaning", "HOW")],
    default: "{{.Letter}}\t{{.Path}}\t{{.Meaning}}",
};

/// Arguments of `overlay diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Template, `json`, or `table TEMPLATE`
    #[arg(short, long)]
    format: Option<String>,
    /// Where an overlay is mounted, or a container
    #[arg(value_name = "TARGET|CONTAINER")]
    target: String,
}

impl DiffArgs {
    /// Prints one line per path.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let stack = stack(&self.target, global)?;
        let Some(upper) = stack.upper else {
            render::notes(&["it has no upper directory: nothing can be changed through it".to_owned()])?;
            return Ok(0);
        };
        let changes = overlay_changes(stack.of, &upper, &stack.lower)?;
        let mut marked: BTreeMap<Vec<u8>, Vec<Mark>> = BTreeMap::new();
        for found in marks(&upper)? {
            marked.entry(found.path).or_default().push(found.mark);
        }
        let rows = rows(&changes, marked);
        if !(rows.is_empty() && self.format.is_none()) {
            render::stdout(&format::rows(self.format.as_deref(), &COLUMNS, &rows)?)?;
        }
        Ok(0)
    }
}

/// Changes with their marks, and marks that change nothing that is seen.
fn rows(changes: &[Change], mut marked: BTreeMap<Vec<u8>, Vec<Mark>>) -> Vec<Value> {
    let mut rows: Vec<(Vec<u8>, Value)> = Vec::new();
    for change in changes {
        let marks = marked.remove(&change.path).unwrap_or_default();
        let renamed =
            marks.iter().find_map(|mark| if let Mark::Redirect(from) = mark { Some(from.clone()) } else { None });
        let opaque = marks.contains(&Mark::Opaque);
        let (letter, kind, plain) = match (change.kind, &renamed) {
            (ChangeKind::Deleted, _) => ('D', "deleted", "hidden by an opaque directory above it"),
            (_, Some(_)) => ('R', "renamed", ""),
            (ChangeKind::Added, None) if opaque => ('O', "opaque", ""),
            (ChangeKind::Changed, None) if opaque => ('O', "opaque", ""),
            (ChangeKind::Added, None) => ('A', "added", "only in the upper directory"),
            (ChangeKind::Changed, None) => ('C', "changed", "copied up to the upper directory, and changed there"),
        };
        let words: Vec<String> = marks.iter().map(Mark::words).collect();
        let meaning = if words.is_empty() { plain.to_owned() } else { words.join("; ") };
        rows.push((change.path.clone(), row(letter, kind, &change.path, renamed.as_deref(), &meaning)));
    }
    for (path, marks) in marked {
        let words: Vec<String> = marks.iter().map(Mark::words).collect();
        let (letter, kind) = match marks.first() {
            Some(Mark::Opaque) => ('O', "opaque"),
            Some(Mark::Redirect(_)) => ('R', "renamed"),
            Some(Mark::MetadataOnly) => ('C', "changed"),
            _ => ('D', "deleted"),
        };
        rows.push((path.clone(), row(letter, kind, &path, None, &words.join("; "))));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.into_iter().map(|(_, row)| row).collect()
}

fn row(letter: char, kind: &str, path: &[u8], from: Option<&str>, meaning: &str) -> Value {
    let path = printable(&format!("/{}", String::from_utf8_lossy(path)));
    json!({ "Letter": letter.to_string(), "Kind": kind, "Path": path, "From": from.unwrap_or_default(), "Meaning": meaning })
}

//! `onggi ns diff`: what two processes share and what not.

use clap::Args;
use onggi_primitives::{Kind, ProcessFacts};
use serde_json::{Value, json};

use crate::{
    cli::GlobalArgs,
    commands::subject,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
};

const COLUMNS: Columns = Columns {
    headers: &[("Type", "TYPE"), ("A", "A"), ("B", "B"), ("Shared", "SHARED"), ("Meaning", "WHAT THAT MEANS")],
    default: "{{.Type}}\t{{.A}}\t{{.B}}\t{{.Shared}}\t{{.Meaning}}",
};

/// Arguments of `ns diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A process, `self`, or a running container
    #[arg(value_name = "PID|CONTAINER")]
    a: String,
    /// The other one
    #[arg(value_name = "PID|CONTAINER", default_value = "self")]
    b: String,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(short, long)]
    format: Option<String>,
}

impl DiffArgs {
    /// Prints one line for each kind.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let (a, b) = (subject::facts(&self.a, global)?, subject::facts(&self.b, global)?);
        let rows: Vec<Value> = Kind::ALL.iter().map(|kind| row(*kind, &a, &b)).collect();
        render::stdout(&format::rows(self.format.as_deref(), &COLUMNS, &rows)?)?;
        Ok(0)
    }
}

fn row(kind: Kind, a: &ProcessFacts, b: &ProcessFacts) -> Value {
    let inode = |process: &ProcessFacts| process.namespaces.get(&kind).copied();
    let (shared, meaning) = match (inode(a), inode(b)) {
        (Some(a), Some(b)) if a == b => ("yes", format!("the same: {}", kind.meaning())),
        (Some(_), Some(_)) => ("no", format!("each has its own: {}", kind.meaning())),
        _ => ("?", "not to be seen: it is another user's, or has privileges that you lack".to_owned()),
    };
    let shown = |inode: Option<u64>| inode.map_or_else(|| json!("?"), |inode| json!(inode));
    json!({ "Type": kind.name(), "A": shown(inode(a)), "B": shown(inode(b)), "Shared": shared, "Meaning": meaning })
}

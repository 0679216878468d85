//! `onggi ns inspect`: the namespaces of one process, and how they stand to ours.

use clap::Args;
use onggi_primitives::{Kind, ProcessFacts, process, processes, relations};
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
    headers: &[
        ("Type", "TYPE"),
        ("Inode", "NS"),
        ("Shared", "SHARED WITH YOU"),
        ("Processes", "NPROCS"),
        ("Owner", "OWNER"),
        ("Parent", "PARENT"),
        ("Path", "PATH"),
        ("Meaning", "WHAT ITS PROCESSES HAVE IN COMMON"),
    ],
    default: "{{.Type}}\t{{.Inode}}\t{{.Shared}}\t{{.Processes}}\t{{.Owner}}\t{{.Path}}\t{{.Meaning}}",
};

/// Arguments of `ns inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A process, `self`, or a running container
    #[arg(value_name = "PID|CONTAINER")]
    subject: String,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(short, long)]
    format: Option<String>,
}

impl InspectArgs {
    /// Prints one line for each kind.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let theirs = subject::facts(&self.subject, global)?;
        let own = process(std::process::id().cast_signed())?;
        let all = processes()?;
        let rows: Vec<Value> = Kind::ALL.iter().map(|kind| row(*kind, &theirs, &own, &all)).collect();
        render::stdout(&format::rows(self.format.as_deref(), &COLUMNS, &rows)?)?;
        Ok(0)
    }
}

/// What the caller may not see is shown as a question mark.
fn row(kind: Kind, theirs: &ProcessFacts, own: &ProcessFacts, all: &[ProcessFacts]) -> Value {
    let inode = theirs.namespaces.get(&kind);
    let known = relations(theirs.pid, kind).unwrap_or_default();
    let unknown = || json!("?");
    let members = all.iter().filter(|p| p.namespaces.get(&kind) == inode).count();
    json!({
        "Type": kind.name(),
        "Inode": inode.map_or_else(unknown, |i| json!(i)),
        "Shared": inode.map_or_else(unknown, |_| json!(if inode == own.namespaces.get(&kind) { "yes" } else { "no" })),
        "Processes": inode.map_or_else(unknown, |_| json!(members)),
        "Owner": known.owner.map_or_else(unknown, |i| json!(i)),
        "Parent": known.parent.map_or_else(|| json!(""), |i| json!(i)),
        "Path": format!("/proc/{}/ns/{kind}", theirs.pid),
        "Meaning": kind.meaning(),
    })
}

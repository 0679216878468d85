//! `onggi ns ls`, as lsns(8), with the containers that namespaces belong to.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use onggi_engine::{ListFilter, Status};
use onggi_primitives::{Kind, Namespace, NamespaceId, ProcessFacts, namespaces, process, processes, relations};
use serde_json::{Value, json};

use crate::{
    cli::GlobalArgs,
    commands::subject,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
        table::{ellipsis, printable},
        users::Users,
    },
};

/// Characters of a command that are shown.
const COMMAND_WIDTH: usize = 40;

const COLUMNS: Columns = Columns {
    headers: &[
        ("Inode", "NS"),
        ("Type", "TYPE"),
        ("Processes", "NPROCS"),
        ("Pid", "PID"),
        ("User", "USER"),
        ("Container", "CONTAINER"),
        ("Command", "COMMAND"),
        ("File", "FILE"),
        ("Owner", "OWNER"),
        ("Parent", "PARENT"),
    ],
    default: "{{.Inode}}\t{{.Type}}\t{{.Processes}}\t{{.Pid}}\t{{.User}}\t{{.Container}}\t{{.Command}}",
};

/// Arguments of `ns ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only these kinds: cgroup, ipc, mnt, net, pid, time, user, uts
    #[arg(short = 't', long = "type", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Only those of a process or container
    #[arg(short, long, value_name = "PID|CONTAINER")]
    process: Option<String>,
    /// Under the user namespace that owns each
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    tree: bool,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
    /// Only inode numbers
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten commands
    #[arg(long)]
    no_trunc: bool,
}

/// A namespace with all that is shown of it.
struct Row {
    namespace: Namespace,
    containers: String,
    owner: Option<u64>,
    parent: Option<u64>,
}

impl LsArgs {
    /// Prints the list.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let of = self.process.as_ref().map(|text| subject::facts(text, global)).transpose()?;
        let all = processes()?;
        let containers = containers(global, &all);
        let wanted = |id: &NamespaceId| {
            let kind = self.kinds.is_empty() || self.kinds.contains(&id.kind);
            kind && of.as_ref().is_none_or(|p| p.namespaces.get(&id.kind) == Some(&id.inode))
        };
        let found = namespaces(&all)?.into_iter();
        let rows: Vec<Row> = found.filter(|n| self.tree || wanted(&n.id)).map(|n| row(n, &containers)).collect();
        let users = Users::read();
        if self.tree {
            render::stdout(&tree(&rows, &wanted, &users))?;
            return Ok(0);
        }
        let values: Vec<Value> = rows.iter().map(|row| value(row, &users, self.no_trunc)).collect();
        let format = if self.quiet { Some("{{.Inode}}") } else { self.format.as_deref() };
        render::stdout(&format::rows(format, &COLUMNS, &values)?)?;
        Ok(0)
    }
}

/// Which running containers have a namespace for themselves: what their first process does not share with us. A
/// machine whose store cannot be read has none that we know of.
pub(crate) fn containers(global: &GlobalArgs, all: &[ProcessFacts]) -> BTreeMap<NamespaceId, Vec<String>> {
    let mut owners: BTreeMap<NamespaceId, Vec<String>> = BTreeMap::new();
    let running = global.engine().and_then(|engine| match engine.paths().root.exists() {
        true => Ok(engine.list(&ListFilter::default())?),
        // A listing makes no store.
        false => Ok(Vec::new()),
    });
    let running = running.unwrap_or_else(|e| {
        // Without stderr nobody can be told.
        let _ = render::notes(&[format!("containers are not shown: {}", e.line())]);
        Vec::new()
    });
    let Ok(own) = process(std::process::id().cast_signed()) else { return owners };
    for container in running {
        let Status::Running { pid, .. } = container.status else { continue };
        let Some(first) = all.iter().find(|p| p.pid == pid) else { continue };
        for (&kind, &inode) in first.namespaces.iter().filter(|(kind, inode)| own.namespaces.get(*kind) != Some(*inode))
        {
            owners.entry(NamespaceId { inode, kind }).or_default().push(container.record.name.to_string());
        }
    }
    owners
}

fn row(namespace: Namespace, containers: &BTreeMap<NamespaceId, Vec<String>>) -> Row {
    let containers = containers.get(&namespace.id).map(|names| names.join(",")).unwrap_or_default();
    // A process that has gone meanwhile, or belongs to somebody else, leaves this unknown.
    let known = namespace.first.as_ref().and_then(|first| relations(first.pid, namespace.id.kind).ok());
    let known = known.unwrap_or_default();
    Row { namespace, containers, owner: known.owner, parent: known.parent }
}

fn value(row: &Row, users: &Users, full: bool) -> Value {
    let Namespace { id, processes, first, file } = &row.namespace;
    let command = first.as_ref().map(|p| printable(&p.command)).unwrap_or_default();
    let file = file.as_ref().map(|f| f.display().to_string()).unwrap_or_default();
    let shown = if first.is_some() { command } else { format!("(kept by {file})") };
    json!({
        "Inode": id.inode,
        "Type": id.kind.name(),
        "Processes": processes,
        "Pid": first.as_ref().map_or(json!(""), |p| json!(p.pid)),
        "User": first.as_ref().map(|p| users.name(p.uid)).unwrap_or_default(),
        "Container": row.containers,
        "Command": if full { shown } else { ellipsis(&shown, COMMAND_WIDTH) },
        "File": file,
        "Owner": row.owner,
        "Parent": row.parent,
    })
}

/// User namespaces below their parents; the others below their owner. What is not wanted is shown only above what is.
fn tree(rows: &[Row], wanted: &dyn Fn(&NamespaceId) -> bool, users: &Users) -> String {
    let inodes: BTreeSet<u64> = rows.iter().map(|row| row.namespace.id.inode).collect();
    let above = |row: &Row| {
        let above = if row.namespace.id.kind == Kind::User { row.parent } else { row.owner };
        above.filter(|inode| inodes.contains(inode))
    };
    let mut below: BTreeMap<Option<u64>, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        below.entry(above(row)).or_default().push(row);
    }
    let mut lines = Vec::new();
    for top in below.get(&None).into_iter().flatten() {
        lines.extend(branch(top, &below, wanted, users, 0));
    }
    render::table::align(&lines)
}

fn branch(
    row: &Row,
    below: &BTreeMap<Option<u64>, Vec<&Row>>,
    wanted: &dyn Fn(&NamespaceId) -> bool,
    users: &Users,
    depth: usize,
) -> Vec<String> {
    let id = &row.namespace.id;
    let children = below.get(&Some(id.inode)).into_iter().flatten();
    let children: Vec<String> = children.flat_map(|child| branch(child, below, wanted, users, depth + 1)).collect();
    if children.is_empty() && !wanted(id) {
        return Vec::new();
    }
    let value = value(row, users, false);
    let text = |key: &str| value[key].as_str().map_or_else(|| value[key].to_string(), str::to_owned);
    let indent = "  ".repeat(depth);
    let cells = ["Processes", "Pid", "User", "Container", "Command"].map(text).join("\t");
    [format!("{indent}{} {}\t{cells}", id.kind, id.inode)].into_iter().chain(children).collect()
}

//! `onggi cgroup ls`, as lscgroup(1) and systemd-cgls(1).

use std::collections::BTreeMap;

use clap::Args;
use onggi_primitives::{
    cgroup::{Group, Node, Place, existing, layout, places, tree},
    process,
};
use onggi_spec::{facts::CgroupLayout, quantity::human_memory};
use serde_json::{Value, json};

use super::subject;
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
        table::{ellipsis, printable},
    },
};

/// Characters of a command that are shown.
const COMMAND_WIDTH: usize = 60;

/// Characters of a group's name, with its indentation, that widen the column; scopes of systemd have longer ones.
const NAME_WIDTH: usize = 40;

const COLUMNS: Columns = Columns {
    headers: &[
        ("Group", "GROUP"),
        ("Path", "PATH"),
        ("Controllers", "CONTROLLERS"),
        ("Processes", "PROCS"),
        ("Cpu", "CPU TIME"),
        ("CpuNs", "CPU NS"),
        ("Memory", "MEMORY"),
        ("MemoryBytes", "BYTES"),
        ("MemoryLimit", "LIMIT"),
        ("Tasks", "TASKS"),
        ("Pids", "PIDS"),
    ],
    default: "{{.Group}}\t{{.Processes}}\t{{.Cpu}}\t{{.Memory}}\t{{.MemoryLimit}}\t{{.Tasks}}",
};

/// Arguments of `cgroup ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Levels below the group
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Hierarchies that neither limit nor count too (devices, systemd's)
    #[arg(short, long)]
    all: bool,
    /// One line for each hierarchy, as lscgroup: cpu:/lab
    #[arg(long, conflicts_with_all = ["format", "processes"])]
    hierarchies: bool,
    /// With the processes of each group, as systemd-cgls
    #[arg(short, long, conflicts_with = "format")]
    processes: bool,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
    /// Path from the root of the hierarchy, or a running container; everything otherwise
    #[arg(value_name = "GROUP", default_value = "/")]
    group: String,
}

impl LsArgs {
    /// Prints the tree.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let layout = layout()?;
        let group = subject::group(&self.group, global)?;
        let wanted = if self.all { everything(&layout, &group)? } else { places(&layout, &group)? };
        let nodes = tree(&existing(&group, wanted)?, self.depth)?;
        let text = match (self.hierarchies, self.processes) {
            (true, _) => by_hierarchy(&nodes),
            (_, true) => with_processes(&nodes),
            _ => {
                let rows: Vec<Value> = nodes.iter().map(row).collect();
                format::rows_within(self.format.as_deref(), &COLUMNS, &rows, NAME_WIDTH)?
            }
        };
        render::stdout(&text)?;
        Ok(0)
    }
}

/// The group in every mounted hierarchy.
fn everything(layout: &CgroupLayout, group: &Group) -> Result<Vec<Place>, CliError> {
    let mut all = places(layout, group)?;
    if let CgroupLayout::V1 { hierarchies, .. } = layout {
        let controllers = hierarchies.iter().flat_map(|h| h.controllers.clone()).collect();
        let unified = all.iter().find(|place| place.controllers.is_empty()).cloned();
        all = places(layout, &Group { controllers, path: group.path.clone() })?;
        all.extend(unified);
    }
    Ok(all)
}

fn row(node: &Node) -> Value {
    let stats = &node.stats;
    let name = node.path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("/");
    let pids: Vec<String> = node.processes.iter().map(i32::to_string).collect();
    json!({
        "Group": format!("{}{}", "  ".repeat(node.depth()), printable(name)),
        "Path": format!("/{}", printable(&node.path)),
        "Controllers": node.controllers().join(","),
        "Processes": node.processes.len(),
        "Cpu": seconds(stats.cpu_ns),
        "CpuNs": stats.cpu_ns,
        "Memory": human_memory(stats.memory),
        "MemoryBytes": stats.memory,
        "MemoryLimit": stats.memory_limit.map_or_else(|| "max".to_owned(), human_memory),
        "Tasks": stats.pids,
        "Pids": pids.join(","),
    })
}

/// `12.3s`.
fn seconds(ns: u64) -> String {
    format!("{}.{}s", ns / 1_000_000_000, ns / 100_000_000 % 10)
}

/// `cpu,cpuacct:/lab`: hierarchy by hierarchy.
fn by_hierarchy(nodes: &[Node]) -> String {
    let mut lines: BTreeMap<(String, &str), String> = BTreeMap::new();
    for node in nodes {
        let mut by_dir: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for (controller, dir) in &node.paths {
            by_dir.entry(dir).or_default().push(controller);
        }
        for controllers in by_dir.into_values() {
            let key = controllers.join(",");
            let line = format!("{key}:/{}\n", printable(&node.path));
            lines.insert((key, &node.path), line);
        }
    }
    lines.into_values().collect()
}

fn with_processes(nodes: &[Node]) -> String {
    let mut out = String::new();
    for node in nodes {
        let indent = "  ".repeat(node.depth());
        let name = node.path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("/");
        out += &format!("{indent}{}\n", printable(name));
        for pid in &node.processes {
            let command = process(*pid).map(|p| p.command).unwrap_or_default();
            out += &format!("{indent}  {pid} {}\n", ellipsis(&printable(&command), COMMAND_WIDTH));
        }
    }
    out
}

//! Looks at groups and containers; rates are differences of two looks.

use std::{collections::BTreeMap, time::Instant};

use onggi_engine::{ListFilter, LogOptions, Status};
use onggi_primitives::{
    cgroup::{Group, Node, Pressure, existing, layout, machine_pressure, oom_kills, places, pressure, tree},
    process,
};
use onggi_spec::quantity::human_memory;
use serde_json::{Value, json};

use crate::{cli::GlobalArgs, error::CliError, render::table::printable};

/// Lines of a log that are shown.
const LOG_LINES: usize = 200;

/// What there is a row for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Containers that run.
    Containers,
    /// Control groups.
    Groups,
}

/// One look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    /// Rows, in the order of the groups.
    pub(crate) rows: Vec<Row>,
    /// The machine's own pressure.
    pub(crate) machine: Vec<Pressure>,
}

/// A container or a group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The container's name, or the group's path.
    pub(crate) name: String,
    /// The container, if it is one.
    pub(crate) container: Option<String>,
    /// Path below the root.
    pub(crate) group: String,
    /// Percent of one CPU.
    pub(crate) cpu: f64,
    /// Bytes.
    pub(crate) memory: u64,
    /// Bytes.
    pub(crate) limit: Option<u64>,
    /// Processes and threads.
    pub(crate) tasks: u64,
    /// Bytes per second.
    pub(crate) read: f64,
    /// Bytes per second.
    pub(crate) write: f64,
    /// Pressure of the group.
    pub(crate) pressure: Vec<Pressure>,
    /// Where it is, for the page of details.
    pub(crate) node: Node,
}

impl Row {
    /// For `--format`.
    pub(crate) fn value(&self) -> Value {
        json!({
            "Name": printable(&self.name),
            "Group": printable(&self.group),
            "Cpu": format!("{:.1}", self.cpu),
            "Memory": human_memory(self.memory),
            "MemoryBytes": self.memory,
            "Limit": self.limit.map_or_else(|| "max".to_owned(), human_memory),
            "Tasks": self.tasks,
            "Read": human_memory(self.read as u64),
            "Write": human_memory(self.write as u64),
            "CpuPressure": self.stall("cpu"),
            "MemoryPressure": self.stall("memory"),
            "IoPressure": self.stall("io"),
        })
    }

    /// `1.50` percent of the last ten seconds; a dash where it is not measured.
    pub(crate) fn stall(&self, resource: &str) -> String {
        let found = self.pressure.iter().find(|p| p.resource == resource);
        found.map_or_else(|| "-".to_owned(), |p| format!("{:.2}", p.some.avg10))
    }

    /// The worst of all resources.
    pub(crate) fn worst_stall(&self) -> f64 {
        self.pressure.iter().map(|p| p.some.avg10).fold(0.0, f64::max)
    }
}

/// Counters of a group at a look.
#[derive(Debug, Clone, Copy)]
struct Counters {
    cpu_ns: u64,
    read: u64,
    write: u64,
}

impl Counters {
    fn of(node: &Node) -> Self {
        let io = &node.stats.io;
        Self {
            cpu_ns: node.stats.cpu_ns,
            read: io.iter().map(|d| d.read_bytes).sum(),
            write: io.iter().map(|d| d.write_bytes).sum(),
        }
    }
}

/// Remembers the look before.
pub(crate) struct Sampler {
    group: Group,
    depth: Option<usize>,
    global: GlobalArgs,
    before: BTreeMap<String, Counters>,
    at: Option<Instant>,
}

impl Sampler {
    pub(crate) fn new(group: Group, depth: Option<usize>, global: GlobalArgs) -> Self {
        Self { group, depth, global, before: BTreeMap::new(), at: None }
    }

    /// Looks now. Rates are 0 at the first time.
    pub(crate) fn look(&mut self, subject: Subject) -> Result<Look, CliError> {
        let layout = layout()?;
        let found = existing(&self.group, places(&layout, &self.group)?)?;
        let nodes = tree(&found, self.depth)?;
        let now = Instant::now();
        let seconds = self.at.map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        let counters: BTreeMap<String, Counters> = nodes.iter().map(|n| (n.path.clone(), Counters::of(n))).collect();
        let containers = self.containers();
        let name = |node: &Node| {
            containers.iter().find(|(id, _)| node.path.contains(id.as_str())).map(|(_, name)| name.clone())
        };
        let rows = nodes.into_iter().map(|node| {
            let container = name(&node);
            self.row(node, container, seconds)
        });
        let wanted = |row: &Row| subject == Subject::Groups || row.container.is_some();
        let mut rows: Vec<Row> = rows.filter(wanted).collect();
        if subject == Subject::Containers {
            // Groups below a container's own are part of it.
            rows.dedup_by(|b, a| a.container == b.container);
        }
        (self.before, self.at) = (counters, Some(now));
        Ok(Look { rows, machine: machine_pressure() })
    }

    fn row(&self, node: Node, container: Option<String>, seconds: f64) -> Row {
        let now = Counters::of(&node);
        let before = self.before.get(&node.path).copied().unwrap_or(now);
        let rate =
            |now: u64, before: u64| if seconds > 0.0 { now.saturating_sub(before) as f64 / seconds } else { 0.0 };
        let path = format!("/{}", node.path);
        Row {
            name: container.clone().unwrap_or_else(|| path.clone()),
            container,
            group: path,
            cpu: rate(now.cpu_ns, before.cpu_ns) / 1e7,
            memory: node.stats.memory,
            limit: node.stats.memory_limit,
            tasks: node.stats.pids,
            read: rate(now.read, before.read),
            write: rate(now.write, before.write),
            pressure: pressure(&node.paths),
            node,
        }
    }

    /// Ids and names of containers that run; a store that cannot be read has none.
    fn containers(&self) -> BTreeMap<String, String> {
        let list = self.global.engine().and_then(|engine| Ok(engine.list(&ListFilter::default())?));
        let running = list.unwrap_or_default().into_iter().filter(|c| matches!(c.status, Status::Running { .. }));
        running.map(|c| (c.record.id.as_str().to_owned(), c.record.name.to_string())).collect()
    }

    /// The last lines of a container's log.
    pub(crate) fn logs(&self, container: &str) -> Result<Vec<String>, CliError> {
        let options = LogOptions { follow: false, tail: Some(LOG_LINES), since: None, until: None };
        let engine = self.global.engine()?;
        let mut reader = engine.logs(container, options)?;
        let mut lines = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            lines.push(printable(entry.log.trim_end()));
        }
        Ok(lines)
    }
}

/// Everything that is known of a row, line by line.
pub(crate) fn details(row: &Row) -> Vec<String> {
    let s = &row.node.stats;
    let seconds = |ns: u64| format!("{:.3} s", ns as f64 / 1e9);
    let limit = |n: Option<u64>| n.map_or_else(|| "none".to_owned(), human_memory);
    let mut lines = vec![
        format!("group        {}", row.group),
        format!("controllers  {}", row.node.controllers().join(" ")),
        String::new(),
        format!(
            "CPU          {} ({} user, {} system)",
            seconds(s.cpu_ns),
            seconds(s.cpu_user_ns),
            seconds(s.cpu_system_ns)
        ),
        format!("throttled    {} periods, {}", s.throttled_periods, seconds(s.throttled_ns)),
        format!("memory       {} of {}", human_memory(s.memory), limit(s.memory_limit)),
        format!("peak         {}", limit(s.memory_peak)),
        format!("swap         {}", s.swap.map_or_else(|| "not counted".to_owned(), human_memory)),
        format!("OOM kills    {}", oom_kills(&row.node)),
        format!(
            "tasks        {} of {}",
            s.pids,
            s.pids_limit.map_or_else(|| "any number".to_owned(), |n| n.to_string())
        ),
    ];
    for p in &row.pressure {
        let (some, full) = (p.some, p.full);
        let text = format!(
            "some {:.2} {:.2} {:.2}  full {:.2} {:.2} {:.2}",
            some.avg10, some.avg60, some.avg300, full.avg10, full.avg60, full.avg300
        );
        lines.push(format!("pressure     {:<7} {text}", p.resource));
    }
    for io in &s.io {
        lines.push(format!(
            "disk {:<7} {} read, {} written",
            format!("{}:{}", io.major, io.minor),
            human_memory(io.read_bytes),
            human_memory(io.write_bytes)
        ));
    }
    lines.push(String::new());
    for pid in row.node.processes.iter().take(100) {
        let command = process(*pid).map(|p| p.command).unwrap_or_default();
        lines.push(format!("{pid:>11}  {}", printable(&command)));
    }
    lines
}

//! `onggi stats`.

use std::{collections::BTreeMap, io::IsTerminal as _, thread, time::Duration};

use clap::Args;
use onggi_engine::{ContainerUsage, Engine, EngineError, ListFilter};
use onggi_spec::quantity::{human_memory, human_size};
use serde_json::{Value, json};

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
};

/// Between two looks, as Docker.
const INTERVAL: Duration = Duration::from_secs(1);

/// Clears a terminal.
const CLEAR: &str = "\x1b[2J";

const COLUMNS: Columns = Columns {
    headers: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
};

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Also containers that do not run
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
    /// Print one table and end
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Containers; all that run otherwise
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// What each container had used at the look before, by id.
type Before = BTreeMap<String, ContainerUsage>;

impl StatsArgs {
    /// Prints what containers use, once a second until it is interrupted.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let mut before: Before = BTreeMap::new();
        // Percents of CPU time need two looks.
        for (_, usage) in self.look(&engine)? {
            before.insert(usage.record.id.to_string(), usage);
        }
        let terminal = std::io::stdout().is_terminal();
        let mut first = true;
        loop {
            thread::sleep(INTERVAL);
            let found = self.look(&engine)?;
            let rows: Vec<Value> = found.iter().map(|(name, usage)| self.row(name, usage, &before)).collect();
            let text = format::rows(self.format.as_deref(), &COLUMNS, &rows)?;
            if self.no_stream {
                render::stdout(&text)?;
                return Ok(0);
            }
            render::stdout(&if terminal { repaint(&text, first) } else { text })?;
            first = false;
            before = found.into_iter().map(|(_, usage)| (usage.record.id.to_string(), usage)).collect();
        }
    }

    /// The containers as they were called, and what they use.
    fn look(&self, engine: &Engine) -> Result<Vec<(String, ContainerUsage)>, CliError> {
        if !self.containers.is_empty() {
            let one = |name: &String| Ok((name.clone(), engine.usage(name)?));
            return self.containers.iter().map(one).collect();
        }
        let list = engine.list(&ListFilter { all: self.all, ..ListFilter::default() })?;
        let mut found = Vec::new();
        for container in list {
            let id = container.record.id.to_string();
            match engine.usage(&id) {
                Ok(usage) => found.push((id, usage)),
                // Removed meanwhile.
                Err(e) if e.is_no_such_container() => {}
                Err(e) => return Err(EngineError::into(e)),
            }
        }
        Ok(found)
    }

    fn row(&self, name: &str, usage: &ContainerUsage, before: &Before) -> Value {
        let id = &usage.record.id;
        let shown = if self.no_trunc { id.as_str() } else { id.short() };
        let cpu = before.get(id.as_str()).map_or(0.0, |before| usage.cpu_percent(before));
        json!({
            "Container": if name == id.as_str() { shown } else { name },
            "ID": shown,
            "Name": usage.record.name.as_str(),
            "CPUPerc": format!("{cpu:.2}%"),
            "MemUsage": format!("{} / {}", human_memory(usage.memory), human_memory(usage.memory_limit)),
            "MemPerc": format!("{:.2}%", usage.memory_percent()),
            "NetIO": format!("{} / {}", human_size(usage.received), human_size(usage.sent)),
            "BlockIO": format!("{} / {}", human_size(usage.read), human_size(usage.written)),
            "PIDs": usage.pids.to_string(),
        })
    }
}

/// The text over what stood on the terminal before: each line to its end, then everything below.
fn repaint(text: &str, first: bool) -> String {
    let clear = if first { CLEAR } else { "" };
    let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("{clear}\x1b[H{lines}\x1b[J")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_painted_over_the_one_before() {
        assert_eq!(repaint("ab\nc\n", true), "\x1b[2J\x1b[Hab\x1b[K\nc\x1b[K\n\x1b[J");
        assert_eq!(repaint("", false), "\x1b[H\x1b[J");
    }
}

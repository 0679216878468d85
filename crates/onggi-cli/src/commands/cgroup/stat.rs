//! `onggi cgroup stat`: everything that is counted for one group.

use clap::Args;
use onggi_primitives::cgroup::{Node, pressure, tree};
use onggi_spec::quantity::human_memory;
use serde_json::{Value, json};

use super::{found, subject};
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
};

const COLUMNS: Columns = Columns {
    headers: &[("Key", "COUNTER"), ("Value", "VALUE"), ("Shown", "VALUE"), ("Meaning", "MEANING")],
    default: "{{.Key}}\t{{.Shown}}\t{{.Meaning}}",
};

/// Arguments of `cgroup stat`.
#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// Template, `json`, or `table TEMPLATE`
    #[arg(short, long)]
    format: Option<String>,
    /// Path from the root of the hierarchy, or a running container
    #[arg(value_name = "GROUP")]
    group: String,
}

impl StatArgs {
    /// Prints one line for each counter.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let (_, places) = found(&subject::group(&self.group, global)?)?;
        let nodes = tree(&places, Some(0))?;
        let rows: Vec<Value> = nodes.iter().flat_map(rows).collect();
        render::stdout(&format::rows(self.format.as_deref(), &COLUMNS, &rows)?)?;
        Ok(0)
    }
}

fn rows(node: &Node) -> Vec<Value> {
    let s = &node.stats;
    let row = |key: &str, value: Value, shown: String, meaning: &str| json!({ "Key": key, "Value": value, "Shown": shown, "Meaning": meaning });
    let time = |ns: u64| format!("{}.{:03}s", ns / 1_000_000_000, ns / 1_000_000 % 1000);
    let seconds = |key: &str, ns: u64, meaning: &str| row(key, json!(ns), time(ns), meaning);
    let bytes = |key: &str, n: Option<u64>, meaning: &str| {
        row(key, n.map_or(json!("max"), |n| json!(n)), n.map_or_else(|| "max".into(), human_memory), meaning)
    };
    let count = |key: &str, n: Option<u64>, meaning: &str| {
        let shown = n.map_or_else(|| "max".to_owned(), |n| n.to_string());
        row(key, n.map_or(json!("max"), |n| json!(n)), shown, meaning)
    };
    let mut all = vec![
        seconds("cpu.time", s.cpu_ns, "CPU time used"),
        seconds("cpu.user", s.cpu_user_ns, "of it by programs"),
        seconds("cpu.system", s.cpu_system_ns, "of it by the kernel"),
        count("cpu.throttled", Some(s.throttled_periods), "periods in which the CPU limit stopped the group"),
        seconds("cpu.throttled_time", s.throttled_ns, "for how long it was stopped"),
        bytes("memory", Some(s.memory), "memory in use, page cache included"),
        bytes("memory.inactive_file", Some(s.inactive_file), "of it, page cache that nobody uses now"),
        bytes("memory.limit", s.memory_limit, "beyond it the OOM killer comes"),
    ];
    all.extend(s.memory_peak.map(|n| bytes("memory.peak", Some(n), "most memory that was in use")));
    all.extend(s.swap.map(|n| bytes("swap", Some(n), "swap in use")));
    let kills = onggi_primitives::cgroup::oom_kills(node);
    all.push(count("memory.oom_kills", Some(kills), "processes that the OOM killer has ended"));
    all.push(count("pids", Some(s.pids), "processes and threads"));
    all.push(count("pids.limit", s.pids_limit, "how many there may be"));
    for io in &s.io {
        let device = format!("io.{}:{}", io.major, io.minor);
        all.push(bytes(&format!("{device}.read"), Some(io.read_bytes), "bytes read from the disk"));
        all.push(bytes(&format!("{device}.written"), Some(io.write_bytes), "bytes written to the disk"));
    }
    for p in pressure(&node.paths) {
        for (kind, stall, who) in [("some", p.some, "some task"), ("full", p.full, "every task")] {
            let shown = format!("{:.2}% {:.2}% {:.2}%", stall.avg10, stall.avg60, stall.avg300);
            let meaning = format!("share of 10 s, 1 min, 5 min in which {who} waited for {}", p.resource);
            all.push(row(&format!("pressure.{}.{kind}", p.resource), json!(stall.total), shown, &meaning));
        }
    }
    all
}

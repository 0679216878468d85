//! `onggi top` and `onggi cgroup top`: containers, groups and pressure as they change, as systemd-cgtop(1). `onggi top NAME`:
//! the processes of a container, as Docker's.
//!
//! [`sample`] looks, [`state`] is what a key changes, [`view`] draws; on a terminal a loop joins them, `--batch` prints.

mod processes;
mod sample;
mod state;
#[cfg(feature = "tui")]
mod terminal;
#[cfg(feature = "tui")]
mod view;

use std::{io::IsTerminal as _, thread, time::Duration};

use clap::{Args, ValueEnum};
use onggi_primitives::cgroup::Group;
use serde_json::Value;

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
};
pub(crate) use processes::ProcessesArgs;
use sample::{Sampler, Subject};

const COLUMNS: Columns = Columns {
    headers: &[
        ("Name", "NAME"),
        ("Group", "GROUP"),
        ("Cpu", "CPU %"),
        ("Memory", "MEMORY"),
        ("MemoryBytes", "BYTES"),
        ("Limit", "LIMIT"),
        ("Tasks", "TASKS"),
        ("Read", "READ/S"),
        ("Write", "WRITE/S"),
        ("CpuPressure", "CPU PSI"),
        ("MemoryPressure", "MEM PSI"),
        ("IoPressure", "IO PSI"),
    ],
    default: "{{.Name}}\t{{.Tasks}}\t{{.Cpu}}\t{{.Memory}}\t{{.Limit}}\t{{.Read}}\t{{.Write}}\t{{.CpuPressure}}\t\
              {{.MemoryPressure}}\t{{.IoPressure}}",
};

/// Characters of a name that widen the column: paths of groups may be longer.
const NAME_WIDTH: usize = 50;

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// CPU time
    Cpu,
    /// Memory
    Memory,
    /// Processes and threads
    Tasks,
    /// Bytes read and written
    Io,
    /// Waiting for any resource
    Pressure,
    /// Name
    Name,
}

/// Options of both commands.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Print plain tables, for scripts
    #[arg(short, long)]
    batch: bool,
    /// How many times; for ever otherwise
    #[arg(short = 'n', long, value_name = "N")]
    iterations: Option<u64>,
    /// Seconds between two looks
    #[arg(short, long, default_value_t = 1.0, value_name = "SECONDS")]
    delay: f64,
    /// Order of the rows
    #[arg(short, long, value_enum, default_value = "cpu")]
    sort: Sort,
    /// Levels of groups
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Template, `json`, or `table TEMPLATE`; implies --batch
    #[arg(long)]
    format: Option<String>,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(crate) struct ContainersArgs {
    /// Begin with all groups instead of containers
    #[arg(short, long)]
    groups: bool,
    #[command(flatten)]
    top: TopArgs,
    /// List the processes of this container instead, with these columns (pid,user,args) or options of ps(1) (aux, -o pid,comm)
    #[arg(num_args = 0.., trailing_var_arg = true, value_names = ["CONTAINER", "COLUMNS|PS-OPTIONS"],
        conflicts_with_all = ["groups", "batch", "iterations", "delay", "sort", "depth"])]
    container_and_columns: Vec<String>,
}

impl ContainersArgs {
    /// Shows containers; groups are a key away. With a container's name, its processes.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        if !self.container_and_columns.is_empty() {
            return processes::print(&self.container_and_columns, self.top.format.as_deref(), global);
        }
        let subject = if self.groups { Subject::Groups } else { Subject::Containers };
        self.top.run(subject, Group::root(), global)
    }
}

/// Arguments of `cgroup top`.
#[derive(Debug, Args)]
pub(crate) struct GroupsArgs {
    #[command(flatten)]
    top: TopArgs,
    /// Path from the root of the hierarchy, or a running container; everything otherwise
    #[arg(value_name = "GROUP", default_value = "/")]
    group: String,
}

impl GroupsArgs {
    /// Shows the groups below one.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        self.top.run(Subject::Groups, super::cgroup::group(&self.group, global)?, global)
    }
}

/// Shortest time between two looks: less shows only noise.
const MIN_DELAY: f64 = 0.1;

impl TopArgs {
    fn run(self, subject: Subject, group: Group, global: &GlobalArgs) -> Result<u8, CliError> {
        if !self.delay.is_finite() || self.delay > 86_400.0 {
            return Err(CliError::usage("the delay is no number of seconds", "write one from 0.1, as -d 2"));
        }
        let sampler = Sampler::new(group, self.depth, global.clone());
        let batch = self.batch || self.format.is_some() || !std::io::stdout().is_terminal();
        if batch { self.print(subject, sampler) } else { self.show(subject, sampler) }
    }

    fn pause(&self) -> Duration {
        Duration::from_secs_f64(self.delay.max(MIN_DELAY))
    }

    /// Rates need two looks, so the first table comes after one pause.
    fn print(&self, subject: Subject, mut sampler: Sampler) -> Result<u8, CliError> {
        sampler.look(subject)?;
        let mut done = 0;
        while self.iterations.is_none_or(|n| done < n) {
            thread::sleep(self.pause());
            let mut rows = sampler.look(subject)?.rows;
            state::sort(&mut rows, self.sort, false);
            let values: Vec<Value> = rows.iter().map(sample::Row::value).collect();
            let text = format::rows_within(self.format.as_deref(), &COLUMNS, &values, NAME_WIDTH)?;
            render::stdout(&if done > 0 && self.format.is_none() { format!("\n{text}") } else { text })?;
            done += 1;
        }
        Ok(0)
    }

    #[cfg(feature = "tui")]
    fn show(&self, subject: Subject, sampler: Sampler) -> Result<u8, CliError> {
        terminal::run(subject, sampler, self.sort, self.pause(), self.iterations)
    }

    #[cfg(not(feature = "tui"))]
    fn show(&self, subject: Subject, sampler: Sampler) -> Result<u8, CliError> {
        self.print(subject, sampler)
    }
}

//! `top NAME`: the processes of a container as the host sees them.
//!
//! The columns of Docker and those that are asked for by name are made from /proc. With options of ps(1) that program of the
//! host is run, never one of the container, and its lines are those of the container's processes.

mod column;
mod process;
mod ps;

use std::fs;

use onggi_spec::monitor::SandboxState;
use onggi_state::ContainerRecord;
use onggi_storage::driver::lookup_view;

use crate::{Engine, EngineError, Status};
pub use column::Column;
use process::{Host, Names, Process};

/// Accounts of a container are looked up in files of at most this size.
const MAX_ACCOUNTS: u64 = 1 << 20;

/// What is asked of each process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopRequest {
    /// Docker's columns: those of `ps -ef`.
    Usual,
    /// These.
    Columns(Vec<Column>),
    /// Options of ps(1).
    Ps(Vec<String>),
}

/// Rows of texts below their titles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessTable {
    /// One for each column.
    pub titles: Vec<String>,
    /// One for each process; the last column may be empty.
    pub rows: Vec<Vec<String>>,
}

impl Engine {
    /// The processes of a running container.
    ///
    /// # Errors
    /// No such container, it does not run, or ps(1) fails.
    pub fn top(&self, name: &str, request: &TopRequest) -> Result<ProcessTable, EngineError> {
        let record = self.find(name)?;
        let Some((_, state)) = self.living(&record)? else {
            let state = match self.status(&record.id)? {
                // Its end is being written down.
                Status::Running { .. } => "exited",
                other => other.name(),
            };
            let (name, hint) = (record.name.to_string(), "start it first: onggi start NAME");
            return Err(EngineError::WrongState { verb: "list the processes of", name, state, hint });
        };
        let pids = processes_of(&state)?;
        let columns = match request {
            TopRequest::Ps(options) => return ps::list(options, &pids),
            TopRequest::Usual => Column::usual(),
            TopRequest::Columns(columns) => columns.clone(),
        };
        let host = self.host_of_processes(&record);
        let found = pids.iter().filter_map(|pid| Process::read(*pid));
        let rows = found.map(|process| columns.iter().map(|c| c.value(&process, &host)).collect()).collect();
        Ok(ProcessTable { titles: columns.iter().map(|c| c.title().to_owned()).collect(), rows })
    }

    /// What the columns need to know beside the processes. Names that cannot be looked up are numbers.
    fn host_of_processes(&self, record: &ContainerRecord) -> Host {
        let inside = self.rootfs_of(record).ok().map(|rootfs| lookup_view(&rootfs, &self.paths.bundle(&record.id)));
        let names = |path: &str| {
            let inner = inside.as_ref().and_then(|view| onggi_storage::read_in_root(view, path, MAX_ACCOUNTS).ok());
            let text = inner.flatten().unwrap_or_default();
            Names::parse(&String::from_utf8_lossy(&text))
        };
        Host::read(names("/etc/passwd"), names("/etc/group"))
    }
}

/// The processes of its control groups; without any (an ordinary user's), those in the pid namespace of its first one.
fn processes_of(state: &SandboxState) -> Result<Vec<i32>, EngineError> {
    if !state.cgroup_paths.is_empty() {
        return Ok(onggi_cgroup::pids(&state.cgroup_paths)?);
    }
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(first) = namespace(state.pid) else { return Ok(Vec::new()) };
    let proc = std::path::Path::new("/proc");
    let failed = |source| EngineError::ReadFile { path: proc.to_owned(), source };
    let mut pids = Vec::new();
    for entry in fs::read_dir(proc).map_err(failed)? {
        let pid = entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        pids.extend(pid.filter(|pid| namespace(*pid).as_ref() == Some(&first)));
    }
    pids.sort_unstable();
    Ok(pids)
}

//! What a container is doing, derived from the kernel and from `exit.json`; never stored.
//!
//! ```text
//! monitor.lock held, state.json says started             running; paused when its group is frozen
//! monitor.lock held, exit.json                           exited (the monitor ends right now)
//! monitor.lock held otherwise                            created (it is being started)
//! lock free, exit.json                                   exited
//! lock free, started.json only                           exited: the machine went down with it, or nothing could be written
//! lock free, neither                                     created
//! ```

use onggi_spec::{
    ContainerId,
    monitor::{ExitRecord, SandboxState},
};
use onggi_state::files::{Lock, ProcessIdentity};
use serde::Serialize;

use crate::{Engine, EngineError, create, json, start::StartRecord};

/// Docker's exit code of a container whose end nobody saw.
const UNKNOWN: i32 = 255;

/// A container's state, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Status {
    /// Never started, or being started.
    Created,
    /// Its first process lives.
    Running {
        /// That process.
        pid: i32,
        /// Unix time in nanoseconds.
        started_at: i64,
        /// Its processes stand still: its control group is frozen.
        paused: bool,
    },
    /// It has ended.
    Exited(ExitRecord),
}

impl Status {
    /// `created`, `running`, `paused` or `exited`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { paused: true, .. } => "paused",
            Self::Running { .. } => "running",
            Self::Exited(_) => "exited",
        }
    }

    /// True for `Running`, paused or not.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// True when its processes stand still.
    pub fn is_paused(&self) -> bool {
        matches!(self, Self::Running { paused: true, .. })
    }
}

impl Engine {
    /// The state of a container.
    ///
    /// # Errors
    /// A record exists but cannot be read.
    pub fn status(&self, id: &ContainerId) -> Result<Status, EngineError> {
        if self.monitor_alive(id)? {
            return self.status_with_monitor(id);
        }
        if let Some(exit) = self.exit_record(id)? {
            return Ok(Status::Exited(exit));
        }
        let started: Option<StartRecord> = json::read_optional(&self.paths.started_file(id))?;
        Ok(started.map_or(Status::Created, |s| Status::Exited(unrecorded(&s, booted_at()))))
    }

    /// Between the end of the workload and the exit record a container is still "running": it never goes back to
    /// "created".
    fn status_with_monitor(&self, id: &ContainerId) -> Result<Status, EngineError> {
        let state = self.sandbox_state(id)?.filter(|s| s.started);
        match (state, self.exit_record(id)?) {
            (Some(s), None) => Ok(running(&s)),
            (Some(s), Some(_)) if process_lives(&s)? => Ok(running(&s)),
            (_, Some(exit)) => Ok(Status::Exited(exit)),
            (None, None) => Ok(Status::Created),
        }
    }

    /// The number of a running container's first process.
    ///
    /// # Errors
    /// No such container, or it does not run.
    pub fn first_process(&self, name: &str) -> Result<i32, EngineError> {
        let record = self.find(name)?;
        match self.status(&record.id)? {
            Status::Running { pid, .. } => Ok(pid),
            other => Err(EngineError::WrongState {
                verb: "look into",
                name: record.name.to_string(),
                state: other.name(),
                hint: "start it first: onggi start NAME",
            }),
        }
    }

    /// The id of the container that is meant by a name, an id or the beginning of one.
    ///
    /// # Errors
    /// There is none.
    pub fn container_id(&self, name: &str) -> Result<ContainerId, EngineError> {
        Ok(self.find(name)?.id)
    }

    /// True while the monitor's lock is held.
    pub(crate) fn monitor_alive(&self, id: &ContainerId) -> Result<bool, EngineError> {
        Ok(Lock::is_held(&self.paths.run_dir(id).join("monitor.lock"))?)
    }

    /// How the container ended last, if it has.
    /// A record that a power cut has damaged says that it ended, and no more.
    pub(crate) fn exit_record(&self, id: &ContainerId) -> Result<Option<ExitRecord>, EngineError> {
        match json::read_optional(&self.paths.exit_file(id)) {
            Err(EngineError::DamagedFile { .. }) => Ok(Some(ExitRecord {
                exit_code: UNKNOWN,
                error: "the record of its exit is damaged".to_owned(),
                ..ExitRecord::default()
            })),
            other => other,
        }
    }

    /// What the runtime wrote about the container, if it exists there.
    pub(crate) fn sandbox_state(&self, id: &ContainerId) -> Result<Option<SandboxState>, EngineError> {
        json::read_optional(&self.paths.oci_root().join(id.as_str()).join("state.json"))
    }
}

fn running(state: &SandboxState) -> Status {
    Status::Running { pid: state.pid, started_at: state.created_at, paused: is_paused(state) }
}

/// True when the container's control group is frozen. One that is gone, or a host without a freezer, holds nothing still.
pub(crate) fn is_paused(state: &SandboxState) -> bool {
    onggi_cgroup::is_frozen(&state.cgroup_paths).unwrap_or(false)
}

/// What the end of a container is called that nobody wrote down, although the machine has been up all the time.
pub(crate) const UNRECORDED: &str = "nobody could write down how it ended";

/// Nobody was there to see how it ended; Docker says 255 too.
fn unrecorded(started: &StartRecord, booted_at: i64) -> ExitRecord {
    let error = match started.started_at > booted_at {
        true => format!("{UNRECORDED}: its disk was full, or its files were removed while it ran"),
        false => "the machine went down while the container ran".to_owned(),
    };
    ExitRecord {
        exit_code: UNKNOWN,
        started_at: started.started_at,
        finished_at: started.started_at,
        error,
        ..ExitRecord::default()
    }
}

/// When this machine was switched on, in nanoseconds of Unix time.
fn booted_at() -> i64 {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    create::now() - (up.tv_sec.saturating_mul(1_000_000_000) + up.tv_nsec)
}

/// True when the process that the runtime started still exists: same pid, same start time, same boot.
pub(crate) fn process_lives(state: &SandboxState) -> Result<bool, EngineError> {
    let process = ProcessIdentity { pid: state.pid, start_time: state.pid_start_time, boot_id: state.boot_id.clone() };
    Ok(process.is_alive()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_up_since_before_the_start_did_not_go_down() {
        let started = StartRecord { started_at: 1_000 };
        assert!(unrecorded(&started, 2_000).error.contains("machine went down"));
        assert!(unrecorded(&started, 500).error.starts_with(UNRECORDED));
        assert!(booted_at() < create::now());
    }
}

//! `why`: explains how a container ended, or why it did not start.
//!
//! Gathers what was really recorded: the exit record with what the kernel told the monitor, the signals that our own
//! commands sent, the failed start, the last lines of the log, the kernel's log, and the program's files in the root
//! filesystem. [`diagnose`] is pure and names a cause only when a record shows it.

mod diagnose;
mod kernel_log;

use onggi_spec::{
    monitor::{ExitRecord, RootFs},
    oci::runtime::Spec,
};
use onggi_state::ContainerRecord;
use onggi_storage::{Examination, ExecutableQuery, examine_command};
use serde::Serialize;

use crate::{
    Engine, EngineError, LogOptions, Status,
    asked::{Asked, FailedStart},
    json,
};

use diagnose::diagnose;

/// Lines of the log that are shown.
const LOG_LINES: usize = 10;
/// Longest line that is shown.
const LINE: usize = 400;

/// The kind of cause, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It runs.
    Running,
    /// Nobody has started it.
    NeverStarted,
    /// It ended by itself with code 0.
    Success,
    /// `stop` ended it.
    Stopped,
    /// `kill` or `rm -f` ended it.
    Killed,
    /// The OOM killer ended it, or a process in it.
    OutOfMemory,
    /// A signal from somewhere else ended it, or its own fault did.
    Signal,
    /// A seccomp filter ended it.
    Seccomp,
    /// It could not make more processes.
    PidsLimit,
    /// The command is not there.
    CommandNotFound,
    /// The interpreter of its script or program is not there.
    InterpreterMissing,
    /// A shared library is not there.
    LibraryMissing,
    /// It is a program for another processor.
    WrongArchitecture,
    /// It may not be executed, or is no program.
    NotExecutable,
    /// It is on a mount without execution.
    NoExec,
    /// The start failed before the command was executed.
    StartFailed,
    /// The monitor died and took it along.
    MonitorLost,
    /// The machine went down.
    MachineDown,
    /// Its end could not be written down.
    Unrecorded,
    /// It ended by itself with a code that is not 0.
    ExitCode,
}

/// Why a container is in the state that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Why {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name.
    pub name: String,
    /// Image as the user wrote it.
    pub image: String,
    /// What was, or would have been, executed.
    pub command: Vec<String>,
    /// `created`, `running` or `exited`.
    pub state: String,
    /// Its exit code, once it has ended.
    pub exit_code: Option<i32>,
    /// The kind.
    pub cause: Cause,
    /// One sentence.
    pub summary: String,
    /// What was recorded that shows it, one fact each.
    pub evidence: Vec<String>,
    /// The last lines that it wrote.
    pub log: Vec<String>,
    /// What to do, most promising first.
    pub next: Vec<String>,
}

/// Everything that a diagnosis may know.
#[derive(Debug, Clone)]
pub(crate) struct WhyFacts {
    /// Full id.
    pub(crate) id: String,
    /// Name.
    pub(crate) name: String,
    /// Image as the user wrote it.
    pub(crate) image: String,
    /// The whole command.
    pub(crate) command: Vec<String>,
    /// Its state.
    pub(crate) status: Status,
    /// Signals that our commands sent since the last start.
    pub(crate) asked: Vec<Asked>,
    /// The last start, when it failed.
    pub(crate) failed: Option<FailedStart>,
    /// The command in the root filesystem; absent when that cannot be read.
    pub(crate) program: Option<Examination>,
    /// The mount without execution that the program is on.
    pub(crate) noexec: Option<String>,
    /// The last lines that it wrote.
    pub(crate) log: Vec<String>,
    /// Lines of the kernel's log about it.
    pub(crate) kernel_log: Vec<String>,
    /// Its root filesystem is read-only.
    pub(crate) read_only: bool,
}

impl Engine {
    /// Explains the state of a container.
    ///
    /// # Errors
    /// No such container, or its records cannot be read.
    pub fn why(&self, name: &str) -> Result<Why, EngineError> {
        self.recover()?;
        let record = self.find(name)?;
        Ok(diagnose(&self.why_facts(&record)?))
    }

    fn why_facts(&self, record: &ContainerRecord) -> Result<WhyFacts, EngineError> {
        let status = self.status(&record.id)?;
        let exit = match &status {
            Status::Exited(exit) => Some(exit),
            _ => None,
        };
        let failed = self.failed_start(&record.id);
        let spec: Option<Spec> = json::read_optional(&self.paths.bundle(&record.id).join("config.json"))?;
        let program =
            (failed.is_some() || exit.is_some_and(ended_badly)).then(|| self.examine(record, spec.as_ref())).flatten();
        let path = program.as_ref().and_then(|p| p.program.clone());
        Ok(WhyFacts {
            id: record.id.to_string(),
            name: record.name.to_string(),
            image: record.image_name.clone(),
            command: record.command.clone(),
            asked: self.asked(&record.id),
            noexec: path.and_then(|path| noexec_mount(spec.as_ref()?, &path)),
            log: self.last_lines(record)?,
            kernel_log: exit.map(|exit| kernel_log::about(record.id.as_str(), exit)).unwrap_or_default(),
            read_only: record.request.read_only,
            failed,
            program,
            status,
        })
    }

    /// The command as the container would find it; nothing when its files cannot be read.
    fn examine(&self, record: &ContainerRecord, spec: Option<&Spec>) -> Option<Examination> {
        let bundle = self.paths.bundle(&record.id);
        let rootfs: RootFs = json::read(&bundle.join("rootfs.json")).ok()?;
        let view = onggi_storage::driver::lookup_view(&rootfs, &bundle);
        let process = spec.and_then(|s| s.process.as_ref());
        let env = process.map(|p| p.env.as_slice()).unwrap_or_default();
        let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("/usr/local/bin:/usr/bin:/bin");
        let cwd = process.map_or("/", |p| p.cwd.as_str());
        let argv0 = record.command.first()?;
        match examine_command(&view, &ExecutableQuery { argv0, path, cwd }) {
            Ok(found) => Some(found),
            Err(e) => {
                tracing::debug!("cannot look at the command of {}: {e}", record.id.short());
                None
            }
        }
    }

    fn last_lines(&self, record: &ContainerRecord) -> Result<Vec<String>, EngineError> {
        let mut reader =
            self.logs(record.id.as_str(), LogOptions { tail: Some(LOG_LINES), ..LogOptions::default() })?;
        let mut lines = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let text = entry.log.trim_end().chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c });
            lines.push(format!("{}: {}", entry.stream, text.take(LINE).collect::<String>()));
        }
        Ok(lines)
    }
}

fn ended_badly(exit: &ExitRecord) -> bool {
    exit.exit_code != 0
}

/// The innermost mount of the configuration that the path is on, if it forbids execution.
fn noexec_mount(spec: &Spec, path: &str) -> Option<String> {
    let below = |target: &str| {
        let target = target.trim_end_matches('/');
        path.strip_prefix(target).is_some_and(|rest| rest.starts_with('/'))
    };
    let mount = spec.mounts.iter().rev().find(|m| below(&m.destination))?;
    mount.options.iter().any(|o| o == "noexec").then(|| mount.destination.clone())
}

//! Starts the monitor of a container and waits for its one report.
//!
//! The monitor is a process of its own session with exactly these descriptors: 3 the report pipe, 4 the
//! foreground client, 5 the network namespace, 6 the locked `monitor.lock`, from 16 on sockets bound to the
//! published ports, which it only keeps open so that no other program takes them. Handing down the locked
//! descriptor leaves no moment in which a starting container looks dead.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use onggi_spec::{ContainerId, monitor::MonitorReport};
use onggi_state::files::Lock;
use onggi_sys::trace;

use crate::{
    Engine, EngineError, failpoint,
    process::{self, Session},
};

/// Longest report line; a failure's step and hint are short sentences.
const MAX_REPORT: u64 = 64 * 1024;

/// What the monitor inherits beside its files.
pub(crate) struct Inheritance {
    /// The foreground client's end of the attach stream.
    pub(crate) client: Option<OwnedFd>,
    /// The container's network namespace.
    pub(crate) netns: Option<OwnedFd>,
    /// Sockets bound to the published ports.
    pub(crate) reserved: Vec<OwnedFd>,
}

/// The first number of the sockets that reserve ports.
const RESERVED_FROM: i32 = 16;

/// A workload that runs.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Its pid.
    pub(crate) pid: i32,
    /// What the runtime kept as it was, one line each.
    pub(crate) notes: Vec<String>,
}

/// Starts the monitor and waits until the workload runs or has failed to.
pub(crate) fn launch(engine: &Engine, id: &ContainerId, inherit: Inheritance) -> Result<Launched, EngineError> {
    let lock = monitor_lock(&engine.paths().run_dir(id))?;
    let (report, report_write) = process::pipe()?;
    let stderr = engine.paths().run_dir(id).join("monitor.err");
    let stderr = File::create(&stderr).map_err(|source| EngineError::WriteFile { path: stderr, source })?;
    let mut args: Vec<OsString> =
        ["monitor", "--report-fd", "3", "--lock-fd", "6", "--bundle"].map(OsString::from).into();
    args.push(engine.paths().bundle(id).into_os_string());
    let mut fds = vec![(stderr.into(), 2), (report_write, 3), (lock, 6)];
    if let Some(client) = inherit.client {
        args.extend(["--client-fd".into(), "4".into()]);
        fds.push((client, 4));
    }
    if let Some(netns) = inherit.netns {
        args.extend(["--netns-fd".into(), "5".into()]);
        fds.push((netns, 5));
    }
    fds.extend(inherit.reserved.into_iter().zip(RESERVED_FROM..));
    engine.spawn_runtime(args, &fds, Session::New)?;
    // Our copies must go, or the end of the report and of the client's stream would never be seen.
    drop(fds);
    failpoint::hit("start.monitor-spawned");
    let launched =
        trace::step("engine", || "wait until the workload runs".into(), || read_report(engine, id, File::from(report)));
    forward_trace(engine, id);
    launched
}

/// What the starter and the container's process told while they made it is in a file: they have no terminal.
fn forward_trace(engine: &Engine, id: &ContainerId) {
    if engine.traced.is_some() {
        let told = monitor_output(engine, id);
        told.lines().filter(|line| trace::is_line(line)).for_each(trace::pass_on);
    }
}

/// Takes the container's monitor lock for the monitor that is about to be started.
fn monitor_lock(run_dir: &Path) -> Result<OwnedFd, EngineError> {
    let lock = Lock::exclusive(&run_dir.join("monitor.lock"))?;
    let copy = lock.as_fd().try_clone_to_owned();
    copy.map_err(|source| EngineError::WriteFile { path: run_dir.join("monitor.lock"), source })
}

fn read_report(engine: &Engine, id: &ContainerId, pipe: File) -> Result<Launched, EngineError> {
    let mut line = Vec::new();
    let read = BufReader::new(pipe.take(MAX_REPORT)).read_until(b'\n', &mut line);
    match (read, serde_json::from_slice::<MonitorReport>(&line)) {
        (Ok(_), Ok(MonitorReport::Started { pid, notes })) => Ok(Launched { pid, notes }),
        (Ok(_), Ok(MonitorReport::Failed(failure))) => Err(EngineError::Start(failure)),
        _ => Err(EngineError::MonitorDied { id: id.short().to_owned(), output: monitor_output(engine, id) }),
    }
}

/// The end of what the monitor wrote to its stderr, for an error that should never be seen.
fn monitor_output(engine: &Engine, id: &ContainerId) -> String {
    let mut text = String::new();
    let file = File::open(engine.paths().run_dir(id).join("monitor.err"));
    match file.and_then(|f| f.take(MAX_REPORT).read_to_string(&mut text)) {
        Ok(_) => text.trim().to_owned(),
        Err(_) => String::new(),
    }
}

/// Reads the runtime's stderr or log, bounded.
pub(crate) fn read_bounded(from: impl Read) -> io::Result<Vec<u8>> {
    read_bounded_to(from, MAX_REPORT)
}

/// Reads at most `limit` bytes.
pub(crate) fn read_bounded_to(from: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

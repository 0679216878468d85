//! Named points at which a crash test ends the process with SIGKILL.
//!
//! `ONGGI_FAILPOINT=NAME:kill` selects one. Without the cargo feature `failpoints` the call compiles to nothing
//! and the environment is not looked at.

/// Every failpoint, in the order in which `run`, `stop`, `rm` and `pull` pass them.
pub const ALL: &[&str] = &[
    "pull.resolved",
    "pull.layer-downloaded",
    "pull.layer-unpacked",
    "pull.before-commit",
    "pull.committed",
    "commit.frozen",
    "commit.layer-written",
    "pause.frozen",
    "load.unpacked",
    "load.recorded",
    "create.intent",
    "create.recorded",
    "create.snapshot",
    "create.done",
    "start.intent",
    "start.network-recorded",
    "start.network-applied",
    "start.files-written",
    "start.monitor-spawned",
    "start.started",
    "stop.signalled",
    "stop.exited",
    "cleanup.begin",
    "cleanup.network-detached",
    "cleanup.done",
    "remove.intent",
    "remove.snapshot-removed",
    "remove.record-deleted",
    "remove.done",
];

/// Ends the process when `name` is the selected failpoint.
#[cfg(feature = "failpoints")]
pub fn hit(name: &'static str) {
    debug_assert!(ALL.contains(&name), "{name} is not listed");
    if std::env::var_os("ONGGI_FAILPOINT")
        .is_some_and(|v| v.to_str().map(|v| v.strip_suffix(":kill").unwrap_or(v)) == Some(name))
    {
        let pid = rustix::process::getpid();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Does nothing in an ordinary build.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn hit(_name: &'static str) {}

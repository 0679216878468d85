//! Pausing: the version 2 freezer where the container has such a group (also on hybrid layouts, because
//! a process frozen by it can still be killed), else the freezer controller of version 1.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{CgroupError, Paths, apply, remove::Events};

/// How long a group may take: a process in an uninterruptible call delays it.
const PATIENCE: Duration = Duration::from_secs(10);

/// First and longest pause between two looks at a version 1 freezer, which cannot be waited for.
const PAUSES: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(10));

/// Freezes every process of the container and returns when they stand still. Thaws again on failure.
pub fn freeze(paths: &Paths) -> Result<(), CgroupError> {
    let done = set(paths, State::Frozen);
    if done.is_err() {
        // Half-frozen is worse than running; the first error is the one to report.
        let _ = set(paths, State::Thawed);
    }
    done
}

/// Lets the container's processes run again.
pub fn thaw(paths: &Paths) -> Result<(), CgroupError> {
    set(paths, State::Thawed)
}

/// The same without waiting for it: somebody may freeze it anew at this moment.
pub fn let_go(paths: &Paths) -> Result<(), CgroupError> {
    match freezer(paths)? {
        Freezer::V2(dir) => apply::write(&dir.join("cgroup.freeze"), "0", "freezer"),
        Freezer::V1(dir) => apply::write(&dir.join("freezer.state"), "THAWED", "freezer"),
    }
}

/// Whether the container is (or is being) frozen.
pub fn is_frozen(paths: &Paths) -> Result<bool, CgroupError> {
    match freezer(paths)? {
        Freezer::V2(dir) => Ok(apply::read(&dir.join("cgroup.freeze"))?.trim() == "1"),
        Freezer::V1(dir) => Ok(apply::read(&dir.join("freezer.state"))?.trim() != "THAWED"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Frozen,
    Thawed,
}

enum Freezer<'p> {
    V1(&'p Path),
    V2(&'p Path),
}

fn freezer(paths: &Paths) -> Result<Freezer<'_>, CgroupError> {
    match (paths.get(""), paths.get("freezer")) {
        (Some(dir), _) if dir.join("cgroup.freeze").exists() => Ok(Freezer::V2(dir)),
        (_, Some(dir)) => Ok(Freezer::V1(dir)),
        _ => Err(CgroupError::ControllerMissing { controller: "freezer".into(), what: "pause".into() }),
    }
}

fn set(paths: &Paths, state: State) -> Result<(), CgroupError> {
    match freezer(paths)? {
        Freezer::V2(dir) => set_v2(dir, state),
        Freezer::V1(dir) => set_v1(dir, state),
    }
}

fn set_v2(dir: &Path, state: State) -> Result<(), CgroupError> {
    let value = if state == State::Frozen { '1' } else { '0' };
    apply::write(&dir.join("cgroup.freeze"), &value.to_string(), "freezer")?;
    let reached = match Events::open(dir)? {
        Some(events) => events.wait("frozen", value, Instant::now() + PATIENCE)?,
        None => true,
    };
    if reached { Ok(()) } else { Err(late(dir, state)) }
}

fn set_v1(dir: &Path, state: State) -> Result<(), CgroupError> {
    let value = if state == State::Frozen { "FROZEN" } else { "THAWED" };
    let file = dir.join("freezer.state");
    let deadline = Instant::now() + PATIENCE;
    let mut pause = PAUSES.0;
    loop {
        // Written again each time: a process that forked while it froze is caught by the next write.
        apply::write(&file, value, "freezer")?;
        if apply::read(&file)?.trim() == value {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(late(dir, state));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn late(dir: &Path, state: State) -> CgroupError {
    let state = if state == State::Frozen { "frozen" } else { "thawed" };
    CgroupError::NotFrozen { path: dir.to_owned(), state, seconds: PATIENCE.as_secs() }
}

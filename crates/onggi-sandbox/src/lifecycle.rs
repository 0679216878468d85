//! `kill`, `delete`, `state`, `list`, `ps`, `pause`, `resume`.

use std::{
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use onggi_spec::{
    monitor::SandboxState,
    oci::runtime::{ContainerState, Hook, Spec, State},
};
use onggi_sys::{Errno, SysError, process, signal::number};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    create::cgroup_failure,
    error::{Result, StartFailureError, Step},
    hooks, host_mounts,
    plan::cgroups_path,
    rdt,
    state::{self, StateDir},
    unit,
};

/// How long a killed process may take to die before `delete --force` gives up.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// After so long it is thawed again.
const KILL_LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Whom `kill` signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The first process.
    First,
    /// Every process of the container's cgroup.
    All,
}

/// A container as `list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What was stored.
    pub state: SandboxState,
    /// What the kernel says.
    pub status: ContainerState,
}

/// Sends a signal.
///
/// # Errors
/// The container does not run; EPERM.
pub fn kill(state_root: &Path, id: &str, signal: i32, scope: Scope) -> Result<()> {
    let dir = StateDir::of(state_root, id)?;
    let state = dir.load()?;
    let step = || format!("signal container {id}");
    let gone = || not_running(&state);
    // Without a pid namespace of its own nothing dies with the first process, so all are killed (as runc does).
    let all = scope == Scope::All || (signal == number::KILL && state.shares_pids && !state.cgroup_paths.is_empty());
    if all {
        let any = dir.alive(&state) || processes_of(&dir, &state).is_ok_and(|pids| !pids.is_empty());
        return match (any, scope) {
            (true, _) => kill_all(&dir, &state, signal),
            // runc's `--all` on a container without processes is no error.
            (false, Scope::All) => Ok(()),
            (false, Scope::First) => Err(gone()),
        };
    }
    if !dir.alive(&state) {
        return Err(gone());
    }
    let failed = |e: SysError| if e.errno == Errno::SRCH { gone() } else { StartFailureError::from_sys(step(), &e) };
    let pidfd = process::pidfd_open(state.pid).map_err(failed)?;
    // Checked again with the pidfd in hand: it cannot be another process any more.
    if !dir.alive(&state) {
        return Err(gone());
    }
    process::pidfd_kill(pidfd.as_fd(), signal).map_err(failed)?;
    if signal == number::KILL {
        // In a frozen cgroup of version 1 the signal stays pending until it is thawed.
        let _ = onggi_cgroup::thaw(&state.cgroup_paths);
    }
    Ok(())
}

/// The words that engines look for.
fn not_running(state: &SandboxState) -> StartFailureError {
    StartFailureError::new(format!("container not running: {}", state.id))
}

fn kill_all(dir: &StateDir, state: &SandboxState, signal: i32) -> Result<()> {
    if signal == number::KILL && !state.cgroup_paths.is_empty() {
        let _ = onggi_cgroup::thaw(&state.cgroup_paths);
        return onggi_cgroup::kill_all(&state.cgroup_paths).map_err(|e| cgroup_failure("kill all processes", &e));
    }
    for pid in processes_of(dir, state)? {
        match process::kill(pid, signal) {
            Err(e) if e.errno == Errno::SRCH => {}
            r => r.step(|| format!("signal process {pid} of container {}", state.id))?,
        }
    }
    Ok(())
}

fn processes_of(dir: &StateDir, state: &SandboxState) -> Result<Vec<i32>> {
    if state.cgroup_paths.is_empty() {
        return Ok(if dir.alive(state) { vec![state.pid] } else { Vec::new() });
    }
    onggi_cgroup::pids(&state.cgroup_paths).map_err(|e| cgroup_failure("list the processes", &e))
}

/// Pids of a container's processes, as the host sees them.
///
/// # Errors
/// Unknown container.
pub fn processes(state_root: &Path, id: &str) -> Result<Vec<i32>> {
    let dir = StateDir::of(state_root, id)?;
    processes_of(&dir, &dir.load()?)
}

/// Removes a stopped container; with `force` it is killed first, and an unknown one is no error. Returns what
/// poststop hooks had to complain about.
///
/// # Errors
/// It still runs; its cgroup cannot be removed.
pub fn delete(state_root: &Path, id: &str, force: bool) -> Result<Vec<String>> {
    let dir = StateDir::of(state_root, id)?;
    let state = match dir.load() {
        Ok(state) => state,
        Err(_) if force => return salvage(&dir, id).map(|()| Vec::new()),
        // A directory without a state is a create that was killed early: there is nothing but the directory.
        Err(_) if dir.exists() && !dir.path.join("state.json").exists() => {
            dir.remove()?;
            return Ok(Vec::new());
        }
        Err(e) => return Err(e),
    };
    let status = dir.status(&state);
    match status {
        ContainerState::Stopped => {}
        // runc deletes created containers too: nothing of the user's has run in them.
        ContainerState::Created => kill_and_wait(&dir, &state)?,
        _ if force => kill_and_wait(&dir, &state)?,
        other => {
            let now = format!("{other:?}").to_lowercase();
            return Err(StartFailureError::new(format!("cannot delete container {id} that is not stopped: {now}"))
                .hint("kill it first, or delete it with --force"));
        }
    }
    // This also kills what is left of a container without a pid namespace of its own.
    unit::remove_groups(state.systemd_unit.as_ref(), &state.cgroup_paths)?;
    rdt::remove(&state.resctrl);
    host_mounts::remove(&state)?;
    let hooks = dir.hooks().poststop;
    dir.remove()?;
    run_poststop(&state, &hooks)
}

/// Runs the poststop hooks of a container that is gone; returns their complaints, which change nothing.
pub(crate) fn run_poststop(state: &SandboxState, list: &[Hook]) -> Result<Vec<String>> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = state::for_hooks(state, ContainerState::Stopped)?;
    let bundle = hooks::bundle_directory(&state.bundle);
    let directory = bundle.as_ref().map(AsFd::as_fd);
    Ok(hooks::run_all_lenient(hooks::Stage { kind: "poststop", state: &bytes, environment: None, directory }, list))
}

/// Removes a container whose state cannot be read: its cgroups are those of the configuration that was kept.
fn salvage(dir: &StateDir, id: &str) -> Result<()> {
    if let Some(paths) = dir.kept_config().and_then(|config| possible_cgroups(&config, id)) {
        onggi_cgroup::remove(&paths).map_err(|e| cgroup_failure("remove the cgroup", &e))?;
    }
    dir.remove()
}

fn possible_cgroups(config: &Spec, id: &str) -> Option<onggi_cgroup::Paths> {
    onggi_cgroup::possible_paths(&onggi_cgroup::layout::detect().ok()?, &cgroups_path(config, id)).ok()
}

fn kill_and_wait(dir: &StateDir, state: &SandboxState) -> Result<()> {
    if state.pid == 0 {
        return Ok(());
    }
    let step = || format!("kill container {}", state.id);
    let pidfd = match process::pidfd_open(state.pid) {
        Err(e) if e.errno == Errno::SRCH => return Ok(()),
        r => r.step(step)?,
    };
    if !dir.alive(state) {
        return Ok(());
    }
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        // A frozen process does not die before it is thawed; a `pause` at this moment freezes it anew.
        let _ = onggi_cgroup::let_go(&state.cgroup_paths);
        match process::pidfd_kill(pidfd.as_fd(), number::KILL) {
            // It has ended by itself this very moment.
            Err(e) if e.errno == Errno::SRCH => return Ok(()),
            r => r.step(step)?,
        }
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&KILL_LOOK)) {
            Ok(0) if Instant::now() >= deadline => {
                let seconds = KILL_PATIENCE.as_secs();
                return Err(StartFailureError::new(format!("{}: it did not die within {seconds} s", step())));
            }
            Ok(0) | Err(Errno::INTR) => {}
            _ => return Ok(()),
        }
    }
}

/// The state as the specification wants it.
///
/// # Errors
/// Unknown container.
pub fn state(state_root: &Path, id: &str) -> Result<State> {
    let found = listed(state_root, id)?;
    Ok(state::oci_state(&found.state, found.status))
}

/// The stored state of a container and what the kernel says of it.
///
/// # Errors
/// Unknown container.
pub fn listed(state_root: &Path, id: &str) -> Result<Listed> {
    let dir = StateDir::of(state_root, id)?;
    let state = dir.load()?;
    Ok(Listed { status: dir.status(&state), state })
}

/// The configuration that a container was made from.
///
/// # Errors
/// Unknown container; neither the copy nor the bundle can be read.
pub fn stored_config(state_root: &Path, id: &str) -> Result<Spec> {
    let dir = StateDir::of(state_root, id)?;
    dir.config(&dir.load()?)
}

/// All containers, by id, each with the failure where its state cannot be read. One that disappears
/// meanwhile is left out.
///
/// # Errors
/// The state root cannot be read.
pub fn list(state_root: &Path) -> Result<Vec<(String, Result<Listed>)>> {
    let load = |id: String| {
        let found = listed(state_root, &id);
        let gone = found.is_err() && !state_root.join(&id).join("state.json").exists();
        (!gone).then_some((id, found))
    };
    Ok(state::ids(state_root)?.into_iter().filter_map(load).collect())
}

/// Freezes all processes.
///
/// # Errors
/// It does not run, or there is no freezer.
pub fn pause(state_root: &Path, id: &str) -> Result<()> {
    let dir = StateDir::of(state_root, id)?;
    let state = dir.load()?;
    if !matches!(dir.status(&state), ContainerState::Running | ContainerState::Created) {
        return Err(not_running(&state));
    }
    let frozen = onggi_cgroup::freeze(freezer(&state)?);
    // Killed, deleted or ended meanwhile: nothing stands still that could go on again.
    if !dir.alive(&state) {
        return Err(not_running(&state));
    }
    frozen.map_err(|e| cgroup_failure("pause the container", &e))
}

/// Thaws them.
///
/// # Errors
/// As [`pause`].
pub fn resume(state_root: &Path, id: &str) -> Result<()> {
    let dir = StateDir::of(state_root, id)?;
    let state = dir.load()?;
    if dir.status(&state) != ContainerState::Paused {
        return Err(StartFailureError::new(format!("container not paused: {id}")));
    }
    onggi_cgroup::thaw(freezer(&state)?).map_err(|e| cgroup_failure("resume the container", &e))
}

fn freezer(state: &SandboxState) -> Result<&onggi_cgroup::Paths> {
    if state.cgroup_paths.is_empty() {
        return Err(StartFailureError::new(format!("container {} has no cgroup of its own", state.id)));
    }
    Ok(&state.cgroup_paths)
}

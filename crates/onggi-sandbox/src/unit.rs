//! The systemd unit of a container, for runtimes that were told to use systemd: started before the container,
//! stopped before its groups are removed.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use onggi_cgroup::{
    CgroupPlan, Paths,
    systemd::{self, Manager, UnitPlan},
};
use onggi_spec::monitor::SystemdUnit;
use onggi_sys::{
    process::{self, CloneRequest, Cloned},
    signal,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    channel::{Channel, Message},
    create::cgroup_failure,
    error::{Result, StartFailureError, Step},
};

/// A unit that a process of ours keeps alive. Dropping it ends the process, not the unit.
pub(crate) struct Lent {
    pub(crate) unit: SystemdUnit,
    pidfd: OwnedFd,
}

impl Drop for Lent {
    fn drop(&mut self) {
        // It is our own child and does nothing: there is nothing that could fail, or be done about it.
        let _ = process::pidfd_kill(self.pidfd.as_fd(), signal::number::KILL);
        let _ = process::wait_pidfd(self.pidfd.as_fd());
    }
}

/// Starts the unit, if there is one. The caller has one thread.
pub(crate) fn start(groups: Option<&CgroupPlan>) -> Result<Option<Lent>> {
    let Some((groups, unit)) = groups.and_then(|groups| Some((groups, groups.unit.as_ref()?))) else {
        return Ok(None);
    };
    onggi_cgroup::check_unit_free(groups).map_err(|e| cgroup_failure("make the cgroup", &e))?;
    let (pid, pidfd) = lend()?;
    let lent = Lent { unit: SystemdUnit { name: unit.name.clone(), user: unit.manager == Manager::User }, pidfd };
    systemd::start(unit, pid).map_err(|e| cgroup_failure("start the container's unit", &e))?;
    Ok(Some(lent))
}

/// A child that sleeps until it is killed, at the latest when we die.
fn lend() -> Result<(i32, OwnedFd)> {
    let step = || "clone a process to lend to systemd".to_string();
    let parent = process::pidfd_open(rustix::process::getpid().as_raw_nonzero().get()).step(step)?;
    match process::clone_process(CloneRequest::default()).step(step)? {
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Cloned::Child => {
            // Readable when the parent has ended.
            let _ = poll(&mut [PollFd::new(&parent, PollFlags::IN)], None);
            process::exit_now(0)
        }
    }
}

/// Clones as `request` says, into a unit that the caller may not enter by himself: systemd moves a process in
/// between, which clones and ends. Returns twice like clone3: in the new process too, which is our child.
pub(crate) fn clone_inside(unit: &SystemdUnit, request: CloneRequest<'_>) -> Result<Cloned> {
    let step = || format!("clone a process into unit {}", unit.name);
    let (ours, theirs) = Channel::pair()?;
    match process::clone_process(CloneRequest::default()).step(step)? {
        Cloned::Child => {
            drop(ours);
            match theirs.receive() {
                Ok(Some(Message::Go)) => {}
                _ => process::exit_now(1),
            }
            let said = match process::clone_process(CloneRequest { sibling: true, cgroup: None, ..request }) {
                Ok(Cloned::Child) => return Ok(Cloned::Child),
                Ok(Cloned::Parent { pid, pidfd }) => Message::Cloned(pid, pidfd),
                Err(e) => Message::Failed(StartFailureError::from_sys(step(), &e).0),
            };
            let _ = theirs.send(&said);
            process::exit_now(0)
        }
        Cloned::Parent { pid, pidfd: between } => {
            drop(theirs);
            let moved = systemd::attach(manager(unit), &unit.name, pid)
                .map_err(|e| cgroup_failure("enter the container's unit", &e))
                .and_then(|()| ours.send(&Message::Go));
            let heard = moved.and_then(|()| ours.receive());
            drop(ours);
            let _ = process::wait_pidfd(between.as_fd());
            match heard? {
                // The process in between may be in the container's pid namespace: its number is not ours.
                Some(Message::Cloned(_, pidfd)) => {
                    let pid =
                        pid_of(&pidfd).ok_or_else(|| StartFailureError::new(format!("{}: it is gone", step())))?;
                    Ok(Cloned::Parent { pid, pidfd })
                }
                Some(Message::Failed(failure)) => Err(StartFailureError(failure)),
                _ => Err(StartFailureError::new(format!("{}: the process in between died", step()))),
            }
        }
    }
}

/// The pid behind a pidfd, in our own pid namespace (proc_pid_fdinfo(5)).
fn pid_of(pidfd: &OwnedFd) -> Option<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

/// The unit of a plan or state, when only systemd can move processes into it.
pub(crate) fn of_user(unit: Option<&UnitPlan>) -> Option<SystemdUnit> {
    let unit = unit.filter(|u| u.manager == Manager::User)?;
    Some(SystemdUnit { name: unit.name.clone(), user: true })
}

fn manager(unit: &SystemdUnit) -> Manager {
    if unit.user { Manager::User } else { Manager::System }
}

/// Removes a container's groups, and its unit with them.
pub(crate) fn remove_groups(unit: Option<&SystemdUnit>, paths: &Paths) -> Result<()> {
    let stopped = match unit {
        // Frozen processes would hold up the job: systemd ends them with signals.
        Some(unit) => {
            let _ = onggi_cgroup::kill_all(paths);
            systemd::stop(manager(unit), &unit.name)
        }
        None => Ok(()),
    };
    // Whatever systemd says: some groups are ours alone.
    let removed = onggi_cgroup::remove(paths);
    stopped.and(removed).map_err(|e| cgroup_failure("remove the cgroup", &e))
}

/// Leaves out of a change what systemd cannot be told at once; returns what, one line each.
pub(crate) fn one_weight(
    unit: &SystemdUnit,
    change: &mut onggi_spec::oci::runtime::LinuxResources,
) -> Result<Vec<String>> {
    let idle = change.cpu.as_ref().is_some_and(|cpu| cpu.idle.is_some()) || change.unified.contains_key("cpu.idle");
    if !idle {
        return Ok(Vec::new());
    }
    let facts = systemd::facts(!unit.user).map_err(|e| cgroup_failure("update the container's unit", &e))?;
    Ok(systemd::one_weight(change, &facts))
}

/// Tells systemd about new limits: what it does not know of, it would undo at its next look.
pub(crate) fn set_limits(
    unit: &SystemdUnit,
    version_2: bool,
    change: &onggi_spec::oci::runtime::LinuxResources,
) -> Result<()> {
    set(unit, &limits(unit, version_2, change)?)
}

/// New limits as what systemd is told of them.
pub(crate) fn limits(
    unit: &SystemdUnit,
    version_2: bool,
    change: &onggi_spec::oci::runtime::LinuxResources,
) -> Result<Vec<systemd::Property>> {
    let fail = |e: onggi_cgroup::CgroupError| cgroup_failure("update the container's unit", &e);
    let facts = systemd::facts(!unit.user).map_err(fail)?;
    systemd::update_properties(version_2, change, &facts).map_err(fail)
}

/// Tells systemd.
pub(crate) fn set(unit: &SystemdUnit, limits: &[systemd::Property]) -> Result<()> {
    let told = systemd::set(manager(unit), &unit.name, limits);
    told.map_err(|e| cgroup_failure("update the container's unit", &e))
}

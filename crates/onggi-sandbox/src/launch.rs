//! The clone: one process where that is enough, two where namespaces have to be entered before.
//!
//! What is joined before the clone (a pid namespace, a user namespace, others beside a new user namespace) is
//! joined by a process in between, whose child becomes the runtime's: so the runtime stays in its own namespaces
//! and hooks run there.

use std::os::fd::{AsFd, OwnedFd};

use onggi_spec::monitor::SystemdUnit;
use onggi_sys::{
    SysContext, SysError, ns,
    process::{self, CloneRequest, Cloned},
    signal,
};
use rustix::fs::{Mode, OFlags};

use crate::{
    channel::{Channel, Message},
    child::{self, Prepared},
    error::{Result, StartFailureError, Step},
    plan::SandboxPlan,
    sources, unit,
};

/// The child as its creator sees it.
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) channel: Channel,
}

const STEP: &str = "clone the container's first process";

/// Clones the child, which runs the plan; returns with it and its pidfd.
pub(crate) fn clone_child(plan: &SandboxPlan, prepared: Prepared, sibling: bool) -> Result<(Running, OwnedFd)> {
    let unit = unit::of_user(plan.cgroup.as_ref().and_then(|c| c.unit.as_ref()));
    let cgroup = match plan.cgroup.as_ref().and_then(|c| c.join.clone_into.as_ref()) {
        // systemd moves it.
        _ if unit.is_some() => None,
        Some(at) => Some(
            rustix::fs::open(at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .sys("open", || format!("{at:?}"))
                .step(|| STEP.into())?,
        ),
        None => None,
    };
    let request = CloneRequest { cgroup: cgroup.as_ref().map(AsFd::as_fd), sibling, ..CloneRequest::default() };
    // A sibling's caller is short-lived: it may join by itself.
    if sibling || plan.before.is_empty() {
        join(plan, &prepared)?;
        return clone_now(plan, prepared, request, unit.as_ref());
    }
    let (ours, theirs) = Channel::pair()?;
    match clone(request, unit.as_ref())? {
        Cloned::Child => {
            drop(ours);
            between(plan, prepared, &theirs)
        }
        Cloned::Parent { pidfd: between, .. } => {
            drop((theirs, prepared));
            let result = follow(&ours);
            let _ = process::wait_pidfd(between.as_fd());
            result
        }
    }
}

fn join(plan: &SandboxPlan, prepared: &Prepared) -> Result<()> {
    plan.before.iter().try_for_each(|op| sources::before_clone(op, prepared.netns.as_ref()))
}

fn clone(request: CloneRequest<'_>, unit: Option<&SystemdUnit>) -> Result<Cloned> {
    match unit {
        Some(unit) => unit::clone_inside(unit, request),
        None => process::clone_process(request).map_err(|e| clone_failure(&e)),
    }
}

fn clone_now(
    plan: &SandboxPlan,
    prepared: Prepared,
    request: CloneRequest<'_>,
    unit: Option<&SystemdUnit>,
) -> Result<(Running, OwnedFd)> {
    let (ours, theirs) = Channel::pair()?;
    let mut namespaces = plan.clone.iter().fold(0, |bits, kind| bits | sources::flag(*kind));
    if prepared.tasks_to_come {
        namespaces &= !ns::flag::NETWORK;
    }
    match clone(CloneRequest { namespaces, ..request }, unit)? {
        Cloned::Child => {
            drop(ours);
            signal::reset_all();
            child::run(theirs, prepared, &plan.setup, &plan.process)
        }
        Cloned::Parent { pid, pidfd } => running(pid, pidfd, ours),
    }
}

/// The process in between: in the child's cgroup already, it joins, clones and ends. The descriptors of the sync
/// channel follow the child's pid.
fn between(plan: &SandboxPlan, prepared: Prepared, report: &Channel) -> ! {
    let request = CloneRequest { sibling: true, ..CloneRequest::default() };
    let result =
        join(plan, &prepared).and_then(|()| clone_now(plan, prepared, request, None)).and_then(|(running, pidfd)| {
            report.send(&Message::Cloned(running.pid, pidfd))?;
            report.send(&Message::Mount(running.channel.into_fd()))
        });
    if let Err(e) = result {
        let _ = report.send(&Message::Failed(e.0));
    }
    process::exit_now(0)
}

fn follow(report: &Channel) -> Result<(Running, OwnedFd)> {
    let ended = || StartFailureError::new(format!("{STEP}: the process in between died"));
    let (pid, pidfd) = match report.receive()? {
        Some(Message::Cloned(pid, pidfd)) => (pid, pidfd),
        Some(Message::Failed(failure)) => return Err(StartFailureError(failure)),
        _ => return Err(ended()),
    };
    match report.receive()? {
        Some(Message::Mount(fd)) => running(pid, pidfd, Channel::from_socket(fd)),
        _ => Err(ended()),
    }
}

fn running(pid: i32, pidfd: OwnedFd, channel: Channel) -> Result<(Running, OwnedFd)> {
    let copy = pidfd.try_clone().sys("dup", || "pidfd").step(|| STEP.into())?;
    Ok((Running { pid, pidfd: copy, channel }, pidfd))
}

pub(crate) fn clone_failure(e: &SysError) -> StartFailureError {
    use onggi_sys::Errno;
    let failure = StartFailureError::from_sys(STEP, e);
    match e.errno {
        Errno::PERM => failure.hint("new namespaces need root, or a user namespace that this kernel allows"),
        Errno::NOSPC => failure.hint("a limit of /proc/sys/user/max_*_namespaces is reached"),
        Errno::AGAIN => failure.hint("a limit of processes is reached"),
        _ => failure,
    }
}

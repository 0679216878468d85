//! What the child does while the runtime still makes its cgroups.
//!
//! A network namespace is the dearest part of a start, nine directories of version 1 the next. Neither needs the
//! other: so the child is cloned first, without that namespace, and makes it itself beside the runtime. It is in no group
//! of its own when it hears that the groups are there, and has done nothing else but what the plan has before them: a
//! session, a keyring, the loopback. Version 2 is left as it is: there the child is born in its group.
//!
//! The child is the slower of the two, so what it needs of the groups is opened by the runtime and sent along.

use std::path::PathBuf;

use onggi_cgroup::CgroupPlan;
use onggi_spec::oci::runtime::LinuxNamespaceType as Kind;
use onggi_sys::{SysContext, ns};
use rustix::fs::{Mode, OFlags};

use super::Child;
use crate::{
    channel::MAX_FDS,
    error::{Result, Step},
    launch,
    plan::SandboxPlan,
};

/// Both can be made at the same time. With a user namespace the child may not open the groups' files.
pub(crate) fn possible(plan: &SandboxPlan) -> bool {
    let version_1 = |c: &CgroupPlan| {
        let tasks = c.join.tasks.len();
        c.unit.is_none() && c.join.clone_into.is_none() && tasks > 0 && tasks <= MAX_FDS
    };
    let makes = |kind| plan.clone.contains(&kind);
    plan.cgroup.as_ref().is_some_and(version_1)
        && makes(Kind::Network)
        && makes(Kind::Mount)
        && !makes(Kind::User)
        && plan.before.is_empty()
        && plan.rdt.is_none()
}

/// Opens the `tasks` files of the groups.
pub(crate) fn open_tasks(files: &[PathBuf]) -> Result<Vec<std::os::fd::OwnedFd>> {
    let open = |at: &PathBuf| {
        rustix::fs::open(at, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .sys("open", || format!("{at:?}"))
            .step(|| "enter the cgroups".into())
    };
    files.iter().map(open).collect()
}

impl Child {
    /// Makes the network namespace that the clone has left out.
    pub(super) fn own_network(&mut self) -> Result<()> {
        match self.prepared.tasks_to_come {
            true => ns::unshare(ns::flag::NETWORK).map_err(|e| launch::clone_failure(&e)),
            false => Ok(()),
        }
    }

    /// Waits until the groups are there.
    pub(super) fn await_groups(&mut self) -> Result<()> {
        if std::mem::take(&mut self.prepared.tasks_to_come) {
            self.prepared.cgroup_tasks = self.channel.await_go_with()?;
        }
        Ok(())
    }
}

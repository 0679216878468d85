//! A limit of so few processes that those of ours, which are in the container's group for a moment, would not fit:
//! the one that keeps a systemd unit alive, the one that joins namespaces before the clone.
//!
//! Such a limit is set right after the container's own process is there and ours are gone, before its program runs.

use onggi_cgroup::CgroupWrite;
use onggi_spec::{
    monitor::{SandboxState, SystemdUnit},
    oci::runtime::{LinuxPids, LinuxResources},
};

use crate::{
    create::cgroup_failure,
    error::Result,
    plan::{SandboxPlan, SetupOp},
    unit,
};

/// Processes of ours that may be there together with the container's first.
const OURS: i64 = 4;

/// What has to be set later.
#[derive(Debug)]
pub(crate) struct LatePids {
    write: CgroupWrite,
    limit: i64,
}

impl LatePids {
    /// Takes a small limit out of the plan, where processes of ours are in the group first.
    pub(crate) fn take(plan: &mut SandboxPlan) -> Option<Self> {
        let before = !plan.before.is_empty();
        let cgroup = plan.cgroup.as_mut().filter(|c| before || c.unit.is_some())?;
        let at = cgroup.writes.iter().position(|w| w.file == "pids.max")?;
        let limit = cgroup.writes[at].value.parse().ok().filter(|n| *n < OURS)?;
        if let Some(unit) = &mut cgroup.unit {
            unit.raise_tasks(OURS.unsigned_abs());
        }
        let write = cgroup.writes.remove(at);
        plan.setup.insert(0, SetupOp::AwaitLimit);
        Some(Self { write, limit })
    }

    /// Sets it.
    pub(crate) fn set(self, unit: Option<&SystemdUnit>, state: &SandboxState) -> Result<()> {
        if let Some(unit) = unit {
            let pids = Some(LinuxPids { limit: Some(self.limit) });
            let only = state.cgroup_paths.keys().all(String::is_empty);
            unit::set_limits(unit, only, &LinuxResources { pids, ..LinuxResources::default() })?;
        }
        onggi_cgroup::write_limit(&self.write).map_err(|e| cgroup_failure("limit the processes", &e))
    }
}

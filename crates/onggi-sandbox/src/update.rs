//! `update`: new limits for a container that exists.
//!
//! What the limits are is remembered beside the state (`resources.json`): the next update completes its
//! values from it. The kernel is changed first; when a step fails, the limits before it are in force again.

mod resctrl;

use std::path::Path;

use onggi_cgroup::{UpdatePlan, Updated, systemd::Property};
use onggi_spec::{
    monitor::{SandboxState, SystemdUnit},
    oci::runtime::{ContainerState, LinuxResources, Spec},
};

use crate::{
    create::cgroup_failure,
    error::{Result, StartFailureError},
    plan,
    state::StateDir,
    unit,
};

/// The limits that a container has: those of its configuration, or of its last update.
///
/// # Errors
/// Unknown container, unreadable configuration.
pub fn resources(state_root: &Path, id: &str) -> Result<LinuxResources> {
    let dir = StateDir::of(state_root, id)?;
    let state = dir.load()?;
    Ok(in_force(&dir, &dir.config(&state)?))
}

fn in_force(dir: &StateDir, config: &Spec) -> LinuxResources {
    let configured = || config.linux.as_ref().and_then(|l| l.resources.clone()).unwrap_or_default();
    dir.resources().unwrap_or_else(configured)
}

/// Changes limits; members that are left out stay as they are. Returns what could not be done, one line each.
///
/// # Errors
/// The container does not run, a value that cannot be, a write that the kernel refuses.
///
/// `schemata` are new Intel RDT schemata by kind (`L3`, `MB`), where there are any.
pub fn update(
    state_root: &Path,
    id: &str,
    change: &LinuxResources,
    schemata: &[Option<(&str, String)>],
) -> Result<Vec<String>> {
    let dir = StateDir::of(state_root, id)?;
    let mut state = dir.load()?;
    let config = dir.config(&state)?;
    let group = resctrl::Group::of(id, &config, schemata)?;
    if dir.status(&state) == ContainerState::Stopped {
        return Err(StartFailureError::new("container not running"));
    }
    if state.cgroup_paths.is_empty() {
        return Err(StartFailureError::new(format!("container {id} has no cgroup of its own"))
            .hint("a limit needs one: see the rootless cgroups of the documentation"));
    }
    let before = in_force(&dir, &config);
    let mut change = match change.devices.is_empty() {
        true => change.clone(),
        false => plan::with_device_rules(change.clone()),
    };
    let version_2 = state.cgroup_paths.keys().all(String::is_empty);
    let mut left_out = match &state.systemd_unit {
        Some(unit) if version_2 => {
            let notes = unit::one_weight(unit, &mut change)?;
            end_idling(&before, &mut change);
            notes
        }
        _ => Vec::new(),
    };
    let fail = |e: onggi_cgroup::CgroupError| cgroup_failure("update the cgroup", &e);
    let layout = onggi_cgroup::layout::detect().map_err(fail)?;
    let path = plan::cgroups_path(&config, id);
    let planned = onggi_cgroup::plan_update(&layout, &state.cgroup_paths, &path, (&before, &change));
    let (plan, after) = planned.map_err(fail)?;
    let unit = state.systemd_unit.clone();
    let told = unit.map(|unit| unit::limits(&unit, version_2, &plan.completed).map(|limits| (unit, limits)));
    let told = told.transpose()?;
    // The kernel first: what it refuses, systemd must not have heard of.
    let updated = onggi_cgroup::apply_update(&plan, &state.cgroup_paths).map_err(fail)?;
    let rest = enter(&dir, &mut state, &updated).and_then(|()| group.set(schemata));
    if let Err(e) = rest.and_then(|()| tell(told, &plan, &state)) {
        updated.take_back();
        return Err(e);
    }
    dir.save_resources(&after)?;
    left_out.extend(updated.notes);
    Ok(left_out)
}

/// To systemd a weight ends idling; the kernel, which is asked first, has to be told.
fn end_idling(before: &LinuxResources, change: &mut LinuxResources) {
    let is_idle = |r: &LinuxResources| {
        r.cpu.as_ref().is_some_and(|cpu| cpu.idle == Some(1)) || r.unified.get("cpu.idle").is_some_and(|v| v == "1")
    };
    let shares = change.cpu.as_ref().and_then(|cpu| cpu.shares).is_some_and(|n| n != 0);
    if is_idle(before) && !is_idle(change) && (shares || change.unified.contains_key("cpu.weight")) {
        change.cpu.get_or_insert_default().idle = Some(0);
    }
}

/// Remembers the groups that the container has now and had not before.
fn enter(dir: &StateDir, state: &mut SandboxState, updated: &Updated) -> Result<()> {
    if updated.entered.is_empty() {
        return Ok(());
    }
    state.cgroup_paths.extend(updated.entered.clone());
    dir.save(state)
}

/// Tells systemd, which writes its own (rounded) values then; they are replaced by the exact ones again.
fn tell(told: Option<(SystemdUnit, Vec<Property>)>, plan: &UpdatePlan, state: &SandboxState) -> Result<()> {
    let Some((unit, limits)) = told else { return Ok(()) };
    unit::set(&unit, &limits)?;
    let again = onggi_cgroup::apply_update(plan, &state.cgroup_paths);
    again.map(drop).map_err(|e| cgroup_failure("update the cgroup", &e))
}

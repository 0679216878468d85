//! Changing the limits of a running container.
//!
//! [`plan_update`] is pure: what was set before and what shall change in, the writes out. Members that belong
//! together (quota and period, memory and swap on version 2) are completed from what was set before; every
//! other member that is left out stays as it is. [`apply_update`] writes; when one write fails, those before
//! it are taken back, so that a container has its old limits or its new ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

use onggi_spec::{
    facts::CgroupLayout,
    oci::runtime::{LinuxCpu, LinuxMemory, LinuxResources},
};

use crate::{
    CgroupError, CgroupPlan, CgroupWrite, DeviceRule, Membership, Paths, Prepare, apply,
    controllers::{self, Need, Setting, Version},
    device_filter, device_list,
    plan::{self, CgroupRequest, push},
    procs,
};

/// How often the container's processes are looked at for new ones while they are moved: a fork bomb has no end.
const MOVE_ROUNDS: u32 = 100;

/// What an update does, in order: `prepare`, `enter`, `check`, `writes`, `devices`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdatePlan {
    /// Controllers to enable, and hierarchies that the container is not in yet.
    pub prepare: Vec<Prepare>,
    /// New directories, by controller, that every process of the container moves to.
    pub enter: Paths,
    /// Limits.
    pub writes: Vec<CgroupWrite>,
    /// Device rules that replace the present ones, and the group they are for.
    pub devices: Option<(PathBuf, Vec<DeviceRule>)>,
    /// Refuse limits of memory, or of memory and swap, that are not above what this group uses.
    pub check: Option<(PathBuf, LinuxMemory)>,
    /// The change, completed: what a systemd unit is told.
    pub completed: LinuxResources,
    /// What was asked for and cannot be done here, one line each.
    pub notes: Vec<String>,
}

impl UpdatePlan {
    /// Refuses what the caller wants refused (`memory.checkBeforeUpdate`); [`apply_update`] does it too.
    ///
    /// # Errors
    /// A limit that is not above what is used.
    pub fn check(&self) -> Result<(), CgroupError> {
        match &self.check {
            Some((dir, memory)) => check_usage(dir, memory),
            None => Ok(()),
        }
    }
}

/// What an update has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Updated {
    /// Directories that the container has now and had not before.
    pub entered: Paths,
    /// What was left out, one line each.
    pub notes: Vec<String>,
    old: Old,
}

impl Updated {
    /// Writes the limits before the update again, as far as [`apply_update`] does it: when a later step is refused.
    pub fn take_back(&self) {
        self.old.restore();
    }
}

/// A container as an update finds it.
#[derive(Debug, Clone, Copy)]
struct Present<'a> {
    layout: &'a CgroupLayout,
    paths: &'a Paths,
    cgroups_path: &'a str,
}

/// Plans a change of limits. `before` is what was asked for until now, `change` what shall be different.
/// Returns what to do and the resources as they will be.
///
/// # Errors
/// A value that cannot be, a controller that is missing.
pub fn plan_update(
    layout: &CgroupLayout,
    paths: &Paths,
    cgroups_path: &str,
    (before, change): (&LinuxResources, &LinuxResources),
) -> Result<(UpdatePlan, LinuxResources), CgroupError> {
    let present = Present { layout, paths, cgroups_path };
    let version = version_of(paths);
    let wanted = completed(before, change, version);
    let mut plan = UpdatePlan::default();
    let settings: Vec<Setting> = controllers::settings(&wanted, version)?
        .into_iter()
        // A change of device rules is a transition, not a list of writes.
        .filter(|s| s.controller != "devices" || s.need == Need::Ignored)
        .collect();
    match version {
        Version::V1 => enter_missing(&mut plan, &present, &wanted)?,
        Version::V2 => enable_missing(&mut plan, &present, &settings),
    }
    let mut written = CgroupPlan::default();
    for setting in settings {
        let dir = directory(paths, &plan.enter, version, &setting.controller);
        push(&mut written, dir, setting)?;
    }
    (plan.writes, plan.notes) = (written.writes, written.notes);
    plan.devices = devices(&plan, paths, version, change)?;
    plan.check = check(paths, version, change);
    plan.completed = wanted;
    Ok((plan, merged(before, change)))
}

/// A container on a version 2 machine has one group; on others it has at least one of version 1.
fn version_of(paths: &Paths) -> Version {
    if paths.keys().all(String::is_empty) { Version::V2 } else { Version::V1 }
}

fn directory(paths: &Paths, entered: &Paths, version: Version, controller: &str) -> Option<PathBuf> {
    let key = if version == Version::V2 { "" } else { controller };
    paths.get(key).or_else(|| entered.get(key)).cloned()
}

/// Hierarchies that the container stayed out of because nothing was limited there.
fn enter_missing(plan: &mut UpdatePlan, present: &Present<'_>, wanted: &LinuxResources) -> Result<(), CgroupError> {
    let request = CgroupRequest {
        path: present.cgroups_path,
        resources: wanted,
        membership: Membership::Needed,
        rootless: false,
        owner: None,
    };
    // What cannot be entered shows below as a missing controller.
    let Ok(needed) = plan::plan(present.layout, &request) else { return Ok(()) };
    let settings = controllers::settings(wanted, Version::V1)?;
    let asked = |controller: &str| settings.iter().any(|s| s.controller == controller);
    for dir in needed.dirs.iter().filter(|d| asked(&d.controller) && !present.paths.contains_key(&d.controller)) {
        let of_dir = |step: &&Prepare| match step {
            Prepare::MakeDir { path, .. } | Prepare::Inherit { path, .. } => dir.path.starts_with(path),
            _ => false,
        };
        // What an update that was killed half-way left there is used again.
        let shared = |step: &Prepare| match step.clone() {
            Prepare::MakeDir { path, .. } => Prepare::MakeDir { path, own: false },
            other => other,
        };
        plan.prepare.extend(needed.prepare.iter().filter(of_dir).map(shared));
        plan.enter.insert(dir.controller.clone(), dir.path.clone());
    }
    Ok(())
}

/// Controllers that no parent has offered so far.
fn enable_missing(plan: &mut UpdatePlan, present: &Present<'_>, settings: &[Setting]) {
    let (CgroupLayout::V2 { mount, controllers, .. }, Some(leaf)) = (present.layout, present.paths.get("")) else {
        return;
    };
    let required: Vec<String> =
        controllers.iter().filter(|c| settings.iter().any(|s| s.controller == **c)).cloned().collect();
    if required.is_empty() {
        return;
    }
    let mut parents: Vec<&Path> = leaf.ancestors().skip(1).filter(|a| a.starts_with(mount)).collect();
    parents.reverse();
    // Wanted only: where a parent refuses, the write that needs it says so.
    let enable = |path: &Path| Prepare::Enable { path: path.into(), required: Vec::new(), wanted: required.clone() };
    plan.prepare.extend(parents.into_iter().map(enable));
}

fn devices(
    plan: &UpdatePlan,
    paths: &Paths,
    version: Version,
    change: &LinuxResources,
) -> Result<Option<(PathBuf, Vec<DeviceRule>)>, CgroupError> {
    let rules = controllers::devices::rules(change)?;
    if rules.is_empty() {
        return Ok(None);
    }
    match directory(paths, &plan.enter, version, "devices") {
        Some(dir) => Ok(Some((dir, rules))),
        None => Err(CgroupError::ControllerMissing { controller: "devices".into(), what: "device rules".into() }),
    }
}

fn check(paths: &Paths, version: Version, change: &LinuxResources) -> Option<(PathBuf, LinuxMemory)> {
    let memory = change.memory.as_ref().filter(|m| m.check_before_update == Some(true))?;
    // Version 1 refuses such limits by itself.
    let dir = paths.get("").filter(|_| version == Version::V2)?;
    Some((dir.clone(), memory.clone()))
}

/// The change, with the members that it cannot be translated without.
fn completed(before: &LinuxResources, change: &LinuxResources, version: Version) -> LinuxResources {
    let mut wanted = change.clone();
    if let Some(memory) = &mut wanted.memory {
        // As for every other limit: 0 is no wish for another one.
        memory.swap = memory.swap.filter(|swap| *swap != 0);
    }
    if version == Version::V1 {
        return wanted;
    }
    let set = |n: Option<i64>| n.filter(|v| *v != 0);
    if let (Some(cpu), Some(old)) = (&mut wanted.cpu, &before.cpu) {
        match (set(cpu.quota), cpu.period.filter(|p| *p != 0)) {
            (Some(_), None) => cpu.period = old.period,
            (None, Some(_)) => cpu.quota = old.quota,
            _ => {}
        }
    }
    if let (Some(memory), Some(old)) = (&mut wanted.memory, &before.memory)
        && set(memory.swap).is_some_and(|swap| swap > 0)
        && set(memory.limit).is_none()
    {
        memory.limit = old.limit;
    }
    wanted
}

/// What is set in `change` replaces what was set before, member by member.
pub(crate) fn merged(before: &LinuxResources, change: &LinuxResources) -> LinuxResources {
    let mut all = before.clone();
    if let Some(new) = &change.memory {
        all.memory = Some(merge_memory(before.memory.as_ref(), new));
    }
    if let Some(new) = &change.cpu {
        all.cpu = Some(merge_cpu(before.cpu.as_ref(), new));
    }
    if change.pids.as_ref().is_some_and(|p| p.limit.is_some()) {
        all.pids.clone_from(&change.pids);
    }
    if change.block_io.as_ref().is_some_and(|io| *io != onggi_spec::oci::runtime::LinuxBlockIo::default()) {
        all.block_io.clone_from(&change.block_io);
    }
    if change.network.is_some() {
        all.network.clone_from(&change.network);
    }
    if !change.devices.is_empty() {
        all.devices.clone_from(&change.devices);
    }
    for limit in &change.hugepage_limits {
        all.hugepage_limits.retain(|old| old.page_size != limit.page_size);
        all.hugepage_limits.push(limit.clone());
    }
    all.rdma.extend(change.rdma.clone());
    all.unified.extend(change.unified.clone());
    all
}

fn merge_memory(old: Option<&LinuxMemory>, new: &LinuxMemory) -> LinuxMemory {
    let old = old.cloned().unwrap_or_default();
    let LinuxMemory {
        limit,
        reservation,
        swap,
        kernel,
        kernel_tcp,
        swappiness,
        disable_oom_killer,
        use_hierarchy,
        check_before_update,
    } = new.clone();
    let set = |n: Option<i64>| n.filter(|v| *v != 0);
    LinuxMemory {
        limit: set(limit).or(old.limit),
        reservation: set(reservation).or(old.reservation),
        // Unlimited memory means unlimited swap.
        swap: set(swap).or(if limit == Some(-1) { Some(-1) } else { old.swap }),
        kernel: set(kernel).or(old.kernel),
        kernel_tcp: set(kernel_tcp).or(old.kernel_tcp),
        swappiness: swappiness.or(old.swappiness),
        disable_oom_killer: disable_oom_killer.or(old.disable_oom_killer),
        use_hierarchy: use_hierarchy.or(old.use_hierarchy),
        check_before_update: check_before_update.or(old.check_before_update),
    }
}

fn merge_cpu(old: Option<&LinuxCpu>, new: &LinuxCpu) -> LinuxCpu {
    let old = old.cloned().unwrap_or_default();
    let LinuxCpu { shares, quota, burst, period, realtime_runtime, realtime_period, cpus, mems, idle } = new.clone();
    let list = |l: Option<String>| l.filter(|l| !l.is_empty());
    LinuxCpu {
        shares: shares.filter(|v| *v != 0).or(old.shares),
        quota: quota.filter(|v| *v != 0).or(old.quota),
        burst: burst.or(old.burst),
        period: period.filter(|v| *v != 0).or(old.period),
        realtime_runtime: realtime_runtime.filter(|v| *v != 0).or(old.realtime_runtime),
        realtime_period: realtime_period.filter(|v| *v != 0).or(old.realtime_period),
        cpus: list(cpus).or(old.cpus),
        mems: list(mems).or(old.mems),
        idle: idle.or(old.idle),
    }
}

/// Executes an update of the container whose groups are `paths`.
///
/// # Errors
/// The first failure; limits that had changed by then have their old values again. (Files with a line per
/// device or page size keep what was written.)
pub fn apply_update(plan: &UpdatePlan, paths: &Paths) -> Result<Updated, CgroupError> {
    plan.check()?;
    apply::prepare_all(&plan.prepare, &mut Vec::new())?;
    plan.enter.values().try_for_each(|dir| move_all(paths, dir))?;
    let old = Old::read(&plan.writes);
    let mut notes = plan.notes.clone();
    let written = apply::write_all(&plan.writes, &mut notes).and_then(|()| change_devices(plan));
    match written {
        Ok(()) => Ok(Updated { entered: plan.enter.clone(), notes, old }),
        Err(e) => {
            old.restore();
            Err(e)
        }
    }
}

/// `memory.current` against the new limits, as runc does it: version 2 would kill instead of refuse.
fn check_usage(dir: &Path, memory: &LinuxMemory) -> Result<(), CgroupError> {
    let usage: u64 = apply::read(&dir.join("memory.current"))?.trim().parse().unwrap_or(0);
    let limits = [("memory+swap limit", memory.swap), ("memory limit", memory.limit)];
    for (what, limit) in limits {
        if let Some(limit) = limit.filter(|n| *n > 0 && n.unsigned_abs() <= usage) {
            return Err(CgroupError::BelowUsage { what, limit, usage });
        }
    }
    Ok(())
}

/// Moves every process of the container; those that it forks meanwhile are caught by looking again.
fn move_all(paths: &Paths, dir: &Path) -> Result<(), CgroupError> {
    let file = dir.join("cgroup.procs");
    for _ in 0..MOVE_ROUNDS {
        let inside = procs::members(dir)?;
        let outside: Vec<i32> = procs::pids(paths)?.into_iter().filter(|pid| !inside.contains(pid)).collect();
        if outside.is_empty() {
            return Ok(());
        }
        for pid in outside {
            match apply::write(&file, &pid.to_string(), "move of the container's processes") {
                Err(e) if e.errno() != rustix::io::Errno::SRCH.raw_os_error() => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

fn change_devices(plan: &UpdatePlan) -> Result<(), CgroupError> {
    let Some((dir, rules)) = &plan.devices else { return Ok(()) };
    let list = dir.join("devices.list");
    if !list.exists() {
        return device_filter::replace(dir, rules);
    }
    for rule in device_list::transition(&apply::read(&list)?, rules) {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        apply::write(&dir.join(file), &rule.words(), "device rule")?;
    }
    Ok(())
}

/// What the files of an update say before it; and what is written instead where the kernel does not take that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Old(Vec<(CgroupWrite, Option<CgroupWrite>)>);

impl Old {
    fn read(writes: &[CgroupWrite]) -> Self {
        let value = |w: &CgroupWrite| {
            let text = fs::read_to_string(w.path.join(&w.file)).ok()?;
            // One value is written back as it was read; a line per device is not.
            let one = text.trim();
            let single = text.lines().count() == 1 && !one.contains(':');
            let back = |value: &str| CgroupWrite { value: value.to_owned(), alternative: None, ..w.clone() };
            if !one.is_empty() {
                return single.then(|| (back(one), None));
            }
            // A cpuset that is its parent's. A write of no bytes is none, and with processes inside an empty one is refused.
            let effective = fs::read_to_string(w.path.join(format!("{}.effective", w.file))).ok();
            single.then(|| (back("\n"), effective.map(|list| back(list.trim()))))
        };
        Self(writes.iter().filter_map(value).collect())
    }

    /// The failure that led here is the one to report. In reverse too: of two that depend on each other one may be
    /// refused before the other.
    fn restore(&self) {
        let write = |w: &CgroupWrite| apply::write_all(std::slice::from_ref(w), &mut Vec::new());
        for (old, instead) in self.0.iter().chain(self.0.iter().rev()) {
            if write(old).is_err()
                && let Some(instead) = instead
            {
                let _ = write(instead);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! The planner: layout, path and resources to directories and writes. Pure.
//!
//! A path that begins with `/` starts at the root of each hierarchy. Any other starts, as in runc, at the
//! caller's own group on version 1 and beside it on version 2, where a group that has processes cannot offer
//! controllers to children. `..` never leads above the root. On hybrid layouts the container also gets a group of the version 2
//! hierarchy: it has no controllers there, but `cgroup.kill`, `cgroup.events`, `cgroup.freeze` and
//! `cpu.stat`, so that version 1 hierarchies in which nothing is limited are left alone.

use std::path::{Path, PathBuf};

use onggi_spec::{
    facts::{CgroupLayout, V1Hierarchy},
    oci::runtime::LinuxResources,
};
use serde::{Deserialize, Serialize};

use crate::{
    CgroupError, DeviceRule, Paths,
    controllers::{self, Need, Setting, Version},
    systemd::UnitPlan,
};

/// Longest path that is accepted: deeper than any engine writes, below PATH_MAX with every mount point.
const MAX_PATH: usize = 2048;

/// Everything that is done to give a container its control groups, in order: `prepare`, `writes`, `devices`,
/// `join`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// The container's own directories. Controllers that share a hierarchy share a directory.
    pub dirs: Vec<CgroupDir>,
    /// Directories to make and what they need before they can be used.
    pub prepare: Vec<Prepare>,
    /// Limits.
    pub writes: Vec<CgroupWrite>,
    /// The systemd unit that the directories belong to; it is started before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitPlan>,
    /// What was asked for and cannot be done here, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Device rules of version 2, in order: an eBPF program that is attached to the container's group.
    /// Version 1 has them among the writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceRule>,
    /// How the container's first process enters.
    pub join: Join,
}

/// One directory of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupDir {
    /// `memory`, `name=systemd`; `""` is version 2.
    pub controller: String,
    /// Absolute path.
    pub path: PathBuf,
}

/// A step before the limits can be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prepare {
    /// Make a directory; a parent may exist already.
    MakeDir {
        /// Absolute path.
        path: PathBuf,
        /// It is the container's own, not a parent.
        own: bool,
    },
    /// Copy a cpuset file from the parent when it is empty (v1: no process may enter before).
    Inherit {
        /// The directory; its parent is the source.
        path: PathBuf,
        /// `cpuset.cpus` or `cpuset.mems`.
        file: String,
    },
    /// Offer controllers to the children of a directory (v2: `cgroup.subtree_control`).
    Enable {
        /// The directory.
        path: PathBuf,
        /// Limits depend on these.
        required: Vec<String>,
        /// For statistics only: a failure is no error.
        wanted: Vec<String>,
    },
    /// Give a directory and the files that may be delegated to a user (v2; /sys/kernel/cgroup/delegate).
    Delegate {
        /// The directory.
        path: PathBuf,
        /// The user, as the host numbers it.
        uid: u32,
    },
}

/// One value written to one control file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupWrite {
    /// The directory.
    pub path: PathBuf,
    /// The file: `memory.max`.
    pub file: String,
    /// The value, without a newline.
    pub value: String,
    /// A kernel without the file, or one that says "not supported", is no error.
    pub optional: bool,
    /// When it is left out, nobody needs to know.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
    /// A refusal (EINVAL) may come from a value that is written later: it is tried again at the end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// What it is for, in words: "memory limit of 512 MiB".
    pub what: String,
    /// Used instead when the kernel lacks `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternative: Option<Alternative>,
}

/// Another file for the same limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// The file.
    pub file: String,
    /// The value on that file's scale.
    pub value: String,
}

/// How a process enters the groups.
///
/// `clone_into` is opened `O_PATH | O_DIRECTORY` and given to clone3 (CLONE_INTO_CGROUP). Then the child
/// itself writes `0` to every file of `tasks`: a single thread that moves itself spares the kernel the
/// wait for an RCU grace period. A cgroup namespace is made *after* that (`unshare(CLONE_NEWCGROUP)` in
/// the child): its root is the group of the process at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Join {
    /// The version 2 directory.
    pub clone_into: Option<PathBuf>,
    /// The `tasks` file of every version 1 hierarchy.
    pub tasks: Vec<PathBuf>,
}

impl CgroupPlan {
    /// The container's directories by controller, as they are stored in its state.
    pub fn paths(&self) -> Paths {
        self.dirs.iter().map(|d| (d.controller.clone(), d.path.clone())).collect()
    }
}

/// Which version 1 hierarchies a container enters, and which controllers of version 2 it is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// Those in which something is limited or counted: the fastest start.
    #[default]
    Needed,
    /// All, as other runtimes do it: their callers look for files there.
    All,
}

/// What the groups of one container shall be.
#[derive(Debug, Clone, Copy)]
pub struct CgroupRequest<'a> {
    /// `linux.cgroupsPath`, or what stands for it.
    pub path: &'a str,
    /// `linux.resources`.
    pub resources: &'a LinuxResources,
    /// Which hierarchies.
    pub membership: Membership,
    /// The layout is what is left of the machine's for a user without privilege ([`crate::access`]): errors
    /// say so.
    pub rootless: bool,
    /// The group is given to this user (v2), for the container's own cgroup manager.
    pub owner: Option<u32>,
}

/// Plans the control groups of one container.
///
/// On a layout without any, a limit is an error and no limit means no cgroup. (Device rules are no limit
/// there for an ordinary user: a user namespace cannot make device nodes.)
///
/// # Errors
/// Every limit that cannot be kept is one: see [`CgroupError`]. What the version has no file for is a note.
pub fn plan(layout: &CgroupLayout, request: &CgroupRequest<'_>) -> Result<CgroupPlan, CgroupError> {
    let location = Location::parse(request.path)?;
    match layout {
        CgroupLayout::None if request.rootless => nothing(request, |what| CgroupError::Rootless { what }),
        CgroupLayout::None => {
            let mut plan = nothing(request, |what| CgroupError::NotMounted { what })?;
            if request.membership == Membership::All && !request.resources.devices.is_empty() {
                plan.notes.push("device rules do not hold: no control group is mounted below /sys/fs/cgroup".into());
            }
            Ok(plan)
        }
        CgroupLayout::V1 { hierarchies, unified } => plan_v1(hierarchies, unified.as_deref(), &location, request),
        CgroupLayout::V2 { mount, controllers, own } => plan_v2((mount, own), controllers, &location, request),
    }
}

/// Every directory that a plan for this path could have made, whatever its limits: for clean-up after a
/// crash that came before the plan's own paths were stored.
pub fn possible_paths(layout: &CgroupLayout, cgroups_path: &str) -> Result<Paths, CgroupError> {
    let location = Location::parse(cgroups_path)?;
    let mut plan = CgroupPlan::default();
    match layout {
        CgroupLayout::None => {}
        CgroupLayout::V1 { hierarchies, unified } => {
            hierarchies.iter().for_each(|h| add_v1(&mut plan, h, &location));
            unified.iter().for_each(|mount| add_unified(&mut plan, mount, &location));
        }
        CgroupLayout::V2 { mount, own, .. } => {
            let leaf = location.levels_v2(mount, own).pop();
            plan.dirs.extend(leaf.map(|path| CgroupDir { controller: String::new(), path }));
        }
    }
    Ok(plan.paths())
}

/// No cgroup at all, which is fine as long as nothing was asked for.
fn nothing(request: &CgroupRequest<'_>, error: impl FnOnce(String) -> CgroupError) -> Result<CgroupPlan, CgroupError> {
    let asked = controllers::settings(request.resources, Version::V2)?;
    match asked.into_iter().find(|s| s.need == Need::Required && s.controller != "devices") {
        Some(setting) => Err(error(setting.what)),
        None => Ok(CgroupPlan::default()),
    }
}

fn plan_v1(
    hierarchies: &[V1Hierarchy],
    unified: Option<&str>,
    location: &Location,
    request: &CgroupRequest<'_>,
) -> Result<CgroupPlan, CgroupError> {
    let settings = controllers::settings(request.resources, Version::V1)?;
    let mut plan = CgroupPlan::default();
    let all = request.membership == Membership::All;
    for hierarchy in hierarchies.iter().filter(|h| all || is_needed(h, &settings, unified.is_some())) {
        add_v1(&mut plan, hierarchy, location);
    }
    if let Some(mount) = unified {
        add_unified(&mut plan, mount, location);
    }
    for setting in settings.into_iter().filter(|s| !(request.rootless && s.controller == "devices")) {
        let dir = plan.dirs.iter().find(|d| d.controller == setting.controller).map(|d| d.path.clone());
        push(&mut plan, dir, setting)?;
    }
    Ok(plan)
}

/// Every hierarchy costs a start 0.03 to 0.1 ms. A container stays in its caller's group where nothing is limited, with
/// these exceptions: `cpu` gives it one fair share against its neighbours, however many threads it has; memory (with its
/// OOM kills) and block I/O are read there later; `cpuset`, `cpuacct` and `freezer` are what programs inside look for:
/// Java takes no limit for its own unless cpu, cpuacct, cpuset and memory are all there. Freezing, killing and membership
/// come from the unified hierarchy of hybrid layouts (and systemd follows processes there); without it, from their
/// version 1 counterparts.
fn is_needed(hierarchy: &V1Hierarchy, settings: &[Setting], unified: bool) -> bool {
    hierarchy.controllers.iter().any(|c| match c.as_str() {
        "cpu" | "memory" | "blkio" | "cpuset" | "cpuacct" | "freezer" => true,
        "pids" if !unified => true,
        named if named.starts_with("name=") => !unified,
        other => settings.iter().any(|s| s.controller == other),
    })
}

fn add_v1(plan: &mut CgroupPlan, hierarchy: &V1Hierarchy, location: &Location) {
    let levels = location.levels(&hierarchy.mount, &hierarchy.own);
    let leaf = levels.last().cloned().unwrap_or_default();
    let cpuset = hierarchy.controllers.iter().any(|c| c == "cpuset");
    for level in levels {
        let own = level == leaf;
        plan.prepare.push(Prepare::MakeDir { path: level.clone(), own });
        for file in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|_| cpuset) {
            plan.prepare.push(Prepare::Inherit { path: level.clone(), file: file.into() });
        }
    }
    let dir = |c: &String| CgroupDir { controller: c.clone(), path: leaf.clone() };
    plan.dirs.extend(hierarchy.controllers.iter().map(dir));
    plan.join.tasks.push(leaf.join("tasks"));
}

/// The group of the version 2 hierarchy beside version 1.
fn add_unified(plan: &mut CgroupPlan, mount: &str, location: &Location) {
    let levels = location.levels(mount, "/");
    let Some(leaf) = levels.last().cloned() else { return };
    plan.prepare.extend(levels.into_iter().map(|path| Prepare::MakeDir { own: path == leaf, path }));
    plan.dirs.push(CgroupDir { controller: String::new(), path: leaf.clone() });
    plan.join.clone_into = Some(leaf);
}

fn plan_v2(
    (mount, own): (&str, &str),
    available: &[String],
    location: &Location,
    request: &CgroupRequest<'_>,
) -> Result<CgroupPlan, CgroupError> {
    let settings = controllers::settings(request.resources, Version::V2)?;
    let required: Vec<String> = available
        .iter()
        .filter(|c| settings.iter().any(|s| s.need == Need::Required && s.controller == c.as_str()))
        .cloned()
        .collect();
    let all = request.membership == Membership::All;
    let wanted: Vec<String> =
        available.iter().filter(|c| all || controllers::KNOWN_V2.contains(&c.as_str())).cloned().collect();

    let levels = location.levels_v2(mount, own);
    let leaf = levels.last().cloned().unwrap_or_default();
    let mut devices = controllers::devices::rules(request.resources)?;
    if request.rootless {
        // A user may neither attach programs nor make device nodes: there is nothing to guard.
        devices.clear();
    }
    let mut plan = CgroupPlan { devices, ..CgroupPlan::default() };
    for level in levels {
        if let Some(parent) = level.parent() {
            let (required, wanted) = (required.clone(), wanted.clone());
            plan.prepare.push(Prepare::Enable { path: parent.to_owned(), required, wanted });
        }
        plan.prepare.push(Prepare::MakeDir { own: level == leaf, path: level });
    }
    plan.prepare.extend(request.owner.map(|uid| Prepare::Delegate { path: leaf.clone(), uid }));
    plan.dirs.push(CgroupDir { controller: String::new(), path: leaf.clone() });
    plan.join.clone_into = Some(leaf.clone());
    for setting in settings {
        let present = setting.controller == "cgroup" || available.contains(&setting.controller);
        push(&mut plan, present.then(|| leaf.clone()), setting)?;
    }
    Ok(plan)
}

/// Appends a setting as a write into `dir`; without a directory its controller is missing.
pub(crate) fn push(plan: &mut CgroupPlan, dir: Option<PathBuf>, setting: Setting) -> Result<(), CgroupError> {
    let Setting { controller, file, value, need, again, what, alternative } = setting;
    match (dir, need) {
        (_, Need::Ignored) => plan.notes.push(what),
        (Some(path), _) => {
            let (optional, quiet) = (need != Need::Required, need == Need::Bonus);
            plan.writes.push(CgroupWrite { path, file, value, optional, quiet, again, what, alternative });
        }
        (None, Need::Bonus) => {}
        (None, Need::Wished) => {
            plan.notes.push(format!("the {controller} controller is not available: there is no {what}"));
        }
        (None, Need::Required) => return Err(CgroupError::ControllerMissing { controller, what }),
    }
    Ok(())
}

/// Where the container's groups are in every hierarchy.
pub(crate) struct Location {
    absolute: bool,
    components: Vec<String>,
}

impl Location {
    pub(crate) fn parse(cgroups_path: &str) -> Result<Self, CgroupError> {
        Ok(Self { absolute: cgroups_path.starts_with('/'), components: components(cgroups_path)? })
    }

    /// On version 2 a relative path begins beside our own group.
    pub(crate) fn levels_v2(&self, mount: &str, own: &str) -> Vec<PathBuf> {
        let beside = Path::new(own).parent().and_then(Path::to_str).unwrap_or("/");
        self.levels(mount, beside)
    }

    /// The directories from the first below `mount` (or below our own group) down to the container's.
    pub(crate) fn levels(&self, mount: &str, own: &str) -> Vec<PathBuf> {
        let mut at = PathBuf::from(mount);
        if !self.absolute {
            // A group outside the mount's root shows as "/..": then the mount itself is all we have.
            at.extend(Path::new(own).components().filter_map(|c| match c {
                std::path::Component::Normal(name) => Some(name),
                _ => None,
            }));
        }
        let step = |component: &String| {
            at.push(component);
            at.clone()
        };
        self.components.iter().map(step).collect()
    }
}

/// The path's names, as the path reads below a root: `..` takes the last name away, if there is one.
fn components(path: &str) -> Result<Vec<String>, CgroupError> {
    let bad = |reason| CgroupError::BadPath { path: path.chars().take(128).collect(), reason };
    if path.len() > MAX_PATH {
        return Err(bad("is too long"));
    }
    if path.bytes().any(|b| b < b' ' || b == 0x7f) {
        return Err(bad("has control characters"));
    }
    let mut names: Vec<String> = Vec::new();
    for name in path.split('/').filter(|c| !c.is_empty() && *c != ".") {
        match name {
            ".." => drop(names.pop()),
            name => names.push(name.to_owned()),
        }
    }
    if names.is_empty() {
        return Err(bad("is the root of the hierarchy"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests;

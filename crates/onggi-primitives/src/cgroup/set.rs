//! Plans that make groups and set their limits.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use onggi_cgroup::{CgroupWrite, Prepare, plan_update};
use onggi_spec::{
    facts::CgroupLayout,
    oci::runtime::{LinuxCpu, LinuxMemory, LinuxResources},
};
use serde::Serialize;

use super::{
    Devices, Group, GroupError, GroupFacts, GroupPlan, Offer, Offers, Op, Place, Version,
    group::paths,
    keys::{self, Change, UNLIMITED},
};

/// Files of version 1 that the owner of a group may write to: those that move processes.
const OWNED_V1: [&str; 2] = ["cgroup.procs", "tasks"];
/// The same of version 2 (cgroups(7), "Delegation").
const OWNED_V2: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
/// Controllers that a version 2 group is given when none are named.
const GIVEN: [&str; 7] = ["cpuset", "cpu", "io", "memory", "pids", "hugetlb", "rdma"];

/// Plans a group with all groups above it. `offered` says what each version 2 directory offers to its children so far.
pub fn create_plan(
    layout: &CgroupLayout,
    group: &Group,
    places: &[Place],
    offered: &Offers,
) -> Result<GroupPlan, GroupError> {
    if group.path.is_empty() {
        return Err(GroupError::Root(group.to_string()));
    }
    let mut plan = GroupPlan::default();
    for place in places {
        let cpuset = place.controllers.iter().any(|c| c == "cpuset");
        // A directory can give what it is given; the root has all.
        let mut can = match layout {
            CgroupLayout::V2 { controllers, .. } => controllers.clone(),
            _ => Vec::new(),
        };
        for level in place.levels() {
            if let (Some(parent), CgroupLayout::V2 { .. }) = (level.parent(), layout) {
                give(parent, group, &mut can, offered, &mut plan)?;
            }
            plan.ops.push(Op::Prepare { step: Prepare::MakeDir { path: level.clone(), own: false } });
            for file in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|_| cpuset) {
                plan.ops.push(Op::Prepare { step: Prepare::Inherit { path: level.clone(), file: file.into() } });
            }
        }
    }
    Ok(plan)
}

/// Has a version 2 directory give what the group is to have; `can` is what it can give, and then what it gives.
fn give(
    dir: &Path,
    group: &Group,
    can: &mut Vec<String>,
    offered: &Offers,
    plan: &mut GroupPlan,
) -> Result<(), GroupError> {
    let named = !group.controllers.is_empty();
    let nothing = Offer::default();
    let offer = offered.get(dir).unwrap_or(&nothing);
    let asked = |c: &String| if named { group.controllers.contains(c) } else { GIVEN.contains(&c.as_str()) };
    let mut missing: Vec<String> = can.iter().filter(|c| asked(c) && !offer.controllers.contains(c)).cloned().collect();
    if !missing.is_empty() && !offer.processes.is_empty() {
        let (controllers, processes) = (missing.join(" "), offer.processes.clone());
        let refusal = GroupError::InternalProcesses { dir: dir.to_owned(), controllers, processes };
        if named {
            return Err(refusal);
        }
        // Nobody has asked for these by name: a group without them is a group.
        plan.notes.push(refusal.to_string());
        missing.clear();
    }
    if offer.closed && !named {
        missing.clear();
    }
    if !missing.is_empty() {
        let required = if named { missing.clone() } else { Vec::new() };
        let step = Prepare::Enable { path: dir.to_owned(), required, wanted: missing.clone() };
        plan.ops.push(Op::Prepare { step });
    }
    can.retain(|c| offer.controllers.contains(c) || missing.contains(c));
    Ok(())
}

/// Gives a group to a user.
pub fn owner_ops(places: &[Place], version: Version, uid: Option<u32>, gid: Option<u32>) -> Vec<Op> {
    let give = |place: &Place| {
        let v2 = version == Version::V2 || place.controllers.is_empty();
        let files: &[&str] = if v2 { &OWNED_V2 } else { &OWNED_V1 };
        Op::Give { dir: place.dir.clone(), files: files.iter().map(|f| (*f).to_owned()).collect(), uid, gid }
    };
    places.iter().map(give).collect()
}

/// How one setting was translated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Translation {
    /// `cpus=0.5`.
    pub setting: String,
    /// File and value of each write.
    pub writes: Vec<(String, String)>,
    /// Interface that they are of.
    pub version: Version,
}

impl std::fmt::Display for Translation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = |(file, value): &(String, String)| format!("{file} {value}");
        let all = self.writes.iter().map(one).collect::<Vec<_>>().join(", ");
        write!(f, "{} → {all} ({})", self.setting, self.version.name())
    }
}

/// Plans a change of limits, setting by setting: each is translated with what the group has and what those before it
/// have changed.
///
/// # Errors
/// An unknown setting, a wrong value, a missing controller, or what this version cannot keep.
pub fn plan_set(
    layout: &CgroupLayout,
    group: &Group,
    facts: &GroupFacts,
    settings: &[(String, String)],
    devices: &Devices,
) -> Result<(GroupPlan, Vec<Translation>), GroupError> {
    let mut facts = facts.clone();
    let all = paths(&facts.places);
    let mut before = present(&facts);
    let (mut prepare, mut writes, mut notes, mut told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (key, value) in settings {
        let own = match keys::change(key, value, &facts, devices)? {
            Change::File { file, value } => file_writes(&facts, &file, &value),
            Change::Resources(change) => {
                check_controllers(&change, key, group, &facts)?;
                let path = format!("/{}", group.path);
                let (update, merged) = plan_update(layout, &all, &path, (&before, &change))?;
                before = merged;
                for step in update.prepare {
                    let missing = not_given(step, &facts.offers)?.filter(|step| !prepare.contains(step));
                    prepare.extend(missing);
                }
                notes.extend(update.notes);
                // What belongs together is completed; what only stands there again need not be told.
                update.writes.into_iter().filter(|w| !(is_swap(key) && w.file == "memory.max")).collect()
            }
        };
        note_written(&mut facts, &own);
        told.push(Translation {
            setting: format!("{key}={value}"),
            writes: own.iter().map(|w| (w.file.clone(), w.value.clone())).collect(),
            version: facts.version,
        });
        writes.extend(own);
    }
    let mut ops: Vec<Op> = prepare.into_iter().map(|step| Op::Prepare { step }).collect();
    if !writes.is_empty() {
        ops.push(Op::Set { writes });
    }
    Ok((GroupPlan { ops, notes }, told))
}

/// What is left of a step that has a directory above give controllers.
fn not_given(step: Prepare, offers: &Offers) -> Result<Option<Prepare>, GroupError> {
    let Prepare::Enable { path, required, mut wanted } = step else { return Ok(None) };
    let Some(offer) = offers.get(&path) else { return Ok(Some(Prepare::Enable { path, required, wanted })) };
    wanted.retain(|c| !offer.controllers.contains(c));
    if wanted.is_empty() {
        return Ok(None);
    }
    if !offer.processes.is_empty() {
        let (controllers, processes) = (wanted.join(" "), offer.processes.clone());
        return Err(GroupError::InternalProcesses { dir: path, controllers, processes });
    }
    Ok(Some(Prepare::Enable { path, required, wanted }))
}

/// What the settings ask for, as `linux.resources`: for systemd, which has no group yet.
///
/// # Errors
/// As [`plan_set`].
pub fn merged_resources(
    layout: &CgroupLayout,
    version: Version,
    settings: &[(String, String)],
    devices: &Devices,
) -> Result<LinuxResources, GroupError> {
    let facts = GroupFacts { version, places: Vec::new(), files: BTreeMap::new(), offers: Offers::new() };
    let mut all = LinuxResources::default();
    for (key, value) in settings {
        if let Change::Resources(change) = keys::change(key, value, &facts, devices)? {
            // Completed by what was set before, as for a group.
            let paths = onggi_cgroup::Paths::from([(String::new(), PathBuf::from("/"))]);
            all = plan_update(layout, &paths, "/unit", (&all, &change))?.1;
        }
    }
    Ok(all)
}

fn is_swap(key: &str) -> bool {
    matches!(keys::known(key), Some("swap" | "memory-swap"))
}

/// A later setting may depend on an earlier one: swap on memory.
fn note_written(facts: &mut GroupFacts, writes: &[CgroupWrite]) {
    for w in writes {
        if let Some(file) = facts.files.get_mut(&w.file) {
            file.text.clone_from(&w.value);
        }
    }
}

/// One line into a file of a controller, where the group is in it; `unified` is version 2 without a controller.
pub(super) fn file_write(facts: &GroupFacts, controller: &str, file: &str, line: &str) -> Option<CgroupWrite> {
    let of = |place: &&Place| match facts.version {
        Version::V2 => true,
        Version::V1 if controller == "unified" => place.controllers.is_empty(),
        Version::V1 => place.controllers.iter().any(|c| c == controller),
    };
    let place = facts.places.iter().find(of)?;
    Some(CgroupWrite {
        path: place.dir.clone(),
        file: file.to_owned(),
        value: line.trim().to_owned(),
        optional: true,
        quiet: false,
        again: true,
        what: format!("value of {file}"),
        alternative: None,
    })
}

/// One write per line: files with a line per device take one at a time.
fn file_writes(facts: &GroupFacts, file: &str, value: &str) -> Vec<CgroupWrite> {
    let place = facts.files.get(file).and_then(|f| facts.places.get(f.place)).or(facts.places.first());
    let Some(place) = place else { return Vec::new() };
    let lines = if value.trim().is_empty() { vec![""] } else { value.lines().collect() };
    let one = |line: &str| CgroupWrite {
        path: place.dir.clone(),
        file: file.to_owned(),
        value: line.trim().to_owned(),
        optional: false,
        quiet: false,
        again: true,
        what: format!("value of {file}"),
        alternative: None,
    };
    lines.into_iter().map(one).collect()
}

/// A controller in which the group is not: version 1 has no group there to write to.
fn check_controllers(change: &LinuxResources, key: &str, group: &Group, facts: &GroupFacts) -> Result<(), GroupError> {
    let cpuset = |c: &LinuxCpu| c.cpus.is_some() || c.mems.is_some();
    let needed = [
        ("cpu", change.cpu.as_ref().is_some_and(|c| !cpuset(c))),
        ("cpuset", change.cpu.as_ref().is_some_and(cpuset)),
        ("memory", change.memory.is_some()),
        ("pids", change.pids.is_some()),
        ("blkio", change.block_io.is_some()),
        ("hugetlb", !change.hugepage_limits.is_empty()),
    ];
    match needed.iter().find(|(controller, asked)| *asked && !facts.is_in(controller)) {
        Some((controller, _)) => Err(GroupError::NotIn {
            key: key.to_owned(),
            controller: (*controller).to_owned(),
            group: group.path.clone(),
        }),
        None => Ok(()),
    }
}

/// What the group has, as far as a translation depends on it: quota and period, memory and swap.
fn present(facts: &GroupFacts) -> LinuxResources {
    let (quota, period) = match facts.version {
        Version::V1 => (None, facts.number("cpu.cfs_period_us")),
        Version::V2 => {
            let mut words = facts.text("cpu.max").unwrap_or_default().split_ascii_whitespace();
            (words.next().map(|q| q.parse().unwrap_or(-1)), words.next().and_then(|p| p.parse().ok()))
        }
    };
    let limit = match facts.version {
        Version::V1 => facts.number("memory.limit_in_bytes").filter(|n| *n < UNLIMITED),
        Version::V2 => facts.number("memory.max"),
    };
    let limit = limit.and_then(|n| i64::try_from(n).ok());
    LinuxResources {
        cpu: Some(LinuxCpu { quota, period, ..LinuxCpu::default() }),
        memory: Some(LinuxMemory { limit, ..LinuxMemory::default() }),
        ..LinuxResources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{group::tests::v2, places};

    fn create(name: &str) -> Result<GroupPlan, GroupError> {
        let group: Group = name.parse().expect("a name");
        let places = places(&v2(), &group).expect("a hierarchy");
        let sleeper =
            Offer { controllers: vec!["cpu".into()], processes: vec![(7, "sleep 9".into())], ..Offer::default() };
        let offered = Offers::from([("/c".into(), Offer::default()), ("/c/busy".into(), sleeper)]);
        create_plan(&v2(), &group, &places, &offered)
    }

    #[test]
    fn a_directory_gives_what_it_is_given_and_one_of_somebody_else_is_let_be() {
        let group: Group = "theirs/mine/new".parse().expect("a name");
        let places = places(&v2(), &group).expect("a hierarchy");
        let of = |names: &[&str], closed: bool| Offer {
            controllers: names.iter().map(|n| (*n).to_owned()).collect(),
            closed,
            ..Offer::default()
        };
        let theirs = of(&["cpu", "memory"], true);
        let offered = Offers::from([
            ("/c".into(), theirs.clone()),
            ("/c/theirs".into(), theirs),
            ("/c/theirs/mine".into(), of(&["cpu"], false)),
        ]);
        let plan = create_plan(&v2(), &group, &places, &offered).expect("plan");
        let enabled: Vec<String> =
            plan.words().lines().filter(|l| l.contains("subtree_control")).map(str::to_owned).collect();
        assert_eq!(enabled.len(), 1, "{enabled:?}");
        assert!(enabled[0].starts_with("write \"+memory\" to /c/theirs/mine/"), "{enabled:?}");
    }

    #[test]
    fn a_group_with_processes_is_not_asked_for_controllers() {
        let plan = create("busy/below").expect("a group without them is a group");
        let words = plan.words();
        assert!(words.contains("mkdir(2) /c/busy/below") && words.contains("+cpu"), "the root may have both: {words}");
        assert!(!words.contains("/c/busy/cgroup.subtree_control"), "{words}");
        assert!(words.contains("note: /c/busy cannot give cpuset io memory hugetlb pids to its children"), "{words}");
        assert!(words.contains("it has 1 process of its own (7 sleep 9)"), "{words}");
        let refused = create("memory:busy/below").expect_err("it was asked for by name");
        assert!(refused.hint().is_some_and(|hint| hint.contains("/c/busy/leaf 7")), "{refused}");
        assert!(create("cpu:busy/below").is_ok(), "it is given already");
    }
}

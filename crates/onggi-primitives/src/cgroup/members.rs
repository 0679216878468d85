//! Processes of groups: plans that move, stop, signal them, and take groups away.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::{Group, GroupError, GroupPlan, Op, Place};
use crate::process::process;

/// What becomes of the processes of a group that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    /// They keep it from being removed.
    Refuse,
    /// They go to the parent, as with cgdelete.
    ToParent,
    /// They are killed.
    Kill,
}

/// What a removal may know: the groups of each tree, those below first, and who is in them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemovePlanFacts {
    /// Directories with their processes.
    pub dirs: Vec<(PathBuf, Vec<i32>)>,
    /// Commands of the processes.
    pub commands: BTreeMap<i32, String>,
}

/// Looks into every directory of the group and below it.
///
/// # Errors
/// One of them cannot be read. What goes meanwhile is not there.
pub fn remove_facts(places: &[Place]) -> Result<RemovePlanFacts, GroupError> {
    let mut facts = RemovePlanFacts::default();
    for place in places {
        walk(&place.dir, &mut facts)?;
    }
    let pids: Vec<i32> = facts.dirs.iter().flat_map(|(_, pids)| pids.iter().copied()).collect();
    facts.commands = commands(&pids).into_iter().collect();
    Ok(facts)
}

fn walk(dir: &Path, facts: &mut RemovePlanFacts) -> Result<(), GroupError> {
    for child in subdirs(dir)? {
        walk(&child, facts)?;
    }
    facts.dirs.push((dir.to_owned(), member_list(dir)?));
    Ok(())
}

/// The processes of this group alone, for an explanation: what cannot be read is not in it.
pub(super) fn members(dir: &Path) -> Vec<i32> {
    member_list(dir).unwrap_or_default()
}

/// The processes of this group alone. Those outside our pid namespace are 0, which would mean ourselves. A group that goes
/// meanwhile has none; neither has a threaded one of version 2, whose processes are its domain's.
///
/// # Errors
/// They cannot be read.
pub(super) fn member_list(dir: &Path) -> Result<Vec<i32>, GroupError> {
    let path = dir.join("cgroup.procs");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0).collect()),
        Err(e) if [Errno::NOENT, Errno::NODEV, Errno::OPNOTSUPP].contains(&errno(&e)) => Ok(Vec::new()),
        Err(source) => Err(GroupError::Io { operation: "read", path, source }),
    }
}

fn errno(e: &std::io::Error) -> Errno {
    Errno::from_io_error(e).unwrap_or(Errno::IO)
}

/// The processes that keep a version 2 group from giving controllers to its children. The root may have both, and a
/// threaded tree is somebody's wish, and the kernel's to judge.
///
/// The kernel must not be asked instead: it refuses memory and io, but takes cpu, cpuset and pids, makes a threaded
/// domain of the group by that, and lets no process into the groups below from then on (cgroup-v2.rst, "Threads").
pub(super) fn keepers(dir: &Path) -> Vec<i32> {
    match fs::read_to_string(dir.join("cgroup.type")) {
        Ok(kind) if kind.trim() == "domain" => members(dir),
        _ => Vec::new(),
    }
}

/// Groups directly below a directory, in order.
pub(crate) fn subdirs(dir: &Path) -> Result<Vec<PathBuf>, GroupError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(GroupError::Io { operation: "list", path: dir.to_owned(), source }),
        Ok(entries) => entries,
    };
    let is_dir = |e: &fs::DirEntry| e.file_type().is_ok_and(|t| t.is_dir());
    let mut found: Vec<PathBuf> = entries.flatten().filter(is_dir).map(|e| e.path()).collect();
    found.sort();
    Ok(found)
}

/// Commands of processes; one that has gone has none.
pub(crate) fn commands(pids: &[i32]) -> Vec<(i32, String)> {
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter().map(|pid| (pid, process(pid).map(|p| p.command).unwrap_or_default())).collect()
}

/// Plans the removal of a group; `recursive` takes those below it along.
///
/// # Errors
/// It is the root, has processes that stay, or groups below it.
pub fn plan_remove(
    group: &Group,
    places: &[Place],
    facts: &RemovePlanFacts,
    recursive: bool,
    leftover: Leftover,
) -> Result<GroupPlan, GroupError> {
    if group.path.is_empty() {
        return Err(GroupError::Root(group.to_string()));
    }
    let own = |dir: &Path| places.iter().any(|place| place.dir == dir);
    let below: std::collections::BTreeSet<String> = facts
        .dirs
        .iter()
        .filter(|(dir, _)| !own(dir))
        .map(|(dir, _)| dir.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    if !recursive && !below.is_empty() {
        return Err(GroupError::HasChildren { group: group.to_string(), children: below.into_iter().collect() });
    }
    let mut pids: Vec<i32> = facts.dirs.iter().flat_map(|(_, pids)| pids.iter().copied()).collect();
    pids.sort_unstable();
    pids.dedup();
    if leftover == Leftover::Refuse && !pids.is_empty() {
        let command = |pid: i32| (pid, facts.commands.get(&pid).cloned().unwrap_or_default());
        return Err(GroupError::Busy { group: group.to_string(), processes: pids.into_iter().map(command).collect() });
    }
    let mut ops = Vec::new();
    if leftover == Leftover::Kill {
        ops.extend(places.iter().map(|place| Op::Destroy { dir: place.dir.clone() }));
        return Ok(GroupPlan { ops, notes: Vec::new() });
    }
    for (dir, pids) in &facts.dirs {
        let parent = places.iter().find(|place| dir.starts_with(&place.dir)).and_then(|place| place.dir.parent());
        let file = parent.unwrap_or(dir).join("cgroup.procs");
        ops.extend(pids.iter().map(|pid| Op::Move { pid: *pid, file: file.clone() }));
        ops.push(Op::Remove { dir: dir.clone() });
    }
    Ok(GroupPlan { ops, notes: Vec::new() })
}

/// Plans moves of processes, or of single threads where `threads` is set (version 1, and threaded groups).
pub fn plan_move(places: &[Place], pids: &[i32], threads: bool) -> GroupPlan {
    let file = |place: &Place| match (threads, place.controllers.is_empty()) {
        (false, _) => "cgroup.procs",
        (true, true) => "cgroup.threads",
        (true, false) => "tasks",
    };
    let ops = places.iter().flat_map(|place| {
        let file = place.dir.join(file(place));
        pids.iter().map(move |pid| Op::Move { pid: *pid, file: file.clone() })
    });
    GroupPlan { ops: ops.collect(), notes: Vec::new() }
}

/// Plans a command in a group.
pub fn plan_join(places: &[Place], command: &[String]) -> GroupPlan {
    let mut ops: Vec<Op> = places.iter().map(|place| Op::Join { file: place.dir.join("cgroup.procs") }).collect();
    ops.push(Op::Execute { command: command.to_vec() });
    GroupPlan { ops, notes: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> (Group, Vec<Place>) {
        let group: Group = "memory:a".parse().expect("a name");
        let places = vec![Place { controllers: vec!["memory".into()], mount: "/m".into(), dir: "/m/a".into() }];
        (group, places)
    }

    #[test]
    fn a_busy_group_is_refused_by_name_of_its_processes_or_emptied_into_its_parent() {
        let (group, places) = group();
        let facts = RemovePlanFacts {
            dirs: vec![("/m/a/b".into(), vec![7]), ("/m/a".into(), vec![])],
            commands: BTreeMap::from([(7, "sleep 9".to_owned())]),
        };
        let plan = |recursive, leftover| plan_remove(&group, &places, &facts, recursive, leftover);
        let children = plan(false, Leftover::ToParent).expect_err("b is below");
        assert!(children.to_string().ends_with("groups below it: b"), "{children}");
        let busy = plan(true, Leftover::Refuse).expect_err("7 is inside");
        assert!(busy.to_string().contains("1 process: 7 sleep 9"), "{busy}");
        let moved = plan(true, Leftover::ToParent).expect("plan");
        let expected = [
            Op::Move { pid: 7, file: "/m/cgroup.procs".into() },
            Op::Remove { dir: "/m/a/b".into() },
            Op::Remove { dir: "/m/a".into() },
        ];
        assert_eq!(moved.ops, expected);
        assert_eq!(plan(true, Leftover::Kill).expect("plan").ops, [Op::Destroy { dir: "/m/a".into() }]);
    }
}

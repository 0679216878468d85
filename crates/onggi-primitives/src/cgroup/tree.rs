//! The groups of this machine as one tree, whatever number of hierarchies they are in.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use onggi_cgroup::{Paths, Stats, stats};

use super::{
    GroupError, Place,
    members::{member_list, subdirs},
};

/// Groups that are listed at most: a machine with more has other worries.
const MAX_GROUPS: usize = 65_536;

/// A group with what it uses.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Below the root of its hierarchies; empty for the root.
    pub path: String,
    /// Its directories by controller; `""` is version 2's.
    pub paths: Paths,
    /// Processes of the group itself.
    pub processes: BTreeSet<i32>,
    /// Counters, those below it included.
    pub stats: Stats,
}

impl Node {
    /// How deep it is below the root.
    pub fn depth(&self) -> usize {
        self.path.split('/').filter(|name| !name.is_empty()).count()
    }

    /// Its controllers, in order; version 2's hierarchy has none beside version 1.
    pub fn controllers(&self) -> Vec<&str> {
        self.paths.keys().map(String::as_str).filter(|c| !c.is_empty()).collect()
    }
}

/// The groups below `places`, themselves included, in the order of their paths; `depth` limits how far down.
///
/// # Errors
/// A directory cannot be read. Groups that go meanwhile are left out.
pub fn tree(places: &[Place], depth: Option<usize>) -> Result<Vec<Node>, GroupError> {
    let mut found: BTreeMap<Vec<String>, Paths> = BTreeMap::new();
    for place in places {
        walk(place, &place.dir, depth.unwrap_or(usize::MAX), &mut found)?;
    }
    found.into_iter().map(|(names, paths)| node(names.join("/"), paths)).collect()
}

fn walk(place: &Place, dir: &Path, depth: usize, found: &mut BTreeMap<Vec<String>, Paths>) -> Result<(), GroupError> {
    if found.len() >= MAX_GROUPS {
        return Ok(());
    }
    let names = dir.strip_prefix(&place.mount).unwrap_or(dir).components();
    let names = names.map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
    let paths = found.entry(names).or_default();
    match place.controllers.is_empty() {
        true => drop(paths.insert(String::new(), dir.to_owned())),
        false => paths.extend(place.controllers.iter().map(|c| (c.clone(), dir.to_owned()))),
    }
    if depth == 0 {
        return Ok(());
    }
    subdirs(dir)?.iter().try_for_each(|child| walk(place, child, depth - 1, found))
}

fn node(path: String, paths: Paths) -> Result<Node, GroupError> {
    let mut processes = BTreeSet::new();
    for dir in paths.values().collect::<BTreeSet<_>>() {
        processes.extend(member_list(dir)?);
    }
    let mut stats = stats(&paths)?;
    // On a hybrid host the hierarchy that counts may have a group of that name without those that others have.
    stats.pids = stats.pids.max(processes.len() as u64);
    Ok(Node { path, paths, processes, stats })
}

/// Processes of the group that the OOM killer has ended.
pub fn oom_kills(node: &Node) -> u64 {
    onggi_cgroup::oom_count(&node.paths).unwrap_or(0)
}

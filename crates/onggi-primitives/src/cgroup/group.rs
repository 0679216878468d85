//! A group's name, and the directories that it means.
//!
//! `lab/web` is the group of that path in every hierarchy that limits or counts; `cpu,memory:lab/web` in those of the
//! named controllers, as libcgroup's `-g`. Paths begin at the root of each hierarchy.

use std::{path::PathBuf, str::FromStr};

use onggi_cgroup::Paths;
use onggi_spec::{
    ParseError,
    facts::{CgroupLayout, V1Hierarchy},
};
use serde::Serialize;

use super::GroupError;

/// Longest path, as for containers' groups.
const MAX_PATH: usize = 2048;
/// Version 1 controllers that a group is made in when none are named: what limits, counts or stops.
const USUAL: [&str; 9] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "freezer", "hugetlb", "rdma"];

/// Version of the control group interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// A hierarchy per controller; also hybrid layouts, whose controllers are there.
    V1,
    /// One hierarchy.
    V2,
}

impl Version {
    /// Of a layout; one without control groups counts as version 2.
    pub fn of(layout: &CgroupLayout) -> Self {
        if matches!(layout, CgroupLayout::V1 { .. }) { Self::V1 } else { Self::V2 }
    }

    /// `v1`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// A group by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Controllers that were named; none means those that limit or count.
    pub controllers: Vec<String>,
    /// Below the root of a hierarchy, without a slash at either end; empty is the root itself.
    pub path: String,
}

impl Group {
    /// The root of every hierarchy.
    pub fn root() -> Self {
        Self { controllers: Vec::new(), path: String::new() }
    }

    /// The last name of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for Group {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = |reason: &str| {
            ParseError::new("control group", text, reason).hint("write a path such as lab/web, or cpu,memory:lab/web")
        };
        let (controllers, path) = match text.split_once(':') {
            Some((list, path)) if is_controllers(list) => (list, path),
            _ => ("*", text),
        };
        if path.len() > MAX_PATH || path.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err(bad("it is too long or has control characters"));
        }
        // An unset variable of a script must not mean every process of the machine.
        if path.is_empty() {
            return Err(ParseError::new("control group", text, "it is empty").hint("the root of the hierarchy is /"));
        }
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names.contains(&"..") {
            return Err(bad("it must not lead upwards"));
        }
        let controllers = controllers.split(',').filter(|c| *c != "*" && !c.is_empty()).map(str::to_owned).collect();
        Ok(Self { controllers, path: names.join("/") })
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.controllers.is_empty() {
            write!(f, "{}:", self.controllers.join(","))?;
        }
        f.write_str(if self.path.is_empty() { "/" } else { &self.path })
    }
}

fn is_controllers(list: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || matches!(b, b'_' | b',' | b'=' | b'*');
    list.bytes().all(plain)
}

/// A directory of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Controllers of its hierarchy; none for version 2's.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The directory.
    pub dir: PathBuf,
}

impl Place {
    /// The directories from below the mount point down to the group's own.
    pub fn levels(&self) -> Vec<PathBuf> {
        let mut levels: Vec<PathBuf> =
            self.dir.ancestors().take_while(|dir| *dir != self.mount).map(PathBuf::from).collect();
        levels.reverse();
        levels
    }
}

/// The directories that a group's name means, whether they exist or not.
///
/// # Errors
/// No control groups are mounted, or a named controller has no hierarchy.
pub fn places(layout: &CgroupLayout, group: &Group) -> Result<Vec<Place>, GroupError> {
    let at = |mount: &str, controllers: Vec<String>| Place {
        controllers,
        mount: mount.into(),
        dir: if group.path.is_empty() { mount.into() } else { PathBuf::from(mount).join(&group.path) },
    };
    match layout {
        CgroupLayout::None => Err(GroupError::NotMounted),
        CgroupLayout::V2 { mount, controllers, .. } => {
            let missing = group.controllers.iter().find(|c| !controllers.contains(c));
            match missing {
                Some(missing) => Err(no_controller(missing, controllers.clone())),
                None => Ok(vec![at(mount, Vec::new())]),
            }
        }
        CgroupLayout::V1 { hierarchies, unified } => {
            let named = |h: &&V1Hierarchy| h.controllers.iter().any(|c| wanted(group, c));
            let mut found: Vec<Place> =
                hierarchies.iter().filter(named).map(|h| at(&h.mount, h.controllers.clone())).collect();
            let has = |c: &String| found.iter().any(|place| place.controllers.contains(c));
            if let Some(missing) = group.controllers.iter().find(|c| !has(c)) {
                let all = hierarchies.iter().flat_map(|h| h.controllers.clone()).collect();
                return Err(no_controller(missing, all));
            }
            if group.controllers.is_empty() {
                // No controllers are there, but cgroup.kill, cgroup.freeze and cgroup.events.
                found.extend(unified.iter().map(|mount| at(mount, Vec::new())));
            }
            Ok(found)
        }
    }
}

fn wanted(group: &Group, controller: &str) -> bool {
    match group.controllers.is_empty() {
        true => USUAL.contains(&controller),
        false => group.controllers.iter().any(|c| c == controller),
    }
}

fn no_controller(controller: &str, available: Vec<String>) -> GroupError {
    GroupError::NoController { controller: controller.chars().take(64).collect(), available }
}

/// Those of the places whose directory is there.
///
/// # Errors
/// None is.
pub fn existing(group: &Group, places: Vec<Place>) -> Result<Vec<Place>, GroupError> {
    let found: Vec<Place> = places.into_iter().filter(|place| place.dir.is_dir()).collect();
    if found.is_empty() { Err(GroupError::NoGroup { group: group.to_string() }) } else { Ok(found) }
}

/// The directories by controller, as `onggi-cgroup` takes them.
pub(crate) fn paths(places: &[Place]) -> Paths {
    let mut paths = Paths::new();
    for place in places {
        match place.controllers.is_empty() {
            true => drop(paths.insert(String::new(), place.dir.clone())),
            false => paths.extend(place.controllers.iter().map(|c| (c.clone(), place.dir.clone()))),
        }
    }
    paths
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two controllers in one hierarchy, memory, a named one, and version 2's.
    pub(crate) fn hybrid() -> CgroupLayout {
        let hierarchy = |controllers: &[&str], mount: &str| V1Hierarchy {
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            mount: mount.into(),
            own: "/".into(),
        };
        let hierarchies = vec![
            hierarchy(&["cpu", "cpuacct"], "/c/cpu"),
            hierarchy(&["cpuset"], "/c/cpuset"),
            hierarchy(&["memory"], "/c/memory"),
            hierarchy(&["pids"], "/c/pids"),
            hierarchy(&["blkio"], "/c/blkio"),
            hierarchy(&["devices"], "/c/devices"),
            hierarchy(&["name=systemd"], "/c/systemd"),
        ];
        CgroupLayout::V1 { hierarchies, unified: Some("/c/unified".into()) }
    }

    pub(crate) fn v2() -> CgroupLayout {
        let controllers = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"].map(str::to_owned).to_vec();
        CgroupLayout::V2 { mount: "/c".into(), controllers, own: "/".into() }
    }

    fn dirs(layout: &CgroupLayout, name: &str) -> Vec<String> {
        let group: Group = name.parse().expect("a name");
        let found = places(layout, &group).expect("hierarchies");
        found.iter().map(|place| place.dir.display().to_string()).collect()
    }

    #[test]
    fn a_plain_path_is_a_group_wherever_something_is_limited_or_counted() {
        let all = ["/c/cpu/a/b", "/c/cpuset/a/b", "/c/memory/a/b", "/c/pids/a/b", "/c/blkio/a/b", "/c/unified/a/b"];
        assert_eq!(dirs(&hybrid(), "/a//b/"), all);
        assert_eq!(dirs(&v2(), "a/b"), ["/c/a/b"]);
        assert_eq!(dirs(&v2(), "/"), ["/c"]);
    }

    #[test]
    fn named_controllers_choose_hierarchies_and_unknown_ones_are_refused() {
        assert_eq!(dirs(&hybrid(), "cpu,memory:a"), ["/c/cpu/a", "/c/memory/a"]);
        assert_eq!(dirs(&hybrid(), "name=systemd:a"), ["/c/systemd/a"]);
        assert_eq!(dirs(&v2(), "cpu:a"), ["/c/a"]);
        for layout in [hybrid(), v2()] {
            let group: Group = "cpus:a".parse().expect("a name");
            assert!(matches!(places(&layout, &group), Err(GroupError::NoController { .. })));
        }
    }

    #[test]
    fn names_with_colons_that_are_no_controllers_are_paths_and_none_leads_upwards() {
        let group: Group = "user@1000.service/a:b".parse().expect("a name");
        assert_eq!(group.path, "user@1000.service/a:b");
        assert!("a/../b".parse::<Group>().is_err() && "".parse::<Group>().is_err() && "cpu:".parse::<Group>().is_err());
        assert!("/".parse::<Group>().is_ok_and(|g| g == Group::root()) && "a\nb".parse::<Group>().is_err());
        assert_eq!("*:x".parse::<Group>().expect("a name").to_string(), "x");
    }

    #[test]
    fn levels_end_at_the_mount() {
        let group: Group = "cpu:a/b".parse().expect("a name");
        let found = places(&hybrid(), &group).expect("a hierarchy");
        assert_eq!(found[0].levels(), [PathBuf::from("/c/cpu/a"), "/c/cpu/a/b".into()]);
    }
}

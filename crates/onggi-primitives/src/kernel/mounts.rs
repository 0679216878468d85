//! Mounts of a process as a tree (proc_pid_mountinfo(5)), in findmnt(8)'s order.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::namespaces::unescape;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountLine {
    /// Its number.
    pub id: u32,
    /// The number of the mount that it is on.
    pub parent: u32,
    /// How many mounts are above it in what is shown.
    pub depth: usize,
    /// Where it is.
    pub target: String,
    /// What is mounted: `overlay`, `/dev/vda[/dir]`.
    pub source: String,
    /// Filesystem type.
    pub fstype: String,
    /// Options of the mount and of the filesystem.
    pub options: String,
    /// `shared:1`, `master:2`; empty for a private one.
    pub propagation: String,
}

/// Every mount below its parent.
pub(super) fn tree(mountinfo: &str) -> Vec<MountLine> {
    let all: Vec<MountLine> = mountinfo.lines().filter_map(parse).collect();
    let ids: BTreeSet<u32> = all.iter().map(|m| m.id).collect();
    let mut children: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut roots = Vec::new();
    for (at, mount) in all.iter().enumerate() {
        // A root is its own parent, or its parent is outside of what the process sees.
        match mount.parent != mount.id && ids.contains(&mount.parent) {
            true => children.entry(mount.parent).or_default().push(at),
            false => roots.push(at),
        }
    }
    let mut out = Vec::with_capacity(all.len());
    let mut todo: Vec<(usize, usize)> = roots.into_iter().rev().map(|at| (at, 0)).collect();
    while let Some((at, depth)) = todo.pop() {
        let below = children.remove(&all[at].id).unwrap_or_default();
        todo.extend(below.into_iter().rev().map(|child| (child, depth + 1)));
        out.push(MountLine { depth, ..all[at].clone() });
    }
    out
}

fn parse(line: &str) -> Option<MountLine> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let mut right = right.split(' ');
    let (fstype, source, super_options) = (right.next()?, right.next()?, right.next().unwrap_or_default());
    let root = unescape(left.get(3)?);
    let source = match root.as_str() {
        "/" => unescape(source),
        below => format!("{}[{below}]", unescape(source)),
    };
    let mut options: Vec<&str> = left.get(5)?.split(',').collect();
    options.extend(super_options.split(',').filter(|o| !matches!(*o, "rw" | "ro")));
    options.dedup();
    Some(MountLine {
        id: left.first()?.parse().ok()?,
        parent: left.get(1)?.parse().ok()?,
        depth: 0,
        target: unescape(left.get(4)?),
        source,
        fstype: fstype.to_owned(),
        options: options.join(","),
        propagation: left.get(6..).unwrap_or_default().join(","),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mount_is_below_its_parent_and_none_is_lost() {
        let text = "20 19 8:1 / / rw master:1 - overlay o rw,lowerdir=/a\n22 20 0:5 / /dev rw,nosuid - tmpfs t rw\n\
                    21 20 0:4 / /proc rw - proc p rw\n23 22 0:6 / /dev/my\\040pts rw - devpts d rw\n\
                    24 21 0:4 /sys /proc/sys ro - proc p rw\n";
        let lines: Vec<(usize, String)> = tree(text).into_iter().map(|m| (m.depth, m.target)).collect();
        let expected = [(0, "/"), (1, "/dev"), (2, "/dev/my pts"), (1, "/proc"), (2, "/proc/sys")];
        assert_eq!(lines, expected.map(|(d, t)| (d, t.to_owned())));
        assert_eq!(tree(text)[4].source, "p[/sys]");
        assert_eq!(tree("1 1 0:1 / / rw - t t rw\n").len(), 1, "its own parent");
    }
}

//! Names of transient groups, and what to do with those whose program was killed.
//!
//! A name says whose it is: the number and the start time of the program that made it, or of the process that it limits
//! (`onggi-limit-PID-START-NS`, `onggi-limit-pid-PID-START-NS`), and in which pid namespace that number counts. One whose
//! owner is gone and that has no process any more is removed by the next `onggi limit` of that namespace. One that has
//! processes keeps them limited.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use onggi_spec::facts::CgroupLayout;

/// How all names begin.
pub const PREFIX: &str = "onggi-limit-";

/// The name of the group of a command (`running` is the program that waits for it) or of a process that runs.
/// `namespace` is the pid namespace of `pid`.
pub fn group_name(pid: i32, start: u64, running: bool, namespace: u64) -> String {
    format!("{PREFIX}{}{pid}-{start}-{namespace}", if running { "pid-" } else { "" })
}

/// The inode number of the caller's pid namespace (pid_namespaces(7)); 0 without proc(5).
pub fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino())
}

/// When a process started, in clock ticks since the boot (proc_pid_stat(5), field 22).
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Removes groups that nobody needs any more. What cannot be removed stays; returns what was removed.
pub fn clean_stale(layout: &CgroupLayout) -> Vec<PathBuf> {
    let (mut removed, here) = (Vec::new(), pid_namespace());
    for root in roots(layout) {
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix(PREFIX).is_some_and(|rest| is_ownerless(rest, here)) && remove_empty(&entry.path()) {
                removed.push(entry.path());
            }
        }
    }
    removed
}

fn roots(layout: &CgroupLayout) -> Vec<PathBuf> {
    match layout {
        CgroupLayout::None => Vec::new(),
        CgroupLayout::V2 { mount, own, .. } => {
            let beside = Path::new(own).parent().unwrap_or(Path::new("/"));
            let mut roots =
                vec![PathBuf::from(mount), Path::new(mount).join(beside.strip_prefix("/").unwrap_or(beside))];
            roots.dedup();
            roots
        }
        CgroupLayout::V1 { hierarchies, unified } => {
            hierarchies.iter().map(|h| PathBuf::from(&h.mount)).chain(unified.iter().map(PathBuf::from)).collect()
        }
    }
}

/// `PID-START-NS` or `pid-PID-START-NS` of a process that is not there. Processes of other namespaces are not seen from
/// `here`, so nothing is known of theirs.
fn is_ownerless(rest: &str, here: u64) -> bool {
    let mut parts = rest.strip_prefix("pid-").unwrap_or(rest).split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start)), Some(Ok(namespace)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    namespace == here && i32::try_from(pid).is_ok_and(|pid| start_time(pid) != Some(start))
}

/// The kernel refuses where a process is left, which is what we want.
fn remove_empty(dir: &Path) -> bool {
    for child in fs::read_dir(dir).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_empty(&child.path());
        }
    }
    fs::remove_dir(dir).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_processes_that_are_gone_are_ownerless() {
        let pid = std::process::id().cast_signed();
        let start = start_time(pid).expect("our own");
        let rest = |name: String| name.strip_prefix(PREFIX).map(str::to_owned).expect("prefix");
        let here = pid_namespace();
        assert!(!is_ownerless(&rest(group_name(pid, start, false, here)), here));
        assert!(is_ownerless(&rest(group_name(pid, start + 1, true, here)), here));
        assert!(!is_ownerless(&rest(group_name(pid, start + 1, true, here + 1)), here));
        assert!(["", "x", "1", "pid-", "1-x", "1-2", "1-2-x", "1-2-3-4"].iter().all(|name| !is_ownerless(name, 3)));
    }
}

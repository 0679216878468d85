//! What a test run may leave behind on a machine, seen before and after.
//!
//! A snapshot holds names only (mount points, links, network namespaces, control groups, firewall tables,
//! processes, files); what is in the second and not in the first was left behind. Kinds that other programs
//! change all the time are narrowed down to names of ours.

use std::{
    collections::BTreeMap,
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Outcome, process::find};

/// The kernel tears some things down after the process that held them has gone.
const SETTLE: Duration = Duration::from_secs(10);

/// Deep enough for `/var/lib/onggi/containers/ID` and `/sys/fs/cgroup/CONTROLLER/onggi/ID`.
const MAX_DEPTH: usize = 4;

/// What was there at one moment, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    kinds: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Snapshot {
    /// Looks at the machine.
    pub(crate) fn take() -> Snapshot {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let kinds = [
            ("mount", mount_points(&mounts)),
            ("link", entries("/sys/class/net")),
            ("network namespace", entries("/run/netns")),
            ("cgroup", cgroups()),
            ("nft table", nft_tables()),
            ("process", processes()),
            ("file", files()),
        ];
        Snapshot { kinds: kinds.into() }
    }

    /// What `self` has and `before` has not, as `kind name`.
    pub(crate) fn added_since(&self, before: &Snapshot) -> Vec<String> {
        let none = BTreeSet::new();
        let mut added = Vec::new();
        for (kind, names) in &self.kinds {
            let known = before.kinds.get(kind).unwrap_or(&none);
            added.extend(names.difference(known).map(|name| format!("{kind} {name}")));
        }
        added
    }
}

/// An error that lists what has come since `before` and does not go away.
pub(crate) fn nothing_added_since(before: &Snapshot) -> Outcome {
    let start = Instant::now();
    loop {
        let added = Snapshot::take().added_since(before);
        if added.is_empty() {
            println!("nothing was left behind");
            return Ok(());
        }
        if start.elapsed() > SETTLE {
            return Err(format!("left behind:\n  {}", added.join("\n  ")));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn is_ours(name: &str) -> bool {
    name.contains("onggi")
}

fn mount_points(mountinfo: &str) -> BTreeSet<String> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

fn entries(dir: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn cgroups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), MAX_DEPTH, &mut found);
    found.retain(|path| is_ours(path) && Path::new(path).is_dir());
    found
}

fn files() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for dir in ["/run/onggi", "/var/lib/onggi"] {
        walk(Path::new(dir), MAX_DEPTH, &mut found);
    }
    for dir in ["/tmp", "/var/tmp", "/run", "/dev/shm"] {
        found.extend(entries(dir).into_iter().filter(|name| is_ours(name)).map(|name| format!("{dir}/{name}")));
    }
    found
}

/// Adds everything below `dir`, without following links.
fn walk(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        found.insert(entry.path().to_string_lossy().into_owned());
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), depth - 1, found);
        }
    }
}

fn nft_tables() -> BTreeSet<String> {
    let Some(nft) = find("nft") else { return BTreeSet::new() };
    let output = Command::new(nft).args(["list", "tables"]).stderr(Stdio::null()).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

/// Processes that run one of our programs, as `pid name`.
fn processes() -> BTreeSet<String> {
    let Ok(proc) = fs::read_dir("/proc") else { return BTreeSet::new() };
    let mut found = BTreeSet::new();
    for entry in proc.flatten() {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.starts_with("onggi") {
            found.insert(format!("{} {}", entry.file_name().to_string_lossy(), comm.trim_end()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(names: &[&str]) -> Snapshot {
        Snapshot { kinds: [("link", names.iter().map(|name| (*name).to_owned()).collect())].into() }
    }

    #[test]
    fn only_what_is_new_counts_as_left_behind() {
        let before = snapshot(&["lo", "eth0"]);
        assert_eq!(snapshot(&["lo", "onggi0"]).added_since(&before), ["link onggi0"]);
        assert!(snapshot(&["lo"]).added_since(&before).is_empty());
    }

    #[test]
    fn mount_points_are_the_fifth_field() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n";
        assert_eq!(mount_points(line), BTreeSet::from(["/mnt2".to_owned()]));
    }

    #[test]
    fn a_snapshot_of_this_machine_can_be_taken() {
        assert!(Snapshot::take().kinds["mount"].contains("/"));
    }
}

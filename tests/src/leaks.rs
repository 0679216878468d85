//! What one test may leave behind in its private machine, in its store, and in the shared control groups.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Everything in the private machine that a container may own, as lines of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    things: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at mounts, links, network namespaces, firewall elements and orphaned processes.
    pub fn take() -> Snapshot {
        let mut things = BTreeSet::new();
        things.extend(mounts());
        things.extend(links());
        things.extend(firewall_elements());
        things.extend(names_in(Path::new("/run/netns"), "network namespace"));
        things.extend(orphans());
        Snapshot { things }
    }

    /// What is here and was not in `before`, and what the store still holds of containers. The bridge
    /// itself stays for the next container.
    pub fn left_behind(&self, before: &Snapshot, root: &Path, runroot: &Path, ids: &BTreeSet<String>) -> Vec<String> {
        let mut left: Vec<String> = self.things.difference(&before.things).cloned().collect();
        left.retain(|thing| thing != "link onggi0");
        for dir in ["containers", "tmp"] {
            let names = names_in(&root.join(dir), &format!("{dir} of the store"));
            // Half a blob stays for a day: a pull that was killed goes on from it.
            left.extend(names.into_iter().filter(|name| !is_download(name)));
        }
        for dir in ["containers", "intents", "oci"] {
            left.extend(names_in(&runroot.join(dir), &format!("{dir} of the run root")));
        }
        left.extend(leases(&runroot.join("leases")));
        left.extend(names_in(&runroot.join("id-blocks"), "id block"));
        left.extend(cgroups_of(ids));
        left
    }
}

fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| format!("mount {point}")).collect()
}

fn links() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| format!("link {}", name.trim())).collect()
}

fn names_in(dir: &Path, what: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| format!("{what}: {}", entry.file_name().to_string_lossy())).collect()
}

fn leases(dir: &Path) -> Vec<String> {
    let networks = fs::read_dir(dir).into_iter().flatten().flatten();
    networks.flat_map(|network| names_in(&network.path(), "lease")).collect()
}

/// Elements of our sets and maps that name one address. Those that name a whole subnet belong to the bridge.
fn firewall_elements() -> Vec<String> {
    let list = Command::new("nft").args(["-j", "list", "ruleset"]).stderr(Stdio::null()).output();
    let text = list.map(|output| output.stdout).unwrap_or_default();
    let rules: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let objects = rules["nftables"].as_array().cloned().unwrap_or_default();
    let sets = objects.iter().filter_map(|object| object.get("set").or(object.get("map")));
    let elements = sets.flat_map(|set| set["elem"].as_array().cloned().unwrap_or_default());
    let single = elements.map(|element| element.to_string()).filter(|element| !element.contains("prefix"));
    single.filter(|element| !element.contains("onggi0")).map(|element| format!("nft element {element}")).collect()
}

/// Processes whose parent has gone (their parent is our init), except the test itself. Other children of
/// the test are its own registries and clients.
fn orphans() -> Vec<String> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own && *pid != 1).filter_map(orphan).collect()
}

fn orphan(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?);
    (parent == "1" && state != "Z").then(|| format!("process {head})"))
}

/// Control groups of these containers, in every hierarchy.
fn cgroups_of(ids: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 5, &mut |path| {
        let text = path.to_string_lossy();
        if ids.iter().any(|id| text.contains(id.as_str())) {
            found.push(format!("cgroup {text}"));
        }
    });
    found
}

fn walk(dir: &Path, depth: u32, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path());
            if depth > 0 {
                walk(&entry.path(), depth - 1, visit);
            }
        }
    }
}

/// `blob-<digest>.part`
fn is_download(name: &str) -> bool {
    let digest = name.rsplit_once("blob-").and_then(|(_, rest)| rest.strip_suffix(".part"));
    digest.is_some_and(|hex| hex.len() == 64)
}

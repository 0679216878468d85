//! Looks at the host for [`super::judge`]. A fact that cannot be read is absent, never an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use onggi_network::{BridgeRequest, NetFacts};
use onggi_spec::{HostFacts, facts::CgroupLayout};

use crate::{Engine, names, process};

/// Longest file of /proc or /etc that is read.
const MAX_TEXT: u64 = 1 << 20;
/// Where set-uid helpers are looked for.
const TRUSTED: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A line of /etc/subuid or /etc/subgid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// The filesystem below the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskFacts {
    /// The store's directory.
    pub path: String,
    /// Type, as mountinfo names it.
    pub fstype: String,
    /// Bytes in all.
    pub total: u64,
    /// Bytes that the caller may use.
    pub free: u64,
    /// Inodes in all; 0 where they are made as needed.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
    /// Mount options.
    pub options: String,
}

/// What there is to know.
#[derive(Debug, Clone)]
pub struct DoctorFacts {
    /// What the engine knows for planning.
    pub host: HostFacts,
    /// The view of an ordinary user.
    pub rootless: bool,
    /// The caller's name.
    pub user: String,
    /// Files of /proc/self/ns.
    pub namespaces: BTreeSet<String>,
    /// Numbers and texts of /proc/sys by their names below it.
    pub sysctls: BTreeMap<&'static str, String>,
    /// `/proc/sys/kernel/seccomp/actions_avail`.
    pub seccomp_actions: String,
    /// Options of the mount of /proc.
    pub proc_options: String,
    /// The store's filesystem.
    pub store: DiskFacts,
    /// Type of the run root's filesystem.
    pub runroot_type: String,
    /// The storage driver, or why there is none.
    pub driver: Result<String, String>,
    /// The runtime, or where it was looked for.
    pub runtime: Result<String, String>,
    /// Soft limit of open files.
    pub nofile_soft: u64,
    /// Ranges of the caller.
    pub subuid: Vec<IdRange>,
    /// Ranges of the caller.
    pub subgid: Vec<IdRange>,
    /// Helpers that were found, and whether they have their privilege.
    pub helpers: BTreeMap<&'static str, bool>,
    /// On version 2: the caller may make groups below its own, with these controllers.
    pub delegated: Option<Vec<String>>,
    /// systemd is process 1.
    pub systemd: bool,
    /// The network as root sees it, or why not.
    pub network: Result<NetFacts, String>,
    /// Name servers of resolv.conf.
    pub nameservers: Vec<String>,
    /// SELinux: `enforcing`, `permissive`, or absent.
    pub selinux: Option<String>,
    /// What other engines left: path or link, and whose it is.
    pub leftovers: Vec<(String, &'static str)>,
}

const SYSCTLS: [&str; 14] = [
    "user/max_user_namespaces",
    "user/max_mnt_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/pid_max",
    "kernel/threads-max",
    "kernel/keys/maxkeys",
    "kernel/keys/maxbytes",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "fs/file-max",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
];

/// Looks at this host.
pub(super) fn gather(engine: &Engine, rootless: bool) -> DoctorFacts {
    let host = engine.facts().clone();
    let rootless = rootless || !host.rootful();
    let mounts = text("/proc/self/mountinfo");
    let paths = engine.paths();
    let (user, uid) = user(host.euid);
    DoctorFacts {
        namespaces: dir_names("/proc/self/ns"),
        sysctls: SYSCTLS.iter().filter_map(|name| Some((*name, sysctl(name)?))).collect(),
        seccomp_actions: text("/proc/sys/kernel/seccomp/actions_avail"),
        proc_options: mount_of(&mounts, Path::new("/proc")).map_or_else(String::new, |m| m.1),
        store: disk(&paths.root, &mounts),
        runroot_type: mount_of(&mounts, &existing(&paths.runroot)).map_or_else(String::new, |m| m.0),
        driver: engine.driver_kind().map(|d| d.name().to_owned()).map_err(|e| crate::error_chain(&e)),
        runtime: process::runtime_program().map(|p| p.display().to_string()).map_err(|e| crate::error_chain(&e)),
        nofile_soft: rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX),
        subuid: ranges(&text("/etc/subuid"), &user, uid),
        subgid: ranges(&text("/etc/subgid"), &user, uid),
        helpers: ["newuidmap", "newgidmap", "apparmor_parser"].iter().filter_map(|n| helper(n)).collect(),
        delegated: delegated(&host.cgroup),
        systemd: Path::new("/run/systemd/system").is_dir(),
        network: network(engine),
        nameservers: nameservers(&host.resolv_conf),
        selinux: selinux(),
        leftovers: leftovers(),
        user,
        rootless,
        host,
    }
}

/// A file's text; empty when it cannot be read.
fn text(path: &str) -> String {
    let bytes = fs::File::open(path).map(|f| crate::launch::read_bounded_to(f, MAX_TEXT));
    bytes.ok().and_then(Result::ok).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}

fn sysctl(name: &str) -> Option<String> {
    Some(text(&format!("/proc/sys/{name}")).trim().to_owned()).filter(|t| !t.is_empty())
}

fn dir_names(path: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// The nearest ancestor that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// Type and options of the mount that a path is on.
fn mount_of(mountinfo: &str, path: &Path) -> Option<(String, String)> {
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let mut right = right.split(' ');
        let (fstype, options) = (right.next()?, right.nth(1).unwrap_or_default());
        Some((left.get(4)?.to_string(), fstype.to_owned(), format!("{},{options}", left.get(5)?)))
    };
    let found = mountinfo.lines().filter_map(line).filter(|(point, ..)| path.starts_with(point));
    // Of several mounts at one place the last one is seen.
    found
        .enumerate()
        .max_by_key(|(n, (point, ..))| (point.len(), *n))
        .map(|(_, (_, fstype, options))| (fstype, options))
}

fn disk(root: &Path, mounts: &str) -> DiskFacts {
    let at = existing(root);
    let (fstype, options) = mount_of(mounts, &at).unwrap_or_default();
    let mut facts = DiskFacts { path: root.display().to_string(), fstype, options, ..DiskFacts::default() };
    if let Ok(stat) = rustix::fs::statvfs(&at) {
        facts.total = stat.f_blocks.saturating_mul(stat.f_frsize);
        facts.free = stat.f_bavail.saturating_mul(stat.f_frsize);
        (facts.inodes, facts.inodes_free) = (stat.f_files, stat.f_favail);
    }
    facts
}

/// Name and number of the caller.
fn user(uid: u32) -> (String, u32) {
    let passwd = text("/etc/passwd");
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number == uid.to_string()).then(|| name.to_owned())
    });
    (name.unwrap_or_else(|| uid.to_string()), uid)
}

/// Lines are `name:first:count`, or with a number for the name (subuid(5)).
fn ranges(text: &str, user: &str, uid: u32) -> Vec<IdRange> {
    let number = uid.to_string();
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        let range = IdRange { first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? };
        (whose == user || whose == number).then_some(range)
    };
    text.lines().filter_map(line).collect()
}

/// Set-uid, or with file capabilities.
fn helper(name: &'static str) -> Option<(&'static str, bool)> {
    let path = TRUSTED.iter().map(|dir| Path::new(dir).join(name)).find(|p| p.is_file())?;
    let set_uid = fs::metadata(&path).is_ok_and(|m| m.permissions().mode() & 0o4000 != 0 && m.uid() == 0);
    let mut buffer = [0; 64];
    let capable = rustix::fs::getxattr(&path, "security.capability", &mut buffer[..]).is_ok();
    Some((name, set_uid || capable))
}

fn delegated(layout: &CgroupLayout) -> Option<Vec<String>> {
    let CgroupLayout::V2 { mount, own, .. } = layout else { return None };
    let dir = Path::new(mount).join(own.trim_start_matches('/'));
    rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK).ok()?;
    Some(text(&dir.join("cgroup.controllers").display().to_string()).split_whitespace().map(str::to_owned).collect())
}

fn network(engine: &Engine) -> Result<NetFacts, String> {
    if !engine.rootful() {
        return Err("only root can ask".to_owned());
    }
    let id = names::random_id().map_err(|e| crate::error_chain(&e))?;
    let request = BridgeRequest { id, name: None, hostname: None, ports: Vec::new(), sysctls: Default::default() };
    onggi_network::facts(&engine.paths().runroot, &request).map_err(|e| e.to_string())
}

fn nameservers(resolv_conf: &str) -> Vec<String> {
    let server = |line: &str| line.trim().strip_prefix("nameserver")?.split_whitespace().next().map(str::to_owned);
    resolv_conf.lines().filter_map(server).collect()
}

fn selinux() -> Option<String> {
    match text("/sys/fs/selinux/enforce").trim() {
        "1" => Some("enforcing".to_owned()),
        "0" => Some("permissive".to_owned()),
        _ => None,
    }
}

fn leftovers() -> Vec<(String, &'static str)> {
    let known = [
        ("/sys/class/net/docker0", "Docker"),
        ("/sys/class/net/podman0", "Podman"),
        ("/sys/class/net/cni-podman0", "Podman"),
        ("/sys/class/net/cni0", "a CNI plugin"),
        ("/sys/class/net/lxcbr0", "LXC"),
        ("/var/lib/docker/overlay2", "Docker"),
        ("/var/lib/containers/storage", "Podman"),
        ("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs", "containerd"),
    ];
    known
        .iter()
        .filter(|(path, _)| Path::new(path).exists())
        .map(|(path, whose)| ((*path).to_owned(), *whose))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_at_the_deepest_place_is_the_one_that_is_seen() {
        let text =
            "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /var rw,noexec - xfs b rw,attr2\n3 1 0:3 / /var rw - tmpfs t rw\n";
        assert_eq!(mount_of(text, Path::new("/var/lib")).expect("found").0, "tmpfs");
        assert_eq!(mount_of(text, Path::new("/variety")).expect("found").0, "ext4");
    }

    #[test]
    fn ranges_belong_to_a_name_or_a_number() {
        let text = "a:100000:65536\n7:200000:10\nb:1:1\n# x\na:bad:1\n";
        let found = ranges(text, "a", 7);
        assert_eq!(found, [IdRange { first: 100_000, count: 65_536 }, IdRange { first: 200_000, count: 10 }]);
    }
}

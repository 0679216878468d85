//! Gathers [`HostFacts`]: the only place where the engine looks at the host before planning.
//!
//! Files are read by two-line readers; everything that interprets text is a pure function beside its test.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use onggi_spec::facts::{CgroupLayout, HostFacts, Submount, V1Hierarchy};

use crate::Paths;

/// Longest resolv.conf that is passed on; glibc itself reads only a few lines.
const MAX_RESOLV_CONF: u64 = 64 * 1024;
/// Longest procfs text that is read; a host with thousands of mounts has about 1 MiB.
const MAX_PROC_TEXT: u64 = 16 * 1024 * 1024;
/// Filesystems that hold a user's data on a disk or on a network.
const REAL_FILESYSTEMS: &[&str] = &[
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "vfat", "exfat", "ntfs3", "iso9660", "squashfs",
    "erofs", "nfs", "nfs4", "cifs", "9p", "virtiofs",
];

/// Looks at this machine.
pub fn gather(paths: &Paths) -> HostFacts {
    let mountinfo = read("/proc/self/mountinfo", MAX_PROC_TEXT);
    let mounts = parse_mountinfo(&mountinfo);
    let uname = rustix::system::uname();
    HostFacts {
        euid: rustix::process::geteuid().as_raw(),
        egid: rustix::process::getegid().as_raw(),
        effective_caps: parse_caps(&read("/proc/self/status", MAX_PROC_TEXT)),
        hostname: uname.nodename().to_string_lossy().into_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        architecture: oci_architecture(&uname.machine().to_string_lossy()).to_owned(),
        cgroup: cgroup_layout(&mounts, &read("/proc/self/cgroup", MAX_PROC_TEXT), |p| read(p, MAX_PROC_TEXT)),
        overlay: has_overlay(&read("/proc/filesystems", MAX_PROC_TEXT), || {
            Path::new("/lib/modules").join(&*uname.release().to_string_lossy()).join("kernel/fs/overlayfs").is_dir()
        }),
        user_namespaces: user_namespaces_allowed(),
        nofile_hard: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX),
        submounts: real_submounts(&mounts, &[&paths.root, &paths.runroot]),
        mount_points: mounts.iter().map(|m| m.path.clone()).filter(|p| p != "/").collect(),
        resolv_conf: resolv_conf(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
        apparmor: read("/sys/module/apparmor/parameters/enabled", 16).starts_with('Y'),
        seccomp: Path::new("/proc/sys/kernel/seccomp").exists(),
    }
}

/// Overlay is there, or is a module, which the kernel loads by itself at the first mount (request_module in
/// get_fs_type): on a freshly booted distribution nobody has used it yet.
fn has_overlay(filesystems: &str, is_module: impl Fn() -> bool) -> bool {
    filesystems.lines().any(|line| line.trim() == "nodev\toverlay") || is_module()
}

/// Sandboxed kernels and distributions have two switches for this (user_namespaces(7), Debian's patch).
fn user_namespaces_allowed() -> bool {
    read("/proc/sys/user/max_user_namespaces", 64).trim() != "0"
        && read("/proc/sys/kernel/unprivileged_userns_clone", 64).trim() != "0"
}

/// systemd-resolved's stub listens on the host's loopback only; its upstream list is beside it.
fn resolv_conf() -> String {
    let text = read("/etc/resolv.conf", MAX_RESOLV_CONF);
    if text.lines().any(|l| l.trim_start().starts_with("nameserver") && l.contains("127.0.0.53")) {
        let upstream = read("/run/systemd/resolve/resolv.conf", MAX_RESOLV_CONF);
        if !upstream.is_empty() {
            return upstream;
        }
    }
    text
}

/// The file's text, or nothing: an absent or unreadable fact is an absent feature.
fn read(path: &str, limit: u64) -> String {
    let mut text = Vec::new();
    match fs::File::open(path).and_then(|f| f.take(limit).read_to_end(&mut text)) {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}

/// The mounts of our mount namespace, the topmost of a place last.
pub(crate) fn mounts() -> Vec<MountLine> {
    parse_mountinfo(&read("/proc/self/mountinfo", MAX_PROC_TEXT))
}

/// One line of mountinfo, as far as it matters here (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountLine {
    pub(crate) root: String,
    pub(crate) path: String,
    pub(crate) source: String,
    fstype: String,
    read_only: bool,
    super_options: String,
}

pub(crate) fn parse_mountinfo(text: &str) -> Vec<MountLine> {
    text.lines().filter_map(parse_mountinfo_line).collect()
}

fn parse_mountinfo_line(line: &str) -> Option<MountLine> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, path, options) = (left.next()?, left.next()?, left.next()?);
    let mut right = right.split(' ');
    let (fstype, source, super_options) = (right.next()?, right.next()?, right.next().unwrap_or(""));
    Some(MountLine {
        root: unescape(root),
        path: unescape(path),
        source: unescape(source),
        fstype: fstype.to_owned(),
        read_only: options.split(',').any(|o| o == "ro"),
        super_options: super_options.to_owned(),
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal =
            bytes.get(i + 1..i + 4).filter(|d| bytes[i] == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(d) => {
                out.push(d.iter().fold(0u8, |n, b| n.wrapping_mul(8).wrapping_add(b - b'0')));
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn parse_caps(status: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// `uname -m` in the words of OCI image indexes (GOARCH).
fn oci_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm",
        "i686" | "i586" => "386",
        other => other,
    }
}

fn cgroup_layout(mounts: &[MountLine], own: &str, read: impl Fn(&str) -> String) -> CgroupLayout {
    let own = parse_own_cgroups(own);
    let own_of = |key: &str| own.iter().find(|(c, _)| c == key).map_or_else(|| "/".to_owned(), |(_, p)| p.clone());
    let mut hierarchies: Vec<V1Hierarchy> = Vec::new();
    for m in mounts.iter().filter(|m| m.fstype == "cgroup") {
        let Some(key) = own.iter().map(|(c, _)| c).find(|c| is_hierarchy(c, &m.super_options)) else { continue };
        if !hierarchies.iter().any(|h| h.mount == m.path) {
            let controllers = key.split(',').map(str::to_owned).collect();
            hierarchies.push(V1Hierarchy { controllers, mount: m.path.clone(), own: own_of(key) });
        }
    }
    let unified = mounts.iter().find(|m| m.fstype == "cgroup2").map(|m| m.path.clone());
    match (hierarchies.is_empty(), unified) {
        (false, unified) => CgroupLayout::V1 { hierarchies, unified },
        (true, Some(mount)) => {
            let controllers =
                read(&format!("{mount}/cgroup.controllers")).split_whitespace().map(str::to_owned).collect();
            CgroupLayout::V2 { mount, controllers, own: own_of("") }
        }
        (true, None) => CgroupLayout::None,
    }
}

/// A v1 mount is recognised by its super options naming every controller of the line in /proc/self/cgroup.
fn is_hierarchy(key: &str, super_options: &str) -> bool {
    !key.is_empty() && key.split(',').all(|c| super_options.split(',').any(|o| o == c))
}

/// `(controllers, path)` of each line of /proc/self/cgroup; the controllers of v2 are empty.
fn parse_own_cgroups(text: &str) -> Vec<(String, String)> {
    let line = |l: &str| {
        let mut parts = l.splitn(3, ':').skip(1);
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// Real filesystems mounted below `/` that are visible (not mounted over) and not the engine's own. One below a
/// filesystem that is not real, such as a disk at `/run/media/DISK`, is left out with it: its mount point is not there.
fn real_submounts(mounts: &[MountLine], own: &[&PathBuf]) -> Vec<Submount> {
    let mut found: Vec<Submount> = Vec::new();
    for (i, m) in mounts.iter().enumerate() {
        let path = Path::new(&m.path);
        let covered = mounts[i + 1..].iter().any(|later| path.starts_with(&later.path));
        let ours = own.iter().any(|o| path.starts_with(o));
        if m.path != "/" && !covered && !ours && REAL_FILESYSTEMS.contains(&m.fstype.as_str()) {
            found.push(Submount { path: m.path.clone(), fstype: m.fstype.clone(), read_only: m.read_only });
        }
    }
    found.sort_by_key(|s| Path::new(&s.path).components().count());
    let mut reached: Vec<Submount> = Vec::new();
    for submount in found {
        let around = mounts.iter().map(|m| m.path.as_str()).filter(|path| is_below(&submount.path, path));
        let parent = around.max_by_key(|path| path.len()).unwrap_or("/");
        if parent == "/" || reached.iter().any(|above| above.path == parent) {
            reached.push(submount);
        }
    }
    reached
}

fn is_below(path: &str, above: &str) -> bool {
    path != above && Path::new(path).starts_with(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_hybrid_layout_is_v1_with_a_unified_mount() {
        let own = "2:cpu,cpuacct:/user\n1:name=systemd:/a:b\n0::/x\n";
        let layout = cgroup_layout(&parse_mountinfo(HYBRID), own, |_| String::new());
        let h = |c: &[&str], m: &str, o: &str| V1Hierarchy {
            controllers: c.iter().map(|s| (*s).to_owned()).collect(),
            mount: m.into(),
            own: o.into(),
        };
        assert_eq!(
            layout,
            CgroupLayout::V1 {
                hierarchies: vec![
                    h(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct", "/user"),
                    h(&["name=systemd"], "/sys/fs/cgroup/systemd", "/a:b")
                ],
                unified: Some("/sys/fs/cgroup/unified".into())
            }
        );
    }

    #[test]
    fn a_pure_v2_layout_lists_its_controllers() {
        let mounts = parse_mountinfo("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let layout = cgroup_layout(&mounts, "0::/user.slice\n", |_| "cpu memory pids\n".into());
        let controllers = vec!["cpu".into(), "memory".into(), "pids".into()];
        assert_eq!(layout, CgroupLayout::V2 { mount: "/sys/fs/cgroup".into(), controllers, own: "/user.slice".into() });
    }

    #[test]
    fn submounts_are_real_visible_and_not_our_own() {
        let text = "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /home rw - ext4 b rw\n3 1 0:3 / /run rw - tmpfs t rw\n\
            4 1 8:3 / /mnt/a\\040b ro - xfs c ro\n5 1 8:4 / /old rw - ext4 d rw\n6 1 0:9 / /old rw - tmpfs e rw\n\
            7 1 8:9 / /var/lib/onggi rw - xfs f rw\n8 2 8:9 / /home/x/y rw - btrfs f rw\n\
            9 3 8:10 / /run/media/disk rw - ext4 g rw\n";
        let own = PathBuf::from("/var/lib/onggi");
        let found = real_submounts(&parse_mountinfo(text), &[&own]);
        let paths: Vec<_> = found.iter().map(|s| (s.path.as_str(), s.read_only)).collect();
        assert_eq!(paths, [("/home", false), ("/mnt/a b", true), ("/home/x/y", false)]);
    }

    #[test]
    fn overlay_may_be_a_module_that_is_not_loaded_yet() {
        assert!(has_overlay("nodev\tsysfs\nnodev\toverlay\n", || false));
        assert!(!has_overlay("nodev\tsysfs\n\text4\n", || false));
        assert!(has_overlay("", || true));
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        assert_eq!(parse_caps("CapPrm:\tff\nCapEff:\t000001fffeffffff\n"), 0x1ff_feff_ffff);
    }
}

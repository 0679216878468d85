//! `mounts`, masked and read-only paths.
//!
//! Order: the API filesystems, then the engine's files of `/etc` among the user's volumes, shallow ones first so
//! that none hides a deeper one: a volume on `/etc` is below the engine's files, as with Docker.

use std::path::Path;

use super::{BuildError, SpecInput};
use crate::{
    ContainerRequest,
    facts::CgroupLayout,
    mount::{MountSpec, Propagation},
    oci::runtime::Mount,
    tmpfs::Tmpfs,
};

/// Bytes that /dev/shm may hold, as with Docker.
pub const SHM_SIZE: u64 = 64 << 20;

/// Read-only below /proc: the union of Docker's and Podman's lists.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Unreadable: the union of Docker's and Podman's lists, kernel addresses, page maps, tracing and bpf.
const MASKED_PATHS: [&str; 22] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/fs/selinux",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

pub(super) fn readonly_paths() -> Vec<String> {
    READONLY_PATHS.map(str::to_owned).to_vec()
}

/// The masked paths, with the thermal counters of each CPU (GHSA-6fw5-f8r9-fgfm).
pub(super) fn masked_paths(cpus: u32) -> Vec<String> {
    let thermal = (0..cpus).map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle"));
    MASKED_PATHS.iter().map(ToString::to_string).chain(thermal).collect()
}

/// Every mount, in order.
pub(super) fn mounts(input: &SpecInput<'_>) -> Result<Vec<Mount>, BuildError> {
    let volumes = asked(input)?;
    let own = |m: &Mount| !volumes.iter().any(|v| v.destination == m.destination);
    let mut list: Vec<Mount> = api_filesystems(input).into_iter().filter(own).collect();
    let mut others: Vec<Mount> = etc_files(input)?.into_iter().filter(own).collect();
    others.extend(volumes);
    others.sort_by_key(|m| depth(&m.destination));
    list.extend(others);
    Ok(list)
}

/// Of a normalised path.
fn depth(target: &str) -> usize {
    target.matches('/').count()
}

/// Propagation of the root mount: a volume cannot receive or send events through a private one.
pub(super) fn rootfs_propagation(request: &ContainerRequest) -> Option<String> {
    let has = |p| request.mounts.iter().any(|m| m.propagation == p);
    let wanted = if has(Propagation::Rshared) {
        Propagation::Rshared
    } else if has(Propagation::Rslave) {
        Propagation::Rslave
    } else {
        return None;
    };
    Some(wanted.option().to_owned())
}

fn mount(destination: &str, typ: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        typ: Some(typ.to_owned()),
        source: Some(source.to_owned()),
        options: options.iter().map(ToString::to_string).collect(),
        ..Mount::default()
    }
}

fn api_filesystems(input: &SpecInput<'_>) -> Vec<Mount> {
    // Group 5 (tty) is not mapped in a single-id user namespace.
    let pts: &[&str] = match input.rootless() {
        true => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        false => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    };
    let shm = match input.request.shm_size.unwrap_or(SHM_SIZE) {
        bytes if bytes.is_multiple_of(1024) => format!("size={}k", bytes >> 10),
        bytes => format!("size={bytes}"),
    };
    let mut list = vec![
        proc(input),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", pts),
    ];
    match input.request.shared.ipc {
        true => list.push(mount("/dev/shm", "bind", "/dev/shm", &OF_HOST)),
        false => list.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm])),
    }
    list.extend(devices(input));
    list.extend(mqueue(input));
    list.push(sysfs(input));
    list.extend(cgroupfs(input));
    list
}

/// Without root no node can be made, and the runtime binds a device of the same path: under another one it is bound here.
fn devices(input: &SpecInput<'_>) -> Vec<Mount> {
    let elsewhere = input.devices.iter().filter(|device| input.rootless() && device.source != device.node.path);
    let options = ["bind", "rprivate", "nosuid", "noexec"];
    elsewhere.map(|device| mount(&device.node.path, "bind", &device.source, &options)).collect()
}

/// How the host's own filesystems are shown.
const OF_HOST: [&str; 5] = ["rbind", "rprivate", "nosuid", "noexec", "nodev"];

/// Message queues are those of the mounter's IPC namespace. The host's can be mounted by the host's root alone; others see
/// them where the host has mounted them.
fn mqueue(input: &SpecInput<'_>) -> Option<Mount> {
    const PATH: &str = "/dev/mqueue";
    match input.request.shared.ipc && input.in_user_namespace() {
        true => {
            let there = input.facts.mount_points.iter().any(|point| point == PATH);
            there.then(|| mount(PATH, "bind", PATH, &OF_HOST))
        }
        false => Some(mount(PATH, "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])),
    }
}

/// A proc filesystem belongs to a PID namespace, and that to a user namespace: over the host's processes only the host's
/// root can mount one, so that others see the one that is there.
fn proc(input: &SpecInput<'_>) -> Mount {
    match input.request.shared.pid && input.in_user_namespace() {
        true => mount("/proc", "bind", "/proc", &OF_HOST),
        false => mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    }
}

/// sysfs shows the network devices of the namespace that mounts it. Without root it can be mounted only for
/// a network namespace of one's own; otherwise the host's is shown, read-only in depth (CVE-2023-25809).
fn sysfs(input: &SpecInput<'_>) -> Mount {
    match input.in_user_namespace() && !input.own_network() {
        true => mount("/sys", "bind", "/sys", &["rbind", "rprivate", "nosuid", "noexec", "nodev", "ro", "rro"]),
        false if input.request.privileged => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "rw"]),
        false => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    }
}

/// The container's own cgroup, read-only (I15) unless privileged. An ordinary user may mount cgroup2 but not the v1
/// hierarchies.
fn cgroupfs(input: &SpecInput<'_>) -> Option<Mount> {
    let possible = match &input.facts.cgroup {
        CgroupLayout::V2 { .. } => true,
        CgroupLayout::V1 { .. } => !input.rootless(),
        CgroupLayout::None => false,
    };
    let access = if input.request.privileged { "rw" } else { "ro" };
    possible.then(|| mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]))
}

/// The engine's own files, as writable as the root that they are in. `nosymfollow`: nothing below them is a path that an
/// image chose.
fn etc_files(input: &SpecInput<'_>) -> Result<Vec<Mount>, BuildError> {
    let files = &input.files;
    let pairs =
        [("/etc/hosts", &files.hosts), ("/etc/hostname", &files.hostname), ("/etc/resolv.conf", &files.resolv_conf)];
    let mut options = vec!["bind", "rprivate", "nosuid", "nodev", "noexec", "nosymfollow"];
    options.extend(input.request.read_only.then_some("ro"));
    options.extend(input.id_block.map(|_| "idmap"));
    pairs.into_iter().map(|(target, source)| Ok(mount(target, "bind", utf8(source)?, &options))).collect()
}

fn utf8(path: &Path) -> Result<&str, BuildError> {
    path.to_str().ok_or_else(|| BuildError::NotUtf8 { path: path.display().to_string() })
}

/// Volumes and temporary filesystems.
fn asked(input: &SpecInput<'_>) -> Result<Vec<Mount>, BuildError> {
    let volumes = input.request.mounts.iter().map(|m| volume(m, input));
    let mut sorted: Vec<Mount> = volumes.chain(input.request.tmpfs.iter().map(tmpfs)).collect();
    sorted.sort_by_key(|m| depth(&m.destination));
    for (i, m) in sorted.iter().enumerate() {
        let target = m.destination.clone();
        if sorted[..i].iter().any(|other| other.destination == target) {
            return Err(BuildError::DuplicateTarget { target });
        }
        if matches!(target.as_str(), "/" | "/dev" | "/proc") || target.starts_with("/proc/") {
            return Err(BuildError::ForbiddenTarget { target });
        }
    }
    Ok(sorted)
}

fn tmpfs(t: &Tmpfs) -> Mount {
    let options = t.mount_options();
    mount(&t.target, "tmpfs", "tmpfs", &options.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Recursive options: a directory of the host may hold mounts of its own.
/// Files keep their owners: id-mapped, the container's uid 1000 is uid 1000 on disk.
fn volume(m: &MountSpec, input: &SpecInput<'_>) -> Mount {
    let mut options = vec![if m.non_recursive { "bind" } else { "rbind" }, m.propagation.option()];
    options.extend(permits(m, input.device_sources.contains(&m.source)));
    options.extend(if m.read_only { ["ro", "rro"].as_slice() } else { &["rw"] });
    options.extend(input.id_block.map(|_| "ridmap"));
    mount(&m.target, "bind", &m.source, &options)
}

/// A directory may hold a device node or a set-user-ID program that somebody else has put there: they are without
/// effect unless asked for. Who names a device file means that device; the control group still decides.
fn permits(m: &MountSpec, is_device: bool) -> Vec<&'static str> {
    let suid: &[_] = if m.permits.suid == Some(true) { &["suid"] } else { &["nosuid", "rnosuid"] };
    let dev: &[_] = match m.permits.dev {
        Some(true) => &["dev"],
        None if is_device => &[],
        Some(false) | None => &["nodev", "rnodev"],
    };
    let exec: &[_] = match m.permits.exec {
        Some(true) => &["exec"],
        Some(false) => &["noexec", "rnoexec"],
        None => &[],
    };
    [suid, dev, exec].concat()
}

//! `mounts` of the configuration, in order. config.md "Mounts", config-linux.md "Default Filesystems".

use std::path::{Component, Path, PathBuf};

use onggi_cgroup::CgroupPlan;
use onggi_spec::oci::runtime::{LinuxNamespaceType, Mount};
use onggi_sys::mount::attr;

use super::{
    BindLinks, BindMount, FsMount, IdMap, IdMapDepth, IdMapSource, MountOptions, SetupOp, TargetKind, build::Context,
    build::absolute, cgroups, options::host_peers,
};
use crate::error::{Result, StartFailureError};

/// Files of /proc that container engines may cover (lxcfs and friends); anything else there is refused,
/// because programs trust procfs (CVE-2019-16884).
const PROC_ALLOWED: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Filesystems of the kernel's own making: read-only is a matter of the mount, never of the (often shared)
/// filesystem.
const VIRTUAL: [&str; 14] = [
    "proc",
    "sysfs",
    "tmpfs",
    "ramfs",
    "devtmpfs",
    "devpts",
    "mqueue",
    "cgroup",
    "cgroup2",
    "bpf",
    "debugfs",
    "tracefs",
    "securityfs",
    "hugetlbfs",
];

/// Filesystems that SELinux does not label by a mount option.
const UNLABELLED: [&str; 5] = ["proc", "sysfs", "mqueue", "cgroup", "cgroup2"];

/// The operations for every mount, and those that have to wait until everything is in place.
#[derive(Debug, Default)]
pub(super) struct Planned {
    pub(super) now: Vec<SetupOp>,
    pub(super) late: Vec<SetupOp>,
}

/// Every mount of the configuration.
pub(super) fn plan_mounts(cx: &Context<'_>, cgroup: Option<&CgroupPlan>) -> Result<Planned> {
    let mut planned = Planned::default();
    for mount in &cx.input.config.mounts {
        let options = MountOptions::parse(&mount.options);
        let target = target(cx, mount, &options)?;
        match mount.typ.as_deref().unwrap_or("") {
            typ if options.bind.is_some() || typ == "bind" => {
                planned.now.push(SetupOp::Bind(bind(cx, mount, target, &options)?));
            }
            "" => return Err(invalid(mount, "it has neither a type nor the option bind")),
            typ @ ("cgroup" | "cgroup2") if !cgroups::is_plain(cx, typ) => {
                refuse_mappings(mount, &options)?;
                planned.now.extend(cgroups::plan_mount(cx, &options, target, cgroup));
            }
            typ => {
                let mut fs = filesystem(cx, mount, typ, target, &options)?;
                if let Some(later) = delay_read_only(&mut fs) {
                    planned.late.push(later);
                }
                planned.now.push(SetupOp::Mount(fs));
            }
        }
    }
    Ok(planned)
}

/// True for a file of /proc that container engines may cover.
pub(crate) fn may_cover_in_proc(destination: &Path) -> bool {
    PROC_ALLOWED.iter().any(|p| Path::new(p) == destination)
}

fn invalid(mount: &Mount, why: &str) -> StartFailureError {
    StartFailureError::new(format!("invalid mount {:?}: {why}", mount.destination))
}

/// The destination, absolute, normalised, with the rules for /proc.
fn target(cx: &Context<'_>, mount: &Mount, options: &MountOptions) -> Result<PathBuf> {
    // Old bundles have relative destinations; the specification wants them taken from the root.
    let path = Path::new("/").join(&mount.destination);
    let mut clean = PathBuf::from("/");
    for c in path.components() {
        match c {
            Component::Normal(n) => clean.push(n),
            // By its letters, as runc and crun take it: what is there is opened inside the root all the same.
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    // As runc: a destination may be spelt as the host sees it.
    if let Some(Ok(inside)) = cx.root_path().map(|root| clean.strip_prefix(root).map(Path::to_path_buf)) {
        clean = Path::new("/").join(inside);
    }
    let is_bind = options.bind.is_some() || mount.typ.as_deref() == Some("bind");
    let below_proc = clean.starts_with("/proc") && clean != Path::new("/proc");
    if below_proc && !(is_bind && may_cover_in_proc(&clean)) {
        return Err(invalid(mount, "it cannot be mounted because it is inside /proc"));
    }
    if clean == Path::new("/proc") && !is_bind && mount.typ.as_deref() != Some("proc") {
        return Err(invalid(mount, "it cannot be mounted because it is not of type proc"));
    }
    Ok(clean)
}

fn bind(cx: &Context<'_>, mount: &Mount, target: PathBuf, options: &MountOptions) -> Result<BindMount> {
    let source = mount.source.as_deref().filter(|s| !s.is_empty()).ok_or_else(|| invalid(mount, "no source"))?;
    let (source, in_root) = place_of(absolute(cx.input.bundle, source), cx.root_path());
    Ok(BindMount {
        id_map: id_map(cx, mount, options)?,
        must_be_proc: target == Path::new("/proc"),
        target,
        recursive: options.bind == Some(true),
        attributes: options.of_bind(),
        refused: (options.clear, options.atime.1),
        atime: options.atime.0,
        recursive_attributes: (options.recursive_set, options.recursive_clear),
        propagation: options.propagation,
        peers: host_peers(cx.linux),
        in_root,
        links: BindLinks {
            copy: options.copy_symlink,
            keep_source: options.source_no_follow,
            keep_target: options.target_no_follow,
        },
        locked: cx.namespaces.has(LinuxNamespaceType::User) || !cx.facts.privileged,
        source,
    })
}

/// A source, and where in the root filesystem it is when it is there. What leads out of it again, as `rootfs/../file`
/// does, is the host's, and no link of the image has a say in it.
fn place_of(source: PathBuf, root: Option<&Path>) -> (PathBuf, Option<PathBuf>) {
    let Some((root, inside)) = root.and_then(|root| Some((root, source.strip_prefix(root).ok()?))) else {
        return (source, None);
    };
    let mut depth = 0usize;
    let mut components = inside.components();
    while let Some(component) = components.next() {
        depth = match component {
            Component::Normal(_) => depth + 1,
            Component::ParentDir if depth > 0 => depth - 1,
            Component::ParentDir => {
                let above = root.parent().unwrap_or(root).join(components.as_path());
                return place_of(above, Some(root));
            }
            _ => depth,
        };
    }
    let inside = inside.to_path_buf();
    (source, Some(inside))
}

/// Mappings of the mount itself, else with `idmap` those of the container's user namespace.
fn id_map(cx: &Context<'_>, mount: &Mount, options: &MountOptions) -> Result<Option<IdMap>> {
    let (uid, gid) = (&mount.uid_mappings, &mount.gid_mappings);
    let recursive = options.id_map == Some(IdMapDepth::All);
    let source = match (uid.is_empty(), gid.is_empty()) {
        (true, true) if options.id_map.is_none() => return Ok(None),
        (true, true) => cx.namespaces.id_map_source(),
        (false, false) => Some(IdMapSource::Maps(uid.clone(), gid.clone())),
        _ => None,
    };
    let source = source.ok_or_else(|| invalid(mount, "id-mapped mounts must have both uid and gid mappings"))?;
    if !cx.facts.privileged {
        return Err(invalid(mount, "id-mapped mounts are not supported for rootless containers"));
    }
    Ok(Some(IdMap { source, recursive }))
}

fn refuse_mappings(mount: &Mount, options: &MountOptions) -> Result<()> {
    let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() || options.id_map.is_some();
    if mapped { Err(invalid(mount, "id-mapped mounts are only supported for bind-mounts")) } else { Ok(()) }
}

fn filesystem(cx: &Context<'_>, mount: &Mount, typ: &str, target: PathBuf, options: &MountOptions) -> Result<FsMount> {
    refuse_mappings(mount, options)?;
    if options.copy_up && typ != "tmpfs" {
        return Err(invalid(mount, "tmpcopyup is for tmpfs only"));
    }
    let real = matches!(typ, "proc" | "sysfs");
    // devpts has always been a new instance since Linux 4.7.
    let data = options.data.iter().filter(|(k, _)| !(typ == "devpts" && k == "newinstance"));
    let mut data: Vec<_> = data.cloned().collect();
    let attributes = options.of_filesystem();
    if attributes & attr::RDONLY != 0 && !VIRTUAL.contains(&typ) {
        data.push(("ro".into(), None));
    }
    if !UNLABELLED.contains(&typ) {
        data.extend(cx.mount_label().map(|label| ("context".to_owned(), Some(label))));
    }
    Ok(FsMount {
        fstype: typ.to_owned(),
        source: mount.source.clone().unwrap_or_else(|| typ.to_owned()),
        target_kind: if real { TargetKind::RealDirectory } else { TargetKind::Directory },
        target,
        data,
        attributes,
        propagation: options.propagation,
        copy_up: options.copy_up,
    })
}

/// What is mounted below a read-only tmpfs, and the nodes of /dev, must be made first.
fn delay_read_only(fs: &mut FsMount) -> Option<SetupOp> {
    let waits = fs.fstype == "tmpfs" || fs.target == Path::new("/dev");
    if !waits || fs.attributes & attr::RDONLY == 0 {
        return None;
    }
    fs.attributes &= !attr::RDONLY;
    Some(SetupOp::Attributes { target: fs.target.clone(), set: attr::RDONLY })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_in_the_root_unless_it_leads_out_again() {
        let place = |source: &str| {
            let (source, inside) = place_of(source.into(), Some(Path::new("/b/rootfs")));
            (source.display().to_string(), inside.map(|at| at.display().to_string()))
        };
        let host = |at: &str| (at.to_owned(), None);
        assert_eq!(place("/b/data"), host("/b/data"));
        assert_eq!(place("/b/rootfs2/x"), host("/b/rootfs2/x"));
        assert_eq!(place("/b/rootfs/etc"), ("/b/rootfs/etc".to_owned(), Some("etc".to_owned())));
        assert_eq!(place("/b/rootfs/bin/../etc").1, Some("bin/../etc".to_owned()));
        assert_eq!(place("/b/rootfs/../data"), host("/b/data"));
        assert_eq!(place("/b/rootfs/bin/../../data/./x"), host("/b/data/./x"));
        assert_eq!(place("/b/rootfs/../../x"), host("/b/../x"));
        assert_eq!(place("/b/rootfs/../rootfs/etc"), ("/b/rootfs/etc".to_owned(), Some("etc".to_owned())));
    }
}

//! `mounts` of the configuration, in order. config.md "Mounts", config-linux.md "Default Filesystems".

use std::path::{Component, Path, PathBuf};

use onggi_cgroup::CgroupPlan;
use onggi_spec::oci::runtime::Mount;

use super::{BindMount, FsMount, MountOptions, SetupOp, TargetKind, build::Context, build::absolute, cgroups};
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

/// Every mount of the configuration.
pub(super) fn plan_mounts(cx: &Context<'_>, cgroup: Option<&CgroupPlan>) -> Result<Vec<SetupOp>> {
    let mut ops = Vec::new();
    for mount in &cx.input.config.mounts {
        let target = target(mount)?;
        let options = MountOptions::parse(&mount.options);
        if let Some(option) = &options.unsupported {
            return Err(StartFailureError::new(format!(
                "mount {}: option {option:?} is not supported by this runtime",
                mount.destination
            )));
        }
        match mount.typ.as_deref().unwrap_or("") {
            "cgroup" | "cgroup2" => ops.extend(cgroups::plan_mount(cx, mount, cgroup)),
            typ if options.bind.is_some() || typ == "bind" || typ.is_empty() => {
                ops.push(SetupOp::Bind(bind(cx, mount, target, options)?));
            }
            typ => ops.push(SetupOp::Mount(filesystem(mount, typ, target, options)?)),
        }
    }
    Ok(ops)
}

/// True for a file of /proc that container engines may cover.
pub(crate) fn may_cover_in_proc(destination: &Path) -> bool {
    PROC_ALLOWED.iter().any(|p| Path::new(p) == destination)
}

/// The destination, absolute, normalised, with the rules for /proc.
fn target(mount: &Mount) -> Result<PathBuf> {
    let fail = |why: &str| Err(StartFailureError::new(format!("mount {:?}: {why}", mount.destination)));
    // Old bundles have relative destinations; the specification wants them taken from the root.
    let path = Path::new("/").join(&mount.destination);
    let mut clean = PathBuf::from("/");
    for c in path.components() {
        match c {
            Component::Normal(n) => clean.push(n),
            Component::ParentDir => return fail("the destination contains .."),
            _ => {}
        }
    }
    let below_proc = clean.starts_with("/proc") && clean != Path::new("/proc");
    let is_bind = MountOptions::parse(&mount.options).bind.is_some() || mount.typ.as_deref() == Some("bind");
    if below_proc && !(is_bind && may_cover_in_proc(&clean)) {
        return fail("nothing may be mounted there");
    }
    if clean == Path::new("/") {
        return fail("the destination is the root itself");
    }
    if clean == Path::new("/proc") && !is_bind && mount.typ.as_deref() != Some("proc") {
        return fail("only a procfs may be mounted there");
    }
    Ok(clean)
}

fn bind(cx: &Context<'_>, mount: &Mount, target: PathBuf, options: MountOptions) -> Result<BindMount> {
    let source = mount
        .source
        .as_deref()
        .filter(|s| !s.is_empty())
        .ok_or_else(|| StartFailureError::new(format!("bind mount on {} has no source", mount.destination)))?;
    let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if options.id_map && !mapped {
        return Err(StartFailureError::new(format!(
            "mount {}: idmap without uidMappings and gidMappings",
            mount.destination
        )));
    }
    Ok(BindMount {
        source: absolute(cx.input.bundle, source),
        must_be_proc: target == Path::new("/proc"),
        target,
        recursive: options.bind != Some(false),
        attributes: (options.set, options.clear),
        recursive_attributes: (options.recursive_set, options.recursive_clear),
        propagation: options.propagation,
        id_map: mapped.then(|| (mount.uid_mappings.clone(), mount.gid_mappings.clone())),
    })
}

fn filesystem(mount: &Mount, typ: &str, target: PathBuf, options: MountOptions) -> Result<FsMount> {
    if !mount.uid_mappings.is_empty() {
        return Err(StartFailureError::new(format!("mount {}: only bind mounts can be idmapped", mount.destination)));
    }
    if options.copy_up && typ != "tmpfs" {
        return Err(StartFailureError::new(format!("mount {}: tmpcopyup is for tmpfs only", mount.destination)));
    }
    let real = matches!(typ, "proc" | "sysfs");
    Ok(FsMount {
        fstype: typ.to_owned(),
        source: mount.source.clone().unwrap_or_else(|| typ.to_owned()),
        target_kind: if real { TargetKind::RealDirectory } else { TargetKind::Directory },
        target,
        // devpts has always been a new instance since Linux 4.7.
        data: options.data.into_iter().filter(|(k, _)| !(typ == "devpts" && k == "newinstance")).collect(),
        attributes: options.set | options.recursive_set,
        propagation: options.propagation,
        copy_up: options.copy_up,
    })
}

//! Control groups, the store, users and their ids, what other engines left.

use onggi_spec::{facts::CgroupLayout, quantity::human_size};

use super::{DoctorFacts, Finding, Level};

const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];
/// Below this a pull of an ordinary image fills the disk.
const LOW: u64 = 5 << 30;
/// Below this even the database is in danger.
const EMPTY: u64 = 256 << 20;
/// Ids that an image may use: 16 bits.
const IDS: u64 = 65_536;

pub(super) fn cgroups(f: &DoctorFacts) -> Vec<Finding> {
    let mut out = vec![layout(f), controllers(f)];
    if f.rootless {
        out.push(delegation(f));
    }
    let manager = if f.systemd { "systemd" } else { "none (groups are made directly)" };
    out.push(Finding::ok("cgroups", "manager", manager, "onggi-oci --systemd-cgroup asks it for a scope"));
    out
}

fn layout(f: &DoctorFacts) -> Finding {
    let text = match &f.host.cgroup {
        CgroupLayout::V2 { mount, .. } => format!("version 2 at {mount}"),
        CgroupLayout::V1 { unified: Some(_), .. } => "hybrid: version 1 with a unified tree beside it".to_owned(),
        CgroupLayout::V1 { unified: None, .. } => "version 1".to_owned(),
        CgroupLayout::None => "none is mounted".to_owned(),
    };
    let found = Finding::ok("cgroups", "layout", text, "limits and statistics of containers");
    match &f.host.cgroup {
        CgroupLayout::V2 { .. } => found,
        CgroupLayout::V1 { .. } => found.bad(
            if f.rootless { Level::Warn } else { Level::Ok },
            if f.rootless {
                "boot with systemd.unified_cgroup_hierarchy=1: version 1 cannot be delegated to users"
            } else {
                ""
            },
        ),
        CgroupLayout::None => found.bad(Level::Fail, "mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

fn controllers(f: &DoctorFacts) -> Finding {
    let there: Vec<&str> = match &f.host.cgroup {
        CgroupLayout::V2 { controllers, .. } => controllers.iter().map(String::as_str).collect(),
        CgroupLayout::V1 { hierarchies, .. } => {
            hierarchies.iter().flat_map(|h| &h.controllers).map(String::as_str).filter(|c| !c.contains('=')).collect()
        }
        CgroupLayout::None => Vec::new(),
    };
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|c| !there.contains(c)).collect();
    let text = match missing.is_empty() {
        true => there.join(" "),
        false => format!("{} (missing: {})", there.join(" "), missing.join(" ")),
    };
    let fix = match &f.host.cgroup {
        CgroupLayout::V2 { mount, .. } => {
            format!(
                "echo '{}' > {mount}/cgroup.subtree_control",
                missing.iter().map(|c| format!("+{c}")).collect::<Vec<_>>().join(" ")
            )
        }
        _ if missing.contains(&"memory") => "boot with cgroup_enable=memory swapaccount=1".to_owned(),
        _ => format!(
            "mkdir -p /sys/fs/cgroup/{0} && mount -t cgroup -o {0} {0} /sys/fs/cgroup/{0}",
            missing.first().unwrap_or(&"")
        ),
    };
    let found = Finding::ok("cgroups", "controllers", text, "each is one kind of limit: -m, --cpus, --pids-limit");
    found.when(!missing.is_empty(), Level::Warn, fix)
}

fn delegation(f: &DoctorFacts) -> Finding {
    let found = |text: String| Finding::ok("cgroups", "delegation", text, "limits of containers without root");
    let fix = "systemctl edit user@.service, with: [Service] Delegate=cpu cpuset io memory pids; then log in again";
    match &f.delegated {
        Some(list) if CONTROLLERS[..3].iter().all(|c| list.iter().any(|l| l == c)) => found(list.join(" ")),
        Some(list) => found(format!("only {}", list.join(" "))).bad(Level::Warn, fix),
        None => found("this user may not make groups".to_owned()).bad(Level::Warn, fix),
    }
}

pub(super) fn store(f: &DoctorFacts) -> Vec<Finding> {
    vec![runtime(f), driver(f), filesystem(f), space(f), inodes(f), runroot(f)]
}

fn runtime(f: &DoctorFacts) -> Finding {
    let why = "it makes the container and looks after it";
    match &f.runtime {
        Ok(path) => Finding::ok("store", "runtime", path, why),
        Err(e) => Finding::ok("store", "runtime", e, why).bad(Level::Fail, "cargo xtask install --prefix /usr/local"),
    }
}

fn driver(f: &DoctorFacts) -> Finding {
    let why = "how layers are kept";
    match &f.driver {
        Ok(name) => Finding::ok("store", "driver", name, why),
        Err(e) => Finding::ok("store", "driver", e, why).bad(Level::Fail, format!("ls -l {}", f.store.path)),
    }
}

fn filesystem(f: &DoctorFacts) -> Finding {
    let found = Finding::ok(
        "store",
        "filesystem",
        format!("{} ({})", f.store.fstype, f.store.path),
        "an overlay's upper directory needs extended attributes, file types in directories and renames",
    );
    let elsewhere = "onggi --root /DIR/ON/EXT4/OR/XFS …, or mount such a filesystem there";
    match f.store.fstype.as_str() {
        "ext4" | "xfs" | "btrfs" | "ext3" | "ext2" | "f2fs" | "bcachefs" | "zfs" => found.when(
            f.store.options.split(',').any(|o| o == "ro"),
            Level::Fail,
            format!("mount -o remount,rw {}", f.store.path),
        ),
        "tmpfs" | "ramfs" => found.bad(Level::Warn, format!("{elsewhere}: what is in memory is gone after a reboot")),
        "overlay" | "nfs" | "nfs4" | "cifs" | "vfat" | "exfat" | "ntfs3" | "fuse" | "9p" | "ecryptfs" => {
            found.bad(Level::Fail, format!("{elsewhere}; or onggi --storage-driver vfs"))
        }
        _ => found.bad(Level::Warn, elsewhere),
    }
}

fn space(f: &DoctorFacts) -> Finding {
    let text = format!("{} free of {}", human_size(f.store.free), human_size(f.store.total));
    let found = Finding::ok("store", "space", text, "images and the writable layers of containers");
    let fix = "onggi system df -v; onggi system prune -a";
    match f.store.free {
        free if free < EMPTY => found.bad(Level::Fail, fix),
        free if free < LOW => found.bad(Level::Warn, fix),
        _ => found,
    }
}

fn inodes(f: &DoctorFacts) -> Finding {
    let (all, free) = (f.store.inodes, f.store.inodes_free);
    let text = if all == 0 { "made as needed".to_owned() } else { format!("{free} free of {all}") };
    let found = Finding::ok("store", "inodes", text, "every file of every layer takes one");
    found.when(
        all > 0 && free < all / 20,
        Level::Warn,
        "onggi system prune -a; or make the filesystem with mkfs.ext4 -i 8192",
    )
}

fn runroot(f: &DoctorFacts) -> Finding {
    let found =
        Finding::ok("store", "run-root", &f.runroot_type, "what must not outlive a reboot: locks, pids, leases");
    let memory = matches!(f.runroot_type.as_str(), "tmpfs" | "ramfs");
    let fix = if f.rootless {
        "log in through systemd-logind, so that XDG_RUNTIME_DIR is set"
    } else {
        "a --runroot on a tmpfs, as /run/onggi; where /run is none, into /etc/fstab: tmpfs /run tmpfs mode=755,nosuid,nodev 0 0"
    };
    found.when(!memory, Level::Warn, fix)
}

pub(super) fn users(f: &DoctorFacts) -> Vec<Finding> {
    if !f.rootless {
        return Vec::new();
    }
    let mut out = Vec::new();
    for (name, file, ranges, flag) in
        [("subuid", "/etc/subuid", &f.subuid, "--add-subuids"), ("subgid", "/etc/subgid", &f.subgid, "--add-subgids")]
    {
        let sum: u64 = ranges.iter().map(|r| r.count).sum();
        let text = if ranges.is_empty() { format!("{} has no line in {file}", f.user) } else { format!("{sum} ids") };
        let found =
            Finding::ok("users", name, text, "more than one user in a container without root (bundles of onggi-oci)");
        out.push(found.when(sum < IDS, Level::Warn, format!("usermod {flag} 100000-165535 {}", f.user)));
    }
    for name in ["newuidmap", "newgidmap"] {
        let found =
            |text: &str| Finding::ok("users", name, text, "writes maps of more than one id for an ordinary user");
        out.push(match f.helpers.get(name) {
            Some(true) => found("there, privileged"),
            Some(false) => found("there, without its privilege").bad(Level::Warn, format!("chmod u+s /usr/bin/{name}")),
            None => found("not there").bad(Level::Warn, "apt install uidmap"),
        });
    }
    out
}

pub(super) fn others(f: &DoctorFacts) -> Vec<Finding> {
    let text =
        |whose: &str| f.leftovers.iter().filter(|(_, w)| *w == whose).map(|(p, _)| p.as_str()).collect::<Vec<_>>();
    let mut engines: Vec<&'static str> = f.leftovers.iter().map(|(_, whose)| *whose).collect();
    engines.dedup();
    engines.sort_unstable();
    engines.dedup();
    let why =
        "other engines work beside this one; what they left takes space, and Docker's firewall drops forwarded packets";
    if engines.is_empty() {
        return vec![Finding::ok("others", "engines", "none", why)];
    }
    let found = engines.iter().map(|e| format!("{e}: {}", text(e).join(" "))).collect::<Vec<_>>().join("; ");
    // They may be in use: nothing is to be mended unless it is not wanted.
    vec![Finding::ok("others", "engines", found, why)]
}

//! `HostFacts`: what planners may know of this machine, gathered once by the engine.

use serde::{Deserialize, Serialize};

/// Facts about host and caller. Gathered in one place, plain data, so that a plan is a pure function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Effective user id of the caller.
    pub euid: u32,
    /// Effective group id of the caller.
    pub egid: u32,
    /// Effective capabilities as a bit mask (capabilities(7)).
    pub effective_caps: u64,
    /// `uname -n`.
    #[serde(default)]
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// OCI architecture name: `amd64`.
    pub architecture: String,
    /// Cgroup layout.
    pub cgroup: CgroupLayout,
    /// overlay appears in /proc/filesystems.
    pub overlay: bool,
    /// A user namespace may be created (user.max_user_namespaces > 0).
    pub user_namespaces: bool,
    /// `getrlimit(RLIMIT_NOFILE)` hard limit.
    pub nofile_hard: u64,
    /// Real submounts of the host that a `host:` view must show again, outermost first.
    pub submounts: Vec<Submount>,
    /// Every mount point of the host but `/`.
    #[serde(default)]
    pub mount_points: Vec<String>,
    /// Nameservers etc. of the host's resolv.conf, as text (bounded to 64 KiB).
    pub resolv_conf: String,
    /// Number of CPUs online.
    pub cpus: u32,
    /// AppArmor is enabled in this kernel.
    pub apparmor: bool,
    /// seccomp filters are available.
    pub seccomp: bool,
}

impl HostFacts {
    /// True when the caller is root with CAP_SYS_ADMIN in the initial user namespace's sense.
    pub fn rootful(&self) -> bool {
        self.euid == 0 && self.effective_caps & (1 << 21) != 0
    }
}

/// The host's cgroup layout (cgroups(7)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupLayout {
    /// One cgroup2 mount at `mount`; `controllers` as in cgroup.controllers there.
    V2 {
        /// The mount point.
        mount: String,
        /// Enabled controllers.
        controllers: Vec<String>,
        /// The caller's own cgroup, as in /proc/self/cgroup (absolute inside the mount).
        own: String,
    },
    /// Version 1 hierarchies, with a v2 one beside them when hybrid.
    V1 {
        /// Every v1 hierarchy.
        hierarchies: Vec<V1Hierarchy>,
        /// The v2 hierarchy of a hybrid layout: mount point.
        unified: Option<String>,
    },
    /// No cgroup filesystem is mounted.
    None,
}

/// One mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V1Hierarchy {
    /// Controllers, or `name=systemd` for a named one.
    pub controllers: Vec<String>,
    /// Mount point.
    pub mount: String,
    /// The caller's own cgroup in this hierarchy.
    pub own: String,
}

/// A mount of the host below `/` that holds a real (disk) filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submount {
    /// Mount point on the host.
    pub path: String,
    /// Filesystem type.
    pub fstype: String,
    /// Mounted read-only on the host.
    pub read_only: bool,
}

//! `SandboxPlan`: every kernel operation that makes a container, in order, as plain data.
//!
//! Made by the pure [`plan`] from a configuration and [`SandboxFacts`]; executed by `create` and the child,
//! one `match` arm per operation; shown by [`SandboxPlan::words`] and [`SandboxPlan::script`]. Paths inside
//! the root filesystem stay unresolved: they are opened in the root when their turn comes (I1). A plan is
//! never stored.

pub mod attributes;
mod build;
mod cgroups;
mod devices;
mod environment;
mod input;
mod mounts;
mod namespaces;
mod net_devices;
mod options;
mod process;
mod process_op;
pub mod rdt;
mod script;
mod sysctl;
mod words;

use std::path::PathBuf;

use onggi_cgroup::{CgroupPlan, systemd::SystemdFacts};
use onggi_spec::{
    facts::CgroupLayout,
    monitor::{OverlayMount, RootFs},
    oci::runtime::{ConsoleSize, Hook, LinuxIdMapping, LinuxNamespaceType, LinuxTimeOffset, Spec},
    overlay::OverlayFlags,
};
use serde::{Deserialize, Serialize};

pub use build::plan;
pub(crate) use cgroups::{cgroups_path, with_device_rules};
pub(crate) use mounts::may_cover_in_proc;
pub(crate) use options::atime;
pub use options::{IdMapDepth, MountOptions};
pub(crate) use process::{ProcessContext, ProcessPlan, Purpose, keeps_groups, plan_exec};
pub use process_op::{CapabilitySets, ProcessOp};

/// The session keyring of a container, which its further processes join by this name.
pub(crate) fn keyring_name(id: &str) -> String {
    format!("_ses.{id}")
}

/// What the planner may know of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxFacts {
    /// Cgroup layout.
    pub cgroup_layout: CgroupLayout,
    /// The layout of which nothing may be used, only seen: what a cgroup mount shows then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_cgroups: Option<CgroupLayout>,
    /// The caller has CAP_SYS_ADMIN in the initial user namespace's sense.
    pub privileged: bool,
    /// The caller has CAP_SETGID, so a user namespace that it makes may keep setgroups(2): user_namespaces(7).
    pub sets_groups: bool,
    /// Effective user and group of the caller, whom a user namespace without mappings has as its root.
    #[serde(default)]
    pub caller: (u32, u32),
    /// Without the right to make a cgroup the container goes without (runc's `--rootless`).
    #[serde(default)]
    pub rootless_cgroups: bool,
    /// AppArmor is enabled.
    pub apparmor: bool,
    /// SELinux is enabled.
    pub selinux: bool,
    /// The systemd that is asked for cgroups, when one is.
    #[serde(default)]
    pub systemd: Option<SystemdFacts>,
    /// resctrl, when it is mounted and the configuration asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<rdt::RdtFacts>,
}

/// What the planner is given besides the facts.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// Id; the default cgroup is named after it.
    pub id: &'a str,
    /// Bundle, absolute.
    pub bundle: &'a std::path::Path,
    /// Configuration.
    pub config: &'a Spec,
    /// Root filesystem.
    pub rootfs: &'a RootFs,
    /// The caller gives the network namespace as a descriptor.
    pub netns_given: bool,
    /// See [`crate::CreateOptions::init`].
    pub init: bool,
    /// See [`crate::CreateOptions::die_with_parent`].
    pub die_with_parent: bool,
    /// See [`crate::CreateOptions::wait_for_start`].
    pub wait_for_start: bool,
    /// See [`crate::CreateOptions::preserve_fds`].
    pub preserve_fds: u32,
    /// See [`crate::CreateOptions::no_pivot`].
    pub no_pivot: bool,
    /// See [`crate::CreateOptions::no_new_keyring`].
    pub no_new_keyring: bool,
    /// See [`crate::CreateOptions::cgroup_driver`].
    pub cgroup_driver: crate::CgroupDriver,
}

/// The whole plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPlan {
    /// Directories and limits, made by the runtime before the clone; how the child enters.
    pub cgroup: Option<CgroupPlan>,
    /// A class of service below resctrl, made by the runtime if it must be; entered together with the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<rdt::RdtGroup>,
    /// By the runtime before the clone.
    pub before: Vec<ParentOp>,
    /// New namespaces of the one clone3.
    pub clone: Vec<LinuxNamespaceType>,
    /// By the runtime after the clone, before the child goes on.
    pub after: Vec<ParentOp>,
    /// By the child: the container's view.
    pub setup: Vec<SetupOp>,
    /// By the child: what the program is, down to exec. `exec` shares these.
    pub process: Vec<ProcessOp>,
    /// By `start` after the program has begun.
    pub poststart: Vec<Hook>,
    /// What the configuration asks for and will not be done because the specification says so, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An operation of the runtime itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ParentOp {
    /// setns(2) before the clone, inherited by the child.
    Join {
        /// Kind.
        kind: LinuxNamespaceType,
        /// Which.
        source: NamespaceSource,
    },
    /// unshare(CLONE_NEWTIME) and /proc/self/timens_offsets.
    TimeOffsets {
        /// By clock.
        offsets: Vec<(String, LinuxTimeOffset)>,
    },
    /// /proc/PID/{uid_map,gid_map,setgroups}.
    WriteIdMaps {
        /// uid_map.
        uid: Vec<LinuxIdMapping>,
        /// gid_map.
        gid: Vec<LinuxIdMapping>,
        /// An ordinary user may only write a gid_map after denying setgroups(2).
        deny_setgroups: bool,
    },
    /// The user namespace that was joined has exactly these maps.
    CheckIdMaps {
        /// uid_map.
        uid: Vec<LinuxIdMapping>,
        /// gid_map.
        gid: Vec<LinuxIdMapping>,
    },
    /// prlimit(2) on the child: inside a user namespace it could not raise its own limits.
    Rlimit(Rlimit),
    /// /proc/PID/oom_score_adj of the child: inside a user namespace it could not lower its own.
    OomScore {
        /// -1000..=1000.
        value: i32,
    },
}

/// Where a namespace to join comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceSource {
    /// A path on the host.
    Path(PathBuf),
    /// The descriptor that the caller gave.
    Given,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    pub name: String,
    /// Kernel number.
    pub number: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// What lies at a mount's target when it has to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// A directory.
    Directory,
    /// As the source is: directory or file.
    LikeSource,
    /// A directory that must not be reached through symbolic links (/proc, /sys: CVE-2019-19921).
    RealDirectory,
}

/// An operation that builds the container's view. Targets are paths inside the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum SetupOp {
    /// Wait until the id maps are written, then become uid 0 and gid 0 of the user namespace.
    BecomeRoot {
        /// setgroups(2) is allowed there.
        clear_groups: bool,
        /// uid and gid there: 0, or the first that is mapped. Absent when only the namespace itself knows.
        ids: Option<(u32, u32)>,
    },
    /// Wait until the runtime has set a limit that its own processes would not have let in.
    AwaitLimit,
    /// unshare(CLONE_NEWTIME) and /proc/self/timens_offsets, in a user namespace of the container's own.
    TimeOffsets {
        /// By clock.
        offsets: Vec<(String, LinuxTimeOffset)>,
    },
    /// Write `0` to the `tasks` file of every v1 hierarchy (descriptors opened by the runtime).
    EnterCgroups,
    /// setns(2) in the child.
    Join {
        /// Kind.
        kind: LinuxNamespaceType,
        /// Which.
        source: NamespaceSource,
    },
    /// unshare(CLONE_NEWCGROUP), after the cgroup was entered.
    NewCgroupNamespace,
    /// setsid(2).
    NewSession,
    /// keyctl(KEYCTL_JOIN_SESSION_KEYRING): the caller's keys stay outside.
    NewKeyring {
        /// Its name.
        name: String,
        /// Its SELinux label: the process's.
        label: Option<String>,
    },
    /// Propagation of the whole copied mount tree.
    HostPropagation {
        /// `slave` or `private`.
        propagation: Propagation,
    },
    /// The root is a copy of the mount tree at a host path.
    BindRoot {
        /// Host path.
        source: PathBuf,
    },
    /// The root is an overlay, detached until it is attached.
    OverlayRoot {
        /// Layers.
        overlay: OverlayMount,
        /// Root's layers are seen through the ids of the container's user namespace.
        ids: Option<IdMapSource>,
    },
    /// Attach the root at the bundle directory, in this namespace only.
    AttachRoot {
        /// Host directory.
        at: PathBuf,
    },
    /// An overlay below the root (a real submount of the host).
    SubOverlay {
        /// Host directory below it, also the target.
        path: PathBuf,
        /// Upper directory.
        upper: PathBuf,
        /// Work directory.
        work: PathBuf,
        /// As of the root.
        flags: OverlayFlags,
        /// As for the root.
        ids: Option<IdMapSource>,
    },
    /// A new filesystem.
    Mount(FsMount),
    /// A piece of the host's tree.
    Bind(BindMount),
    /// Change the attributes of the mount at a target.
    Attributes {
        /// Target.
        target: PathBuf,
        /// Bits of `onggi_sys::mount::attr`.
        set: u64,
    },
    /// A directory, as for the working directory.
    MakeDir {
        /// Path.
        path: PathBuf,
        /// Mode.
        mode: u32,
    },
    /// A symbolic link; an existing object stays.
    Symlink {
        /// Path of the link.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
        /// Only when this host path exists.
        only_if: Option<PathBuf>,
    },
    /// A device node in /dev.
    Node(DeviceNode),
    /// A device of the host bound over an empty file: mknod(2) is not allowed in a user namespace.
    BindNode(DeviceNode),
    /// A pseudo-terminal from the container's devpts, its slave bound to /dev/console, its master handed over.
    Terminal {
        /// Size.
        size: Option<ConsoleSize>,
        /// Bind /dev/console too.
        console: bool,
        /// Owner of the slave.
        uid: u32,
    },
    /// A namespaced sysctl through the container's own procfs (I2, I16).
    Sysctl {
        /// `net.ipv4.ip_forward`.
        key: String,
        /// Path below /proc/sys.
        path: PathBuf,
        /// Value.
        value: String,
    },
    /// sethostname(2).
    Hostname {
        /// Name.
        name: String,
    },
    /// setdomainname(2).
    Domainname {
        /// Name.
        name: String,
    },
    /// Loopback up, by one ioctl.
    LoopbackUp,
    /// The runtime moves interfaces of its own network namespace to the container's; the child waits.
    NetDevices {
        /// Which.
        devices: Vec<NetDevice>,
    },
    /// The runtime runs these in its own namespaces; the child waits.
    RuntimeHooks {
        /// First these.
        prestart: Vec<Hook>,
        /// Then these.
        create_runtime: Vec<Hook>,
    },
    /// The child runs these, before the root changes.
    ContainerHooks {
        /// createContainer.
        hooks: Vec<Hook>,
    },
    /// Hidden under an empty read-only directory or /dev/null; nothing happens when it does not exist.
    Mask {
        /// Path.
        path: PathBuf,
        /// SELinux context of the directory.
        label: Option<String>,
    },
    /// Read-only with everything below; nothing happens when it does not exist.
    ReadOnly {
        /// Path.
        path: PathBuf,
    },
    /// The root itself read-only.
    ReadOnlyRoot,
    /// Before a root that is only moved: every procfs and sysfs of the host is unmounted, or covered where that is
    /// not allowed. Reachable ones would let the kernel mount fresh ones without the container's masks.
    CoverHostSystems,
    /// chroot(2), in the host's mount namespace.
    ChangeRoot,
    /// pivot_root(".", ".") and umount2(MNT_DETACH); or MS_MOVE and chroot.
    PivotRoot {
        /// Do not pivot.
        by_move: bool,
    },
    /// Propagation of the root mount afterwards.
    RootPropagation {
        /// Which.
        propagation: Propagation,
        /// The mounts below too.
        recursive: bool,
    },
}

/// Propagation of a mount (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    /// MS_PRIVATE.
    Private,
    /// MS_SLAVE.
    Slave,
    /// MS_SHARED.
    Shared,
    /// MS_UNBINDABLE.
    Unbindable,
}

/// How much of the host's peer groups `rootfsPropagation` leaves to binds that ask for events: a shared mount whose
/// source has become a slave before gets the host's events and keeps its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPeers {
    /// All: what is mounted below appears on the host too.
    Kept,
    /// A source on the host's root mount becomes this, others are kept.
    OnRoot(Propagation),
    /// All become this.
    All(Propagation),
}

/// A new filesystem at a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsMount {
    /// Type.
    pub fstype: String,
    /// Source, as it appears in mountinfo.
    pub source: String,
    /// Target.
    pub target: PathBuf,
    /// How the target is found.
    pub target_kind: TargetKind,
    /// What the mount point holds is copied into it first.
    pub copy_up: bool,
    /// Options of the filesystem: `(key, value)`; a flag has no value.
    pub data: Vec<(String, Option<String>)>,
    /// Bits of `onggi_sys::mount::attr`.
    pub attributes: u64,
    /// Propagation, when asked for.
    pub propagation: Option<(Propagation, bool)>,
}

/// Where the ids of an idmapped mount come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdMapSource {
    /// uid and gid mappings.
    Maps(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>),
    /// Those of a user namespace that exists.
    Namespace(PathBuf),
}

/// Ids of a bind are mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// Which ids.
    pub source: IdMapSource,
    /// The mounts below too.
    pub recursive: bool,
}

/// How links at the two ends of a bind are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BindLinks {
    /// A source that is a link is copied.
    pub copy: bool,
    /// A source that is a link is mounted itself.
    pub keep_source: bool,
    /// A target that is a link is covered itself.
    pub keep_target: bool,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Host path; symbolic links in it are followed, on the host.
    pub source: PathBuf,
    /// Target.
    pub target: PathBuf,
    /// With the mounts below the source.
    pub recursive: bool,
    /// Attributes of the top mount: set, clear.
    pub attributes: (u64, u64),
    /// What was refused by name: attribute bits, access-time words. Where the kernel has locked the source's
    /// attributes these are errors, while the others are kept as they are.
    pub refused: (u64, u8),
    /// Access-time words that were asked for.
    pub atime: u8,
    /// Attributes of all its mounts: set, clear.
    pub recursive_attributes: (u64, u64),
    /// Propagation (recursive or not); private when not asked for.
    pub propagation: Option<(Propagation, bool)>,
    /// What it has of the host's propagation before that.
    pub peers: HostPeers,
    /// The source must be a procfs: the target is /proc itself.
    pub must_be_proc: bool,
    /// Ids are mapped.
    pub id_map: Option<IdMap>,
    /// The source lies in the root filesystem: it is what earlier mounts made of it.
    pub in_root: Option<PathBuf>,
    /// Symbolic links.
    pub links: BindLinks,
    /// The container is in another user namespace, so the attributes of the source are locked.
    pub locked: bool,
}

/// A network device that changes its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDevice {
    /// On the host.
    pub name: String,
    /// In the container.
    pub new_name: String,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path inside the root.
    pub path: PathBuf,
    /// Kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// FIFO.
    Fifo,
}

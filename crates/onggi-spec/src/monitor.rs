//! What the engine tells the monitor (`onggi.json` beside `config.json`) and what the monitor and the
//! runtime write back. Shared here because engine and `onggi-oci` never link each other.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    ContainerId,
    overlay::{Directories, OverlayFlags},
};

/// `onggi.json`: the monitor's instructions, written by the engine next to `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorConfig {
    /// The container.
    pub id: ContainerId,
    /// How the root filesystem is assembled inside the container's mount namespace.
    pub rootfs: RootFs,
    /// Log file, its bounds.
    pub log: LogConfig,
    /// Stdin stays open for attach clients.
    pub interactive: bool,
    /// Runtime directory of this container (on tmpfs): `state.json`, `monitor.lock`, `attach.sock`.
    pub run_dir: PathBuf,
    /// Runtime state root shared by all containers (`onggi-oci --root`): `<oci_root>/<id>/state.json`.
    pub oci_root: PathBuf,
    /// Where `exit.json` is written (atomically), on disk.
    pub exit_file: PathBuf,
    /// Command run (absolute path first, empty environment but PATH) after the exit record, unless the
    /// foreground client acknowledges that it cleans up itself.
    pub exit_command: Vec<String>,
    /// Run an init as PID 1.
    pub init: bool,
    /// The container is removed when it ends: its exit record need not survive a power cut.
    #[serde(default)]
    pub disposable: bool,
}

/// How a root filesystem is assembled. Paths are host paths made by the engine, never by an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFs {
    /// `root.path` of config.json is bind-mounted.
    Path,
    /// An overlay, mounted detached (fsopen) inside the container's namespaces: no mount on the host.
    Overlay(OverlayMount),
}

/// One overlay mount and the submounts above it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayMount {
    /// Lower directories, topmost first.
    pub lower: Vec<PathBuf>,
    /// Upper directory.
    pub upper: PathBuf,
    /// Work directory, same filesystem as `upper`.
    pub work: PathBuf,
    /// Use `user.overlay.*` xattrs (in a user namespace).
    pub userxattr: bool,
    /// Nothing that is written is synced, not at the end either: what is written goes with the container. Without it,
    /// taking the mount away writes everything out that the whole upper filesystem has in memory.
    #[serde(default)]
    pub volatile: bool,
    /// Further overlays mounted below this one (real submounts of a `host:` view), outermost first.
    pub submounts: Vec<SubOverlay>,
    /// Directories (in-root paths) hidden under an empty read-only tmpfs, such as the engine's own store.
    pub hidden: Vec<PathBuf>,
}

impl OverlayMount {
    /// Its flags; stored one by one, as records have had them from the beginning.
    pub fn flags(&self) -> OverlayFlags {
        OverlayFlags { userxattr: self.userxattr, volatile: self.volatile }
    }

    /// The directories of the outermost one.
    pub fn directories(&self) -> Directories<'_> {
        Directories { lower: &self.lower, upper: Some((&self.upper, &self.work)) }
    }
}

/// An overlay over one submount of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubOverlay {
    /// Where it is mounted, as an in-root path; also the lower directory on the host.
    pub path: PathBuf,
    /// Upper directory.
    pub upper: PathBuf,
    /// Work directory.
    pub work: PathBuf,
}

/// A bounded json-file log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// The file; rotated to `<path>.1` and so on.
    pub path: PathBuf,
    /// Bytes after which it is rotated.
    pub max_size: u64,
    /// Files kept, including the current one; at least 1.
    pub max_files: u32,
}

/// `exit.json`: how the container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// 0..=255; 128+n for a signal.
    pub exit_code: i32,
    /// The kernel's OOM killer ended a process of the container.
    pub oom_killed: bool,
    /// Unix time in nanoseconds.
    pub started_at: i64,
    /// Unix time in nanoseconds.
    pub finished_at: i64,
    /// Why it could not be started; empty otherwise.
    pub error: String,
    /// What the kernel told beyond the code; absent for an end without anything to explain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<ExitDetail>>,
}

/// What the kernel told about an end that was not a plain success, for people who ask why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitDetail {
    /// The signal that ended the first process (wait(2)); absent when it ended by itself, whatever its code says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// It left a core dump.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub core_dumped: bool,
    /// Its number on the host, for the kernel's log; 0 when nobody asked.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// What the cgroup had counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitEvents>,
    /// The step of the start that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<StartFailure>,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// Limits of a container's cgroup, what was used of them, and how often they were in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitEvents {
    /// Processes ended by the OOM killer since the start.
    pub oom_kills: u64,
    /// Highest memory usage in bytes, where the kernel keeps it.
    pub memory_peak: Option<u64>,
    /// Memory limit in bytes; absent is unlimited.
    pub memory_limit: Option<u64>,
    /// How often memory was refused or taken back because of the limit (`memory.failcnt`; `max` of `memory.events`).
    pub memory_hits: u64,
    /// Limit of tasks; absent is unlimited.
    pub pids_limit: Option<u64>,
    /// How often a fork was refused because of it (`pids.events`).
    pub pids_hits: u64,
}

impl LimitEvents {
    /// Something here may have to do with the end.
    pub fn is_notable(&self) -> bool {
        self.oom_kills > 0 || self.memory_hits > 0 || self.pids_hits > 0
    }
}

/// `<oci_root>/<id>/state.json`: what the runtime knows of a created container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxState {
    /// runtime-spec version of the bundle.
    pub oci_version: String,
    /// Id.
    pub id: String,
    /// Pid of the container's first process in the host's pid namespace.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: with the boot id it identifies the process for good.
    pub pid_start_time: u64,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// Bundle directory.
    pub bundle: PathBuf,
    /// `start` has released the process (a created one waits on the start fifo).
    pub started: bool,
    /// Unix time in nanoseconds.
    pub created_at: i64,
    /// Cgroup directories that belong to the container, by controller (`""` for v2).
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// The systemd unit that the directories belong to, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd_unit: Option<SystemdUnit>,
    /// Directories below resctrl that were made for the container alone, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resctrl: Vec<PathBuf>,
    /// The caller's session keyring is kept, for `exec` too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_new_keyring: bool,
    /// uid that created it.
    pub owner_uid: u32,
    /// Annotations of the bundle.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The root filesystem's directory, absolute.
    #[serde(default)]
    pub rootfs: PathBuf,
    /// It has no pid namespace of its own: its processes outlive the first one.
    #[serde(default)]
    pub shares_pids: bool,
    /// It has no mount namespace of its own: its mounts are below `rootfs` on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_root: Option<HostRoot>,
}

/// What `rootfs` was before the container's mounts covered it (statx(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoot {
    /// Id of the mount that it was on.
    pub mount: u64,
    /// Device of the directory.
    pub device: u64,
    /// Inode of the directory.
    pub inode: u64,
}

/// A transient unit of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdUnit {
    /// `onggi-web.scope`.
    pub name: String,
    /// It belongs to a user's own systemd.
    pub user: bool,
}

/// What the monitor says once on its report descriptor (one JSON line).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum MonitorReport {
    /// The workload has been exec'd.
    Started {
        /// Pid of the first process.
        pid: i32,
        /// What was asked for and kept as it was instead, one line each.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// It could not be started; everything the monitor made is gone again.
    Failed(StartFailure),
}

/// A failed step of a sandbox start, as it crosses the pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// The step in words: "mount proc on /proc".
    pub step: String,
    /// The system call: `fsmount`.
    pub call: String,
    /// errno, 0 when the failure was not a system call's.
    pub errno: i32,
    /// The exit code Docker's habit demands: 125, 126 (cannot be invoked) or 127 (not found).
    pub exit_code: i32,
    /// What to do; may be empty.
    pub hint: String,
    /// It happened in the container's own process, or in making something for it, not while it was planned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_container: bool,
}

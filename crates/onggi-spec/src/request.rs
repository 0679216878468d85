//! `ContainerRequest`: everything a user asked of one container, parsed. It is stored with the container
//! and is what `start` builds from again; command line, Docker API and CRI each translate into it.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    ContainerName, ImageReference,
    device::DeviceSpec,
    mount::MountSpec,
    oci::runtime::LinuxDeviceCgroup,
    port::PortMapping,
    resolver::{Dns, ExtraHost},
    security::SecurityOptions,
    tmpfs::Tmpfs,
    ulimit::Ulimit,
    user::{NameOrId, UserSpec},
};

pub use crate::resources::Resources;

/// What a container is asked to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRequest {
    /// Where the root filesystem comes from.
    pub image: ImageSource,
    /// The name; the engine invents one when absent.
    pub name: Option<ContainerName>,
    /// Arguments after the image; they replace the image's Cmd.
    pub command: Vec<String>,
    /// Replaces the image's Entrypoint; `Some(vec![])` clears it.
    pub entrypoint: Option<Vec<String>>,
    /// `KEY=VALUE`, already resolved against the caller's environment, in order.
    pub env: Vec<String>,
    /// Working directory inside the container, absolute.
    pub workdir: Option<String>,
    /// The user to run as; the image's when absent.
    pub user: Option<UserSpec>,
    /// Host name; the short id when absent.
    pub hostname: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// A terminal is allocated (`-t`).
    pub tty: bool,
    /// Stdin stays open (`-i`).
    pub interactive: bool,
    /// Stdin is closed with that of the first who is attached: a container that was made to be attached to.
    #[serde(default = "attached")]
    pub stdin_once: bool,
    /// The container is removed when it exits (`--rm`).
    pub remove: bool,
    /// An init that reaps and forwards signals runs as PID 1 (`--init`).
    pub init: bool,
    /// The root filesystem is read-only.
    pub read_only: bool,
    /// Capabilities added to the default set; `ALL` is expanded by the spec builder.
    pub cap_add: Vec<String>,
    /// Capabilities removed from the default set; `ALL` is expanded by the spec builder.
    pub cap_drop: Vec<String>,
    /// Network.
    pub network: NetworkMode,
    /// User namespace.
    #[serde(default)]
    pub userns: UserNamespace,
    /// Published ports.
    pub ports: Vec<PortMapping>,
    /// `-v` mounts.
    pub mounts: Vec<MountSpec>,
    /// Limits.
    pub resources: Resources,
    /// Changes to the default confinement.
    #[serde(default)]
    pub security: SecurityOptions,
    /// NIS domain name, and the domain of the host name in /etc/hosts.
    #[serde(default)]
    pub domainname: Option<String>,
    /// Groups beside the user's own.
    #[serde(default)]
    pub group_add: Vec<NameOrId>,
    /// Limits of each process; the engine's own where one is not named.
    #[serde(default)]
    pub ulimits: Vec<Ulimit>,
    /// -1000 to 1000: what the kernel kills first when the host runs out of memory (proc_pid_oom_score_adj(5)).
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// Bytes that /dev/shm may hold.
    #[serde(default)]
    pub shm_size: Option<u64>,
    /// Settings of its namespaces (sysctl(8)).
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Annotations of the runtime's configuration.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// How it is asked to end.
    #[serde(default)]
    pub stop: StopChoice,
    /// Temporary filesystems.
    #[serde(default)]
    pub tmpfs: Vec<Tmpfs>,
    /// Devices of the host.
    #[serde(default)]
    pub devices: Vec<DeviceSpec>,
    /// Further rules about devices.
    #[serde(default)]
    pub device_rules: Vec<LinuxDeviceCgroup>,
    /// Nothing is held back that the caller has: capabilities, devices, masked paths, seccomp, AppArmor.
    #[serde(default)]
    pub privileged: bool,
    /// Namespaces that it shares with the host.
    #[serde(default)]
    pub shared: SharedNamespaces,
    /// Lines of /etc/hosts.
    #[serde(default)]
    pub extra_hosts: Vec<ExtraHost>,
    /// Changes to resolv.conf.
    #[serde(default)]
    pub dns: Dns,
    /// Ports that are named beside the image's, as in `80/tcp`.
    #[serde(default)]
    pub expose: Vec<String>,
    /// All named ports are published.
    #[serde(default)]
    pub publish_all: bool,
}

/// Namespaces that a container shares with the host instead of having its own; its network has [`NetworkMode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SharedNamespaces {
    /// `--pid host`: it sees the processes of the host.
    pub pid: bool,
    /// `--ipc host`: shared memory, semaphores and message queues, and /dev/shm.
    pub ipc: bool,
    /// `--uts host`: host name and NIS domain name.
    pub uts: bool,
    /// `--cgroupns host`: it sees where its control groups are.
    pub cgroup: bool,
}

/// How a container is asked to end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StopChoice {
    /// The signal, as it was written; the image's, else SIGTERM, when absent.
    pub signal: Option<String>,
    /// Seconds until it is killed, ten when absent; negative is never.
    pub timeout: Option<i64>,
}

impl ContainerRequest {
    /// A container of `image` of which nothing else is asked.
    pub fn of(image: ImageSource) -> Self {
        Self {
            image,
            name: None,
            command: Vec::new(),
            entrypoint: None,
            env: Vec::new(),
            workdir: None,
            user: None,
            hostname: None,
            labels: BTreeMap::new(),
            tty: false,
            interactive: false,
            stdin_once: false,
            remove: false,
            init: false,
            read_only: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            network: NetworkMode::default(),
            userns: UserNamespace::default(),
            ports: Vec::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
            security: SecurityOptions::default(),
            domainname: None,
            group_add: Vec::new(),
            ulimits: Vec::new(),
            oom_score_adj: None,
            shm_size: None,
            sysctls: BTreeMap::new(),
            annotations: BTreeMap::new(),
            stop: StopChoice::default(),
            tmpfs: Vec::new(),
            devices: Vec::new(),
            device_rules: Vec::new(),
            privileged: false,
            shared: SharedNamespaces::default(),
            extra_hosts: Vec::new(),
            dns: Dns::default(),
            expose: Vec::new(),
            publish_all: false,
        }
    }
}

/// Where a root filesystem comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// An image of the store, pulled when missing.
    Image(ImageReference),
    /// `rootfs:DIR`: a directory used as it is, with a writable overlay above it.
    Rootfs(PathBuf),
    /// `host:`: a throw-away copy-on-write view of this machine.
    Host,
}

/// `--network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// A veth on the bridge `onggi0`, NAT, published ports.
    #[default]
    Bridge,
    /// A namespace with only loopback.
    None,
    /// The host's network namespace.
    Host,
}

/// `--userns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserNamespace {
    /// The engine's own: root in the container is root outside, held back by capabilities, seccomp and masks.
    #[default]
    Host,
    /// One of its own over a block of ids that nobody else has.
    Auto,
}

impl UserNamespace {
    /// `host` or `auto`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Auto => "auto",
        }
    }
}

impl NetworkMode {
    /// `bridge`, `none` or `host`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::None => "none",
            Self::Host => "host",
        }
    }
}

/// What containers of older versions are taken for.
fn attached() -> bool {
    true
}

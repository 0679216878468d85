//! `ContainerRequest`: everything a user asked of one container, parsed. It is stored with the container
//! and is what `start` builds from again; command line, Docker API and CRI each translate into it.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    ContainerName, ImageReference, mount::MountSpec, port::PortMapping, security::SecurityOptions, user::UserSpec,
};

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

/// Limits of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// CPUs in units of 10^-9 CPU (`--cpus 1.5` is 1_500_000_000).
    pub nano_cpus: Option<u64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processes and threads; -1 is unlimited; the default profile's 4096 when absent.
    pub pids: Option<i64>,
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

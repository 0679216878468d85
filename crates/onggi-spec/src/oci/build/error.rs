//! Why a configuration cannot be built.

use crate::ParseError;

/// What contradicts what. [`BuildError::hint`] says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Neither the request nor the image names a command.
    #[error("no command was given and the image has none")]
    NoCommand,
    /// A capability name.
    #[error("{0}")]
    Capability(ParseError),
    /// A capability that the caller does not have itself.
    #[error("capability {capability} cannot be given: this process does not have it")]
    CapabilityNotHeld {
        /// Full name.
        capability: String,
    },
    /// A capability that would have no effect.
    #[error("capability {capability} has no effect on the bridge network in a user namespace")]
    CapabilityOverNetwork {
        /// Full name.
        capability: &'static str,
    },
    /// A text that no argument, variable or path may be.
    #[error("the {what} {text:?} is invalid: {reason}")]
    Text {
        /// `argument`, `environment variable`, `working directory`.
        what: &'static str,
        /// The text, shortened.
        text: String,
        /// Why.
        reason: &'static str,
    },
    /// More CPUs than the host has.
    #[error("{wanted} CPUs were asked for, this host has {available}")]
    TooManyCpus {
        /// As a decimal number.
        wanted: String,
        /// Online CPUs.
        available: u32,
    },
    /// CPUs that the host has not.
    #[error("the CPUs {wanted} were asked for, this host has {available}")]
    NoSuchCpus {
        /// The list.
        wanted: String,
        /// CPUs, numbered from 0.
        available: u32,
    },
    /// A name for a container that has the host's.
    #[error("--uts host shares the host's name: the container cannot have one of its own")]
    SharedName,
    /// A limit that cgroup version 2 does not have.
    #[error("{option} is not possible: cgroup version 2 has no such setting")]
    OnlyVersion1 {
        /// The command line's option.
        option: &'static str,
    },
    /// A setting of a namespace that the container shares with the host.
    #[error("sysctl {key} belongs to the host: the container has no namespace of its own for it")]
    SharedSysctl {
        /// The setting.
        key: String,
    },
    /// A limit that needs cgroups which an ordinary user has not.
    #[error("{option} is not possible without root on this host")]
    RootlessLimit {
        /// The command line's option.
        option: &'static str,
    },
    /// A limit on a host without cgroups.
    #[error("{option} is not possible: no cgroup filesystem is mounted on this host")]
    NoCgroup {
        /// The command line's option.
        option: &'static str,
    },
    /// A seccomp profile on a kernel without filters.
    #[error("a seccomp profile was asked for, but this kernel has no seccomp filters")]
    NoSeccomp,
    /// A user that does not exist in the single-id user namespace.
    #[error("user {uid}:{gid} does not exist in a container that runs without root")]
    RootlessUser {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// A user beyond the ids of the user namespace.
    #[error("user {uid}:{gid} does not exist in a user namespace of 65536 ids")]
    UserOutsideMap {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Two mounts on one path.
    #[error("Duplicate mount point: {target}")]
    DuplicateTarget {
        /// Path in the container.
        target: String,
    },
    /// A mount where the runtime needs its own.
    #[error("a volume cannot be mounted on {target}")]
    ForbiddenTarget {
        /// Path in the container.
        target: String,
    },
    /// A path of the engine's that is not UTF-8.
    #[error("the path {path} is not valid UTF-8")]
    NotUtf8 {
        /// The path, with replacements.
        path: String,
    },
}

impl BuildError {
    /// What to do about it; nothing when the message says it all.
    pub fn hint(&self) -> Option<String> {
        let text: String = match self {
            Self::NoCommand => "give a command after the image name".into(),
            Self::Capability(e) => e.hint.clone(),
            Self::CapabilityNotHeld { .. } => "leave out --cap-add for it, or run onggi with more privileges".into(),
            Self::CapabilityOverNetwork { .. } => {
                "use --network none, where the container owns its network, or --userns host".into()
            }
            Self::UserOutsideMap { .. } => "use a user below 65536, or --userns host".into(),
            Self::Text { .. } | Self::TooManyCpus { .. } => String::new(),
            Self::NoSuchCpus { .. } => "numbers begin at 0: `nproc` counts them".into(),
            Self::SharedName => "leave --hostname and --domainname out, or --uts host".into(),
            Self::OnlyVersion1 { option } => format!("leave {option} out"),
            Self::SharedSysctl { key } => {
                let own = match key.starts_with("net") {
                    true => "a network",
                    false => "an IPC namespace",
                };
                format!("set it on the host (sysctl -w {key}=…), or give the container {own} of its own")
            }
            Self::RootlessLimit { option } => format!("leave {option} out, or run as root"),
            Self::NoCgroup { option } => format!("leave {option} out, or mount cgroup2 on /sys/fs/cgroup"),
            Self::NoSeccomp => "leave --security-opt seccomp out, or boot a kernel with CONFIG_SECCOMP_FILTER".into(),
            Self::RootlessUser { .. } => "leave -u out (root in the container is you), or run as root".into(),
            Self::DuplicateTarget { .. } => "two mounts have this target: give each its own".into(),
            Self::ForbiddenTarget { .. } => "choose another path; /proc and /dev itself are the runtime's own".into(),
            Self::NotUtf8 { .. } => "choose a root directory with an ordinary name".into(),
        };
        Some(text).filter(|t| !t.is_empty())
    }

    pub(super) fn text(what: &'static str, text: &str, reason: &'static str) -> Self {
        Self::Text { what, text: text.chars().take(128).collect(), reason }
    }
}

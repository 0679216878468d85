//! What this runtime implements, as `features` prints it (features.md, features-linux.md): the tables that the
//! code itself uses, and one constant for each thing that is either there or not.
//!
//! The document tells of the build, never of the machine. A test ties every list to what the code understands.

use onggi_spec::{
    capability,
    oci::runtime::{LinuxNamespaceType, OCI_VERSION},
};
use serde_json::{Value, json};

use crate::{plan::attributes, seccomp};

/// Oldest version of the specification that is understood.
const OLDEST: &str = "1.0.0";

/// Points at which hooks run.
pub const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Options of a mount that are not for the filesystem alone, sorted.
#[rustfmt::skip]
pub const MOUNT_OPTIONS: [&str; 64] = [
    "acl", "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "idmap", "iversion", "lazytime", "loud",
    "mand", "noacl", "noatime", "nodev", "nodiratime", "noexec", "noiversion", "nolazytime", "nomand", "norelatime",
    "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime", "remount",
    "rexec", "ridmap", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnosuid", "rnosymfollow", "ro", "rprivate",
    "rrelatime", "rro", "rrw", "rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw",
    "shared", "silent", "slave", "strictatime", "suid", "symfollow", "sync", "tmpcopyup", "unbindable", "rnorelatime",
    "rnostrictatime",
];

/// Options that the filesystem gets, but that the specification lists as everybody's.
pub const FILESYSTEM_FLAGS: [&str; 6] = ["dirsync", "iversion", "lazytime", "mand", "silent", "sync"];

/// The systemd cgroup driver, of the system and of a user.
pub const SYSTEMD_CGROUP: bool = true;
/// The RDMA controller.
pub const RDMA_CGROUP: bool = true;
/// `linux.netDevices`.
pub const NET_DEVICES: bool = true;
/// `uidMappings` and `gidMappings` of mounts.
pub const ID_MAPPED_MOUNTS: bool = true;

/// Kinds of namespaces, sorted by name.
pub const NAMESPACES: [LinuxNamespaceType; 8] = [
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::User,
    LinuxNamespaceType::Uts,
];

/// The document.
pub fn document() -> Value {
    let mut options = MOUNT_OPTIONS;
    options.sort_unstable();
    let flags: Vec<&str> = seccomp::FLAGS.iter().map(|(name, _)| *name).collect();
    let policy_flags: Vec<&str> = attributes::MEMORY_POLICY_FLAGS.iter().map(|(name, _)| *name).collect();
    json!({
        "ociVersionMin": OLDEST,
        "ociVersionMax": OCI_VERSION,
        "hooks": HOOKS,
        "mountOptions": options.as_slice(),
        "linux": {
            "namespaces": NAMESPACES.map(|kind| kind.to_string()),
            "capabilities": capability::ALL.as_slice(),
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": SYSTEMD_CGROUP,
                "systemdUser": SYSTEMD_CGROUP,
                "rdma": RDMA_CGROUP
            },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::architectures(),
                "knownFlags": flags.clone(),
                "supportedFlags": flags
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": attributes::MEMORY_POLICY_MODES, "flags": policy_flags },
            "mountExtensions": { "idmap": { "enabled": ID_MAPPED_MOUNTS } },
            "netDevices": { "enabled": NET_DEVICES }
        },
        "annotations": { "io.onggi.version": env!("CARGO_PKG_VERSION") },
        // A name that ends with a dot stands for all that begin so (features.md).
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property.", "run.oci.keep_original_groups"]
    })
}

#[cfg(test)]
mod tests {
    use onggi_spec::oci::runtime::{Hooks, LinuxMemoryPolicy, LinuxNamespace};

    use super::*;
    use crate::plan::MountOptions;

    #[test]
    fn listed_mount_options_are_understood_and_are_not_the_filesystems() {
        for option in MOUNT_OPTIONS {
            let parsed = MountOptions::parse(&[option.to_owned()]);
            assert!(parsed.data.is_empty() || FILESYSTEM_FLAGS.contains(&option), "{option}: {parsed:?}");
        }
        assert!(!MountOptions::parse(&["size=1m".to_owned()]).data.is_empty());
    }

    #[test]
    fn listed_namespaces_and_hooks_are_members_of_the_configuration() {
        for kind in NAMESPACES {
            let parsed: LinuxNamespace = serde_json::from_value(json!({ "type": kind.to_string() })).expect("a kind");
            assert_eq!(parsed.typ, kind);
        }
        for hook in HOOKS {
            let one = json!([{ "path": "/x" }]);
            let hooks: Hooks = serde_json::from_value(json!({ hook: one })).expect("hooks");
            assert_ne!(hooks, Hooks::default(), "{hook}");
        }
    }

    #[test]
    fn listed_memory_policies_are_understood() {
        for mode in attributes::MEMORY_POLICY_MODES {
            for (flag, _) in attributes::MEMORY_POLICY_FLAGS {
                let policy = LinuxMemoryPolicy { mode: mode.into(), nodes: "0".into(), flags: vec![flag.into()] };
                assert!(attributes::memory_policy(&policy).expect("known").is_some());
            }
        }
    }

    #[test]
    fn every_list_is_there_and_none_is_empty_but_that_of_unsafe_annotations() {
        let document = document();
        let lists = [
            "/hooks",
            "/mountOptions",
            "/linux/namespaces",
            "/linux/capabilities",
            "/linux/seccomp/actions",
            "/linux/seccomp/operators",
            "/linux/seccomp/archs",
            "/linux/seccomp/knownFlags",
            "/linux/seccomp/supportedFlags",
            "/linux/memoryPolicy/modes",
            "/linux/memoryPolicy/flags",
        ];
        for at in lists {
            assert!(document.pointer(at).and_then(Value::as_array).is_some_and(|l| !l.is_empty()), "{at}");
        }
        assert_eq!(
            document["potentiallyUnsafeConfigAnnotations"],
            json!(["org.systemd.property.", "run.oci.keep_original_groups"])
        );
    }
}

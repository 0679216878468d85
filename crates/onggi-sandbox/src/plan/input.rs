//! Inputs of the planner as they are when a caller asks for nothing special: for tests and fuzzing.

use std::path::Path;

use onggi_spec::{facts::CgroupLayout, monitor::RootFs, oci::runtime::Spec};

use super::{PlanInput, SandboxFacts};
use crate::CgroupDriver;

impl SandboxFacts {
    /// A machine with these cgroups and without security modules.
    pub fn new(cgroup_layout: CgroupLayout, privileged: bool) -> Self {
        Self {
            cgroup_layout,
            visible_cgroups: None,
            privileged,
            sets_groups: privileged,
            caller: (0, 0),
            rootless_cgroups: !privileged,
            apparmor: false,
            selinux: false,
            systemd: None,
            rdt: None,
        }
    }
}

impl<'a> PlanInput<'a> {
    /// `run` without flags.
    pub fn new(id: &'a str, bundle: &'a Path, config: &'a Spec, rootfs: &'a RootFs) -> Self {
        Self {
            id,
            bundle,
            config,
            rootfs,
            netns_given: false,
            init: false,
            die_with_parent: false,
            wait_for_start: false,
            preserve_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            cgroup_driver: CgroupDriver::Cgroupfs,
        }
    }
}

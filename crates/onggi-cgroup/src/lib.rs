//! Resources to cgroup writes, for version 1, hybrid and version 2 (cgroups(7)).
//!
//! [`plan()`] is pure: layout + path + `linux.resources` in, every directory and every write out, in
//! order. [`apply_create`] executes it; [`remove`], [`stats`], [`freeze`] and the others work on the
//! directories that a plan names ([`Paths`]). [`layout::detect`] reads the host's layout.
//!
//! A limit that this kernel cannot keep is an error with a hint, never dropped in silence. Nothing
//! here moves a process: the child of the sandbox joins by itself, as [`Join`] says.

pub mod access;
mod apply;
mod controllers;
mod device_filter;
mod device_list;
mod error;
mod freeze;
pub mod layout;
mod plan;
mod procs;
mod remove;
mod stats;
pub mod systemd;
mod update;
pub mod usage;
mod watch;

use std::{collections::BTreeMap, path::PathBuf};

pub use apply::{apply_create, check_free, check_unit_free, write_limit};
pub use controllers::cpu::{shares_to_weight, weight_to_shares};
pub use device_filter::{DeviceKind, DeviceRule};
pub use error::CgroupError;
pub use freeze::{freeze, is_frozen, let_go, thaw};
pub use plan::{
    Alternative, CgroupDir, CgroupPlan, CgroupRequest, CgroupWrite, Join, Membership, Prepare, plan, possible_paths,
};
pub use procs::{kill_all, members, pids};
pub use remove::remove;
pub use stats::{IoStat, Stats, limit_events, oom_count, stats};
pub use update::{UpdatePlan, Updated, apply_update, plan_update};
pub use watch::{Pressure, Seen, Watch};

/// The cgroup directories of one container, by controller; `""` is the version 2 one.
pub type Paths = BTreeMap<String, PathBuf>;

//! Limits for a command or for processes that run, without a container: request and facts → plan → apply.
//!
//! What a group can keep is kept by a transient group ([`Means::Group`]) or by a unit of systemd ([`Means::Unit`]). Where
//! neither may be had, single processes are limited as far as that goes ([`Means::Process`]): priority, CPUs, address
//! space, and a share of CPU time by stopping them now and then ([`Duty`]). What is not kept is said.

mod apply;
mod duty;
mod plan;
mod show;
mod stale;
mod systemd_run;
mod unit;

use std::path::PathBuf;

use onggi_cgroup::systemd::UnitPlan;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Devices, GroupPlan, Offers, Place};

pub use apply::{apply_inside, apply_process};
pub use duty::Duty;
pub use plan::{controllers_v1, plan_limit};
pub use stale::{PREFIX, clean_stale, group_name, pid_namespace, start_time};
pub use unit::{UnitRequest, start_service, systemd_facts};

/// A resource limit of a process (getrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    pub name: String,
    /// The kernel's number.
    pub number: u32,
    /// Soft limit; `u64::MAX` is none.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Who is limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A command that is started for it.
    Command(Vec<String>),
    /// Processes that run.
    Processes {
        /// The one that was named, then those that come from it, where they are meant too.
        pids: Vec<i32>,
        /// The number is that of a single thread.
        thread: bool,
    },
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRequest {
    /// Words of the vocabulary ([`crate::cgroup::KEYS`]) and values.
    pub settings: Vec<(String, String)>,
    /// Priority, -20 to 19.
    pub nice: Option<i32>,
    /// Limits of each process.
    pub rlimits: Vec<Rlimit>,
    /// Who.
    pub target: Target,
}

/// How limits can be kept here.
#[derive(Debug, Clone, PartialEq)]
pub enum Means {
    /// A group of its own, in these directories.
    Group {
        /// Its path below the root.
        path: String,
        /// Where.
        places: Vec<Place>,
    },
    /// A unit of systemd.
    Unit(UnitRequest),
    /// Nothing but what single processes can be told.
    Process {
        /// Why.
        why: String,
    },
}

/// What the planner may know.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitFacts {
    /// The control groups.
    pub layout: onggi_spec::facts::CgroupLayout,
    /// How.
    pub means: Means,
    /// What version 2 directories offer to their children.
    pub offered: Offers,
    /// Block devices that settings name.
    pub devices: Devices,
    /// Groups of the first process of the target, `controllers:path` lines of /proc/PID/cgroup.
    pub origins: Vec<(Vec<String>, String)>,
    /// Its priority and CPUs so far.
    pub before: (i32, String),
}

/// What a process does before it becomes the command.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inside {
    /// `cgroup.procs` of its groups.
    pub join: Vec<PathBuf>,
    /// The scope that systemd makes around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<UnitPlan>,
    /// Limits of the process.
    pub rlimits: Vec<Rlimit>,
    /// Priority.
    pub nice: Option<i32>,
    /// CPUs: `0-1,3`.
    pub affinity: Option<String>,
    /// SIGCONT when the parent ends: it may have been stopped by then.
    pub wake_at_death: bool,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// What is done, in this order.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LimitPlan {
    /// The group and its limits; processes that run are moved.
    pub setup: GroupPlan,
    /// A service of systemd that is the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<UnitPlan>,
    /// A child that becomes the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<Inside>,
    /// Processes that run, and what they are told; the command of it is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<i32>,
    /// What they are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Inside>,
    /// Share of CPU time that is kept by stopping processes, in 10^-9 CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duty: Option<u64>,
    /// The end of the group.
    pub cleanup: GroupPlan,
    /// Commands that take it back, for processes that run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undo: Vec<String>,
    /// What is not kept, or otherwise than one may think, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The same as options of systemd-run(1), where it is systemd's.
    #[serde(skip)]
    pub systemd_run: Vec<String>,
}

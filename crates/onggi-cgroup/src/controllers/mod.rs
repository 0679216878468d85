//! One file per controller: a part of `linux.resources` to control files and values, for both versions.
//!
//! A new controller is a file here and a row in [`CONTROLLERS`]. Conversions from version 1 scales to
//! version 2 are those that runc and crun make, so that a container gets the same share everywhere.

mod blkio;
pub(crate) mod cpu;
mod cpuset;
pub(crate) mod devices;
mod hugetlb;
pub(crate) mod memory;
mod net;
mod pids;
mod rdma;
mod unified;

use onggi_spec::oci::runtime::LinuxResources;

use crate::{Alternative, CgroupError};

/// Version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Version {
    fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// One value for one control file, before it is known where the controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) controller: String,
    pub(crate) file: String,
    pub(crate) value: String,
    pub(crate) need: Need,
    /// The kernel may refuse it until a later value is written: then it is tried again after the others.
    pub(crate) again: bool,
    pub(crate) what: String,
    pub(crate) alternative: Option<Alternative>,
}

/// How much a setting matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Its failure is an error.
    Required,
    /// Left out with a note when the kernel lacks it.
    Wished,
    /// Nobody asked for it: left out in silence.
    Bonus,
    /// This version has no file for it: a note, nothing is written. Other runtimes ignore it in silence.
    Ignored,
}

impl Setting {
    fn new(controller: &str, file: impl Into<String>, value: impl ToString, what: impl Into<String>) -> Self {
        Self {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            need: Need::Required,
            again: false,
            what: what.into(),
            alternative: None,
        }
    }

    /// What `version` cannot do: `what` in words.
    fn ignored(version: Version, what: &str) -> Self {
        let what = format!("{what} cannot be set with cgroup version {} and is ignored", version.number());
        Self { need: Need::Ignored, ..Self::new("", "", "", what) }
    }

    /// A kernel without it is no error but worth a note.
    fn wished(mut self) -> Self {
        self.need = Need::Wished;
        self
    }

    /// A kernel without it is nobody's concern.
    fn bonus(mut self) -> Self {
        self.need = Need::Bonus;
        self
    }

    /// It depends on a value that is written later.
    fn again(mut self) -> Self {
        self.again = true;
        self
    }

    /// Another file for kernels that lack the first.
    fn or(mut self, file: &str, value: impl ToString) -> Self {
        self.alternative = Some(Alternative { file: file.into(), value: value.to_string() });
        self
    }
}

type Settings = Result<Vec<Setting>, CgroupError>;

/// Every controller's translation, in the order in which the values are written. `unified` is last:
/// what a user writes there is meant to win.
const CONTROLLERS: [fn(&LinuxResources, Version) -> Settings; 10] = [
    cpuset::settings,
    cpu::settings,
    memory::settings,
    pids::settings,
    blkio::settings,
    hugetlb::settings,
    rdma::settings,
    net::settings,
    devices::settings,
    unified::settings,
];

/// Controllers that are offered to containers on version 2, when the kernel has them.
pub(crate) const KNOWN_V2: [&str; 7] = ["cpuset", "cpu", "io", "memory", "pids", "hugetlb", "rdma"];

/// All settings that `resources` asks for.
pub(crate) fn settings(resources: &LinuxResources, version: Version) -> Settings {
    let mut all = Vec::new();
    for controller in CONTROLLERS {
        all.extend(controller(resources, version)?);
    }
    Ok(all)
}

/// A refused value.
pub(crate) fn bad(member: &str, value: impl ToString, reason: &'static str) -> CgroupError {
    let value = value.to_string().chars().take(128).collect();
    CgroupError::BadValue { member: format!("linux.resources.{member}"), value, reason }
}

/// `-1` in the runtime specification is `max` on version 2.
fn max_or(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// A number of bytes for people.
fn bytes(n: i64) -> String {
    const UNITS: [(&str, i64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| n >= *size && n % size == 0) {
        Some((unit, size)) => format!("{} {unit}", n / size),
        None if n < 0 => "unlimited".into(),
        None => format!("{n} bytes"),
    }
}

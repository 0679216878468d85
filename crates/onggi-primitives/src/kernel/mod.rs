//! Everything that the kernel tells of one process, on one page: what a container is, seen from outside.
//!
//! Only /proc, the control groups and (for the text of a seccomp filter) one ptrace(2) stop are used. What the caller may
//! not see is absent. Each section has the command that shows the same by hand.

mod cgroups;
mod filter;
mod mounts;
mod sockets;

use std::fs;

use onggi_sys::ptrace;
use serde::Serialize;

use crate::{CapabilitySets, Kind, PrimitiveError, confinement, process, process_capabilities};

pub use cgroups::{CgroupValue, CgroupView};
pub use filter::{Decoded, Verdicts, decode};
pub use mounts::MountLine;
pub use sockets::SocketLine;

/// A namespace of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamespaceLine {
    /// Its kind.
    pub kind: Kind,
    /// Its number.
    pub inode: u64,
    /// The caller is in it too.
    pub shared: bool,
}

/// A resource limit (getrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitLine {
    /// As the kernel names it.
    pub name: String,
    /// Soft.
    pub soft: String,
    /// Hard.
    pub hard: String,
    /// Unit; empty for counts.
    pub unit: String,
}

/// seccomp(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SeccompView {
    /// `disabled`, `strict` or `filter`.
    pub mode: String,
    /// How many filters are stacked.
    pub filters: u32,
    /// What they decide, the last loaded first; empty when not read.
    pub decoded: Vec<Decoded>,
    /// Why they were not read.
    pub note: String,
}

/// The page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelPage {
    /// The process.
    pub pid: i32,
    /// Its command.
    pub command: String,
    /// Its namespaces.
    pub namespaces: Vec<NamespaceLine>,
    /// Its mounts, each below its parent.
    pub mounts: Vec<MountLine>,
    /// Its control groups.
    pub cgroups: Vec<CgroupView>,
    /// Masks of its five sets, in hexadecimal.
    pub capabilities: CapabilityMasks,
    /// `exec` gives nothing new.
    pub no_new_privs: bool,
    /// Its filters.
    pub seccomp: SeccompView,
    /// Label of the security module; empty where there is none.
    pub label: String,
    /// Its limits.
    pub limits: Vec<LimitLine>,
    /// Sockets of its network namespace.
    pub sockets: Vec<SocketLine>,
}

/// The five sets as /proc/PID/status shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CapabilityMasks {
    /// What the kernel checks.
    pub effective: String,
    /// What may be made effective.
    pub permitted: String,
    /// What exec may keep of a file's.
    pub inheritable: String,
    /// What can ever be had.
    pub bounding: String,
    /// What is kept over exec.
    pub ambient: String,
}

/// Whether the process may be stopped for an instant to read the text of its filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filters {
    /// Stop it and read them.
    Decode,
    /// Leave it alone.
    Count,
}

/// Looks at a process.
///
/// # Errors
/// There is no such process, or /proc is not what it should be.
pub fn kernel_page(pid: i32, filters: Filters) -> Result<KernelPage, PrimitiveError> {
    let (theirs, own) = (process(pid)?, process(std::process::id().cast_signed())?);
    let read = |name: &str| process::read(format!("/proc/{pid}/{name}").as_ref(), pid);
    let status = read("status")?;
    let sets = process_capabilities(pid)?;
    let line = |(kind, inode): (&Kind, &u64)| NamespaceLine {
        kind: *kind,
        inode: *inode,
        shared: own.namespaces.get(kind) == Some(inode),
    };
    Ok(KernelPage {
        pid,
        command: theirs.command.clone(),
        namespaces: theirs.namespaces.iter().map(line).collect(),
        mounts: mounts::tree(&read("mountinfo")?),
        cgroups: cgroups::view(&read("cgroup")?, &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
        capabilities: masks(&sets),
        no_new_privs: sets.no_new_privileges,
        seccomp: seccomp(pid, &status, filters),
        label: read("attr/current").unwrap_or_default().trim_matches(['\0', '\n', ' ']).to_owned(),
        limits: limits(&read("limits")?),
        sockets: sockets::all(pid),
    })
}

fn masks(sets: &CapabilitySets) -> CapabilityMasks {
    let mask = |n: u64| format!("{n:016x}");
    CapabilityMasks {
        effective: mask(sets.effective),
        permitted: mask(sets.permitted),
        inheritable: mask(sets.inheritable),
        bounding: mask(sets.bounding),
        ambient: mask(sets.ambient),
    }
}

fn seccomp(pid: i32, status: &str, filters: Filters) -> SeccompView {
    let (mode, count) = confinement::seccomp(status);
    let mut view = SeccompView { mode: mode.to_owned(), filters: count, ..SeccompView::default() };
    match filters {
        _ if mode != "filter" => {}
        Filters::Count => "not asked for: the process would be stopped for an instant".clone_into(&mut view.note),
        Filters::Decode => match ptrace::seccomp_filters(pid) {
            Ok(programs) => view.decoded = programs.iter().map(|program| decode(program)).collect(),
            Err(e) => view.note = format!("cannot be read: {e}"),
        },
    }
    view
}

/// `Max open files            1024                 524288               files`: columns of fixed width.
fn limits(text: &str) -> Vec<LimitLine> {
    let line = |line: &str| {
        let (name, rest) = line.split_at_checked(26)?;
        let mut words = rest.split_whitespace();
        Some(LimitLine {
            name: name.trim().strip_prefix("Max ").unwrap_or(name.trim()).to_owned(),
            soft: words.next()?.to_owned(),
            hard: words.next()?.to_owned(),
            unit: words.next().unwrap_or_default().to_owned(),
        })
    };
    text.lines().skip(1).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_page() {
        let pid = std::process::id().cast_signed();
        let page = kernel_page(pid, Filters::Count).expect("we are there");
        assert!(page.namespaces.len() == 8 && page.namespaces.iter().all(|n| n.shared), "{page:?}");
        assert!(page.mounts.iter().any(|m| m.target == "/" && m.depth == 0), "{:?}", page.mounts);
        assert!(page.limits.iter().any(|l| l.name == "open files" && l.unit == "files"), "{:?}", page.limits);
        assert_eq!(page.capabilities.effective.len(), 16);
    }
}

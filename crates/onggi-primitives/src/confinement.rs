//! What confines the threads of a process: capabilities, no_new_privs and seccomp(2), as proc_pid_status(5) tells them.
//!
//! Each thread has its own. The securebits(7) are told to a thread itself only.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{CapabilitySets, Kind, PrimitiveError, ProcessFacts, capabilities, process};

/// A thread's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// Capabilities and no_new_privs.
    pub sets: CapabilitySets,
    /// `disabled`, `strict`, `filter`, or what an old kernel does not tell.
    pub seccomp: &'static str,
    /// How many filters are stacked.
    pub filters: u32,
}

/// Threads of one process that are confined in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threads {
    /// How they are.
    pub confinement: Confinement,
    /// Their numbers. The first group has the process's own.
    pub tids: Vec<i32>,
}

/// The threads of a process, in groups that are confined in the same way; that of its first thread is the first.
///
/// # Errors
/// There is no such process, or /proc is not what it should be.
pub fn confinement(pid: i32) -> Result<Vec<Threads>, PrimitiveError> {
    let path = PathBuf::from(format!("/proc/{pid}/task"));
    let listed = fs::read_dir(&path);
    let listed = listed.map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound if Path::new("/proc/self").exists() => PrimitiveError::NoProcess { pid },
        _ => PrimitiveError::Read { path, source },
    })?;
    let tids: BTreeSet<i32> = listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let mut groups: Vec<Threads> = Vec::new();
    // A process's first thread has its number, but not always the lowest one.
    for tid in [pid].into_iter().chain(tids.into_iter().filter(|tid| *tid != pid)) {
        let confinement = match of_thread(pid, tid) {
            Err(PrimitiveError::NoProcess { .. }) if tid != pid => continue,
            other => other?,
        };
        match groups.iter_mut().find(|group| group.confinement == confinement) {
            Some(group) => group.tids.push(tid),
            None => groups.push(Threads { confinement, tids: vec![tid] }),
        }
    }
    Ok(groups)
}

fn of_thread(pid: i32, tid: i32) -> Result<Confinement, PrimitiveError> {
    let path = PathBuf::from(format!("/proc/{pid}/task/{tid}/status"));
    let status = process::read(&path, pid)?;
    let sets = capabilities::sets(&status).ok_or(PrimitiveError::Format { path })?;
    let (seccomp, filters) = seccomp(&status);
    Ok(Confinement { sets, seccomp, filters })
}

/// Mode and number of filters.
pub(crate) fn seccomp(status: &str) -> (&'static str, u32) {
    let mode = match field(status, "Seccomp") {
        Some("1") => "strict",
        Some("2") => "filter",
        Some(_) => "disabled",
        None => "not in this kernel",
    };
    (mode, field(status, "Seccomp_filters").and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// A value of a status file.
pub(crate) fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A process and everything that belongs to it: its descendants, and for the first process of a pid namespace (a
/// container's) all that is in there, such as what was put into it from outside.
pub fn members(first: i32, all: &[ProcessFacts]) -> Vec<&ProcessFacts> {
    let inside = if is_first(first) { namespace(first, all) } else { None };
    let mut found: Vec<&ProcessFacts> = all.iter().filter(|p| p.pid == first).collect();
    found.extend(all.iter().filter(|p| p.pid != first && inside.is_some() && p.namespaces.get(&Kind::Pid) == inside));
    let mut at = 0;
    while let Some(parent) = found.get(at).map(|p| p.pid) {
        let children: Vec<_> =
            all.iter().filter(|p| p.parent == parent && !found.iter().any(|known| known.pid == p.pid)).collect();
        found.extend(children);
        at += 1;
    }
    found
}

fn namespace(pid: i32, all: &[ProcessFacts]) -> Option<&u64> {
    all.iter().find(|p| p.pid == pid)?.namespaces.get(&Kind::Pid)
}

/// Number 1 of a pid namespace below ours.
fn is_first(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "NSpid")
        .is_some_and(|numbers| numbers.split_whitespace().nth(1).is_some() && numbers.ends_with("\t1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_this_process_are_all_there() {
        let own = std::process::id().cast_signed();
        let groups = confinement(own).expect("we exist");
        assert_eq!(groups[0].tids[0], own);
        let told: usize = groups.iter().map(|group| group.tids.len()).sum();
        assert!(told >= 2, "the test's own thread too: {groups:?}");
        assert!(matches!(confinement(i32::MAX), Err(PrimitiveError::NoProcess { pid: i32::MAX })));
    }

    #[test]
    fn members_are_descendants() {
        let process = |pid, parent| ProcessFacts {
            pid,
            parent,
            uid: 0,
            command: String::new(),
            namespaces: std::collections::BTreeMap::new(),
        };
        let first = i32::MAX - 9;
        let all = [process(1, 0), process(first, 1), process(first + 1, first), process(first + 2, first + 1)];
        let found: Vec<i32> = members(first, &all).iter().map(|p| p.pid - first).collect();
        assert_eq!(found, [0, 1, 2]);
    }

    #[test]
    fn seccomp_is_read_from_a_status_file() {
        assert_eq!(seccomp("Seccomp:\t2\nSeccomp_filters:\t3\n"), ("filter", 3));
        assert_eq!(seccomp("Seccomp:\t0\n"), ("disabled", 0));
        assert_eq!(seccomp("Name:\tx\n"), ("not in this kernel", 0));
    }
}

//! Namespaces that exist, and who is in them (lsns(8)).

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
};

use onggi_sys::{SysError, ns};
use rustix::io::Errno;

use crate::{Kind, PrimitiveError, ProcessFacts};

/// A namespace: inode numbers are unique among the kinds that exist at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId {
    /// Its inode number in nsfs.
    pub inode: u64,
    /// Its kind.
    pub kind: Kind,
}

/// A namespace and its processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Which one.
    pub id: NamespaceId,
    /// How many processes are in it.
    pub processes: usize,
    /// The process with the lowest number of them; none where only a file keeps it.
    pub first: Option<ProcessFacts>,
    /// The file that keeps it, where one is mounted.
    pub file: Option<PathBuf>,
}

/// How a namespace stands to others (ioctl_ns(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relations {
    /// The user namespace that owns it: capabilities there are what counts in it. `None` outside of the caller's.
    pub owner: Option<u64>,
    /// The one above it, of those that have one (user and pid).
    pub parent: Option<u64>,
    /// Who made a user namespace.
    pub creator: Option<u32>,
}

/// The namespaces of `processes`, and those that files keep in the caller's mount namespace, by inode number.
///
/// # Errors
/// The mount table cannot be read.
pub fn namespaces(processes: &[ProcessFacts]) -> Result<Vec<Namespace>, PrimitiveError> {
    let mut found: BTreeMap<NamespaceId, Namespace> = BTreeMap::new();
    for process in processes {
        for (&kind, &inode) in &process.namespaces {
            let id = NamespaceId { inode, kind };
            let entry = found.entry(id).or_insert_with(|| Namespace {
                id,
                processes: 0,
                first: Some(process.clone()),
                file: None,
            });
            entry.processes += 1;
        }
    }
    for (id, file) in kept_by_files()? {
        let entry = found.entry(id).or_insert_with(|| Namespace { id, processes: 0, first: None, file: None });
        entry.file.get_or_insert(file);
    }
    Ok(found.into_values().collect())
}

/// Files of nsfs that are mounted somewhere: `ip netns add` and `unshare --net=FILE` make them.
fn kept_by_files() -> Result<Vec<(NamespaceId, PathBuf)>, PrimitiveError> {
    let path = PathBuf::from("/proc/self/mountinfo");
    let text = fs::read_to_string(&path).map_err(|source| PrimitiveError::Read { path, source })?;
    Ok(text.lines().filter_map(kept_by).collect())
}

/// `… net:[4026532345] /run/netns/x … - nsfs …` (proc_pid_mountinfo(5)).
fn kept_by(line: &str) -> Option<(NamespaceId, PathBuf)> {
    let (fields, rest) = line.split_once(" - ")?;
    if rest.split(' ').next() != Some("nsfs") {
        return None;
    }
    let mut fields = fields.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let kind = root.split(':').next()?.parse().ok()?;
    Some((NamespaceId { inode: crate::process::inode_of(root)?, kind }, unescape(point).into()))
}

/// Space, tab, newline and backslash are three octal digits there.
pub(crate) fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Asks for the relations of a namespace of a process.
///
/// # Errors
/// The process is gone, or belongs to somebody else.
pub fn relations(pid: i32, kind: Kind) -> Result<Relations, PrimitiveError> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(PrimitiveError::NoProcess { pid }),
        Err(source) => return Err(PrimitiveError::Read { path, source }),
    };
    let failed = |source| PrimitiveError::Sys { operation: format!("ask about {}", path.display()), source };
    let inode = |fd: std::os::fd::OwnedFd| fs::File::from(fd).metadata().ok().map(|m| m.ino());
    let owner = seen(ns::owner(file.as_fd())).map_err(failed)?.and_then(inode);
    let parent = match kind {
        Kind::User | Kind::Pid => seen(ns::parent(file.as_fd())).map_err(failed)?.and_then(inode),
        _ => None,
    };
    let creator = match kind {
        Kind::User => Some(ns::creator(file.as_fd()).map_err(failed)?),
        _ => None,
    };
    Ok(Relations { owner, parent, creator })
}

/// EPERM: it lies outside of what the caller may see, as the parent of the first one does.
fn seen<T>(result: Result<T, SysError>) -> Result<Option<T>, SysError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.errno == Errno::PERM => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, namespaces: &[(Kind, u64)]) -> ProcessFacts {
        let namespaces = namespaces.iter().copied().collect();
        ProcessFacts { pid, parent: 0, uid: 0, command: format!("process {pid}"), namespaces }
    }

    #[test]
    fn a_namespace_counts_its_processes_and_names_the_first() {
        let all = [
            process(1, &[(Kind::Net, 10), (Kind::Uts, 11)]),
            process(2, &[(Kind::Net, 20), (Kind::Uts, 11)]),
            process(3, &[(Kind::Net, 20)]),
        ];
        let found = namespaces(&all).expect("the mount table is readable");
        let of = |inode: u64| {
            let one = found.iter().find(|n| n.id.inode == inode).expect("it exists");
            (one.id.kind, one.processes, one.first.as_ref().map(|p| p.pid))
        };
        assert_eq!(of(10), (Kind::Net, 1, Some(1)));
        assert_eq!(of(11), (Kind::Uts, 2, Some(1)));
        assert_eq!(of(20), (Kind::Net, 2, Some(2)));
    }

    #[test]
    fn a_mounted_file_keeps_a_namespace() {
        let line = "99 25 0:4 net:[4026532345] /run/net\\040ns/x rw shared:1 - nsfs nsfs rw";
        let id = NamespaceId { inode: 4_026_532_345, kind: Kind::Net };
        assert_eq!(kept_by(line), Some((id, "/run/net ns/x".into())));
        assert_eq!(kept_by("99 25 0:4 / /proc rw - proc proc rw"), None);
    }

    #[test]
    fn relations_of_our_own_namespaces_are_known() {
        let pid = std::process::id().cast_signed();
        let own = crate::process(pid).expect("we exist").namespaces;
        let net = relations(pid, Kind::Net).expect("it is ours");
        assert_eq!((net.owner, net.parent, net.creator), (own.get(&Kind::User).copied(), None, None));
        assert!(relations(pid, Kind::User).expect("it is ours").creator.is_some());
        assert!(matches!(relations(i32::MAX, Kind::Net), Err(PrimitiveError::NoProcess { .. })));
    }
}

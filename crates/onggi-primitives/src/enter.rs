//! Moves the calling process into namespaces of another one (setns(2), nsenter(1)).

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use onggi_sys::{SysError, cred, ns, process::pidfd_open};
use rustix::io::Errno;

use crate::{Kind, PrimitiveError, process};

/// The type of nsfs in statfs(2) (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Namespaces of a process.
    Process {
        /// Its number.
        pid: i32,
        /// Which of them; every one that is not the caller's already when empty.
        kinds: Vec<Kind>,
    },
    /// The namespace that a file keeps.
    File(PathBuf),
}

/// Joins the namespaces and returns their kinds. The calling process must have one thread. A pid or time namespace is
/// that of its next children. With a user namespace it becomes root there, without further groups, as nsenter(1).
///
/// # Errors
/// The target is gone or may not be entered, or the file keeps no namespace.
pub fn enter(target: &Target) -> Result<Vec<Kind>, PrimitiveError> {
    let (fd, kinds) = match target {
        Target::Process { pid, kinds } => (pidfd(*pid)?, wanted(*pid, kinds)?),
        Target::File(path) => open(path)?,
    };
    if kinds.is_empty() {
        return Ok(kinds);
    }
    let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
    let names = kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    let failed = |source| PrimitiveError::Sys { operation: format!("enter {names} of {}", describe(target)), source };
    ns::join(fd.as_fd(), flags).map_err(failed)?;
    if kinds.contains(&Kind::User) {
        become_root()
            .map_err(|source| PrimitiveError::Sys { operation: "become root in the user namespace".into(), source })?;
    }
    Ok(kinds)
}

fn describe(target: &Target) -> String {
    match target {
        Target::Process { pid, .. } => format!("process {pid}"),
        Target::File(path) => path.display().to_string(),
    }
}

fn pidfd(pid: i32) -> Result<OwnedFd, PrimitiveError> {
    match pidfd_open(pid) {
        Ok(fd) => Ok(fd),
        Err(e) if matches!(e.errno, Errno::SRCH | Errno::INVAL) => Err(PrimitiveError::NoProcess { pid }),
        Err(source) => Err(PrimitiveError::Sys { operation: format!("open process {pid}"), source }),
    }
}

/// A process cannot join the user namespace that it is in (EINVAL).
fn wanted(pid: i32, kinds: &[Kind]) -> Result<Vec<Kind>, PrimitiveError> {
    let own = process(std::process::id().cast_signed())?.namespaces;
    let theirs = process(pid)?.namespaces;
    let asked = if kinds.is_empty() { &Kind::ALL[..] } else { kinds };
    let differs = |kind: &Kind| !theirs.contains_key(kind) || theirs.get(kind) != own.get(kind);
    Ok(asked.iter().copied().filter(differs).collect())
}

/// Opens a file of nsfs; what is none is refused by name.
fn open(path: &Path) -> Result<(OwnedFd, Vec<Kind>), PrimitiveError> {
    // Without waiting for whoever writes to a FIFO.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    let file = file.map_err(|e| PrimitiveError::Read { path: path.to_owned(), source: e.into() })?;
    // The request may mean something else to a device.
    let nsfs = rustix::fs::fstatfs(&file).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(NSFS_MAGIC));
    let flag = nsfs.then(|| ns::kind(file.as_fd()).ok()).flatten();
    let kind = flag.and_then(|flag| Kind::ALL.into_iter().find(|kind| kind.flag() == flag));
    match kind {
        Some(kind) => Ok((file, vec![kind])),
        None => Err(PrimitiveError::NoNamespace { path: path.to_owned() }),
    }
}

fn become_root() -> Result<(), SysError> {
    match cred::set_groups(&[]) {
        // A user namespace without that right leaves the groups as they are.
        Err(e) if e.errno != Errno::PERM => return Err(e),
        _ => {}
    }
    cred::set_gid(0)?;
    cred::set_uid(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_entered_is_named() {
        let gone = enter(&Target::Process { pid: i32::MAX, kinds: Vec::new() });
        assert!(matches!(gone, Err(PrimitiveError::NoProcess { pid: i32::MAX })), "{gone:?}");
        let plain = enter(&Target::File("/etc/passwd".into()));
        assert!(matches!(&plain, Err(PrimitiveError::NoNamespace { .. })), "{plain:?}");
    }

    #[test]
    fn our_own_namespaces_need_no_entering() {
        let own = Target::Process { pid: std::process::id().cast_signed(), kinds: Vec::new() };
        assert_eq!(enter(&own).expect("nothing is done"), []);
    }
}

//! A process as /proc shows it (proc_pid_status(5), proc_pid_ns(5)).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Kind, PrimitiveError, confinement::field};

/// Bytes of a command line that are read; what is shown is shorter still.
const COMMAND_MAX: usize = 4096;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Its number in the pid namespace of /proc.
    pub pid: i32,
    /// Its parent; 0 for one that comes from outside.
    pub parent: i32,
    /// Real user id.
    pub uid: u32,
    /// Program and arguments, separated by spaces; the name alone for a kernel thread.
    pub command: String,
    /// Inode numbers of its namespaces; without those that the caller may not see.
    pub namespaces: BTreeMap<Kind, u64>,
}

/// Every process that is there now, in the order of their numbers.
///
/// # Errors
/// /proc cannot be listed.
pub fn processes() -> Result<Vec<ProcessFacts>, PrimitiveError> {
    let proc = Path::new("/proc");
    let failed = |source| PrimitiveError::Read { path: proc.to_owned(), source };
    let mut pids = Vec::new();
    for entry in fs::read_dir(proc).map_err(failed)? {
        pids.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    pids.sort_unstable();
    let mut found = Vec::with_capacity(pids.len());
    for pid in pids {
        match process(pid) {
            Err(PrimitiveError::NoProcess { .. }) => {}
            other => found.push(other?),
        }
    }
    Ok(found)
}

/// One process by its number.
///
/// # Errors
/// There is no such process, or /proc is not what it should be.
pub fn process(pid: i32) -> Result<ProcessFacts, PrimitiveError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let status = read(&path, pid)?;
    let number = |name: &str| field(&status, name).and_then(|rest| rest.split_whitespace().next());
    let parsed = || Some((number("PPid")?.parse().ok()?, number("Uid")?.parse().ok()?, field(&status, "Name")?));
    let Some((parent, uid, name)) = parsed() else { return Err(PrimitiveError::Format { path }) };
    Ok(ProcessFacts { pid, parent, uid, command: command(pid, name), namespaces: inodes(pid) })
}

/// Reads a file of /proc/PID. A process that goes meanwhile shows as ESRCH.
pub(crate) fn read(path: &Path, pid: i32) -> Result<String, PrimitiveError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if is_gone(&e) && Path::new("/proc/self").exists() => Err(PrimitiveError::NoProcess { pid }),
        Err(source) => Err(PrimitiveError::Read { path: path.to_owned(), source }),
    }
}

fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// A command line that is empty or cannot be read leaves the name.
fn command(pid: i32, name: &str) -> String {
    let mut bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.truncate(COMMAND_MAX);
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    match text.trim_end() {
        "" => name.to_owned(),
        command => command.to_owned(),
    }
}

fn inodes(pid: i32) -> BTreeMap<Kind, u64> {
    let inode = |kind: Kind| {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
        Some((kind, inode_of(link.to_str()?)?))
    };
    Kind::ALL.into_iter().filter_map(inode).collect()
}

/// `4026531840` of `net:[4026531840]`.
pub(crate) fn inode_of(link: &str) -> Option<u64> {
    link.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_parent_command_and_namespaces() {
        let pid = std::process::id().cast_signed();
        let own = processes().expect("/proc is readable").into_iter().find(|p| p.pid == pid).expect("we are there");
        assert_eq!(own.parent, std::os::unix::process::parent_id().cast_signed());
        assert!(own.command.contains("onggi_primitives"), "{}", own.command);
        assert_eq!(own.namespaces.len(), 8, "{:?}", own.namespaces);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = process(i32::MAX).expect_err("no machine has so many");
        assert!(matches!(error, PrimitiveError::NoProcess { pid: i32::MAX }) && error.hint().is_some());
    }

    #[test]
    fn links_of_nsfs_are_read_and_nothing_else() {
        assert_eq!(inode_of("net:[4026531840]"), Some(4_026_531_840));
        assert_eq!(["", "net", "net:[]", "net:[x]", "net:[1"].map(inode_of), [None; 5]);
    }
}

//! Roots that are not pivoted into: moved over the host's (`--no-pivot`), or entered by chroot(2) in the host's
//! own mount namespace. mountinfo: proc_pid_mountinfo(5).
//!
//! What stays reachable in the mount namespace counts for the kernel: a full procfs or sysfs anywhere in it lets a
//! process in a user namespace mount a fresh one, without the masks of the container's.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use onggi_sys::{
    Errno, SysContext,
    mount::{self, MountFlags},
};

use super::Child;

/// Longest chain of parents that is followed: a torn table must not hang us.
const MAX_DEPTH: usize = 4096;

/// One line of mountinfo, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    id: u64,
    parent: u64,
    /// It shows the whole filesystem.
    full: bool,
    at: PathBuf,
    fstype: String,
}

impl Child {
    /// Those of the container, below its root, stay.
    pub(super) fn cover_host_systems(&self) -> onggi_sys::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let own = mount::id(root.as_fd())?;
        let table = std::fs::read("/proc/self/mountinfo").sys("read", || "\"/proc/self/mountinfo\"")?;
        let entries = parse(&table);
        // The last one of a place is on top.
        for entry in foreign(&entries, own).into_iter().rev() {
            cover(&entry.at)?;
        }
        Ok(())
    }

    pub(super) fn change_root(&mut self) -> onggi_sys::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        rustix::process::fchdir(root).sys("fchdir", || "root")?;
        mount::change_root_to_cwd()?;
        self.view = super::View::Container;
        Ok(())
    }
}

fn cover(at: &Path) -> onggi_sys::Result<()> {
    match mount::detach(at) {
        Err(e) if matches!(e.errno, Errno::INVAL | Errno::PERM) => {}
        // Already out of sight with what it lay on.
        Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        r => return r,
    }
    // Locked, because it comes from another user namespace.
    match mount::mount_at(Path::new("tmpfs"), at, "tmpfs", MountFlags::RDONLY) {
        Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR) => Ok(()),
        r => r,
    }
}

/// Whole procfs and sysfs mounts that are not below the mount `own`.
fn foreign(entries: &[Entry], own: u64) -> Vec<&Entry> {
    let parents: BTreeMap<u64, u64> = entries.iter().map(|e| (e.id, e.parent)).collect();
    let below = |e: &Entry| {
        let chain = std::iter::successors(Some(e.id), |id| parents.get(id).copied().filter(|p| p != id));
        chain.take(MAX_DEPTH).any(|id| id == own)
    };
    entries.iter().filter(|e| e.full && matches!(e.fstype.as_str(), "proc" | "sysfs") && !below(e)).collect()
}

fn parse(table: &[u8]) -> Vec<Entry> {
    table.split(|b| *b == b'\n').filter_map(entry).collect()
}

fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|b| *b == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    let full = fields.nth(1)? == b"/";
    let at = unescape(fields.next()?);
    let fstype = fields.skip_while(|f| *f != b"-").nth(1)?;
    Some(Entry { id, parent, full, at, fstype: String::from_utf8_lossy(fstype).into_owned() })
}

/// Blanks and backslashes are octal there.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = rest.get(1..4).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
                rest = &rest[4..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n\
        2 1 0:2 / /proc rw - proc proc rw\n\
        3 1 0:3 / /sys\\040x rw master:1 shared:2 - sysfs sysfs rw\n\
        4 1 0:2 /sys /mnt rw - proc proc rw\n\
        5 1 8:1 /b /b rw - ext4 /dev/a rw\n\
        6 5 0:4 / /b/proc rw - proc proc rw\n\
        torn\n";

    #[test]
    fn only_whole_mounts_outside_the_root_are_covered() {
        let entries = parse(TABLE);
        assert_eq!(entries.len(), 6);
        let at: Vec<_> = foreign(&entries, 5).iter().map(|e| e.at.clone()).collect();
        assert_eq!(at, [PathBuf::from("/proc"), PathBuf::from("/sys x")]);
    }

    #[test]
    fn a_table_that_leads_in_circles_ends() {
        let entries = parse(b"1 2 0:2 / /proc rw - proc proc rw\n2 1 0:2 / /x rw - proc proc rw\n");
        assert_eq!(foreign(&entries, 9).len(), 2);
    }
}

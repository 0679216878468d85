//! One file, link or node from one tree into another, with everything that belongs to it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use onggi_sys::fs::{self, FileType, Stat, Time};
use onggi_sys::{Errno, clone_data};

use super::{Sharing, Sys};
use crate::extract::Privilege;

/// Brings files into a tree. Names of one file stay names of one file.
pub(crate) struct Placer {
    sharing: Sharing,
    privilege: Privilege,
    /// Files with several names: where the first one is now.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl Placer {
    pub(crate) fn new(sharing: Sharing) -> Self {
        Self { sharing, privilege: Privilege::of_this_process(), linked: HashMap::new() }
    }

    /// `name` of `source` to `name` of `target`, which is `path` below `root` and free. `EEXIST` when it is not.
    pub(crate) fn place(
        &mut self,
        source: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        root: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        path: &[u8],
    ) -> Sys<()> {
        if self.sharing == Sharing::Link {
            match fs::make_link(source, name, target, name) {
                // Too many names of one file, or a file that may not be linked: it gets a twin.
                Err(e) if matches!(e.errno, Errno::MLINK | Errno::XDEV | Errno::PERM) => {}
                other => return other,
            }
        }
        let id = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = self.linked.get(&id)
        {
            return fs::make_link(root, first, target, name);
        }
        match fs::file_type(stat) {
            FileType::RegularFile => self.file(source, name, stat, target)?,
            FileType::Symlink => {
                fs::make_symlink(&fs::read_link(source, name)?, target, name)?;
                self.own(fs::chown_at(target, name, stat.st_uid, stat.st_gid))?;
                fs::set_times_at(target, name, modified(stat))?;
            }
            kind => {
                fs::make_node(target, name, kind, 0o600, stat.st_rdev)?;
                self.own(fs::chown_at(target, name, stat.st_uid, stat.st_gid))?;
                let handle = fs::open_handle(target, name)?;
                fs::chmod_handle(handle.as_fd(), stat.st_mode & 0o7777)?;
                xattrs(fs::open_handle(source, name)?.as_fd(), handle.as_fd())?;
                fs::set_times_at(target, name, modified(stat))?;
            }
        }
        if stat.st_nlink > 1 {
            self.linked.insert(id, path.to_vec());
        }
        Ok(())
    }

    fn file(&self, source: BorrowedFd<'_>, name: &[u8], stat: &Stat, target: BorrowedFd<'_>) -> Sys<()> {
        let handle = fs::open_handle(source, name)?;
        let from = fs::reopen_read(handle.as_fd())?;
        let to = fs::create_file(target, name, 0o600)?;
        clone_data::copy_content(from.as_fd(), to.as_fd(), stat.st_size.max(0).cast_unsigned())?;
        self.own(fs::chown(to.as_fd(), stat.st_uid, stat.st_gid))?;
        fs::chmod(to.as_fd(), stat.st_mode & 0o7777)?;
        xattrs(handle.as_fd(), to.as_fd())?;
        fs::set_times(to.as_fd(), modified(stat))
    }

    fn own(&self, done: Sys<()>) -> Sys<()> {
        tolerated(self.privilege, done)
    }
}

/// Without privilege an owner that cannot be set stays the caller.
fn tolerated(privilege: Privilege, done: Sys<()>) -> Sys<()> {
    match done {
        Err(e) if privilege == Privilege::Limited && matches!(e.errno, Errno::PERM | Errno::INVAL) => Ok(()),
        other => other,
    }
}

fn modified(stat: &Stat) -> Time {
    Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 }
}

/// Owner, mode, extended attributes and time of a directory; what the target had is replaced.
pub(crate) fn attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Sys<()> {
    let stat = fs::stat(source)?;
    let privilege = Privilege::of_this_process();
    tolerated(privilege, fs::chown(target, stat.st_uid, stat.st_gid))?;
    fs::chmod(target, stat.st_mode & 0o7777)?;
    let wanted = names(source)?;
    for name in names(target)? {
        if !wanted.contains(&name) {
            fs::remove_xattr_handle(target, &name)?;
        }
    }
    xattrs(source, target)?;
    fs::set_times(target, modified(&stat))
}

/// Copies attributes. What only the host's security modules may set stays behind.
fn xattrs(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Sys<()> {
    for name in names(source)? {
        if let Some(value) = fs::get_xattr_handle(source, &name)? {
            match fs::set_xattr_handle(target, &name, &value) {
                Err(e) if matches!(e.errno, Errno::PERM | Errno::NOTSUP) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Attributes that belong to the content: neither overlayfs's marks nor labels of the host.
pub(super) fn names(of: BorrowedFd<'_>) -> Sys<Vec<Vec<u8>>> {
    let foreign = |name: &[u8]| {
        name.starts_with(b"trusted.overlay.")
            || name.starts_with(b"user.overlay.")
            || (name.starts_with(b"security.") && name != b"security.capability")
    };
    let mut names = fs::list_xattr_handle(of)?;
    names.retain(|name| !foreign(name));
    names.sort();
    Ok(names)
}

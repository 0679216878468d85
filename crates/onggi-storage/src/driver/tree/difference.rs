//! What differs between a container's root filesystem and its image's tree.
//!
//! Two files are equal when their attributes are and nothing touched the newer one since it was made: changing a file's
//! content or attributes always moves its ctime, which no program can set back. Where the ctime says "touched" although
//! attributes agree, contents are compared, so that a file whose time was put back is found, and one that was only
//! opened is not.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use onggi_sys::fs::{self, FileType, Stat, Time};

use super::copy::{self, Placer};
use super::{Marks, Merge, Sharing, Sys, join, open};
use crate::usage::content;

/// Receives what differs. Paths are below the roots, parents before children.
pub(super) trait Found {
    /// A name is gone.
    fn removed(&mut self, path: &[u8]) -> Sys<()>;
    /// A directory has other attributes.
    fn directory(&mut self, new: BorrowedFd<'_>, path: &[u8]) -> Sys<()>;
    /// A name is new or other. A directory comes with everything in it.
    fn added(&mut self, new: BorrowedFd<'_>, path: &[u8], stat: &Stat) -> Sys<()>;
    /// All was told.
    fn finish(&mut self, new: BorrowedFd<'_>) -> Sys<()>;
}

/// Compares `new` with `old`; without `old` everything is new.
pub(super) fn find(new: BorrowedFd<'_>, old: Option<BorrowedFd<'_>>, since: Time, found: &mut dyn Found) -> Sys<()> {
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let here = open(new, &path)?;
        let there = old.map(|old| open(old, &path)).transpose()?;
        let now = entries(here.as_fd())?;
        let before = there.as_ref().map(|dir| entries(dir.as_fd())).transpose()?.unwrap_or_default();
        for name in before.keys().filter(|name| !now.contains_key(*name)) {
            found.removed(&join(&path, name))?;
        }
        for (name, stat) in &now {
            let full = join(&path, name);
            let directory = fs::file_type(stat) == FileType::Directory;
            match (before.get(name), &there) {
                (Some(other), Some(there)) if directory && fs::file_type(other) == FileType::Directory => {
                    if !same_attributes(here.as_fd(), there.as_fd(), name, stat, other)? {
                        found.directory(new, &full)?;
                    }
                    todo.push(full);
                }
                (Some(other), Some(there))
                    if !directory && same(here.as_fd(), there.as_fd(), name, stat, other, since)? => {}
                _ => found.added(new, &full, stat)?,
            }
        }
    }
    found.finish(new)
}

fn entries(dir: BorrowedFd<'_>) -> Sys<BTreeMap<Vec<u8>, Stat>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let (name, _) = entry?;
        let stat = fs::stat_at(dir, &name)?;
        all.insert(name, stat);
    }
    Ok(all)
}

fn same_attributes(here: BorrowedFd<'_>, there: BorrowedFd<'_>, name: &[u8], a: &Stat, b: &Stat) -> Sys<bool> {
    if (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) != (b.st_mode, b.st_uid, b.st_gid, b.st_rdev) {
        return Ok(false);
    }
    let (a, b) = (fs::open_handle(here, name)?, fs::open_handle(there, name)?);
    let (names, others) = (copy::names(a.as_fd())?, copy::names(b.as_fd())?);
    if names != others {
        return Ok(false);
    }
    for name in &names {
        if fs::get_xattr_handle(a.as_fd(), name)? != fs::get_xattr_handle(b.as_fd(), name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same(here: BorrowedFd<'_>, there: BorrowedFd<'_>, name: &[u8], a: &Stat, b: &Stat, since: Time) -> Sys<bool> {
    let times = |s: &Stat| (s.st_size, s.st_mtime, s.st_mtime_nsec);
    if fs::file_type(a) != fs::file_type(b) || times(a) != times(b) {
        return Ok(false);
    }
    if (a.st_ctime, a.st_ctime_nsec as u32) < (since.sec, since.nsec) {
        return Ok(true);
    }
    if fs::file_type(a) == FileType::Symlink {
        return Ok(
            fs::read_link(here, name)? == fs::read_link(there, name)? && (a.st_uid, a.st_gid) == (b.st_uid, b.st_gid)
        );
    }
    if !same_attributes(here, there, name, a, b)? {
        return Ok(false);
    }
    if fs::file_type(a) != FileType::RegularFile {
        return Ok(true);
    }
    same_content(here, there, name)
}

fn same_content(here: BorrowedFd<'_>, there: BorrowedFd<'_>, name: &[u8]) -> Sys<bool> {
    const PIECE: usize = 256 << 10;
    let reader = |dir| -> Sys<_> { fs::reopen_read(fs::open_handle(dir, name)?.as_fd()) };
    let (a, b) = (reader(here)?, reader(there)?);
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    loop {
        let n = fs::read_at(a.as_fd(), &mut left, at)?;
        if n != fs::read_at(b.as_fd(), &mut right, at)? || left[..n] != right[..n] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
        at += n as u64;
    }
}

/// Writes the difference as a layer's tree.
pub(super) struct Write<'a> {
    out: BorrowedFd<'a>,
    placer: Option<Placer>,
    /// Directories made on the way, parents first.
    made: Vec<Vec<u8>>,
}

impl<'a> Write<'a> {
    pub(super) fn new(out: BorrowedFd<'a>) -> Self {
        Self { out, placer: Some(Placer::new(Sharing::Copy)), made: Vec::new() }
    }

    /// Makes the directory `path` and those above it.
    fn ensure(&mut self, path: &[u8]) -> Sys<()> {
        let mut at = Vec::new();
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let parent = open(self.out, &at)?;
            at = join(&at, name);
            match fs::make_dir(parent.as_fd(), name, 0o700) {
                Err(e) if e.errno == onggi_sys::Errno::EXIST => {}
                other => {
                    other?;
                    self.made.push(at.clone());
                }
            }
        }
        Ok(())
    }
}

/// Parent and last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

impl Found for Write<'_> {
    fn removed(&mut self, path: &[u8]) -> Sys<()> {
        let (parent, name) = split(path);
        self.ensure(parent)?;
        fs::make_node(open(self.out, parent)?.as_fd(), name, FileType::CharacterDevice, 0, 0)
    }

    fn directory(&mut self, _new: BorrowedFd<'_>, path: &[u8]) -> Sys<()> {
        self.ensure(path)
    }

    fn added(&mut self, new: BorrowedFd<'_>, path: &[u8], stat: &Stat) -> Sys<()> {
        let (parent, name) = split(path);
        self.ensure(parent)?;
        let mut placer = self.placer.take().unwrap_or_else(|| Placer::new(Sharing::Copy));
        let (source, target) = (open(new, parent)?, open(self.out, parent)?);
        let done = if fs::file_type(stat) == FileType::Directory {
            fs::make_dir(target.as_fd(), name, 0o700)?;
            let mut merge = Merge { from: new, to: self.out, marks: Marks::Keep, placer };
            let done = merge.below(path.to_vec());
            placer = merge.placer;
            done
        } else {
            placer.place(source.as_fd(), name, stat, self.out, target.as_fd(), path)
        };
        self.placer = Some(placer);
        done
    }

    fn finish(&mut self, new: BorrowedFd<'_>) -> Sys<()> {
        for path in self.made.iter().rev().chain([&Vec::new()]) {
            let (source, target) = (open(new, path)?, open(self.out, path)?);
            copy::attributes(source.as_fd(), target.as_fd())?;
        }
        Ok(())
    }
}

/// Adds up the contents of the differing files.
#[derive(Default)]
pub(super) struct Sum {
    pub(super) bytes: u64,
}

impl Found for Sum {
    fn removed(&mut self, _path: &[u8]) -> Sys<()> {
        Ok(())
    }

    fn directory(&mut self, _new: BorrowedFd<'_>, _path: &[u8]) -> Sys<()> {
        Ok(())
    }

    fn added(&mut self, new: BorrowedFd<'_>, path: &[u8], stat: &Stat) -> Sys<()> {
        self.bytes += content(stat);
        let mut todo = Vec::new();
        if fs::file_type(stat) == FileType::Directory {
            todo.push(path.to_vec());
        }
        while let Some(path) = todo.pop() {
            for (name, stat) in entries(open(new, &path)?.as_fd())? {
                self.bytes += content(&stat);
                if fs::file_type(&stat) == FileType::Directory {
                    todo.push(join(&path, &name));
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, _new: BorrowedFd<'_>) -> Sys<()> {
        Ok(())
    }
}

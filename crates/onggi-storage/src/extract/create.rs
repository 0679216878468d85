//! One entry to one file, link, device or directory.
//!
//! Per regular file: openat, write, utimensat, fstat, close; fchown and fchmod only when owner or mode differ from what
//! the file was made with. Nothing is opened twice.

use std::os::fd::{AsFd, BorrowedFd};

use onggi_sys::fs::{self, FileType};
use onggi_sys::{Errno, SysError};

use super::dirs::DirMeta;
use super::whiteout::{is_whiteout, set_opaque};
use super::xattr::{self, Policy};
use super::{EntryPath, EntryResult, Extractor, Privilege};
use crate::error::EntryProblem;
use crate::rmtree;
use crate::tar::{Entry, Kind, Source, TarReader};

/// Zeros in a row that become a hole: shorter ones would only scatter a file.
const HOLE: usize = 64 << 10;

/// What was removed to make room.
#[derive(PartialEq, Eq)]
enum Cleared {
    /// A whiteout of this layer: a directory in its place hides lower ones.
    Whiteout,
    /// Anything else.
    Other,
}

impl Extractor {
    pub(super) fn create<S: Source>(
        &mut self,
        tar: &mut TarReader<S>,
        entry: &Entry,
        path: &EntryPath,
    ) -> EntryResult<()> {
        let parent = self.dirs.open(path.parent())?;
        let dir = parent.as_fd();
        match &entry.kind {
            Kind::Directory => self.directory(dir, entry, path),
            Kind::File { .. } => self.file(dir, tar, entry, path.name(), None),
            Kind::Sparse { segments, size } => self.file(dir, tar, entry, path.name(), Some((segments, *size))),
            Kind::Symlink(target) => self.symlink(dir, entry, path.name(), target),
            Kind::HardLink(target) => self.hard_link(dir, path.name(), target),
            Kind::Fifo => self.node(dir, entry, path.name(), FileType::Fifo, 0),
            Kind::Char(major, minor) => {
                self.node(dir, entry, path.name(), FileType::CharacterDevice, fs::makedev(*major, *minor))
            }
            Kind::Block(major, minor) => {
                self.node(dir, entry, path.name(), FileType::BlockDevice, fs::makedev(*major, *minor))
            }
        }
    }

    /// Runs `make`; when something is in the way, removes it and runs `make` again.
    fn replacing<T>(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        make: impl Fn() -> Result<T, SysError>,
    ) -> EntryResult<(T, Option<Cleared>)> {
        match make() {
            Err(e) if e.errno == Errno::EXIST => {
                let cleared = self.clear(dir, name)?;
                Ok((make()?, Some(cleared)))
            }
            other => Ok((other?, None)),
        }
    }

    fn clear(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> EntryResult<Cleared> {
        let stat = fs::stat_at(dir, name)?;
        // Only a directory or a link can be part of a name that was resolved before.
        if matches!(fs::file_type(&stat), FileType::Directory | FileType::Symlink) {
            self.dirs.invalidate();
        }
        rmtree::remove(dir, name)?;
        Ok(if is_whiteout(&stat) { Cleared::Whiteout } else { Cleared::Other })
    }

    fn directory(&mut self, dir: BorrowedFd<'_>, entry: &Entry, path: &EntryPath) -> EntryResult<()> {
        let name = path.name();
        if let Err(e) = fs::make_dir(dir, name, 0o700) {
            if e.errno != Errno::EXIST {
                return Err(e.into());
            }
            if fs::file_type(&fs::stat_at(dir, name)?) != FileType::Directory {
                let cleared = self.clear(dir, name)?;
                fs::make_dir(dir, name, 0o700)?;
                if cleared == Cleared::Whiteout {
                    set_opaque(fs::open_dir_at(dir, name)?.as_fd())?;
                }
            }
        }
        let ino = fs::stat_at(dir, name)?.st_ino;
        self.dirs.describe(path.as_bytes(), entry, ino)
    }

    fn file<S: Source>(
        &mut self,
        dir: BorrowedFd<'_>,
        tar: &mut TarReader<S>,
        entry: &Entry,
        name: &[u8],
        sparse: Option<(&Vec<(u64, u64)>, u64)>,
    ) -> EntryResult<()> {
        // Nobody else can reach the layer before it is complete, so the file may have its mode from the beginning.
        let mode = entry.mode & 0o777;
        let (file, _) = self.replacing(dir, name, || fs::create_file(dir, name, mode))?;
        let fd = file.as_fd();
        let content = match sparse {
            None => Some(copy(tar, fd)?),
            Some((segments, size)) => {
                copy_sparse(tar, fd, segments, size)?;
                None
            }
        };
        if self.must_chown(entry.uid, entry.gid) {
            let done = fs::chown(fd, entry.uid, entry.gid);
            self.tolerate_owner(done)?;
        }
        if !entry.xattrs.is_empty() {
            // An ACL says more than the mode, so the mode comes first.
            fs::chmod(fd, entry.mode)?;
            self.xattrs(entry, |name, value| fs::set_xattr(fd, name, value))?;
        }
        fs::set_times(fd, entry.mtime)?;
        self.complete(fd, entry, content)
    }

    /// The mode, if the file does not have it yet. What is known now need not be looked at again for the layer's record.
    fn complete(&mut self, file: BorrowedFd<'_>, entry: &Entry, content: Option<u32>) -> EntryResult<()> {
        let stat = fs::stat(file)?;
        let plain = entry.xattrs.is_empty();
        let same = stat.st_mode & 0o7777 == entry.mode;
        if plain && !same {
            fs::chmod(file, entry.mode)?;
        }
        match content {
            // What chmod(2) leaves of setuid and setgid depends on our privileges.
            Some(content) if plain && (same || entry.mode & 0o7000 == 0) => {
                self.done.known.remember(&stat, entry.mode, content);
            }
            _ => self.done.known.forget(stat.st_ino),
        }
        Ok(())
    }

    fn symlink(&mut self, dir: BorrowedFd<'_>, entry: &Entry, name: &[u8], target: &[u8]) -> EntryResult<()> {
        self.replacing(dir, name, || fs::make_symlink(target, dir, name))?;
        self.own_at(dir, entry, name)?;
        fs::set_times_at(dir, name, entry.mtime)?;
        self.done.known.remember(&fs::stat_at(dir, name)?, 0o777, crc32fast::hash(target));
        Ok(())
    }

    fn hard_link(&mut self, dir: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> EntryResult<()> {
        let Some(target) = EntryPath::parse(target, EntryProblem::ParentInTarget)? else {
            return Err(EntryProblem::TargetIsDirectory.into());
        };
        let Some(from) = self.dirs.find(target.parent())? else {
            return Err(EntryProblem::TargetMissing.into());
        };
        let from = from.as_fd();
        let stat = match fs::stat_at(from, target.name()) {
            Ok(stat) if is_whiteout(&stat) => return Err(EntryProblem::TargetMissing.into()),
            Ok(stat) => stat,
            Err(e) if e.errno == Errno::NOENT => return Err(EntryProblem::TargetMissing.into()),
            Err(e) => return Err(e.into()),
        };
        if fs::file_type(&stat) == FileType::Directory {
            return Err(EntryProblem::TargetIsDirectory.into());
        }
        // A second link of the same pair (or of a file to itself) must not remove its own target.
        if let Ok(old) = fs::stat_at(dir, name)
            && old.st_ino == stat.st_ino
        {
            return Ok(());
        }
        match self.replacing(dir, name, || fs::make_link(from, target.name(), dir, name)) {
            // What was in the way contained the target.
            Err(super::Failure::System(e)) if e.errno == Errno::NOENT => Err(EntryProblem::TargetMissing.into()),
            other => other.map(|_| ()),
        }
    }

    fn node(
        &mut self,
        dir: BorrowedFd<'_>,
        entry: &Entry,
        name: &[u8],
        kind: FileType,
        dev: fs::Dev,
    ) -> EntryResult<()> {
        let made = self.replacing(dir, name, || fs::make_node(dir, name, kind, 0o600, dev));
        if let Err(super::Failure::System(e)) = &made
            && e.errno == Errno::PERM
            && kind != FileType::Fifo
            && self.options.privilege == Privilege::Limited
        {
            self.done.skipped_devices += 1;
            return Ok(());
        }
        made?;
        self.own_at(dir, entry, name)?;
        let handle = fs::open_handle(dir, name)?;
        fs::chmod_handle(handle.as_fd(), entry.mode)?;
        self.xattrs(entry, |name, value| fs::set_xattr_handle(handle.as_fd(), name, value))?;
        Ok(fs::set_times_at(dir, name, entry.mtime)?)
    }

    fn own_at(&mut self, dir: BorrowedFd<'_>, entry: &Entry, name: &[u8]) -> EntryResult<()> {
        if !self.must_chown(entry.uid, entry.gid) {
            return Ok(());
        }
        let done = fs::chown_at(dir, name, entry.uid, entry.gid);
        self.tolerate_owner(done)
    }

    /// Without full privilege, an owner that is not ours or not mapped stays the caller.
    fn tolerate_owner(&mut self, done: Result<(), SysError>) -> EntryResult<()> {
        match done {
            Err(e) if self.limited() && matches!(e.errno, Errno::PERM | Errno::INVAL) => {
                self.done.skipped_owners += 1;
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// The owner is not what new files have. An ordinary user is the image's root later, in its user namespace.
    fn must_chown(&self, uid: u32, gid: u32) -> bool {
        (uid, gid) != self.own && !(self.limited() && (uid, gid) == (0, 0))
    }

    fn limited(&self) -> bool {
        self.options.privilege == Privilege::Limited
    }

    fn xattrs(&self, entry: &Entry, set: impl Fn(&[u8], &[u8]) -> Result<(), SysError>) -> EntryResult<()> {
        for (name, value) in &entry.xattrs {
            let policy = xattr::policy(name, &entry.kind, !self.limited());
            if policy == Policy::Skip {
                continue;
            }
            match set(name, value) {
                Err(e) if policy == Policy::Try && matches!(e.errno, Errno::PERM | Errno::NOTSUP | Errno::INVAL) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Gives a directory what the archive said about it, if it is still the one that was described; otherwise false.
    pub(super) fn finish_dir(&mut self, path: &[u8], meta: &DirMeta) -> EntryResult<bool> {
        let fd = match self.dirs.find(path)? {
            Some(fd) if fs::stat(fd.as_fd())?.st_ino == meta.ino => fd,
            // Replaced later in the archive.
            _ => return Ok(false),
        };
        // The handle may be O_PATH: reopen it once for all the calls that need more.
        let dir = fs::open_dir_at(fd.as_fd(), b".")?;
        let fd = dir.as_fd();
        if self.must_chown(meta.uid, meta.gid) {
            let done = fs::chown(fd, meta.uid, meta.gid);
            self.tolerate_owner(done)?;
        }
        fs::chmod(fd, meta.mode)?;
        let as_entry = Entry {
            offset: 0,
            path: path.to_vec(),
            kind: Kind::Directory,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            mtime: meta.mtime.unwrap_or_default(),
            xattrs: meta.xattrs.clone(),
        };
        self.xattrs(&as_entry, |name, value| fs::set_xattr(fd, name, value))?;
        if let Some(time) = meta.mtime {
            fs::set_times(fd, time)?;
        }
        Ok(true)
    }
}

/// Writes the content; its CRC-32.
fn copy<S: Source>(tar: &mut TarReader<S>, file: BorrowedFd<'_>) -> EntryResult<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let (mut at, mut hole) = (0, false);
    loop {
        let piece = tar.content()?;
        if piece.is_empty() {
            if hole {
                fs::set_length(file, at)?;
            }
            return Ok(hasher.finalize());
        }
        hole = write_with_holes(file, piece, at)?;
        hasher.update(piece);
        let n = piece.len();
        at += n as u64;
        tar.consume(n);
    }
}

/// Writes what is not zero: a file that was sparse when it was archived is sparse again. True when it ends in a hole.
fn write_with_holes(file: BorrowedFd<'_>, piece: &[u8], at: u64) -> EntryResult<bool> {
    let mut from = 0;
    let mut to = 0;
    while to < piece.len() {
        let end = piece.len().min(to + HOLE);
        let chunk = &piece[to..end];
        if chunk.len() == HOLE && chunk.iter().all(|byte| *byte == 0) {
            fs::write_all_at(file, &piece[from..to], at + from as u64)?;
            from = end;
        }
        to = end;
    }
    fs::write_all_at(file, &piece[from..], at + from as u64)?;
    Ok(from == piece.len())
}

fn copy_sparse<S: Source>(
    tar: &mut TarReader<S>,
    file: BorrowedFd<'_>,
    segments: &[(u64, u64)],
    size: u64,
) -> EntryResult<()> {
    fs::set_length(file, size)?;
    for (offset, length) in segments {
        let mut done = 0;
        while done < *length {
            let piece = tar.content()?;
            let left = usize::try_from(length - done).unwrap_or(usize::MAX);
            let n = piece.len().min(left);
            fs::write_all_at(file, &piece[..n], offset + done)?;
            tar.consume(n);
            done += n as u64;
        }
    }
    Ok(())
}

//! Directories of a layer in the making: opened in-root, created when missing, described at the end.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use onggi_sys::Errno;
use onggi_sys::fs::{self, FileType, Stat, Time};

use super::whiteout::is_whiteout;
use super::{EntryResult, Failure};
use crate::error::EntryProblem;
use crate::limits::{MAX_LINKS, MAX_PENDING_BYTES};
use crate::tar::Entry;

/// Directories kept open. Archives visit one directory after the other, so a few suffice.
const CACHE: usize = 64;

/// What a directory gets at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DirMeta {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time; `None` leaves it.
    pub mtime: Option<Time>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Not described by the archive, and layers below may know better.
    pub implicit: bool,
    /// Inode, to tell a directory from a later one of the same name.
    pub ino: u64,
}

impl DirMeta {
    fn described(entry: &Entry, ino: u64) -> Self {
        let (mode, uid, gid) = (entry.mode, entry.uid, entry.gid);
        Self { mode, uid, gid, mtime: Some(entry.mtime), xattrs: entry.xattrs.clone(), implicit: false, ino }
    }

    fn implicit(ino: u64, inherits: bool) -> Self {
        Self { mode: 0o755, implicit: inherits, ino, ..Self::default() }
    }
}

/// All directories of one unpack.
pub(super) struct Dirs {
    root: Rc<OwnedFd>,
    root_ino: u64,
    cache: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// By inode: the name under which the archive knows it, and what it gets.
    pending: HashMap<u64, (Vec<u8>, DirMeta)>,
    pending_bytes: usize,
    made: u64,
}

impl Dirs {
    pub(super) fn new(root: OwnedFd, stat: &Stat) -> Self {
        let mut dirs = Self {
            root: Rc::new(root),
            root_ino: stat.st_ino,
            cache: HashMap::new(),
            pending: HashMap::new(),
            pending_bytes: 0,
            made: 0,
        };
        dirs.pending.insert(stat.st_ino, (Vec::new(), DirMeta::implicit(stat.st_ino, true)));
        dirs
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Directories made for missing parents.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// The directory `path` (normalised), links resolved in-root, missing parts created.
    pub(super) fn open(&mut self, path: &[u8]) -> EntryResult<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(fd) = self.cache.get(path) {
            return Ok(Rc::clone(fd));
        }
        let fd = match fs::open_dir_in_root(self.root(), path) {
            Ok(fd) => fd,
            Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR) => self.make(path)?,
            Err(e) if e.errno == Errno::LOOP => return Err(EntryProblem::LinkLoop.into()),
            Err(e) => return Err(e.into()),
        };
        if self.cache.len() >= CACHE {
            self.cache.clear();
        }
        let fd = Rc::new(fd);
        self.cache.insert(path.to_vec(), Rc::clone(&fd));
        Ok(fd)
    }

    /// The existing directory `path`; `None` when a part is missing or no directory.
    pub(super) fn find(&self, path: &[u8]) -> EntryResult<Option<Rc<OwnedFd>>> {
        if path.is_empty() {
            return Ok(Some(Rc::clone(&self.root)));
        }
        if let Some(fd) = self.cache.get(path) {
            return Ok(Some(Rc::clone(fd)));
        }
        match fs::open_dir_in_root(self.root(), path) {
            Ok(fd) => Ok(Some(Rc::new(fd))),
            Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Forgets what was opened: a directory or a link on the way has been replaced.
    pub(super) fn invalidate(&mut self) {
        self.cache.clear();
    }

    /// The archive describes the root.
    pub(super) fn describe_root(&mut self, entry: &Entry) -> EntryResult<()> {
        self.remember(&[], DirMeta::described(entry, self.root_ino))
    }

    /// The archive describes a directory that exists now.
    pub(super) fn describe(&mut self, path: &[u8], entry: &Entry, ino: u64) -> EntryResult<()> {
        self.remember(path, DirMeta::described(entry, ino))
    }

    fn remember(&mut self, path: &[u8], meta: DirMeta) -> EntryResult<()> {
        let xattrs: usize = meta.xattrs.iter().map(|(n, v)| n.len() + v.len()).sum();
        self.pending_bytes += path.len() + xattrs + size_of::<DirMeta>();
        if self.pending_bytes > MAX_PENDING_BYTES {
            return Err(EntryProblem::TooManyEntries.into());
        }
        self.pending.insert(meta.ino, (path.to_vec(), meta));
        Ok(())
    }

    /// Everything to be described, deepest first, so that a closed directory never hides one still to do.
    pub(super) fn take_pending(&mut self) -> Vec<(Vec<u8>, DirMeta)> {
        let mut all: Vec<_> = std::mem::take(&mut self.pending).into_values().collect();
        let depth = |path: &[u8]| if path.is_empty() { 0 } else { 1 + path.iter().filter(|b| **b == b'/').count() };
        all.sort_by_cached_key(|(path, _)| (Reverse(depth(path)), path.clone()));
        all
    }

    /// Walks `path` component by component, follows links in-root and creates what is missing.
    fn make(&mut self, path: &[u8]) -> EntryResult<OwnedFd> {
        let mut walk = Walk { current: reopen(self.root(), b"")?, real: Vec::new(), links: 0, todo: VecDeque::new() };
        walk.push_front(path);
        while let Some(component) = walk.todo.pop_front() {
            match component.as_slice() {
                b"" | b"." => {}
                b".." => walk.leave(self.root())?,
                name => match fs::open_dir_at(walk.current.as_fd(), name) {
                    Ok(fd) => walk.enter(fd, name),
                    Err(e) if e.errno == Errno::NOENT => {
                        self.make_implicit(&mut walk, name, true)?;
                    }
                    Err(e) if matches!(e.errno, Errno::NOTDIR | Errno::LOOP) => self.obstacle(&mut walk, name)?,
                    Err(e) => return Err(e.into()),
                },
            }
        }
        Ok(walk.current)
    }

    /// Something that is no directory is in the way: a link is followed, a whiteout of this layer gives way.
    fn obstacle(&mut self, walk: &mut Walk, name: &[u8]) -> EntryResult<()> {
        let stat = fs::stat_at(walk.current.as_fd(), name)?;
        if is_whiteout(&stat) {
            fs::unlink(walk.current.as_fd(), name)?;
            return self.make_implicit(walk, name, false);
        }
        if fs::file_type(&stat) != FileType::Symlink {
            return Err(EntryProblem::ParentNotDirectory.into());
        }
        walk.links += 1;
        if walk.links > MAX_LINKS {
            return Err(EntryProblem::LinkLoop.into());
        }
        let target = fs::read_link(walk.current.as_fd(), name)?;
        if target.starts_with(b"/") {
            walk.current = reopen(self.root(), b"")?;
            walk.real.clear();
        }
        walk.push_front(&target);
        Ok(())
    }

    /// Makes a directory that the archive has not described (yet). `inherits`: layers below may describe it.
    fn make_implicit(&mut self, walk: &mut Walk, name: &[u8], inherits: bool) -> EntryResult<()> {
        fs::make_dir(walk.current.as_fd(), name, 0o700)?;
        self.made += 1;
        let fd = fs::open_dir_at(walk.current.as_fd(), name)?;
        let ino = fs::stat(fd.as_fd())?.st_ino;
        walk.enter(fd, name);
        if !inherits {
            super::whiteout::set_opaque(walk.current.as_fd())?;
        }
        let real = walk.real.clone();
        self.remember(&real, DirMeta::implicit(ino, inherits))
    }
}

/// A walk from the root: where it is and what is left. Only one directory is open at a time.
struct Walk {
    current: OwnedFd,
    real: Vec<u8>,
    links: usize,
    todo: VecDeque<Vec<u8>>,
}

impl Walk {
    fn push_front(&mut self, path: &[u8]) {
        for component in path.split(|b| *b == b'/').rev() {
            self.todo.push_front(component.to_vec());
        }
    }

    fn enter(&mut self, fd: OwnedFd, name: &[u8]) {
        if !self.real.is_empty() {
            self.real.push(b'/');
        }
        self.real.extend_from_slice(name);
        self.current = fd;
    }

    /// `..`; at the root it stays there.
    fn leave(&mut self, root: BorrowedFd<'_>) -> Result<(), Failure> {
        let end = self.real.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.real.truncate(end);
        self.current = reopen(root, &self.real)?;
        Ok(())
    }
}

fn reopen(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Failure> {
    Ok(fs::open_dir_in_root(root, if path.is_empty() { b"." } else { path })?)
}

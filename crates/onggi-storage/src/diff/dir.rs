//! Stacked directories, read as overlayfs shows them.
//!
//! overlayfs.rst: a name in an upper directory hides the same name below, unless both are directories, which are
//! merged; a character device 0:0 (or an empty file marked `overlay.whiteout`) hides what is below; `overlay.opaque`
//! hides all below a directory; `overlay.redirect` says under which name the layers below have it; `overlay.metacopy`
//! says that the data is below.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use onggi_sys::fs::{self, FileType, Stat};
use onggi_sys::{Errno, SysError};

use crate::error::{Result, StoreContext};
use crate::whiteout_of::{is_opaque, is_whiteout};

/// A redirect longer than this is none: `PATH_MAX`.
const MAX_REDIRECT: usize = 4095;
/// Redirects that follow each other through the layers for one name.
const MAX_HOPS: usize = 64;

/// Directories that together are one tree, topmost first.
#[derive(Debug, Clone)]
pub struct Tree {
    roots: Vec<Rc<OwnedFd>>,
    /// Number of the topmost root: two trees that share layers number them alike.
    first: usize,
}

/// One directory of a tree: the parts of it that layers hold, topmost first.
#[derive(Debug, Clone)]
pub(super) struct Dir {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    layer: usize,
    fd: Rc<OwnedFd>,
}

/// What a name in a directory means.
#[derive(Debug)]
pub(super) struct Found {
    /// `O_PATH` handle on what has the attributes.
    pub(super) handle: OwnedFd,
    pub(super) stat: Stat,
    /// The directory that holds it, and its name there: for reading a link.
    pub(super) parent: Rc<OwnedFd>,
    /// Where the data is, when it is not where the attributes are (`metacopy`).
    pub(super) data: Option<OwnedFd>,
    /// For a directory.
    pub(super) dir: Option<Dir>,
}

type Sys<T> = std::result::Result<T, SysError>;

impl Tree {
    /// Opens the directories of a tree, topmost first.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub fn open<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self> {
        let open = |path: P| fs::open_dir(path.as_ref()).map(Rc::new).store("open", path.as_ref());
        Ok(Self { roots: paths.into_iter().map(open).collect::<Result<_>>()?, first: 0 })
    }

    /// A tree without anything in it.
    pub fn empty() -> Self {
        Self { roots: Vec::new(), first: 0 }
    }

    /// The tree without its topmost `count` directories, which it goes on sharing with this one.
    #[must_use]
    pub fn below(&self, count: usize) -> Self {
        let roots = self.roots.iter().skip(count).cloned().collect();
        Self { roots, first: self.first + count }
    }

    /// The root: merged whatever its attributes say, as overlayfs does. `None` for an empty tree.
    pub(super) fn root(&self) -> Sys<Option<Found>> {
        let parts: Vec<Part> =
            self.roots.iter().enumerate().map(|(at, fd)| Part { layer: self.first + at, fd: fd.clone() }).collect();
        let Some(top) = parts.first() else { return Ok(None) };
        let handle = fs::open_handle(top.fd.as_fd(), b".")?;
        let stat = fs::stat(handle.as_fd())?;
        Ok(Some(Found { handle, stat, parent: top.fd.clone(), data: None, dir: Some(Dir { parts }) }))
    }

    /// What `name` means in `dir`; `None` when nothing does, or a whiteout hides it.
    pub(super) fn entry(&self, dir: &Dir, name: &[u8]) -> Sys<Option<Found>> {
        let mut hit: Option<Found> = None;
        // Where the layers below have it: (directories to look in, name).
        let mut todo: Vec<Part> = dir.parts.iter().rev().cloned().collect();
        let mut name = name.to_vec();
        let mut hops = 0;
        while let Some(part) = todo.pop() {
            let Some((handle, stat)) = look(&part, &name)? else { continue };
            if is_hidden(handle.as_fd(), &stat)? {
                break;
            }
            let directory = fs::file_type(&stat) == FileType::Directory;
            let redirect = redirect(handle.as_fd(), &stat)?;
            let done;
            match &mut hit {
                None if directory => {
                    done = is_opaque(handle.as_fd())?;
                    let parts = vec![sub(&part, &name)?];
                    hit = Some(Found { handle, stat, parent: part.fd.clone(), data: None, dir: Some(Dir { parts }) });
                }
                None => {
                    done = !is_metacopy(handle.as_fd(), &stat)?;
                    hit = Some(Found { handle, stat, parent: part.fd.clone(), data: None, dir: None });
                }
                Some(Found { dir: Some(merged), .. }) if directory => {
                    done = is_opaque(handle.as_fd())?;
                    merged.parts.push(sub(&part, &name)?);
                }
                Some(upper) if upper.dir.is_none() && fs::file_type(&stat) == FileType::RegularFile => {
                    done = !is_metacopy(handle.as_fd(), &stat)?;
                    upper.data = Some(handle);
                }
                // A file below a directory, or a directory below a file.
                Some(_) => break,
            }
            if done {
                break;
            }
            if let Some(target) = redirect
                && hops < MAX_HOPS
            {
                hops += 1;
                (todo, name) = self.follow(dir, part.layer, &target, &name)?;
            }
        }
        Ok(hit)
    }

    /// Where the layers below `layer` have what is called `target` there: a name in the same directory, or, with a
    /// leading slash, a path from their roots.
    fn follow(&self, dir: &Dir, layer: usize, target: &[u8], name: &[u8]) -> Sys<(Vec<Part>, Vec<u8>)> {
        let Some(path) = target.strip_prefix(b"/") else {
            let parts = dir.parts.iter().rev().filter(|p| p.layer > layer).cloned().collect();
            return Ok((parts, target.to_vec()));
        };
        let (parent, last) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        if last.is_empty() || last == b"." || last == b".." {
            return Ok((Vec::new(), name.to_vec()));
        }
        let mut parts = Vec::new();
        for (at, root) in self.roots.iter().enumerate().filter(|(at, _)| self.first + at > layer) {
            let found = descend(root, parent)?;
            parts.extend(found.map(|fd| Part { layer: self.first + at, fd }));
        }
        parts.reverse();
        Ok((parts, last.to_vec()))
    }
}

impl Dir {
    /// Names in the parts that `other` does not share, or, when `other` is something else below, in all: only these can
    /// differ. `true` with it when the rest is shared.
    pub(super) fn names(&self, other: Option<&Dir>) -> Sys<(BTreeMap<Vec<u8>, ()>, bool)> {
        let shared = other.filter(|o| self.ends_with(o)).map(|o| o.parts.len());
        let own = &self.parts[..self.parts.len() - shared.unwrap_or(0)];
        let mut names = BTreeMap::new();
        for part in own {
            let fd = fs::open_dir_at(part.fd.as_fd(), b".")?;
            for entry in fs::read_dir(fd.as_fd())? {
                names.insert(entry?.0, ());
            }
        }
        Ok((names, shared.is_some()))
    }

    /// True when the lower parts of this directory are the very parts of `other`.
    fn ends_with(&self, other: &Dir) -> bool {
        let Some(skip) = self.parts.len().checked_sub(other.parts.len()) else { return false };
        let same = |a: &Part, b: &Part| {
            a.layer == b.layer
                && match (fs::stat(a.fd.as_fd()), fs::stat(b.fd.as_fd())) {
                    (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
                    _ => false,
                }
        };
        !other.parts.is_empty() && self.parts[skip..].iter().zip(&other.parts).all(|(a, b)| same(a, b))
    }
}

/// The name in one layer; `None` when that layer says nothing about it.
fn look(part: &Part, name: &[u8]) -> Sys<Option<(OwnedFd, Stat)>> {
    match fs::open_handle(part.fd.as_fd(), name) {
        Ok(handle) => {
            let stat = fs::stat(handle.as_fd())?;
            Ok(Some((handle, stat)))
        }
        Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

fn sub(part: &Part, name: &[u8]) -> Sys<Part> {
    Ok(Part { layer: part.layer, fd: Rc::new(fs::open_handle(part.fd.as_fd(), name)?) })
}

/// Down from a layer's root by plain names; links and files on the way end it.
fn descend(root: &Rc<OwnedFd>, path: &[u8]) -> Sys<Option<Rc<OwnedFd>>> {
    let mut at = root.clone();
    for name in path.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
        if name == b"." || name == b".." {
            return Ok(None);
        }
        match fs::open_handle(at.as_fd(), name) {
            Ok(next) if fs::file_type(&fs::stat(next.as_fd())?) == FileType::Directory => at = Rc::new(next),
            Ok(_) => return Ok(None),
            Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Ok(Some(at))
}

fn is_hidden(handle: std::os::fd::BorrowedFd<'_>, stat: &Stat) -> Sys<bool> {
    if is_whiteout(stat) {
        return Ok(true);
    }
    let empty = fs::file_type(stat) == FileType::RegularFile && stat.st_size == 0;
    Ok(empty && mark(handle, "whiteout")?.is_some())
}

fn is_metacopy(handle: std::os::fd::BorrowedFd<'_>, stat: &Stat) -> Sys<bool> {
    Ok(fs::file_type(stat) == FileType::RegularFile && mark(handle, "metacopy")?.is_some())
}

fn redirect(handle: std::os::fd::BorrowedFd<'_>, stat: &Stat) -> Sys<Option<Vec<u8>>> {
    match fs::file_type(stat) {
        FileType::Directory | FileType::RegularFile => {
            let usable = |v: &Vec<u8>| !v.is_empty() && v.len() <= MAX_REDIRECT && !v.contains(&0);
            let plain = |v: &Vec<u8>| v.starts_with(b"/") || !(v.contains(&b'/') || v == b"." || v == b"..");
            Ok(mark(handle, "redirect")?.filter(|v| usable(v) && plain(v)))
        }
        _ => Ok(None),
    }
}

/// An attribute of overlayfs, in whichever of its two namespaces it is.
fn mark(handle: std::os::fd::BorrowedFd<'_>, name: &str) -> Sys<Option<Vec<u8>>> {
    for space in ["trusted.overlay.", "user.overlay."] {
        if let Some(value) = fs::get_xattr_handle(handle, format!("{space}{name}").as_bytes())? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

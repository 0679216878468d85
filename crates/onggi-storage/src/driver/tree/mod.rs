//! Whole trees: what the drivers that keep them share.
//!
//! Works by descriptors below two roots, one directory at a time, so neither the stack nor the descriptor table grows
//! with depth; follows no link and enters no mount. Directories get their own attributes last, deepest first.

mod copy;
mod difference;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use onggi_sys::fs::{self, FileType, Time};
use onggi_sys::{Errno, SysError};

use super::{Changes, temporary};
use crate::error::{Result, StoreContext};
use crate::extract::Privilege;
use crate::rmtree;
use crate::whiteout_of::{is_opaque, is_whiteout};
use copy::Placer;

/// A layer's whole tree: this layer above all those below it.
pub(crate) const TREE: &str = "tree";
/// A container's root filesystem.
pub(crate) const ROOTFS: &str = "rootfs";
/// Written when a container's root filesystem is complete; its time tells what was changed since.
pub(crate) const MADE: &str = "made";

/// How a file gets into another tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// As a hard link: for trees that are never written.
    Link,
    /// As a file of its own, with shared extents where possible.
    Copy,
}

/// What overlayfs's marks mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// They remove what is in the target.
    Apply,
    /// There are none.
    Keep,
}

type Sys<T> = std::result::Result<T, SysError>;

/// Brings everything in `from` into `to`, over what is there.
///
/// # Errors
/// The filesystem fails.
pub(crate) fn merge(from: &Path, to: &Path, sharing: Sharing, marks: Marks) -> Result<()> {
    let source = fs::open_dir(from).store("open", from)?;
    let target = fs::open_dir(to).store("open", to)?;
    let mut merge = Merge { from: source.as_fd(), to: target.as_fd(), marks, placer: Placer::new(sharing) };
    merge.below(Vec::new()).store("copy to", to)
}

pub(super) struct Merge<'a> {
    pub(super) from: BorrowedFd<'a>,
    pub(super) to: BorrowedFd<'a>,
    pub(super) marks: Marks,
    pub(super) placer: Placer,
}

impl Merge<'_> {
    /// The directory `top` (empty: the root) with everything in it; it exists on both sides.
    pub(super) fn below(&mut self, top: Vec<u8>) -> Sys<()> {
        let mut todo = vec![top];
        let mut visited = Vec::new();
        while let Some(path) = todo.pop() {
            let (source, target) = (open(self.from, &path)?, open(self.to, &path)?);
            if Privilege::of_this_process() == Privilege::Limited {
                fs::chmod(target.as_fd(), 0o700)?;
            }
            if self.marks == Marks::Apply && is_opaque(source.as_fd())? {
                empty(target.as_fd())?;
            }
            for entry in fs::read_dir(source.as_fd())? {
                let (name, _) = entry?;
                if self.entry(source.as_fd(), target.as_fd(), &path, &name)? {
                    todo.push(join(&path, &name));
                }
            }
            visited.push(path);
        }
        for path in visited.iter().rev() {
            let (source, target) = (open(self.from, path)?, open(self.to, path)?);
            copy::attributes(source.as_fd(), target.as_fd())?;
        }
        Ok(())
    }

    /// One name; true for a directory, which is then yet to be filled.
    fn entry(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &[u8], name: &[u8]) -> Sys<bool> {
        let stat = fs::stat_at(source, name)?;
        if self.marks == Marks::Apply && is_whiteout(&stat) {
            rmtree::remove(target, name)?;
            return Ok(false);
        }
        if fs::file_type(&stat) != FileType::Directory {
            let place = |placer: &mut Placer| placer.place(source, name, &stat, self.to, target, &join(path, name));
            match place(&mut self.placer) {
                Err(e) if e.errno == Errno::EXIST => {
                    rmtree::remove(target, name)?;
                    place(&mut self.placer)?;
                }
                other => other?,
            }
            return Ok(false);
        }
        match fs::make_dir(target, name, 0o700) {
            Err(e) if e.errno == Errno::EXIST => {
                if fs::file_type(&fs::stat_at(target, name)?) != FileType::Directory {
                    rmtree::remove(target, name)?;
                    fs::make_dir(target, name, 0o700)?;
                }
            }
            other => other?,
        }
        Ok(true)
    }
}

/// Removes everything in a directory.
fn empty(dir: BorrowedFd<'_>) -> Sys<()> {
    for entry in fs::read_dir(dir)? {
        let (name, _) = entry?;
        rmtree::remove(dir, &name)?;
    }
    Ok(())
}

pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// The directory `path` below a root, without following links.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8]) -> Sys<OwnedFd> {
    fs::open_dir_same_mount(root, if path.is_empty() { b"." } else { path })
}

/// Records that a container's root filesystem is complete.
///
/// # Errors
/// The file cannot be made.
pub(crate) fn mark_made(dir: &Path, rootfs: &Path) -> Result<()> {
    let parent = fs::open_dir(dir).store("open", dir)?;
    match fs::create_file(parent.as_fd(), MADE.as_bytes(), 0o600) {
        Err(e) if e.errno != Errno::EXIST => Err(e).store("mark", rootfs),
        _ => Ok(()),
    }
}

/// When the container's root filesystem was complete, by the clock of its filesystem.
fn made_at(dir: BorrowedFd<'_>) -> Sys<Time> {
    let stat = fs::stat_at(dir, MADE.as_bytes())?;
    Ok(Time { sec: stat.st_ctime, nsec: stat.st_ctime_nsec as u32 })
}

/// What the container in `dir` changed, written out as a tree with marks in `tmp/`.
///
/// # Errors
/// The filesystem fails.
pub(crate) fn changes(root: &Path, dir: &Path, layer: Option<&Path>) -> Result<Changes> {
    let (temporary, path) = temporary(root)?;
    let upper = path.join("upper");
    crate::make_dir(&upper, 0o755)?;
    let out = fs::open_dir(&upper).store("open", &upper)?;
    compare(dir, layer, &mut difference::Write::new(out.as_fd()))?;
    Ok(Changes { upper, temporary: Some(temporary) })
}

/// Bytes of the files that differ from the layer's.
///
/// # Errors
/// The filesystem fails.
pub(crate) fn usage(dir: &Path, layer: Option<&Path>) -> Result<u64> {
    let mut sum = difference::Sum::default();
    compare(dir, layer, &mut sum)?;
    Ok(sum.bytes)
}

fn compare(dir: &Path, layer: Option<&Path>, found: &mut dyn difference::Found) -> Result<()> {
    let container = fs::open_dir(dir).store("open", dir)?;
    let (new_path, old_path) = (dir.join(ROOTFS), layer.map(|layer| layer.join(TREE)));
    let new = fs::open_dir(&new_path).store("open", &new_path)?;
    let old = old_path.as_ref().map(|path| fs::open_dir(path).store("open", path)).transpose()?;
    let since = made_at(container.as_fd()).store("read", dir)?;
    let old = old.as_ref().map(AsFd::as_fd);
    difference::find(new.as_fd(), old, since, found).store("compare", &new_path)
}

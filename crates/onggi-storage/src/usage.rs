//! How much a tree contains.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use onggi_sys::fs::{self, FileType, Stat};
use onggi_sys::{Errno, SysError};

use crate::error::{Result, StoreContext};

/// Bytes of the files below `path`, hard links counted once; directories, devices and the like have none, as Docker and Podman
/// count: a tree without files is 0 bytes on every filesystem. Stays on one mount, follows no link; what disappears
/// meanwhile is not counted.
///
/// # Errors
/// A directory cannot be read.
pub(crate) fn contents(path: &Path) -> Result<u64> {
    let top = fs::open_dir(path).store("open", path)?;
    walk(top).store("read", path)
}

/// Bytes of what is no directory itself.
pub(crate) fn content(stat: &Stat) -> u64 {
    match fs::file_type(stat) {
        FileType::RegularFile | FileType::Symlink => stat.st_size.cast_unsigned(),
        _ => 0,
    }
}

/// Directories waiting to be read, held open.
const MAX_OPEN: usize = 256;

fn walk(top: OwnedFd) -> std::result::Result<u64, SysError> {
    let mut total = 0;
    let mut linked = HashSet::new();
    let mut todo = VecDeque::from([top]);
    while let Some(dir) = todo.pop_back() {
        for entry in fs::read_dir(dir.as_fd())? {
            let (name, _) = entry?;
            let stat = match fs::stat_at(dir.as_fd(), &name) {
                Err(e) if e.errno == Errno::NOENT => continue,
                other => other?,
            };
            let is_dir = fs::file_type(&stat) == FileType::Directory;
            if !is_dir && stat.st_nlink > 1 && !linked.insert(stat.st_ino) {
                continue;
            }
            total += content(&stat);
            if !is_dir {
                continue;
            }
            match fs::open_dir_same_mount(dir.as_fd(), &name) {
                // Very wide trees: go down now rather than hold more descriptors.
                Ok(child) if todo.len() >= MAX_OPEN => total += walk(child)?,
                Ok(child) => todo.push_back(child),
                Err(e) if matches!(e.errno, Errno::NOENT | Errno::XDEV) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(total)
}

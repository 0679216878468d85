//! Directories that a layer's archive does not describe take their attributes from the layers below.
//!
//! overlayfs shows the attributes of the topmost directory of a name. An archive that holds `tmp/x` but no `tmp/` would
//! otherwise turn the image's `/tmp` (1777) into one of mode 0755.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use onggi_sys::fs::{self, FileType, Time};
use onggi_sys::{Errno, SysError};

use crate::error::{Result, StoreContext};
use crate::extract::Privilege;
use crate::whiteout_of;

/// Copies mode, owner, times and attributes of each of `paths` from the topmost of `below` that has it.
///
/// # Errors
/// A directory of the layer or of those below cannot be read or changed.
pub(crate) fn attributes(layer: &Path, below: &[PathBuf], paths: &[Vec<u8>], privilege: Privilege) -> Result<()> {
    let top = fs::open_dir(layer).store("open", layer)?;
    let mut roots = Vec::new();
    for path in below {
        roots.push(fs::open_dir(path).store("open", path)?);
    }
    // Deepest first, so that a directory that becomes read-only never hides one still to do.
    for path in paths.iter().rev() {
        if hides(top.as_fd(), path).store("read", layer)? {
            continue;
        }
        if let Some(source) = topmost(&roots, path).store("read", layer)? {
            copy(top.as_fd(), path, source.as_fd(), privilege).store("change", layer)?;
        }
    }
    Ok(())
}

/// Whether a directory of the layer itself, above `path`, is opaque: then nothing of those below shows in it.
fn hides(top: BorrowedFd<'_>, path: &[u8]) -> std::result::Result<bool, SysError> {
    let mut at = fs::open_handle(top, b".")?;
    for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
        if whiteout_of::is_opaque(at.as_fd())? {
            return Ok(true);
        }
        at = fs::open_handle(at.as_fd(), name)?;
    }
    Ok(false)
}

/// The directory `path` as the layers below show it; `None` where they hide or lack it.
fn topmost(roots: &[OwnedFd], path: &[u8]) -> std::result::Result<Option<OwnedFd>, SysError> {
    for root in roots {
        let mut at = fs::open_handle(root.as_fd(), b".")?;
        let (mut found, mut last) = (true, false);
        for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            // Something hidden or replaced here hides everything further down.
            last |= whiteout_of::is_opaque(at.as_fd())?;
            match fs::open_handle(at.as_fd(), name) {
                Ok(next) if fs::file_type(&fs::stat(next.as_fd())?) == FileType::Directory => at = next,
                Ok(_) => return Ok(None),
                Err(e) if e.errno == Errno::NOENT && last => return Ok(None),
                Err(e) if e.errno == Errno::NOENT => {
                    found = false;
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        if found {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn copy(
    top: BorrowedFd<'_>,
    path: &[u8],
    source: BorrowedFd<'_>,
    privilege: Privilege,
) -> std::result::Result<(), SysError> {
    let stat = fs::stat(source)?;
    let target = fs::open_dir_in_root(top, if path.is_empty() { b"." } else { path })?;
    let target = fs::open_dir_at(target.as_fd(), b".")?;
    let owned = fs::chown(target.as_fd(), stat.st_uid, stat.st_gid);
    if privilege == Privilege::Full {
        owned?;
    }
    fs::chmod(target.as_fd(), stat.st_mode & 0o7777)?;
    for name in fs::list_xattr_handle(source)? {
        let ours = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
        if ours
            && !name.starts_with(b"user.overlay.")
            && let Some(value) = fs::get_xattr_handle(source, &name)?
        {
            fs::set_xattr(target.as_fd(), &name, &value)?;
        }
    }
    fs::set_times(target.as_fd(), Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 })
}

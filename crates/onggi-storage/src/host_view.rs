//! `host:` without privilege: the machine's root in pieces.
//!
//! In a user namespace every mount that was there before is locked to the one above it, and overlayfs refuses a
//! lower directory that has such mounts below (clone_private_mount, `has_locked_children`, in fs/namespace.c). `/`
//! always has some. So the view's own root is a small skeleton of directories, links and short files, and every
//! directory below which nothing is mounted gets an overlay of its own.

use std::fs::{self, DirBuilder, FileType};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use onggi_sys::{Errno, SysError};

use crate::error::{Result, StorageError};

/// A file directly below a directory with mounts is copied up to this size: markers and settings, not data.
const MAX_COPY: u64 = 1 << 20;
/// Directories deeper than any mount table of a sane host are not taken apart.
const MAX_DEPTH: usize = 64;

/// What is mounted on the host.
#[derive(Debug, Clone, Copy)]
pub struct HostMounts<'a> {
    /// Every mount point.
    pub all: &'a [PathBuf],
    /// Those that hold a filesystem on a disk or on a network, outermost first.
    pub real: &'a [PathBuf],
}

impl HostMounts<'_> {
    fn any_below(&self, path: &Path) -> bool {
        self.all.iter().any(|m| m != path && m.starts_with(path))
    }

    fn is_virtual(&self, path: &Path) -> bool {
        self.all.iter().any(|m| m == path) && !self.real.iter().any(|m| m == path)
    }
}

/// Names what was done, and to what, when std's error says neither.
fn at(action: &'static str, call: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StorageError {
    let path = path.to_path_buf();
    move |e| {
        let errno = Errno::from_raw_os_error(e.raw_os_error().unwrap_or(5));
        let source = SysError::new(call, format!("{path:?}"), errno);
        StorageError::Store { action, path, source }
    }
}

/// Fills `skeleton` and returns the directories that an overlay is to be mounted on, outermost first.
///
/// # Errors
/// The host's root cannot be listed, or the skeleton cannot be written.
pub(crate) fn lay_out(skeleton: &Path, mounts: HostMounts<'_>) -> Result<Vec<PathBuf>> {
    let mut overlays = Vec::new();
    take_apart(Path::new("/"), skeleton, mounts, 0, &mut overlays)?;
    overlays.sort();
    Ok(overlays)
}

fn take_apart(
    dir: &Path,
    copy: &Path,
    mounts: HostMounts<'_>,
    depth: usize,
    overlays: &mut Vec<PathBuf>,
) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(at("list", "getdents64", dir))? {
        let entry = entry.map_err(at("list", "getdents64", dir))?;
        let (path, to) = (entry.path(), copy.join(entry.file_name()));
        let kind = entry.file_type().map_err(at("read", "statx", &path))?;
        let made = if kind.is_dir() { make_like(&path, &to) } else { copy_small(&path, &to, kind) };
        match made {
            // It went away since the directory was read.
            Err(StorageError::Store { source, .. }) if source.errno == Errno::NOENT => continue,
            other => other?,
        }
        if !kind.is_dir() {
            continue;
        }
        if mounts.is_virtual(&path) || !readable(&path) {
            continue;
        }
        if !mounts.any_below(&path) {
            overlays.push(path);
        } else if depth < MAX_DEPTH {
            take_apart(&path, &to, mounts, depth + 1, overlays)?;
        }
    }
    Ok(())
}

/// A directory that we may not list is shown empty, and is then ours: `/root` becomes a usable home.
fn readable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

fn make_like(path: &Path, to: &Path) -> Result<()> {
    let mode = fs::symlink_metadata(path).map_err(at("read", "statx", path))?.permissions().mode() & 0o7777;
    DirBuilder::new().mode(0o700).create(to).map_err(at("create", "mkdir", to))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode | 0o700)).map_err(at("change", "chmod", to))
}

/// Links and short files; what cannot be read is left out, as it would be unreadable in the view too.
fn copy_small(path: &Path, to: &Path, kind: FileType) -> Result<()> {
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(at("read", "readlink", path))?;
        return symlink(target, to).map_err(at("create", "symlink", to));
    }
    let small = fs::symlink_metadata(path).is_ok_and(|m| m.len() <= MAX_COPY);
    if kind.is_file() && small && rustix::fs::access(path, rustix::fs::Access::READ_OK).is_ok() {
        fs::copy(path, to).map_err(at("copy to", "copy_file_range", to))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_with_mounts_below_are_taken_apart_and_virtual_ones_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (host, view) = (dir.path().join("host"), dir.path().join("view"));
        for d in ["usr/bin", "var/lib/data", "var/log", "proc/1"] {
            fs::create_dir_all(host.join(d)).unwrap();
        }
        fs::create_dir(&view).unwrap();
        symlink("usr/bin", host.join("bin")).unwrap();
        fs::write(host.join("note"), "x").unwrap();
        let all = [host.join("proc"), host.join("var/lib/data")];
        let real = [host.join("var/lib/data")];
        let mut overlays = Vec::new();
        take_apart(&host, &view, HostMounts { all: &all, real: &real }, 0, &mut overlays).unwrap();
        overlays.sort();
        assert_eq!(overlays, [host.join("usr"), host.join("var/lib/data"), host.join("var/log")]);
        assert_eq!(fs::read_link(view.join("bin")).unwrap(), Path::new("usr/bin"));
        assert_eq!(fs::read_to_string(view.join("note")).unwrap(), "x");
        assert_eq!(fs::read_dir(view.join("proc")).unwrap().count(), 0);
    }
}

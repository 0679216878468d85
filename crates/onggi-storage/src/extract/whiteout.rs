//! Whiteouts of an image layer to those of overlayfs.
//!
//! Hidden names become character devices 0:0, which any user may create since Linux 5.8, so the attribute form
//! (6.7) that avoids mknod is not needed even without root. Whole directories are hidden by the attribute `opaque`
//! in both of its namespaces: `trusted.` for mounts by root, `user.` for mounts inside a user namespace.
//!
//! A whiteout hides layers *below* only, wherever it stands in the archive (image-spec, "Whiteouts").

use std::os::fd::BorrowedFd;

use onggi_sys::fs::{self, FileType, Stat};
use onggi_sys::{Errno, SysError};

use super::{EntryPath, EntryResult, Extractor};
use crate::error::EntryProblem;
use crate::tar::Kind;

/// The attribute in the namespace that only root may write.
pub(crate) const OPAQUE_TRUSTED: &[u8] = b"trusted.overlay.opaque";
/// The attribute for mounts with `userxattr`.
pub(crate) const OPAQUE_USER: &[u8] = b"user.overlay.opaque";

/// An overlay whiteout: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    fs::file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// aufs made whiteouts as hard links of each other, everyone else as empty files.
pub(super) fn check_type(kind: &Kind) -> Result<(), EntryProblem> {
    match kind {
        Kind::File { .. } | Kind::HardLink(_) => Ok(()),
        _ => Err(EntryProblem::WhiteoutType),
    }
}

/// Marks a directory, through a real or an `O_PATH` descriptor, as hiding what layers below have in it.
pub(super) fn set_opaque(dir: BorrowedFd<'_>) -> Result<(), SysError> {
    fs::set_xattr_handle(dir, OPAQUE_USER, b"y")?;
    match fs::set_xattr_handle(dir, OPAQUE_TRUSTED, b"y") {
        // Without root only `userxattr` mounts are possible anyway.
        Err(e) if matches!(e.errno, Errno::PERM | Errno::NOTSUP) => Ok(()),
        other => other,
    }
}

impl Extractor {
    /// Hides `path` of the layers below.
    pub(super) fn whiteout(&mut self, path: &EntryPath) -> EntryResult<()> {
        let parent = self.dirs.open(path.parent())?;
        let dir = std::os::fd::AsFd::as_fd(&*parent);
        match fs::make_node(dir, path.name(), FileType::CharacterDevice, 0, 0) {
            Err(e) if e.errno == Errno::EXIST => {}
            other => return Ok(other?),
        }
        // The layer has its own entry of that name: only a directory lets lower ones through.
        if fs::file_type(&fs::stat_at(dir, path.name())?) == FileType::Directory {
            let own = fs::open_dir_at(dir, path.name())?;
            set_opaque(std::os::fd::AsFd::as_fd(&own))?;
        }
        Ok(())
    }

    /// Hides everything that layers below have in `dir`.
    pub(super) fn opaque(&mut self, dir: &[u8]) -> EntryResult<()> {
        let fd = self.dirs.open(dir)?;
        set_opaque(std::os::fd::AsFd::as_fd(&*fd))?;
        // overlayfs ignores the attribute on the root of a layer: there, the layers below are left out.
        let opened = fs::stat(std::os::fd::AsFd::as_fd(&*fd))?;
        if opened.st_ino == fs::stat(self.dirs.root())?.st_ino {
            self.done.opaque_root = true;
        }
        Ok(())
    }
}

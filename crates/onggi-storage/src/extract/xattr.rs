//! Which extended attributes of an image are set.

use crate::error::EntryProblem;
use crate::tar::Kind;

/// What to do with an attribute.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Set it; a failure is an error.
    Set,
    /// Set it where the filesystem and our privilege allow.
    Try,
    /// Leave it out.
    Skip,
}

/// Refuses attributes that steer overlayfs: an image could redirect or expose directories with them.
pub(super) fn check(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), EntryProblem> {
    let overlay = |name: &[u8]| name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    if xattrs.iter().any(|(name, _)| overlay(name)) {
        return Err(EntryProblem::OverlayAttribute);
    }
    Ok(())
}

/// The rule for one attribute. Labels of the host's security modules (`security.selinux`, `security.ima`) and
/// `trusted.*` belong to the host, not to an image.
pub(super) fn policy(name: &[u8], kind: &Kind, full: bool) -> Policy {
    let file = matches!(kind, Kind::File { .. } | Kind::Sparse { .. });
    let dir = *kind == Kind::Directory;
    match name {
        b"security.capability" if file && full => Policy::Set,
        b"security.capability" if file => Policy::Try,
        b"system.posix_acl_access" if !matches!(kind, Kind::Symlink(_)) => Policy::Try,
        b"system.posix_acl_default" if dir => Policy::Try,
        _ if name.starts_with(b"user.") && (file || dir) => Policy::Set,
        _ => Policy::Skip,
    }
}

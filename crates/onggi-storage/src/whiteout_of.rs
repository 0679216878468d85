//! Reading overlayfs's marks back.

use std::os::fd::BorrowedFd;

use onggi_sys::SysError;
use onggi_sys::fs;

pub(crate) use crate::extract::whiteout::is_whiteout;
use crate::extract::whiteout::{OPAQUE_TRUSTED, OPAQUE_USER};

/// The directory hides what layers below have in it. Both namespaces count, because unpacking writes both.
pub(crate) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, SysError> {
    for name in [OPAQUE_TRUSTED, OPAQUE_USER] {
        if fs::get_xattr_handle(dir, name)?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

//! Kernel keyrings, as much as a container runtime needs. keyctl(2).

use std::ffi::CString;

use crate::{Errno, Result, SysError};

/// Gives this process a session keyring of its own, joining or creating the one called `name`.
///
/// # Errors
/// ENOSYS without keyrings, EDQUOT over the user's quota.
pub fn join_session(name: &str) -> Result<()> {
    let what = || format!("KEYCTL_JOIN_SESSION_KEYRING, {name:?}");
    let c_name = CString::new(name).map_err(|_| SysError::new("keyctl", what(), Errno::INVAL))?;
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING reads one NUL-terminated string, which is live across the call.
    let r = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, c_name.as_ptr()) };
    if r < 0 { Err(SysError::last("keyctl", what())) } else { Ok(()) }
}

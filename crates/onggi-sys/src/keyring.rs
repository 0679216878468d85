//! Kernel keyrings, as much as a container runtime needs. keyctl(2).

use std::ffi::CString;

use crate::{Errno, Result, SysError};

/// What a new session keyring allows (KEY_POS_ALL, KEY_USR_VIEW, KEY_USR_READ, KEY_USR_LINK).
const NEW_SESSION: u32 = 0x3f13_0000;
/// KEY_USR_SEARCH.
const SEARCH: u32 = 0x0008_0000;

/// Lets other processes of this user in its user namespace join this process's session keyring by name.
///
/// # Errors
/// EACCES when it is not this process's own.
pub fn share_session() -> Result<()> {
    let perm = NEW_SESSION | SEARCH;
    // SAFETY: KEYCTL_SETPERM takes two integers.
    let r = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, libc::KEY_SPEC_SESSION_KEYRING, perm) };
    if r < 0 { Err(SysError::last("keyctl", format!("KEYCTL_SETPERM, {perm:#x}"))) } else { Ok(()) }
}

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

//! Loading of seccomp filters. seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::{Errno, Result, SysError};

/// One instruction of classic BPF, as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SockFilter {
    /// Opcode.
    pub code: u16,
    /// Jump when true.
    pub jt: u8,
    /// Jump when false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Flags of SECCOMP_SET_MODE_FILTER.
pub mod flag {
    /// All threads get the filter.
    pub const TSYNC: u32 = 1;
    /// Actions other than allow are logged.
    pub const LOG: u32 = 2;
    /// Speculative store bypass mitigation is not forced on.
    pub const SPEC_ALLOW: u32 = 4;
    /// A notification descriptor is returned.
    pub const NEW_LISTENER: u32 = 8;
    /// A notified thread waits killable.
    pub const WAIT_KILLABLE_RECV: u32 = 32;
}

/// The kernel's limit of instructions per filter (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4096;

#[repr(C)]
struct SockFprog {
    len: u16,
    filter: *const SockFilter,
}

/// Installs `program` for the calling thread; returns the listener when `flag::NEW_LISTENER` is set.
///
/// # Errors
/// EACCES without CAP_SYS_ADMIN or no_new_privs; EINVAL for a program the kernel refuses.
pub fn load(program: &[SockFilter], flags: u32) -> Result<Option<OwnedFd>> {
    let what = || format!("SECCOMP_SET_MODE_FILTER, {flags:#x}, {} instructions", program.len());
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(SysError::new("seccomp", what(), Errno::INVAL));
    }
    let prog = SockFprog { len: program.len() as u16, filter: program.as_ptr() };
    // SAFETY: `prog` is a live repr(C) sock_fprog; its length (checked above to fit) is that of the live
    // slice behind `filter`, whose elements are repr(C) sock_filter; the kernel copies and does not keep it.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const prog) };
    if r < 0 {
        return Err(SysError::last("seccomp", what()));
    }
    if flags & flag::NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER a non-negative result is a fresh descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(r as RawFd) }))
}

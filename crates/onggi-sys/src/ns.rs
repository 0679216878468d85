//! Namespaces: kinds, setns(2), unshare(2). namespaces(7).

use std::os::fd::BorrowedFd;

use rustix::thread::ThreadNameSpaceType;

use crate::{Result, SysContext, SysError};

/// `CLONE_NEW*` bits as clone3(2), unshare(2) and setns(2) take them.
pub mod flag {
    /// Time namespace.
    pub const TIME: u64 = 0x80;
    /// Mount namespace.
    pub const MOUNT: u64 = 0x0002_0000;
    /// Cgroup namespace.
    pub const CGROUP: u64 = 0x0200_0000;
    /// UTS namespace.
    pub const UTS: u64 = 0x0400_0000;
    /// IPC namespace.
    pub const IPC: u64 = 0x0800_0000;
    /// User namespace.
    pub const USER: u64 = 0x1000_0000;
    /// Pid namespace.
    pub const PID: u64 = 0x2000_0000;
    /// Network namespace.
    pub const NETWORK: u64 = 0x4000_0000;
}

/// setns(2) with a namespace descriptor, or with a pidfd and several kinds at once (Linux 5.8).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN there, EINVAL for the wrong kind.
pub fn join(fd: BorrowedFd<'_>, kinds: u64) -> Result<()> {
    let kinds_bits = ThreadNameSpaceType::from_bits_retain(kinds as u32);
    // `0` lets the kernel accept any kind of namespace descriptor, so it is refused here: an attacker who
    // can swap a path must not be able to substitute another kind.
    if kinds == 0 {
        return Err(SysError::new("setns", "0", crate::Errno::INVAL));
    }
    rustix::thread::move_into_thread_name_spaces(fd, kinds_bits).sys("setns", || format!("fd, {kinds:#x}"))
}

/// unshare(2) of namespaces. `CLONE_FILES` cannot be asked for, so descriptors stay shared as they were.
///
/// # Errors
/// EPERM, ENOSPC (limits of /proc/sys/user).
pub fn unshare(kinds: u64) -> Result<()> {
    const ALL: u64 =
        flag::TIME | flag::MOUNT | flag::CGROUP | flag::UTS | flag::IPC | flag::USER | flag::PID | flag::NETWORK;
    let bits = (kinds & ALL) as libc::c_int;
    // SAFETY: unshare takes an integer and touches no memory; only namespace bits remain after the mask,
    // so neither the descriptor table nor the address space stops being shared.
    let r = unsafe { libc::unshare(bits) };
    if r < 0 {
        return Err(SysError::last("unshare", format!("{kinds:#x}")));
    }
    Ok(())
}

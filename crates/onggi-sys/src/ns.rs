//! Namespaces: kinds, setns(2), unshare(2). namespaces(7).

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

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

/// `NS_GET_USERNS` of linux/nsfs.h.
const GET_OWNER: libc::Ioctl = 0xb701;
/// `NS_GET_PARENT`.
const GET_PARENT: libc::Ioctl = 0xb702;
/// `NS_GET_NSTYPE`.
const GET_KIND: libc::Ioctl = 0xb703;
/// `NS_GET_OWNER_UID`.
const GET_CREATOR: libc::Ioctl = 0xb704;
/// `NS_GET_MNTNS_ID`, `_IOR(0xb7, 5, __u64)`.
const GET_MOUNT_ID: libc::Ioctl = 0x8008_b705;

/// The user namespace that owns a namespace (ioctl_ns(2)).
///
/// # Errors
/// EPERM when it lies outside of the caller's user namespace.
pub fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    related(namespace, GET_OWNER, "NS_GET_USERNS")
}

/// The parent of a user or pid namespace (ioctl_ns(2)).
///
/// # Errors
/// EPERM when it lies outside of the caller's, EINVAL for another kind.
pub fn parent(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    related(namespace, GET_PARENT, "NS_GET_PARENT")
}

fn related(namespace: BorrowedFd<'_>, request: libc::Ioctl, name: &'static str) -> Result<OwnedFd> {
    // SAFETY: these requests take no argument and return a new descriptor or -1.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), request) };
    if fd < 0 {
        return Err(SysError::last("ioctl", name));
    }
    // SAFETY: the kernel just made this descriptor (close-on-exec) for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The kind of a namespace, as its `CLONE_NEW*` bit (ioctl_ns(2)).
///
/// # Errors
/// ENOTTY for what is no namespace.
pub fn kind(file: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: the request takes no argument and returns a flag or -1.
    let flag = unsafe { libc::ioctl(file.as_raw_fd(), GET_KIND) };
    // The highest flag is bit 30, so a flag is never negative.
    u64::try_from(flag).map_err(|_| SysError::last("ioctl", "NS_GET_NSTYPE"))
}

/// Who made a user namespace: an effective user id, as the caller's user namespace shows it (ioctl_ns(2)).
///
/// # Errors
/// EINVAL for another kind.
pub fn creator(user_namespace: BorrowedFd<'_>) -> Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: the request writes one uid_t, to which the pointer is valid for the call.
    let r = unsafe { libc::ioctl(user_namespace.as_raw_fd(), GET_CREATOR, &raw mut uid) };
    if r < 0 {
        return Err(SysError::last("ioctl", "NS_GET_OWNER_UID"));
    }
    Ok(uid)
}

/// The number by which the kernel orders mount namespaces (linux/nsfs.h, Linux 6.11). `None` for a kernel that does
/// not tell it: there a namespace made later has the higher one.
///
/// # Errors
/// EINVAL for another kind.
pub fn mount_id(mount_namespace: BorrowedFd<'_>) -> Result<Option<u64>> {
    let mut id: u64 = 0;
    // SAFETY: the request writes one u64, to which the pointer is valid for the call.
    let r = unsafe { libc::ioctl(mount_namespace.as_raw_fd(), GET_MOUNT_ID, &raw mut id) };
    if r == 0 {
        return Ok(Some(id));
    }
    match SysError::last("ioctl", "NS_GET_MNTNS_ID") {
        e if e.errno == crate::Errno::NOTTY => Ok(None),
        e => Err(e),
    }
}

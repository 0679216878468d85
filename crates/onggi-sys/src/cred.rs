//! Credentials of the calling thread: ids, groups, capabilities, no_new_privs.
//!
//! Raw system calls throughout: glibc's wrappers signal all threads and hang in a cloned child.
//! credentials(7), capabilities(7).

use rustix::{
    process::{Gid, Uid},
    thread::{CapabilitySet, CapabilitySets},
};

use crate::{Result, SysContext, SysError};

/// Highest capability number that a mask can hold.
pub const CAP_MAX: u32 = 63;
/// CAP_SETGID as a bit mask.
pub const CAP_SETGID: u64 = 1 << 6;
/// CAP_SYS_ADMIN as a bit mask.
pub const CAP_SYS_ADMIN: u64 = 1 << 21;
/// CAP_SYS_RESOURCE as a bit mask.
pub const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// setresuid(2) for the calling thread only.
///
/// # Errors
/// EINVAL when the id is not mapped in this user namespace.
pub fn set_uid(uid: u32) -> Result<()> {
    let id = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(id, id, id).sys("setresuid", || format!("{uid}"))
}

/// setresgid(2) for the calling thread only.
///
/// # Errors
/// EINVAL when the id is not mapped in this user namespace.
pub fn set_gid(gid: u32) -> Result<()> {
    let id = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(id, id, id).sys("setresgid", || format!("{gid}"))
}

/// setgroups(2) for the calling thread only.
///
/// # Errors
/// EPERM where the user namespace denies it (`/proc/PID/setgroups`).
pub fn set_groups(gids: &[u32]) -> Result<()> {
    let ids: Vec<Gid> = gids.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&ids).sys("setgroups", || format!("{gids:?}"))
}

/// Effective, permitted and inheritable masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Effective set.
    pub effective: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Inheritable set.
    pub inheritable: u64,
}

/// capget(2) of the calling thread.
///
/// # Errors
/// None in practice.
pub fn capabilities() -> Result<Capabilities> {
    let c = rustix::thread::capabilities(None).sys("capget", || "self")?;
    Ok(Capabilities { effective: c.effective.bits(), permitted: c.permitted.bits(), inheritable: c.inheritable.bits() })
}

/// capset(2) of the calling thread.
///
/// # Errors
/// EPERM for a capability that is not permitted.
pub fn set_capabilities(c: Capabilities) -> Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(c.effective),
        permitted: CapabilitySet::from_bits_retain(c.permitted),
        inheritable: CapabilitySet::from_bits_retain(c.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).sys("capset", || format!("{c:x?}"))
}

/// The bounding set, up to the last capability that this kernel knows.
///
/// # Errors
/// None in practice.
pub fn bounding_set() -> Result<u64> {
    let mut mask = 0;
    for cap in 0..=CAP_MAX {
        match prctl(libc::PR_CAPBSET_READ, u64::from(cap), 0, 0) {
            Ok(1) => mask |= 1 << cap,
            Ok(_) => {}
            // EINVAL: the kernel has no such capability, nor any with a higher number.
            Err(_) => break,
        }
    }
    Ok(mask)
}

/// Drops every capability outside `keep` from the bounding set. Capabilities unknown to the kernel end it.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn limit_bounding_set(keep: u64) -> Result<()> {
    for cap in 0..=CAP_MAX {
        if keep & (1 << cap) != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, u64::from(cap), 0, 0) {
            Ok(_) => {}
            Err(e) if e.errno == crate::Errno::INVAL => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Empties the ambient set and raises those of `caps`.
///
/// # Errors
/// EPERM for one that is not both permitted and inheritable.
pub fn set_ambient(caps: u64) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0, 0)?;
    for cap in (0..=CAP_MAX).filter(|c| caps & (1 << c) != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(cap), 0)?;
    }
    Ok(())
}

/// PR_SET_KEEPCAPS: permitted capabilities survive the next change of uid.
///
/// # Errors
/// EPERM when locked by securebits.
pub fn keep_capabilities(on: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, u64::from(on), 0, 0).map(drop)
}

/// PR_SET_NO_NEW_PRIVS.
///
/// # Errors
/// None in practice.
pub fn set_no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0).map(drop)
}

/// A prctl(2) whose arguments are plain integers.
fn prctl(option: libc::c_int, a: u64, b: u64, c: u64) -> Result<i32> {
    let zero: libc::c_ulong = 0;
    // SAFETY: every option used in this module takes integers only (capabilities(7), prctl(2)); the kernel
    // neither reads nor writes memory of this process; unused arguments are 0 as the kernel demands.
    let r = unsafe { libc::prctl(option, a as libc::c_ulong, b as libc::c_ulong, c as libc::c_ulong, zero) };
    if r < 0 {
        return Err(SysError::last("prctl", format!("{option}, {a}, {b}")));
    }
    Ok(r)
}

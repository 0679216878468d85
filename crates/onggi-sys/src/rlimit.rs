//! Resource limits by their OCI names. getrlimit(2).

use crate::{Result, SysError};

/// Soft and hard limit; `u64::MAX` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// The kernel's number for `RLIMIT_NOFILE` and so on.
pub fn number(name: &str) -> Option<u32> {
    NAMES.iter().position(|n| *n == name).map(|n| n as u32)
}

/// Names in the order of the kernel's numbers.
#[rustfmt::skip]
const NAMES: [&str; 16] = [
    "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
    "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
];

/// The name of a kernel number.
pub fn name(number: u32) -> &'static str {
    NAMES.get(number as usize).copied().unwrap_or("RLIMIT_?")
}

/// Reads a limit of this process.
///
/// # Errors
/// EINVAL for an unknown number.
pub fn get(resource: u32) -> Result<Limit> {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit through the pointer, which is live and writable.
    let r = unsafe { libc::getrlimit(resource, &raw mut old) };
    if r < 0 {
        return Err(SysError::last("getrlimit", name(resource)));
    }
    Ok(Limit { soft: old.rlim_cur, hard: old.rlim_max })
}

/// Sets a limit of this process.
///
/// # Errors
/// EPERM when the hard limit would rise without CAP_SYS_RESOURCE; EINVAL when soft exceeds hard.
pub fn set(resource: u32, limit: Limit) -> Result<()> {
    let new = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: setrlimit reads one rlimit through the pointer, which is live.
    let r = unsafe { libc::setrlimit(resource, &raw const new) };
    if r < 0 {
        return Err(SysError::last("setrlimit", format!("{}, {}:{}", name(resource), limit.soft, limit.hard)));
    }
    Ok(())
}

/// Sets a limit of another process (prlimit(2)).
///
/// # Errors
/// EPERM without CAP_SYS_RESOURCE over it, ESRCH.
pub fn set_of(pid: i32, resource: u32, limit: Limit) -> Result<()> {
    let new = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    let old: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: prlimit reads one rlimit64 through the pointer, which is live; a null old pointer is allowed.
    let r = unsafe { libc::prlimit64(pid, resource, &raw const new, old) };
    if r < 0 {
        return Err(SysError::last("prlimit", format!("{pid}, {}, {}:{}", name(resource), limit.soft, limit.hard)));
    }
    Ok(())
}

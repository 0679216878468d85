//! Scheduler attributes and I/O priority. sched_setattr(2), ioprio_set(2).

use crate::{Result, SysError};

/// `struct sched_attr`, first version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SchedulerAttributes {
    size: u32,
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// sched_setattr(2) for this thread.
///
/// # Errors
/// EPERM without CAP_SYS_NICE, EINVAL.
pub fn set_attributes(mut attributes: SchedulerAttributes) -> Result<()> {
    attributes.size = size_of::<SchedulerAttributes>() as u32;
    // SAFETY: `attributes` is a live repr(C) sched_attr whose own size member is right; pid 0 is this thread.
    let r = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if r < 0 {
        return Err(SysError::last("sched_setattr", format!("{attributes:?}")));
    }
    Ok(())
}

/// ioprio_set(2) for this process: class 1 (real time), 2 (best effort), 3 (idle); priority 0 to 7.
///
/// # Errors
/// EPERM, EINVAL.
pub fn set_io_priority(class: u32, priority: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = (class << 13) | priority;
    // SAFETY: integers only.
    let r = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    if r < 0 {
        return Err(SysError::last("ioprio_set", format!("class {class}, {priority}")));
    }
    Ok(())
}

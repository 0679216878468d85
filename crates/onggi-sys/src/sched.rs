//! Scheduler attributes and I/O priority. sched_setattr(2), ioprio_set(2).

use crate::{Result, SysError};

/// `struct sched_attr`, first version, without its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchedulerAttributes {
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

#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// sched_setattr(2) for this thread.
///
/// # Errors
/// EPERM without CAP_SYS_NICE, EINVAL.
pub fn set_attributes(attributes: SchedulerAttributes) -> Result<()> {
    let SchedulerAttributes { policy, flags, nice, priority, runtime, deadline, period } = attributes;
    let size = size_of::<SchedAttr>() as u32;
    let sized = SchedAttr { size, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: `sized` is a live repr(C) sched_attr whose own size member is right; pid 0 is this thread.
    let r = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const sized, 0) };
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

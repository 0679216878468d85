//! Scheduler attributes, I/O priority, CPU affinity, NUMA policy. sched_setattr(2), ioprio_set(2),
//! sched_setaffinity(2), set_mempolicy(2).

use crate::{Errno, Result, SysError};

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

/// Highest CPU number that an affinity mask holds, plus one: more than any kernel is built for (NR_CPUS is at
/// most 8192).
pub const MAX_CPUS: usize = 8192;
/// Highest NUMA node that a memory policy holds, plus one (MAX_NUMNODES is at most 1024).
pub const MAX_NODES: usize = 1024;

/// sched_setaffinity(2) for this thread: it may run on the CPUs whose bits are set. The kernel takes away what
/// the cpuset or the machine does not have.
///
/// # Errors
/// EINVAL when none is left.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: the kernel reads `size_of_val(mask)` bytes of the live slice; pid 0 is this thread.
    let r = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    if r < 0 {
        return Err(SysError::last("sched_setaffinity", bits(mask)));
    }
    Ok(())
}

/// sched_getaffinity(2) of this thread.
///
/// # Errors
/// EINVAL on a machine with more than [`MAX_CPUS`].
pub fn affinity() -> Result<Vec<u64>> {
    let mut mask = vec![0u64; MAX_CPUS / 64];
    let size = size_of_val(mask.as_slice());
    // SAFETY: the kernel writes at most `size` bytes to the live vector, which has as many; pid 0 is this thread.
    let r = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size, mask.as_mut_ptr()) };
    if r < 0 {
        return Err(SysError::last("sched_getaffinity", size.to_string()));
    }
    Ok(mask)
}

/// set_mempolicy(2) for this thread: `mode` holds MPOL_* and MPOL_F_* bits; `nodes` is the node mask.
///
/// # Errors
/// EINVAL for a combination that the kernel refuses or nodes that do not exist; ENOSYS without NUMA.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    let what = || format!("{mode:#x}, {}", bits(nodes));
    // The kernel counts one bit less than it is told (mm/mempolicy.c, get_nodes).
    let (pointer, max) = match nodes.is_empty() {
        true => (std::ptr::null(), 0),
        false => (nodes.as_ptr(), size_of_val(nodes) * 8 + 1),
    };
    if nodes.len() > MAX_NODES / 64 {
        return Err(SysError::new("set_mempolicy", what(), Errno::INVAL));
    }
    // SAFETY: the kernel reads `max - 1` bits from the live slice, or nothing when `max` is 0.
    let r = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, max) };
    if r < 0 {
        return Err(SysError::last("set_mempolicy", what()));
    }
    Ok(())
}

/// personality(2) of this process.
///
/// # Errors
/// EINVAL.
pub fn set_personality(persona: u32) -> Result<()> {
    // SAFETY: an integer only.
    let r = unsafe { libc::personality(libc::c_ulong::from(persona)) };
    if r < 0 {
        return Err(SysError::last("personality", format!("{persona:#x}")));
    }
    Ok(())
}

/// A mask as one hexadecimal number.
pub fn bits(mask: &[u64]) -> String {
    let Some(top) = mask.iter().rposition(|w| *w != 0) else { return "0x0".into() };
    let low = mask[..top].iter().rev().map(|w| format!("{w:016x}")).collect::<String>();
    format!("{:#x}{low}", mask[top])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_shown_as_one_number() {
        assert_eq!(bits(&[]), "0x0");
        assert_eq!(bits(&[5, 0]), "0x5");
        assert_eq!(bits(&[1, 2]), "0x20000000000000001");
    }

    #[test]
    fn this_thread_may_be_given_the_cpus_that_it_has() {
        set_affinity(&[u64::MAX; MAX_CPUS / 64]).expect("all CPUs");
        let none = set_affinity(&[0]).expect_err("no CPU");
        assert_eq!(none.errno, Errno::INVAL);
    }

    #[test]
    fn the_default_memory_policy_can_always_be_had() {
        set_memory_policy(0, &[]).expect("MPOL_DEFAULT");
        assert_eq!(set_memory_policy(99, &[]).expect_err("no such mode").errno, Errno::INVAL);
    }
}

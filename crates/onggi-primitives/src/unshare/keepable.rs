//! A mount namespace that a file of the old one can keep.
//!
//! The kernel lets a mount namespace be mounted only in an older one, so that none keeps itself (EINVAL, `mnt_ns_loop`
//! in fs/namespace.c). Older means a smaller number, and since Linux 6.18 each CPU takes numbers from a batch of its
//! own: what is made later on another CPU may count as older. It is then made again on other CPUs, and where none of
//! them will do, as often as it takes to use this one's batch up: the next batch is newer than everything.

use std::{fs::File, os::fd::AsFd as _};

use onggi_sys::{
    SysError,
    ns::{self, flag},
    sched,
};

/// Numbers in a batch: `COOKIE_LOCAL_BATCH` of the kernel's include/linux/cookie.h.
const BATCH: usize = 4096;

/// unshare(2), with a mount namespace that counts as newer than the caller's.
pub(super) fn unshare(flags: u64) -> Result<(), SysError> {
    let before = own_id()?;
    ns::unshare(flags)?;
    match before {
        Some(before) if !newer(before)? => again(before),
        _ => Ok(()),
    }
}

/// Elsewhere, then here. The affinity is afterwards what it was.
fn again(before: u64) -> Result<(), SysError> {
    let own = sched::affinity()?;
    let found = on_other_cpus(before);
    sched::set_affinity(&own)?;
    let mut tries = 0;
    let mut found = found?;
    while !found && tries < BATCH {
        ns::unshare(flag::MOUNT)?;
        found = newer(before)?;
        tries += 1;
    }
    // Where nothing helped, whoever mounts it is refused and says so.
    Ok(())
}

fn on_other_cpus(before: u64) -> Result<bool, SysError> {
    for cpu in 0..sched::MAX_CPUS {
        let mut one = vec![0; cpu / 64 + 1];
        one[cpu / 64] = 1 << (cpu % 64);
        // EINVAL: no such CPU, or none that we may use.
        if sched::set_affinity(&one).is_err() {
            continue;
        }
        ns::unshare(flag::MOUNT)?;
        if newer(before)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn newer(before: u64) -> Result<bool, SysError> {
    Ok(own_id()?.is_none_or(|id| id > before))
}

/// `None` where the kernel does not tell, or where there is no /proc to ask by.
fn own_id() -> Result<Option<u64>, SysError> {
    match File::open("/proc/self/ns/mnt") {
        Ok(file) => ns::mount_id(file.as_fd()),
        Err(_) => Ok(None),
    }
}

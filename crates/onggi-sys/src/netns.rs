//! Network namespaces as descriptors (network_namespaces(7)).
//!
//! A namespace belongs to a thread, so each function does its work on a helper thread and leaves the
//! caller's own namespace alone. No name is made under /run/netns: a namespace lives as long as something
//! holds its descriptor or runs in it, and then disappears by itself.

use std::{
    fs::File,
    os::fd::{BorrowedFd, OwnedFd},
    panic::resume_unwind,
    thread,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::{Result, SysContext};

/// The helper runs a few short functions; a small stack is cheaper to map.
const STACK: usize = 256 * 1024;
const SELF: &str = "/proc/thread-self/ns/net";

/// Makes a new network namespace, runs `inside` in it, and returns the namespace and the result.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOSPC` when user.max_net_namespaces is reached (unshare(2)).
pub fn create<T: Send>(inside: impl FnOnce() -> T + Send) -> Result<(OwnedFd, T)> {
    on_helper(|| {
        // SAFETY: only CLONE_NEWNET is given. It neither unshares the descriptor table nor the address
        // space, the two cases in which another thread's references could be pulled away.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.sys("unshare", || "CLONE_NEWNET")?;
        Ok((current()?, inside()))
    })
}

/// Runs `inside` in the network namespace `namespace`.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN in both, `EINVAL` when the descriptor is something else (setns(2)).
pub fn enter<T: Send>(namespace: BorrowedFd<'_>, inside: impl FnOnce() -> T + Send) -> Result<T> {
    on_helper(|| {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).sys("setns", || "CLONE_NEWNET")?;
        Ok(inside())
    })
}

/// The calling thread's network namespace.
///
/// # Errors
/// Those of opening `/proc/thread-self/ns/net`.
pub fn current() -> Result<OwnedFd> {
    Ok(File::open(SELF).sys("open", || format!("{SELF:?}"))?.into())
}

fn on_helper<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let helper = thread::Builder::new()
            .name("netns".into())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .sys("clone", || "thread \"netns\"")?;
        helper.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn inode(ns: impl AsFd) -> u64 {
        rustix::fs::fstat(ns).unwrap().st_ino
    }

    #[test]
    fn root_a_new_namespace_is_another_one_and_the_caller_stays() {
        let before = inode(current().unwrap());
        let (ns, seen) = create(|| inode(current().unwrap())).unwrap();
        assert_eq!(inode(&ns), seen);
        assert_ne!(seen, before);
        assert_eq!(inode(current().unwrap()), before);
        assert_eq!(enter(ns.as_fd(), || inode(current().unwrap())).unwrap(), seen);
    }

    #[test]
    fn a_descriptor_that_is_no_namespace_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        assert!(enter(file.as_fd(), || ()).is_err());
    }
}

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

/// A network namespace that a helper thread is making.
#[derive(Debug)]
pub struct Pending<T>(thread::JoinHandle<Result<(OwnedFd, T)>>);

impl<T> Pending<T> {
    /// Waits for the namespace and the result of what ran in it.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN, `ENOSPC` when user.max_net_namespaces is reached (unshare(2)).
    pub fn wait(self) -> Result<(OwnedFd, T)> {
        self.0.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Begins to make a new network namespace and to run `inside` in it. The kernel needs about a millisecond, which
/// the caller can use for something else.
///
/// # Errors
/// When no thread can be started.
pub fn start<T: Send + 'static>(inside: impl FnOnce() -> T + Send + 'static) -> Result<Pending<T>> {
    let work = || {
        // SAFETY: only CLONE_NEWNET is given. It neither unshares the descriptor table nor the address
        // space, the two cases in which another thread's references could be pulled away.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.sys("unshare", || "CLONE_NEWNET")?;
        Ok((current()?, inside()))
    };
    helper().spawn(work).map(Pending).sys("clone", || "thread \"netns\"")
}

/// Makes a new network namespace, runs `inside` in it, and returns the namespace and the result.
///
/// # Errors
/// As `start` and `Pending::wait`.
pub fn create<T: Send + 'static>(inside: impl FnOnce() -> T + Send + 'static) -> Result<(OwnedFd, T)> {
    start(inside)?.wait()
}

/// Runs `inside` in the network namespace `namespace`.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN in both, `EINVAL` when the descriptor is something else (setns(2)).
pub fn enter<T: Send>(namespace: BorrowedFd<'_>, inside: impl FnOnce() -> T + Send) -> Result<T> {
    let work = || {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).sys("setns", || "CLONE_NEWNET")?;
        Ok(inside())
    };
    thread::scope(|scope| {
        let helper = helper().spawn_scoped(scope, work).sys("clone", || "thread \"netns\"")?;
        helper.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The calling thread's network namespace.
///
/// # Errors
/// Those of opening `/proc/thread-self/ns/net`.
pub fn current() -> Result<OwnedFd> {
    Ok(File::open(SELF).sys("open", || format!("{SELF:?}"))?.into())
}

fn helper() -> thread::Builder {
    thread::Builder::new().name("netns".into()).stack_size(STACK)
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

//! Capability checks where the kernel has no tracepoint for them (before Linux 6.14): a probe on entry of `cap_capable`,
//! which has the capability, and one on its return, which has the answer (kprobetrace.rst).
//!
//! Definitions of probes are the whole machine's, and cost nothing while nobody listens. So they have one name for all
//! listeners, are made when they are not there, and removed by whoever is the last: the kernel refuses to remove one that
//! is switched on. What a killed program leaves is used, and removed, by the next.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use onggi_sys::{SysContext as _, path::write_once};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

/// The events of a tracing instance that tell: `cap_asked: (cap_capable+0x0/0x90) cred=0xffff… cap=21`, then
/// `cap_answered: (security_capable+0x2d/0x50 <- cap_capable) ret=0` of the same task.
pub(crate) const EVENTS: [&str; 2] = ["events/onggi/cap_asked", "events/onggi/cap_answered"];

/// `cap_capable(const struct cred *, struct user_namespace *, int cap, unsigned int)` of security/commoncap.c.
pub(crate) const MAKE: [&str; 2] =
    ["p:onggi/cap_asked cap_capable cred=$arg1:x64 cap=$arg3:s32", "r:onggi/cap_answered cap_capable ret=$retval:s32"];
/// Takes them back.
pub(crate) const REMOVE: [&str; 2] = ["-:onggi/cap_asked", "-:onggi/cap_answered"];

/// The definitions of both probes. Whatever listens must have been switched off when it is dropped.
#[derive(Debug)]
pub(crate) struct Probes {
    tracefs: OwnedFd,
}

/// How often the probes are made again that another listener took away before they were switched on.
const TRIES: u32 = 5;

impl Probes {
    /// Makes the probes known to every tracing instance below `tracefs`, its root directory, and has each switched on.
    ///
    /// # Errors
    /// Without root, in a kernel without probes of functions, or in one that is locked down (kernel_lockdown(7)).
    pub(crate) fn listen(
        tracefs: BorrowedFd<'_>,
        enable: impl Fn(&str) -> onggi_sys::Result<()>,
    ) -> onggi_sys::Result<Self> {
        let mut tries = 0;
        loop {
            let made = Self::make(tracefs)?;
            match EVENTS.iter().try_for_each(|event| enable(event)) {
                Ok(()) => return Ok(made),
                Err(e) if e.errno == Errno::NOENT && tries < TRIES => tries += 1,
                Err(e) => return Err(e),
            }
        }
    }

    fn make(tracefs: BorrowedFd<'_>) -> onggi_sys::Result<Self> {
        let tracefs = tracefs.try_clone_to_owned().sys("dup", || "tracefs")?;
        // From here on they are removed whatever happens.
        let made = Self { tracefs };
        for definition in MAKE {
            match made.tell(definition) {
                Err(e) if e.errno != Errno::EXIST => return Err(e),
                _ => {}
            }
        }
        Ok(made)
    }

    /// Never truncates: that would remove the probes of everybody.
    fn tell(&self, line: &str) -> onggi_sys::Result<()> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.tracefs, "kprobe_events", flags, Mode::empty());
        let file = file.sys("openat", || "kprobe_events")?;
        write_once(file.as_fd(), line.as_bytes(), "kprobe_events")
    }
}

/// Removes the definitions where they are and nobody listens to them.
pub(crate) fn remove_unused(tracefs: BorrowedFd<'_>) -> onggi_sys::Result<()> {
    if rustix::fs::accessat(tracefs, "events/onggi", rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok() {
        drop(Probes { tracefs: tracefs.try_clone_to_owned().sys("dup", || "tracefs")? });
    }
    Ok(())
}

impl Drop for Probes {
    fn drop(&mut self) {
        for line in REMOVE {
            // Somebody else listens, or has removed it.
            let _ = self.tell(line);
        }
    }
}

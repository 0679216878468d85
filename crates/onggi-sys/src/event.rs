//! Waiting for many descriptors and for signals: epoll(7) and signalfd(2).
//!
//! Made for a single-threaded loop that must neither allocate nor run signal handlers. Level-triggered
//! only: an event that is not handled now is reported again, so nothing can be lost by leaving early.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use rustix::event::epoll;

use crate::{Errno, Result, SysContext, SysError};

pub use rustix::event::epoll::EventFlags;

/// Events taken from the kernel by one [`Epoll::wait`]; the rest is reported by the next call.
pub const EVENT_BATCH: usize = 32;

/// An epoll instance whose entries carry a caller-chosen number.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

/// The buffer of [`Epoll::wait`], kept by the caller so that waiting never allocates.
pub struct EventBuffer([libc::epoll_event; EVENT_BATCH]);

impl EventBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self([libc::epoll_event { events: 0, u64: 0 }; EVENT_BATCH])
    }
}

impl Default for EventBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// One ready descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The number it was registered with.
    pub token: u64,
    /// What it is ready for; `HUP` and `ERR` are reported unasked.
    pub flags: EventFlags,
}

impl Epoll {
    /// `epoll_create1(EPOLL_CLOEXEC)`.
    pub fn new() -> Result<Self> {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC).sys("epoll_create1", String::new)?;
        Ok(Self { fd })
    }

    /// Registers a descriptor under `token`.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: EventFlags) -> Result<()> {
        epoll::add(&self.fd, fd.as_fd(), epoll::EventData::new_u64(token), interest)
            .sys("epoll_ctl", || format!("ADD, {}", fd.as_fd().as_raw_fd()))
    }

    /// Changes what a registered descriptor waits for.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: EventFlags) -> Result<()> {
        epoll::modify(&self.fd, fd.as_fd(), epoll::EventData::new_u64(token), interest)
            .sys("epoll_ctl", || format!("MOD, {}", fd.as_fd().as_raw_fd()))
    }

    /// Forgets a descriptor. One that is not registered is not an error.
    pub fn remove(&self, fd: impl AsFd) -> Result<()> {
        match epoll::delete(&self.fd, fd.as_fd()) {
            Err(Errno::NOENT) => Ok(()),
            other => other.sys("epoll_ctl", || format!("DEL, {}", fd.as_fd().as_raw_fd())),
        }
    }

    /// Waits for events, at most `timeout` (for ever when `None`). An interrupted wait returns no events.
    pub fn wait<'b>(
        &self,
        buffer: &'b mut EventBuffer,
        timeout: Option<Duration>,
    ) -> Result<impl Iterator<Item = Ready> + use<'b>> {
        let (fd, room, millis) = (self.fd.as_raw_fd(), EVENT_BATCH as libc::c_int, milliseconds(timeout));
        // SAFETY: the buffer is a live array of EVENT_BATCH epoll_event, exclusively borrowed for the call;
        // the descriptor is owned by `self`.
        let n = unsafe { libc::epoll_wait(fd, buffer.0.as_mut_ptr(), room, millis) };
        self.taken(
            buffer,
            if n < 0 { Err(Errno::from_io_error(&std::io::Error::last_os_error())) } else { Ok(n as usize) },
        )
    }

    /// Waits for ever, with none of the program's text resident meanwhile but this call's own: for a
    /// process that expects to sleep long. See [`crate::resident`].
    pub fn wait_light<'b>(&self, buffer: &'b mut EventBuffer) -> Result<impl Iterator<Item = Ready> + use<'b>> {
        let outcome = crate::resident::forget_and_wait(self.fd.as_fd(), &mut buffer.0);
        self.taken(buffer, outcome.map_err(Some))
    }

    fn taken<'b>(
        &self,
        buffer: &'b EventBuffer,
        outcome: std::result::Result<usize, Option<Errno>>,
    ) -> Result<impl Iterator<Item = Ready> + use<'b>> {
        let len = match outcome {
            Ok(len) => len,
            Err(Some(Errno::INTR)) => 0,
            Err(errno) => return Err(SysError::new("epoll_wait", "", errno.unwrap_or(Errno::IO))),
        };
        let events = buffer.0[..len.min(EVENT_BATCH)].iter();
        Ok(events.map(|e| Ready { token: e.u64, flags: EventFlags::from_bits_retain(e.events) }))
    }
}

/// Rounded up, so that a deadline has passed when the wait is over; `None` is -1.
fn milliseconds(timeout: Option<Duration>) -> libc::c_int {
    timeout.map_or(-1, |t| libc::c_int::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX))
}

/// Blocked signals that are read as data (signalfd(2)). Non-blocking, close-on-exec.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
    previous: libc::sigset_t,
}

impl SignalFd {
    /// Blocks `signals` for the calling thread and opens a descriptor that delivers them. Call it while
    /// the process has one thread: others would keep receiving the signals.
    pub fn block(signals: &[i32]) -> Result<Self> {
        let set = sigset(signals)?;
        let mut previous = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `set` is an initialised sigset_t on this stack; `previous` is writable memory of the
        // right type; both outlive the call.
        let r = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, previous.as_mut_ptr()) };
        if r != 0 {
            return Err(SysError::new("rt_sigprocmask", "SIG_BLOCK", Errno::from_raw_os_error(r)));
        }
        // SAFETY: the call above succeeded, and a successful call fills the old mask.
        let previous = unsafe { previous.assume_init() };
        // SAFETY: -1 asks for a new descriptor; `set` is initialised and outlives the call.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(SysError::last("signalfd4", ""));
        }
        // SAFETY: `fd` was just returned by the kernel and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, previous })
    }

    /// The next pending signal's number, or `None`.
    pub fn read(&self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            // ssi_signo is the first field, a u32.
            Ok(n) if n == info.len() => Some(u32::from_ne_bytes([info[0], info[1], info[2], info[3]]).cast_signed()),
            _ => None,
        }
    }

    /// Restores the signal mask from before [`SignalFd::block`] (in a forked child, before it starts others).
    pub fn restore_mask(&self) {
        // SAFETY: `previous` was filled by the kernel in `block`; a null old-mask pointer is allowed.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.previous, std::ptr::null_mut()) };
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn sigset(signals: &[i32]) -> Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to writable memory of type sigset_t; sigemptyset initialises all of it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset above initialised every bit and cannot fail with a valid pointer.
    let mut set = unsafe { set.assume_init() };
    for &signal in signals {
        // SAFETY: `set` is an initialised sigset_t; a bad number makes the call fail, not misbehave.
        let r = unsafe { libc::sigaddset(&raw mut set, signal) };
        if r != 0 {
            return Err(SysError::new("sigaddset", signal.to_string(), Errno::INVAL));
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_readable_pipe_is_reported_with_its_token_and_a_timeout_reports_nothing() {
        let (r, mut w) = std::io::pipe().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(&r, 7, EventFlags::IN).unwrap();
        let mut buffer = EventBuffer::new();
        assert_eq!(epoll.wait(&mut buffer, Some(Duration::ZERO)).unwrap().count(), 0);
        w.write_all(b"x").unwrap();
        let ready: Vec<_> = epoll.wait(&mut buffer, None).unwrap().collect();
        assert_eq!(ready, [Ready { token: 7, flags: EventFlags::IN }]);
        let ready: Vec<_> = epoll.wait_light(&mut buffer).unwrap().collect();
        assert_eq!(ready, [Ready { token: 7, flags: EventFlags::IN }]);
        epoll.remove(&r).unwrap();
        epoll.remove(&r).unwrap();
        assert_eq!(epoll.wait(&mut buffer, Some(Duration::ZERO)).unwrap().count(), 0);
    }

    #[test]
    fn blocked_signals_are_read_as_numbers() {
        std::thread::spawn(|| {
            let signals = SignalFd::block(&[libc::SIGUSR2]).unwrap();
            assert_eq!(signals.read(), None);
            let me = rustix::thread::gettid();
            let pid = rustix::process::getpid();
            // SAFETY: tgkill takes three numbers; the thread is this one and has SIGUSR2 blocked.
            let r = unsafe {
                libc::syscall(libc::SYS_tgkill, pid.as_raw_nonzero().get(), me.as_raw_nonzero().get(), libc::SIGUSR2)
            };
            assert_eq!(r, 0);
            assert_eq!(signals.read(), Some(libc::SIGUSR2));
        })
        .join()
        .unwrap();
    }
}

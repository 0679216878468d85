//! The beginning of a program without what the standard library does before `main`.
//!
//! std reads and parses /proc/self/maps to find the end of the stack, and gives it a handler with a stack of its own
//! that says "overflow" before the program ends: 17 system calls and the C library's `scanf`. Without it an overflow
//! ends the program by SIGSEGV all the same. What std does besides is done here: three open streams, and SIGPIPE
//! ignored. What it does not: a caller that ignores SIGCHLD does not keep us from learning how our children end.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::signal;

/// A bit for each standard stream that the caller had closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Makes `fn() -> i32` the program; its result is the exit code. Needs `#![cfg_attr(not(test), no_main)]`.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        // SAFETY: the one function of this name in the program; the C library calls it once, with these arguments
        // (`std::env::args` has them from elsewhere), after its own start.
        #[cfg(test)]
        const _: fn() -> i32 = $run;
        #[cfg(not(test))]
        #[unsafe(no_mangle)]
        extern "C" fn main(_count: i32, _arguments: *const *const u8) -> i32 {
            $crate::begin::streams_and_signals();
            std::process::exit($run())
        }
    };
}

/// Opens /dev/null for each standard stream that the caller has closed, so that no later file gets its number, and
/// ignores SIGPIPE and not SIGCHLD. Ends the process when that is not possible, as std does. For the first lines of a program.
pub fn streams_and_signals() {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: poll gets a live array and its length; events of 0 only ask whether the descriptors are open.
    let asked = unsafe { libc::poll(streams.as_mut_ptr(), streams.len() as libc::nfds_t, 0) };
    let is_closed = |s: &libc::pollfd| s.revents & libc::POLLNVAL != 0;
    let closed = (0..3).filter(|fd| is_closed(&streams[*fd])).fold(0, |all, fd| all | (1 << fd));
    CLOSED.store(closed, Ordering::Relaxed);
    if (asked < 0 || closed != 0) && !open_streams() {
        std::process::abort();
    }
    signal::ignore_pipe();
    signal::hear_of_children();
}

/// The caller had closed this standard stream, so that what is written to it now goes nowhere.
pub fn was_closed(stream: u8) -> bool {
    stream < 3 && CLOSED.load(Ordering::Relaxed) & (1 << stream) != 0
}

fn open_streams() -> bool {
    // Each open(2) takes the lowest number that is free.
    (0..3).all(|fd| {
        // SAFETY: F_GETFD takes no third argument and touches no memory.
        let open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        // SAFETY: a constant string that ends with NUL; the descriptor stays open for the program's life.
        open || unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } == fd
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_streams_stay_as_they_are() {
        let before = [0, 1, 2].map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap());
        streams_and_signals();
        let after = [0, 1, 2].map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap());
        assert_eq!(before, after);
        assert!((0..=3).all(|stream| !was_closed(stream)));
    }
}

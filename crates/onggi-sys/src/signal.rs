//! Signals for programs that wait synchronously: mask, wait, reset. signal(7).

use std::{mem::MaybeUninit, ptr};

use crate::{Errno, Result, SysError};

/// Signal numbers used by the runtime.
pub mod number {
    /// SIGHUP.
    pub const HUP: i32 = libc::SIGHUP;
    /// SIGINT.
    pub const INT: i32 = libc::SIGINT;
    /// SIGQUIT.
    pub const QUIT: i32 = libc::SIGQUIT;
    /// SIGKILL.
    pub const KILL: i32 = libc::SIGKILL;
    /// SIGTERM.
    pub const TERM: i32 = libc::SIGTERM;
    /// SIGCHLD.
    pub const CHLD: i32 = libc::SIGCHLD;
    /// SIGCONT.
    pub const CONT: i32 = libc::SIGCONT;
    /// SIGSTOP.
    pub const STOP: i32 = libc::SIGSTOP;
    /// SIGTSTP.
    pub const TSTP: i32 = libc::SIGTSTP;
    /// SIGTTIN.
    pub const TTIN: i32 = libc::SIGTTIN;
    /// SIGTTOU.
    pub const TTOU: i32 = libc::SIGTTOU;
    /// SIGWINCH.
    pub const WINCH: i32 = libc::SIGWINCH;
    /// SIGURG.
    pub const URG: i32 = libc::SIGURG;
}

/// Default dispositions for all signals and an empty mask. Async-signal-safe.
pub fn reset_all() {
    // The kernel's own sigaction structure: SIG_DFL is 0, no flags, no restorer, an empty mask.
    let default = [0_u64; 4];
    for n in 1..=64_i32 {
        // Not by libc::signal: glibc refuses 32 and 33, and its posix_spawn leaves them ignored in children.
        // SIGKILL and SIGSTOP are refused by the kernel, which is of no interest.
        // SAFETY: `default` is at least as long as the kernel's structure and outlives the call; a null old
        // action is allowed; 8 is the size of the kernel's signal set.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, n, &raw const default, ptr::null_mut::<u8>(), 8_usize) };
    }
    let empty = set(Fill::Empty);
    let old: *mut libc::sigset_t = ptr::null_mut();
    // SAFETY: `empty` is an initialised set that outlives the call; a null old set is allowed.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, old) };
}

/// SIGPIPE is ignored: a write to a pipe that nobody reads is an error of that write.
pub fn ignore_pipe() {
    // SAFETY: SIG_IGN is no code of ours, and SIGPIPE may be ignored: signal(2) cannot fail here.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// SIGCHLD has its default action, whatever the caller left: a process that ignores it never learns how a child ended
/// (sigaction(2), "SA_NOCLDWAIT"; the same holds for SIG_IGN, which execve(2) hands down).
pub fn hear_of_children() {
    // SAFETY: SIG_DFL is no code of ours, and SIGCHLD may have it: signal(2) cannot fail here.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// SIGHUP, SIGINT, SIGQUIT and SIGTERM end this process with exit code 128 + number, also where it is the first
/// of a pid namespace, which the kernel spares their default action. Until the next exec.
pub fn end_by_them() {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit is async-signal-safe and takes an integer.
        unsafe { libc::_exit(128 + signal) }
    }
    for n in [number::HUP, number::INT, number::QUIT, number::TERM] {
        let handler: extern "C" fn(libc::c_int) = end;
        // SAFETY: the handler has the type that signal(2) wants and only calls an async-signal-safe function.
        unsafe { libc::signal(n, handler as libc::sighandler_t) };
    }
}

/// Blocks every signal of the calling thread, so that [`wait_any`] receives them.
///
/// # Errors
/// None in practice.
pub fn block_all() -> Result<()> {
    let full = set(Fill::Full);
    let old: *mut libc::sigset_t = ptr::null_mut();
    // SAFETY: `full` is an initialised set that outlives the call; a null old set is allowed.
    let r = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const full, old) };
    if r < 0 { Err(SysError::last("sigprocmask", "SIG_SETMASK, all")) } else { Ok(()) }
}

/// Waits for any signal, all being blocked, and returns its number.
///
/// # Errors
/// None in practice.
pub fn wait_any() -> Result<i32> {
    let full = set(Fill::Full);
    loop {
        let info: *mut libc::siginfo_t = ptr::null_mut();
        // SAFETY: `full` is an initialised set that outlives the call; a null siginfo is allowed.
        let n = unsafe { libc::sigwaitinfo(&raw const full, info) };
        if n > 0 {
            return Ok(n);
        }
        let e = SysError::last("sigwaitinfo", "all");
        if e.errno != Errno::INTR {
            return Err(e);
        }
    }
}

enum Fill {
    Empty,
    Full,
}

fn set(fill: Fill) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    let p = set.as_mut_ptr();
    match fill {
        // SAFETY: `p` points to writable memory of the right type; sigemptyset initialises all of it.
        Fill::Empty => unsafe { libc::sigemptyset(p) },
        // SAFETY: as above, for sigfillset.
        Fill::Full => unsafe { libc::sigfillset(p) },
    };
    // SAFETY: one of the two calls above has initialised the whole set.
    unsafe { set.assume_init() }
}

//! One use of ptrace(2): reading the seccomp filters of another process. It is stopped for that moment and goes on by
//! itself whatever happens, because the kernel detaches what an ended thread has traced.

use std::{
    ffi::{c_long, c_void},
    ptr, thread,
    time::{Duration, Instant},
};

use crate::{
    Errno, Result, SysError,
    seccomp::{MAX_INSTRUCTIONS, SockFilter},
};

/// `PTRACE_SECCOMP_GET_FILTER` (linux/ptrace.h).
const GET_FILTER: u32 = 0x420c;
/// More filters than any process stacks.
const MAX_FILTERS: usize = 32;
/// A process that does not stop so long is in the middle of I/O.
const PATIENCE: Duration = Duration::from_secs(1);

/// The filters of a process, the last one that was loaded first.
///
/// # Errors
/// EPERM without the right to trace it, EACCES without CAP_SYS_ADMIN, EINVAL in a kernel without
/// CONFIG_CHECKPOINT_RESTORE, ETIMEDOUT when it does not stop.
pub fn seccomp_filters(pid: i32) -> Result<Vec<Vec<SockFilter>>> {
    // The thread is the tracer: with its end the process is let go.
    let read = thread::Builder::new().spawn(move || read_filters(pid));
    let failed = |_| SysError::new("clone", "a thread that traces", Errno::AGAIN);
    let ended = |_| SysError::new("ptrace", format!("{pid}"), Errno::IO);
    read.map_err(failed)?.join().map_err(ended)?
}

fn read_filters(pid: i32) -> Result<Vec<Vec<SockFilter>>> {
    request("PTRACE_SEIZE", libc::PTRACE_SEIZE, pid, 0, ptr::null_mut())?;
    request("PTRACE_INTERRUPT", libc::PTRACE_INTERRUPT, pid, 0, ptr::null_mut())?;
    wait_for_stop(pid)?;
    let mut filters = Vec::new();
    let outcome = loop {
        match filter(pid, filters.len()) {
            Ok(Some(filter)) if filters.len() < MAX_FILTERS => filters.push(filter),
            Ok(_) => break Ok(filters),
            Err(e) => break Err(e),
        }
    };
    request("PTRACE_DETACH", libc::PTRACE_DETACH, pid, 0, ptr::null_mut())?;
    outcome
}

/// One filter; `None` beyond the last.
fn filter(pid: i32, index: usize) -> Result<Option<Vec<SockFilter>>> {
    let length = match request("PTRACE_SECCOMP_GET_FILTER", GET_FILTER, pid, index, ptr::null_mut()) {
        Ok(length) => length,
        Err(e) if e.errno == Errno::NOENT => return Ok(None),
        Err(e) => return Err(e),
    };
    // The kernel has checked it when it was loaded; the buffer must hold what it writes.
    let length = usize::try_from(length).unwrap_or(0).min(MAX_INSTRUCTIONS);
    let mut program = vec![SockFilter { code: 0, jt: 0, jf: 0, k: 0 }; MAX_INSTRUCTIONS];
    request("PTRACE_SECCOMP_GET_FILTER", GET_FILTER, pid, index, program.as_mut_ptr().cast())?;
    program.truncate(length);
    Ok(Some(program))
}

fn wait_for_stop(pid: i32) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int through the pointer, which is live and writable.
        let got = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::WNOHANG) };
        match got {
            0 if Instant::now() >= until => return Err(SysError::new("waitpid", format!("{pid}"), Errno::TIMEDOUT)),
            0 => thread::sleep(Duration::from_micros(200)),
            n if n == pid && libc::WIFSTOPPED(status) => return Ok(()),
            n if n == pid => return Err(SysError::new("waitpid", format!("{pid} has ended"), Errno::SRCH)),
            _ => return Err(SysError::last("waitpid", format!("{pid}"))),
        }
    }
}

fn request(name: &'static str, request: u32, pid: i32, addr: usize, data: *mut c_void) -> Result<c_long> {
    let addr = addr as *mut c_void;
    // SAFETY: of the requests made here only PTRACE_SECCOMP_GET_FILTER uses its pointers: it takes `addr` as a number,
    // and writes at most BPF_MAXINSNS instructions to `data`, which is null or a live buffer of that many (see `filter`).
    let result = unsafe { libc::ptrace(request, pid, addr, data) };
    if result < 0 { Err(SysError::last("ptrace", format!("{name}, {pid}"))) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_there_or_not_ours_is_an_error() {
        assert_eq!(seccomp_filters(i32::MAX).expect_err("no such process").errno, Errno::SRCH);
    }
}

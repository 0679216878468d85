//! Loading of seccomp filters, and the agent's side of a listener. seccomp(2), seccomp_unotify(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Errno, Result, SysError};

/// One instruction of classic BPF, as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SockFilter {
    /// Opcode.
    pub code: u16,
    /// Jump when true.
    pub jt: u8,
    /// Jump when false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Flags of SECCOMP_SET_MODE_FILTER.
pub mod flag {
    /// All threads get the filter.
    pub const TSYNC: u32 = 1;
    /// Actions other than allow are logged.
    pub const LOG: u32 = 2;
    /// Speculative store bypass mitigation is not forced on.
    pub const SPEC_ALLOW: u32 = 4;
    /// A notification descriptor is returned.
    pub const NEW_LISTENER: u32 = 8;
    /// A notified thread waits killable.
    pub const WAIT_KILLABLE_RECV: u32 = 32;
}

/// The kernel's limit of instructions per filter (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4096;

#[repr(C)]
struct SockFprog {
    len: u16,
    filter: *const SockFilter,
}

/// Installs `program` for the calling thread; returns the listener when `flag::NEW_LISTENER` is set.
///
/// # Errors
/// EACCES without CAP_SYS_ADMIN or no_new_privs; EINVAL for a program the kernel refuses.
pub fn load(program: &[SockFilter], flags: u32) -> Result<Option<OwnedFd>> {
    let what = || format!("SECCOMP_SET_MODE_FILTER, {flags:#x}, {} instructions", program.len());
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(SysError::new("seccomp", what(), Errno::INVAL));
    }
    let prog = SockFprog { len: program.len() as u16, filter: program.as_ptr() };
    // SAFETY: `prog` is a live repr(C) sock_fprog; its length (checked above to fit) is that of the live
    // slice behind `filter`, whose elements are repr(C) sock_filter; the kernel copies and does not keep it.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const prog) };
    if r < 0 {
        return Err(SysError::last("seccomp", what()));
    }
    if flags & flag::NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER a non-negative result is a fresh descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(r as RawFd) }))
}

/// A system call about which an agent is asked. seccomp_unotify(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// Names the question in the answer.
    pub id: u64,
    /// Thread that makes the call, in the agent's pid namespace.
    pub pid: u32,
    /// Number of the call.
    pub number: i32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// An agent's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The call is made.
    Continue,
    /// It fails.
    Fail(Errno),
}

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Default)]
struct Notif {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;
const FLAG_CONTINUE: u32 = 1;

/// Waits for the next question on a listener.
///
/// # Errors
/// ENOENT when the caller was killed meanwhile; EINTR.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Notification> {
    // The kernel demands zeroes.
    let mut n = Notif::default();
    // SAFETY: SECCOMP_IOCTL_NOTIF_RECV writes one seccomp_notif through the pointer, which is live, writable and
    // of that repr(C) layout; its size is part of the request number.
    let r = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &raw mut n) };
    if r < 0 {
        return Err(SysError::last("ioctl", "SECCOMP_IOCTL_NOTIF_RECV"));
    }
    Ok(Notification { id: n.id, pid: n.pid, number: n.nr, args: n.args })
}

/// Answers a question.
///
/// # Errors
/// ENOENT when nobody waits for the answer any more.
pub fn respond(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<()> {
    let (error, flags) = match answer {
        Answer::Continue => (0, FLAG_CONTINUE),
        Answer::Fail(errno) => (-errno.raw_os_error(), 0),
    };
    let mut response = Response { id, val: 0, error, flags };
    // SAFETY: SECCOMP_IOCTL_NOTIF_SEND reads one seccomp_notif_resp through the pointer, which is live and of that
    // repr(C) layout; its size is part of the request number.
    let r = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw mut response) };
    if r < 0 { Err(SysError::last("ioctl", "SECCOMP_IOCTL_NOTIF_SEND")) } else { Ok(()) }
}

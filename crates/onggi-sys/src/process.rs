//! Processes: clone3 as a fork with namespaces, pidfds, exec, attributes of the calling process.
//!
//! The child of [`clone_process`] is a copy of a single-threaded process, so ordinary code may run in it;
//! [`crate::spawn`] is for callers with threads. clone(2), pidfd_open(2), execveat(2), prctl(2).

use std::{
    ffi::{CStr, CString},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    ptr,
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::{Errno, Result, SysContext, SysError};

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of linux/sched.h, version 2 (Linux 5.7).
#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// What [`clone_process`] makes.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneRequest<'a> {
    /// New namespaces, bits of [`crate::ns::flag`].
    pub namespaces: u64,
    /// The cgroup (v2) that the child is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The child becomes a sibling: its parent is the caller's parent.
    pub sibling: bool,
}

/// Who returns from [`clone_process`].
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The caller.
    Parent {
        /// The child's pid in the caller's pid namespace.
        pid: i32,
        /// The child's pidfd.
        pidfd: OwnedFd,
    },
}

/// clone3(2) without a shared address space: fork(2) with namespaces.
///
/// # Errors
/// EBUSY when the caller has more than one thread: the child would inherit locks held by threads that do
/// not exist in it. Else clone3(2): EPERM, ENOSPC (namespace limits), EAGAIN (pids limit).
pub fn clone_process(request: CloneRequest<'_>) -> Result<Cloned> {
    let what = || format!("flags={:#x}", request.namespaces);
    if thread_count()? != 1 {
        return Err(SysError::new("clone3", format!("{}, caller has threads", what()), Errno::BUSY));
    }
    let mut pidfd: libc::c_int = -1;
    let mut flags = request.namespaces | CLONE_PIDFD;
    if request.sibling {
        flags |= CLONE_PARENT;
    }
    if request.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        // CLONE_PARENT demands 0: the sibling inherits the caller's own exit signal.
        exit_signal: if request.sibling { 0 } else { libc::SIGCHLD as u64 },
        cgroup: request.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a live repr(C) clone_args and its size is passed; `pidfd` outlives the call; there
    // is no CLONE_VM, so the child runs on a copy of this stack; the caller has one thread (checked above),
    // hence no lock is held by a thread that the child lacks.
    let r = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match r {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: with CLONE_PIDFD the kernel stored a fresh descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: pid as i32, pidfd })
        }
        _ => Err(SysError::last("clone3", what())),
    }
}

/// Threads of this process: the link count of /proc/self/task is theirs plus two. Without procfs, 1 is
/// assumed when the kernel confirms that this thread's id is the process's.
fn thread_count() -> Result<u64> {
    match rustix::fs::stat(c"/proc/self/task") {
        Ok(s) => Ok(s.st_nlink.saturating_sub(2)),
        Err(Errno::NOENT) if rustix::thread::gettid() == rustix::process::getpid() => Ok(1),
        Err(e) => Err(SysError::new("stat", "\"/proc/self/task\"", e)),
    }
}

/// pidfd_open(2).
///
/// # Errors
/// ESRCH when there is no such process.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    let p = Pid::from_raw(pid).filter(|p| p.as_raw_nonzero().get() > 0);
    let p = p.ok_or_else(|| SysError::new("pidfd_open", format!("{pid}"), Errno::SRCH))?;
    rustix::process::pidfd_open(p, PidfdFlags::empty()).sys("pidfd_open", || format!("{pid}"))
}

/// pidfd_send_signal(2); `signal` 0 only tests.
///
/// # Errors
/// ESRCH when the process is gone, EPERM, EINVAL.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let no_info: *const libc::siginfo_t = ptr::null();
    // SAFETY: integers and a null siginfo, which pidfd_send_signal(2) documents as "as kill(2)"; `pidfd` is
    // open for the call's duration.
    let r = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) };
    if r < 0 {
        return Err(SysError::last("pidfd_send_signal", format!("{signal}")));
    }
    Ok(())
}

/// kill(2). `pid` -1 means every process that may be signalled.
///
/// # Errors
/// ESRCH, EPERM.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill takes two integers and touches no memory.
    let r = unsafe { libc::kill(pid, signal) };
    if r < 0 {
        return Err(SysError::last("kill", format!("{pid}, {signal}")));
    }
    Ok(())
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// exit(2) with this status.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

impl Exit {
    /// The exit code of shells and engines: 128+n for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(c) => c,
            Self::Signal(s) => 128 + s,
        }
    }
}

/// Waits for the child behind `pidfd` and reaps it.
///
/// # Errors
/// ECHILD when it is not our child.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(exit_of(&status)),
            Ok(None) | Err(Errno::INTR) => {}
            Err(e) => return Err(SysError::new("waitid", "P_PIDFD", e)),
        }
    }
}

/// Reaps any one child that has exited: its pid and how it ended; `None` when none has.
///
/// # Errors
/// ECHILD when there are no children.
pub fn reap_any() -> Result<Option<(i32, Exit)>> {
    match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(c), _) => Exit::Code(c),
                (None, Some(s)) => Exit::Signal(s),
                (None, None) => return Ok(None),
            };
            Ok(Some((pid.as_raw_nonzero().get(), exit)))
        }
        Ok(None) => Ok(None),
        Err(e) => Err(SysError::new("wait4", "-1, WNOHANG", e)),
    }
}

fn exit_of(status: &rustix::process::WaitIdStatus) -> Exit {
    match status.exit_status() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.terminating_signal().unwrap_or(libc::SIGKILL)),
    }
}

/// Strings for execve(2), prepared ahead.
#[derive(Debug, Default)]
pub struct CStrings {
    strings: Vec<CString>,
}

impl CStrings {
    /// Copies `items`.
    ///
    /// # Errors
    /// EINVAL for a string with a NUL byte.
    pub fn new<'s>(items: impl IntoIterator<Item = &'s [u8]>) -> Result<Self> {
        let make = |s: &[u8]| {
            CString::new(s).map_err(|_| SysError::new("execve", "string with a NUL byte".to_string(), Errno::INVAL))
        };
        Ok(Self { strings: items.into_iter().map(make).collect::<Result<_>>()? })
    }

    /// Adds one more.
    ///
    /// # Errors
    /// EINVAL for a NUL byte.
    pub fn push(&mut self, item: &[u8]) -> Result<()> {
        let Self { strings } = Self::new([item])?;
        self.strings.extend(strings);
        Ok(())
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    pub(crate) fn pointers(&self) -> Vec<*const libc::c_char> {
        self.strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(ptr::null())).collect()
    }
}

/// execve(2). Returns only when it failed.
pub fn exec(path: &CStr, argv: &CStrings, envp: &CStrings) -> SysError {
    let (argv_p, envp_p) = (argv.pointers(), envp.pointers());
    // SAFETY: `path` and all strings are NUL-terminated and live; both arrays end with a null pointer and
    // live across the call, which returns only on failure.
    unsafe { libc::execve(path.as_ptr(), argv_p.as_ptr(), envp_p.as_ptr()) };
    SysError::last("execve", format!("{path:?}"))
}

/// execveat(2) of an open file (O_PATH will do). Returns only when it failed.
pub fn exec_fd(file: BorrowedFd<'_>, argv: &CStrings, envp: &CStrings) -> SysError {
    let (argv_p, envp_p) = (argv.pointers(), envp.pointers());
    // SAFETY: as in `exec`; `file` is open and the path is the empty static string with AT_EMPTY_PATH.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv_p.as_ptr(),
            envp_p.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    SysError::last("execveat", format!("fd {}", file.as_raw_fd()))
}

/// _exit(2): ends a cloned child without running the parent's exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer, does not return and runs no handlers.
    unsafe { libc::_exit(code) }
}

/// close_range(first, ~0, CLOSE_RANGE_CLOEXEC): nothing above survives the next exec (I3).
///
/// # Errors
/// EINVAL before Linux 5.11.
pub fn cloexec_from(first: u32) -> Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// close_range(2) with integer arguments; `pub(crate)` because plain closing would break owned descriptors.
pub(crate) fn close_range(first: u32, last: u32, flags: u32) -> Result<()> {
    // SAFETY: integers only. With CLOEXEC no descriptor is closed now; the other callers (a child right
    // before exec) own no descriptor objects that are used afterwards.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if r < 0 {
        return Err(SysError::last("close_range", format!("{first}, {last}, {flags}")));
    }
    Ok(())
}

/// Closes every descriptor from 3 on that is not in `keep`: for a cloned child, which inherits a copy of
/// everything that its parent had open. Objects of the parent that own the closed numbers must not be used or
/// dropped in this process; a child that ends with exec or [`exit_now`] never does.
///
/// # Errors
/// None in practice.
pub fn close_all_but(keep: impl IntoIterator<Item = RawFd>) -> Result<()> {
    let mut kept: Vec<u32> = keep.into_iter().filter_map(|fd| u32::try_from(fd).ok()).filter(|fd| *fd > 2).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX, 0)
}

/// Closes descriptors; neighbours with one call.
pub fn close_together(fds: Vec<OwnedFd>) {
    let mut numbers: Vec<u32> = fds.into_iter().map(|fd| fd.into_raw_fd().cast_unsigned()).collect();
    numbers.sort_unstable();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        // Every number is in range; nothing else can fail.
        let _ = close_range(run[0], run[run.len() - 1], 0);
    }
}

/// PR_SET_PDEATHSIG: `signal` is sent to this process when its parent dies; 0 clears it. Changing ids clears
/// it too, so it is set after them.
///
/// # Errors
/// EINVAL for a bad signal.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64)
}

/// PR_SET_DUMPABLE.
///
/// # Errors
/// None in practice.
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, u64::from(on))
}

/// PR_SET_CHILD_SUBREAPER.
///
/// # Errors
/// None in practice.
pub fn set_subreaper(on: bool) -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, u64::from(on))
}

fn prctl(option: libc::c_int, value: u64) -> Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take one integer (prctl(2)); no memory is touched.
    let r = unsafe { libc::prctl(option, value as libc::c_ulong, zero, zero, zero) };
    if r < 0 {
        return Err(SysError::last("prctl", format!("{option}, {value}")));
    }
    Ok(())
}

/// PR_SET_NAME: the name in ps, at most 15 bytes.
///
/// # Errors
/// None in practice.
pub fn set_name(name: &CStr) -> Result<()> {
    rustix::thread::set_name(name).sys("prctl", || "PR_SET_NAME")
}

/// Replaces what /proc/PID/cmdline shows, cut to the space that the arguments have; `text` separates its words
/// by NUL. For a process that stays under another role than it was started in.
///
/// # Errors
/// /proc is not mounted, or hides the addresses.
pub fn set_command_line(text: &[u8]) -> std::io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 48 and 49 of proc_pid_stat(5), counted after the command name.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace()).into_iter().flatten();
    let mut bounds = fields.skip(45).map_while(|f| f.parse::<usize>().ok());
    let (Some(start), Some(end)) = (bounds.next(), bounds.next()) else {
        return Err(std::io::ErrorKind::InvalidData.into());
    };
    if start == 0 || end <= start {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut area = vec![0u8; end - start];
    let shown = text.len().min(area.len() - 1);
    area[..shown].copy_from_slice(&text[..shown]);
    // SAFETY: the kernel names `start..end` as this process's own argument strings: initialised, writable stack
    // memory that stays mapped; `area` is another allocation of the same length; nothing holds a reference into
    // the strings (std copies them on each use).
    unsafe { ptr::copy_nonoverlapping(area.as_ptr(), start as *mut u8, area.len()) };
    Ok(())
}

/// setsid(2).
///
/// # Errors
/// EPERM when this is already a process group leader.
pub fn setsid() -> Result<()> {
    rustix::process::setsid().map(drop).sys("setsid", || "")
}

/// A signal number as rustix's type, when it is one.
pub fn signal(number: i32) -> Option<Signal> {
    Signal::from_named_raw(number)
}

/// Closes every descriptor from `first` on and runs `forever`, which never returns: for a process that stays
/// behind as a reaper and must not keep anything open. Descriptors that `forever` captured are closed too.
pub fn close_all_and(first: u32, forever: impl FnOnce() -> std::convert::Infallible) -> ! {
    // Nothing is dropped after this point: `forever` does not return, so no owner closes a number twice.
    let _ = close_range(first, u32::MAX, 0);
    match forever() {}
}

/// As [`wait_pidfd`], but does not wait: `None` while the child runs.
///
/// # Errors
/// ECHILD when it is not our child.
pub fn try_wait_pidfd(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>> {
    match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(status) => Ok(status.map(|s| exit_of(&s))),
        Err(Errno::INTR) => Ok(None),
        Err(e) => Err(SysError::new("waitid", "P_PIDFD, WNOHANG", e)),
    }
}

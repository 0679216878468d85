//! `Spawn`: starts a program with exactly the argv, environment and descriptors that it is given.
//!
//! Safe in programs with threads: everything is prepared before the clone and the child makes raw system
//! calls only, without allocation. Used by the engine to start the monitor.

use std::{
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{fd::IntoRawFd, pipe::PipeFlags};

use crate::{
    Errno, Result, SysContext, SysError,
    process::{CStrings, CloneArgs, close_range, exit_now},
};

const CLONE_PIDFD: u64 = 0x1000;

/// The program to start.
#[derive(Debug)]
pub enum Program<'a> {
    /// By absolute path.
    Path(&'a CStr),
    /// By descriptor, as from [`crate::mount::read_only_file`].
    Fd(BorrowedFd<'a>),
}

/// A program about to be started.
#[derive(Debug)]
pub struct Spawn<'a> {
    program: Program<'a>,
    argv: CStrings,
    envp: CStrings,
    fds: Vec<(BorrowedFd<'a>, RawFd)>,
    setsid: bool,
}

/// A started program.
#[derive(Debug)]
pub struct Spawned {
    /// Its pid.
    pub pid: i32,
    /// Its pidfd; the caller reaps it with [`crate::process::wait_pidfd`].
    pub pidfd: OwnedFd,
}

impl<'a> Spawn<'a> {
    /// `argv` includes argv\[0\]; `env` is the whole environment.
    ///
    /// # Errors
    /// EINVAL for a NUL byte.
    pub fn new<A: AsRef<OsStr>>(program: Program<'a>, argv: &[A], env: &[A]) -> Result<Self> {
        let bytes = |s: &'_ [A]| s.iter().map(|a| a.as_ref().as_bytes().to_vec()).collect::<Vec<_>>();
        let (argv, env) = (bytes(argv), bytes(env));
        Ok(Self {
            program,
            argv: CStrings::new(argv.iter().map(Vec::as_slice))?,
            envp: CStrings::new(env.iter().map(Vec::as_slice))?,
            fds: Vec::new(),
            setsid: false,
        })
    }

    /// Gives `fd` to the program as descriptor `number`. Numbers 0 to 2 that are not given are opened on /dev/null; nothing else is
    /// inherited. Twice as many numbers as there are must be below the limit of open files (`RLIMIT_NOFILE`).
    #[must_use]
    pub fn fd(mut self, fd: BorrowedFd<'a>, number: RawFd) -> Self {
        self.fds.push((fd, number));
        self
    }

    /// The program leads a new session.
    #[must_use]
    pub fn setsid(mut self) -> Self {
        self.setsid = true;
        self
    }

    /// Starts it with cwd `/`, default signal dispositions and an empty signal mask.
    ///
    /// # Errors
    /// clone3(2), execve(2) and what precedes it in the child, under the name of the call that failed.
    pub fn start(self) -> Result<Spawned> {
        if let Some((_, n)) = self.fds.iter().find(|(_, n)| *n < 0) {
            return Err(SysError::new("dup3", format!("{n}"), Errno::BADF));
        }
        let null = rustix::fs::open(c"/dev/null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, 0.into())
            .sys("open", || "\"/dev/null\"")?;
        let mut fds: Vec<(RawFd, RawFd)> = self.fds.iter().map(|(f, n)| (f.as_raw_fd(), *n)).collect();
        for n in 0..3 {
            if !fds.iter().any(|(_, t)| *t == n) {
                fds.push((null.as_raw_fd(), n));
            }
        }
        // Descriptors are first moved to numbers from here on, so that no target overwrites a source.
        let scratch = fds.iter().map(|(source, target)| source.max(target) + 1).max().unwrap_or(0);
        let beyond = scratch + RawFd::try_from(fds.len()).unwrap_or(RawFd::MAX - scratch);
        let (report_r, low_w) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).sys("pipe2", || "O_CLOEXEC")?;
        // The report pipe is moved beyond every scratch number, out of the way of all targets.
        let report_w = rustix::io::fcntl_dupfd_cloexec(&low_w, beyond).sys("fcntl", || "F_DUPFD_CLOEXEC")?;
        drop(low_w);
        // So is the program: a target may have the number that it has here.
        let moved = match &self.program {
            Program::Path(_) => None,
            Program::Fd(fd) => Some(rustix::io::fcntl_dupfd_cloexec(fd, beyond).sys("fcntl", || "F_DUPFD_CLOEXEC")?),
        };
        let plan = ChildPlan {
            program: match (&self.program, &moved) {
                (Program::Path(p), _) => Executable::Path((*p).to_owned()),
                (Program::Fd(fd), None) => Executable::Fd(fd.as_raw_fd()),
                (Program::Fd(_), Some(moved)) => Executable::Fd(moved.as_raw_fd()),
            },
            argv: self.argv.pointers(),
            envp: self.envp.pointers(),
            fds,
            scratch,
            report: report_w.as_raw_fd(),
            setsid: self.setsid,
        };
        let spawned = clone_and_run(&plan)?;
        drop(report_w);
        read_report(report_r.as_fd())?;
        Ok(spawned)
    }
}

enum Executable {
    Path(CString),
    Fd(RawFd),
}

/// Everything the child needs, as plain numbers and pointers into memory that the parent keeps alive.
struct ChildPlan {
    program: Executable,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    fds: Vec<(RawFd, RawFd)>,
    /// The first of as many numbers that are neither source nor target.
    scratch: RawFd,
    report: RawFd,
    setsid: bool,
}

fn clone_and_run(plan: &ChildPlan) -> Result<Spawned> {
    let mut pidfd: libc::c_int = -1;
    let args = CloneArgs {
        flags: CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a live repr(C) clone_args of the size passed; `pidfd` outlives the call; no CLONE_VM,
    // so the child has its own copy of this stack. The caller may have threads: the child only runs
    // `run_child`, which makes raw system calls and takes no lock.
    let r = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match r {
        0 => run_child(plan),
        pid if pid > 0 => {
            // SAFETY: the kernel stored a fresh descriptor there that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Spawned { pid: pid as i32, pidfd })
        }
        _ => Err(SysError::last("clone3", "CLONE_PIDFD")),
    }
}

/// Steps of the child, by the number that crosses the report pipe.
const STEPS: [&str; 4] = ["setsid", "dup3", "close_range", "execve"];

fn run_child(plan: &ChildPlan) -> ! {
    let (step, errno) = child_steps(plan);
    let mut message = [0u8; 5];
    message[0] = step;
    message[1..].copy_from_slice(&errno.to_le_bytes());
    // SAFETY: the buffer lives across the call, five bytes of it are written, `report` is the open pipe.
    unsafe { libc::write(plan.report, message.as_ptr().cast(), message.len()) };
    exit_now(127)
}

/// Returns the failed step and errno; does not return when the program was executed.
fn child_steps(plan: &ChildPlan) -> (u8, i32) {
    crate::signal::reset_all();
    if plan.setsid
        && let Err(e) = rustix::process::setsid()
    {
        return (0, e.raw_os_error());
    }
    let _ = rustix::process::chdir(c"/");
    for (i, (from, _)) in plan.fds.iter().enumerate() {
        if let Err(e) = dup_to(*from, plan.scratch + i as RawFd, libc::O_CLOEXEC) {
            return (1, e);
        }
    }
    for (i, (_, to)) in plan.fds.iter().enumerate() {
        if let Err(e) = dup_to(plan.scratch + i as RawFd, *to, 0) {
            return (1, e);
        }
    }
    if let Err(e) = close_others(plan) {
        return (2, e);
    }
    match &plan.program {
        Executable::Path(p) => {
            // SAFETY: `p` and the strings behind both null-terminated arrays are kept alive by the parent's
            // copy-on-write image; returns only on failure.
            unsafe { libc::execve(p.as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr()) };
        }
        Executable::Fd(fd) => {
            // SAFETY: as above, with the empty path and AT_EMPTY_PATH; `fd` is open (only close-on-exec).
            unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    *fd,
                    c"".as_ptr(),
                    plan.argv.as_ptr(),
                    plan.envp.as_ptr(),
                    libc::AT_EMPTY_PATH,
                )
            };
        }
    }
    (3, std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Marks close-on-exec whatever is not a target.
fn close_others(plan: &ChildPlan) -> std::result::Result<(), i32> {
    let highest = plan.fds.iter().map(|(_, t)| *t).max().unwrap_or(2);
    for n in 3..=highest {
        if !plan.fds.iter().any(|(_, t)| *t == n) {
            let _ = close_range(n as u32, n as u32, libc::CLOSE_RANGE_CLOEXEC);
        }
    }
    close_range(highest as u32 + 1, u32::MAX, libc::CLOSE_RANGE_CLOEXEC).map_err(|e| e.raw())
}

fn dup_to(from: RawFd, to: RawFd, flags: libc::c_int) -> std::result::Result<(), i32> {
    // SAFETY: integers only; both numbers belong to this child, which owns no descriptor objects afterwards.
    let r = unsafe { libc::syscall(libc::SYS_dup3, from, to, flags) };
    if r < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)) } else { Ok(()) }
}

fn read_report(pipe: BorrowedFd<'_>) -> Result<()> {
    let mut message = [0u8; 5];
    loop {
        match rustix::io::read(pipe, &mut message) {
            Err(Errno::INTR) => {}
            Ok(5) => {
                let errno = i32::from_le_bytes([message[1], message[2], message[3], message[4]]);
                let call = STEPS.get(message[0] as usize).copied().unwrap_or("execve");
                return Err(SysError::new(call, "", Errno::from_raw_os_error(errno)));
            }
            // End of file: exec closed the pipe.
            Ok(_) => return Ok(()),
            Err(e) => return Err(SysError::new("read", "report pipe", e)),
        }
    }
}

/// Puts `fd` on 0, 1 or 2 of this process. Meant for a child about to exec.
///
/// # Errors
/// EBADF for another number.
pub fn install_stdio(fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    if !(0..=2).contains(&number) {
        return Err(SysError::new("dup3", format!("{number}"), Errno::BADF));
    }
    if fd.as_raw_fd() == number {
        return rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).sys("fcntl", || "F_SETFD");
    }
    dup_to(fd.as_raw_fd(), number, 0)
        .map_err(|e| SysError::new("dup3", format!("{number}"), Errno::from_raw_os_error(e)))
}

/// Takes ownership of an inherited descriptor, as when a parent hands one down by number. Each number may be
/// taken once by one piece of code; numbers 0 to 2 are refused.
///
/// # Errors
/// EBADF when it is not open.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd> {
    if number <= 2 {
        return Err(SysError::new("fcntl", format!("{number}"), Errno::BADF));
    }
    // SAFETY: F_DUPFD_CLOEXEC takes integers only and fails with EBADF on a closed number.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(SysError::last("fcntl", format!("{number}, F_DUPFD_CLOEXEC")));
    }
    // The peer must see the end of the connection when the copy is dropped, so the number itself goes now.
    // SAFETY: close takes an integer; that `number` is inherited and taken once is this function's contract,
    // so no owner of it exists in this process.
    unsafe { libc::close(number) };
    // SAFETY: `copy` is a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Gives up ownership, so that the descriptor stays open until exec or exit.
pub fn leak(fd: OwnedFd) -> RawFd {
    fd.into_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Exit, wait_pidfd};

    #[test]
    fn missing_program_is_reported_by_the_parent() {
        let s = Spawn::new(Program::Path(c"/nonexistent"), &["x"], &[]).unwrap();
        let e = s.start().unwrap_err();
        assert_eq!((e.call, e.errno), ("execve", Errno::NOENT));
    }

    #[test]
    fn only_given_descriptors_and_environment_arrive() {
        let (r, w) = rustix::pipe::pipe().unwrap();
        let script = "test \"$A\" = b && test -z \"$HOME\" && ls /proc/self/fd | wc -l >&7 && exit 5";
        let s = Spawn::new(Program::Path(c"/bin/sh"), &["sh", "-c", script], &["A=b", "PATH=/bin:/usr/bin"]).unwrap();
        let child = s.fd(w.as_fd(), 7).setsid().start().unwrap();
        drop(w);
        assert_eq!(wait_pidfd(child.pidfd.as_fd()).unwrap(), Exit::Code(5));
        let mut buf = [0u8; 16];
        let n = rustix::io::read(&r, &mut buf).unwrap();
        // 0, 1, 2, 7 and the directory that ls itself has open.
        assert_eq!(String::from_utf8_lossy(&buf[..n]).trim(), "5");
    }

    #[test]
    fn hundreds_of_descriptors_arrive_where_they_are_meant() {
        let files: Vec<OwnedFd> = (0..400).map(|_| rustix::pipe::pipe().unwrap().0).collect();
        let (r, w) = rustix::pipe::pipe().unwrap();
        let script = "ls /proc/self/fd | wc -l >&403";
        let s = Spawn::new(Program::Path(c"/bin/bash"), &["bash", "-c", script], &["PATH=/bin:/usr/bin"]).unwrap();
        let s = files.iter().zip(3..).fold(s, |s, (fd, number)| s.fd(fd.as_fd(), number));
        let child = s.fd(w.as_fd(), 403).start().unwrap();
        drop(w);
        assert_eq!(wait_pidfd(child.pidfd.as_fd()).unwrap(), Exit::Code(0));
        let mut buf = [0u8; 16];
        let n = rustix::io::read(&r, &mut buf).unwrap();
        // 0 to 2, 3 to 403, and the directory that ls itself has open.
        assert_eq!(String::from_utf8_lossy(&buf[..n]).trim(), "405");
    }
}

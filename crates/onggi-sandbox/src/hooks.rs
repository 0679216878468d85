//! Hooks: programs that the configuration names, with exactly its arguments and environment and the state on
//! stdin. Without an environment they have the runtime's, startContainer hooks that of the container's process (runc). config.md "POSIX-platform Hooks".
//!
//! A hook inherits nothing else but its namespaces, credentials and limits: its output goes to memory and becomes
//! part of the error when it fails. Needs a single-threaded caller, like every clone of this crate.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::{Duration, Instant},
};

use onggi_spec::oci::runtime::Hook;
use onggi_sys::{
    Errno, SysContext, SysError,
    process::{self, CStrings, CloneRequest, Cloned, Exit},
    signal, spawn,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, Mode, OFlags},
};

use crate::{
    channel::{Channel, Message},
    error::{Result, StartFailureError, Step},
};

/// What an error quotes of a hook's output.
const MAX_QUOTED: u64 = 1024;

/// What all hooks of one kind have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage<'a> {
    /// `createRuntime` and so on.
    pub(crate) kind: &'static str,
    /// The state as JSON.
    pub(crate) state: &'a [u8],
    /// Environment of hooks that have none of their own; the runtime's when absent.
    pub(crate) environment: Option<&'a CStrings>,
    /// Working directory; the caller's own when absent.
    pub(crate) directory: Option<BorrowedFd<'a>>,
}

/// Runs `hooks` in order; the first failure ends it.
pub(crate) fn run_all(stage: Stage<'_>, hooks: &[Hook]) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(index, hook)| numbered(stage, index, hook))
}

/// Runs all of them; failures are returned as texts, as poststop demands.
pub(crate) fn run_all_lenient(stage: Stage<'_>, hooks: &[Hook]) -> Vec<String> {
    let each = hooks.iter().enumerate();
    each.filter_map(|(index, hook)| numbered(stage, index, hook).err())
        .map(|e| told(stage.kind, &e.to_string()))
        .collect()
}

/// crun's words, where there is an exit code, before runc's.
fn told(kind: &str, failure: &str) -> String {
    match failure.split_once(": exit status ").and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()) {
        Some(code) => format!("{kind} hook failed with exit code {code}: {failure}"),
        None => failure.to_owned(),
    }
}

/// The working directory of hooks on the host; one that is gone is nobody's failure.
pub(crate) fn bundle_directory(bundle: &Path) -> Option<OwnedFd> {
    rustix::fs::open(bundle, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn numbered(stage: Stage<'_>, index: usize, hook: &Hook) -> Result<()> {
    run(stage, hook).map_err(|e| {
        let mut e = e;
        e.0.step = format!("error running {} hook #{index}: {}: {}", stage.kind, hook.path, e.0.step);
        e
    })
}

fn run(stage: Stage<'_>, hook: &Hook) -> Result<()> {
    check(hook)?;
    let step = || "prepare it".to_string();
    let program = CStrings::new([hook.path.as_bytes()]).step(step)?;
    let arguments = if hook.args.is_empty() { std::slice::from_ref(&hook.path) } else { &hook.args };
    let argv = CStrings::new(arguments.iter().map(String::as_bytes)).step(step)?;
    let own = environment(hook).step(step)?;
    let envp = stage.environment.filter(|_| hook.env.is_none()).unwrap_or(&own);
    let stdin = memory(stage.state).step(step)?;
    let (stdout, stderr) = (memory(b"").step(step)?, memory(b"").step(step)?);
    let (ours, theirs) = Channel::pair()?;
    match process::clone_process(CloneRequest::default()).step(step)? {
        Cloned::Child => {
            signal::reset_all();
            let streams = [&stdin, &stdout, &stderr].map(AsFd::as_fd);
            let failure = match become_hook(stage, streams, hook.timeout.is_some()) {
                Ok(()) => program.strings().first().map_or_else(
                    || SysError::new("execve", "no program", Errno::NOENT),
                    |path| process::exec(path, &argv, envp),
                ),
                Err(e) => e,
            };
            let _ = theirs.send(&Message::Failed(StartFailureError::from_sys("execute it", &failure).0));
            process::exit_now(127)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let ended = wait(pid, pidfd.as_fd(), hook.timeout);
            if let Ok(Some(Message::Failed(failure))) = ours.receive() {
                return Err(StartFailureError(failure));
            }
            ended.map_err(|why| StartFailureError::new(why + &quote(stdout, stderr)))
        }
    }
}

/// What it was given; without a list of its own the runtime's environment, as runc and crun have it: hooks are
/// programs of the host that look for others in its PATH.
fn environment(hook: &Hook) -> onggi_sys::Result<CStrings> {
    match &hook.env {
        Some(list) => CStrings::new(list.iter().map(String::as_bytes)),
        None => {
            let inherited = std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
            let inherited: Vec<_> = inherited.collect();
            CStrings::new(inherited.iter().map(Vec::as_slice))
        }
    }
}

/// What the planner refuses too; hooks that were stored come from elsewhere.
pub(crate) fn check(hook: &Hook) -> Result<()> {
    if !hook.path.starts_with('/') {
        return Err(StartFailureError::new("the path is not absolute"));
    }
    if hook.timeout.is_some_and(|t| t <= 0) {
        return Err(StartFailureError::new("the timeout is not above 0"));
    }
    Ok(())
}

/// A file in memory: neither side ever waits for the other as with a pipe.
fn memory(content: &[u8]) -> onggi_sys::Result<File> {
    let make = |flags| rustix::fs::memfd_create(c"hook", MemfdFlags::CLOEXEC | flags);
    // Linux 6.3 knows the flag, and may be told (vm.memfd_noexec) to insist on it.
    let fd = match make(MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => make(MemfdFlags::empty()),
        r => r,
    };
    let mut file = File::from(fd.sys("memfd_create", || "\"hook\"")?);
    file.write_all(content).and_then(|()| file.rewind()).sys("write", || "the state")?;
    Ok(file)
}

fn become_hook(stage: Stage<'_>, streams: [BorrowedFd<'_>; 3], timed: bool) -> onggi_sys::Result<()> {
    if let Some(directory) = stage.directory {
        rustix::process::fchdir(directory).sys("fchdir", || "working directory")?;
    }
    if timed {
        // What it starts ends with it when its time is over. Without a limit it stays in the caller's group, where
        // an interrupt from the terminal reaches it.
        rustix::process::setpgid(None, None).sys("setpgid", || "hook")?;
    }
    for (number, stream) in (0..).zip(streams) {
        spawn::install_stdio(stream, number)?;
    }
    process::cloexec_from(3)
}

fn wait(pid: i32, pidfd: BorrowedFd<'_>, timeout: Option<i64>) -> std::result::Result<(), String> {
    if let Some(seconds) = timeout {
        let deadline = Instant::now() + Duration::from_secs(seconds.unsigned_abs());
        if !exits_before(pidfd, deadline) {
            // Not reaped yet, so the number is its own: first its group, then itself if it has left that.
            if pid > 1 {
                let _ = process::kill(-pid, signal::number::KILL);
            }
            let _ = process::pidfd_kill(pidfd, signal::number::KILL);
            let _ = process::wait_pidfd(pidfd);
            return Err(format!("still running after {seconds} s, killed"));
        }
    }
    match process::wait_pidfd(pidfd).map_err(|e| e.to_string())? {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(format!("exit status {code}")),
        Exit::Signal(number) => Err(match signal_words(number) {
            Some(words) => format!("signal: {words}"),
            None => format!("signal {number}"),
        }),
    }
}

/// What Go's programs, and thereby runc, call the signals that end programs.
fn signal_words(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        24 => "CPU time limit exceeded",
        25 => "file size limit exceeded",
        31 => "bad system call",
        _ => return None,
    })
}

fn exits_before(pidfd: BorrowedFd<'_>, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            _ => return true,
        }
    }
}

/// `, stdout: …, stderr: …` of a failed hook.
fn quote(stdout: File, stderr: File) -> String {
    let read = |mut file: File| {
        let mut text = Vec::new();
        // Best effort: it only illustrates the failure.
        let _ = file.rewind().and_then(|()| file.take(MAX_QUOTED).read_to_end(&mut text));
        String::from_utf8_lossy(&text).trim().to_owned()
    };
    format!(", stdout: {}, stderr: {}", read(stdout), read(stderr))
}

//! Processes as descriptors, and the way to start `onggi-oci`.

use std::{
    ffi::{CString, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::Instant,
};

use onggi_sys::{
    SysError,
    process::{pidfd_kill, pidfd_open},
    spawn::{Program, Spawn, Spawned},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{Engine, EngineError};

/// What our own helpers get as PATH; they start nothing by name but newuidmap and the like.
const TRUSTED_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that keeps its identity: a descriptor, not a number.
#[derive(Debug)]
pub(crate) struct PidFd(OwnedFd);

impl PidFd {
    /// `None` when there is no such process.
    pub(crate) fn open(pid: i32) -> Result<Option<Self>, EngineError> {
        match pidfd_open(pid) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(e) if is_gone(&e) => Ok(None),
            Err(source) => Err(EngineError::Sys { op: format!("open process {pid}"), source }),
        }
    }

    /// Sends a signal. A process that has ended needs none.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), EngineError> {
        match pidfd_kill(self.0.as_fd(), signal) {
            Err(e) if !is_gone(&e) => Err(EngineError::Sys { op: format!("send signal {signal}"), source: e }),
            _ => Ok(()),
        }
    }

    /// True when the process ended before `deadline`.
    pub(crate) fn ended_before(&self, deadline: Instant) -> Result<bool, EngineError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Ok(n) => return Ok(n > 0),
                Err(Errno::INTR) => {}
                Err(e) => {
                    let source = SysError::new("poll", "pidfd", e);
                    return Err(EngineError::Sys { op: "wait for a process".into(), source });
                }
            }
        }
    }
}

/// A process to send signals to, from any thread.
#[derive(Debug)]
pub struct ProcessHandle(PidFd);

impl ProcessHandle {
    pub(crate) fn new(process: PidFd) -> Self {
        Self(process)
    }

    /// Sends a signal; a process that has ended needs none.
    ///
    /// # Errors
    /// The number is no signal.
    pub fn signal(&self, signal: i32) -> Result<(), EngineError> {
        self.0.signal(signal)
    }
}

fn is_gone(e: &SysError) -> bool {
    e.raw() == Errno::SRCH.raw_os_error()
}

/// A pipe: read end, write end.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), EngineError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| EngineError::Sys { op: "make a pipe".into(), source: SysError::new("pipe2", "O_CLOEXEC", e) })
}

impl Engine {
    /// Starts `onggi-oci` with exactly these descriptors. Root starts it from a read-only clone of its mount,
    /// so that nothing in a container can open it for writing through /proc/PID/exe (I4).
    pub(crate) fn spawn_runtime(
        &self,
        args: Vec<OsString>,
        fds: &[(OwnedFd, i32)],
        session: Session,
    ) -> Result<Spawned, EngineError> {
        let path = runtime_program()?;
        let failed = |source| EngineError::Sys { op: format!("start {}", path.display()), source };
        let mut argv = vec![path.clone().into_os_string()];
        argv.extend(args);
        let mut env = vec![OsString::from(TRUSTED_PATH)];
        env.extend(self.traced.map(|format| OsString::from(format!("ONGGI_TRACE={}", format.value()))));
        let protected =
            if self.rootful() { Some(onggi_sys::mount::read_only_file(&path).map_err(failed)?) } else { None };
        let plain = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        let program = match &protected {
            Some(fd) => Program::Fd(fd.as_fd()),
            None => Program::Path(&plain),
        };
        let mut spawn = Spawn::new(program, &argv, &env).map_err(failed)?;
        for (fd, number) in fds {
            spawn = spawn.fd(fd.as_fd(), *number);
        }
        if session == Session::New {
            spawn = spawn.setsid();
        }
        spawn.start().map_err(failed)
    }
}

/// Whether a started program leads a session of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// It outlives us and our terminal.
    New,
    /// It belongs to us.
    Ours,
}

/// `onggi-oci` beside the running program, or in the installation's libexec directory. Never from PATH: what
/// runs with our privileges is not chosen by an environment (I6).
pub(crate) fn runtime_program() -> Result<PathBuf, EngineError> {
    let mut tried = Vec::new();
    if let Some(dir) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        tried.extend([dir.join("onggi-oci"), dir.join("../libexec/onggi/onggi-oci")]);
    }
    tried.extend(["/usr/local/libexec/onggi/onggi-oci".into(), "/usr/libexec/onggi/onggi-oci".into()]);
    let found = tried.iter().find(|p| p.is_file()).cloned();
    found.ok_or(EngineError::RuntimeMissing { tried })
}

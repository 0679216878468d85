//! `exec`: a further process in a running container.
//!
//! The runtime joins the namespaces; the engine hands it pipes (or takes a terminal from it), never the
//! caller's own descriptors: a process in the container must not hold the user's terminal.

use std::{
    ffi::OsString,
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use onggi_spec::{
    UserNamespace, capability, env,
    oci::{
        build,
        runtime::{Process, Spec},
    },
    user::UserSpec,
};
use onggi_state::ContainerRecord;
use onggi_sys::{SysError, process::wait_pidfd, spawn::Spawned, trace, unix};
use serde::Deserialize;

use crate::{
    Engine, EngineError, freeze, json, launch,
    process::{self, PidFd, ProcessHandle, Session},
    status::{self, Status},
};

/// What to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=VALUE`, added to the container's environment.
    pub env: Vec<String>,
    /// The user; the container's when absent.
    pub user: Option<UserSpec>,
    /// Working directory; the container's when absent.
    pub workdir: Option<String>,
    /// A terminal is allocated.
    pub tty: bool,
    /// Stdin is connected.
    pub interactive: bool,
    /// Nothing is connected and nobody waits.
    pub detach: bool,
    /// It has every capability that can be given.
    pub privileged: bool,
}

/// A running exec.
#[derive(Debug)]
pub struct ExecSession {
    /// To the process's stdin, when interactive without a terminal.
    pub stdin: Option<File>,
    /// From its stdout.
    pub stdout: Option<File>,
    /// From its stderr.
    pub stderr: Option<File>,
    /// The terminal's master side, instead of the three.
    pub terminal: Option<File>,
    child: Spawned,
    log: File,
    container: ContainerRecord,
    /// The container's first process: without it nothing can be started.
    first: PidFd,
}

fn not_running(record: &ContainerRecord, state: &'static str) -> EngineError {
    let (name, hint) = (record.name.to_string(), "start it first: onggi start NAME");
    EngineError::WrongState { verb: "exec in", name, state, hint }
}

/// What the runtime writes to its log.
#[derive(Deserialize)]
struct RuntimeLog {
    level: String,
    msg: String,
    #[serde(default)]
    hint: String,
}

impl Engine {
    /// Starts a process in a running container. `None` for a detached one, once it runs.
    ///
    /// # Errors
    /// The container does not run, the user is unknown in it, or the command cannot be started.
    pub fn exec(&self, name: &str, request: &ExecRequest) -> Result<Option<ExecSession>, EngineError> {
        let record = self.find(name)?;
        let Some((first, state)) = self.living(&record)? else {
            let state = match self.status(&record.id)? {
                // Its end is being written down.
                Status::Running { .. } => "exited",
                other => other.name(),
            };
            return Err(not_running(&record, state));
        };
        if status::is_paused(&state) {
            let (name, hint) = (record.name.to_string(), freeze::PAUSED_HINT);
            return Err(EngineError::WrongState { verb: "exec in", name, state: "paused", hint });
        }
        let process = self.exec_process(&record, request)?;
        let begin = || self.spawn_exec(&record, request, &process, first);
        let what = || format!("start onggi-oci exec in container {}", record.id.short());
        let mut session = trace::step("engine", what, begin)?;
        if request.detach {
            return session.wait().and_then(|code| detached_result(request, code)).map(|()| None);
        }
        Ok(Some(session))
    }

    /// The container's own process, changed by what was asked.
    pub(crate) fn exec_process(&self, record: &ContainerRecord, request: &ExecRequest) -> Result<Process, EngineError> {
        let bundle = self.paths.bundle(&record.id);
        let spec: Spec = json::read(&bundle.join("config.json"))?;
        let mut process = spec.process.unwrap_or_default();
        process.args = request.command.clone();
        process.terminal = request.tty;
        for entry in &request.env {
            env::apply(&mut process.env, entry);
        }
        if request.tty && !process.env.iter().any(|e| e.starts_with("TERM=")) {
            process.env.push("TERM=xterm".into());
        }
        if let Some(dir) = &request.workdir {
            process.cwd.clone_from(dir);
        }
        if let Some(user) = &request.user {
            if !self.home_was_chosen(record, request)? {
                process.env.retain(|v| !v.starts_with("HOME="));
            }
            self.set_user(record, user, &mut process)?;
        }
        if request.privileged {
            self.give_all(record, &mut process);
        }
        Ok(process)
    }

    /// Every capability that the caller can give, and no profile: what Docker calls privileged. System calls stay filtered as
    /// those of the container are.
    fn give_all(&self, record: &ContainerRecord, process: &mut Process) {
        let own = !self.rootful() || record.request.userns == UserNamespace::Auto;
        let held =
            |name: &&str| own || capability::number(name).is_some_and(|n| self.facts().effective_caps >> n & 1 == 1);
        let all: Vec<String> = capability::ALL.iter().copied().filter(held).map(str::to_owned).collect();
        let caps = process.capabilities.get_or_insert_default();
        caps.bounding.clone_from(&all);
        caps.effective.clone_from(&all);
        caps.permitted = all;
        process.apparmor_profile = None;
        process.no_new_privileges = false;
    }

    fn spawn_exec(
        &self,
        record: &ContainerRecord,
        request: &ExecRequest,
        process: &Process,
        first: PidFd,
    ) -> Result<ExecSession, EngineError> {
        let (log, log_write) = process::pipe()?;
        let document = self.memory_file(process)?;
        let mut args: Vec<OsString> = vec!["--root".into(), self.paths.oci_root().into_os_string()];
        args.extend(
            ["--log", "/proc/self/fd/3", "--log-format", "json", "--quiet", "exec", "--process", "/proc/self/fd/4"]
                .map(OsString::from),
        );
        let mut fds: Vec<(OwnedFd, i32)> = vec![(log_write, 3), (document, 4)];
        let (mut stdin, mut stdout, mut stderr) = (None, None, None);
        let mut console = None;
        if request.detach {
            args.push("--detach".into());
        } else if request.tty {
            let (ours, theirs) =
                unix::pair().map_err(|source| EngineError::Sys { op: "make the console socket".into(), source })?;
            args.extend(["--console-socket".into(), "/proc/self/fd/5".into()]);
            fds.push((theirs, 5));
            console = Some(ours);
        } else {
            if request.interactive {
                let (read, write) = process::pipe()?;
                fds.push((read, 0));
                stdin = Some(File::from(write));
            }
            let ((out, out_write), (err, err_write)) = (process::pipe()?, process::pipe()?);
            fds.extend([(out_write, 1), (err_write, 2)]);
            (stdout, stderr) = (Some(File::from(out)), Some(File::from(err)));
        }
        args.push(record.id.as_str().into());
        // Whoever types at a terminal may leave by the detach keys, and close theirs.
        let session = if request.tty && request.interactive { Session::New } else { Session::Ours };
        let child = self.spawn_runtime(args, &fds, session)?;
        // Our copies must go, or the ends of the streams would never be seen.
        drop(fds);
        let (log, container) = (File::from(log), record.clone());
        let mut session = ExecSession { stdin, stdout, stderr, terminal: None, child, log, container, first };
        if let Some(console) = console {
            session.take_terminal(&console)?;
        }
        Ok(session)
    }

    /// A document as an anonymous file: nothing is left on disk whatever happens.
    pub(crate) fn memory_file(&self, document: &impl serde::Serialize) -> Result<OwnedFd, EngineError> {
        let path = std::path::Path::new("document.json");
        let bytes = json::to_vec(path, document)?;
        let failed = |source| EngineError::WriteFile { path: path.to_owned(), source };
        let fd = rustix::fs::memfd_create("onggi-document", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|e| failed(e.into()))?;
        let mut file = File::from(fd);
        file.write_all(&bytes).map_err(failed)?;
        std::io::Seek::rewind(&mut file).map_err(failed)?;
        Ok(file.into())
    }

    /// Resolves `-u` in the container's own files and puts it into `process`.
    fn set_user(&self, record: &ContainerRecord, user: &UserSpec, process: &mut Process) -> Result<(), EngineError> {
        let rootfs = self.rootfs_of(record)?;
        let view = onggi_storage::driver::lookup_view(&rootfs, &self.paths.bundle(&record.id));
        let resolved = self.resolve_user(&view, Some(user), &record.request.group_add)?;
        let security = build::effective_security(&record.request);
        if self.rootful() {
            build::apply_user(process, &resolved, &security);
            return Ok(());
        }
        build::apply_rootless_user(process, &resolved, &security).map_err(EngineError::Build)
    }

    /// HOME comes from somebody's `-e` or the image; otherwise it is the home directory of whoever runs.
    fn home_was_chosen(&self, record: &ContainerRecord, request: &ExecRequest) -> Result<bool, EngineError> {
        let image = self.image_config(record)?.map(|c| c.config.env).unwrap_or_default();
        Ok(image.iter().chain(&record.request.env).chain(&request.env).any(|v| v.starts_with("HOME=")))
    }
}

impl ExecSession {
    /// Waits for the process and returns its exit code.
    ///
    /// # Errors
    /// The runtime could not start it.
    pub fn wait(&mut self) -> Result<i32, EngineError> {
        let code = wait_pidfd(self.child.pidfd.as_fd());
        let code = code.map_err(|source| EngineError::Sys { op: "wait for onggi-oci exec".into(), source })?.code();
        let log = launch::read_bounded(&self.log).unwrap_or_default();
        let failure = String::from_utf8_lossy(&log)
            .lines()
            .filter_map(|l| serde_json::from_str::<RuntimeLog>(l).ok())
            .rfind(|l| l.level == "error");
        match failure {
            // The container ended meanwhile, and whatever was tried failed in its own way.
            Some(_) if !matches!(code, 126 | 127) && self.first.ended_before(Instant::now())? => {
                Err(not_running(&self.container, "exited"))
            }
            Some(entry) => {
                let exit_code = if matches!(code, 126 | 127) { code } else { 126 };
                // The runtime says so itself, for its other callers.
                let message = entry.msg.strip_prefix("exec failed: ").unwrap_or(&entry.msg).to_owned();
                Err(EngineError::Runtime { verb: "exec", message, hint: entry.hint, exit_code })
            }
            None => Ok(code),
        }
    }

    /// The runtime, which forwards signals to the process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn process(&self) -> Result<ProcessHandle, EngineError> {
        PidFd::open(self.child.pid)?.map(ProcessHandle::new).ok_or_else(|| EngineError::Sys {
            op: "watch onggi-oci exec".into(),
            source: SysError::new("pidfd_open", "onggi-oci exec", rustix::io::Errno::SRCH),
        })
    }

    /// Receives the terminal; a runtime that fails first closes its end.
    fn take_terminal(&mut self, console: &OwnedFd) -> Result<(), EngineError> {
        let failed = |source| EngineError::Sys { op: "receive the terminal".into(), source };
        let mut fds = Vec::new();
        let mut name = [0u8; 256];
        unix::recv_with_fds(console.as_fd(), &mut name, &mut fds).map_err(failed)?;
        self.terminal = fds.pop().map(File::from);
        match self.terminal {
            Some(_) => Ok(()),
            None => self.wait().map(|_| ()),
        }
    }
}

/// A detached exec has been started when the runtime exits with 0.
fn detached_result(request: &ExecRequest, code: i32) -> Result<(), EngineError> {
    match code {
        0 => Ok(()),
        exit_code => {
            let message = format!("{:?} could not be started", request.command.first().map_or("", String::as_str));
            Err(EngineError::Runtime { verb: "exec", message, hint: String::new(), exit_code })
        }
    }
}

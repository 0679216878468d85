//! The operations that make the process what the configuration says, down to exec.

use std::{os::fd::AsFd, path::Path};

use onggi_spec::oci::runtime::ContainerState;
use onggi_sys::{
    Errno, SysContext, SysError, cred,
    path::{self, OFlags},
    process, sched, spawn, trace,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode},
};

use super::{Child, credentials, streams};
use crate::{
    channel::{self, Channel, Message},
    error::{EXIT_CANNOT_INVOKE, EXIT_NOT_FOUND, Result, StartFailureError, Step},
    exec::WaitFifo,
    plan::ProcessOp,
};

impl Child {
    /// Executes the operations; returns only with a failure, or `Ok` when the plan has no exec.
    pub(crate) fn process(&mut self, ops: &[ProcessOp]) -> Result<()> {
        self.keep_capabilities = ops.iter().any(|op| matches!(op, ProcessOp::Capabilities(_)));
        if ops.contains(&ProcessOp::AwaitStart) {
            // Who kills a created container expects that it ends (and has it from runc). Now, because a filter may
            // forbid it later.
            onggi_sys::signal::end_by_them();
            // It may wait for long, and would hold what others want to unmount or to see let go.
            self.let_mounts_go();
        }
        for (index, op) in ops.iter().enumerate() {
            if *op == ProcessOp::ForkInit {
                self.fork_init(&ops[..index], &ops[index + 1..])?;
            } else {
                trace::point("sandbox", || op.words());
                self.process_one(op)?;
            }
        }
        Ok(())
    }

    pub(super) fn process_one(&mut self, op: &ProcessOp) -> Result<()> {
        let step = || op.words();
        match op {
            ProcessOp::OomScore { value } => self.oom_score(*value),
            ProcessOp::Rlimit(limit) => self.rlimit(limit),
            ProcessOp::AwaitLimits => {
                self.channel.send(&Message::Limits)?;
                self.channel.await_go()
            }
            ProcessOp::Scheduler(s) => credentials::scheduler(s),
            ProcessOp::IoPriority(p) => credentials::io_priority(p),
            ProcessOp::Affinity { cpus } => credentials::affinity(cpus.as_deref()),
            ProcessOp::MemoryPolicy { mode, nodes } => credentials::memory_policy(*mode, nodes),
            ProcessOp::Personality { persona } => sched::set_personality(*persona).step(step),
            ProcessOp::Home { uid } => self.set_home(*uid),
            ProcessOp::EnterDirectory { path, again } => self.enter_directory(path, *again),
            ProcessOp::CheckCommand => self.check_command(),
            ProcessOp::CheckAccess => self.check_access(),
            ProcessOp::AwaitStart => self.await_start(),
            ProcessOp::AwaitReader => self.await_reader(),
            ProcessOp::Hooks { hooks } => self.hooks(ContainerState::Created, hooks),
            ProcessOp::OwnStdio { uid } => {
                self.own_stdio(*uid);
                Ok(())
            }
            ProcessOp::ReopenNull => {
                streams::reopen_null();
                Ok(())
            }
            ProcessOp::ForkInit => Ok(()),
            ProcessOp::AttachTerminal => self.attach_terminal(),
            ProcessOp::AppArmor { profile } => self.label(credentials::Lsm::AppArmor, profile),
            ProcessOp::SeLinux { label } => self.label(credentials::Lsm::SeLinux, label),
            ProcessOp::NoNewPrivileges => cred::set_no_new_privs().step(step),
            ProcessOp::Seccomp { .. } => self.load_filter(),
            ProcessOp::BoundingSet { keep } => self.bounding_set(*keep),
            ProcessOp::Credentials { uid, gid, groups } => self.credentials(*uid, *gid, groups.as_deref()),
            ProcessOp::Capabilities(sets) => self.capabilities(*sets),
            ProcessOp::Umask { mask } => {
                rustix::process::umask(Mode::from_raw_mode(*mask));
                Ok(())
            }
            ProcessOp::CloseOnExec { from } => self.close_on_exec(*from),
            ProcessOp::DieWithParent => self.die_with_parent().step(step),
            ProcessOp::Exec { .. } => Err(self.execute()),
        }
    }

    /// A parent that died before the signal was asked for will never send it (prctl(2)); its pidfd tells.
    fn die_with_parent(&self) -> onggi_sys::Result<()> {
        process::set_parent_death_signal(onggi_sys::signal::number::KILL)?;
        let Some(parent) = &self.prepared.parent else { return Ok(()) };
        let mut fds = [PollFd::new(parent, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).sys("poll", || "parent")? {
            0 => Ok(()),
            _ => Err(SysError::new("poll", "the parent is dead", Errno::SRCH)),
        }
    }

    /// Enters the directory and checks that it is inside the root (I3, CVE-2024-21626).
    fn enter_directory(&mut self, at: &Path, again: bool) -> Result<()> {
        if again && self.entered {
            return Ok(());
        }
        let step = || format!("enter working directory {}", at.display());
        let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .sys("open", || "\"/\"")
            .step(step)?;
        let entered = path::open_in_root(root.as_fd(), at, OFlags::PATH | OFlags::DIRECTORY)
            .and_then(|fd| rustix::process::fchdir(&fd).sys("fchdir", || format!("{at:?}")));
        match entered {
            Err(e) if e.errno == Errno::ACCESS && !again => return Ok(()),
            Err(e) => return Err(cwd_failure(at, &e)),
            Ok(()) => {}
        }
        let cwd = rustix::process::getcwd(Vec::new()).sys("getcwd", || "").step(step)?;
        if !cwd.as_bytes().starts_with(b"/") {
            return Err(StartFailureError::new(format!("{}: it is outside the container's root", step())));
        }
        self.entered = true;
        Ok(())
    }

    /// From here on failures go to whoever called `start`. The filter may be in force already: nothing but
    /// write(2), read(2) and close(2) is used.
    fn await_start(&mut self) -> Result<()> {
        self.channel.send(&Message::Created)?;
        let Some(start) = self.prepared.start.take() else {
            return Err(StartFailureError::new("the plan waits for start without a FIFO"));
        };
        // The creator sees end of file now, not when the program ends.
        self.channel = Channel::from_fifo(start.answer);
        channel::await_go(start.go.as_fd()).step(|| "wait for start".into())?;
        self.channel.send(&Message::Executing)
    }

    /// The runtime hears that everything is ready, and waits no longer.
    fn await_reader(&mut self) -> Result<()> {
        self.channel.send(&Message::Created)?;
        self.prepared.wait.as_ref().map_or(Ok(()), WaitFifo::wait)
    }

    /// Streams in place, everything else gone at exec (I3); then says that exec is next, because a filter may
    /// forbid to say anything later.
    fn close_on_exec(&mut self, from: u32) -> Result<()> {
        let step = || "set up the standard streams".to_string();
        if let Some(fds) = self.prepared.stdio.take() {
            for (number, fd) in fds.iter().enumerate() {
                spawn::install_stdio(fd.as_fd(), number as i32).step(step)?;
            }
        }
        process::cloexec_from(from).step(step)?;
        // Once the privileges are gone, a process of the container could trace this one (CVE-2016-9962).
        process::set_dumpable(false).step(step)?;
        match self.prepared.start {
            // Said to `start` later.
            Some(_) => Ok(()),
            None => self.channel.send(&Message::Executing),
        }
    }
}

/// runc's words, which engines show; then ours.
fn cwd_failure(at: &Path, e: &SysError) -> StartFailureError {
    let what = format!("chdir to cwd ({at:?}) set in config.json failed");
    let failure = StartFailureError::from_sys(format!("{what}: {}", onggi_sys::error::text(e.raw())), e);
    match e.errno {
        Errno::NOENT => failure.hint("the directory does not exist in the container").exit_code(EXIT_NOT_FOUND),
        Errno::NOTDIR => failure.hint("it is not a directory").exit_code(EXIT_CANNOT_INVOKE),
        Errno::ACCESS => failure.hint("the container's user may not enter it").exit_code(EXIT_CANNOT_INVOKE),
        Errno::LOOP => failure.hint("it leads through a magic link such as /proc/self/fd/N, which is refused"),
        _ => failure,
    }
}

/// Enters the root of a container that has it by chroot(2) alone.
pub(crate) fn change_root(root: &std::os::fd::OwnedFd) -> Result<()> {
    let entered = rustix::process::fchdir(root).sys("fchdir", || "root");
    entered.and_then(|()| onggi_sys::mount::change_root_to_cwd()).step(|| "enter the container's root".into())
}

/// The directory `/` of the calling process, as a slot.
pub(crate) fn own_root() -> Result<std::os::fd::OwnedFd> {
    rustix::fs::openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .sys("open", || "\"/\"")
        .step(|| "open the container's root".into())
}

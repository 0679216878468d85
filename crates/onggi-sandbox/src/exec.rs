//! `exec`: a further process in a running container. Same process plan, same child code as create (I11).
//!
//! The runtime joins only what a clone inherits (pid, and user where it must); the child joins the rest,
//! with the container's own namespaces taken from one pidfd at once.

mod cgroups;
mod wait_fifo;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use onggi_spec::{
    monitor::{SandboxState, SystemdUnit},
    oci::runtime::{ContainerState, Linux, LinuxSeccomp, Process, Spec},
};
use onggi_sys::{
    Errno, ns,
    process::{self, CloneRequest, Cloned},
    sched, signal,
};

pub(crate) use wait_fifo::WaitFifo;

use crate::{
    channel::{Channel, Message},
    child::{self, Child, Prepared, View},
    create::{compile_filter, exec_strings, parent_to_die_with, send_console, send_pidfd, split_stdio},
    error::{Result, StartFailureError, Step},
    notify,
    options::{ExecOptions, Executed, Paused},
    pid_file::PidFile,
    plan::{
        ParentOp, ProcessContext, ProcessOp, ProcessPlan, Purpose, SandboxFacts, SetupOp, attributes, keeps_groups,
        keyring_name, plan_exec,
    },
    rdt, sources,
    state::{self, StateDir},
    unit,
};

/// Runs a process in a container. The caller has one thread and is changed by it (it joins the container's
/// pid namespace for its children), so it should end soon.
///
/// # Errors
/// The container does not run, or the first step that failed.
pub fn exec(options: ExecOptions) -> Result<Executed> {
    let dir = StateDir::of(&options.state_root, &options.id)?;
    let state = dir.load()?;
    let target = open_target(&dir, &state, options.paused)?;
    let config = dir.config(&state)?;
    let mut options = options;
    let executable = options.executable.take();
    inherit(&mut options.process, config.process.as_ref());
    let plan = plan(&options, &config, &target)?;
    let (ops, by_parent) = (plan.child, plan.parent);
    let (argv, envp, search_path) = exec_strings(&ops)?;
    let (stdio, console, bare_line_feeds) = split_stdio(options.stdio);
    let seccomp = config.linux.as_ref().and_then(|l| l.seccomp.as_ref());
    let mut entry = cgroups::open(&state, &options.cgroups)?;
    let mut cgroup_tasks = std::mem::take(&mut entry.tasks);
    cgroup_tasks.extend(rdt::tasks_of(&config, &state.id)?);
    let prepared = Prepared {
        bare_line_feeds,
        cgroup_tasks,
        stdio,
        filter: compile_filter(seccomp, target.privileged)?,
        argv,
        envp,
        search_path,
        preserve_fds: options.preserve_fds,
        parent: parent_to_die_with(&ops, false)?,
        wait: options.wait_fifo.as_deref().map(WaitFifo::open).transpose()?,
        ..Prepared::default()
    };
    let setup = setup(&state, &options.process);
    let pid_file = options.pid_file.as_deref().map(PidFile::prepare).transpose()?;
    // From its birth the child is in the container's pid namespace, where somebody may have the right to trace, and
    // it still has the host's root: it must not be traceable there (I3, CVE-2016-9962). It inherits this.
    process::set_dumpable(false).step(|| "keep the container from tracing the new process".into())?;
    join_for_children(&target)?;
    initial_affinity(&options.process)?;
    let (ours, theirs) = Channel::pair()?;
    match clone_into(&entry, state.systemd_unit.as_ref())? {
        Cloned::Child => {
            drop(ours);
            signal::reset_all();
            run_child(Child::new(theirs, prepared, View::Host), &target, &setup, (&ops, !by_parent.is_empty()))
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let mut follow = Follow {
                dir: &dir,
                state: &state,
                seccomp,
                pid,
                pidfd: &pidfd,
                console,
                executable,
                master: None,
                notes: plan.notes,
            };
            let finish = || {
                if let Some(socket) = &options.pidfd_socket {
                    send_pidfd(socket, &pidfd)?;
                }
                follow.raise(&by_parent, &ours)?;
                follow.until_running(&ours)?;
                pid_file.map_or(Ok(()), |file| file.write(pid))
            };
            let finished = finish();
            let (console_master, notes) = (follow.master, follow.notes);
            match finished {
                Ok(()) => Ok(Executed { pid, pidfd, console_master, notes }),
                Err(e) => {
                    let _ = process::pidfd_kill(pidfd.as_fd(), signal::number::KILL);
                    let _ = process::wait_pidfd(pidfd.as_fd());
                    Err(e)
                }
            }
        }
    }
}

/// The process's part of the view: everything else is the container's already.
fn setup(state: &SandboxState, process: &Process) -> Vec<SetupOp> {
    let mut setup = Vec::new();
    if !state.no_new_keyring {
        // The caller's keys stay outside: the container's own session keyring is joined, by its name.
        setup.push(SetupOp::NewKeyring {
            name: keyring_name(&state.id),
            label: process.selinux_label.clone().filter(|l| !l.is_empty()),
        });
    }
    if process.terminal {
        setup.push(SetupOp::Terminal { size: process.console_size, console: false, uid: process.user.uid });
    }
    setup
}

/// Clones into the first version 2 group that takes a process.
fn clone_into(entry: &cgroups::Entry, unit: Option<&SystemdUnit>) -> Result<Cloned> {
    let mut groups = entry.unified.iter().peekable();
    if groups.peek().is_none() {
        return process::clone_process(CloneRequest::default()).step(|| "clone the new process".into());
    }
    let user = unit.filter(|u| u.user);
    let mut last = None;
    for (group, dir) in groups {
        let request = CloneRequest { cgroup: Some(group.as_fd()), ..CloneRequest::default() };
        let failed = match process::clone_process(request) {
            Ok(cloned) => return Ok(cloned),
            Err(e) => e,
        };
        match (failed.errno, user) {
            // A user's own systemd may do what the user may not.
            (Errno::ACCESS, Some(unit)) => return unit::clone_inside(unit, CloneRequest::default()),
            (Errno::BUSY | Errno::OPNOTSUPP | Errno::NOENT | Errno::NODEV, _) => {
                last = Some(cgroups::refused(dir, failed.errno));
            }
            _ => return Err(StartFailureError::from_sys("clone the new process", &failed)),
        }
    }
    Err(last.unwrap_or_else(|| StartFailureError::new("clone the new process")))
}

/// The container's first process and which of its namespaces are not ours.
struct Target {
    pidfd: OwnedFd,
    differing: u64,
    privileged: bool,
    /// Its root, which is no namespace's.
    chroot: Option<OwnedFd>,
    /// What its user namespace gives its root.
    ids: (u32, u32),
}

fn open_target(dir: &StateDir, state: &SandboxState, paused: Paused) -> Result<Target> {
    let step = || format!("open the first process of container {}", state.id);
    match dir.status(state) {
        ContainerState::Running | ContainerState::Created => {}
        ContainerState::Paused if paused == Paused::Enter => {}
        ContainerState::Paused => {
            return Err(StartFailureError::new("cannot exec in a paused container (use --ignore-paused to override)")
                .hint("resume it first"));
        }
        _ => return Err(stopped()),
    }
    let pidfd = process::pidfd_open(state.pid).step(step)?;
    // The pid may have been reused between the check and the open; now it cannot any more.
    if !dir.alive(state) {
        return Err(stopped());
    }
    let caps = onggi_sys::cred::capabilities().step(step)?;
    let differing = differing_namespaces(state.pid).step(step)?;
    let ids = match differing & ns::flag::USER {
        0 => (0, 0),
        _ => sources::first_ids(&state.pid.to_string()).step(step)?,
    };
    let chroot = match state.host_root {
        Some(_) => Some(sources::open_dir(&format!("/proc/{}/root", state.pid)).step(step)?),
        None => None,
    };
    Ok(Target { pidfd, differing, chroot, ids, privileged: caps.effective & onggi_sys::cred::CAP_SYS_ADMIN != 0 })
}

/// Engines look for runc's words.
fn stopped() -> StartFailureError {
    StartFailureError::new("cannot exec in a stopped container")
}

/// setns(2) refuses to join the own user namespace, and needs no permission for what is the same.
fn differing_namespaces(pid: i32) -> onggi_sys::Result<u64> {
    const KINDS: [(&str, u64); 8] = [
        ("user", ns::flag::USER),
        ("pid", ns::flag::PID),
        ("mnt", ns::flag::MOUNT),
        ("net", ns::flag::NETWORK),
        ("ipc", ns::flag::IPC),
        ("uts", ns::flag::UTS),
        ("cgroup", ns::flag::CGROUP),
        ("time", ns::flag::TIME),
    ];
    let mut bits = 0;
    for (name, flag) in KINDS {
        let inode = |who: &str| {
            let at = format!("/proc/{who}/ns/{name}");
            match rustix::fs::stat(at.as_str()) {
                Ok(s) => Ok(Some((s.st_dev, s.st_ino))),
                Err(Errno::NOENT) => Ok(None),
                Err(e) => Err(onggi_sys::SysError::new("stat", at, e)),
            }
        };
        if inode(&pid.to_string())? != inode("self")? {
            bits |= flag;
        }
    }
    Ok(bits)
}

fn plan(options: &ExecOptions, config: &Spec, target: &Target) -> Result<ProcessPlan> {
    let facts = SandboxFacts {
        cgroup_layout: onggi_spec::facts::CgroupLayout::None,
        visible_cgroups: None,
        privileged: target.privileged,
        sets_groups: target.privileged,
        caller: (0, 0),
        rootless_cgroups: false,
        apparmor: std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|s| s.trim() == "Y"),
        selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        systemd: None,
        rdt: None,
    };
    let no_linux = Linux::default();
    let by_parent = target.privileged && target.differing & ns::flag::USER != 0;
    let cx = ProcessContext {
        process: &options.process,
        linux: config.linux.as_ref().unwrap_or(&no_linux),
        facts: &facts,
        setgroups: target.privileged || target.differing & ns::flag::USER == 0,
        keep_groups: keeps_groups(config),
        preserve_fds: options.preserve_fds,
        die_with_parent: options.die_with_parent,
        waits_for_reader: options.wait_fifo.is_some(),
        purpose: Purpose::Exec,
        own_devices: false,
    };
    plan_exec(&cx, by_parent)
}

/// Pid is inherited by children only. Without privilege the user namespace comes with it, because it gives
/// the right to the others.
fn join_for_children(target: &Target) -> Result<()> {
    let mut kinds = target.differing & ns::flag::PID;
    if !target.privileged {
        kinds |= target.differing & ns::flag::USER;
    }
    if kinds == 0 {
        return Ok(());
    }
    ns::join(target.pidfd.as_fd(), kinds).map_err(|e| match e.errno {
        // Its first process is dying.
        Errno::SRCH => stopped(),
        _ => StartFailureError::from_sys("join the container's pid namespace", &e),
    })
}

/// `waits`: until the runtime has done its part.
fn run_child(mut child: Child, target: &Target, setup: &[SetupOp], (ops, waits): (&[ProcessOp], bool)) -> ! {
    let own: Vec<_> = target.chroot.iter().chain([&target.pidfd]).map(AsRawFd::as_raw_fd).collect();
    let result = child.close_others(&own).and_then(|()| {
        if waits {
            child.await_go()?;
        }
        child.enter(target.pidfd.as_fd(), target)?;
        child.setup(setup)?;
        child.process(ops)
    });
    child.end(result)
}

impl Child {
    fn enter(&mut self, pidfd: std::os::fd::BorrowedFd<'_>, target: &Target) -> Result<()> {
        self.setup(&[SetupOp::EnterCgroups, SetupOp::NewSession])?;
        let mut kinds = target.differing & !ns::flag::PID;
        if !target.privileged {
            kinds &= !ns::flag::USER;
        }
        if kinds != 0 {
            ns::join(pidfd, kinds).step(|| "join the container's namespaces".into())?;
        }
        if target.differing & ns::flag::USER != 0 {
            child::become_root(false, Some(target.ids))?;
        }
        if let Some(root) = &target.chroot {
            child::change_root(root)?;
        }
        self.set_root(child::own_root()?);
        Ok(())
    }
}

/// What the configuration says of the container's process holds for a further one that says nothing itself: a
/// process must not have more rights than its container because a document is short (as runc).
fn inherit(process: &mut Process, container: Option<&Process>) {
    let Some(container) = container else { return };
    let text = |own: &mut Option<String>, given: &Option<String>| {
        if own.as_deref().is_none_or(str::is_empty) {
            own.clone_from(given);
        }
    };
    text(&mut process.apparmor_profile, &container.apparmor_profile);
    text(&mut process.selinux_label, &container.selinux_label);
    process.capabilities = process.capabilities.take().or_else(|| container.capabilities.clone());
    process.scheduler = process.scheduler.take().or_else(|| container.scheduler.clone());
    process.io_priority = process.io_priority.take().or_else(|| container.io_priority.clone());
    process.exec_cpu_affinity = process.exec_cpu_affinity.take().or_else(|| container.exec_cpu_affinity.clone());
    process.oom_score_adj = process.oom_score_adj.or(container.oom_score_adj);
    if process.rlimits.is_empty() {
        process.rlimits.clone_from(&container.rlimits);
    }
}

/// Until the process is in the container's cgroups it runs where `initial` says; it inherits that from us.
fn initial_affinity(process: &Process) -> Result<()> {
    let initial = process.exec_cpu_affinity.as_ref().and_then(|a| a.initial.as_ref());
    match attributes::cpu_list("initial", initial)? {
        Some(mask) => sched::set_affinity(&mask).step(|| "set process.execCPUAffinity.initial".into()),
        None => Ok(()),
    }
}

/// Accompanies the new process to exec.
struct Follow<'a> {
    dir: &'a StateDir,
    state: &'a SandboxState,
    seccomp: Option<&'a LinuxSeccomp>,
    pid: i32,
    pidfd: &'a OwnedFd,
    console: Option<OwnedFd>,
    /// What this program was executed through.
    executable: Option<OwnedFd>,
    master: Option<OwnedFd>,
    notes: Vec<String>,
}

impl Follow<'_> {
    /// The runtime's own part, before the process enters the container's user namespace.
    fn raise(&mut self, ops: &[ParentOp], channel: &Channel) -> Result<()> {
        for op in ops {
            self.notes.extend(sources::after_clone(op, self.pid)?);
        }
        if ops.is_empty() { Ok(()) } else { channel.send(&Message::Go) }
    }

    fn until_running(&mut self, channel: &Channel) -> Result<()> {
        let mut executing = false;
        loop {
            match channel.receive()? {
                Some(Message::Note(text)) => self.notes.push(text),
                Some(Message::Terminal(fd)) => match self.console.take() {
                    Some(socket) => send_console(&socket, &fd)?,
                    None => self.master = Some(fd),
                },
                Some(Message::Listener(fd)) => self.listener(channel, &fd)?,
                Some(Message::ListenerNumber(n)) => {
                    self.listener(channel, &notify::fetch(self.pidfd.as_fd(), n)?)?;
                }
                Some(Message::Executing) => {
                    executing = true;
                    // The kernel makes us wait while the program is being executed.
                    self.executable = None;
                }
                Some(Message::Failed(failure)) => return Err(StartFailureError(failure)),
                // It waits for a reader now, for however long.
                Some(Message::Created) => return Ok(()),
                Some(_) => {}
                None if executing => return Ok(()),
                None => return Err(StartFailureError::new("the new process died before its program ran")),
            }
        }
    }

    fn listener(&self, channel: &Channel, listener: &OwnedFd) -> Result<()> {
        let shown = state::oci_state(self.state, self.dir.status(self.state));
        notify::hand_over(self.seccomp, self.pid, shown, listener)?;
        channel.send(&Message::Go)
    }
}

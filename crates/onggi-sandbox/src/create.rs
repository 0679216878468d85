//! `create`: facts → plan → prepare → one clone3 → listen to the child until its program runs.
//!
//! What is made before the clone (state directory, cgroup) is removed again when a later step fails.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
};

use onggi_cgroup::{CgroupPlan, systemd::SystemdFacts};
use onggi_spec::{
    facts::CgroupLayout,
    monitor::{SandboxState, SystemdUnit},
    oci::runtime::{ContainerState, Hook, LinuxSeccomp, Spec},
};
use onggi_sys::{
    Errno, SysContext, cred,
    process::{self, CStrings},
    procfs, signal, small_file, trace,
};

use crate::{
    channel::{self, Message},
    child::{Filter, Prepared, meanwhile},
    error::{Result, StartFailureError, Step},
    hooks::{self, Stage},
    host_mounts,
    late_pids::LatePids,
    launch::{self, Running},
    mount_sources, mqueue,
    net_devices::{self, Moved},
    notify,
    options::{CgroupDriver, CreateOptions, Created, Remains, Stdio},
    pid_file::PidFile,
    plan::{self, ParentOp, PlanInput, ProcessOp, SandboxFacts, SandboxPlan, SetupOp},
    rdt, seccomp, sources, start,
    state::{self, StateDir},
    unit,
};

/// Creates a container. The caller has one thread.
///
/// # Errors
/// The first step that failed; nothing is left behind then.
pub fn create(options: CreateOptions) -> Result<Created> {
    // Held until the container is there, or is not: who finds it free has found the rest of a crash.
    let (dir, _lock) = StateDir::create(&options.state_root, &options.id)?;
    let mut made =
        Made { dir: &dir, cgroup: None, unit: None, resctrl: Vec::new(), child: None, host: None, poststop: None };
    let result = create_in(options, &dir, &mut made);
    if result.is_err() {
        made.undo();
    }
    result
}

/// What has to be removed when a later step fails.
struct Made<'a> {
    dir: &'a StateDir,
    cgroup: Option<onggi_cgroup::Paths>,
    unit: Option<SystemdUnit>,
    resctrl: Vec<PathBuf>,
    child: Option<OwnedFd>,
    /// Mounts on the host.
    host: Option<SandboxState>,
    /// Hooks that undo what earlier hooks did, once any may have run (runtime.md, "Lifecycle", 12 and 13).
    poststop: Option<(SandboxState, Vec<Hook>)>,
}

impl Made<'_> {
    /// Every removal is tried; the failure that led here is the one that is reported.
    fn undo(self) {
        if let Some(pidfd) = &self.child {
            let _ = process::pidfd_kill(pidfd.as_fd(), signal::number::KILL);
            let _ = process::wait_pidfd(pidfd.as_fd());
        }
        let nothing = onggi_cgroup::Paths::new();
        let _ = unit::remove_groups(self.unit.as_ref(), self.cgroup.as_ref().unwrap_or(&nothing));
        rdt::remove(&self.resctrl);
        let _ = self.host.as_ref().map(host_mounts::remove);
        let _ = self.dir.remove();
        if let Some((state, hooks)) = self.poststop {
            let _ = crate::lifecycle::run_poststop(&state, &hooks);
        }
    }
}

fn create_in(options: CreateOptions, dir: &StateDir, made: &mut Made<'_>) -> Result<Created> {
    if options.notify {
        dir.make_notify_dir()?;
    }
    // What the caller left open must not reach hooks either (I3).
    process::cloexec_from(options.preserve_fds.saturating_add(3)).step(|| "close the caller's descriptors".into())?;
    let bundle = absolute_bundle(&options.bundle)?;
    let facts = gather_facts(&options)?;
    let mut plan = plan::plan(&plan_input(&options, &bundle), &facts)?;
    let late_pids = LatePids::take(&mut plan);
    let mut notes = Vec::new();
    // Until the container's own process is in it, a process of ours keeps a systemd unit alive.
    let lent = unit::start(plan.cgroup.as_ref())?;
    made.unit = lent.as_ref().map(|l| l.unit.clone());
    let mut state = describe(&plan, &options, &bundle, made)?;
    let groups_later = meanwhile::possible(&plan);
    if !groups_later {
        record(&plan, &mut state, made)?;
        notes = make_cgroup(&plan, made)?;
    }
    let CreateOptions { config, config_text: text, netns, stdio, sibling, pid_file, .. } = options;
    let CreateOptions { preserve_fds, pidfd_socket, executable, .. } = options;
    let (mut prepared, console) = prepare(&plan, &config, &facts, dir, stdio, netns)?;
    prepared.preserve_fds = preserve_fds;
    prepared.hook_state = config.hooks.as_ref().map(|_| state::oci_state(&state, ContainerState::Creating));
    dir.save_hooks(&config.hooks.clone().unwrap_or_default())?;
    prepared.parent = parent_to_die_with(&plan.process, sibling)?;
    if let Some(group) = &plan.rdt {
        made.resctrl = group.own_dirs();
        state.resctrl.clone_from(&made.resctrl);
        prepared.cgroup_tasks.extend(rdt::prepare(group)?);
    }
    made.poststop = config.hooks.as_ref().map(|hooks| (state.clone(), hooks.poststop.clone()));
    let user_namespaces = prepared.user_namespaces.clone();
    let filter_flags = prepared.filter.as_ref().map(Filter::shown_flags);
    let pid_file = pid_file.as_deref().map(PidFile::prepare).transpose()?;
    let (running, pidfd) = launch::clone_child(&plan, prepared, sibling)?;
    made.child = Some(pidfd);
    if groups_later {
        record(&plan, &mut state, made)?;
        notes = make_cgroup(&plan, made)?;
        running.channel.send_go_with(&meanwhile::open_tasks(tasks(&plan))?)?;
    }
    // The child works meanwhile; what removes the rest of a crash does not need it.
    text.as_deref().map_or(Ok(()), |text| dir.save_config(text))?;
    // The container's own process is in the group now.
    drop(lent);
    if let Some(limit) = late_pids {
        limit.set(made.unit.as_ref(), &state)?;
        running.channel.send(&Message::Go)?;
    }
    if let (Some(socket), Some(pidfd)) = (&pidfd_socket, &made.child) {
        send_pidfd(socket, pidfd)?;
    }
    let seccomp = config.linux.as_ref().and_then(|l| l.seccomp.as_ref());
    notes.extend(plan.notes.clone());
    notes.extend(relative_destinations(&config));
    let (master, moved, privileged) = (None, None, facts.privileged);
    let mut follow = Follow {
        plan: &plan,
        dir,
        state,
        running,
        seccomp,
        console,
        master,
        notes,
        privileged,
        moved,
        user_namespaces,
        executable,
    };
    follow.accompany(pid_file)?;
    let pidfd = made.child.take().ok_or_else(|| StartFailureError::new("the child's pidfd is gone"))?;
    let Follow { state, notes, master: console_master, .. } = follow;
    let remains = Remains { _plan: plan, _config: config };
    Ok(Created { pid: state.pid, pidfd, console_master, state, notes, filter_flags, remains })
}

/// Accepted for old bundles; runc warns of them too.
fn relative_destinations(config: &Spec) -> Vec<String> {
    let relative = config.mounts.iter().filter(|m| !m.destination.starts_with('/'));
    relative
        .map(|m| format!("mount destination {} is not absolute: it is taken from the root", m.destination))
        .collect()
}

fn absolute_bundle(bundle: &Path) -> Result<std::path::PathBuf> {
    let step = || format!("open bundle {}", bundle.display());
    if bundle.is_absolute() {
        return Ok(bundle.to_path_buf());
    }
    fs::canonicalize(bundle).sys("realpath", || format!("{bundle:?}")).step(step)
}

fn plan_input<'a>(options: &'a CreateOptions, bundle: &'a Path) -> PlanInput<'a> {
    PlanInput {
        id: &options.id,
        bundle,
        config: &options.config,
        rootfs: &options.rootfs,
        netns_given: options.netns.is_some(),
        init: options.init,
        die_with_parent: options.die_with_parent,
        wait_for_start: options.wait_for_start,
        preserve_fds: options.preserve_fds,
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
        cgroup_driver: options.cgroup_driver,
    }
}

/// Facts that this configuration needs; LSMs are asked for only when it names one.
fn gather_facts(options: &CreateOptions) -> Result<SandboxFacts> {
    let config = &options.config;
    let caps = cred::capabilities().step(|| "read the own capabilities".into())?;
    let privileged = caps.effective & cred::CAP_SYS_ADMIN != 0 && in_initial_user_namespace();
    let CgroupFacts { cgroup_layout, visible_cgroups, systemd } = cgroup_facts(options, privileged)?;
    let process = config.process.as_ref();
    let linux = config.linux.as_ref();
    let wants = |label: Option<&String>| label.is_some_and(|l| !l.is_empty());
    let labelled = wants(process.and_then(|p| p.selinux_label.as_ref()))
        || wants(options.config.linux.as_ref().and_then(|l| l.mount_label.as_ref()));
    Ok(SandboxFacts {
        cgroup_layout,
        visible_cgroups,
        privileged,
        sets_groups: caps.effective & cred::CAP_SETGID != 0,
        caller: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        rootless_cgroups: options.rootless.unwrap_or(!privileged),
        apparmor: wants(process.and_then(|p| p.apparmor_profile.as_ref())) && apparmor_enabled(),
        selinux: labelled && Path::new("/sys/fs/selinux/enforce").exists(),
        systemd,
        rdt: linux.and_then(|l| l.intel_rdt.as_ref()).and_then(|_| rdt::facts()),
    })
}

/// What the facts say of cgroups.
struct CgroupFacts {
    cgroup_layout: CgroupLayout,
    visible_cgroups: Option<CgroupLayout>,
    systemd: Option<SystemdFacts>,
}

impl CgroupFacts {
    fn of(cgroup_layout: CgroupLayout, systemd: Option<SystemdFacts>) -> Self {
        Self { cgroup_layout, visible_cgroups: None, systemd }
    }
}

/// The cgroups that may be used; for a user without privilege those that were given away.
fn cgroup_facts(options: &CreateOptions, privileged: bool) -> Result<CgroupFacts> {
    let fail = |e: onggi_cgroup::CgroupError| cgroup_failure("look at the host's cgroups", &e);
    if options.cgroup_driver == CgroupDriver::Disabled {
        return Ok(CgroupFacts::of(CgroupLayout::None, None));
    }
    let layout = onggi_cgroup::layout::detect().map_err(fail)?;
    if options.cgroup_driver == CgroupDriver::Systemd {
        let facts = onggi_cgroup::systemd::facts(privileged).map_err(fail)?;
        return Ok(CgroupFacts::of(layout, Some(facts)));
    }
    if !options.rootless.unwrap_or(!privileged) {
        return Ok(CgroupFacts::of(layout, None));
    }
    let path = plan::cgroups_path(&options.config, &options.id);
    let permitted = onggi_cgroup::access::permitted(layout.clone(), &path).map_err(fail)?;
    let visible_cgroups = (permitted == CgroupLayout::None).then(|| onggi_cgroup::access::visible(layout));
    Ok(CgroupFacts { visible_cgroups, ..CgroupFacts::of(permitted, None) })
}

fn apparmor_enabled() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|s| s.trim() == "Y")
}

/// The initial user namespace has the identity map over all ids.
fn in_initial_user_namespace() -> bool {
    let map = small_file::read_text(Path::new("/proc/self/uid_map"));
    map.is_ok_and(|s| s.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}

/// The caller is in a user namespace: its root is an ordinary user outside.
pub fn in_user_namespace() -> bool {
    !in_initial_user_namespace()
}

/// The container as it is going to be.
fn describe(plan: &SandboxPlan, options: &CreateOptions, bundle: &Path, made: &mut Made<'_>) -> Result<SandboxState> {
    let paths = plan.cgroup.as_ref().map(CgroupPlan::paths).unwrap_or_default();
    let state = state::new_state(&options.id, bundle, &options.config, paths);
    let host_root = host_mounts::before(plan, &state.rootfs)?;
    let (systemd_unit, no_new_keyring) = (made.unit.clone(), options.no_new_keyring);
    let state = SandboxState { systemd_unit, no_new_keyring, host_root, ..state };
    made.host = host_root.map(|_| SandboxState { boot_id: state::boot_id(), ..state.clone() });
    Ok(state)
}

/// Says what is about to be made, before there is anything to clean up: `delete` finds it here after a crash.
fn record(plan: &SandboxPlan, state: &mut SandboxState, made: &mut Made<'_>) -> Result<()> {
    if let Some(cgroup) = plan.cgroup.as_ref().filter(|c| c.unit.is_none()) {
        onggi_cgroup::check_free(cgroup).map_err(|e| cgroup_failure("make the cgroup", &e))?;
    }
    state.boot_id = state::boot_id();
    made.dir.save(state)
}

/// The files by which the child enters its groups of version 1.
fn tasks(plan: &SandboxPlan) -> &[PathBuf] {
    plan.cgroup.as_ref().map(|c| c.join.tasks.as_slice()).unwrap_or_default()
}

/// Makes the groups; returns what was left out.
fn make_cgroup(plan: &SandboxPlan, made: &mut Made<'_>) -> Result<Vec<String>> {
    let Some(cgroup) = &plan.cgroup else { return Ok(Vec::new()) };
    let notes = trace::step(
        "sandbox",
        || "make the control groups and set their limits".into(),
        || onggi_cgroup::apply_create(cgroup),
    );
    let notes = notes.map_err(|e| cgroup_failure("make the cgroup", &e))?;
    made.cgroup = Some(cgroup.paths());
    Ok(notes)
}

pub(crate) fn cgroup_failure(step: &str, e: &onggi_cgroup::CgroupError) -> StartFailureError {
    // Several errors at once bring their causes with them; others have a cause that is a number or a sentence.
    let cause = match (e.errno(), std::error::Error::source(e)) {
        (0, Some(source)) => format!(": {source}"),
        (0, None) => String::new(),
        (errno, _) => format!(": {}", onggi_sys::error::text(errno)),
    };
    let failure = StartFailureError::new(format!("{step}: {e}{cause}"));
    match e.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The PATH of an environment.
pub(crate) fn search_path(env: &[String]) -> Option<String> {
    env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).map(str::to_owned)
}

/// Splits the streams: what the child installs, where a terminal's master goes, whether line feeds stay bare there.
pub(crate) fn split_stdio(stdio: Stdio) -> (Option<[OwnedFd; 3]>, Option<OwnedFd>, bool) {
    match stdio {
        Stdio::Inherit => (None, None, false),
        Stdio::Fds { stdin, stdout, stderr } => (Some([stdin, stdout, stderr]), None, false),
        Stdio::Terminal { console_socket, bare_line_feeds } => (None, console_socket, bare_line_feeds),
    }
}

pub(crate) fn exec_strings(ops: &[ProcessOp]) -> Result<(CStrings, CStrings, Option<String>)> {
    let Some(ProcessOp::Exec { args, env }) = ops.last() else {
        return Err(StartFailureError::new("the plan does not end with exec"));
    };
    let strings =
        |list: &[String]| CStrings::new(list.iter().map(String::as_bytes)).step(|| "prepare the command".into());
    Ok((strings(args)?, strings(env)?, search_path(env)))
}

/// The policy's program. `by_number`: the runtime can take a listener out of the process that has loaded it.
pub(crate) fn compile_filter(policy: Option<&LinuxSeccomp>, by_number: bool) -> Result<Option<Filter>> {
    let Some(policy) = policy else { return Ok(None) };
    let program = seccomp::program(policy).map_err(|e| {
        let failure = StartFailureError::new(format!("linux.seccomp: {e}"));
        match e.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    Ok(Some(Filter { program: program.instructions, flags: program.flags, fetched_by_number: by_number }))
}

fn prepare(
    plan: &SandboxPlan,
    config: &Spec,
    facts: &SandboxFacts,
    dir: &StateDir,
    stdio: Stdio,
    netns: Option<OwnedFd>,
) -> Result<(Prepared, Option<OwnedFd>)> {
    let (argv, envp, search_path) = exec_strings(&plan.process)?;
    let (stdio, console, bare_line_feeds) = split_stdio(stdio);
    if let Some(streams) = stdio.as_ref().filter(|_| facts.privileged) {
        sources::own_streams(plan, streams);
    }
    let waits = plan.process.contains(&ProcessOp::AwaitStart);
    // The program of an init's child is not the process behind our pidfd.
    let by_number = facts.privileged && !plan.process.contains(&ProcessOp::ForkInit);
    let mounts = mount_sources::prepare(plan, facts, &dir.path, netns.as_ref())?;
    // Opened here where the groups are there: the child may be an unmapped user by the time it writes.
    let later = meanwhile::possible(plan);
    let prepared = Prepared {
        bare_line_feeds,
        cgroup_tasks: if later { Vec::new() } else { meanwhile::open_tasks(tasks(plan))? },
        tasks_to_come: later,
        netns,
        mounts: mounts.ready,
        asked_for: mounts.asked_for,
        user_namespaces: mounts.user_namespaces,
        stdio,
        start: if waits { Some(start::make_ends(dir)?) } else { None },
        filter: compile_filter(config.linux.as_ref().and_then(|l| l.seccomp.as_ref()), by_number)?,
        argv,
        envp,
        search_path,
        parent: None,
        wait: None,
        preserve_fds: 0,
        hook_state: None,
    };
    Ok((prepared, console))
}

/// The parent that the child will have, held so that its death cannot go unnoticed.
pub(crate) fn parent_to_die_with(ops: &[ProcessOp], sibling: bool) -> Result<Option<OwnedFd>> {
    if !ops.contains(&ProcessOp::DieWithParent) {
        return Ok(None);
    }
    let step = || "open the parent to die with".to_string();
    let parent = match sibling {
        true => rustix::process::getppid(),
        false => Some(rustix::process::getpid()),
    };
    let parent = parent.ok_or_else(|| StartFailureError::new(step()).hint("the parent is in another pid namespace"))?;
    process::pidfd_open(parent.as_raw_nonzero().get()).step(step).map(Some)
}

/// Accompanies the child from the clone to exec, or to the wait for `start`.
struct Follow<'a> {
    plan: &'a SandboxPlan,
    dir: &'a StateDir,
    state: SandboxState,
    running: Running,
    seccomp: Option<&'a LinuxSeccomp>,
    console: Option<OwnedFd>,
    master: Option<OwnedFd>,
    notes: Vec<String>,
    privileged: bool,
    /// Network devices that go back when something fails.
    moved: Option<Moved>,
    /// Of idmapped mounts that the child asks for.
    user_namespaces: BTreeMap<usize, Rc<OwnedFd>>,
    /// What this program was executed through.
    executable: Option<OwnedFd>,
}

impl Follow<'_> {
    fn accompany(&mut self, pid_file: Option<PidFile<'_>>) -> Result<()> {
        let mut done = self.until_running(pid_file);
        if done.is_ok() && !self.plan.process.contains(&ProcessOp::AwaitStart) {
            done = start::run_poststart(&self.state, &self.plan.poststart);
        }
        if let (Err(_), Some(moved)) = (&done, &mut self.moved) {
            moved.give_back();
        }
        done
    }

    fn until_running(&mut self, pid_file: Option<PidFile<'_>>) -> Result<()> {
        self.after_clone(|op| !matches!(op, ParentOp::Rlimit(_)))?;
        mqueue::give_to_root(self.plan, self.privileged, self.running.pid)?;
        self.state.pid = self.running.pid;
        // Before it changes its ids: then a /proc with hidepid= may show it to nobody but the host's root.
        let stat = procfs::stat(self.running.pid).ok().flatten();
        self.state.pid_start_time = stat.map_or(0, |s| s.start_time);
        let waits = |op: &SetupOp| matches!(op, SetupOp::BecomeRoot { .. });
        if self.plan.setup.iter().any(waits) {
            self.tell(&Message::Go)?;
        }
        // The child works meanwhile.
        self.dir.save(&self.state)?;
        // The child has closed its own long ago. The kernel makes us wait, which we do anyway.
        self.executable = None;
        self.listen()?;
        pid_file.map_or(Ok(()), |file| file.write(self.state.pid))
    }

    fn after_clone(&mut self, which: fn(&ParentOp) -> bool) -> Result<()> {
        for op in self.plan.after.iter().filter(|op| which(op)) {
            self.notes.extend(sources::after_clone(op, self.running.pid)?);
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<()> {
        let mut executing = false;
        loop {
            match self.running.channel.receive()? {
                Some(Message::Note(text)) => self.notes.push(text),
                Some(Message::Terminal(fd)) => self.hand_over(fd)?,
                Some(Message::NetDevices) => self.net_devices()?,
                Some(Message::Limits) => {
                    self.after_clone(|op| matches!(op, ParentOp::Rlimit(_)))?;
                    self.tell(&Message::Go)?;
                }
                Some(Message::RuntimeHooks) => self.runtime_hooks()?,
                Some(Message::Listener(fd)) => self.listener(&fd)?,
                Some(Message::ListenerNumber(n)) => self.listener(&notify::fetch(self.running.pidfd.as_fd(), n)?)?,
                Some(Message::Executing) => executing = true,
                Some(Message::Created) => return Ok(()),
                Some(Message::Failed(failure)) => return Err(StartFailureError(failure)),
                Some(Message::MountWanted(index)) => {
                    let ids = self.user_namespaces.get(&index).map(|fd| fd.as_fd());
                    let mount = mount_sources::make_in(self.running.pid, self.plan, index, ids)?;
                    self.tell(&Message::Mount(mount))?;
                }
                Some(Message::Go | Message::Mount(_) | Message::Cloned(..)) => {}
                None if executing => break,
                None => return Err(self.died()),
            }
        }
        self.state.started = true;
        self.dir.save(&self.state)
    }

    /// A child that is gone cannot be told.
    fn tell(&self, message: &Message) -> Result<()> {
        let gone = |e: &StartFailureError| e.0.errno == Errno::PIPE.raw_os_error();
        self.running.channel.send(message).map_err(|e| if gone(&e) { self.died() } else { e })
    }

    /// The words for a limit are runc's.
    fn died(&self) -> StartFailureError {
        let paths = self.plan.cgroup.as_ref().map(CgroupPlan::paths).unwrap_or_default();
        if onggi_cgroup::limit_events(&paths).oom_kills > 0 {
            return StartFailureError::new("container init was OOM-killed (memory limit too low?)")
                .hint("raise linux.resources.memory.limit: the container is made in its own group");
        }
        StartFailureError::new("the container's first process died while it was being made")
    }

    fn hand_over(&mut self, master: OwnedFd) -> Result<()> {
        match self.console.take() {
            Some(socket) => send_console(&socket, &master),
            None => {
                self.master = Some(master);
                Ok(())
            }
        }
    }

    /// The program has not begun: the container is still being created.
    fn listener(&self, listener: &OwnedFd) -> Result<()> {
        let shown = state::oci_state(&self.state, ContainerState::Creating);
        notify::hand_over(self.seccomp, self.running.pid, shown, listener)?;
        self.tell(&Message::Go)
    }

    fn net_devices(&mut self) -> Result<()> {
        for op in &self.plan.setup {
            if let SetupOp::NetDevices { devices } = op {
                self.moved = Some(net_devices::move_all(self.running.pid, devices)?);
            }
        }
        self.tell(&Message::Go)
    }

    fn runtime_hooks(&mut self) -> Result<()> {
        let state = state::for_hooks(&self.state, ContainerState::Creating)?;
        let bundle = hooks::bundle_directory(&self.state.bundle);
        let directory = bundle.as_ref().map(AsFd::as_fd);
        for op in &self.plan.setup {
            if let SetupOp::RuntimeHooks { prestart, create_runtime } = op {
                hooks::run_all(Stage { kind: "prestart", state: &state, environment: None, directory }, prestart)?;
                hooks::run_all(
                    Stage { kind: "createRuntime", state: &state, environment: None, directory },
                    create_runtime,
                )?;
            }
        }
        self.tell(&Message::Go)
    }
}

/// The message of runc's console-socket protocol: the terminal's name, and its master as SCM_RIGHTS.
pub(crate) fn send_console(socket: &OwnedFd, master: &OwnedFd) -> Result<()> {
    channel::send_packet(socket.as_fd(), b"/dev/console", Some(master.as_fd()))
        .step(|| "send the terminal to the console socket".into())
}

/// runc's `--pidfd-socket`: a name, and the process as SCM_RIGHTS.
pub(crate) fn send_pidfd(socket: &OwnedFd, pidfd: &OwnedFd) -> Result<()> {
    channel::send_packet(socket.as_fd(), b"pidfd", Some(pidfd.as_fd()))
        .step(|| "send the pidfd to the pidfd socket".into())
}

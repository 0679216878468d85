//! The child of the clone: executes the plan, one `match` arm per operation, without policy.
//!
//! It is born in the new namespaces with a copy of the runtime's memory and descriptors; everything it
//! needs was prepared before. A failure crosses the channel with step, call and errno, then the child ends.

mod bind;
mod command;
mod copy_up;
mod credentials;
mod filesystem;
mod home;
mod host_root;
mod init;
mod long_options;
mod masks;
pub(crate) mod meanwhile;
mod mounts;
mod nodes;
mod process;
mod procfs;
mod streams;
mod terminal;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
    rc::Rc,
};

use onggi_spec::oci::runtime::{ContainerState, Hook, State};
use onggi_sys::{
    Errno, SysContext, ns,
    process::{CStrings, exit_now},
    seccomp::SockFilter,
    trace,
};

use rustix::fs::Mode;

use crate::{
    channel::{Channel, Message},
    error::{Result, StartFailureError, Step},
    exec::WaitFifo,
    hooks,
    plan::{NamespaceSource, ProcessOp, SetupOp},
    sources,
};

pub(crate) use bind::{BindContext, prepare_bind};
pub(crate) use credentials::become_root;
pub(crate) use mounts::{bind_root, forget_volatile};
pub(crate) use nodes::host_device;
pub(crate) use process::{change_root, own_root};

/// umask(2) of hooks, and of a program that asks for none (runc's).
pub(crate) const DEFAULT_UMASK: u32 = 0o022;

/// A compiled filter and the flags to load it with.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) program: Vec<SockFilter>,
    pub(crate) flags: u32,
    /// The runtime takes the listener out of this process by its number.
    pub(crate) fetched_by_number: bool,
}

impl Filter {
    /// Without the one that means nothing to a process with one thread.
    pub(crate) fn shown_flags(&self) -> u32 {
        self.flags & !onggi_sys::seccomp::flag::TSYNC
    }
}

/// Ends of the FIFOs by which `start` and the waiting process talk, both open for reading and writing: neither
/// side waits for the other to open, and no path has to be resolved later.
#[derive(Debug)]
pub(crate) struct StartEnds {
    /// One message: go.
    pub(crate) go: OwnedFd,
    /// What happened then; end of file means that exec succeeded.
    pub(crate) answer: OwnedFd,
}

/// Descriptors and strings made ready by the runtime.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The `tasks` file of every v1 hierarchy, open for writing.
    pub(crate) cgroup_tasks: Vec<OwnedFd>,
    /// The runtime is still making the groups and sends them later ([`meanwhile`]).
    pub(crate) tasks_to_come: bool,
    /// The namespace that the caller gave.
    pub(crate) netns: Option<OwnedFd>,
    /// Detached mounts by index into `plan.setup`, where the child lacks the privilege or the view.
    pub(crate) mounts: BTreeMap<usize, OwnedFd>,
    /// Binds by index that the runtime makes when their turn has come.
    pub(crate) asked_for: BTreeSet<usize>,
    /// User namespaces of idmapped mounts by index.
    pub(crate) user_namespaces: BTreeMap<usize, Rc<OwnedFd>>,
    /// stdin, stdout, stderr when they are not inherited.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    /// How `start` is waited for.
    pub(crate) start: Option<StartEnds>,
    /// What is waited for before the program, where something is.
    pub(crate) wait: Option<WaitFifo>,
    /// The seccomp filter.
    pub(crate) filter: Option<Filter>,
    /// argv.
    pub(crate) argv: CStrings,
    /// Environment.
    pub(crate) envp: CStrings,
    /// PATH of that environment.
    pub(crate) search_path: Option<String>,
    /// The process that will be the child's parent, when the program must die with it.
    pub(crate) parent: Option<OwnedFd>,
    /// Descriptors 3 to 2+n belong to the program.
    pub(crate) preserve_fds: u32,
    /// The terminal leaves line feeds as they are.
    pub(crate) bare_line_feeds: bool,
    /// The state as hooks receive it, when there are any; the child adds status and pid.
    pub(crate) hook_state: Option<State>,
}

/// Which /proc and which root the child sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Still the host's.
    Host,
    /// The container's.
    Container,
}

/// The child's state: the typed slots of the plan.
pub(crate) struct Child {
    channel: Channel,
    prepared: Prepared,
    view: View,
    /// Slot: the container's root.
    root: Option<OwnedFd>,
    /// The overlay had to be mounted where it is attached.
    root_attached: bool,
    /// Slot: a procfs of the container's pid namespace that nothing covers.
    proc: Option<OwnedFd>,
    /// Slot: a procfs that was bound on the container's /proc.
    bound_proc: Option<OwnedFd>,
    /// Slot: filesystems that were mounted, by target.
    mounted: filesystem::Mounted,
    /// Slot: an attached empty read-only directory.
    empty: Option<OwnedFd>,
    /// Slot: the host's verified /dev/null.
    null: Option<OwnedFd>,
    /// Slot: the slave of the terminal.
    terminal: Option<OwnedFd>,
    /// The directory of the last node or link.
    last_parent: Option<(PathBuf, Rc<OwnedFd>)>,
    /// The working directory has been entered.
    entered: bool,
    /// Candidates for the program, best first.
    candidates: Vec<std::ffi::CString>,
    /// Capabilities are set after the ids have changed, so they must survive that.
    keep_capabilities: bool,
}

/// Runs the child; never returns.
pub(crate) fn run(channel: Channel, prepared: Prepared, setup: &[SetupOp], process: &[ProcessOp]) -> ! {
    let mut child = Child::new(channel, prepared, View::Host);
    // Modes are given in full; hooks and the program get a umask of their own.
    rustix::process::umask(Mode::empty());
    let result = child
        .close_others(&[])
        .and_then(|()| child.own_network())
        .and_then(|()| child.setup(setup))
        .and_then(|()| child.process(process));
    child.end(result)
}

impl Prepared {
    /// Every descriptor in it.
    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let stdio = self.stdio.iter().flatten();
        let start = self.start.iter().flat_map(|s| [&s.go, &s.answer]);
        let wait = self.wait.iter().flat_map(|w| std::iter::once(&w.end).chain(&w.opened));
        let single = self.netns.iter().chain(&self.parent).chain(start).chain(wait);
        let namespaces = self.user_namespaces.values().map(AsRef::as_ref);
        let all = self.cgroup_tasks.iter().chain(self.mounts.values()).chain(namespaces).chain(stdio).chain(single);
        all.map(AsRawFd::as_raw_fd)
    }
}

impl Child {
    /// Closes what the runtime or its caller had open and this child does not need (I3).
    pub(crate) fn close_others(&self, further: &[RawFd]) -> Result<()> {
        let preserved = 3..3 + RawFd::try_from(self.prepared.preserve_fds).unwrap_or(0);
        let own = self.prepared.descriptors().chain([self.channel.as_raw_fd()]).chain(trace::descriptor());
        let keep = own.chain(preserved).chain(further.iter().copied());
        onggi_sys::process::close_all_but(keep).step(|| "close inherited descriptors".into())
    }

    pub(crate) fn new(channel: Channel, prepared: Prepared, view: View) -> Self {
        Self {
            channel,
            prepared,
            view,
            root: None,
            root_attached: false,
            proc: None,
            bound_proc: None,
            mounted: Vec::new(),
            empty: None,
            null: None,
            terminal: None,
            last_parent: None,
            entered: false,
            candidates: Vec::new(),
            keep_capabilities: false,
        }
    }

    /// Reports why `result` is here at all and ends the process.
    pub(crate) fn end(&self, result: Result<()>) -> ! {
        if let Err(e) = result {
            let _ = self.channel.send(&Message::Failed(e.0));
        }
        exit_now(1)
    }

    /// Uses `root` instead of a root made by operations: for a process that enters a container.
    pub(crate) fn set_root(&mut self, root: OwnedFd) {
        self.root = Some(root);
        self.view = View::Container;
    }

    /// Closes the slots that only the operations before the process need.
    fn let_mounts_go(&mut self) {
        self.mounted.clear();
        self.empty = None;
        self.null = None;
        self.last_parent = None;
    }

    /// Waits until the runtime says go.
    pub(crate) fn await_go(&self) -> Result<()> {
        self.channel.await_go()
    }

    pub(crate) fn note(&self, text: String) {
        // A lost note is no reason to fail.
        let _ = self.channel.send(&Message::Note(text));
    }

    fn root(&self) -> Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| StartFailureError::new("the plan has no root filesystem"))
    }

    /// Builds the container's view.
    pub(crate) fn setup(&mut self, ops: &[SetupOp]) -> Result<()> {
        let step = |op: &SetupOp| op.words();
        ops.iter()
            .enumerate()
            .try_for_each(|(index, op)| trace::step("sandbox", || step(op), || self.setup_one(index, op)))
    }

    fn setup_one(&mut self, index: usize, op: &SetupOp) -> Result<()> {
        let step = || op.words();
        if !matches!(op, SetupOp::Node(_) | SetupOp::Symlink { .. }) {
            // What a path means may change with every mount.
            self.last_parent = None;
        }
        match op {
            SetupOp::AwaitLimit => self.channel.await_go(),
            SetupOp::EnterCgroups => self.enter_cgroups(),
            SetupOp::BecomeRoot { clear_groups, ids } => {
                self.channel.await_go()?;
                credentials::become_root(*clear_groups, *ids)?;
                // Others may be in a pid namespace that is joined, with the right to trace in the user namespace (I3).
                onggi_sys::process::set_dumpable(false).step(step)
            }
            SetupOp::TimeOffsets { offsets } => sources::own_time_offsets(offsets).step(step),
            SetupOp::Join { kind, source } => match (source, &self.prepared.netns) {
                (NamespaceSource::Given, Some(fd)) => ns::join(fd.as_fd(), sources::flag(*kind)).step(step),
                _ => sources::join(*kind, source),
            },
            SetupOp::NewCgroupNamespace => ns::unshare(ns::flag::CGROUP).step(step),
            SetupOp::NewSession => onggi_sys::process::setsid().step(step),
            SetupOp::NewKeyring { name, label } => self.new_keyring(name, label.as_deref()),
            SetupOp::HostPropagation { propagation } => {
                let set = onggi_sys::mount::set_root_propagation(mounts::propagation_flags(*propagation)).step(step);
                set.map_err(|e| match e.0.errno == Errno::INVAL.raw_os_error() {
                    true => e.hint("the caller's root directory is no mount (a chroot?): bind it onto itself before"),
                    false => e,
                })
            }
            SetupOp::BindRoot { .. } | SetupOp::OverlayRoot { .. } => self.make_root(index, op),
            SetupOp::AttachRoot { at } => self.attach_root(at),
            SetupOp::SubOverlay { path, upper, work, flags, ids: _ } => {
                self.sub_overlay(index, path, (upper, work), *flags).map_err(|e| named(e, op))
            }
            SetupOp::Mount(m) => self.mount(index, m).map_err(|e| e.mounting(m.source.as_ref(), &m.target)),
            SetupOp::Bind(m) => self.bind(index, m).map_err(|e| e.mounting(&m.source, &m.target)),
            SetupOp::Attributes { target, set } => self.attributes(target, *set).step(step),
            SetupOp::MakeDir { path, mode } => self.make_dir(path, *mode).step(step),
            SetupOp::Symlink { path, target, only_if } => self.symlink(path, target, only_if.as_deref()).step(step),
            SetupOp::Node(node) => match self.node(node) {
                // The runtime itself is in a user namespace (runc does the same).
                Err(e) if e.errno == Errno::PERM => self.bind_node(index, node),
                r => r.step(step),
            },
            SetupOp::BindNode(node) => self.bind_node(index, node),
            SetupOp::Terminal { size, console, uid } => self.open_terminal(*size, *console, *uid),
            SetupOp::Sysctl { path, value, .. } => self.sysctl(path, value).map_err(|e| named(e, op)),
            SetupOp::Hostname { name } => {
                rustix::system::sethostname(name.as_bytes()).sys("sethostname", || format!("{name:?}")).step(step)
            }
            SetupOp::Domainname { name } => {
                rustix::system::setdomainname(name.as_bytes()).sys("setdomainname", || format!("{name:?}")).step(step)
            }
            SetupOp::LoopbackUp => onggi_sys::loopback::up().step(step),
            SetupOp::NetDevices { .. } => {
                self.channel.send(&Message::NetDevices)?;
                self.channel.await_go()
            }
            SetupOp::RuntimeHooks { .. } => {
                self.channel.send(&Message::RuntimeHooks)?;
                self.channel.await_go()
            }
            SetupOp::ContainerHooks { hooks } => self.hooks(ContainerState::Creating, hooks),
            SetupOp::Mask { path, label } => self.mask(path, label.as_deref()).step(step),
            SetupOp::ReadOnly { path } => self.read_only(path).step(step),
            SetupOp::ReadOnlyRoot => self.read_only_root().step(step),
            SetupOp::CoverHostSystems => self.cover_host_systems().step(step),
            SetupOp::ChangeRoot => self.change_root().step(step),
            SetupOp::PivotRoot { by_move } => self.pivot(*by_move).step(step),
            SetupOp::RootPropagation { propagation, recursive } => {
                self.root_propagation(*propagation, *recursive).step(step)
            }
        }
    }

    /// createContainer (status creating, in the root that is about to be entered) or startContainer (status
    /// created, where the program will be). The pid is the one that the container sees (runtime.md, "State").
    fn hooks(&self, status: ContainerState, list: &[Hook]) -> Result<()> {
        let pid = Some(rustix::process::getpid().as_raw_nonzero().get());
        let state = self.prepared.hook_state.clone().map(|state| State { status, pid, ..state });
        let state = serde_json::to_vec(&state)
            .map_err(|e| StartFailureError::new(format!("encode the state for hooks: {e}")))?;
        let (kind, directory, environment) = match status {
            ContainerState::Creating => ("createContainer", Some(self.root()?), None),
            _ => ("startContainer", None, Some(&self.prepared.envp)),
        };
        let old = rustix::process::umask(Mode::from_raw_mode(DEFAULT_UMASK));
        let result = hooks::run_all(hooks::Stage { kind, state: &state, environment, directory }, list);
        rustix::process::umask(old);
        result
    }

    /// A thread that moves itself spares the kernel an RCU grace period.
    fn enter_cgroups(&mut self) -> Result<()> {
        self.await_groups()?;
        let tasks = std::mem::take(&mut self.prepared.cgroup_tasks);
        for fd in &tasks {
            onggi_sys::path::write_once(fd.as_fd(), b"0", "tasks").step(|| "enter the cgroups".into())?;
        }
        onggi_sys::process::close_together(tasks);
        Ok(())
    }

    /// Kernels without keyrings have nothing to protect; with a full quota the caller's keys must stay out.
    fn new_keyring(&mut self, name: &str, label: Option<&str>) -> Result<()> {
        if let Some(label) = label {
            self.write_own("attr/keycreate", label.as_bytes())?;
        }
        let joined = match onggi_sys::keyring::join_session(name) {
            Err(e) if e.errno == onggi_sys::Errno::NOSYS => Ok(()),
            Err(e) if e.errno == onggi_sys::Errno::DQUOT => {
                Err(StartFailureError::from_sys("join a new session keyring", &e)
                    .hint("raise kernel.keys.maxkeys, or use --no-new-keyring"))
            }
            r => r.step(|| "join a new session keyring".into()),
        };
        // Where that is refused, a further process of the container has a keyring of its own.
        let _ = onggi_sys::keyring::share_session();
        if label.is_some() {
            // Keys that the program makes have its own label.
            self.write_own("attr/keycreate", b"\n")?;
        }
        joined
    }
}

/// Gives an error of a helper the words of the operation when it has none of its own.
fn named(e: StartFailureError, op: &SetupOp) -> StartFailureError {
    let mut e = e;
    if e.0.step.is_empty() {
        e.0.step = op.words();
    }
    e
}

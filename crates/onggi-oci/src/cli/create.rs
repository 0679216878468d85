//! `create`, `run`, `start`.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use onggi_sandbox::{CreateOptions, Created, StartFailureError, Stdio};
use onggi_spec::{ParseError, monitor::RootFs, oci::runtime::Spec};
use rustix::fs::OFlags;

use super::{
    CliError, EXIT_FAILURE, Global, Outcome,
    args::{Args, Flag},
    foreground, help,
    notify::{self, Notify},
    terminal,
};

/// Longest config.json or process.json.
const MAX_DOCUMENT: usize = 16 << 20;
/// Most descriptors that are handed through; more cannot be open at once on an ordinary system.
const MAX_PRESERVED: u32 = 1 << 20;

const BUNDLE: Flag =
    Flag::value("bundle", "b").help("path to the root of the bundle directory, defaults to the current directory");
const CONSOLE: Flag = Flag::value("console-socket", "").help(
    "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal",
);
const PIDFD: Flag = Flag::value("pidfd-socket", "")
    .help("path to an AF_UNIX socket which will receive a file descriptor referencing the init process");
const PID_FILE: Flag = Flag::value("pid-file", "").help("specify the file to write the process id to");
const NO_PIVOT: Flag = Flag::switch("no-pivot", "").help(
    "do not use pivot root to jail process inside rootfs.  This should be used whenever the rootfs is on top of a ramdisk",
);
const NO_KEYRING: Flag = Flag::switch("no-new-keyring", "").help(
    "do not create a new session keyring for the container.  This will cause the container to inherit the calling processes session key",
);
const PRESERVE: Flag = Flag::number("preserve-fds", "")
    .help("Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)");
const NO_SUBREAPER: Flag =
    Flag::switch("no-subreaper", "").help("disable the use of the subreaper used to reap reparented processes");
/// crun's: another name than config.json.
const CONFIG: Flag = Flag::value("config", "f");

pub(super) const CREATE_FLAGS: &[Flag] =
    &[BUNDLE, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE, CONFIG, Flag::switch("no-subreaper", ""), INIT];
pub(super) const RUN_FLAGS: &[Flag] = &[
    BUNDLE,
    CONSOLE,
    PIDFD,
    Flag::switch("detach", "d").help("detach from the container's process"),
    Flag::switch("keep", "").help("do not delete the container after it exits"),
    PID_FILE,
    NO_SUBREAPER,
    NO_PIVOT,
    NO_KEYRING,
    PRESERVE,
    CONFIG,
    INIT,
];
const INIT: Flag = Flag::switch("init", "").help("run an init as the first process that reaps and forwards signals");

/// Whether the program waits for `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Later,
    Now,
}

/// runc's words before a failure of `create` and `run`.
fn failed(verb: &str) -> impl Fn(CliError) -> CliError {
    let prefix = format!("{} {verb} failed", help::program());
    move |source| CliError::Start { prefix: prefix.clone(), source: Box::new(source), code: EXIT_FAILURE }
}

pub(super) fn create(global: &Global, args: &Args) -> Outcome {
    let create = || {
        let options = options(global, args, Begin::Later)?;
        check_terminal(&options, args, true)?;
        global.log.debug("nsexec container setup: cloning the first process into its namespaces");
        let created = onggi_sandbox::create(options)?;
        tell(global, &created);
        global.log.notes(&created.notes);
        std::mem::forget(created.remains);
        Ok(0)
    };
    create().map_err(failed("create"))
}

/// What people look for in runc's debug output.
fn tell(global: &Global, created: &Created) {
    global.log.debug(&format!("child process in init() is {}", created.pid));
    if let Some(flags) = created.filter_flags {
        global.log.debug(&format!("seccomp filter flags: {flags}"));
    }
    global.log.debug("init: closing the pipe to signal completion");
}

pub(super) fn run(global: &Global, args: &Args) -> Outcome {
    run_to_the_end(global, args).map_err(failed("run"))
}

fn run_to_the_end(global: &Global, args: &Args) -> Outcome {
    let detach = args.is("detach");
    let mut options = options(global, args, Begin::Now)?;
    check_terminal(&options, args, detach)?;
    let id = options.id.clone();
    if matches!(options.stdio, Stdio::Terminal { console_socket: None, .. }) {
        terminal::inherit_size(options.config.process.as_mut());
    }
    let signals = if detach { None } else { Some(foreground::prepare(!args.is("no-subreaper"))?) };
    // The notify socket has to be there before the program is, and its directory comes with the container.
    options.wait_for_start = options.notify;
    let notify = options.notify;
    global.log.debug("nsexec container setup: cloning the first process into its namespaces");
    let created = onggi_sandbox::create(options)?;
    tell(global, &created);
    global.log.notes(&created.notes);
    std::mem::forget(created.remains);
    let notify = if notify { Some(start_notified(global, &id, created.pid)?) } else { None };
    let Some(signals) = signals else {
        return notify.map_or(Ok(0), |n| n.wait(&global.log)).map(|_| 0);
    };
    let process =
        foreground::Process { pid: created.pid, pidfd: created.pidfd, console: created.console_master, notify };
    let code = process.wait(&signals)?;
    if !args.is("keep") {
        let notes = onggi_sandbox::delete(&global.root, &id, true)?;
        global.log.notes(&notes);
    }
    Ok(code)
}

/// A container that cannot be told to start is of no use to anybody.
fn start_notified(global: &Global, id: &str, pid: i32) -> Result<Notify, CliError> {
    let begin = || {
        let notify = Notify::bind(&global.root, id, pid)?;
        global.log.notes(&onggi_sandbox::start(&global.root, id)?);
        Ok(notify)
    };
    begin().inspect_err(|_: &CliError| drop(onggi_sandbox::delete(&global.root, id, true)))
}

pub(super) fn start(global: &Global, args: &Args) -> Outcome {
    let id = args.id()?;
    let notify = match notify::host() {
        Some(_) if onggi_sandbox::notify_directory(&global.root, &id).is_dir() => {
            let pid = onggi_sandbox::listed(&global.root, &id)?.state.pid;
            Some(Notify::bind(&global.root, &id, pid)?)
        }
        _ => None,
    };
    let notes = onggi_sandbox::start(&global.root, &id)?;
    global.log.notes(&notes);
    if let Some(notify) = notify {
        notify.wait(&global.log)?;
    }
    Ok(0)
}

fn options(global: &Global, args: &Args, begin: Begin) -> Result<CreateOptions, CliError> {
    let id = args.id()?;
    onggi_sandbox::check_id(&id)?;
    let bundle = bundle(args)?;
    let (mut config, text) = read_config(&bundle, args.path("config").as_deref())?;
    let terminal = config.process.as_ref().is_some_and(|p| p.terminal);
    let inherited = Inherited::find(global, args.number("preserve-fds")?.unwrap_or(0))?;
    let (stdio, pidfd_socket) = (stdio(terminal, args)?, pidfd_socket(args)?);
    inherited.close_the_others()?;
    inherited.announce(&mut config);
    let notify = notify::host().is_some();
    if notify {
        notify::add_to(&mut config, &global.root, &id);
    }
    Ok(CreateOptions {
        id,
        state_root: global.root.clone(),
        config,
        rootfs: RootFs::Path,
        stdio,
        netns: None,
        init: args.is("init"),
        die_with_parent: false,
        wait_for_start: begin == Begin::Later,
        sibling: false,
        preserve_fds: inherited.count(),
        no_pivot: args.is("no-pivot"),
        no_new_keyring: args.is("no-new-keyring"),
        pid_file: args.path("pid-file"),
        cgroup_driver: global.cgroup_driver,
        rootless: global.rootless,
        config_text: Some(text),
        pidfd_socket,
        notify,
        executable: global.executable.take(),
        bundle,
    })
}

/// runc's rules and words.
fn check_terminal(options: &CreateOptions, args: &Args, detach: bool) -> Result<(), CliError> {
    let terminal = options.config.process.as_ref().is_some_and(|p| p.terminal);
    refuse_terminal(terminal, args.has("console-socket"), detach)
}

pub(super) fn refuse_terminal(terminal: bool, socket: bool, detach: bool) -> Result<(), CliError> {
    if detach && terminal && !socket {
        let text =
            "cannot allocate tty if the runtime will detach without setting console socket; use --console-socket";
        return Err(CliError::Usage(text.into()));
    }
    if socket && !terminal {
        return Err(CliError::Usage("cannot use console socket if the runtime will not allocate tty".into()));
    }
    Ok(())
}

/// Descriptors from 3 on that the program inherits: those of socket activation, then the caller's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inherited {
    activated: u32,
    preserved: u32,
}

impl Inherited {
    /// `$LISTEN_FDS` of sd_listen_fds(3) and `--preserve-fds`.
    fn find(global: &Global, preserved: u32) -> Result<Self, CliError> {
        let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
        // The variables may be meant for one of our parents; crun's callers leave the pid out.
        let ours = number("LISTEN_PID").is_none_or(|pid| pid == std::process::id());
        let activated = number("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
        let this = Self { activated: activated.min(MAX_PRESERVED), preserved };
        this.check(global)?;
        Ok(this)
    }

    pub(super) fn preserved(global: &Global, preserved: u32) -> Result<Self, CliError> {
        let this = Self { activated: 0, preserved };
        this.check(global)?;
        Ok(this)
    }

    /// When none of them is open the caller counts something that it does not have: an error, as in runc. Gaps
    /// stay gaps, as in crun and youki: Podman's `--preserve-fd 5` gives the highest number, others one above all
    /// that could be open. Our own descriptors must not fill such a gap: what is there instead is gone when the
    /// program is executed.
    fn check(self, global: &Global) -> Result<(), CliError> {
        if self.preserved > MAX_PRESERVED {
            return Err(CliError::Usage(format!("--preserve-fds {}: too many", self.preserved)));
        }
        let ours = |fd: &OwnedFd| fd.as_raw_fd().cast_unsigned() < self.count().saturating_add(3);
        drop(global.executable.borrow_mut().take_if(|fd| ours(fd)));
        let first = 3 + self.activated;
        if self.preserved > 0 && !(first..first + self.preserved).any(is_open) {
            return Err(CliError::Usage(format!(
                "unable to stat preserved-fd 0 (of {}): descriptor {first} is not open",
                self.preserved
            )));
        }
        let gaps = (first..first + self.preserved).filter(|n| !is_open(*n));
        for number in gaps {
            let filled = std::fs::File::open("/dev/null").and_then(|null| place(null.into(), number));
            filled.map_err(|e| {
                CliError::Usage(format!("unable to keep preserved-fd {number} (of {}) apart: {e}", self.preserved))
            })?;
        }
        Ok(())
    }

    pub(super) fn count(self) -> u32 {
        self.activated + self.preserved
    }

    /// Hooks inherit nothing but their streams.
    pub(super) fn close_the_others(self) -> Result<(), CliError> {
        let marked = onggi_sys::process::cloexec_from(self.count().saturating_add(3));
        marked.map_err(|e| StartFailureError::from_sys("mark inherited descriptors close-on-exec", &e).into())
    }

    /// The first process of a container is 1 there.
    fn announce(self, config: &mut Spec) {
        if let Some(process) = config.process.as_mut().filter(|_| self.activated > 0) {
            process.env.push(format!("LISTEN_FDS={}", self.activated));
            process.env.push("LISTEN_PID=1".into());
        }
    }
}

/// Something of the caller's is at this number.
fn is_open(number: u32) -> bool {
    rustix::fs::readlink(format!("/proc/self/fd/{number}"), Vec::new()).is_ok()
}

/// Leaves `fd` at a number that is free, until exec.
fn place(fd: OwnedFd, number: u32) -> io::Result<()> {
    if fd.as_raw_fd().cast_unsigned() == number {
        std::mem::forget(fd);
        return Ok(());
    }
    let placed = rustix::io::fcntl_dupfd_cloexec(&fd, number.cast_signed())?;
    std::mem::forget(placed);
    Ok(())
}

/// The streams of a verb that starts a process.
pub(super) fn stdio(terminal: bool, args: &Args) -> Result<Stdio, CliError> {
    match (terminal, args.path("console-socket")) {
        (false, _) => Ok(Stdio::Inherit),
        // As runc: the output is often kept in a file, and our own terminal makes CR LF itself.
        (true, None) => Ok(Stdio::Terminal { console_socket: None, bare_line_feeds: true }),
        (true, Some(at)) => {
            Ok(Stdio::Terminal { console_socket: Some(connect("console socket", &at)?), bare_line_feeds: false })
        }
    }
}

pub(super) fn pidfd_socket(args: &Args) -> Result<Option<OwnedFd>, CliError> {
    args.path("pidfd-socket").map(|at| connect("pidfd socket", &at)).transpose()
}

/// By path. `/proc/self/fd/N` is a connected socket that our parent handed down: such a path can be opened by
/// nobody (a socket has no file behind it), so it is taken by its number.
fn connect(what: &'static str, at: &Path) -> Result<OwnedFd, CliError> {
    let number = at.to_str().and_then(|s| s.strip_prefix("/proc/self/fd/")).and_then(|n| n.parse().ok());
    let connected = match number {
        Some(number) => onggi_sys::spawn::take_inherited(number),
        None => onggi_sys::unix::connect(at),
    };
    connected.map_err(|e| {
        let failure = StartFailureError::from_sys(format!("connect to the {what}"), &e);
        failure.hint("the caller makes a stream socket there and listens on it before it calls").into()
    })
}

/// Absolute, and as it was given: states and hooks name it as their caller does, links and all.
fn bundle(args: &Args) -> Result<PathBuf, CliError> {
    let given = args.path("bundle").unwrap_or_else(|| PathBuf::from("."));
    let failed = |source| CliError::File { what: "open bundle", path: given.clone(), source };
    let real = fs::canonicalize(&given).map_err(failed)?;
    let up = given.components().any(|c| c == std::path::Component::ParentDir);
    if up { Ok(real) } else { std::path::absolute(&given).map_err(failed) }
}

/// Reads and parses the configuration of a bundle; returns its text too.
fn read_config(bundle: &Path, other: Option<&Path>) -> Result<(Spec, Vec<u8>), CliError> {
    let path = bundle.join(other.unwrap_or(Path::new("config.json")));
    // What the caller names itself may be a pipe; that of a bundle is a file.
    let read = if other.is_some() { read_document } else { read_file };
    let text = match read(&path) {
        Err(CliError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(CliError::Missing { name, bundle: bundle.to_path_buf() });
        }
        r => r?,
    };
    Ok((Spec::from_slice(&text)?, text))
}

/// A file of the caller, of a bounded size. It may be a pipe.
pub(super) fn read_document(path: &Path) -> Result<Vec<u8>, CliError> {
    let file = fs::File::open(path).map_err(|source| unreadable(path, source))?;
    read_bounded(path, file)
}

fn unreadable(path: &Path, source: std::io::Error) -> CliError {
    CliError::File { what: "read", path: path.to_path_buf(), source }
}

/// The same of an ordinary file alone: a pipe in its place would never end, a device never answer.
fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let opened = fs::OpenOptions::new().read(true).custom_flags(no_wait).open(path);
    let file = opened.map_err(|source| unreadable(path, source))?;
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        let reason = "it is not an ordinary file";
        return Err(ParseError::new("OCI runtime configuration", &path.display().to_string(), reason).into());
    }
    read_bounded(path, file)
}

fn read_bounded(path: &Path, file: fs::File) -> Result<Vec<u8>, CliError> {
    let failed = |source| unreadable(path, source);
    match onggi_sys::small_file::read_open(file, MAX_DOCUMENT) {
        Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
            let reason = format!("more than the limit of {MAX_DOCUMENT} bytes");
            Err(ParseError::new("document", &path.display().to_string(), reason).into())
        }
        r => r.map_err(failed),
    }
}

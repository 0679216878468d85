//! The starter: a short-lived copy of the monitor that does what needs memory. It reads the bundle, claims
//! the container's runtime directory, opens log, socket and stdio, makes the sandbox as a *sibling* of
//! itself (so that the monitor is the workload's parent), hands everything over and ends.
//!
//! If anything fails, what was made is removed again, the failure is recorded in `exit.json` and handed
//! over instead. It never outlives the monitor.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use onggi_sandbox::{CreateOptions, Created, Stdio};
use onggi_spec::{
    monitor::{ExitDetail, ExitRecord, MonitorConfig, StartFailure},
    oci::runtime::Spec,
};
use onggi_sys::{SysContext, SysError, process::exit_now, unix};
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    pipe::PipeFlags,
    process::Pid,
};

use super::{
    ATTACH_SOCKET, LOCK_FILE, PID_FILE,
    clock::now_ns,
    exit,
    handover::{self, Handover, List},
    log, report,
    serve::Descriptors,
};

/// Largest `onggi.json`: a few hundred overlay layers with long paths.
const MAX_MONITOR_CONFIG: u64 = 4 * 1024 * 1024;

/// Largest `config.json` read; the parser has its own, lower limit.
const MAX_CONFIG: u64 = 64 * 1024 * 1024;

/// Wanted size of the output pipes: the limit of an unprivileged pipe (pipe(7)).
const PIPE_SIZE: usize = 1024 * 1024;

/// Attach connections that may wait to be accepted.
const BACKLOG: i32 = 64;

const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();

/// Exit code of everything that goes wrong before the workload's own program is the reason.
const ENGINE_FAILED: i32 = 125;

/// Descriptors that the engine handed down.
#[derive(Debug)]
pub(super) struct Inherited {
    /// The container's network namespace.
    pub(super) netns: Option<OwnedFd>,
    /// `monitor.lock`, locked by the engine before this program was started.
    pub(super) lock: Option<OwnedFd>,
}

/// Runs the starter and ends the process.
pub(super) fn run(bundle: &Path, inherited: Inherited, channel: OwnedFd, monitor: Pid) -> ! {
    // The monitor blocks and ignores signals for its own purposes; the workload must not inherit that.
    onggi_sys::signal::reset_all();
    let _ = onggi_sys::process::set_parent_death_signal(SIGKILL);
    if rustix::process::getppid() != Some(monitor) {
        // It died before the signal was asked for.
        exit_now(ENGINE_FAILED);
    }
    let sent = match read_monitor_config(bundle) {
        Ok(config) => start(bundle, &config, inherited, &channel),
        Err(failure) => send_failure(&channel, None, &failure),
    };
    exit_now(i32::from(sent.is_err()))
}

/// Makes the sandbox and hands it over, or undoes everything and hands over why not.
fn start(bundle: &Path, config: &MonitorConfig, inherited: Inherited, channel: &OwnedFd) -> onggi_sys::Result<()> {
    let lock = match claim(&config.run_dir, inherited.lock) {
        Ok(lock) => lock,
        // Somebody else's container: nothing of it may be touched.
        Err(failure) => return send_failure(channel, Some(config), &failure),
    };
    match create(bundle, config, inherited.netns, lock) {
        Ok(started) => send_started(channel, config, &started),
        Err(failure) => {
            for name in [ATTACH_SOCKET, PID_FILE] {
                let _ = std::fs::remove_file(config.run_dir.join(name));
            }
            record_failure(&config.exit_file, &failure);
            send_failure(channel, Some(config), &failure)
        }
    }
}

/// A running workload and what belongs to it.
struct Started {
    fds: Descriptors,
    created: CreatedFacts,
    terminal: bool,
    at: i64,
}

struct CreatedFacts {
    pid: i32,
    notes: Vec<String>,
    cgroups: onggi_cgroup::Paths,
}

fn create(
    bundle: &Path,
    config: &MonitorConfig,
    netns: Option<OwnedFd>,
    lock: OwnedFd,
) -> Result<Started, StartFailure> {
    let spec = read_spec(bundle)?;
    let terminal = spec.process.as_ref().is_some_and(|p| p.terminal);
    let log = log::open(&config.log.path).map_err(|e| failure("open the log file", &e))?;
    let listener = listen(&config.run_dir).map_err(|e| failure("listen for attach clients", &e))?;
    let (ours, theirs) = stdio(terminal, config.interactive).map_err(|e| failure("make the stdio pipes", &e))?;
    let options = CreateOptions {
        executable: None,
        id: config.id.to_string(),
        bundle: bundle.to_owned(),
        state_root: config.oci_root.clone(),
        config: spec,
        rootfs: config.rootfs.clone(),
        stdio: theirs,
        netns,
        init: config.init,
        sibling: true,
        die_with_parent: true,
        wait_for_start: false,
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
        pid_file: None,
        cgroup_driver: onggi_sandbox::CgroupDriver::Lean,
        rootless: None,
        config_text: None,
        pidfd_socket: None,
        notify: false,
    };
    let created = onggi_sandbox::create(options).map_err(StartFailure::from)?;
    let at = now_ns();
    let Created { pid, pidfd, console_master, state, notes, filter_flags: _, remains } = created;
    // The starter ends soon.
    std::mem::forget(remains);
    let ours = match console_master {
        Some(master) => terminal_ends(master).map_err(|e| failure("use the terminal", &e))?,
        None => ours,
    };
    let fds = Descriptors {
        workload: pidfd,
        lock,
        listener,
        log,
        stdin: ours.stdin,
        stdout: ours.stdout,
        stderr: ours.stderr,
    };
    Ok(Started { fds, created: CreatedFacts { pid, notes, cgroups: state.cgroup_paths }, terminal, at })
}

/// Takes the lock that says that this container has a monitor, unless the engine has handed it down, and
/// leaves the monitor's pid.
fn claim(run_dir: &Path, given: Option<OwnedFd>) -> Result<OwnedFd, StartFailure> {
    let lock = match given {
        Some(lock) => lock,
        None => take_lock(run_dir)?,
    };
    let monitor = rustix::process::getppid().map_or(0, |p| p.as_raw_nonzero().get());
    let pid_file = run_dir.join(PID_FILE);
    std::fs::write(&pid_file, format!("{monitor}\n"))
        .sys("write", || format!("{pid_file:?}"))
        .map_err(|e| failure("write the monitor's pid", &e))?;
    Ok(lock)
}

fn take_lock(run_dir: &Path) -> Result<OwnedFd, StartFailure> {
    let path = run_dir.join(LOCK_FILE);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let shown = || format!("{path:?}");
    let lock = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
        .sys("open", shown)
        .map_err(|e| failure("open the monitor's lock", &e))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).sys("flock", shown).map_err(|e| {
        StartFailure { hint: "this container is already running".to_owned(), ..failure("take the monitor's lock", &e) }
    })?;
    Ok(lock)
}

fn listen(run_dir: &Path) -> onggi_sys::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(run_dir, flags, Mode::empty()).sys("open", || format!("{run_dir:?}"))?;
    unix::listen_at(dir.as_fd(), ATTACH_SOCKET, BACKLOG)
}

/// The monitor's ends of the workload's stdio.
#[derive(Default)]
struct OurEnds {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

fn stdio(terminal: bool, interactive: bool) -> onggi_sys::Result<(OurEnds, Stdio)> {
    if terminal {
        return Ok((OurEnds::default(), Stdio::Terminal { console_socket: None, bare_line_feeds: false }));
    }
    let (input, stdin) = if interactive {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        (rustix::fs::open("/dev/null", flags, Mode::empty()).sys("open", || "\"/dev/null\"")?, None)
    };
    let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
    for ours in [stdin.as_ref(), Some(&stdout), Some(&stderr)].into_iter().flatten() {
        set_nonblocking(ours)?;
    }
    for output in [&stdout, &stderr] {
        // A smaller pipe is only slower.
        let _ = rustix::pipe::fcntl_setpipe_size(output, PIPE_SIZE);
    }
    Ok((
        OurEnds { stdin, stdout: Some(stdout), stderr: Some(stderr) },
        Stdio::Fds { stdin: input, stdout: out, stderr: err },
    ))
}

fn pipe() -> onggi_sys::Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).sys("pipe2", || "O_CLOEXEC")
}

fn set_nonblocking(fd: &OwnedFd) -> onggi_sys::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd).sys("fcntl", || "F_GETFL")?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).sys("fcntl", || "F_SETFL")
}

/// The terminal is both ways; two descriptors keep the two sides apart in the monitor.
fn terminal_ends(master: OwnedFd) -> onggi_sys::Result<OurEnds> {
    set_nonblocking(&master)?;
    let stdin = rustix::io::fcntl_dupfd_cloexec(&master, 3).sys("fcntl", || "F_DUPFD_CLOEXEC")?;
    Ok(OurEnds { stdin: Some(stdin), stdout: Some(master), stderr: None })
}

fn send_started(channel: &OwnedFd, config: &MonitorConfig, started: &Started) -> onggi_sys::Result<()> {
    let facts = &started.created;
    let cgroups = handover::encode_list(
        facts.cgroups.iter().flat_map(|(controller, dir)| [controller.as_ref(), dir.as_os_str()]),
    );
    let (report, exit_command) =
        (report::started(facts.pid, &facts.notes), handover::encode_list(&config.exit_command));
    let state_dir = config.oci_root.join(config.id.as_str());
    let message = Handover {
        started: true,
        terminal: started.terminal,
        interactive: config.interactive,
        disposable: config.disposable,
        pid: facts.pid,
        owner: rustix::process::geteuid().as_raw(),
        started_at: started.at,
        max_size: config.log.max_size,
        max_files: config.log.max_files,
        log: &config.log.path,
        exit_file: &config.exit_file,
        run_dir: &config.run_dir,
        state_dir: &state_dir,
        report: &report,
        cgroups: List::encoded(&cgroups),
        exit_command: List::encoded(&exit_command),
        // A fresh cgroup has counted nothing; one that was there before may have.
        oom_before: onggi_cgroup::oom_count(&facts.cgroups).unwrap_or(0),
    };
    let sent = match handover::write(&message) {
        Some(bytes) => unix::send_with_fds(channel.as_fd(), &bytes, &started.fds.list()),
        None => Err(SysError::new("sendmsg", "paths too long", onggi_sys::Errno::MSGSIZE)),
    };
    if sent.is_err() {
        // A workload that nobody looks after must not live.
        let _ = onggi_sys::process::pidfd_kill(started.fds.workload.as_fd(), SIGKILL);
    }
    sent
}

fn send_failure(channel: &OwnedFd, config: Option<&MonitorConfig>, failure: &StartFailure) -> onggi_sys::Result<()> {
    let report = report::failed(failure);
    let exit_command = handover::encode_list(config.map_or(&[][..], |c| &c.exit_command));
    let nowhere = Path::new("");
    let message = Handover {
        started: false,
        terminal: false,
        interactive: false,
        disposable: false,
        pid: 0,
        owner: 0,
        started_at: 0,
        oom_before: 0,
        max_size: 0,
        max_files: 0,
        log: nowhere,
        exit_file: nowhere,
        run_dir: nowhere,
        state_dir: nowhere,
        report: &report,
        cgroups: List::default(),
        exit_command: List::encoded(&exit_command),
    };
    let bytes = handover::write(&message)
        .ok_or_else(|| SysError::new("sendmsg", "report too long", onggi_sys::Errno::MSGSIZE))?;
    unix::send_with_fds(channel.as_fd(), &bytes, &[])
}

/// The exit record of a container that could not be started.
fn record_failure(exit_file: &Path, failure: &StartFailure) {
    let now = now_ns();
    let record = ExitRecord {
        exit_code: failure.exit_code,
        started_at: now,
        finished_at: now,
        error: text(failure),
        detail: Some(Box::new(ExitDetail { failure: Some(failure.clone()), ..ExitDetail::default() })),
        ..ExitRecord::default()
    };
    if let Ok(bytes) = serde_json::to_vec(&record) {
        // The report tells the same; without a disk the record is missing.
        let _ = exit::write_atomically(exit_file, &bytes, exit::Sync::Yes);
    }
}

fn text(failure: &StartFailure) -> String {
    match failure.errno {
        0 => failure.step.clone(),
        errno => format!("{}: {}: {}", failure.step, failure.call, onggi_sys::error::describe(errno)),
    }
}

fn read_monitor_config(bundle: &Path) -> Result<MonitorConfig, StartFailure> {
    let path = bundle.join("onggi.json");
    let bytes = read_bounded(&path, MAX_MONITOR_CONFIG)?;
    serde_json::from_slice(&bytes).map_err(|e| malformed(&path, &e.to_string()))
}

fn read_spec(bundle: &Path) -> Result<Spec, StartFailure> {
    let path = bundle.join("config.json");
    let bytes = read_bounded(&path, MAX_CONFIG)?;
    Spec::from_slice(&bytes).map_err(|e| malformed(&path, &e.to_string()))
}

fn read_bounded(path: &PathBuf, limit: u64) -> Result<Vec<u8>, StartFailure> {
    let step = || format!("read {}", path.display());
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|f| f.take(limit + 1).read_to_end(&mut bytes));
    read.sys("read", || format!("{path:?}")).map_err(|e| failure(&step(), &e))?;
    if bytes.len() as u64 > limit {
        return Err(malformed(path, &format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

fn malformed(path: &Path, reason: &str) -> StartFailure {
    StartFailure {
        step: format!("read {}: {reason}", path.display()),
        call: String::new(),
        errno: 0,
        exit_code: ENGINE_FAILED,
        hint: String::new(),
        in_container: false,
    }
}

/// A failure of our own steps.
pub(super) fn failure(step: &str, error: &SysError) -> StartFailure {
    StartFailure {
        step: step.to_owned(),
        call: format!("{}({})", error.call, error.object),
        errno: error.raw(),
        exit_code: ENGINE_FAILED,
        hint: String::new(),
        in_container: false,
    }
}

/// The failure when the starter ended without saying anything.
pub(super) fn interrupted() -> StartFailure {
    StartFailure {
        step: "start the container: the starter was killed".to_owned(),
        call: String::new(),
        errno: 0,
        exit_code: ENGINE_FAILED,
        hint: "look for the OOM killer in the kernel log (dmesg)".to_owned(),
        in_container: false,
    }
}

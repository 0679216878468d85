//! create, run, start, kill, delete, pause, resume.

use std::{
    ffi::OsString,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use onggi_sandbox::{CreateOptions, Created, Stdio};
use onggi_spec::{monitor::RootFs, oci::runtime::Spec};

use super::{
    Context, Failure,
    args::{self, Opt, Parsed, flag, value},
    check_id, foreground, only_id, read_json,
};

/// A configuration larger than this is refused (I12); real ones with a full seccomp profile have 100 KiB.
pub(crate) const MAX_CONFIG: u64 = 16 * 1024 * 1024;
/// SIGTERM.
const SIGTERM: i32 = 15;

const CREATE: [Opt; 9] = [
    value("bundle", Some('b')),
    value("console-socket", None),
    value("pid-file", None),
    value("preserve-fds", None),
    value("pidfd-socket", None),
    flag("no-pivot", None),
    flag("no-new-keyring", None),
    flag("detach", Some('d')),
    flag("keep", None),
];

pub(crate) fn create(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let parsed = args::parse(rest, &CREATE[..7])?;
    make(context, &parsed, Mode::Create)?;
    Ok(0)
}

pub(crate) fn run(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let parsed = args::parse(rest, &CREATE)?;
    let mode = if parsed.has("detach") { Mode::Detached } else { Mode::Foreground };
    let created = make(context, &parsed, mode)?;
    if mode == Mode::Detached {
        return Ok(0);
    }
    let code = foreground::stay(created.pidfd.as_fd(), created.console_master);
    if !parsed.has("keep") {
        onggi_sandbox::delete(&context.root, &created.state.id, true)?;
    }
    code.map_err(|e| Failure::new(format!("wait for the container: {e}")))
}

/// Which verb makes the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Create,
    Foreground,
    Detached,
}

fn make(context: &Context, parsed: &Parsed, mode: Mode) -> Result<Created, Failure> {
    let id = only_id(parsed)?;
    let bundle = absolute(parsed.get("bundle").map_or(Path::new("."), Path::new))?;
    let config: Spec = read_json(&bundle.join("config.json"), MAX_CONFIG)?;
    let terminal = config.process.as_ref().is_some_and(|p| p.terminal);
    let stdio = stdio(terminal, parsed.text("console-socket").as_deref(), mode != Mode::Foreground)?;
    let options = CreateOptions {
        id,
        bundle,
        state_root: context.root.clone(),
        config,
        rootfs: RootFs::Path,
        stdio,
        netns: None,
        init: false,
        die_with_parent: false,
        wait_for_start: mode == Mode::Create,
        sibling: false,
        preserve_fds: preserve_fds(parsed)?,
        no_pivot: parsed.has("no-pivot"),
        pid_file: parsed.get("pid-file").map(PathBuf::from),
        systemd_cgroup: context.systemd_cgroup,
    };
    let created = onggi_sandbox::create(options)?;
    if let Some(path) = parsed.get("pidfd-socket") {
        send_pidfd(Path::new(path), &created.pidfd)?;
    }
    Ok(created)
}

/// Where the process's streams go. `socket` is required when nobody stays to copy a terminal.
pub(crate) fn stdio(terminal: bool, socket: Option<&str>, detached: bool) -> Result<Stdio, Failure> {
    match (terminal, socket) {
        (false, None) => Ok(Stdio::Inherit),
        (false, Some(_)) => Err(Failure::new("--console-socket is only for a process with a terminal")),
        (true, None) if detached => Err(Failure::new("a detached process with a terminal needs --console-socket")),
        (true, None) => Ok(Stdio::Terminal { console_socket: None }),
        (true, Some(path)) => Ok(Stdio::Terminal { console_socket: Some(connect(path)?) }),
    }
}

/// A path is connected to; `/proc/self/fd/N` is a socket that the caller has connected and handed down.
fn connect(path: &str) -> Result<OwnedFd, Failure> {
    let number = path.strip_prefix("/proc/self/fd/").and_then(|n| n.parse().ok());
    let socket = match number {
        Some(n) => onggi_sys::spawn::take_inherited(n),
        None => onggi_sys::unix::connect(Path::new(path)),
    };
    socket.map_err(|e| Failure::new(format!("open the console socket {path}: {e}")))
}

fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<(), Failure> {
    let failed = |e| Failure::new(format!("send the pidfd to {}: {e}", path.display()));
    let socket = onggi_sys::unix::connect(path).map_err(failed)?;
    onggi_sys::unix::send_with_fds(socket.as_fd(), b"pidfd", &[pidfd.as_fd()]).map_err(failed)
}

pub(crate) fn preserve_fds(parsed: &Parsed) -> Result<u32, Failure> {
    match parsed.text("preserve-fds") {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| Failure::new(format!("invalid --preserve-fds {text:?}: expected a number"))),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path).map_err(|e| Failure::new(format!("open the bundle {}: {e}", path.display())))
}

pub(crate) fn start(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let id = only_id(&args::parse(rest, &[])?)?;
    onggi_sandbox::start(&context.root, &id)?;
    Ok(0)
}

pub(crate) fn kill(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let parsed = args::parse(rest, &[flag("all", Some('a'))])?;
    let (id, signal) = match parsed.rest.as_slice() {
        [id] => (check_id(id)?, SIGTERM),
        [id, signal] => (check_id(id)?, parse_signal(&signal.to_string_lossy())?),
        _ => return Err(Failure::new("kill needs a container id and, at most, a signal")),
    };
    onggi_sandbox::kill(&context.root, &id, signal, parsed.has("all"))?;
    Ok(0)
}

fn parse_signal(text: &str) -> Result<i32, Failure> {
    onggi_sys::signal::parse(text).ok_or_else(|| Failure::new(format!("unknown signal {text:?}")))
}

pub(crate) fn delete(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let parsed = args::parse(rest, &[flag("force", Some('f'))])?;
    let id = only_id(&parsed)?;
    onggi_sandbox::delete(&context.root, &id, parsed.has("force"))?;
    Ok(0)
}

pub(crate) fn pause(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let id = only_id(&args::parse(rest, &[])?)?;
    onggi_sandbox::pause(&context.root, &id)?;
    Ok(0)
}

pub(crate) fn resume(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let id = only_id(&args::parse(rest, &[])?)?;
    onggi_sandbox::resume(&context.root, &id)?;
    Ok(0)
}

//! `create`, `run`, `start`.

use std::{
    ffi::OsString,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use onggi_sandbox::{CreateOptions, StartFailureError, Stdio};
use onggi_spec::{monitor::RootFs, oci::runtime::Spec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag},
    foreground, terminal,
};

const FLAGS: &[Flag] = &[
    Flag::value("bundle", "b"),
    Flag::value("console-socket", ""),
    Flag::value("pid-file", ""),
    Flag::value("preserve-fds", ""),
    Flag::switch("no-pivot", ""),
    Flag::switch("no-new-keyring", ""),
    Flag::switch("detach", "d"),
    Flag::switch("keep", ""),
    Flag::switch("no-subreaper", ""),
    Flag::switch("init", ""),
];

/// Whether the program waits for `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Later,
    Now,
}

pub(super) fn create(global: &Global, words: &[OsString]) -> Outcome {
    let args = Args::parse(words, FLAGS)?;
    let options = options(global, &args, Begin::Later)?;
    if options.config.process.as_ref().is_some_and(|p| p.terminal) && args.path("console-socket").is_none() {
        return Err(CliError::Usage("process.terminal is set: --console-socket is needed".into()));
    }
    let created = onggi_sandbox::create(options)?;
    global.log.notes(&created.notes);
    Ok(0)
}

pub(super) fn run(global: &Global, words: &[OsString]) -> Outcome {
    let args = Args::parse(words, FLAGS)?;
    let id = args.id()?;
    let detach = args.is("detach");
    let mut options = options(global, &args, Begin::Now)?;
    let tty = options.config.process.as_ref().is_some_and(|p| p.terminal);
    let relayed = tty && args.path("console-socket").is_none();
    if relayed && detach {
        return Err(CliError::Usage("process.terminal is set: --detach needs --console-socket".into()));
    }
    if relayed {
        terminal::inherit_size(options.config.process.as_mut());
    }
    options.die_with_parent = false;
    let created = onggi_sandbox::create(options)?;
    global.log.notes(&created.notes);
    if detach {
        return Ok(0);
    }
    let code = match created.console_master {
        Some(master) => terminal::relay(&created.pidfd, master)?,
        None => foreground::wait(&created.pidfd)?,
    };
    if !args.is("keep") {
        let notes = onggi_sandbox::delete(&global.root, &id, true)?;
        global.log.notes(&notes);
    }
    Ok(code)
}

pub(super) fn start(global: &Global, words: &[OsString]) -> Outcome {
    let args = Args::parse(words, &[])?;
    let notes = onggi_sandbox::start(&global.root, &args.id()?)?;
    global.log.notes(&notes);
    Ok(0)
}

fn options(global: &Global, args: &Args, begin: Begin) -> Result<CreateOptions, CliError> {
    let bundle = bundle(args)?;
    let config = read_config(&bundle)?;
    let terminal = config.process.as_ref().is_some_and(|p| p.terminal);
    let preserve_fds = args.number("preserve-fds")?.unwrap_or(0);
    close_on_exec(preserve_fds)?;
    Ok(CreateOptions {
        id: args.id()?,
        state_root: global.root.clone(),
        config,
        rootfs: RootFs::Path,
        stdio: stdio(terminal, args)?,
        netns: None,
        init: args.is("init"),
        die_with_parent: false,
        wait_for_start: begin == Begin::Later,
        sibling: false,
        preserve_fds,
        no_pivot: args.is("no-pivot"),
        no_new_keyring: args.is("no-new-keyring"),
        pid_file: args.path("pid-file"),
        systemd_cgroup: global.systemd_cgroup,
        bundle,
    })
}

/// Hooks inherit nothing but their streams.
fn close_on_exec(preserve_fds: u32) -> Result<(), CliError> {
    let first = preserve_fds.saturating_add(3);
    let marked = onggi_sys::process::cloexec_from(first);
    marked.map_err(|e| StartFailureError::from_sys("mark inherited descriptors close-on-exec", &e).into())
}

/// The streams of a verb that starts a process.
pub(super) fn stdio(terminal: bool, args: &Args) -> Result<Stdio, CliError> {
    match (terminal, args.path("console-socket")) {
        (false, _) => Ok(Stdio::Inherit),
        (true, None) => Ok(Stdio::Terminal { console_socket: None }),
        (true, Some(at)) => Ok(Stdio::Terminal { console_socket: Some(connect(&at)?) }),
    }
}

/// `/proc/self/fd/N` is a connected socket that our parent handed down: such a path can be opened by nobody
/// (a socket has no file behind it), so it is taken by its number.
/// By path, or `/proc/self/fd/N` for a socket that is connected already.
fn connect(at: &Path) -> Result<OwnedFd, CliError> {
    let number = at.to_str().and_then(|s| s.strip_prefix("/proc/self/fd/")).and_then(|n| n.parse().ok());
    if let Some(number) = number {
        let taken = onggi_sys::spawn::take_inherited(number);
        return taken.map_err(|e| StartFailureError::from_sys("take the console socket", &e).into());
    }
    let file = |e: rustix::io::Errno| CliError::File {
        what: "connect to console socket",
        path: at.to_path_buf(),
        source: e.into(),
    };
    let inherited = at.strip_prefix("/proc/self/fd").ok().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
    if let Some(number) = inherited {
        return onggi_sys::spawn::take_inherited(number).map_err(|e| file(e.errno));
    }
    let fd =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(file)?;
    let address = SocketAddrUnix::new(at).map_err(file)?;
    rustix::net::connect(&fd, &address).map_err(file)?;
    Ok(fd)
}

fn bundle(args: &Args) -> Result<PathBuf, CliError> {
    let given = args.path("bundle").unwrap_or_else(|| PathBuf::from("."));
    fs::canonicalize(&given).map_err(|source| CliError::File { what: "open bundle", path: given, source })
}

/// Reads and parses `config.json` of a bundle.
pub(super) fn read_config(bundle: &Path) -> Result<Spec, CliError> {
    let path = bundle.join("config.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(CliError::File { what: "read", path, source }),
    };
    Ok(Spec::from_slice(&bytes)?)
}

//! runc's command line: global options, verbs, errors where engines look for them.

mod args;
mod exec;
mod foreground;
mod log;
mod protect;
mod show;
mod verbs;

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
};

use args::{Opt, Parsed, flag, value};
use log::Log;
use onggi_sandbox::StartFailureError;

/// Options before the verb.
const GLOBAL: [Opt; 8] = [
    value("root", None),
    value("log", None),
    value("log-format", None),
    value("rootless", None),
    flag("systemd-cgroup", None),
    flag("debug", None),
    flag("help", Some('h')),
    flag("version", Some('v')),
];

/// runc's exit code of a runtime error.
const EXIT_FAILURE: i32 = 1;

const USAGE: &str = "\
onggi-oci - an OCI runtime

usage: onggi-oci [--root DIR] [--log FILE] [--log-format text|json] [--systemd-cgroup] [--debug] VERB [options]

verbs:
  create   make a container that waits for start      --bundle --console-socket --pid-file --no-pivot --preserve-fds
  run      make and start a container                 as create, and --detach --keep
  start    start a created container
  state    print a container's state as JSON
  kill     ID [SIGNAL]: signal the first process      --all
  delete   remove a stopped container                 --force
  exec     ID CMD...: a further process               --process --cwd --env --user --tty --detach --pid-file ...
  list     print containers                           --format table|json, --quiet
  ps       ID: print a container's processes          --format table|json
  pause, resume    freeze and thaw
  features print what this runtime supports as JSON
  spec     write a config.json to start from          --bundle
  plan     print the operations for a configuration on stdin   --format words|json|sh
";

/// What every verb is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// `--root`.
    root: PathBuf,
    /// `--systemd-cgroup`.
    systemd_cgroup: bool,
}

/// A verb that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: String,
    code: i32,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: String::new(), code: EXIT_FAILURE }
    }

    pub(crate) fn code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<StartFailureError> for Failure {
    fn from(e: StartFailureError) -> Self {
        Self { message: e.to_string(), hint: e.0.hint, code: EXIT_FAILURE }
    }
}

/// Runs one command line and returns the exit code.
pub(crate) fn run(args: &[OsString]) -> i32 {
    let global = match args::parse(args.get(1..).unwrap_or_default(), &GLOBAL) {
        Ok(global) => global,
        Err(message) => return report(&Log::default(), &Failure::new(message)),
    };
    let log = match Log::new(global.get("log"), global.text("log-format").as_deref()) {
        Ok(log) => log,
        Err(message) => return report(&Log::default(), &Failure::new(message)),
    };
    match dispatch(args, &global) {
        Ok(code) => code,
        Err(failure) => report(&log, &failure),
    }
}

fn dispatch(args: &[OsString], global: &Parsed) -> Result<i32, Failure> {
    let verb = global.rest.first().map(|v| v.to_string_lossy().into_owned());
    if global.has("version") || verb.as_deref() == Some("version") {
        return print(&show::version());
    }
    let Some(verb) = verb.filter(|v| v != "help" && !global.has("help")) else { return print(USAGE) };
    let context = Context {
        root: global.get("root").map_or_else(default_root, PathBuf::from),
        systemd_cgroup: global.has("systemd-cgroup"),
    };
    let rest = &global.rest[1..];
    if matches!(verb.as_str(), "create" | "run" | "exec") {
        protect::executable(args)?;
    }
    match verb.as_str() {
        "create" => verbs::create(&context, rest),
        "run" => verbs::run(&context, rest),
        "start" => verbs::start(&context, rest),
        "kill" => verbs::kill(&context, rest),
        "delete" => verbs::delete(&context, rest),
        "pause" => verbs::pause(&context, rest),
        "resume" => verbs::resume(&context, rest),
        "exec" => exec::exec(&context, rest),
        "state" => show::state(&context, rest),
        "list" => show::list(&context, rest),
        "ps" => show::ps(&context, rest),
        "features" => show::features(rest),
        "spec" => show::spec(rest),
        "plan" => show::plan(rest),
        other => Err(Failure::new(format!("no such verb: {other} (try onggi-oci --help)"))),
    }
}

/// `/run/onggi-oci`, or below `$XDG_RUNTIME_DIR` for an ordinary user.
fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
    own.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join("onggi-oci")
}

/// The only positional of most verbs: the container's id.
pub(crate) fn only_id(parsed: &Parsed) -> Result<String, Failure> {
    match parsed.rest.as_slice() {
        [id] => check_id(id),
        [] => Err(Failure::new("a container id is required")),
        _ => Err(Failure::new("exactly one container id is required")),
    }
}

/// runc's grammar of ids, which also makes them safe path components (I9).
pub(crate) fn check_id(id: &OsString) -> Result<String, Failure> {
    let text = id.to_string_lossy();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
    if text.is_empty() || text.len() > 1024 || matches!(&*text, "." | "..") || !text.bytes().all(allowed) {
        return Err(Failure::new(format!("invalid container id {text:?}: only letters, digits, '_', '+', '-' and '.' are allowed")));
    }
    Ok(text.into_owned())
}

/// Prints to stdout; a reader that has gone is no error of the verb.
pub(crate) fn print(text: &str) -> Result<i32, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(format!("write to stdout: {e}"))),
        _ => Ok(0),
    }
}

fn report(log: &Log, failure: &Failure) -> i32 {
    log.error(&failure.message);
    let mut err = std::io::stderr().lock();
    // Without a stderr there is nobody left to tell.
    let _ = writeln!(err, "onggi-oci: {}", failure.message);
    if !failure.hint.is_empty() {
        let _ = writeln!(err, "hint: {}", failure.hint);
    }
    failure.code
}

/// Opens and parses a JSON document of at most `limit` bytes.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, limit: u64) -> Result<T, Failure> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|e| Failure::new(format!("read {}: {e}", path.display())))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::new(format!("{} is larger than {limit} bytes", path.display())));
    }
    serde_json::from_slice(&bytes).map_err(|e| Failure::new(format!("parse {}: {e}", path.display())))
}

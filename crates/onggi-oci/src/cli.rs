//! The OCI runtime's command line: runc's verbs and flags (runtime-tools command-line interface).
//!
//! Translates arguments into calls of `onggi_sandbox` and results into output and exit codes. Errors go to
//! stderr and, for the engine that called, to `--log` in the format it asked for.

mod args;
mod checkpoint;
mod create;
mod events;
mod exec;
mod features;
mod foreground;
mod help;
mod inspect;
mod list;
mod log;
mod notify;
mod plan;
mod ps;
mod readonly;
mod spec;
mod terminal;
mod update;
mod verbs;

use std::{cell::RefCell, ffi::OsString, os::fd::OwnedFd, path::PathBuf};

use onggi_sandbox::{CgroupDriver, StartFailureError};

use args::{Args, Flag};
use verbs::Verb;

/// Result of a verb: its exit code.
type Outcome = Result<i32, CliError>;

/// runc's code for every failure that has none of its own.
const EXIT_FAILURE: i32 = 1;
/// runc's code for an `exec` whose process could not be started.
const EXIT_EXEC: i32 = 255;
/// runc's code for an unknown verb.
const EXIT_NO_VERB: i32 = 3;

/// What the verbs that make a container or a process in one write of heap and stack before they clone.
const EXPECTED_HEAP: usize = 64 << 10;
const EXPECTED_STACK: usize = 32 << 10;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A flag is wrong: the verb's help is shown as well.
    #[error("{0}")]
    Flags(String),
    /// There is no such verb.
    #[error("No help topic for '{0}'")]
    NoVerb(String),
    /// There is no such signal.
    #[error("unknown signal {0:?}")]
    Signal(String),
    /// The sandbox refused.
    #[error(transparent)]
    Sandbox(#[from] StartFailureError),
    /// A file of the caller could not be used.
    #[error("{what} {path:?}: {}", reason(.source))]
    File {
        /// What was done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A bundle has no configuration; the words are runc's.
    #[error("JSON specification file {name} not found in {}", .bundle.display())]
    Missing {
        /// The file.
        name: String,
        /// Where it should be.
        bundle: PathBuf,
    },
    /// A document of the caller is wrong.
    #[error("{0}")]
    Document(#[from] onggi_spec::ParseError),
    /// `create`, `run` or `exec` failed; the words are runc's.
    #[error("{prefix}: {}{source}", begun(.source, *.code))]
    Start {
        /// What failed.
        prefix: String,
        /// Why.
        source: Box<CliError>,
        /// runc's exit code of it.
        code: i32,
    },
}

impl CliError {
    fn exit_code(&self) -> i32 {
        match self {
            Self::NoVerb(_) => EXIT_NO_VERB,
            Self::Start { code, .. } => *code,
            _ => EXIT_FAILURE,
        }
    }

    /// Docker's code, for the engine that hands it on: 127 not found, 126 not executable, 125 everything else.
    fn engine_code(&self) -> i32 {
        match self {
            Self::Sandbox(e) => e.0.exit_code,
            Self::Start { source, .. } => source.engine_code(),
            _ => onggi_sandbox::EXIT_ENGINE,
        }
    }

    fn hint(&self) -> Option<&str> {
        let given = |hint: &'_ String| !hint.is_empty();
        match self {
            Self::Sandbox(e) if given(&e.0.hint) => Some(&e.0.hint),
            Self::Sandbox(e) => hint_of(e.0.errno),
            Self::Document(e) if given(&e.hint) => Some(&e.hint),
            Self::Document(_) => Some("`spec` writes a configuration that is right; `plan` shows what one means"),
            Self::File { what: "open bundle", .. } => Some("--bundle names the directory with config.json"),
            Self::File { what: "open log", .. } => Some("--log takes a file in a directory that exists"),
            Self::File { source, .. } => hint_of(source.raw_os_error().unwrap_or_default()),
            Self::Missing { .. } => Some("`spec` writes one; --bundle names its directory"),
            Self::Start { source, .. } => source.hint(),
            Self::Signal(_) => Some("`kill -l` lists them; SIGTERM, TERM and 15 are the same"),
            Self::Usage(_) | Self::Flags(_) | Self::NoVerb(_) => None,
        }
    }
}

/// runc's words for a failure after the configuration was accepted; the program's own failures follow at once.
fn begun(source: &CliError, code: i32) -> &'static str {
    match source {
        CliError::Sandbox(e) if !e.0.in_container => "",
        CliError::Sandbox(e) if code == EXIT_EXEC || e.0.step.starts_with("exec") => {
            "unable to start container process: "
        }
        CliError::Sandbox(_) => "unable to start container process: error during container init: ",
        _ => "",
    }
}

/// The kernel's reason in the words that engines look for.
fn reason(e: &std::io::Error) -> String {
    e.raw_os_error().map_or_else(|| e.to_string(), onggi_sys::error::describe)
}

/// What helps against a reason whatever failed for it.
fn hint_of(errno: i32) -> Option<&'static str> {
    use onggi_sys::Errno;
    let is = |known: Errno| known.raw_os_error() == errno;
    if is(Errno::MFILE) {
        Some("raise the limit of open files of the caller (`ulimit -n`); 64 are enough")
    } else if is(Errno::NFILE) {
        Some("this machine has no open files left: raise fs.file-max")
    } else if is(Errno::NOSPC) || is(Errno::DQUOT) {
        Some("there is no space left where this was to be written")
    } else if is(Errno::NOMEM) {
        Some("there is no memory left for this, on the machine or in the caller's cgroup")
    } else {
        None
    }
}

/// Options before the verb.
#[derive(Debug)]
struct Global {
    root: PathBuf,
    /// `--root` was given: then it has to exist.
    root_given: bool,
    log: log::Log,
    cgroup_driver: CgroupDriver,
    /// `--rootless`; absent for `auto`.
    rootless: Option<bool>,
    /// `--quiet`: the caller is our engine. It reads the log alone and wants Docker's exit codes.
    engine: bool,
    /// The mount that this program was executed through, until somebody has time to close it.
    executable: RefCell<Option<OwnedFd>>,
}

const GLOBAL_FLAGS: &[Flag] = &[
    Flag::switch("debug", "").help("enable debug logging"),
    Flag::value("log", "").help("set the log file to write logs to (default is '/dev/stderr')"),
    Flag::value("log-format", "").help("set the log format ('text' (default), or 'json')"),
    Flag::value("log-level", ""),
    Flag::value("root", "").help("root directory for storage of container state (this should be located in tmpfs)"),
    Flag::value("criu", ""),
    Flag::switch("systemd-cgroup", "")
        .help("enable systemd cgroup support, expects cgroupsPath to be of form \"slice:prefix:name\""),
    // crun's name for the same choice.
    Flag::value("cgroup-manager", ""),
    Flag::value("rootless", "").help("ignore cgroup permission errors ('true', 'false', or 'auto')"),
    // For the engine, whose exec gives its container's stderr as ours: errors go to the log alone.
    Flag::switch("quiet", ""),
    Flag::switch("help", "h").help("show help"),
    Flag::switch("version", "v").help("print the version"),
];

/// Runs the program; returns its exit code.
pub(crate) fn run(argv: &[OsString]) -> i32 {
    let words = argv.get(1..).unwrap_or_default();
    let args = match Args::parse(words, GLOBAL_FLAGS) {
        Ok(args) => args,
        Err(e) => {
            log::print(&format!("Incorrect Usage. {e}\n\n{}", help::program_help()));
            log::Log::default().error(&e.to_string(), None);
            return e.exit_code();
        }
    };
    let log = match log::Log::open(&args) {
        Ok(log) => log,
        Err(e) => {
            log::Log::default().error(&e.to_string(), e.hint());
            return e.exit_code();
        }
    };
    finish(log, &args, argv)
}

fn finish(log: log::Log, args: &Args, argv: &[OsString]) -> i32 {
    if let Some(text) = information(args) {
        log::print(&text);
        return 0;
    }
    let global = match global(log, args) {
        Ok(global) => global,
        Err((log, e)) => {
            log.error(&e.to_string(), e.hint());
            return e.exit_code();
        }
    };
    match dispatch(&global, args.rest(), argv) {
        Ok(code) => code,
        Err(e) => {
            global.log.error(&e.to_string(), e.hint());
            if global.engine { e.engine_code() } else { e.exit_code() }
        }
    }
}

/// What is printed instead of running a verb.
fn information(args: &Args) -> Option<String> {
    if args.is("version") {
        return Some(help::version());
    }
    let bare = args.rest().first().is_none_or(|verb| (verb == "help" || verb == "h") && args.rest().len() == 1);
    (args.is("help") || bare).then(help::program_help)
}

fn global(log: log::Log, args: &Args) -> Result<Global, (log::Log, CliError)> {
    let rootless = match rootless(args) {
        Ok(rootless) => rootless,
        Err(e) => return Err((log, e)),
    };
    let root = match root(args) {
        Ok(root) => root,
        Err(e) => return Err((log, e)),
    };
    let cgroup_driver = match cgroup_driver(args) {
        Ok(driver) => driver,
        Err(e) => return Err((log, e)),
    };
    Ok(Global {
        root,
        root_given: args.has("root"),
        log,
        cgroup_driver,
        rootless,
        engine: args.is("quiet"),
        executable: RefCell::default(),
    })
}

/// runc's switch, or crun's choice: Podman gives `disabled` for `--cgroups disabled`.
fn cgroup_driver(args: &Args) -> Result<CgroupDriver, CliError> {
    match args.text("cgroup-manager").unwrap_or("cgroupfs") {
        "systemd" => Ok(CgroupDriver::Systemd),
        _ if args.is("systemd-cgroup") => Ok(CgroupDriver::Systemd),
        "cgroupfs" => Ok(CgroupDriver::Cgroupfs),
        "disabled" => Ok(CgroupDriver::Disabled),
        other => Err(CliError::Usage(format!(
            "--cgroup-manager {other:?}: unknown cgroup manager specified, it is 'cgroupfs', 'systemd' or 'disabled'"
        ))),
    }
}

/// Go's words for a switch, and `auto`.
fn rootless(args: &Args) -> Result<Option<bool>, CliError> {
    match args.text("rootless").unwrap_or("auto") {
        "auto" => Ok(None),
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
        other => Err(CliError::Usage(format!("--rootless {other:?}: invalid syntax, it is 'true', 'false' or 'auto'"))),
    }
}

/// Absolute: bind mounts and later processes name it, whatever their working directory.
fn root(args: &Args) -> Result<PathBuf, CliError> {
    if !args.has("root") {
        return Ok(default_root());
    }
    let given = args.path("root").unwrap_or_default();
    let root = std::path::absolute(&given).unwrap_or_default();
    if root.components().count() <= 1 {
        return Err(CliError::Usage(format!("option --root argument {given:?} should not be empty or /")));
    }
    Ok(root)
}

fn default_root() -> PathBuf {
    // The root of a user namespace is an ordinary user outside, who cannot write to /run.
    let real_root = rustix::process::geteuid().is_root() && !onggi_sandbox::in_user_namespace();
    if real_root {
        return PathBuf::from("/run/onggi-oci");
    }
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
    match dir {
        Some(dir) => dir.join("onggi-oci"),
        None if rustix::process::geteuid().is_root() => PathBuf::from("/run/onggi-oci"),
        None => std::env::temp_dir().join(format!("onggi-oci-{}", rustix::process::geteuid().as_raw())),
    }
}

fn dispatch(global: &Global, words: &[OsString], argv: &[OsString]) -> Outcome {
    let Some((name, rest)) = words.split_first() else { return Ok(0) };
    let asks_help = name == "help" || name == "h";
    let (name, rest) = if asks_help { (rest.first().unwrap_or(name), &[][..]) } else { (name, rest) };
    let verb = Verb::find(name).ok_or_else(|| CliError::NoVerb(name.to_string_lossy().into_owned()))?;
    if asks_help || help::is_asked(rest, verb) {
        log::print(&help::verb_help(verb));
        return Ok(0);
    }
    let args =
        Args::parse_ordered(rest, verb.flags, verb.order).and_then(|args| verb.check(args)).inspect_err(|e| {
            log::print(&format!("Incorrect Usage: {e}\n\n{}", help::verb_help(verb)));
        })?;
    // Only these come near a container's files.
    if matches!(verb.name, "create" | "run" | "exec") {
        readonly::ensure(argv)?;
        global.executable.replace(onggi_sys::entry::take_executable());
        onggi_sys::resident::expect_writes(EXPECTED_HEAP, EXPECTED_STACK);
    }
    (verb.run)(global, &args)
}

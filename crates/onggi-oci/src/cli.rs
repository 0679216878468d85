//! The OCI runtime's command line: runc's verbs and flags (runtime-tools command-line interface).
//!
//! Translates arguments into calls of `onggi_sandbox` and results into output and exit codes. Errors go to
//! stderr and, for the engine that called, to `--log` in the format it asked for.

mod args;
mod create;
mod exec;
mod features;
mod foreground;
mod inspect;
mod log;
mod plan;
mod readonly;
mod spec;
mod terminal;

use std::{ffi::OsString, path::PathBuf};

use onggi_sandbox::{EXIT_ENGINE, StartFailureError};

use args::{Args, Flag};

/// Result of a verb: its exit code.
type Outcome = Result<i32, CliError>;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The sandbox refused.
    #[error(transparent)]
    Sandbox(#[from] StartFailureError),
    /// A file of the caller could not be used.
    #[error("{what} {path:?}: {source}")]
    File {
        /// What was done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A document of the caller is wrong.
    #[error("{0}")]
    Document(#[from] onggi_spec::ParseError),
}

impl CliError {
    fn exit_code(&self) -> i32 {
        match self {
            Self::Sandbox(e) => e.0.exit_code,
            _ => EXIT_ENGINE,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            Self::Sandbox(e) => Some(e.0.hint.as_str()).filter(|h| !h.is_empty()),
            Self::Document(e) => Some(e.hint.as_str()).filter(|h| !h.is_empty()),
            _ => None,
        }
    }
}

/// Options before the verb.
#[derive(Debug)]
struct Global {
    root: PathBuf,
    log: log::Log,
    systemd_cgroup: bool,
}

const GLOBAL_FLAGS: &[Flag] = &[
    Flag::value("root", ""),
    Flag::value("log", ""),
    Flag::value("log-format", ""),
    Flag::value("rootless", ""),
    Flag::value("criu", ""),
    Flag::switch("debug", ""),
    // For the engine, whose exec gives its container's stderr as ours: errors go to the log alone.
    Flag::switch("quiet", ""),
    Flag::switch("systemd-cgroup", ""),
    Flag::switch("help", "h"),
    Flag::switch("version", "v"),
];

const USAGE: &str = "\
usage: onggi-oci [--root DIR] [--log FILE] [--log-format text|json] [--systemd-cgroup] VERB ...

  create   [-b BUNDLE] [--console-socket S] [--pid-file F] [--preserve-fds N] [--no-pivot] ID
  run      [-b BUNDLE] [-d] [--keep] [--init] [the flags of create] ID
  start    ID
  exec     [-t] [-d] [-u UID[:GID]] [-e K=V] [--cwd DIR] [-p process.json] [--pid-file F] ID COMMAND...
  kill     [-a] ID [SIGNAL]
  delete   [-f] ID
  state    ID
  list     [-q] [-f table|json]
  ps       [-f table|json] ID
  pause    ID
  resume   ID
  features
  spec     [-b BUNDLE] [--rootless]
  plan     [--format words|json|sh] < PLAN_REQUEST.json
";

/// Runs the program; returns its exit code.
pub(crate) fn run(argv: &[OsString]) -> i32 {
    let (global, verb) = match parse_global(argv) {
        Ok(parsed) => parsed,
        Err(e) => {
            log::Log::default().error(&e.to_string(), e.hint());
            return e.exit_code();
        }
    };
    let Some((verb, rest)) = verb else { return 0 };
    match dispatch(&global, &verb, rest, argv) {
        Ok(code) => code,
        Err(e) => {
            global.log.error(&e.to_string(), e.hint());
            e.exit_code()
        }
    }
}

type Parsed = (Global, Option<(String, Vec<OsString>)>);

fn parse_global(argv: &[OsString]) -> Result<Parsed, CliError> {
    let args = Args::parse(argv.get(1..).unwrap_or_default(), GLOBAL_FLAGS)?;
    let format = args.text("log-format").unwrap_or("text");
    let global = Global {
        root: args.path("root").unwrap_or_else(default_root),
        log: log::Log::new(args.path("log"), format, args.is("quiet"))?,
        systemd_cgroup: args.is("systemd-cgroup"),
    };
    if args.is("version") {
        log::print(&format!(
            "onggi-oci version {}\nspec: {}\n",
            env!("CARGO_PKG_VERSION"),
            onggi_spec::oci::runtime::OCI_VERSION
        ));
        return Ok((global, None));
    }
    let mut rest = args.rest().to_vec();
    if args.is("help") || rest.is_empty() || rest[0] == "help" {
        log::print(USAGE);
        return Ok((global, None));
    }
    let verb = rest.remove(0).into_string().map_err(|v| CliError::Usage(format!("unknown verb {v:?}")))?;
    Ok((global, Some((verb, rest))))
}

fn default_root() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/onggi-oci");
    }
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
    dir.unwrap_or_else(std::env::temp_dir).join("onggi-oci")
}

fn dispatch(global: &Global, verb: &str, rest: Vec<OsString>, argv: &[OsString]) -> Outcome {
    if rest.first().is_some_and(|a| a == "--help" || a == "-h") {
        log::print(USAGE);
        return Ok(0);
    }
    // Only these come near a container's files.
    if matches!(verb, "create" | "run" | "exec") {
        readonly::ensure(argv)?;
    }
    match verb {
        "create" => create::create(global, &rest),
        "run" => create::run(global, &rest),
        "start" => create::start(global, &rest),
        "exec" => exec::exec(global, &rest),
        "kill" => inspect::kill(global, &rest),
        "delete" => inspect::delete(global, &rest),
        "state" => inspect::state(global, &rest),
        "list" => inspect::list(global, &rest),
        "ps" => inspect::ps(global, &rest),
        "pause" => inspect::pause(global, &rest),
        "resume" => inspect::resume(global, &rest),
        "features" => features::features(),
        "spec" => spec::spec(&rest),
        "plan" => plan::plan(&rest),
        other => Err(CliError::Usage(format!("unknown verb {other:?}; see onggi-oci --help"))),
    }
}

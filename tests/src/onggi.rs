//! The program under test with a store of its own.
//!
//! ```text
//! /tmp/onggi-e2e-XXXXXX/root   --root
//! /tmp/onggi-e2e-XXXXXX/run    --runroot
//! /tmp/onggi-e2e-XXXXXX/home   HOME, so that no user's credentials are read
//! ```

use std::{
    collections::BTreeSet,
    env, fmt, fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::leaks::Snapshot;

/// No command of the tests may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A store, and the program that works on it.
pub struct Onggi {
    dir: TempDir,
    program: PathBuf,
    before: Snapshot,
    ids: Mutex<BTreeSet<String>>,
}

impl Default for Onggi {
    fn default() -> Self {
        Self::new()
    }
}

impl Onggi {
    /// A new empty store for the program as it is installed.
    pub fn new() -> Onggi {
        Self::with_program(installed("ONGGI_TEST_PREFIX", "dist").join("bin/onggi"))
    }

    /// A new empty store for the program that can be killed at named points.
    pub fn with_failpoints() -> Onggi {
        Self::with_program(installed("ONGGI_TEST_FAILPOINTS_PREFIX", "dist-failpoints").join("bin/onggi"))
    }

    fn with_program(program: PathBuf) -> Onggi {
        crate::isolation::refuse_outside_of_the_guest();
        assert!(program.is_file(), "{} is missing; `cargo xtask test` builds it", program.display());
        let dir = tempfile::Builder::new().prefix("onggi-e2e-").tempdir().expect("make a temporary directory");
        for name in ["root", "run", "home"] {
            fs::create_dir(dir.path().join(name)).expect("make a directory");
        }
        Onggi { dir, program, before: Snapshot::take(), ids: Mutex::default() }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The runtime beside it.
    pub fn runtime(&self) -> PathBuf {
        let prefix = self.program.parent().and_then(Path::parent).expect("the program is in a prefix");
        prefix.join("libexec/onggi/onggi-oci")
    }

    /// The test's temporary directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// `--runroot`.
    pub fn runroot(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The command with the store's options and a clean environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.root()).arg("--runroot").arg(self.runroot()).args(args);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.dir.path().join("home"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.finish(&mut self.command(args))
    }

    /// Runs a command made by [`Onggi::command`] to its end.
    pub fn finish(&self, command: &mut Command) -> Ran {
        let line = crate::onggi::line(command, &self.program);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start onggi");
        let ran = collect(child, line);
        self.note_ids(&ran.stdout);
        ran
    }

    /// Runs a command that must succeed; its output without the last line break.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout.trim_end().to_owned()
    }

    /// Remembers every container id that this store has had, for the look at the cgroups afterwards.
    fn note_ids(&self, stdout: &str) {
        let mut ids = self.ids.lock().expect("no test panics while it holds the ids");
        ids.extend(stdout.lines().filter(|line| is_id(line)).map(str::to_owned));
        let entries = fs::read_dir(self.root().join("containers")).into_iter().flatten().flatten();
        ids.extend(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }

    /// Asserts that no container is left, and nothing that one may have owned.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let ran = self.run(&["ps", "-a", "-q", "--no-trunc"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "containers are left: {ran}");
        let ids = self.ids.lock().expect("no test panics while it holds the ids").clone();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = Snapshot::take().left_behind(&self.before, &self.root(), &self.runroot(), &ids);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n  {}", left.join("\n  "));
            thread::sleep(Duration::from_millis(50));
        }
    }
}

pub(crate) fn installed(variable: &str, directory: &str) -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(directory);
    env::var_os(variable).map_or_else(beside, PathBuf::from)
}

fn is_id(line: &str) -> bool {
    line.len() == 64 && line.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The command as a user would type it.
fn line(command: &Command, program: &Path) -> String {
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    let skip = if args.first().is_some_and(|first| first == "--root") { 4 } else { 0 };
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    format!("{name} {}", args[skip..].join(" "))
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// As a user would type it.
    pub line: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` ended with {:?}", self.line, self.code)?;
        writeln!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout.trim_end(), self.stderr.trim_end())
    }
}

/// Waits for a child whose two streams are pipes.
///
/// # Panics
/// When it takes too long, or when a descendant keeps its output open: `id=$(onggi run -d …)` would hang.
pub fn collect(mut child: Child, line: String) -> Ran {
    let stdout = read_in_background(child.stdout.take().expect("stdout is a pipe"));
    let stderr = read_in_background(child.stderr.take().expect("stderr is a pipe"));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for the command") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let text = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
            panic!("`{line}` takes longer than {PATIENCE:?}\n{text}");
        }
        thread::sleep(Duration::from_millis(2));
    };
    let text = |stream: mpsc::Receiver<String>| {
        let text = stream.recv_timeout(Duration::from_secs(3));
        text.unwrap_or_else(|_| panic!("`{line}` ended, but a process that it left holds its output open"))
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    Ran { line: line.clone(), code: status.code(), stdout, stderr }
}

fn read_in_background(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A read error ends the text; the assertions on it will tell.
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

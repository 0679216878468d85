//! onggi-oci, runc and crun behind one face: each instance has its own `--root` and `--log`, every command is
//! captured, and every container that an instance was told to make is gone when it is dropped.
//!
//! ```text
//! /tmp/onggi-runtime-XXXXXX/state      --root
//! /tmp/onggi-runtime-XXXXXX/log        --log, truncated before each command
//! /tmp/onggi-runtime-XXXXXX/no-input   stdin: an empty file
//! /tmp/onggi-runtime-XXXXXX/N.out,err  the streams of the Nth command, and of the container that it made
//! ```
//! Streams are files, not pipes: what a container that lives on prints later arrives in them as well.
//!
//! crun 1.8 refuses the hybrid cgroup layout, so it runs in a mount namespace without the v2 hierarchy.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fmt, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Bundle, Ran, onggi::installed};

/// No command of the tests may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a kernel needs to take a container down.
const SETTLE: Duration = Duration::from_secs(10);

/// Hides the v2 hierarchy of a hybrid layout from the program that it becomes.
const WITHOUT_UNIFIED: &str =
    r#"[ ! -e /sys/fs/cgroup/unified/cgroup.procs ] || umount /sys/fs/cgroup/unified || exit 125; exec "$@""#;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A runtime program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runtime {
    /// Ours, as installed below `ONGGI_TEST_PREFIX`.
    Onggi,
    /// Debian's runc.
    Runc,
    /// Debian's crun.
    Crun,
}

impl Runtime {
    /// All three, ours last.
    pub const ALL: [Runtime; 3] = [Runtime::Runc, Runtime::Crun, Runtime::Onggi];

    /// The program.
    ///
    /// # Panics
    /// When it is not there; the message says what installs it.
    pub fn program(self) -> PathBuf {
        let (path, origin) = match self {
            Runtime::Onggi => (onggi_oci(), "`cargo xtask test` builds it"),
            Runtime::Runc => (PathBuf::from("/usr/sbin/runc"), "Debian package runc"),
            Runtime::Crun => (PathBuf::from("/usr/bin/crun"), "Debian package crun"),
        };
        assert!(path.is_file(), "{} is missing ({origin})", path.display());
        path
    }

    /// The name as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Onggi => "onggi-oci",
            Runtime::Runc => "runc",
            Runtime::Crun => "crun",
        }
    }

    /// A new instance with nothing in it.
    pub fn instance(self) -> Instance {
        let program = self.program();
        let dir = tempfile::Builder::new().prefix("onggi-runtime-").tempdir().expect("make a temporary directory");
        // As /run is for users of a container: they may pass, not look.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("open the directory to others");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Unique on this machine also when the test has a PID namespace of its own.
        let unique = dir.path().file_name().unwrap_or_default().to_string_lossy().replace("onggi-runtime-", "");
        let tag = match self {
            Runtime::Onggi => "o",
            Runtime::Runc => "r",
            Runtime::Crun => "c",
        };
        let prefix = format!("onggi-{tag}{unique}{number}");
        Instance { runtime: self, program, dir, prefix, streams: AtomicU32::new(0), made: Mutex::default() }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn onggi_oci() -> PathBuf {
    // A development build can be tested without laying out an installation.
    let given = env::var_os("ONGGI_TEST_OCI").map(PathBuf::from);
    given.unwrap_or_else(|| installed("ONGGI_TEST_PREFIX", "dist").join("libexec/onggi/onggi-oci"))
}

/// A runtime with a state directory of its own.
pub struct Instance {
    runtime: Runtime,
    program: PathBuf,
    dir: TempDir,
    prefix: String,
    streams: AtomicU32,
    /// Id → the file with the container's standard output.
    made: Mutex<BTreeMap<String, PathBuf>>,
}

impl Instance {
    /// Which runtime this is.
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// A container id that no other instance uses: `name` with a unique prefix.
    pub fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// What every id of this instance begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The instance's temporary directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The command with this instance's `--root` and `--log` (JSON), a clean environment and an empty stdin.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let log = self.dir.path().join("log");
        let mut command = self.bare();
        command.arg("--root").arg(self.root()).arg("--log").arg(log).args(["--log-format", "json"]).args(args);
        command
    }

    /// The program without any argument.
    pub fn bare(&self) -> Command {
        let mut command = if self.runtime == Runtime::Crun {
            let mut wrapped = Command::new("unshare");
            wrapped.args(["-m", "sh", "-c", WITHOUT_UNIFIED, "sh"]).arg(&self.program);
            wrapped
        } else {
            Command::new(&self.program)
        };
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(self.no_input());
        command
    }

    /// An empty file, not /dev/null: runc and crun give their process's user what is at its stdin, and in a
    /// user namespace they would change the owner of the host's /dev/null.
    fn no_input(&self) -> Stdio {
        let path = self.dir.path().join("no-input");
        fs::write(&path, "").expect("write an empty file");
        fs::File::open(path).expect("open an empty file").into()
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.finish(&mut self.command(args))
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{}", self.explain(&ran));
        ran
    }

    /// Runs a command made by [`Instance::command`] to its end; its streams are captured.
    pub fn finish(&self, command: &mut Command) -> Ran {
        let stem = self.streams.fetch_add(1, Ordering::Relaxed).to_string();
        self.captured(command, &self.dir.path().join(stem))
    }

    fn captured(&self, command: &mut Command, stem: &Path) -> Ran {
        let (out, err) = (stem.with_extension("out"), stem.with_extension("err"));
        let open = |path: &Path| fs::File::options().create(true).append(true).open(path).expect("open a stream file");
        let line = self.line(command);
        let _ = fs::write(self.dir.path().join("log"), "");
        // A process group of its own: whatever a test signals, it is not the test.
        let spawned = command.stdout(open(&out)).stderr(open(&err)).process_group(0).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("start `{line}`: {error}"));
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait for the command") {
                break status;
            }
            if start.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                panic!("`{line}` takes longer than {PATIENCE:?}\n{}", text(&err));
            }
            thread::sleep(Duration::from_millis(1));
        };
        Ran { line, code: status.code(), stdout: text(&out), stderr: text(&err) }
    }

    fn line(&self, command: &Command) -> String {
        let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        let first = args.iter().position(|arg| arg == "json").map_or(0, |at| at + 1);
        format!("{} {}", self.runtime, args[first..].join(" "))
    }

    /// What the last command wrote to `--log`.
    pub fn log(&self) -> String {
        text(&self.dir.path().join("log"))
    }

    /// A command's outcome with its log, for messages of failed assertions.
    pub fn explain(&self, ran: &Ran) -> String {
        format!("{ran}--- log\n{}", self.log())
    }

    /// `run BUNDLE` in the foreground: the exit code and the streams are the container's.
    pub fn run_bundle(&self, bundle: &Bundle, id: &str) -> Ran {
        self.make(bundle, id, "run", &[])
    }

    /// `create`, `run` or another verb that takes `--bundle`, with more flags; the bundle is written first.
    pub fn make(&self, bundle: &Bundle, id: &str, verb: &str, flags: &[&str]) -> Ran {
        bundle.write();
        let stem = self.dir.path().join(format!("container-{id}"));
        self.made.lock().expect("no test panics while it holds the ids").insert(id.to_owned(), stem.clone());
        let mut command = self.command(&[verb, "--bundle"]);
        command.arg(bundle.path()).args(flags).arg(id);
        self.captured(&mut command, &stem)
    }

    /// `create`, which must succeed.
    #[track_caller]
    pub fn create(&self, bundle: &Bundle, id: &str) -> Ran {
        let ran = self.make(bundle, id, "create", &[]);
        assert_eq!(ran.code, Some(0), "{}", self.explain(&ran));
        ran
    }

    /// `create` and `start`, which must succeed.
    #[track_caller]
    pub fn start(&self, bundle: &Bundle, id: &str) {
        self.create(bundle, id);
        self.ok(&["start", id]);
    }

    /// Standard output of a container so far.
    pub fn stdout(&self, id: &str) -> String {
        let made = self.made.lock().expect("no test panics while it holds the ids");
        made.get(id).map(|stem| text(&stem.with_extension("out"))).unwrap_or_default()
    }

    /// Standard error of a container, and of the command that made it, so far.
    pub fn stderr(&self, id: &str) -> String {
        let made = self.made.lock().expect("no test panics while it holds the ids");
        made.get(id).map(|stem| text(&stem.with_extension("err"))).unwrap_or_default()
    }

    /// `exec ID ARGS`.
    pub fn exec(&self, id: &str, args: &[&str]) -> Ran {
        let mut all = vec!["exec", id];
        all.extend(args);
        self.run(&all)
    }

    /// The state document.
    #[track_caller]
    pub fn state(&self, id: &str) -> Value {
        let ran = self.ok(&["state", id]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("state is not JSON ({error}): {ran}"))
    }

    /// The status in the state document; `None` when there is no such container.
    pub fn status(&self, id: &str) -> Option<String> {
        let ran = self.run(&["state", id]);
        let state: Value = serde_json::from_str(&ran.stdout).ok()?;
        state["status"].as_str().map(str::to_owned)
    }

    /// The pid of the container's first process, as this test sees it.
    #[track_caller]
    pub fn pid(&self, id: &str) -> u32 {
        let state = self.state(id);
        let pid = state["pid"].as_u64().unwrap_or_else(|| panic!("no pid in {state}"));
        u32::try_from(pid).expect("a pid fits")
    }

    /// Waits until the container has this status.
    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str) {
        let what = format!("{} says that {id} is {status}", self.runtime);
        crate::eventually(&what, || (self.status(id).as_deref() == Some(status)).then_some(()));
    }

    /// Waits until the container has printed a text.
    #[track_caller]
    pub fn wait_stdout(&self, id: &str, piece: &str) -> String {
        let what = format!("the container {id} of {} prints {piece:?}", self.runtime);
        crate::eventually(&what, || Some(self.stdout(id)).filter(|text| text.contains(piece)))
    }

    /// Kills and deletes a container, whatever its state.
    pub fn remove(&self, id: &str) -> Ran {
        self.run(&["delete", "--force", id])
    }

    /// Cgroup directories that carry this instance's prefix.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        find_named(Path::new("/sys/fs/cgroup"), &self.prefix, 6, &mut found);
        found
    }

    fn clean_up(&self) -> Vec<String> {
        let ids: Vec<String> = self.made.lock().map(|made| made.keys().cloned().collect()).unwrap_or_default();
        for id in &ids {
            if self.root().join(id).exists() {
                self.remove(id);
            }
        }
        let mut left = Vec::new();
        let start = Instant::now();
        loop {
            let cgroups = self.cgroups();
            if cgroups.is_empty() {
                break;
            }
            // Children come after their parents in the list.
            for cgroup in cgroups.iter().rev() {
                kill_all(cgroup);
                if start.elapsed() > Duration::from_secs(1) {
                    left.push(cgroup.display().to_string());
                    let _ = fs::remove_dir(cgroup);
                }
            }
            if start.elapsed() > SETTLE {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        left
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let left = self.clean_up();
        // What runc or crun leaves behind is not ours to complain about.
        if self.runtime == Runtime::Onggi && !left.is_empty() && !thread::panicking() {
            panic!("cgroups are left behind: {left:?}");
        }
    }
}

/// Ends every process in a cgroup, thawed if it is frozen; a cgroup or process that is gone is as good.
fn kill_all(cgroup: &Path) {
    let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
    let _ = fs::write(cgroup.join("cgroup.freeze"), "0");
    for pid in text(&cgroup.join("cgroup.procs")).lines().filter_map(|pid| pid.parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn find_named(dir: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_string_lossy().contains(name) {
            found.push(entry.path());
        }
        if depth > 0 {
            find_named(&entry.path(), name, depth - 1, found);
        }
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

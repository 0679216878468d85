//! What all engines need: the runtimes, programs that must be there, daemons that end with their test,
//! terminals, and a look at what a container may leave behind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use onggi_tests::{Ran, eventually, image, isolated, onggi::collect};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// One runtime under an engine.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    /// What the engine calls it.
    pub(crate) name: &'static str,
    /// The program.
    pub(crate) path: PathBuf,
}

/// The control first: when it fails, the machine is at fault and not the program under test.
pub(crate) fn runtimes() -> [Runtime; 2] {
    [Runtime { name: "runc", path: program("runc", "runc") }, Runtime { name: "onggi", path: onggi_oci() }]
}

/// The installed program under test.
pub(crate) fn onggi_oci() -> PathBuf {
    onggi_tests::Runtime::Onggi.program()
}

/// A program of the system, where Debian puts them.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    let dirs = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing; it is in the Debian package {package}"))
}

/// A private machine with a short temporary directory (socket paths have 108 bytes) and a cgroup of its own.
pub(crate) struct Stage {
    dir: TempDir,
    cgroup: String,
    before: BTreeSet<String>,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        isolated();
        let dir = tempfile::Builder::new().prefix("onggi-cl-").tempdir().expect("make a temporary directory");
        let cgroup = dir.path().file_name().expect("it has a name").to_string_lossy().into_owned();
        let before = cgroup_paths(&cgroup);
        Stage { dir, cgroup, before }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The parent of every container's cgroup: `--cgroup-parent`.
    pub(crate) fn cgroup_parent(&self) -> String {
        format!("/{}", self.cgroup)
    }

    /// The archive of a small busybox system.
    pub(crate) fn image_tar(&self) -> PathBuf {
        let file = self.dir().join("box.tar");
        fs::write(&file, image::busybox_tree().finish()).expect("write the image's archive");
        file
    }

    /// Waits until no cgroup below the stage's and no mount below its directory is left, other than the mount
    /// points that the engine keeps for itself (`own`); then removes the stage's cgroup.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self, own: &[&str]) {
        let start = Instant::now();
        loop {
            let left: Vec<String> = self.leftovers(own);
            if left.is_empty() {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "left behind:\n  {}", left.join("\n  "));
            std::thread::sleep(Duration::from_millis(50));
        }
        self.remove_cgroups();
    }

    fn leftovers(&self, own: &[&str]) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        let now = cgroup_paths(&self.cgroup);
        // Podman makes `conmon` and keeps it.
        let kept = |path: &str| path.ends_with(&self.cgroup) || (path.ends_with("/conmon") && is_empty(path));
        left.extend(now.difference(&self.before).filter(|path| !kept(path)).cloned());
        let own: Vec<PathBuf> = own.iter().map(|path| self.dir().join(path)).collect();
        left.extend(mounts_below(self.dir()).filter(|point| !own.iter().any(|own| own == Path::new(point))));
        left
    }

    fn remove_cgroups(&self) {
        let mut paths: Vec<String> = cgroup_paths(&self.cgroup).into_iter().collect();
        paths.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in paths {
            // Still occupied only when the test has failed already; the kernel ends its processes.
            let _ = fs::remove_dir(path);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.remove_cgroups();
        self.remove_directory();
    }
}

impl Stage {
    /// A daemon that was killed has left mounts below, and a process of its own may still be writing there.
    fn remove_directory(&self) {
        let mut points: Vec<String> = mounts_below(self.dir()).collect();
        points.sort_by_key(|point| std::cmp::Reverse(point.len()));
        for point in points {
            // Gone with the one above it, perhaps.
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
        let start = Instant::now();
        while self.dir().exists() && start.elapsed() < Duration::from_secs(10) {
            // What came in the meantime is met in the next round.
            if fs::remove_dir_all(self.dir()).is_err() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn is_empty(cgroup: &str) -> bool {
    fs::read_to_string(Path::new(cgroup).join("cgroup.procs")).is_ok_and(|pids| pids.is_empty())
}

/// Every cgroup directory with this text in its path.
pub(crate) fn cgroup_paths(needle: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((dir, depth)) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if depth > 8 || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = entry.path();
            if path.to_string_lossy().contains(needle) {
                found.insert(path.to_string_lossy().into_owned());
            }
            todo.push((path, depth + 1));
        }
    }
    found
}

/// True where even root lacks some capability that the kernel knows, as in a container.
pub(crate) fn machine_withholds_capabilities() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("read our status");
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("read the last capability");
    let all = (2_u64 << last.trim().parse::<u32>().expect("a number")) - 1;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("a bounding set");
    u64::from_str_radix(bounding.trim(), 16).expect("a hexadecimal number") != all
}

/// Mount points below a directory.
fn mounts_below(dir: &Path) -> impl Iterator<Item = String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let points: Vec<String> = table.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect();
    points.into_iter().filter(move |point| Path::new(point).starts_with(dir))
}

/// Runs a command to its end, with both streams read.
pub(crate) fn run(command: &mut Command) -> Ran {
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    let line = format!("{} {}", command.get_program().to_string_lossy(), args.join(" "));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    collect(child.unwrap_or_else(|e| panic!("start {line}: {e}")), line)
}

/// Runs a shell line on a terminal of its own, what it is typed being `input`; stdout has both streams.
pub(crate) fn on_terminal(line: &str, input: &str) -> Ran {
    let script = program("script", "bsdutils");
    let feeder = format!("{{ printf '%s' \"$1\"; sleep 0.3; }} | {} -qec \"$2\" /dev/null", script.display());
    run(Command::new("sh").args(["-c", &feeder, "sh", input, line]).stdin(Stdio::null()))
}

/// A daemon that ends with its test.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with its output in `log`, and waits until `ready` says so.
    pub(crate) fn start(command: &mut Command, log: &Path, ready: impl Fn() -> bool) -> Daemon {
        let file = fs::File::create(log).expect("make the daemon's log");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second descriptor")).stderr(file);
        let child = command.spawn().unwrap_or_else(|e| panic!("start {:?}: {e}", command.get_program()));
        let mut daemon = Daemon { child, log: log.to_owned() };
        let start = Instant::now();
        while !ready() {
            let ended = daemon.child.try_wait().expect("wait for the daemon");
            let late = start.elapsed() > Duration::from_secs(60);
            assert!(ended.is_none() && !late, "the daemon does not come up ({ended:?}):\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    /// The last things that it complained of.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("level=info")).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Ends it as an administrator would, and waits for its end.
    pub(crate) fn stop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // Already gone is as good.
            let _ = kill_process(pid, Signal::TERM);
        }
        eventually("the daemon ends", || self.child.try_wait().ok().flatten());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
        // Asked first: dockerd ends its containerd and takes its mounts away. Already gone is as good.
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

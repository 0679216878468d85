//! Many containers, many times, many at once, and a runtime that is killed in the middle: nothing is left.
//!
//! The long variants are ignored; `cargo xtask test --long` runs them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use onggi_tests::{Bundle, eventually};
use serde_json::json;

use crate::support::{Stage, onggi_oci};

/// How many containers live at a time.
const WORKERS: u32 = 8;

/// `onggi-oci` with a root of its own, and a root filesystem that all bundles share.
struct Machine {
    stage: Stage,
    program: PathBuf,
    rootfs: Bundle,
    before: Snapshot,
}

/// What a container could leave behind, besides its cgroup.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    things: BTreeSet<String>,
}

impl Snapshot {
    /// The private machine's processes, mounts and files, and this process's open files.
    fn take(stage: &Stage) -> Snapshot {
        let mut things = BTreeSet::new();
        let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
        things.extend(table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| format!("mount {point}")));
        things.extend(names(Path::new("/proc")).filter(|pid| pid.parse::<u32>().is_ok()).map(|pid| {
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} {}", command.trim_end())
        }));
        for dir in [stage.dir(), &stage.dir().join("root"), Path::new("/run"), Path::new("/dev/shm")] {
            things.extend(names(dir).map(|name| format!("file {}/{name}", dir.display())));
        }
        things.extend(names(Path::new("/proc/self/fd")).map(|fd| format!("descriptor {fd}")));
        Snapshot { things }
    }
}

fn names(dir: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>().into_iter()
}

impl Machine {
    fn new() -> Machine {
        let stage = Stage::new();
        let rootfs = Bundle::new(&["true"]);
        fs::create_dir(stage.dir().join("root")).expect("make the runtime's root");
        let before = Snapshot::take(&stage);
        Machine { stage, program: onggi_oci(), rootfs, before }
    }

    /// A bundle of its own cgroup, with every kind of limit that a cgroup v1 has a hierarchy for.
    fn bundle(&self, name: &str, args: &[&str]) -> PathBuf {
        let dir = self.stage.dir().join("bundles").join(name);
        fs::create_dir_all(&dir).expect("make a bundle");
        let mut config = onggi_tests::bundle::base_config(args);
        config["root"] = json!({ "path": self.rootfs.rootfs(), "readonly": true });
        config["linux"]["cgroupsPath"] = json!(format!("{}/{name}", self.stage.cgroup_parent()));
        config["linux"]["resources"] = json!({
            "memory": { "limit": 64 << 20 }, "pids": { "limit": 50 }, "cpu": { "shares": 512 },
            "devices": [{ "allow": false, "access": "rwm" }],
        });
        fs::write(dir.join("config.json"), config.to_string()).expect("write config.json");
        dir
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.stage.dir().join("root")).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a command whose streams no container inherits; panics when it fails.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("start it");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "onggi-oci {}: {}: {errors}", args.join(" "), output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command whose streams a container keeps; its errors go to a log.
    #[track_caller]
    fn detached(&self, id: &str, args: &[&str]) {
        let log = self.stage.dir().join("bundles").join(format!("{id}.log"));
        let log_text = log.to_string_lossy();
        let status = self.command(&[&["--log", &log_text], args].concat()).status().expect("start it");
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "onggi-oci {}: {status}: {text}", args.join(" "));
        // Nothing was written when nothing failed.
        let _ = fs::remove_file(log);
    }

    /// create, start, kill, delete.
    fn cycle(&self, bundle: &Path, id: &str) {
        let pid_file = bundle.join("pid");
        let (at, pid_path) = (bundle.to_string_lossy(), pid_file.to_string_lossy());
        self.detached(id, &["create", "--bundle", &at, "--pid-file", &pid_path, id]);
        self.ok(&["start", id]);
        self.ok(&["kill", id, "KILL"]);
        let pid = fs::read_to_string(&pid_file).expect("read the pid file");
        await_end(&pid);
        self.ok(&["delete", id]);
    }

    /// Everything is as it was before the first container.
    #[track_caller]
    fn assert_nothing_left(self) {
        let bundles = self.stage.dir().join("bundles");
        if bundles.exists() {
            fs::remove_dir_all(bundles).expect("remove the bundles");
        }
        let start = Instant::now();
        loop {
            let now = Snapshot::take(&self.stage);
            let left: Vec<&String> = now.things.difference(&self.before.things).collect();
            if left.is_empty() {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "left behind: {left:#?}");
            thread::sleep(Duration::from_millis(50));
        }
        self.stage.assert_nothing_left(&[]);
    }
}

/// Waits until a process is dead; init reaps it soon.
fn await_end(pid: &str) {
    let start = Instant::now();
    while let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
        if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "process {pid} outlives SIGKILL: {stat}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn cycles(count: u32) {
    let machine = Machine::new();
    let done = AtomicU32::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (machine, done) = (&machine, &done);
            scope.spawn(move || {
                let bundle = machine.bundle(&format!("w{worker}"), &["sleep", "1000"]);
                loop {
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    machine.cycle(&bundle, &format!("c{number}"));
                }
            });
        }
    });
    println!("{count} cycles, {WORKERS} at a time, in {:?}", start.elapsed());
    machine.assert_nothing_left();
}

#[test]
fn stress_hundreds_of_containers_leave_nothing() {
    cycles(300);
}

#[test]
#[ignore = "minutes; `cargo xtask test --long` runs it"]
fn stress_ten_thousand_containers_leave_nothing() {
    cycles(10_000);
}

fn executions(count: u32) {
    let machine = Machine::new();
    let bundle = machine.bundle("keep", &["sleep", "100000"]);
    let pid_file = bundle.join("pid");
    let (at, pid_path) = (bundle.to_string_lossy(), pid_file.to_string_lossy());
    machine.detached("keep", &["run", "--detach", "--bundle", &at, "--pid-file", &pid_path, "keep"]);
    let pid = fs::read_to_string(&pid_file).expect("read the pid file");
    let descriptors = PathBuf::from(format!("/proc/{pid}/fd"));
    eventually("the program is executed", || {
        (fs::read_to_string(format!("/proc/{pid}/comm")).ok()? == "sleep\n").then_some(())
    });
    let (before, processes) = (names(&descriptors).count(), machine.ok(&["ps", "--format", "json", "keep"]));
    let done = AtomicU32::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let code = number % 100;
                    let script = format!("exit {code}");
                    let status = machine.command(&["exec", "keep", "sh", "-c", &script]).status().expect("start it");
                    assert_eq!(status.code(), Some(code as i32), "exec {number}");
                }
            });
        }
    });
    println!("{count} executions in {:?}", start.elapsed());
    assert_eq!(names(&descriptors).count(), before, "descriptors of the container's first process");
    assert_eq!(machine.ok(&["ps", "--format", "json", "keep"]), processes);
    machine.ok(&["delete", "--force", "keep"]);
    machine.assert_nothing_left();
}

#[test]
fn stress_hundreds_of_executions_leave_nothing() {
    executions(200);
}

#[test]
#[ignore = "a minute; `cargo xtask test --long` runs it"]
fn stress_two_thousand_executions_leave_nothing() {
    executions(2000);
}

/// Marsaglia's xorshift: moments need no better chance.
struct Moments(u64);

impl Moments {
    fn next(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Starts a command and kills it within `bound` microseconds.
fn killed_within(command: &mut Command, moments: &mut Moments, bound: u64) -> ExitStatus {
    let mut child = command.spawn().expect("start it");
    thread::sleep(Duration::from_micros(moments.next(bound)));
    // Already gone is as good: those moments are after the end.
    let _ = child.kill();
    child.wait().expect("wait for it")
}

/// Kills the runtime during one of its verbs, `count` times, and cleans up by `delete --force` each time.
fn murders(count: u32) {
    let machine = Machine::new();
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
    println!("seed {seed}");
    let mut moments = Moments(seed | 1);
    let bundle = machine.bundle("victim", &["sleep", "1000"]);
    let at = bundle.to_string_lossy();
    // The time of a whole run: moments are spread over it.
    let start = Instant::now();
    machine.detached("measure", &["run", "--detach", "--bundle", &at, "measure"]);
    let whole = start.elapsed().as_micros() as u64;
    machine.ok(&["delete", "--force", "measure"]);
    let mut interrupted = 0;
    for number in 0..count {
        let id = format!("v{number}");
        let verbs = ["run", "create", "start", "exec", "kill", "delete"];
        let verb = verbs[number as usize % verbs.len()];
        let create = ["create", "--bundle", &at, &id];
        if !matches!(verb, "run" | "create") {
            machine.detached(&id, &create);
        }
        if matches!(verb, "exec" | "kill" | "delete") {
            machine.ok(&["start", &id]);
        }
        let mut command = match verb {
            "run" => machine.command(&["run", "--detach", "--bundle", &at, &id]),
            "create" => machine.command(&create),
            "exec" => machine.command(&["exec", &id, "sleep", "1000"]),
            "kill" => machine.command(&["kill", &id, "KILL"]),
            "delete" => machine.command(&["delete", "--force", &id]),
            _ => machine.command(&[verb, &id]),
        };
        let bound = if matches!(verb, "run" | "create") { whole + whole / 4 } else { whole / 2 };
        let status = killed_within(&mut command, &mut moments, bound.max(1000));
        interrupted += u32::from(status.signal() == Some(9));
        machine.ok(&["delete", "--force", &id]);
        let left: Vec<String> = names(&machine.stage.dir().join("root")).collect();
        assert!(left.is_empty(), "after {verb} {id}, seed {seed}: {left:?}");
        assert!(machine.ok(&["list", "--quiet"]).is_empty());
    }
    println!("{interrupted} of {count} were interrupted");
    assert!(interrupted > count / 10, "hardly any command was interrupted: {interrupted} of {count}");
    machine.assert_nothing_left();
}

#[test]
fn stress_a_killed_runtime_leaves_nothing_that_forced_deletion_does_not_find() {
    murders(60);
}

#[test]
#[ignore = "a minute; `cargo xtask test --long` runs it"]
fn stress_a_runtime_killed_hundreds_of_times_leaves_nothing() {
    murders(300);
}

/// `count` containers that run at the same time.
fn crowd(count: u32) {
    let machine = Machine::new();
    let started = Instant::now();
    for number in 0..count {
        let id = format!("m{number}");
        let bundle = machine.bundle(&id, &["sleep", "100000"]);
        machine.detached(&id, &["run", "--detach", "--bundle", &bundle.to_string_lossy(), &id]);
    }
    println!("{count} containers started in {:?}", started.elapsed());
    let list = machine.ok(&["list", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("the list is JSON");
    let list = list.as_array().expect("it is a list");
    assert_eq!(list.len(), count as usize);
    assert!(list.iter().all(|one| one["status"] == "running"), "{list:?}");
    for number in 0..count {
        let id = format!("m{number}");
        if number % 20 == 0 {
            assert!(machine.command(&["exec", &id, "true"]).status().expect("start it").success());
        }
        machine.ok(&["delete", "--force", &id]);
    }
    machine.assert_nothing_left();
}

#[test]
fn stress_two_hundred_containers_run_at_once() {
    crowd(200);
}

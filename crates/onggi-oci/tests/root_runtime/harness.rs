//! A bundle on a busybox root filesystem and the built runtime, below one temporary directory.
//!
//! Dropping it deletes every container that the test made; what is left afterwards is a failed test.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

const APPLETS: &[&str] = &[
    "sh", "true", "false", "ls", "cat", "id", "mount", "umount", "ps", "sleep", "echo", "env", "stat", "hostname",
    "mkdir", "touch", "grep", "ln", "kill", "tty", "mknod", "dd", "readlink", "chmod", "wc", "ip", "pwd", "trap",
    "head", "sort", "test", "stty",
];

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Done {
    fn from(o: Output) -> Self {
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        Self { code: o.status.code().unwrap_or(-1), out: text(o.stdout), err: unquoted(&text(o.stderr)) }
    }
}

/// The runtime's lines (`level=error msg="…"`) with their messages as they were meant.
pub(crate) fn unquoted(text: &str) -> String {
    text.replace("\\\"", "\"")
}

/// Ends a test whose name begins with `vm_` on any other machine than the guest of `cargo xtask vm`, before it has made
/// anything: it changes the machine's own control groups.
#[track_caller]
fn refuse_outside_of_the_guest() {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let test = name.rsplit("::").next().unwrap_or(name);
    let guest = || fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.contains("onggi.guest"));
    assert!(!test.starts_with("vm_") || guest(), "{test} runs in the virtual machine alone: cargo xtask vm {test}");
}

/// One test's files and its container.
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
    pub(crate) id: String,
    pub(crate) config: Value,
}

impl Bundle {
    /// A configuration like the engine's, running `script` in a shell.
    pub(crate) fn new(script: &str) -> Self {
        refuse_outside_of_the_guest();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("t{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(format!("onggi-oci-{id}"));
        let root = dir.join("rootfs");
        for d in ["bin", "proc", "dev", "sys", "tmp", "etc", "root"] {
            fs::create_dir_all(root.join(d)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("package busybox-static");
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        Self { dir, id, config: config(script) }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// `root.script` is what the shell runs.
    pub(crate) fn args(&mut self, args: &[&str]) {
        self.config["process"]["args"] = json!(args);
    }

    pub(crate) fn add_mount(&mut self, mount: Value) {
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    pub(crate) fn remove_namespace(&mut self, kind: &str) {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != kind);
    }

    pub(crate) fn add_namespace(&mut self, ns: Value) {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().push(ns);
    }

    /// A command of the runtime with this test's state root.
    pub(crate) fn oci(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_onggi-oci"));
        c.arg("--root").arg(self.dir.join("state")).args(args).stdin(Stdio::null());
        c
    }

    pub(crate) fn write_config(&self) {
        let mut file = fs::File::create(self.dir.join("config.json")).unwrap();
        file.write_all(self.config.to_string().as_bytes()).unwrap();
    }

    /// `run` to the end.
    pub(crate) fn run(&self) -> Done {
        self.run_with(&[])
    }

    pub(crate) fn run_with(&self, flags: &[&str]) -> Done {
        self.write_config();
        let bundle = self.dir.to_str().unwrap();
        let mut args = vec!["run", "-b", bundle];
        args.extend(flags);
        args.push(&self.id);
        self.oci(&args).output().unwrap().into()
    }

    /// `run --detach` with output to a file.
    pub(crate) fn run_detached(&self, flags: &[&str]) -> Done {
        self.write_config();
        let bundle = self.dir.to_str().unwrap();
        let mut args = vec!["run", "-d", "-b", bundle];
        args.extend(flags);
        args.push(&self.id);
        let out = fs::File::create(self.dir.join("out")).unwrap();
        let mut command = self.oci(&args);
        let status = command.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
        Done { code: status.code().unwrap_or(-1), out: self.output(), err: String::new() }
    }

    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.dir.join("out")).unwrap_or_default()
    }

    pub(crate) fn create(&self) -> Done {
        self.write_config();
        let out = fs::File::create(self.dir.join("out")).unwrap();
        let err = self.dir.join("err");
        let mut command = self.oci(&["create", "-b", self.dir.to_str().unwrap(), &self.id]);
        let status = command.stdout(out).stderr(fs::File::create(&err).unwrap()).status().unwrap();
        let err = unquoted(&fs::read_to_string(err).unwrap());
        Done { code: status.code().unwrap_or(-1), out: String::new(), err }
    }

    /// A verb whose only argument is the id, or that begins with it.
    pub(crate) fn verb(&self, verb: &str, after: &[&str]) -> Done {
        let mut args = vec![verb, self.id.as_str()];
        args.extend(after);
        self.oci(&args).output().unwrap().into()
    }

    pub(crate) fn exec(&self, flags: &[&str], command: &[&str]) -> Done {
        let mut args = vec!["exec"];
        args.extend(flags);
        args.push(&self.id);
        args.extend(command);
        self.oci(&args).output().unwrap().into()
    }

    pub(crate) fn spawn_exec(&self, command: &[&str]) -> Child {
        let mut args = vec!["exec", self.id.as_str()];
        args.extend(command);
        self.oci(&args).stdout(Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn status(&self) -> String {
        let done = self.verb("state", &[]);
        let state: Value = serde_json::from_str(&done.out).unwrap_or_default();
        state["status"].as_str().unwrap_or("absent").to_owned()
    }

    pub(crate) fn pid(&self) -> i32 {
        let state: Value = serde_json::from_str(&self.verb("state", &[]).out).unwrap();
        i32::try_from(state["pid"].as_i64().unwrap()).unwrap()
    }

    /// Waits until `done` or fails the test.
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        // Long enough for an emulated processor that others keep busy.
        for _ in 0..6000 {
            if done(self) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("not within a minute: {what}");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.oci(&["delete", "-f", &self.id]).output();
        let left = cgroups_of(&self.id);
        let _ = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "cgroups are left: {left:?}");
        }
    }
}

/// Cgroup directories that carry the id.
pub(crate) fn cgroups_of(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let top = PathBuf::from("/sys/fs/cgroup");
    // Version 2 has its groups in the top directory, version 1 below one directory for each controller.
    let v1 = fs::read_dir(&top).unwrap().flatten().map(|e| e.path());
    for hierarchy in v1.chain([top.clone()]) {
        let names = fs::read_dir(hierarchy).into_iter().flatten().flatten();
        found.extend(names.map(|e| e.path()).filter(|p| p.is_dir() && p.to_string_lossy().contains(id)));
    }
    found
}

/// The value of `Name:` in a status file.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim()
}

fn config(script: &str) -> Value {
    let caps = onggi_spec::capability::DEFAULT;
    let mount = |destination: &str, typ: &str, options: &[&str]| json!({ "destination": destination, "type": typ, "source": typ, "options": options });
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "noNewPrivileges": false
        },
        "root": { "path": "rootfs" },
        "hostname": "jar",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" }, { "type": "network" }
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware", "/proc/not-there"],
            "readonlyPaths": ["/proc/sys", "/proc/irq"]
        }
    })
}

/// Every file below `dir` with its content, sorted: two of these are equal when nothing changed.
pub(crate) fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            all.push((path.clone(), Vec::new()));
            all.extend(tree(&path));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    all.sort();
    all
}

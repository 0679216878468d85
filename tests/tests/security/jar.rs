//! A container that is made by `onggi-oci` as it is installed, and the host that it must not reach.
//!
//! ```text
//! /tmp/onggi-sec-XXXXXX/config.json, rootfs/     the bundle
//! /tmp/onggi-sec-XXXXXX/state/                   --root
//! /tmp/onggi-sec-XXXXXX/decoy/                   stands for the host's files: must never change
//! ```

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use onggi_tests::{Runtime, bundle, bundle::DEFAULT_CAPABILITIES};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Exit code of a script that found itself where it must not be. Neither a shell nor the runtime uses it.
pub(crate) const ESCAPED: i32 = 42;

const APPLETS: &[&str] = &[
    "sh", "true", "false", "ls", "cat", "id", "mount", "umount", "sleep", "echo", "env", "stat", "mkdir", "touch",
    "grep", "ln", "kill", "tty", "mknod", "dd", "readlink", "chmod", "wc", "pwd", "head", "test", "cp", "rm", "awk",
];

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
        Self { code: o.status.code().unwrap_or(-1), out: text(o.stdout), err: text(o.stderr) }
    }
}

impl Done {
    /// The runtime refused, or the program never ran.
    #[track_caller]
    pub(crate) fn refused(&self) -> &Self {
        assert!(self.code != 0 && self.code != ESCAPED, "it was not refused: {self:?}");
        assert!(!self.err.is_empty(), "a refusal says why: {self:?}");
        self
    }

    /// The program ran to its good end and printed `out`.
    #[track_caller]
    pub(crate) fn printed(&self, out: &str) {
        assert_eq!((self.code, self.out.as_str()), (0, out), "{}", self.err);
    }

    /// Whatever happened, the program was not outside.
    #[track_caller]
    pub(crate) fn inside(&self) -> &Self {
        assert_ne!(self.code, ESCAPED, "{self:?}");
        self
    }
}

/// One bundle with its container.
pub(crate) struct Jar {
    dir: TempDir,
    pub(crate) id: String,
    pub(crate) config: Value,
    program: PathBuf,
    user: Option<u32>,
}

/// The installed runtime.
pub(crate) fn runtime() -> PathBuf {
    Runtime::Onggi.program()
}

impl Jar {
    /// A container like an engine's that runs `script` in a shell.
    pub(crate) fn new(script: &str) -> Self {
        let mut jar = Self::small(script);
        let mounts = jar.config["mounts"].as_array_mut().expect("a list");
        mounts.extend([
            fs_mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=65536k"]),
            fs_mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            fs_mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ]);
        for kind in ["ipc", "uts", "network", "cgroup"] {
            jar.add_namespace(json!({ "type": kind }));
        }
        jar.config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/keys", "/sys/firmware"]);
        jar.config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/proc/sysrq-trigger"]);
        jar
    }

    /// As little as a container can be: what is started thousands of times.
    pub(crate) fn small(script: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("onggi-sec-").tempdir().expect("make a directory");
        bundle::busybox(&dir.path().join("rootfs"), &["proc", "dev", "sys", "tmp", "etc", "root"], APPLETS);
        let decoy = dir.path().join("decoy");
        fs::create_dir_all(decoy.join("sub/deep")).expect("make the decoy");
        for file in ["ptmx", "null", "console", "exec", "sub/marker", "file"] {
            fs::write(decoy.join(file), "host\n").expect("fill the decoy");
        }
        let name = dir.path().file_name().expect("it has a name").to_string_lossy().to_lowercase();
        Self { id: name, config: config(script), dir, program: runtime(), user: None }
    }

    /// From now on the runtime is called by an ordinary user, who owns the bundle.
    pub(crate) fn by_user(&mut self, uid: u32) {
        let copy = self.path("onggi-oci");
        fs::copy(&self.program, &copy).expect("copy the runtime");
        self.program = copy;
        self.user = Some(uid);
        self.config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
        self.config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
        self.add_namespace(json!({ "type": "user" }));
        let owner = uid.to_string();
        let done = Command::new("chown").args(["-R", &owner]).arg(self.dir.path()).status().expect("start chown");
        assert!(done.success());
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("rootfs")
    }

    pub(crate) fn decoy(&self) -> PathBuf {
        self.path("decoy")
    }

    /// A path in the root filesystem that is now a link.
    pub(crate) fn link(&self, at: &str, target: impl AsRef<Path>) {
        let at = self.root().join(at);
        let _ = fs::remove_file(&at);
        let _ = fs::remove_dir(&at);
        fs::create_dir_all(at.parent().expect("it has a parent")).expect("make the parent");
        symlink(target, at).expect("make a link");
    }

    pub(crate) fn make_dir(&self, at: &str) -> PathBuf {
        let at = self.dir.path().join(at);
        fs::create_dir_all(&at).expect("make a directory");
        at
    }

    pub(crate) fn write(&self, at: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let at = self.dir.path().join(at);
        fs::create_dir_all(at.parent().expect("it has a parent")).expect("make the parent");
        fs::write(&at, text).expect("write a file");
        at
    }

    pub(crate) fn args(&mut self, args: &[&str]) {
        self.config["process"]["args"] = json!(args);
    }

    pub(crate) fn script(&mut self, script: &str) {
        self.args(&["sh", "-c", script]);
    }

    pub(crate) fn add_mount(&mut self, mount: Value) {
        self.config["mounts"].as_array_mut().expect("a list").push(mount);
    }

    pub(crate) fn bind(&mut self, source: &str, destination: &str) {
        self.add_mount(json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind"] }));
    }

    pub(crate) fn tmpfs(&mut self, source: &str, destination: &str) {
        self.add_mount(json!({ "destination": destination, "type": "tmpfs", "source": source, "options": [] }));
    }

    pub(crate) fn remove_mount(&mut self, destination: &str) {
        self.config["mounts"].as_array_mut().expect("a list").retain(|m| m["destination"] != destination);
    }

    pub(crate) fn add_namespace(&mut self, namespace: Value) {
        self.config["linux"]["namespaces"].as_array_mut().expect("a list").push(namespace);
    }

    pub(crate) fn remove_namespace(&mut self, kind: &str) {
        self.config["linux"]["namespaces"].as_array_mut().expect("a list").retain(|n| n["type"] != kind);
    }

    /// Gives a capability beyond the usual ones.
    pub(crate) fn add_cap(&mut self, cap: &str) {
        for set in ["bounding", "effective", "permitted"] {
            self.config["process"]["capabilities"][set].as_array_mut().expect("a list").push(json!(cap));
        }
    }

    /// A command of the runtime with this test's state root.
    pub(crate) fn oci(&self, args: &[&str]) -> Command {
        let mut command = match self.user {
            None => Command::new(&self.program),
            Some(uid) => {
                let uid = uid.to_string();
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--"]).arg(&self.program);
                command
            }
        };
        command.arg("--root").arg(self.path("state")).args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn save(&self) {
        let mut file = fs::File::create(self.path("config.json")).expect("make config.json");
        file.write_all(self.config.to_string().as_bytes()).expect("write config.json");
    }

    fn bundle(&self) -> &str {
        self.dir.path().to_str().expect("a UTF-8 path")
    }

    /// `run` to the end.
    pub(crate) fn run(&self) -> Done {
        self.save();
        self.run_as(&self.id, &[])
    }

    /// `run` of the saved configuration under another id: for many at once.
    pub(crate) fn run_as(&self, id: &str, flags: &[&str]) -> Done {
        let args = [&["run", "--bundle", self.bundle()], flags, &[id]].concat();
        self.oci(&args).output().expect("start the runtime").into()
    }

    /// `create`, and the runtime's words when it failed.
    pub(crate) fn create(&self) -> Done {
        self.save();
        self.begin(&["create", "--bundle", self.bundle(), &self.id])
    }

    /// `run --detach`; output goes to a file.
    pub(crate) fn detached(&self, flags: &[&str]) -> Done {
        self.save();
        self.begin(&[&["run", "--detach", "--bundle", self.bundle()], flags, &[&self.id]].concat())
    }

    fn begin(&self, args: &[&str]) -> Done {
        let file = |name: &str| fs::File::create(self.path(name)).expect("make an output file");
        let status = self.oci(args).stdout(file("out")).stderr(file("err")).status().expect("start the runtime");
        let err = fs::read_to_string(self.path("err")).unwrap_or_default();
        Done { code: status.code().unwrap_or(-1), out: self.output(), err }
    }

    /// As [`Jar::detached`]; it must work.
    #[track_caller]
    pub(crate) fn running(&self) {
        let done = self.detached(&[]);
        assert_eq!(done.code, 0, "{}", done.err);
    }

    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    pub(crate) fn verb(&self, verb: &str) -> Done {
        self.oci(&[verb, &self.id]).output().expect("start the runtime").into()
    }

    pub(crate) fn exec(&self, flags: &[&str], command: &[&str]) -> Done {
        let args = [&["exec"], flags, &[self.id.as_str()], command].concat();
        self.oci(&args).output().expect("start the runtime").into()
    }

    /// `exec --detach …`: output goes to a file, because the process would hold a pipe open.
    pub(crate) fn exec_detached(&self, flags: &[&str]) -> Done {
        self.begin(&[&["exec"], flags, &[self.id.as_str()]].concat())
    }

    pub(crate) fn pid(&self) -> u32 {
        let state: Value = serde_json::from_str(&self.verb("state").out).expect("state prints JSON");
        u32::try_from(state["pid"].as_u64().expect("a pid")).expect("a pid")
    }

    /// Waits until the output satisfies `done`, or fails the test.
    pub(crate) fn until(&self, what: &str, done: impl Fn(&str) -> bool) {
        onggi_tests::eventually(what, || done(&self.output()).then_some(()));
    }

    /// Cgroup directories of this container that exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted").flatten() {
            let names = fs::read_dir(hierarchy.path()).into_iter().flatten().flatten();
            found.extend(names.map(|e| e.path()).filter(|p| p.to_string_lossy().contains(&self.id)));
        }
        found
    }
}

impl Drop for Jar {
    fn drop(&mut self) {
        let _ = self.oci(&["delete", "--force", &self.id]).output();
        if !std::thread::panicking() {
            assert!(self.cgroups().is_empty(), "cgroups are left: {:?}", self.cgroups());
        }
    }
}

fn fs_mount(destination: &str, typ: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": typ, "source": typ, "options": options })
}

fn config(script: &str) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": { "bounding": DEFAULT_CAPABILITIES, "effective": DEFAULT_CAPABILITIES, "permitted": DEFAULT_CAPABILITIES },
            "noNewPrivileges": false
        },
        "root": { "path": "rootfs" },
        "mounts": [fs_mount("/proc", "proc", &["nosuid", "noexec", "nodev"])],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }] }
    })
}

/// What must be the same afterwards: the decoy with content, owners, modes and inode numbers; the mount table;
/// two knobs of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Host {
    tree: Vec<(PathBuf, [u64; 4], Vec<u8>)>,
    mounts: String,
    knobs: Vec<String>,
}

impl Host {
    pub(crate) fn look(jar: &Jar) -> Self {
        let mut tree = Vec::new();
        walk(&jar.decoy(), &mut tree);
        tree.sort();
        let knobs = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname"];
        let read = |path: &str| fs::read_to_string(path).expect("read a file of /proc");
        Self { tree, mounts: read("/proc/self/mountinfo"), knobs: knobs.map(read).into() }
    }

    #[track_caller]
    pub(crate) fn assert_unchanged(&self, jar: &Jar) {
        let now = Self::look(jar);
        assert_eq!(self.tree, now.tree, "the host's files have changed");
        let new: Vec<_> = now.mounts.lines().filter(|line| !self.mounts.contains(line)).collect();
        assert!(new.is_empty(), "the host has new mounts: {new:?}");
        // Another program that removes its directory takes the mount on it away from every namespace.
        let stays = |line: &&str| line.split(' ').nth(4).is_some_and(|point| Path::new(point).exists());
        let lost: Vec<_> = self.mounts.lines().filter(|line| !now.mounts.contains(line)).filter(stays).collect();
        assert!(lost.is_empty(), "the host has lost mounts: {lost:?}");
        assert_eq!(self.knobs, now.knobs, "the kernel's knobs have changed");
    }
}

fn walk(at: &Path, found: &mut Vec<(PathBuf, [u64; 4], Vec<u8>)>) {
    let meta = fs::symlink_metadata(at).expect("look at the decoy");
    let facts = [meta.ino(), u64::from(meta.mode()), u64::from(meta.uid()), u64::from(meta.gid())];
    let content = if meta.is_file() { fs::read(at).expect("read the decoy") } else { Vec::new() };
    found.push((at.to_path_buf(), facts, content));
    if meta.is_dir() {
        for entry in fs::read_dir(at).expect("list the decoy") {
            walk(&entry.expect("list the decoy").path(), found);
        }
    }
}

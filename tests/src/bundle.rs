//! An OCI bundle in a temporary directory: a busybox root filesystem and a `config.json` that runc, crun and
//! onggi-oci all accept, which a test edits as JSON before it is written.
//!
//! ```text
//! /tmp/onggi-bundle-XXXXXX/config.json   written by Bundle::write
//! /tmp/onggi-bundle-XXXXXX/rootfs        /bin/busybox with all its applets, /etc/passwd, empty mount points
//! ```

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::machine;

/// The capabilities that engines give by default.
pub const DEFAULT_CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// A bundle that is removed when it is dropped.
pub struct Bundle {
    dir: TempDir,
    mounted: Vec<PathBuf>,
    /// What [`Bundle::write`] writes; edit it freely.
    pub config: Value,
}

impl Bundle {
    /// A bundle that runs `args` with the [base configuration](base_config).
    pub fn new(args: &[&str]) -> Bundle {
        let dir = tempfile::Builder::new().prefix("onggi-bundle-").tempdir().expect("make a temporary directory");
        // User namespaces of the tests must reach the root filesystem.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("open the bundle to others");
        make_rootfs(&dir.path().join("rootfs"));
        Bundle { dir, mounted: Vec::new(), config: base_config(args) }
    }

    /// A bundle that runs a script in the container's shell.
    pub fn script(script: &str) -> Bundle {
        Bundle::new(&["sh", "-c", script])
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the root filesystem.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// Writes `config.json`.
    pub fn write(&self) -> &Bundle {
        let text = serde_json::to_vec_pretty(&self.config).expect("a JSON value can be written");
        fs::write(self.dir.path().join("config.json"), text).expect("write config.json");
        self
    }

    /// Writes a file, relative to the bundle's directory, with its parents.
    pub fn file(&self, path: &str, mode: u32, content: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a file has a parent")).expect("make directories");
        fs::write(&path, content).expect("write a file of the bundle");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set the mode of a file of the bundle");
        path
    }

    /// Mounts a tmpfs at a directory of the bundle, which is made, until the bundle is dropped. Only for a test
    /// in a mount namespace of its own.
    pub fn tmpfs(&mut self, path: &str, options: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(&path).expect("make a mount point");
        machine::sh(&format!("mount -t tmpfs -o {options} test {}", path.display()));
        self.mounted.push(path.clone());
        path
    }

    /// Sets `process.args`.
    pub fn args(&mut self, args: &[&str]) -> &mut Bundle {
        self.config["process"]["args"] = json!(args);
        self
    }

    /// Appends a mount.
    pub fn mount(&mut self, mount: Value) -> &mut Bundle {
        push(&mut self.config["mounts"], mount);
        self
    }

    /// Appends a namespace, replacing one of the same type.
    pub fn namespace(&mut self, namespace: Value) -> &mut Bundle {
        let kind = namespace["type"].as_str().unwrap_or_default().to_owned();
        self.without_namespace(&kind);
        push(&mut self.config["linux"]["namespaces"], namespace);
        self
    }

    /// Removes a namespace.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Bundle {
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().expect("namespaces are a list");
        namespaces.retain(|namespace| namespace["type"] != kind);
        self
    }

    /// A user namespace whose ids 0 to 65535 are those from `first` on, and a root filesystem that belongs to it.
    pub fn user_namespace(&mut self, first: u32) -> &mut Bundle {
        self.namespace(json!({ "type": "user" }));
        let mappings = json!([{ "containerID": 0, "hostID": first, "size": 65536 }]);
        self.config["linux"]["uidMappings"] = mappings.clone();
        self.config["linux"]["gidMappings"] = mappings;
        let owner = format!("{first}:{first}");
        let status = Command::new("chown").args(["-hR", &owner]).arg(self.rootfs()).status().expect("start chown");
        assert!(status.success(), "chown of the root filesystem ended with {status}");
        self
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for path in &self.mounted {
            // What stays is in the way of the directory's removal, which the check for leaks reports.
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}

fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().expect("the field is a list").push(item);
}

/// What an engine writes for an ordinary container, reduced to what every runtime knows; no terminal.
pub fn base_config(args: &[&str]) -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": {
                "bounding": DEFAULT_CAPABILITIES,
                "effective": DEFAULT_CAPABILITIES,
                "permitted": DEFAULT_CAPABILITIES,
            },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "box",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/not-there"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// Makes a busybox root filesystem.
///
/// # Panics
/// When Debian's busybox-static is missing.
pub fn make_rootfs(rootfs: &Path) {
    busybox(rootfs, &["dev", "etc", "proc", "root", "sys", "tmp", "mnt"], applets());
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("set the mode of /tmp");
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), passwd).expect("write /etc/passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n").expect("write /etc/group");
}

/// Empty directories, and busybox with these applets in `bin`.
///
/// # Panics
/// When Debian's busybox-static is missing.
pub fn busybox(rootfs: &Path, dirs: &[&str], applets: &[impl AsRef<Path>]) {
    for dir in dirs.iter().chain(&["bin"]) {
        fs::create_dir_all(rootfs.join(dir)).expect("make a directory of the root filesystem");
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("copy /bin/busybox (Debian package busybox-static)");
    for applet in applets {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
    }
}

fn applets() -> &'static [String] {
    static APPLETS: OnceLock<Vec<String>> = OnceLock::new();
    APPLETS.get_or_init(|| {
        let list = Command::new("/bin/busybox").arg("--list").output().expect("start busybox (Debian busybox-static)");
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        text.lines().filter(|applet| *applet != "busybox" && !applet.is_empty()).map(str::to_owned).collect()
    })
}

//! The bare OCI runtimes: each has its own state directory, all have the same bundles.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{image::Image, measure::milliseconds, peers::silently};
use crate::{
    Outcome,
    process::{line, read},
};

/// An OCI runtime with a bundle that runs `true` and one that sleeps.
pub(crate) struct Runtime {
    /// As shown in the table.
    pub(crate) name: &'static str,
    program: PathBuf,
    state: PathBuf,
    bundle: PathBuf,
    sleeping: PathBuf,
    count: u64,
}

impl Runtime {
    /// Prepares the bundles; every runtime gets the same `config.json`.
    pub(crate) fn new(name: &'static str, program: PathBuf, dir: &Path, image: &Image) -> Outcome<Runtime> {
        // On the tmpfs of the bench's private mount namespace, where state belongs.
        let state = Path::new("/run").join(format!("onggi-bench-{name}"));
        fs::create_dir_all(&state).map_err(|e| format!("make {}: {e}", state.display()))?;
        let bundle = |kind: &str, command: &[&str]| -> Outcome<PathBuf> {
            let bundle = dir.join(format!("bundle-{name}-{kind}"));
            fs::create_dir_all(&bundle).map_err(|e| format!("make {}: {e}", bundle.display()))?;
            let config = bundle_config(&image.rootfs, command).to_string();
            fs::write(bundle.join("config.json"), config).map_err(|e| format!("write config.json: {e}"))?;
            Ok(bundle)
        };
        let (sleeping, bundle) = (bundle("sleep", &["/bin/sleep", "600"])?, bundle("true", &["/bin/true"])?);
        Ok(Runtime { name, program, state, bundle, sleeping, count: 0 })
    }

    /// An id that was not used yet.
    pub(crate) fn fresh_id(&mut self) -> String {
        self.count += 1;
        format!("onggi-bench-{}-{}", std::process::id(), self.count)
    }

    /// A command of this runtime.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state).args(args);
        command
    }

    fn silently(&self, args: &[&str]) -> Outcome {
        silently(&mut self.command(args))
    }

    /// One shot: create, start, wait, delete.
    pub(crate) fn run(&mut self) -> Outcome {
        let id = self.fresh_id();
        silently(&mut self.run_command(&id))
    }

    /// One shot after the other.
    pub(crate) fn run_all(&self, ids: &[String]) -> Outcome {
        ids.iter().try_for_each(|id| silently(&mut self.run_command(id)))
    }

    /// The command that [`Runtime::run`] executes.
    pub(crate) fn run_command(&self, id: &str) -> Command {
        let mut command = self.command(&["run", "--bundle"]);
        command.arg(&self.bundle).arg(id);
        command
    }

    fn create(&self, bundle: &Path, id: &str) -> Outcome {
        let mut command = self.command(&["create", "--bundle"]);
        silently(command.arg(bundle).arg(id))
    }

    /// A container that sleeps; its id.
    pub(crate) fn running(&mut self) -> Outcome<String> {
        let id = self.fresh_id();
        self.create(&self.sleeping, &id)?;
        self.silently(&["start", &id])?;
        Ok(id)
    }

    /// Removes a container in any state.
    pub(crate) fn remove(&self, id: &str) -> Outcome {
        self.silently(&["delete", "--force", id])
    }

    /// Time of one verb of a container's life, in milliseconds; the rest of that life is not counted.
    pub(crate) fn verb(&mut self, verb: Verb) -> Outcome<f64> {
        let id = self.fresh_id();
        let create = || self.create(&self.bundle, &id);
        let start = || self.silently(&["start", &id]);
        let removed = |took: f64| self.remove(&id).map(|()| took);
        match verb {
            Verb::Create => milliseconds(create).and_then(removed),
            Verb::Start => {
                create()?;
                milliseconds(start).and_then(removed)
            }
            Verb::Delete => {
                create()?;
                start()?;
                self.await_stopped(&id)?;
                milliseconds(|| self.silently(&["delete", &id]))
            }
        }
    }

    /// `state` and `exec true` in a container that runs.
    pub(crate) fn in_running(&self, id: &str, args: &[&str]) -> Outcome<f64> {
        let (verb, rest) = args.split_first().ok_or("a verb is missing")?;
        milliseconds(|| self.silently(&[&[*verb, id], rest].concat()))
    }

    fn await_stopped(&self, id: &str) -> Outcome {
        // `true` ends at once; a thousand looks are seconds.
        for _ in 0..1000 {
            let state = read(&mut self.command(&["state", id]))?;
            let state: Value =
                serde_json::from_str(&state).map_err(|e| format!("{}: state of {id}: {e}", self.name))?;
            if state["status"] == "stopped" {
                return Ok(());
            }
        }
        Err(format!("{id} does not stop"))
    }

    /// Peak resident memory of one `run`, in KiB, as wait4(2) tells it: the runtime and what it waited for.
    pub(crate) fn peak_memory(&mut self) -> Outcome<f64> {
        let id = self.fresh_id();
        let inner = self.run_command(&id);
        let report = self.state.join("peak");
        let mut timed = Command::new("/usr/bin/time");
        timed.args(["-f", "%M", "-o"]).arg(&report).arg(inner.get_program()).args(inner.get_args());
        timed.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = timed.status().map_err(|e| format!("start {} (Debian: time): {e}", line(&timed)))?;
        if !status.success() {
            return Err(format!("`{}` ended with {status}", line(&timed)));
        }
        let text = fs::read_to_string(&report).map_err(|e| format!("read {}: {e}", report.display()))?;
        fs::remove_file(&report).map_err(|e| format!("remove {}: {e}", report.display()))?;
        text.trim().parse().map_err(|_| format!("time(1) wrote {text:?}"))
    }
}

/// A verb whose time is taken alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Start,
    Delete,
}

/// What `runc spec` writes, reduced to what every runtime here accepts: all namespaces of an engine's
/// container, its usual mounts, and its short list of capabilities.
fn bundle_config(rootfs: &Path, command: &[&str]) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": command, "env": ["PATH=/bin"],
            "cwd": "/", "noNewPrivileges": true,
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": rootfs, "readonly": true },
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

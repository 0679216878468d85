//! A busybox container under the monitor, without an engine: bundle and `onggi.json` written by hand,
//! everything below one temporary directory, removed with everything in it at the end.

use std::{
    ffi::{CString, OsString},
    fs,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::symlink, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use onggi_spec::{
    attach::{FrameKind, header},
    monitor::{ExitRecord, MonitorReport},
};
use onggi_sys::{
    process::{Exit, pidfd_kill, wait_pidfd},
    spawn::{Program, Spawn, Spawned},
};
use serde_json::{Value, json};

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// What a test asks of its container.
pub(crate) struct Ask {
    pub(crate) shell: String,
    pub(crate) interactive: bool,
    pub(crate) terminal: bool,
    pub(crate) primary: bool,
    pub(crate) pid_namespace: bool,
    pub(crate) memory: Option<u64>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) max_size: u64,
    /// Leaves `exit-command-ran` behind.
    pub(crate) exit_command: bool,
    pub(crate) args: Option<Vec<String>>,
}

/// A container that runs a shell script.
pub(crate) fn shell(script: &str) -> Ask {
    Ask {
        shell: script.to_owned(),
        interactive: false,
        terminal: false,
        primary: false,
        pid_namespace: true,
        memory: None,
        log: None,
        max_size: 64 << 20,
        exit_command: false,
        args: None,
    }
}

/// A monitor and its files.
pub(crate) struct Monitor {
    pub(crate) dir: PathBuf,
    pub(crate) id: String,
    pub(crate) report: MonitorReport,
    pub(crate) primary: Option<Client>,
    pub(crate) spawned: Spawned,
    log: PathBuf,
    ended: bool,
}

impl Ask {
    /// Starts it and waits for the report.
    pub(crate) fn start(self) -> Monitor {
        self.launch().report()
    }

    /// Starts it and waits for nothing.
    pub(crate) fn launch(self) -> Starting {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("onggi-monitor-{}-{number}", std::process::id()));
        let id = format!("{:0>32}{:0>32}", std::process::id(), number);
        write_bundle(&dir, &id, &self);
        let (report, report_write) = std::io::pipe().unwrap();
        let pair = self.primary.then(|| UnixStream::pair().unwrap());
        let spawned = spawn(&dir, report_write.into(), pair.as_ref().map(|(_, theirs)| theirs));
        let primary = pair.map(|(ours, _)| Client(ours));
        let log = self.log.unwrap_or_else(|| dir.join("container.log"));
        Starting { report, dir, id, primary, spawned, log }
    }

    /// Starts it; it must run.
    pub(crate) fn run(self) -> Monitor {
        let monitor = self.start();
        assert!(matches!(monitor.report, MonitorReport::Started { .. }), "{:?}", monitor.report);
        monitor
    }
}

/// A monitor that has not reported yet.
pub(crate) struct Starting {
    report: std::io::PipeReader,
    dir: PathBuf,
    id: String,
    primary: Option<Client>,
    spawned: Spawned,
    log: PathBuf,
}

impl Starting {
    fn report(mut self) -> Monitor {
        let mut text = String::new();
        self.report.read_to_string(&mut text).unwrap();
        let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("report {text:?}: {e}"));
        self.reported(report)
    }

    /// Kills the monitor now, whatever it has come to.
    pub(crate) fn kill(self) -> Monitor {
        let mut monitor = self.reported(MonitorReport::Started { pid: 0, notes: Vec::new() });
        monitor.signal(9);
        monitor.wait();
        monitor
    }

    fn reported(self, report: MonitorReport) -> Monitor {
        let Self { dir, id, primary, spawned, log, .. } = self;
        Monitor { dir, id, report, primary, spawned, log, ended: false }
    }
}

fn spawn(dir: &Path, report: OwnedFd, client: Option<&UnixStream>) -> Spawned {
    let program = CString::new(env!("CARGO_BIN_EXE_onggi-oci")).unwrap();
    let bundle = dir.join("bundle").into_os_string();
    let mut args: Vec<OsString> = ["onggi-oci", "monitor", "--report-fd", "3", "--bundle"].map(OsString::from).into();
    args.push(bundle);
    if client.is_some() {
        args.extend(["--client-fd".into(), "4".into()]);
    }
    let mut spawn = Spawn::new(Program::Path(&program), &args, &[]).unwrap().setsid().fd(report.as_fd(), 3);
    if let Some(client) = client {
        spawn = spawn.fd(client.as_fd(), 4);
    }
    spawn.start().unwrap()
}

fn write_bundle(dir: &Path, id: &str, ask: &Ask) {
    let bundle = dir.join("bundle");
    for sub in ["bundle/rootfs/bin", "bundle/rootfs/proc", "bundle/rootfs/dev", "run", "oci"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    let bin = bundle.join("rootfs/bin");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("these tests need busybox-static");
    for applet in ["sh", "cat", "head", "tr", "dd", "sleep", "stty", "yes", "true"] {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    let exit_command = match ask.exit_command {
        true => json!(["/bin/busybox", "touch", dir.join("exit-command-ran")]),
        false => json!([]),
    };
    let onggi = json!({
        "id": id, "rootfs": "path", "interactive": ask.interactive, "init": false,
        "log": {
            "path": ask.log.clone().unwrap_or_else(|| dir.join("container.log")),
            "max_size": ask.max_size, "max_files": 2
        },
        "run_dir": dir.join("run"), "oci_root": dir.join("oci"),
        "exit_file": dir.join("exit.json"), "exit_command": exit_command,
    });
    fs::write(bundle.join("onggi.json"), onggi.to_string()).unwrap();
    fs::write(bundle.join("config.json"), config(id, ask).to_string()).unwrap();
}

fn config(id: &str, ask: &Ask) -> Value {
    let args = ask.args.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into(), ask.shell.clone()]);
    let namespaces: Vec<Value> = ["mount", "ipc", "uts"]
        .into_iter()
        .chain(ask.pid_namespace.then_some("pid"))
        .map(|kind| json!({ "type": kind }))
        .collect();
    let mut resources = json!({});
    if let Some(bytes) = ask.memory {
        resources["memory"] = json!({ "limit": bytes, "swap": bytes });
    }
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": ask.terminal, "args": args, "cwd": "/", "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 },
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
        ],
        "linux": {
            "namespaces": namespaces, "resources": resources,
            "cgroupsPath": format!("/{}", cgroup_name(id)),
        },
    })
}

/// No directory is shared with another test.
fn cgroup_name(id: &str) -> String {
    format!("onggi-monitor-test-{id}")
}

impl Monitor {
    /// The workload's pid.
    pub(crate) fn pid(&self) -> i32 {
        match self.report {
            MonitorReport::Started { pid, .. } => pid,
            ref other => panic!("{other:?}"),
        }
    }

    /// A new attach client.
    pub(crate) fn attach(&self) -> Client {
        Client(UnixStream::from(onggi_sys::unix::connect(&self.dir.join("run/attach.sock")).unwrap()))
    }

    /// The report of a second monitor on the same container.
    pub(crate) fn start_again(&self) -> MonitorReport {
        let (mut report, write) = std::io::pipe().unwrap();
        let second = spawn(&self.dir, write.into(), None);
        let mut text = String::new();
        report.read_to_string(&mut text).unwrap();
        wait_pidfd(second.pidfd.as_fd()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Sends the monitor a signal.
    pub(crate) fn signal(&self, number: i32) {
        pidfd_kill(self.spawned.pidfd.as_fd(), number).unwrap();
    }

    /// Waits for the monitor's end.
    pub(crate) fn wait(&mut self) -> Exit {
        self.ended = true;
        wait_pidfd(self.spawned.pidfd.as_fd()).unwrap()
    }

    /// The exit record, once the monitor has ended by itself.
    pub(crate) fn finish(&mut self) -> ExitRecord {
        assert!(matches!(self.wait(), Exit::Code(_)));
        self.record()
    }

    /// The exit record on disk.
    pub(crate) fn record(&self) -> ExitRecord {
        serde_json::from_slice(&fs::read(self.dir.join("exit.json")).unwrap()).unwrap()
    }

    /// All log entries of one stream, joined.
    pub(crate) fn logged(&self, stream: &str) -> String {
        let text = fs::read_to_string(&self.log).unwrap();
        let entries = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        entries.filter(|e| e["stream"] == stream).map(|e| e["log"].as_str().unwrap().to_owned()).collect()
    }

    /// Names left in the runtime directory.
    pub(crate) fn left_in_run_dir(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.join("run"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Cgroup directories of this container that still exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let top = PathBuf::from("/sys/fs/cgroup");
        // Version 2 has its groups in the top directory, version 1 below one directory for each controller.
        let v1 = fs::read_dir(&top).into_iter().flatten().flatten().map(|e| e.path());
        v1.chain([top]).map(|r| r.join(cgroup_name(&self.id))).filter(|p| p.exists()).collect()
    }

    /// Whether the monitor's lock is free (or was never made).
    pub(crate) fn lock_is_free(&self) -> bool {
        let lock = fs::File::open(self.dir.join("run/monitor.lock"));
        lock.map_or(true, |lock| lock.try_lock().is_ok())
    }

    /// Living processes in the container's cgroups, and copies of the monitor.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let bundle = self.dir.join("bundle").into_os_string().into_encoded_bytes();
        let ours = |pid: &i32| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            cmdline.split(|&b| b == 0).any(|word| word == bundle)
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        let mut found: Vec<i32> = all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(ours).collect();
        for dir in self.cgroups() {
            let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            found.extend(procs.lines().filter_map(|l| l.parse::<i32>().ok()));
        }
        found.retain(|&pid| lives(pid));
        found
    }

    /// One field of the monitor's smaps_rollup, in KiB.
    pub(crate) fn memory(&self, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.spawned.pid)).unwrap();
        let line = text.lines().find(|l| l.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Descriptors that the monitor has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.spawned.pid)).unwrap().count()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if !self.ended {
            let _ = pidfd_kill(self.spawned.pidfd.as_fd(), 9);
            let _ = wait_pidfd(self.spawned.pidfd.as_fd());
        }
        for dir in self.cgroups() {
            until(|| fs::remove_dir(&dir).is_ok() || !dir.exists());
        }
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// Waits for something that must become true.
pub(crate) fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "nothing happened in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process exists and is not a zombie.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.iter().rposition(|&b| b == b')').map_or(0, |i| i + 2);
    stat.get(after_name).is_some_and(|&state| state != b'Z' && state != b'X')
}

/// An attach client.
pub(crate) struct Client(pub(crate) UnixStream);

/// What a client got until its connection ended or the exit was announced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exit: Option<ExitRecord>,
}

impl Client {
    pub(crate) fn send(&mut self, kind: FrameKind, payload: &[u8]) {
        self.0.write_all(&header(kind, payload.len() as u32)).unwrap();
        self.0.write_all(payload).unwrap();
    }

    /// The next frame; `None` at the end.
    pub(crate) fn frame(&mut self) -> Option<(FrameKind, Vec<u8>)> {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut header = [0; 5];
        match self.0.read(&mut header[..1]) {
            Ok(0) => return None,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
            other => assert_eq!(other.unwrap(), 1),
        }
        self.0.read_exact(&mut header[1..]).unwrap();
        let len = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
        let mut payload = vec![0; len as usize];
        self.0.read_exact(&mut payload).unwrap();
        Some((FrameKind::from_byte(header[0]).unwrap(), payload))
    }

    /// Everything up to the exit frame or the end.
    pub(crate) fn receive(&mut self) -> Received {
        let mut all = Received::default();
        while let Some((kind, payload)) = self.frame() {
            match kind {
                FrameKind::Stdout => all.stdout.extend(payload),
                FrameKind::Stderr => all.stderr.extend(payload),
                FrameKind::Exit => {
                    all.exit = Some(serde_json::from_slice(&payload).unwrap());
                    break;
                }
                other => panic!("{other:?} is not for clients"),
            }
        }
        all
    }

    /// Reads stdout frames until `text` has been seen.
    pub(crate) fn expect(&mut self, text: &str) {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let (kind, payload) = self.frame().unwrap_or_else(|| panic!("{text:?} never came: {seen:?}"));
            assert_eq!(kind, FrameKind::Stdout);
            seen.extend(payload);
        }
    }
}

//! containerd with its `runc.v2` shim, driven by `ctr`.

use std::{
    fs,
    process::{Command, Stdio},
};

use onggi_tests::{
    Ran, eventually,
    image::{self, Flavour},
    machine::sh,
};

use crate::support::{Daemon, Runtime, Stage, on_terminal, program, run, runtimes};

const IMAGE: &str = "example.org/box:latest";

/// A containerd of the test's own with one image.
struct Containerd {
    daemon: Daemon,
    stage: Stage,
}

impl Containerd {
    fn new() -> Containerd {
        let stage = Stage::new();
        let dir = stage.dir();
        let config = format!(
            "version = 2\nroot = '{0}/root'\nstate = '{0}/state'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
             [grpc]\n  address = '{0}/c.sock'\n[ttrpc]\n  address = '{0}/c.sock.ttrpc'\n",
            dir.display()
        );
        fs::write(dir.join("config.toml"), config).expect("write the daemon's configuration");
        let mut command = Command::new(program("containerd", "containerd"));
        command.arg("--config").arg(dir.join("config.toml"));
        let ready = || ctr(&stage).arg("version").output().is_ok_and(|output| output.status.success());
        let daemon = Daemon::start(&mut command, &dir.join("containerd.log"), ready);
        image::busybox(Flavour::Oci).write_layout(&dir.join("layout"));
        sh(&format!("tar -C {0}/layout -cf {0}/image.tar .", dir.display()));
        let containerd = Containerd { daemon, stage };
        let archive = containerd.stage.dir().join("image.tar");
        containerd.ok(&[
            "images",
            "import",
            "--index-name",
            "unused",
            "--base-name",
            "example.org/box",
            &archive.to_string_lossy(),
        ]);
        containerd
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(ctr(&self.stage).args(args).stdin(Stdio::null()))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran}\n{}", self.daemon.log());
        ran.stdout.trim_end().to_owned()
    }

    /// `ctr run OPTIONS IMAGE ID COMMAND` with this runtime.
    fn start(&self, runtime: &Runtime, options: &[&str], rest: &[&str]) -> Ran {
        let path = runtime.path.to_string_lossy();
        let head = ["run", "--runtime", "io.containerd.runc.v2", "--runc-binary", &path];
        self.run(&[&head[..], options, &[IMAGE], rest].concat())
    }

    /// As [`Containerd::start`], on a terminal.
    fn typed(&self, rest: &str, input: &str) -> Ran {
        let command = ctr(&self.stage);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        on_terminal(&format!("{} {} {rest}", command.get_program().to_string_lossy(), args.join(" ")), input)
    }

    #[track_caller]
    fn status(&self, id: &str) -> String {
        let list = self.ok(&["tasks", "list"]);
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id));
        line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or("absent").to_owned()
    }

    #[track_caller]
    fn assert_nothing_left(mut self) {
        assert_eq!(self.ok(&["containers", "list", "-q"]), "", "containers are left");
        self.daemon.stop();
        self.stage.assert_nothing_left(&[]);
    }
}

/// The client. Its namespace is also the first directory of every container's cgroup.
fn ctr(stage: &Stage) -> Command {
    let mut command = Command::new(program("ctr", "containerd"));
    command.arg("-a").arg(stage.dir().join("c.sock")).arg("-n").arg(stage.cgroup_parent().trim_start_matches('/'));
    command
}

#[test]
fn containerd_run_passes_exit_codes_and_options() {
    let containerd = Containerd::new();
    let shared = containerd.stage.dir().display().to_string();
    let mount = format!("type=bind,src={shared},dst=/host,options=rbind:ro");
    for runtime in runtimes() {
        let script = |options: &[&str], script: &str| {
            let ran = containerd.start(&runtime, &[&["--rm"], options].concat(), &["one", "sh", "-c", script]);
            assert_eq!(ran.code, Some(0), "{}: {ran}", runtime.name);
            ran.stdout.trim_end().to_owned()
        };
        let ran = containerd.start(&runtime, &["--rm"], &["one", "sh", "-c", "echo out; exit 7"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), "out\n"), "{}: {ran}", runtime.name);
        let limits = ["-d", "--memory-limit", "67108864", "--cpu-quota", "50000", "--cpu-period", "100000"];
        containerd.start(&runtime, &limits, &["limited", "sleep", "100"]);
        for (file, value) in [("memory/{}/memory.limit_in_bytes", "67108864\n"), ("cpu/{}/cpu.cfs_quota_us", "50000\n")]
        {
            let cgroup = format!("{}/limited", containerd.stage.cgroup_parent().trim_start_matches('/'));
            let path = format!("/sys/fs/cgroup/{}", file.replace("{}", &cgroup));
            assert_eq!(fs::read_to_string(&path).expect("read the limit"), value, "{} {path}", runtime.name);
        }
        containerd.run(&["tasks", "delete", "--force", "limited"]);
        containerd.ok(&["containers", "delete", "limited"]);
        assert_eq!(script(&["--env", "A=b c", "--cwd", "/etc"], "echo $A; pwd"), "b c\n/etc");
        let mapped = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];
        assert_eq!(
            script(&mapped, "tr -s ' ' < /proc/self/uid_map; touch /made; stat -c %u /made"),
            " 0 100000 65536\n0"
        );
        let (joined, joined_link) = ("network:/proc/self/ns/net", "readlink /proc/self/ns/net");
        assert_eq!(script(&["--with-ns", joined], joined_link), sh(joined_link).trim_end(), "{}", runtime.name);
        assert_eq!(script(&["--no-pivot"], "cat /srv/layer"), "second layer");
        assert_eq!(
            script(
                &["--mount", &mount, "--read-only"],
                "ls /host | grep -c config.toml; touch /x 2>/dev/null || echo refused; touch /host/x 2>/dev/null || echo refused"
            ),
            "1\nrefused\nrefused"
        );
        assert_eq!(script(&["--net-host"], "readlink /proc/self/ns/net"), sh("readlink /proc/self/ns/net").trim_end());
        assert_eq!(script(&["--seccomp"], "grep Seccomp: /proc/self/status | tr -d '\\t'"), "Seccomp:2");
        assert_eq!(
            script(
                &["--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_SYS_TIME"],
                "grep CapEff /proc/self/status | tr -d '\\t'"
            ),
            "CapEff:00000000aa0425fa"
        );
        assert_eq!(script(&["--device", "/dev/kmsg"], "test -c /dev/kmsg && echo there"), "there");
        let ran = containerd.start(&runtime, &["--rm"], &["one", "no-such-program"]);
        assert_eq!(ran.code, Some(1), "{}: {ran}", runtime.name);
        assert!(
            ran.stderr.contains("OCI runtime create failed")
                && ran.stderr.contains("executable file not found in $PATH"),
            "{ran}"
        );
        let ran =
            containerd.start(&runtime, &["--rm", "--privileged"], &["one", "grep", "CapEff", "/proc/self/status"]);
        assert!(ran.stdout.trim_end().ends_with("ffffff"), "{ran}");
    }
    containerd.assert_nothing_left();
}

#[test]
fn containerd_tasks_are_executed_into_paused_listed_measured_killed_and_deleted() {
    let containerd = Containerd::new();
    for runtime in runtimes() {
        let name = runtime.name;
        let pid_file = containerd.stage.dir().join("pid");
        let script = "trap 'exit 3' TERM; while :; do sleep 0.1; done";
        let ran = containerd.start(
            &runtime,
            &["-d", "--pid-file", &pid_file.to_string_lossy()],
            &["keep", "sh", "-c", script],
        );
        assert_eq!(ran.code, Some(0), "{name}: {ran}");
        assert_eq!(containerd.status("keep"), "RUNNING");
        let pid = fs::read_to_string(&pid_file).expect("the pid file");
        assert!(containerd.ok(&["tasks", "ps", "keep"]).contains(pid.trim()), "{name}");
        assert_eq!(
            containerd.ok(&[
                "tasks",
                "exec",
                "--exec-id",
                "e1",
                "--cwd",
                "/etc",
                "--user",
                "1000",
                "keep",
                "sh",
                "-c",
                "pwd; id -u"
            ]),
            "/etc\n1000"
        );
        let ran = containerd.run(&["tasks", "exec", "--exec-id", "e2", "keep", "sh", "-c", "echo err >&2; exit 5"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(5), "err\n"), "{name}: {ran}");
        let ran = containerd.run(&["tasks", "exec", "--exec-id", "e3", "keep", "no-such-program"]);
        assert!(
            ran.code != Some(0)
                && ran.stderr.contains("OCI runtime exec failed")
                && ran.stderr.contains("executable file not found"),
            "{name}: {ran}"
        );
        containerd.ok(&["tasks", "exec", "-d", "--exec-id", "e4", "keep", "sleep", "100"]);
        eventually("the detached exec is listed", || {
            containerd.ok(&["tasks", "ps", "keep"]).contains("e4").then_some(())
        });
        containerd.ok(&["tasks", "pause", "keep"]);
        assert_eq!(containerd.status("keep"), "PAUSED", "{name}");
        assert_ne!(containerd.run(&["tasks", "exec", "--exec-id", "e5", "keep", "true"]).code, Some(0), "{name}");
        containerd.ok(&["tasks", "resume", "keep"]);
        assert_eq!(containerd.status("keep"), "RUNNING", "{name}");
        let metrics = containerd.ok(&["tasks", "metrics", "keep"]);
        let used = metrics.lines().find(|line| line.contains("memory.usage_in_bytes")).unwrap_or_default();
        assert!(used.split_whitespace().nth(1).is_some_and(|bytes| bytes != "0"), "{name}: {metrics}");
        assert_ne!(containerd.run(&["tasks", "delete", "keep"]).code, Some(0), "{name}: a running task is not deleted");
        containerd.ok(&["tasks", "kill", "-s", "SIGTERM", "keep"]);
        eventually("the task has stopped", || (containerd.status("keep") == "STOPPED").then_some(()));
        containerd.ok(&["tasks", "delete", "keep"]);
        // The same container again, in two steps; then everything at once.
        containerd.ok(&["tasks", "start", "-d", "keep"]);
        assert_eq!(containerd.status("keep"), "RUNNING", "{name}");
        containerd.ok(&["tasks", "exec", "-d", "--exec-id", "e6", "keep", "sleep", "100"]);
        containerd.ok(&["tasks", "kill", "-a", "-s", "SIGKILL", "keep"]);
        eventually("the task has stopped", || (containerd.status("keep") == "STOPPED").then_some(()));
        containerd.ok(&["tasks", "delete", "keep"]);
        containerd.ok(&["containers", "delete", "keep"]);
        containerd.start(&runtime, &["-d"], &["forced", "sleep", "100"]);
        containerd.run(&["tasks", "delete", "--force", "forced"]);
        containerd.ok(&["containers", "delete", "forced"]);
    }
    containerd.assert_nothing_left();
}

#[test]
fn containerd_terminals_work_for_run_and_exec() {
    let containerd = Containerd::new();
    for runtime in runtimes() {
        let path = runtime.path.display();
        let run = format!("run --rm -t --runtime io.containerd.runc.v2 --runc-binary {path} {IMAGE}");
        let ran = containerd.typed(&format!("{run} tty sh -c 'tty; read line; echo got-$line; exit 4'"), "words\n");
        assert_eq!(ran.code, Some(4), "{ran}");
        assert!(ran.stdout.contains("/dev/pts/0") && ran.stdout.contains("got-words"), "{ran}");
        containerd.start(&runtime, &["-d"], &["keep", "sleep", "100"]);
        let ran = containerd.typed("tasks exec -t --exec-id e1 keep sh -c 'tty; exit 6'", "");
        assert!(ran.code == Some(6) && ran.stdout.contains("/dev/pts/"), "{ran}");
        containerd.run(&["tasks", "delete", "--force", "keep"]);
        containerd.ok(&["containers", "delete", "keep"]);
    }
    containerd.assert_nothing_left();
}

#[test]
fn containerd_starts_again_beside_its_running_tasks() {
    let mut containerd = Containerd::new();
    for runtime in runtimes() {
        containerd.start(&runtime, &["-d"], &["keep", "sleep", "100"]);
        containerd.daemon.stop();
        let mut command = Command::new(program("containerd", "containerd"));
        command.arg("--config").arg(containerd.stage.dir().join("config.toml"));
        let stage = &containerd.stage;
        let ready = || ctr(stage).arg("version").output().is_ok_and(|output| output.status.success());
        containerd.daemon = Daemon::start(&mut command, &stage.dir().join("containerd.log"), ready);
        assert_eq!(containerd.status("keep"), "RUNNING", "{}", runtime.name);
        assert_eq!(containerd.ok(&["tasks", "exec", "--exec-id", "e1", "keep", "echo", "still"]), "still");
        containerd.run(&["tasks", "delete", "--force", "keep"]);
        containerd.ok(&["containers", "delete", "keep"]);
    }
    containerd.assert_nothing_left();
}

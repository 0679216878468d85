//! Podman with conmon, as root: containers, pods, `kube play`, health checks.

use std::{
    fs,
    process::{Command, Stdio},
};

use onggi_tests::{
    Ran, eventually,
    machine::{self, sh},
};

use crate::support::{
    Runtime, Stage, cgroup_paths, machine_withholds_capabilities, on_terminal, program, run, runtimes,
};

/// Podman on a store of its own with one runtime.
pub(crate) struct Podman<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) runtime: Runtime,
}

/// Runs a script under each runtime in turn, with an empty store each time.
pub(crate) fn with_each(script: impl Fn(&Podman<'_>)) {
    let stage = Stage::new();
    // Podman does not know hybrid control groups: it takes every directory there for a controller of version 1.
    machine::without_unified_cgroups();
    lend_identities(&stage);
    for runtime in runtimes() {
        let podman = Podman { stage: &stage, runtime };
        let image = stage.image_tar();
        podman.ok(&["import", "-q", "-c", "ENV PATH=/bin", "-c", "CMD [\"sh\"]", &image.to_string_lossy(), "box"]);
        script(&podman);
        assert_eq!(podman.ok(&["ps", "-aq"]), "", "{}: containers are left", podman.runtime.name);
        sh(&format!("umount -l {}/root/overlay 2>/dev/null || true", podman.dir()));
        stage.assert_nothing_left(&[]);
    }
}

/// `--userns=auto` takes its ranges from those of a user `containers`: files of this machine alone.
fn lend_identities(stage: &Stage) {
    for (file, line) in [("subuid", "containers:200000:1000000\n"), ("subgid", "containers:200000:1000000\n")] {
        let own = stage.dir().join(file);
        fs::write(&own, line).expect("write ranges of identities");
        sh(&format!("touch /etc/{file}; mount --bind {} /etc/{file}", own.display()));
    }
}

impl Podman<'_> {
    pub(crate) fn dir(&self) -> String {
        format!("{}/{}", self.stage.dir().display(), self.runtime.name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let dir = self.dir();
        fs::create_dir_all(format!("{dir}/tmp")).expect("make podman's directories");
        let mut command = Command::new(program("podman", "podman"));
        program("conmon", "conmon");
        command.args(["--root", &format!("{dir}/root"), "--runroot", &format!("{dir}/run")]);
        command.args(["--tmpdir", &format!("{dir}/tmp"), "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.arg("--runtime").arg(&self.runtime.path).args(args).env("HOME", &dir).stdin(Stdio::null());
        // conmon writes a file `oom` where it is started when the kernel has killed for want of memory.
        command.current_dir(&dir);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout.trim_end().to_owned()
    }

    /// `podman run` below the stage's cgroup and without a network.
    fn start(&self, options: &[&str], rest: &[&str]) -> Ran {
        let parent = self.stage.cgroup_parent();
        let head = ["run", "--cgroup-parent", &parent, "--network", "none"];
        self.run(&[&head[..], options, &["box"], rest].concat())
    }

    /// The output of `podman run --rm OPTIONS box sh -c SCRIPT`.
    #[track_caller]
    pub(crate) fn script(&self, options: &[&str], script: &str) -> String {
        let ran = self.start(&[&["--rm"], options].concat(), &["sh", "-c", script]);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout.trim_end().to_owned()
    }

    fn typed(&self, args: &[&str], input: &str) -> Ran {
        let command = self.command(args);
        let words = command.get_args().map(|arg| format!("'{}'", arg.to_string_lossy()));
        let line = words.collect::<Vec<_>>().join(" ");
        on_terminal(&format!("{} {line}", command.get_program().to_string_lossy()), input)
    }
}

#[test]
fn podman_run_options_are_what_the_program_sees() {
    with_each(|podman| {
        let ran = podman.start(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(7), "out\n", "err\n"), "{ran}");
        assert_eq!(podman.start(&["--rm"], &["no-such-program"]).code, Some(127));
        assert_eq!(podman.start(&["--rm"], &["/etc/not-executable"]).code, Some(126));
        assert_eq!(podman.start(&["--rm"], &["/etc"]).code, Some(126));
        let memory = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
        assert_eq!(podman.script(&["-m", "64m", "--pids-limit", "33", "--cpus", "0.5"], memory), "67108864\n33\n50000");
        assert_eq!(
            podman.script(
                &["--cap-drop", "all", "--cap-add", "net_admin"],
                "grep CapEff /proc/self/status | tr -d '\\t'"
            ),
            "CapEff:0000000000001000"
        );
        assert_eq!(
            podman.script(&["-u", "user", "-w", "/etc", "-e", "A=b c"], "id -un; pwd; echo $A; echo $HOME"),
            "user\n/etc\nb c\n/home/user"
        );
        assert_eq!(
            podman.script(
                &["--read-only", "--tmpfs", "/t:size=1m"],
                "touch /x 2>/dev/null || echo refused; stat -f -c %b /t"
            ),
            "refused\n256"
        );
        assert_eq!(
            podman.script(
                &["--ulimit", "nofile=100:200", "--ulimit", "nproc=500:600", "--hostname", "jar"],
                "ulimit -Sn; ulimit -Hn; hostname"
            ),
            "100\n200\njar"
        );
        assert_eq!(podman.script(&["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward"), "1");
        assert_eq!(podman.script(&["--init"], "cat /proc/1/comm"), "podman-init");
        assert_eq!(
            podman.script(
                &["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined"],
                "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'"
            ),
            "NoNewPrivs:1\nSeccomp:0"
        );
        assert_eq!(podman.script(&["-v", "kept:/k"], "echo 1 > /k/f; cat /k/f"), "1");
        podman.ok(&["volume", "rm", "kept"]);
        let own = podman.script(&["--userns", "auto"], "tr -s ' ' < /proc/self/uid_map | cut -d' ' -f2,4");
        assert!(own.starts_with("0 ") && !own.contains("4294967295"), "{own}");
        assert_eq!(podman.script(&["--uidmap", "0:300000:70000"], "id -u; touch /f; stat -c %u /f"), "0\n0");
        let ran = podman.start(&["--rm", "--privileged"], &["sh", "-c", "mount -t tmpfs none /tmp && echo all"]);
        if podman.runtime.name == "onggi" || !machine_withholds_capabilities() {
            assert_eq!(ran.stdout, "all\n", "{ran}");
        }
    });
}

#[test]
fn podman_exec_stop_pause_and_kill_act_on_a_running_container() {
    with_each(|podman| {
        let script = "trap 'exit 3' TERM; while :; do sleep 0.1; done";
        let ran = podman.start(&["-d", "--name", "keep", "-m", "64m"], &["sh", "-c", script]);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(podman.ok(&["exec", "keep", "cat", "/proc/1/comm"]), "sh");
        assert_eq!(
            podman.ok(&["exec", "-u", "1000", "-w", "/etc", "-e", "A=b", "keep", "sh", "-c", "id -u; pwd; echo $A"]),
            "1000\n/etc\nb"
        );
        assert_eq!(podman.run(&["exec", "keep", "sh", "-c", "exit 5"]).code, Some(5));
        assert_eq!(podman.run(&["exec", "keep", "no-such"]).code, Some(127));
        assert_eq!(podman.run(&["exec", "keep", "/etc/not-executable"]).code, Some(126));
        podman.ok(&["exec", "-d", "keep", "sh", "-c", "echo late > /tmp/late"]);
        eventually("the detached exec has written", || {
            (podman.run(&["exec", "keep", "cat", "/tmp/late"]).stdout == "late\n").then_some(())
        });
        let ran = podman.typed(&["exec", "-it", "keep", "sh", "-c", "tty; read x; echo [$x]; exit 4"], "word\n");
        assert!(ran.code == Some(4) && ran.stdout.contains("/dev/pts/") && ran.stdout.contains("[word]"), "{ran}");
        podman.ok(&["pause", "keep"]);
        assert_eq!(podman.ok(&["inspect", "-f", "{{.State.Status}}", "keep"]), "paused");
        podman.ok(&["unpause", "keep"]);
        assert!(podman.ok(&["top", "keep"]).contains("trap"));
        assert!(podman.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "keep"]).contains("67.11MB"));
        podman.ok(&["update", "--memory", "96m", "--cpus", "0.25", "keep"]);
        let files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
        assert_eq!(podman.ok(&["exec", "keep", "sh", "-c", files]), "100663296\n25000");
        podman.ok(&["stop", "-t", "20", "keep"]);
        assert_eq!(podman.ok(&["inspect", "-f", "{{.State.ExitCode}}", "keep"]), "3");
        podman.ok(&["start", "keep"]);
        podman.ok(&["kill", "keep"]);
        assert_eq!(podman.ok(&["wait", "keep"]), "137");
        podman.ok(&["restart", "-t", "1", "keep"]);
        podman.ok(&["rm", "-f", "-t", "0", "keep"]);
        let eater = "head -c 100m /dev/zero | tail > /dev/null; exit $?";
        podman.start(&["--name", "eater", "-m", "16m", "--memory-swap", "16m"], &["sh", "-c", eater]);
        assert_eq!(podman.ok(&["inspect", "-f", "{{.State.ExitCode}}", "eater"]), "137");
        podman.ok(&["rm", "eater"]);
        let ran = podman.typed(
            &["run", "--rm", "-it", "--network", "none", "box", "sh", "-c", "tty; read x; echo [$x]; exit 9"],
            "word\n",
        );
        assert!(ran.code == Some(9) && ran.stdout.contains("/dev/pts/0") && ran.stdout.contains("[word]"), "{ran}");
    });
}

#[test]
fn podman_pods_share_namespaces_and_kube_play_makes_them() {
    with_each(|podman| {
        program("catatonit", "catatonit");
        podman.ok(&["pod", "create", "--name", "pod", "--network", "none", "--share", "net,ipc,uts,pid"]);
        let links = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done";
        podman.ok(&["run", "-d", "--pod", "pod", "--name", "first", "box", "sleep", "100"]);
        let first = podman.ok(&["exec", "first", "sh", "-c", links]);
        assert_eq!(podman.ok(&["run", "--rm", "--pod", "pod", "box", "sh", "-c", links]), first);
        assert!(podman.ok(&["exec", "first", "cat", "/proc/1/comm"]).contains("catatonit"));
        podman.ok(&["pod", "stop", "-t", "0", "pod"]);
        podman.ok(&["pod", "rm", "pod"]);

        let file = format!("{}/pod.yaml", podman.dir());
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: played}\nspec:\n  containers:\n  - name: one\n    image: localhost/box:latest\n    \
                    command: [sh, -c, 'echo $A > /dev/termination; sleep 100']\n    env: [{name: A, value: kube}]\n    \
                    securityContext: {runAsUser: 1000, capabilities: {drop: [ALL]}}\n    resources: {limits: {memory: 64Mi}}\n";
        fs::write(&file, text.replace("/dev/termination", "/tmp/said")).expect("write the pod");
        podman.ok(&["kube", "play", "--network", "none", &file]);
        eventually("the pod's program has written", || {
            (podman.run(&["exec", "played-one", "cat", "/tmp/said"]).stdout == "kube\n").then_some(())
        });
        assert_eq!(
            podman.ok(&["exec", "played-one", "sh", "-c", "id -u; cat /sys/fs/cgroup/memory/memory.limit_in_bytes"]),
            "1000\n67108864"
        );
        podman.ok(&["kube", "down", &file]);
        podman.run(&["rmi", "-af"]);
        let pods: Vec<String> =
            cgroup_paths("libpod_parent").into_iter().filter(|path| path.contains("/libpod-")).collect();
        assert!(pods.is_empty(), "{pods:?}");
    });
}

#[test]
fn podman_health_checks_and_bridges_work() {
    with_each(|podman| {
        program("catatonit", "catatonit");
        let parent = podman.stage.cgroup_parent();
        podman.start(
            &["-d", "--name", "sick", "--health-cmd", "test -e /tmp/well", "--health-retries", "1"],
            &["sleep", "100"],
        );
        assert_eq!(podman.run(&["healthcheck", "run", "sick"]).code, Some(1));
        podman.ok(&["exec", "sick", "touch", "/tmp/well"]);
        assert_eq!(podman.run(&["healthcheck", "run", "sick"]).code, Some(0));
        podman.ok(&["rm", "-f", "-t", "0", "sick"]);

        if !std::path::Path::new("/usr/lib/cni/bridge").is_file() {
            panic!("/usr/lib/cni/bridge is missing; it is in the Debian package containernetworking-plugins");
        }
        let script = "echo page > /tmp/index.html; httpd -f -h /tmp";
        podman.ok(&["run", "-d", "--cgroup-parent", &parent, "--name", "server", "box", "sh", "-c", script]);
        let address = podman.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "server"]);
        let page = eventually("the server answers over the bridge", || {
            let fetch = format!("wget -q -O - http://{address}/");
            let ran = podman.run(&["run", "--rm", "--cgroup-parent", &parent, "box", "sh", "-c", &fetch]);
            (ran.code == Some(0)).then_some(ran.stdout)
        });
        assert_eq!(page, "page\n");
        podman.ok(&["rm", "-f", "-t", "0", "server"]);
    });
}

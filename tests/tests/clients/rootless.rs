//! Podman without root: a user of this test alone, on a user namespace that Podman makes.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::{Command, Stdio},
};

use onggi_tests::{
    Ran,
    machine::{self, sh},
};

use crate::support::{Runtime, Stage, on_terminal, program, run, runtimes};

/// The user's number, and the first of the ids that it may use.
const USER: u32 = 12_777;
const FIRST_ID: u32 = 400_000;

/// A user with a home, a runtime directory, and a copy of the runtime: the workspace may be where only root
/// can go.
struct User {
    home: PathBuf,
    runtime: Runtime,
}

/// Adds the user to this machine's own view of /etc.
fn add_user(stage: &Stage) {
    let entries = [
        ("passwd", format!("jar:x:{USER}:{USER}::{}:/bin/sh\n", stage.dir().display())),
        ("group", format!("jar:x:{USER}:\n")),
        ("subuid", format!("jar:{FIRST_ID}:65536\n")),
        ("subgid", format!("jar:{FIRST_ID}:65536\n")),
    ];
    for (file, line) in entries {
        let there = fs::read_to_string(format!("/etc/{file}")).unwrap_or_default();
        let kept = if file.starts_with("sub") { "" } else { &there };
        let own = stage.dir().join(file);
        fs::write(&own, format!("{kept}{line}")).expect("write the user's entry");
        sh(&format!("touch /etc/{file}; mount --bind {} /etc/{file}", own.display()));
    }
}

impl User {
    fn new(stage: &Stage, mut runtime: Runtime) -> User {
        let home = stage.dir().join(runtime.name);
        for dir in [home.clone(), home.join("run")] {
            fs::create_dir(&dir).expect("make the user's directory");
            chown(&dir, Some(USER), Some(USER)).expect("give it to the user");
            fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).expect("close it to others");
        }
        let copy = stage.dir().join(format!("{}-oci", runtime.name));
        fs::copy(&runtime.path, &copy).expect("copy the runtime");
        runtime.path = copy;
        User { home, runtime }
    }

    fn command(&self, args: &[&str]) -> Command {
        let id = USER.to_string();
        program("newuidmap", "uidmap");
        let mut command = Command::new(program("setpriv", "util-linux"));
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", "env", "-i"]);
        command.arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin").arg(format!("HOME={}", self.home.display()));
        command.arg(format!("XDG_RUNTIME_DIR={}/run", self.home.display())).arg(program("podman", "podman"));
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime"]);
        command.arg(&self.runtime.path).args(args).current_dir(&self.home).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout.trim_end().to_owned()
    }

    #[track_caller]
    fn script(&self, options: &[&str], script: &str) -> String {
        self.ok(&[&["run", "--rm"], options, &["box", "sh", "-c", script]].concat())
    }

    fn typed(&self, args: &[&str], input: &str) -> Ran {
        let command = self.command(args);
        let words = command.get_args().map(|arg| format!("'{}'", arg.to_string_lossy()));
        let line = words.collect::<Vec<_>>().join(" ");
        on_terminal(&format!("cd {}; {} {line}", self.home.display(), command.get_program().to_string_lossy()), input)
    }
}

#[test]
fn podman_without_root_runs_executes_and_stops_containers_and_pods() {
    let stage = Stage::new();
    machine::without_unified_cgroups();
    add_user(&stage);
    fs::set_permissions(stage.dir(), PermissionsExt::from_mode(0o755)).expect("open the directory");
    let image = stage.image_tar();
    for runtime in runtimes() {
        let user = User::new(&stage, runtime);
        let name = user.runtime.name;
        user.ok(&["import", "-q", "-c", "ENV PATH=/bin", &image.to_string_lossy(), "box"]);

        let map = "tr -s ' ' < /proc/self/uid_map; id -u";
        let own = format!(" 0 {USER} 1\n 1 {FIRST_ID} 65536\n0");
        assert_eq!(user.script(&["--network", "none"], map), own, "{name}");
        // No group is delegated: what the caller is in is for reading.
        let groups = "cat /sys/fs/cgroup/pids/pids.current > /dev/null && echo seen; ls /sys/fs/cgroup | grep -c -E '^(cpu|memory|pids)$'; \
             mkdir /sys/fs/cgroup/pids/inner 2> /dev/null || echo refused";
        assert_eq!(user.script(&["--network", "none"], groups), "3\nrefused", "{name}");
        let files = format!("{}:/home", user.home.display());
        let keep = ["--network", "none", "--userns", "keep-id", "-v", &files];
        assert_eq!(
            user.script(&keep, "id -u; id -g; touch /home/made; stat -c %u /home/made"),
            format!("{USER}\n{USER}\n{USER}"),
            "{name}"
        );
        let host = "readlink /proc/self/ns/net";
        assert_eq!(user.script(&["--network", "host"], host), sh(host).trim_end(), "{name}");
        assert_eq!(
            user.script(&["--network", "none", "-u", "user", "--init"], "id -un; cat /proc/1/comm"),
            "user\npodman-init",
            "{name}"
        );
        let refused =
            "touch /x 2>/dev/null || echo refused; echo t > /t/f && cat /t/f; ls /dev | grep -c -E '^(null|zero|tty)$'";
        assert_eq!(
            user.script(&["--network", "none", "--read-only", "--tmpfs", "/t"], refused),
            "refused\nt\n3",
            "{name}"
        );
        assert_eq!(
            user.run(&["run", "--rm", "--network", "none", "box", "sh", "-c", "exit 7"]).code,
            Some(7),
            "{name}"
        );
        assert_eq!(user.run(&["run", "--rm", "--network", "none", "box", "no-such"]).code, Some(127), "{name}");
        let typed = user.typed(
            &["run", "--rm", "-it", "--network", "none", "box", "sh", "-c", "tty; read x; echo [$x]; exit 9"],
            "word\n",
        );
        assert!(
            typed.code == Some(9) && typed.stdout.contains("/dev/pts/0") && typed.stdout.contains("[word]"),
            "{name}: {typed}"
        );

        let script = "trap 'exit 3' TERM; while :; do sleep 0.1; done";
        user.ok(&["run", "-d", "--network", "none", "--name", "keep", "box", "sh", "-c", script]);
        assert_eq!(user.ok(&["exec", "-u", "1000", "keep", "id", "-u"]), "1000", "{name}");
        assert_eq!(user.run(&["exec", "keep", "sh", "-c", "exit 5"]).code, Some(5), "{name}");
        assert!(user.ok(&["top", "keep"]).contains("trap"), "{name}");
        user.ok(&["stop", "-t", "20", "keep"]);
        assert_eq!(user.ok(&["inspect", "-f", "{{.State.ExitCode}}", "keep"]), "3", "{name}");
        user.ok(&["rm", "keep"]);

        user.ok(&["pod", "create", "--name", "pod", "--network", "none"]);
        assert_eq!(user.ok(&["run", "--rm", "--pod", "pod", "box", "echo", "in the pod"]), "in the pod", "{name}");
        user.ok(&["pod", "rm", "-f", "-t", "0", "pod"]);
        assert_eq!(user.ok(&["ps", "-aq"]), "", "{name}: containers are left");
    }
    stage.assert_nothing_left(&[]);
}

//! Podman's rarer ways as root: hooks, inherited descriptors, masks, namespaces by path, root directories, cp,
//! notifications of readiness.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use onggi_tests::machine::sh;

use crate::podman::with_each;
use crate::support::run;

#[test]
fn podman_hooks_get_the_state_and_descriptors_are_handed_down() {
    with_each(|podman| {
        let (dir, name) = (podman.dir(), podman.runtime.name);
        let hooks = format!("{dir}/hooks");
        fs::create_dir_all(&hooks).expect("make the directory of hooks");
        let script = format!("{dir}/hook.sh");
        fs::write(
            &script,
            format!("#!/bin/sh\necho $1 $(cat | grep -o '\"status\": *\"[a-z]*\"' | tr -d ' ') >> {dir}/hooks.log\n"),
        )
        .expect("write the hook");
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("make it a program");
        for stage in ["prestart", "createRuntime", "poststart", "poststop"] {
            let text = format!(
                r#"{{"version":"1.0.0","hook":{{"path":"{script}","args":["hook.sh","{stage}"]}},"when":{{"always":true}},"stages":["{stage}"]}}"#
            );
            fs::write(format!("{hooks}/{stage}.json"), text).expect("write the hook's configuration");
        }
        let parent = podman.stage.cgroup_parent();
        let start =
            ["--hooks-dir", &hooks, "run", "--rm", "--cgroup-parent", &parent, "--network", "none", "box", "true"];
        podman.ok(&start);
        let log = fs::read_to_string(format!("{dir}/hooks.log")).expect("the hooks have run");
        // runc 1.1 shows the state of a moment ago here.
        let log = log.replace("poststart \"status\":\"created\"", "poststart \"status\":\"running\"");
        let mut lines: Vec<&str> = log.lines().collect();
        lines.sort_unstable();
        let wanted = [
            "createRuntime \"status\":\"creating\"",
            "poststart \"status\":\"running\"",
            "poststop \"status\":\"stopped\"",
            "prestart \"status\":\"creating\"",
        ];
        assert_eq!(lines, wanted, "{name}");

        fs::write(format!("{dir}/third"), "third descriptor\n").expect("write a file");
        let command = podman.command(&[
            "run",
            "--rm",
            "--cgroup-parent",
            &parent,
            "--network",
            "none",
            "--preserve-fds",
            "1",
            "box",
            "sh",
            "-c",
            "cat <&3",
        ]);
        let ran = run(Command::new("bash")
            .args(["-c", &format!("exec 3< {dir}/third; exec \"$@\""), "bash"])
            .arg(command.get_program())
            .args(command.get_args())
            .env("HOME", &dir));
        assert_eq!(ran.stdout, "third descriptor\n", "{name}: {ran}");
    });
}

#[test]
fn podman_masks_joins_by_path_and_runs_root_directories() {
    with_each(|podman| {
        let name = podman.runtime.name;
        assert_eq!(podman.script(&["--security-opt", "mask=/etc/passwd"], "wc -c < /etc/passwd"), "0", "{name}");
        assert_eq!(
            podman.script(
                &["--security-opt", "unmask=ALL"],
                "grep -c -E ' /proc/(acpi|kcore|keys|scsi) ' /proc/self/mountinfo; true"
            ),
            "0",
            "{name}"
        );
        assert_eq!(podman.script(&["--umask", "0077"], "umask; touch /f; stat -c %a /f"), "0077\n600", "{name}");
        assert_eq!(
            podman.script(&["--security-opt", "proc-opts=hidepid=2"], "grep -c 'proc /proc .*hidepid=' /proc/mounts"),
            "1",
            "{name}"
        );
        assert_eq!(
            podman.script(&["--pid", "host", "--uts", "host", "--ipc", "host"], "readlink /proc/self/ns/uts"),
            sh("readlink /proc/self/ns/uts").trim_end(),
            "{name}"
        );
        assert_eq!(
            podman.script(&["--cgroupns", "host"], "readlink /proc/self/ns/cgroup"),
            sh("readlink /proc/self/ns/cgroup").trim_end(),
            "{name}"
        );
        assert_eq!(
            podman.script(
                &["--device", "/dev/kmsg:/dev/log:r", "--cap-add", "SYSLOG"],
                "exec 3< /dev/log && echo opened; (: > /dev/log) 2>/dev/null || echo refused"
            ),
            "opened\nrefused",
            "{name}"
        );
        assert_eq!(
            podman.script(
                &["--mount", "type=tmpfs,destination=/t,tmpfs-size=1048576,tmpfs-mode=0700"],
                "stat -c %a /t; stat -f -c %b /t"
            ),
            "700\n256",
            "{name}"
        );
        // A limit of 0 to the runtime.
        assert_eq!(podman.script(&["--pids-limit", "-1"], "cat /sys/fs/cgroup/pids/pids.max"), "max", "{name}");
        // The image has no such directory.
        assert_eq!(podman.script(&["--read-only"], "stat -c %a /run; touch /run/x; ls /run"), "1777\nx", "{name}");
        assert_eq!(podman.script(&["--oom-score-adj", "321"], "cat /proc/self/oom_score_adj"), "321", "{name}");

        sh("ip netns add joined");
        let link = sh("ip netns exec joined readlink /proc/self/ns/net");
        let ran = podman.run(&[
            "run",
            "--rm",
            "--cgroup-parent",
            &podman.stage.cgroup_parent(),
            "--network",
            "ns:/run/netns/joined",
            "box",
            "readlink",
            "/proc/self/ns/net",
        ]);
        assert_eq!(ran.stdout, link, "{name}: {ran}");
        sh("ip netns del joined");

        let dir = podman.dir();
        let rootfs = format!("{dir}/rootfs");
        fs::create_dir_all(&rootfs).expect("make a directory");
        sh(&format!("tar -xf {}/box.tar -C {rootfs}", podman.stage.dir().display()));
        let ran = podman.run(&[
            "run",
            "--rm",
            "--cgroup-parent",
            &podman.stage.cgroup_parent(),
            "--network",
            "none",
            "--rootfs",
            &rootfs,
            "/bin/echo",
            "directory",
        ]);
        assert_eq!(ran.stdout, "directory\n", "{name}: {ran}");
    });
}

#[test]
fn podman_copies_commits_logs_and_is_told_of_readiness() {
    with_each(|podman| {
        let (dir, name) = (podman.dir(), podman.runtime.name);
        let parent = podman.stage.cgroup_parent();
        podman.ok(&[
            "create",
            "--name",
            "two",
            "--cgroup-parent",
            &parent,
            "--network",
            "none",
            "box",
            "sh",
            "-c",
            "echo one; echo two >&2; sleep 100",
        ]);
        podman.ok(&["init", "two"]);
        assert_eq!(podman.ok(&["inspect", "-f", "{{.State.Status}}", "two"]), "initialized", "{name}");
        podman.ok(&["start", "two"]);
        fs::write(format!("{dir}/in"), "carried\n").expect("write a file");
        podman.ok(&["cp", &format!("{dir}/in"), "two:/tmp/in"]);
        assert_eq!(podman.ok(&["exec", "two", "cat", "/tmp/in"]), "carried", "{name}");
        podman.ok(&["commit", "-q", "two", "made"]);
        let logs = podman.run(&["logs", "two"]);
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\n", "two\n"), "{name}");
        podman.ok(&["rm", "-f", "-t", "0", "two"]);
        assert_eq!(
            podman.ok(&["run", "--rm", "--cgroup-parent", &parent, "--network", "none", "made", "cat", "/tmp/in"]),
            "carried",
            "{name}"
        );

        // systemd's protocol: a datagram to the socket of NOTIFY_SOCKET.
        let socket = format!("{dir}/notify.sock");
        let listener = std::os::unix::net::UnixDatagram::bind(&socket).expect("make the notify socket");
        listener.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("bound the wait");
        let mut command = podman.command(&[
            "run",
            "-d",
            "--name",
            "ready",
            "--sdnotify",
            "conmon",
            "--cgroup-parent",
            &parent,
            "--network",
            "none",
            "box",
            "sleep",
            "100",
        ]);
        let ran = run(command.env("NOTIFY_SOCKET", &socket));
        assert_eq!(ran.code, Some(0), "{name}: {ran}");
        let mut said = String::new();
        while !said.contains("READY=1") {
            let mut bytes = [0; 512];
            let length = listener.recv(&mut bytes).expect("a notification arrives");
            said.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        assert!(said.contains("MAINPID="), "{name}: {said}");
        podman.ok(&["rm", "-f", "-t", "0", "ready"]);
    });
}

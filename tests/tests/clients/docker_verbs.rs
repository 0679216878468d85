//! What `docker` does with a container that is there: exec, pause, update, stop, logs, cp and the rest.

use std::fs;

use onggi_tests::eventually;

use crate::{docker::Docker, support::machine_withholds_capabilities};

const RUNTIMES: [&str; 2] = ["runc", "onggi"];

/// A container `keep` that sleeps, or ends at once on TERM.
fn keep(docker: &Docker, runtime: &str, options: &[&str]) {
    let script = "trap 'exit 3' TERM; while :; do sleep 0.1; done";
    let start = ["run", "-d", "--name", "keep", "--runtime", runtime, "--network", "none"];
    docker.ok(&[&start, options, &["box", "sh", "-c", script]].concat());
}

#[test]
fn docker_exec_runs_beside_the_program_with_its_own_options() {
    let docker = Docker::new();
    for runtime in RUNTIMES {
        keep(&docker, runtime, &[]);
        assert_eq!(docker.ok(&["exec", "keep", "cat", "/proc/1/comm"]), "sh");
        assert_eq!(
            docker.ok(&["exec", "-u", "1000:2000", "keep", "id"]),
            "uid=1000(user) gid=2000(more) groups=2000(more)"
        );
        assert_eq!(
            docker.ok(&[
                "exec",
                "-u",
                "user",
                "-e",
                "A=b c",
                "-w",
                "/etc",
                "keep",
                "sh",
                "-c",
                "echo $A; pwd; echo $HOME"
            ]),
            "b c\n/etc\n/home/user"
        );
        let status = docker.ok(&["exec", "keep", "grep", "-E", "^(Seccomp|CapEff|CapInh):", "/proc/self/status"]);
        let first = docker.ok(&["exec", "keep", "grep", "-E", "^(Seccomp|CapEff|CapInh):", "/proc/1/status"]);
        assert_eq!(status, first, "an exec is confined as the container is: {runtime}");
        let all = docker.run(&["exec", "--privileged", "keep", "grep", "CapEff", "/proc/self/status"]);
        if runtime == "runc" && machine_withholds_capabilities() {
            assert!(all.stdout.contains("unable to apply caps: operation not permitted"), "{all}");
        } else {
            assert!(all.stdout.trim_end().ends_with("ffffff"), "{all}");
        }
        for (command, codes) in [
            (&["sh", "-c", "exit 5"][..], 5..=5),
            (&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137..=137),
            (&["/etc/not-executable"], 126..=126),
            // 127 since Docker 24.
            (&["no-such"], 126..=127),
        ] {
            let ran = docker.run(&[&["exec", "keep"], command].concat());
            assert!(ran.code.is_some_and(|code| codes.contains(&code)), "{runtime}: {ran}");
        }
        docker.ok(&["exec", "-d", "keep", "sh", "-c", "echo late > /tmp/late"]);
        eventually("the detached exec has written", || {
            (docker.run(&["exec", "keep", "cat", "/tmp/late"]).stdout == "late\n").then_some(())
        });
        let typed = docker.typed("exec -it keep sh -c 'tty; read x; echo [$x]'", "word\n");
        assert!(typed.stdout.contains("/dev/pts/") && typed.stdout.contains("[word]"), "{runtime}: {typed}");
        let piped = docker.with_input(&["exec", "-i", "keep", "wc", "-c"], "12345");
        assert_eq!(piped.stdout.trim(), "5", "{piped}");
        docker.ok(&["rm", "-f", "keep"]);
    }
    docker.assert_nothing_left();
}

#[test]
fn docker_pause_top_stats_and_update_act_on_a_running_container() {
    let docker = Docker::new();
    for runtime in RUNTIMES {
        keep(&docker, runtime, &["-m", "64m"]);
        docker.ok(&["pause", "keep"]);
        assert_eq!(docker.inspect("{{.State.Status}}", "keep"), "paused");
        assert_ne!(docker.run(&["exec", "keep", "true"]).code, Some(0));
        docker.ok(&["unpause", "keep"]);
        assert_eq!(docker.inspect("{{.State.Status}}", "keep"), "running");
        assert_eq!(docker.ok(&["exec", "keep", "echo", "again"]), "again");
        assert!(docker.ok(&["top", "keep"]).contains("trap"), "{runtime}");
        let stats = docker.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "keep"]);
        assert!(stats.contains("/ 64MiB") && !stats.starts_with("0B"), "{runtime}: {stats}");
        docker.ok(&[
            "update",
            "-m",
            "96m",
            "--memory-swap",
            "-1",
            "--cpu-shares",
            "300",
            "--pids-limit",
            "44",
            "--cpus",
            "0.25",
            "--cpuset-cpus",
            "0",
            "keep",
        ]);
        for (file, value) in [
            ("memory/memory.limit_in_bytes", "100663296"),
            ("cpu/cpu.shares", "300"),
            ("pids/pids.max", "44"),
            ("cpu/cpu.cfs_quota_us", "25000"),
            ("cpuset/cpuset.cpus", "0"),
        ] {
            assert_eq!(
                docker.ok(&["exec", "keep", "cat", &format!("/sys/fs/cgroup/{file}")]),
                value,
                "{runtime} {file}"
            );
        }
        docker.ok(&["rm", "-f", "keep"]);
    }
    docker.assert_nothing_left();
}

#[test]
fn docker_stop_kill_restart_and_wait_end_it_with_the_right_code() {
    let docker = Docker::new();
    for runtime in RUNTIMES {
        keep(&docker, runtime, &["--restart", "no"]);
        docker.ok(&["stop", "-t", "20", "keep"]);
        assert_eq!(docker.inspect("{{.State.ExitCode}} {{.State.Status}}", "keep"), "3 exited", "{runtime}");
        docker.ok(&["start", "keep"]);
        docker.ok(&["restart", "-t", "20", "keep"]);
        assert_eq!(docker.inspect("{{.State.Running}}", "keep"), "true", "{runtime}");
        docker.ok(&["kill", "keep"]);
        assert_eq!(docker.ok(&["wait", "keep"]), "137", "{runtime}");
        docker.ok(&["start", "keep"]);
        docker.ok(&["kill", "-s", "TERM", "keep"]);
        assert_eq!(docker.ok(&["wait", "keep"]), "3", "{runtime}");
        docker.ok(&["rm", "keep"]);

        docker.ok(&["run", "-d", "--name", "deaf", "--runtime", runtime, "--network", "none", "box", "sleep", "100"]);
        docker.ok(&["stop", "-t", "0", "deaf"]);
        assert_eq!(docker.inspect("{{.State.ExitCode}}", "deaf"), "137", "{runtime}");
        docker.ok(&["rm", "deaf"]);

        docker.ok(&[
            "run",
            "-d",
            "--name",
            "again",
            "--restart",
            "on-failure:2",
            "--runtime",
            runtime,
            "--network",
            "none",
            "box",
            "sh",
            "-c",
            "echo once; exit 4",
        ]);
        eventually("it was restarted twice", || {
            (docker.inspect("{{.RestartCount}} {{.State.Status}}", "again") == "2 exited").then_some(())
        });
        assert_eq!(docker.ok(&["logs", "again"]), "once\nonce\nonce", "{runtime}");
        docker.ok(&["rm", "again"]);
    }
    docker.assert_nothing_left();
}

#[test]
fn docker_tells_an_out_of_memory_kill_from_another() {
    let docker = Docker::new();
    for runtime in RUNTIMES {
        // containerd's shim listens to the group when it has started the program: an earlier kill it does not hear.
        let eat = "sleep 1; head -c 100m /dev/zero | tail > /dev/null";
        let start =
            ["run", "--name", "eater", "--runtime", runtime, "--network", "none", "-m", "16m", "--memory-swap", "16m"];
        let ran = docker.run(&[&start[..], &["box", "sh", "-c", &format!("{eat}; exit $?")]].concat());
        assert_eq!(ran.code, Some(137), "{runtime}: {ran}");
        eventually("the daemon has heard of it", || {
            (docker.inspect("{{.State.OOMKilled}}", "eater") == "true").then_some(())
        });
        docker.ok(&["rm", "eater"]);
        docker.run(&[
            "run",
            "--name",
            "killed",
            "--runtime",
            runtime,
            "--network",
            "none",
            "-m",
            "16m",
            "box",
            "sh",
            "-c",
            "sh -c 'kill -9 $$'; exit $?",
        ]);
        assert_eq!(docker.inspect("{{.State.OOMKilled}} {{.State.ExitCode}}", "killed"), "false 137", "{runtime}");
        docker.ok(&["rm", "killed"]);
    }
    docker.assert_nothing_left();
}

#[test]
fn docker_cp_diff_commit_and_logs_see_the_containers_files() {
    let docker = Docker::new();
    let out = docker.stage.dir().join("out");
    fs::write(docker.stage.dir().join("in"), "carried\n").expect("write a file");
    for runtime in RUNTIMES {
        keep(&docker, runtime, &[]);
        let source = docker.stage.dir().join("in").display().to_string();
        docker.ok(&["cp", &source, "keep:/tmp/in"]);
        assert_eq!(docker.ok(&["exec", "keep", "cat", "/tmp/in"]), "carried");
        docker.ok(&["cp", "keep:/tmp/in", &out.display().to_string()]);
        assert_eq!(fs::read_to_string(&out).expect("the copy"), "carried\n");
        assert!(docker.ok(&["diff", "keep"]).contains("A /tmp/in"), "{runtime}");
        docker.ok(&["commit", "keep", "made"]);
        docker.ok(&["rm", "-f", "keep"]);
        assert_eq!(
            docker.ok(&["run", "--rm", "--runtime", runtime, "--network", "none", "made", "cat", "/tmp/in"]),
            "carried"
        );
        docker.ok(&[
            "run",
            "--name",
            "talker",
            "--runtime",
            runtime,
            "--network",
            "none",
            "box",
            "sh",
            "-c",
            "echo one; echo two >&2; echo three",
        ]);
        let logs = docker.run(&["logs", "talker"]);
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\nthree\n", "two\n"), "{runtime}");
        docker.ok(&["rm", "talker"]);
        docker.ok(&["rmi", "made"]);
    }
    docker.assert_nothing_left();
}

#[test]
fn docker_containers_outlive_their_daemon_with_live_restore() {
    let mut docker = Docker::with(&["--bridge=none", "--live-restore"]);
    for runtime in RUNTIMES {
        keep(&docker, runtime, &[]);
        let pid = docker.inspect("{{.State.Pid}}", "keep");
        docker.restart(&["--bridge=none", "--live-restore"]);
        assert_eq!(docker.inspect("{{.State.Pid}} {{.State.Running}}", "keep"), format!("{pid} true"), "{runtime}");
        assert_eq!(docker.ok(&["exec", "keep", "echo", "still"]), "still", "{runtime}");
        docker.ok(&["stop", "-t", "20", "keep"]);
        assert_eq!(docker.inspect("{{.State.ExitCode}}", "keep"), "3", "{runtime}");
        docker.ok(&["rm", "keep"]);
    }
    docker.assert_nothing_left();
}

//! dockerd's rarer ways: a remapped root, propagation, health checks, attaching, restarts of a container's own
//! accord.

use std::fs;

use onggi_tests::{eventually, machine::sh};

use crate::docker::Docker;

const RUNTIMES: [&str; 2] = ["runc", "onggi"];

#[test]
fn docker_with_a_remapped_root_gives_containers_a_user_namespace() {
    let lend = || {
        for file in ["subuid", "subgid"] {
            sh(&format!(
                "f=$(mktemp); echo dockremap:500000:65536 > $f; touch /etc/{file}; mount --bind $f /etc/{file}"
            ));
        }
        for (file, line) in [("passwd", "dockremap:x:499:499::/:/bin/false"), ("group", "dockremap:x:499:")] {
            sh(&format!("f=$(mktemp); (cat /etc/{file}; echo {line}) > $f; chmod 644 $f; mount --bind $f /etc/{file}"));
        }
    };
    let docker = Docker::prepared(lend, &["--bridge=none", "--userns-remap=dockremap"]);
    for runtime in RUNTIMES {
        let run = |options: &[&str], script: &str| {
            let head = ["run", "--rm", "--runtime", runtime, "--network", "none"];
            docker.ok(&[&head[..], options, &["box", "sh", "-c", script]].concat())
        };
        let map = "tr -s ' ' < /proc/self/uid_map; id -u; touch /f; stat -c %u /f; stat -c %u /etc/passwd";
        assert_eq!(run(&[], map), " 0 500000 65536\n0\n0\n0", "{runtime}");
        assert_eq!(
            run(&["-u", "user"], "id -u; cat /dev/null; tty < /dev/tty 2>/dev/null || echo none"),
            "1000\nnone",
            "{runtime}"
        );
        let limits = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; ls -d /sys/fs/cgroup/pids; hostname";
        assert_eq!(run(&["-m", "64m", "--hostname", "jar"], limits), "67108864\n/sys/fs/cgroup/pids\njar", "{runtime}");
        assert_eq!(
            run(&["--tmpfs", "/t", "--read-only"], "touch /t/x; stat -c %u /t/x; touch /x 2>/dev/null || echo refused"),
            "0\nrefused",
            "{runtime}"
        );
        docker.ok(&["run", "-d", "--name", "keep", "--runtime", runtime, "--network", "none", "box", "sleep", "100"]);
        assert_eq!(
            docker.ok(&["exec", "keep", "sh", "-c", "id -u; tr -s ' ' < /proc/self/uid_map"]),
            "0\n 0 500000 65536",
            "{runtime}"
        );
        let typed = docker.typed("exec -it keep sh -c 'tty; read x; echo [$x]'", "word\n");
        assert!(typed.stdout.contains("/dev/pts/") && typed.stdout.contains("[word]"), "{runtime}: {typed}");
        let typed = docker.typed(
            &format!("run --rm -it --runtime {runtime} --network none box sh -c 'tty; read x; echo [$x]'"),
            "word\n",
        );
        assert!(typed.stdout.contains("/dev/pts/0") && typed.stdout.contains("[word]"), "{runtime}: {typed}");
        docker.ok(&["rm", "-f", "keep"]);
    }
    docker.assert_nothing_left();
}

#[test]
fn docker_propagates_mounts_as_asked() {
    let docker = Docker::new();
    let shared = docker.stage.dir().join("shared");
    for runtime in RUNTIMES {
        let dir = shared.join(runtime);
        fs::create_dir_all(dir.join("later")).expect("make directories");
        sh(&format!("mount --bind {0} {0}; mount --make-shared {0}", dir.display()));
        for (mode, seen) in [("rslave", "1"), ("rprivate", "0"), ("rshared", "1")] {
            let volume = format!("{}:/v:{mode}", dir.display());
            docker.ok(&[
                "run",
                "-d",
                "--name",
                "keep",
                "--runtime",
                runtime,
                "--network",
                "none",
                "-v",
                &volume,
                "box",
                "sleep",
                "100",
            ]);
            sh(&format!("mount -t tmpfs marker {}/later", dir.display()));
            let count = docker.ok(&["exec", "keep", "sh", "-c", "grep -c '^marker /v/later' /proc/mounts; true"]);
            assert_eq!(count, seen, "{runtime} {mode}");
            sh(&format!("umount {}/later", dir.display()));
            docker.ok(&["rm", "-f", "keep"]);
        }
        let volume = format!("{}:/v:rshared", dir.display());
        let script = "mount -t tmpfs inner /v/later && echo made";
        let made = docker.run(&[
            "run",
            "--rm",
            "--runtime",
            runtime,
            "--network",
            "none",
            "--cap-add",
            "SYS_ADMIN",
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "apparmor=unconfined",
            "-v",
            &volume,
            "box",
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(made.stdout, "made\n", "{made}");
        assert_eq!(
            sh("grep -c '^inner ' /proc/mounts").trim(),
            "1",
            "{runtime}: what is mounted inside is seen outside"
        );
        sh(&format!("umount {0}/later; umount {0}", dir.display()));
    }
    docker.assert_nothing_left();
}

#[test]
fn docker_checks_health_attaches_and_restarts() {
    let docker = Docker::new();
    for runtime in RUNTIMES {
        let start = ["run", "-d", "--name", "keep", "--runtime", runtime, "--network", "none"];
        let health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "1"];
        docker.ok(&[&start[..], &health, &["box", "sleep", "100"]].concat());
        let health = |wanted: &str| {
            eventually("the health changes", || {
                (docker.inspect("{{.State.Health.Status}}", "keep") == wanted).then_some(())
            });
        };
        health("unhealthy");
        docker.ok(&["exec", "keep", "touch", "/tmp/well"]);
        health("healthy");
        docker.ok(&["rm", "-f", "keep"]);

        let script = "read line; echo got-$line; exit 6";
        docker.ok(&[
            "create",
            "-i",
            "--name",
            "asks",
            "--runtime",
            runtime,
            "--network",
            "none",
            "box",
            "sh",
            "-c",
            script,
        ]);
        let attached = docker.with_input(&["start", "-ai", "asks"], "words\n");
        assert_eq!((attached.code, attached.stdout.as_str()), (Some(6), "got-words\n"), "{attached}");
        docker.ok(&["rm", "asks"]);

        let script = "trap 'exit 4' USR1; while :; do sleep 0.1; done";
        docker.ok(&[&start[..], &["--stop-signal", "USR1", "box", "sh", "-c", script]].concat());
        docker.ok(&["stop", "-t", "20", "keep"]);
        assert_eq!(docker.inspect("{{.State.ExitCode}}", "keep"), "4", "{runtime}");
        docker.ok(&["rm", "keep"]);

        let always = ["--restart", "always", "box", "sh", "-c", "echo once; sleep 0.2; exit 1"];
        docker.ok(&[&start[..], &always].concat());
        eventually("it restarts again and again", || {
            (docker.inspect("{{.RestartCount}}", "keep").parse::<u32>().ok()? >= 2).then_some(())
        });
        docker.ok(&["rm", "-f", "keep"]);
    }
    docker.assert_nothing_left();
}

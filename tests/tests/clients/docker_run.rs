//! `docker run`: what its options mean inside, and how it ends.

use std::fs;

use onggi_tests::machine::sh;

use crate::{docker::Docker, support::machine_withholds_capabilities};

/// The runtimes by the names that the daemon knows.
const RUNTIMES: [&str; 2] = ["runc", "onggi"];

/// `docker run --rm OPTIONS box COMMAND` ends with `code` and prints `out`.
struct Case<'a> {
    options: &'a [&'a str],
    command: &'a [&'a str],
    code: i32,
    out: &'a str,
}

/// A case whose command is a line of shell.
const fn shell<'a>(options: &'a [&'a str], command: &'a [&'a str], out: &'a str) -> Case<'a> {
    Case { options, command, code: 0, out }
}

#[track_caller]
fn check(docker: &Docker, cases: &[Case<'_>]) {
    for case in cases {
        for runtime in RUNTIMES {
            let start = ["run", "--rm", "--runtime", runtime, "--network", "none"];
            let ran = docker.run(&[&start, case.options, &["box"], case.command].concat());
            assert_eq!((ran.code, ran.stdout.trim_end()), (Some(case.code), case.out), "{ran}");
        }
    }
}

#[test]
fn docker_run_ends_with_the_exit_code_of_the_program_or_of_its_absence() {
    let docker = Docker::new();
    let cases = [
        Case { options: &[], command: &["sh", "-c", "echo out; exit 7"], code: 7, out: "out" },
        Case { options: &[], command: &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], code: 137, out: "" },
        Case { options: &[], command: &["no-such-program"], code: 127, out: "" },
        Case { options: &[], command: &["/no/such/program"], code: 127, out: "" },
        Case { options: &[], command: &["/etc/not-executable"], code: 126, out: "" },
        Case { options: &[], command: &["/etc"], code: 126, out: "" },
        Case { options: &["--entrypoint", "echo"], command: &["from", "entrypoint"], code: 0, out: "from entrypoint" },
        Case { options: &["-u", "nobody-here"], command: &["true"], code: 125, out: "" },
        Case { options: &["-w", "/etc/passwd"], command: &["true"], code: 125, out: "" },
        Case { options: &["-w", "/made/for/it"], command: &["pwd"], code: 0, out: "/made/for/it" },
    ];
    check(&docker, &cases);
    docker.assert_nothing_left();
}

#[test]
fn docker_run_limits_are_in_the_cgroup() {
    let docker = Docker::new();
    const READ: &[&str] = &["sh", "-c", "cd /sys/fs/cgroup; cat $FILE"];
    let cases = [
        shell(&["-m", "64m", "-e", "FILE=memory/memory.limit_in_bytes"], READ, "67108864"),
        shell(
            &["-m", "64m", "--memory-reservation", "32m", "-e", "FILE=memory/memory.soft_limit_in_bytes"],
            READ,
            "33554432",
        ),
        shell(&["--cpus", "0.5", "-e", "FILE=cpu/cpu.cfs_quota_us"], READ, "50000"),
        shell(&["--cpu-shares", "200", "-e", "FILE=cpu/cpu.shares"], READ, "200"),
        shell(&["--cpuset-cpus", "0", "-e", "FILE=cpuset/cpuset.cpus"], READ, "0"),
        shell(&["--pids-limit", "33", "-e", "FILE=pids/pids.max"], READ, "33"),
        shell(&["--ulimit", "nofile=100:200"], &["sh", "-c", "ulimit -Sn; ulimit -Hn"], "100\n200"),
        shell(&["--oom-score-adj", "321"], &["cat", "/proc/self/oom_score_adj"], "321"),
        shell(&["--shm-size", "8m"], &["sh", "-c", "stat -f -c '%b %s' /dev/shm"], "2048 4096"),
        Case {
            options: &["--pids-limit", "8"],
            command: &["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 2 & done 2>/dev/null; echo"],
            code: 2,
            out: "",
        },
    ];
    check(&docker, &cases);
    docker.assert_nothing_left();
}

#[test]
fn docker_run_security_options_are_what_the_program_sees() {
    let docker = Docker::new();
    let profile = docker.stage.dir().join("seccomp.json");
    let text =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, text).expect("write a seccomp profile");
    let profile = format!("seccomp={}", profile.display());
    const STATUS: &[&str] = &["sh", "-c", "grep -E \"^($WANT):\" /proc/self/status | tr -d '\\t '"];
    let cases = [
        shell(&["-e", "WANT=Seccomp|NoNewPrivs"], STATUS, "NoNewPrivs:0\nSeccomp:2"),
        shell(&["--security-opt", "no-new-privileges", "-e", "WANT=NoNewPrivs"], STATUS, "NoNewPrivs:1"),
        shell(&["--security-opt", "seccomp=unconfined", "-e", "WANT=Seccomp"], STATUS, "Seccomp:0"),
        shell(
            &["-e", "WANT=CapEff|CapInh|CapAmb"],
            STATUS,
            "CapInh:0000000000000000\nCapEff:00000000a80425fb\nCapAmb:0000000000000000",
        ),
        shell(
            &["--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "-e", "WANT=CapEff|CapBnd"],
            STATUS,
            "CapEff:0000000000001000\nCapBnd:0000000000001000",
        ),
        shell(
            &["-u", "1000:1000", "--group-add", "2000", "-e", "WANT=CapEff|Uid|Gid|Groups"],
            STATUS,
            "Uid:1000100010001000\nGid:1000100010001000\nGroups:10002000\nCapEff:0000000000000000",
        ),
        shell(
            &["-u", "user"],
            &["sh", "-c", "id; echo $HOME"],
            "uid=1000(user) gid=1000(user) groups=1000(user),2000(more)\n/home/user",
        ),
        Case { options: &["--security-opt", &profile], command: &["mkdir", "/tmp/x"], code: 1, out: "" },
        Case { options: &[], command: &["sh", "-c", "mount -t tmpfs none /tmp 2>/dev/null"], code: 1, out: "" },
        shell(
            &["--security-opt", "systempaths=unconfined"],
            &["sh", "-c", "grep -c -E ' /proc/(kcore|sysrq-trigger|keys) ' /proc/self/mountinfo; true"],
            "0",
        ),
        shell(
            &[],
            &["sh", "-c", "head -c1 /proc/kcore | wc -c; echo x 2>/dev/null > /proc/sysrq-trigger || echo refused"],
            "0\nrefused",
        ),
    ];
    check(&docker, &cases);
    docker.assert_nothing_left();
}

#[test]
fn docker_run_mounts_and_devices_are_there() {
    let docker = Docker::new();
    let shared = docker.stage.dir().join("shared");
    fs::create_dir(&shared).expect("make a directory");
    fs::write(shared.join("file"), "from outside\n").expect("write a file");
    let (plain, read_only) = (format!("{}:/v", shared.display()), format!("{}:/v:ro", shared.display()));
    let plain = ["-v", &plain];
    let cases = [
        Case { options: &["--read-only"], command: &["touch", "/x"], code: 1, out: "" },
        shell(
            &["--read-only", "--tmpfs", "/t:size=1m,mode=1777"],
            &["sh", "-c", "touch /t/x; stat -f -c '%b' /t; stat -c %a /t"],
            "256\n1777",
        ),
        shell(&plain, &["sh", "-c", "cat /v/file; echo inside > /v/inside"], "from outside"),
        Case { options: &["-v", &read_only], command: &["touch", "/v/x"], code: 1, out: "" },
        shell(&["-v", "named:/n"], &["sh", "-c", "echo kept >> /n/f; wc -l < /n/f; rm /n/f"], "1"),
        shell(
            &["--mount", "type=tmpfs,destination=/m,tmpfs-size=1048576"],
            &["sh", "-c", "grep ' /m ' /proc/mounts | head -1 | sed 's/ rw.*//'"],
            "tmpfs /m tmpfs",
        ),
        shell(
            &["--device", "/dev/kmsg:/dev/log:r", "--cap-add", "SYSLOG"],
            &["sh", "-c", "exec 3< /dev/log && echo opened; (: > /dev/log) 2>/dev/null || echo refused"],
            "opened\nrefused",
        ),
        shell(&["-v", "/dev/urandom:/dev/random"], &["stat", "-c", "%t:%T", "/dev/random"], "1:9"),
        shell(
            &["--device-cgroup-rule", "c 1:5 rwm", "--cap-add", "MKNOD"],
            &["sh", "-c", "stat -c %t:%T /dev/zero"],
            "1:5",
        ),
        shell(
            &[],
            &["sh", "-c", "ls /dev | grep -v core | sort | tr '\\n' ' '"],
            "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero",
        ),
    ];
    check(&docker, &cases);
    assert_eq!(fs::read_to_string(shared.join("inside")).expect("the container has written"), "inside\n");
    docker.assert_nothing_left();
}

#[test]
fn docker_run_joins_and_separates_namespaces() {
    let docker = Docker::new();
    for runtime in RUNTIMES {
        let run = |args: &[&str]| docker.ok(&[&["run", "--rm", "--runtime", runtime], args].concat());
        docker.ok(&[
            "run",
            "-d",
            "--name",
            "first",
            "--runtime",
            runtime,
            "--network",
            "none",
            "--ipc",
            "shareable",
            "box",
            "sleep",
            "100",
        ]);
        let links = |kinds: &str| format!("for n in {kinds}; do readlink /proc/self/ns/$n; done");
        let three = links("net pid ipc");
        let own = docker.ok(&["exec", "first", "sh", "-c", &three]);
        let join = ["--network=container:first", "--pid=container:first", "--ipc=container:first", "box", "sh", "-c"];
        assert_eq!(run(&[&join[..], &[&three]].concat()), own, "{runtime}");
        let apart = run(&["--network", "none", "box", "sh", "-c", &three]);
        for (mine, other) in apart.lines().zip(own.lines()) {
            assert_ne!(mine, other, "{runtime}");
        }
        let all = links("net pid ipc uts cgroup");
        let host = ["--network=host", "--pid=host", "--ipc=host", "--uts=host", "--cgroupns=host", "box", "sh", "-c"];
        assert_eq!(run(&[&host[..], &[&all]].concat()), sh(&all).trim_end(), "{runtime}");
        let private =
            run(&["--cgroupns=private", "--network", "none", "box", "sh", "-c", "grep :memory: /proc/self/cgroup"]);
        assert!(private.ends_with(":memory:/"), "{runtime}: {private}");
        docker.ok(&["rm", "-f", "first"]);
    }
    let cases = [
        shell(
            &["--hostname", "jar", "--domainname", "example"],
            &["sh", "-c", "hostname; cat /proc/sys/kernel/domainname"],
            "jar\nexample",
        ),
        shell(&["--sysctl", "net.ipv4.ip_forward=1"], &["cat", "/proc/sys/net/ipv4/ip_forward"], "1"),
        shell(&["--sysctl", "kernel.msgmax=9000"], &["cat", "/proc/sys/kernel/msgmax"], "9000"),
        Case { options: &["--sysctl", "kernel.pid_max=9000"], command: &["true"], code: 125, out: "" },
        shell(&["--init"], &["sh", "-c", "cat /proc/1/comm; echo $$ | grep -v -x 1 | wc -l"], "docker-init\n1"),
        shell(&["--add-host", "jar:192.0.2.1"], &["sh", "-c", "grep -c jar /etc/hosts"], "1"),
    ];
    check(&docker, &cases);
    docker.assert_nothing_left();
}

#[test]
fn docker_run_on_a_bridge_reaches_the_host_and_other_containers() {
    let docker = Docker::with(&["--bip=10.213.7.1/24"]);
    for runtime in RUNTIMES {
        docker.ok(&[
            "run",
            "-d",
            "--name",
            "server",
            "--runtime",
            runtime,
            "box",
            "sh",
            "-c",
            "echo page > /tmp/index.html; httpd -f -h /tmp",
        ]);
        let address = docker.inspect("{{.NetworkSettings.IPAddress}}", "server");
        let url = format!("http://{address}/");
        let fetch = ["run", "--rm", "--runtime", runtime, "box", "sh", "-c"];
        let script = format!("for i in 1 2 3 4 5 6 7 8 9 10; do wget -q -O - {url} && exit; sleep 0.3; done");
        assert_eq!(docker.ok(&[&fetch[..], &[&script]].concat()), "page", "{runtime}");
        docker.ok(&["rm", "-f", "server"]);
    }
    docker.assert_nothing_left();
}

#[test]
fn docker_run_gives_a_terminal_and_passes_standard_input() {
    let docker = Docker::new();
    for runtime in RUNTIMES {
        let ran = docker.typed(
            &format!(
                "run --rm -it --runtime {runtime} --network none box sh -c 'tty; stty size; read line; echo got-$line'"
            ),
            "words\n",
        );
        assert_eq!(ran.code, Some(0), "{ran}");
        let text = ran.stdout.replace('\r', "");
        assert!(text.contains("/dev/pts/0\n") && text.contains("got-words\n"), "{ran}");
        let ran = docker.typed(&format!("run --rm -t --runtime {runtime} --network none box sh -c 'exit 9'"), "");
        assert_eq!(ran.code, Some(9), "{ran}");
        let piped = docker.with_input(
            &["run", "--rm", "-i", "--runtime", runtime, "--network", "none", "box", "tr", "a-z", "A-Z"],
            "through a pipe\n",
        );
        assert_eq!((piped.code, piped.stdout.as_str()), (Some(0), "THROUGH A PIPE\n"), "{piped}");
    }
    docker.assert_nothing_left();
}

#[test]
fn docker_run_privileged_gives_everything_that_the_machine_has() {
    let docker = Docker::new();
    let script = "mount -t tmpfs none /tmp && test -c /dev/kmsg && test -w /proc/sys/kernel/hostname && echo all";
    for runtime in RUNTIMES {
        let run = ["run", "--rm", "--privileged", "--runtime", runtime, "--network", "none", "box", "sh", "-c", script];
        let ran = docker.run(&run);
        if runtime == "runc" && machine_withholds_capabilities() {
            // runc insists on capabilities that nobody here has; the specification asks for a warning.
            assert!(ran.stderr.contains("unable to apply caps: operation not permitted"), "{ran}");
            continue;
        }
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "all\n"), "{ran}");
    }
    docker.assert_nothing_left();
}

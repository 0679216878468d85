//! Options of `run` and `create` beyond the usual ones: what the container sees of them, and what `inspect` says.

use std::fs;

use serde_json::Value;

use crate::Stage;

/// What `inspect --format` prints of a container that exists.
fn inspected(stage: &Stage, name: &str, template: &str) -> String {
    stage.onggi.ok(&["inspect", "--format", template, name])
}

#[test]
fn e2e_limits_of_control_groups_are_those_that_were_asked_for() {
    let stage = Stage::new();
    let limits = [
        "-c",
        "512",
        "--cpu-period",
        "50000",
        "--cpu-quota",
        "20000",
        "--cpuset-cpus",
        "0",
        "--cpuset-mems",
        "0",
        "-m",
        "64m",
        "--memory-swap",
        "96m",
        "--memory-reservation",
        "32m",
        "--pids-limit",
        "77",
    ];
    let script = "cd /sys/fs/cgroup; cat cpu/cpu.shares cpu/cpu.cfs_period_us cpu/cpu.cfs_quota_us cpuset/cpuset.cpus \
        memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes pids/pids.max";
    let seen = stage.script(&limits, script);
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["512", "50000", "20000", "0", "67108864", "33554432", "77"]);

    let mut create = vec!["create", "--name", "limited"];
    create.extend(limits);
    create.extend([stage.busybox.as_str(), "true"]);
    stage.onggi.ok(&create);
    let shown: Value = serde_json::from_str(&inspected(&stage, "limited", "{{json .HostConfig}}")).expect("JSON");
    for (key, value) in [
        ("CpuShares", Value::from(512)),
        ("CpuPeriod", 50_000.into()),
        ("CpuQuota", 20_000.into()),
        ("CpusetCpus", "0".into()),
        ("MemorySwap", (96 << 20).into()),
        ("MemoryReservation", (32 << 20).into()),
        ("PidsLimit", 77.into()),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    stage.onggi.ok(&["rm", "limited"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_limits_that_contradict_each_other_or_the_host_are_refused() {
    let stage = Stage::new();
    for (words, told) in [
        (&["--memory-swap", "1g"] as &[&str], "--memory"),
        (&["-m", "64m", "--memory-swap", "32m"], "--memory-swap"),
        (&["--cpus", "1", "--cpu-quota", "5000"], "--cpu-quota"),
        (&["--cpuset-cpus", "1000"], "1000"),
        (&["--device-read-bps", "/dev/null:1m"], "block device"),
        (&["--device-read-bps", "/dev/onggi-no:1m"], "no such device"),
        (&["--ulimit", "nofile=2:1"], "less than or equal to hard limit"),
        (&["--sysctl", "kernel.panic=1"], "whole machine"),
        (&["--network", "host", "--sysctl", "net.core.somaxconn=5"], "belongs to the host"),
        (&["--stop-signal", "NOPE"], "no such signal"),
        (&["--group-add", "nobodys"], "nobodys"),
    ] {
        let ran = stage.onggi.run(&[&["run", "--rm"], words, &[&stage.busybox, "true"]].concat());
        assert_eq!(ran.code, Some(125), "{words:?}: {ran}");
        assert!(ran.stderr.contains(told), "{words:?}: {ran}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_limits_of_processes_groups_and_settings_of_namespaces_are_seen_inside() {
    let stage = Stage::new();
    let seen = stage.script(&["--ulimit", "nofile=100:200", "--ulimit", "core=0"], "ulimit -n; ulimit -Hn; ulimit -c");
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["100", "200", "0"]);
    assert_eq!(stage.script(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500");
    let size = stage.script(&["--shm-size", "8m"], "df -k /dev/shm | tail -1 | awk '{print $2}'");
    assert_eq!(size, "8192");
    let sysctls = ["--sysctl", "net.core.somaxconn=77", "--sysctl", "kernel.shmmni=99"];
    let seen = stage.script(&sysctls, "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni");
    assert_eq!(seen, "77\n99");
    let seen = stage.script(&["--group-add", "4321", "-u", "1000:1000"], "id -G");
    assert_eq!(seen, "1000 4321");
    let seen = stage
        .script(&["-h", "web", "--domainname", "example.org"], "cat /proc/sys/kernel/domainname; tail -1 /etc/hosts");
    assert!(seen.starts_with("example.org\n") && seen.ends_with("\tweb.example.org web"), "{seen}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_container_ends_by_the_signal_and_in_the_time_that_it_was_made_with() {
    let stage = Stage::new();
    let script = "trap 'exit 33' INT; while :; do sleep 0.1; done";
    let made = [
        "run",
        "-d",
        "--name",
        "polite",
        "--stop-signal",
        "SIGINT",
        "--stop-timeout",
        "60",
        &stage.busybox,
        "sh",
        "-c",
        script,
    ];
    stage.onggi.ok(&made);
    assert_eq!(inspected(&stage, "polite", "{{.Config.StopSignal}} {{.Config.StopTimeout}}"), "SIGINT 60");
    stage.onggi.ok(&["stop", "polite"]);
    assert_eq!(inspected(&stage, "polite", "{{.State.ExitCode}}"), "33");
    stage.onggi.ok(&["rm", "polite"]);
    let made = [
        "run",
        "-d",
        "--name",
        "rude",
        "--stop-timeout",
        "0",
        &stage.busybox,
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 1; done",
    ];
    stage.onggi.ok(&made);
    stage.onggi.ok(&["stop", "rude"]);
    assert_eq!(inspected(&stage, "rude", "{{.State.ExitCode}}"), "137");
    stage.onggi.ok(&["rm", "rude"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_file_with_the_id_is_made_once_and_goes_with_what_was_not_made() {
    let stage = Stage::new();
    let file = stage.onggi.dir().join("id");
    let path = file.to_str().expect("a name");
    let id = stage.onggi.ok(&["create", "--cidfile", path, "--name", "one", &stage.busybox, "true"]);
    assert_eq!(fs::read_to_string(&file).expect("read"), id);
    let again = stage.onggi.run(&["run", "--cidfile", path, &stage.busybox, "true"]);
    assert_eq!(again.code, Some(125), "{again}");
    assert!(again.stderr.contains("container ID file found"), "{again}");
    stage.onggi.ok(&["rm", "one"]);
    fs::remove_file(&file).expect("remove");
    let failed = stage.onggi.run(&["run", "--pull", "never", "--cidfile", path, "no-such-image", "true"]);
    assert_eq!(failed.code, Some(125), "{failed}");
    assert!(!file.exists());
    stage.onggi.ok(&["run", "--rm", "--cidfile", path, &stage.busybox, "true"]);
    assert_eq!(fs::read_to_string(&file).expect("read").len(), 64);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_temporary_filesystems_and_mounts_are_as_asked() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().join("own");
    fs::create_dir(&dir).expect("make a directory");
    fs::write(dir.join("file"), "here\n").expect("write a file");
    let bind = format!("type=bind,source={},target=/b,readonly", dir.display());
    let options =
        ["--tmpfs", "/run:size=1m,mode=1700", "--mount", "type=tmpfs,target=/t,tmpfs-size=2m", "--mount", &bind];
    let script = "grep -c ' /run .*nosuid,nodev,noexec.* tmpfs .*size=1024k,mode=1700' /proc/self/mountinfo; \
        df -k /t | tail -1 | awk '{print $2}'; cat /b/file; touch /b/x 2> /dev/null || echo refused; touch /run/x /t/y";
    assert_eq!(stage.script(&options, script), "1\n2048\nhere\nrefused");
    let missing =
        stage.onggi.run(&["run", "--rm", "--mount", "type=bind,source=/onggi-no,target=/b", &stage.busybox, "true"]);
    assert_eq!(missing.code, Some(125), "{missing}");
    assert!(missing.stderr.contains("/onggi-no"), "{missing}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_device_is_there_with_the_access_that_was_given() {
    let stage = Stage::new();
    let seen = stage.script(
        &["--device", "/dev/full:/dev/nice:r"],
        "stat -c '%t %T' /dev/nice; echo x 2> /dev/null > /dev/nice || echo refused",
    );
    assert_eq!(seen, "1 7\nrefused");
    // The driver of tun devices, which no default rule allows and which anybody may open.
    let script = "mknod /tmp/tun c 10 200; (: < /tmp/tun) 2> /dev/null && echo opened || echo refused";
    assert_eq!(stage.script(&["--cap-add", "MKNOD"], script), "refused");
    let rule = ["--cap-add", "MKNOD", "--device-cgroup-rule", "c 10:200 rwm"];
    assert_eq!(stage.script(&rule, script), "opened");
    let missing = stage.onggi.run(&["run", "--rm", "--device", "/dev/onggi-no", &stage.busybox, "true"]);
    assert_eq!(missing.code, Some(125), "{missing}");
    assert!(missing.stderr.contains("no such file or directory"), "{missing}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_privileged_container_has_what_root_has_and_no_other() {
    let stage = Stage::new();
    let script = "mkdir /tmp/m && mount -t tmpfs none /tmp/m && echo mounted; test -w /proc/sys/kernel/domainname && echo writable; \
        test -c /dev/kmsg && echo devices; grep Seccomp: /proc/self/status; head -c 1 /proc/interrupts | wc -c";
    let seen = stage.script(&["--privileged"], script);
    assert_eq!(seen, "mounted\nwritable\ndevices\nSeccomp:\t0\n1");
    let plain =
        stage.script(&[], "mount -t tmpfs none /tmp 2> /dev/null || echo refused; grep Seccomp: /proc/self/status");
    assert_eq!(plain, "refused\nSeccomp:\t2");
    stage.onggi.ok(&["run", "-d", "--name", "plain", &stage.busybox, "sleep", "600"]);
    let caps = |options: &[&str]| {
        let words = [&["exec"], options, &["plain", "grep", "CapEff", "/proc/self/status"]].concat();
        stage.onggi.ok(&words)
    };
    assert_ne!(caps(&[]), caps(&["--privileged"]));
    stage.onggi.ok(&["rm", "-f", "plain"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_namespaces_of_the_host_are_shared_when_asked_for() {
    let stage = Stage::new();
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string();
    for kind in ["pid", "ipc", "uts", "cgroup"] {
        let option = if kind == "cgroup" { "--cgroupns".to_owned() } else { format!("--{kind}") };
        let show = format!("readlink /proc/self/ns/{kind}");
        let seen = stage.script(&[&option, "host"], &show);
        assert_eq!(seen, own(kind), "{kind}");
        assert_ne!(stage.script(&[], &show), own(kind), "{kind}");
    }
    // No procfs can be made there for the settings of the container's own network; the one that is bound serves.
    let ping = "cat /proc/sys/net/ipv4/ping_group_range | tr -s '\\t' ' '; readlink /proc/self/ns/pid";
    assert_eq!(stage.script(&["--userns", "auto", "--pid", "host"], ping), format!("0 65535\n{}", own("pid")));
    // Nobody stays when the first process of a container without a PID namespace of its own ends.
    let left = stage.script(&["--pid", "host"], "sleep 98765 & echo $!");
    let gone = |pid: &str| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(gone(&left), "{left} still runs");
    stage.onggi.ok(&["run", "-d", "--name", "seen", "--pid", "host", &stage.busybox, "sh", "-c", "sleep 600 & wait"]);
    stage.onggi.ok(&["stop", "seen"]);
    assert_eq!(inspected(&stage, "seen", "{{.HostConfig.PidMode}} {{.State.ExitCode}}"), "host 143");
    stage.onggi.ok(&["rm", "seen"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_names_and_servers_are_written_into_the_files_of_etc() {
    let stage = Stage::new();
    let options = [
        "--add-host",
        "db:10.9.8.7",
        "--add-host",
        "me:host-gateway",
        "--dns",
        "10.1.2.3",
        "--dns-search",
        "example.org",
        "--dns-option",
        "ndots:3",
    ];
    let script = "tail -2 /etc/hosts; cat /etc/resolv.conf; ip route | awk '/default/ {print $3}'";
    let seen = stage.onggi.ok(&[&["run", "--rm"] as &[&str], &options, &[&stage.busybox, "sh", "-c", script]].concat());
    let lines: Vec<&str> = seen.lines().collect();
    let gateway = lines.last().expect("a route");
    assert_eq!(lines[0], "10.9.8.7\tdb");
    assert_eq!(lines[1], format!("{gateway}\tme"));
    assert!(
        lines.contains(&"nameserver 10.1.2.3")
            && lines.contains(&"search example.org")
            && lines.contains(&"options ndots:3"),
        "{seen}"
    );
    assert_eq!(lines.iter().filter(|line| line.starts_with("nameserver")).count(), 1, "{seen}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_named_ports_are_published_on_free_ports() {
    let stage = Stage::new();
    stage.onggi.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-P",
        "--expose",
        "8080",
        "--expose",
        "53/udp",
        "-p",
        "9999",
        &stage.busybox,
        "sleep",
        "600",
    ]);
    let shown = inspected(&stage, "web", "{{json .NetworkSettings.Ports}}");
    let ports: Value = serde_json::from_str(&shown).expect("JSON");
    for key in ["8080/tcp", "53/udp", "9999/tcp"] {
        let port = ports[key][0]["HostPort"].as_str().and_then(|text| text.parse::<u16>().ok());
        assert!(port.is_some_and(|port| port > 0), "{key}: {shown}");
    }
    stage.onggi.ok(&["rm", "-f", "web"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_limits_are_changed_at_once_and_for_every_later_start() {
    let stage = Stage::new();
    let words = ["run", "-d", "--name", "box", "-m", "64m", "--cpus", "0.5", &stage.busybox, "sleep", "600"];
    stage.onggi.ok(&words);
    let read = |files: &str| stage.onggi.ok(&["exec", "box", "sh", "-c", &format!("cd /sys/fs/cgroup; cat {files}")]);
    let files = "memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.shares";
    assert_eq!(read(files), "67108864\n4096\n50000\n1024");
    let change = ["--memory", "128m", "--pids-limit", "50", "-c", "256"];
    let explained = stage.onggi.ok(&[&["update", "--explain"] as &[&str], &change, &["box"]].concat());
    assert!(explained.contains("memory.limit_in_bytes") && explained.contains("containers"), "{explained}");
    assert_eq!(read(files), "67108864\n4096\n50000\n1024");
    let told = stage.onggi.ok(&[&["update"] as &[&str], &change, &["box"]].concat());
    assert_eq!(told, "box");
    let after = "134217728\n50\n50000\n256";
    assert_eq!(read(files), after);
    assert_eq!(inspected(&stage, "box", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"), "134217728 268435456");

    // What is refused changes nothing, neither now nor later.
    for (wrong, told) in [
        (&["--cpu-quota", "5000"] as &[&str], "--cpu-quota"),
        (&["--memory-swap", "1m"], "--memory-swap"),
        (&["--cpuset-cpus", "1000"], "1000"),
        (&[], "no limit was given"),
    ] {
        let ran = stage.onggi.run(&[&["update"], wrong, &["box"]].concat());
        assert!(ran.code.is_some_and(|code| code != 0) && ran.stderr.contains(told), "{wrong:?}: {ran}");
    }
    assert_eq!(read(files), after);
    stage.onggi.ok(&["restart", "-t", "0", "box"]);
    assert_eq!(read(files), after);
    stage.onggi.ok(&["stop", "-t", "0", "box"]);
    stage.onggi.ok(&["container", "update", "--pids-limit", "60", "box"]);
    stage.onggi.ok(&["start", "box"]);
    assert_eq!(read("pids/pids.max"), "60");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_container_can_have_the_network_of_another() {
    let stage = Stage::new();
    let serve = "mkdir /tmp/w; echo hello > /tmp/w/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp/w";
    stage.onggi.ok(&["run", "-d", "--name", "web", "-h", "front", &stage.busybox, "sh", "-c", serve]);
    let show = "i=0; until wget -qO- http://127.0.0.1:8080/ 2> /dev/null; do i=$((i + 1)); [ $i -lt 100 ] || exit 1; sleep 0.1; done; \
        hostname; tail -1 /etc/hosts; readlink /proc/self/ns/net";
    let seen = stage.onggi.ok(&["run", "--rm", "--network", "container:web", &stage.busybox, "sh", "-c", show]);
    let theirs = stage.onggi.ok(&["exec", "web", "sh", "-c", "tail -1 /etc/hosts; readlink /proc/self/ns/net"]);
    assert_eq!(seen, format!("hello\nfront\n{theirs}"));

    let id = inspected(&stage, "web", "{{.Id}}");
    stage.onggi.ok(&["create", "--name", "side", "--net", "container:web", &stage.busybox, "true"]);
    assert_eq!(inspected(&stage, "side", "{{.HostConfig.NetworkMode}}"), format!("container:{id}"));
    let script = stage.onggi.ok(&["run", "--explain", "--network", "container:web", &stage.busybox, "true"]);
    assert!(script.contains("/ns/net"), "{script}");
    for words in [&["-p", "80"] as &[&str], &["-h", "x"], &["--add-host", "a:1.2.3.4"], &["--dns", "1.1.1.1"]] {
        let ran = stage
            .onggi
            .run(&[&["run", "--rm", "--network", "container:web"], words, &[&stage.busybox, "true"]].concat());
        assert_eq!(ran.code, Some(125), "{ran}");
        assert!(ran.stderr.contains("conflicting options"), "{ran}");
    }
    let nobody = stage.onggi.run(&["run", "--rm", "--network", "container:nobody", &stage.busybox, "true"]);
    assert!(nobody.code == Some(125) && nobody.stderr.contains("nobody"), "{nobody}");
    // Who stays in the namespace does not answer at the address any more: it may be somebody else's.
    stage.onggi.ok(&["run", "-d", "--name", "stays", "--network", "container:web", &stage.busybox, "sleep", "600"]);
    let links = || stage.onggi.ok(&["exec", "stays", "sh", "-c", "grep -c : /proc/net/dev"]);
    assert_eq!(links(), "2");
    stage.onggi.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(links(), "1");
    stage.onggi.ok(&["restart", "-t", "0", "stays"]);
    assert_eq!(links(), "2");
    stage.onggi.ok(&["rm", "-f", "stays"]);
    stage.onggi.ok(&["stop", "-t", "0", "web"]);
    let late = stage.onggi.run(&["start", "side"]);
    assert!(late.code == Some(1) && late.stderr.contains("join the network of"), "{late}");
    stage.onggi.ok(&["rm", "web", "side"]);
    stage.onggi.assert_nothing_left();
}

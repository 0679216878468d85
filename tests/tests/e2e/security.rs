//! The hardened defaults, seen from inside.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::Stage;

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT, SETFCAP.
const DEFAULT_CAPS: u64 =
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 31;

fn caps(status: &str, set: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(set)).expect("the set is listed");
    u64::from_str_radix(line.trim(), 16).expect("a hexadecimal set")
}

#[test]
fn e2e_capabilities_are_the_short_list_and_none_is_inherited() {
    let stage = Stage::new();
    let check = |status: &str, expected: u64| {
        assert_eq!(caps(status, "CapEff:"), expected);
        assert_eq!(caps(status, "CapBnd:"), DEFAULT_CAPS);
        assert_eq!(caps(status, "CapInh:"), 0);
        assert_eq!(caps(status, "CapAmb:"), 0);
    };
    check(&stage.script(&[], "cat /proc/self/status"), DEFAULT_CAPS);
    check(&stage.script(&["-u", "1000"], "cat /proc/self/status"), 0);
    let id = stage.onggi.ok(&["run", "-d", "--network", "none", &stage.busybox, "sleep", "100"]);
    check(&stage.onggi.ok(&["exec", &id, "cat", "/proc/self/status"]), DEFAULT_CAPS);
    check(&stage.onggi.ok(&["exec", "-u", "1000", &id, "cat", "/proc/self/status"]), 0);
    stage.onggi.ok(&["rm", "-f", &id]);
    let status = stage.script(&["--cap-drop", "ALL", "--cap-add", "CHOWN"], "cat /proc/self/status");
    assert_eq!(caps(&status, "CapEff:"), 1);
    let status = stage.script(&["--cap-add", "NET_RAW"], "cat /proc/self/status");
    assert_eq!(caps(&status, "CapEff:"), DEFAULT_CAPS | 1 << 13);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_seccomp_is_on_and_an_ordinary_user_gains_no_privileges() {
    let stage = Stage::new();
    let status = stage.script(&[], "cat /proc/self/status");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let status = stage.script(&["-u", "1000"], "cat /proc/self/status");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_kernels_knobs_are_out_of_reach() {
    let stage = Stage::new();
    let script = "echo x > /proc/sys/kernel/core_pattern; echo b > /proc/sysrq-trigger; touch /sys/x; mkdir /sys/fs/cgroup/x; \
                  mount -t tmpfs none /tmp; cat /proc/kcore | head -c 1 | wc -c; ls /sys/firmware | wc -l; mknod /dev/sda b 8 0";
    let core_pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read the host's knob");
    let text = stage.script(&[], &format!("({script}) 2>&1; true"));
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read the host's knob"), core_pattern);
    assert!(text.matches("Read-only file system").count() >= 3, "{text}");
    assert!(text.lines().filter(|line| *line == "0").count() >= 2, "kcore and firmware look empty: {text}");
    assert!(text.contains("mount: ") && text.contains("permitted") || text.contains("denied"), "{text}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_no_descriptor_of_the_host_reaches_a_container() {
    let stage = Stage::new();
    // 0, 1, 2 and the one with which ls reads the directory.
    assert_eq!(stage.script(&[], "ls /proc/self/fd | wc -l"), "4");
    let id = stage.onggi.ok(&["run", "-d", "--network", "none", &stage.busybox, "sleep", "100"]);
    assert_eq!(stage.onggi.ok(&["exec", &id, "sh", "-c", "ls /proc/self/fd | wc -l; ls /proc/1/fd | wc -l"]), "4\n3");
    for number in 3..20 {
        let dir = format!("/proc/self/fd/{number}");
        let ran = stage.onggi.run(&["run", "--rm", "--network", "none", "-w", &dir, &stage.busybox, "ls", "/"]);
        assert!(ran.code != Some(0) || !ran.stdout.contains("boot"), "{ran}");
        let ran = stage.onggi.run(&["exec", "-w", &dir, &id, "ls", "."]);
        assert_ne!(ran.code, Some(0), "{ran}");
    }
    stage.onggi.ok(&["rm", "-f", &id]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_runtime_cannot_be_overwritten_from_inside() {
    let stage = Stage::new();
    let before = fs::read(stage.onggi.runtime()).expect("read the runtime");
    let script =
        "for i in 1 2 3 4 5 6 7 8 9 10; do for p in /proc/[0-9]*; do echo bad > $p/exe; done; done 2>/dev/null; true";
    let id = stage.onggi.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        &stage.busybox,
        "sh",
        "-c",
        &format!("while :; do {script}; done"),
    ]);
    for _ in 0..20 {
        stage.onggi.ok(&["exec", &id, "true"]);
    }
    stage.onggi.ok(&["rm", "-f", &id]);
    let own_exe = ["run", "--rm", "--network", "none", &stage.busybox, "/proc/self/exe", "--version"];
    // What it does is of no importance; what it could write to is.
    stage.onggi.run(&own_exe);
    assert!(fs::read(stage.onggi.runtime()).expect("read the runtime") == before, "the runtime's program has changed");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_other_users_of_the_host_see_nothing_of_the_store() {
    let stage = Stage::new();
    let id = stage.onggi.ok(&["run", "-d", "--network", "none", &stage.busybox, "sleep", "100"]);
    fs::set_permissions(stage.onggi.dir(), PermissionsExt::from_mode(0o755)).expect("open the test's directory");
    let list = onggi_tests::machine::sh(&format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups find {} {} -type f -readable 2>/dev/null || true",
        stage.onggi.root().display(),
        stage.onggi.runroot().display()
    ));
    assert_eq!(list, "");
    stage.onggi.ok(&["rm", "-f", &id]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_numeric_user_is_never_looked_up_as_a_name() {
    let stage = Stage::new();
    let volume = stage.onggi.dir().join("passwd");
    fs::write(&volume, "1000:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n").expect("write a passwd file");
    let mount = format!("{}:/etc/passwd:ro", volume.display());
    assert_eq!(stage.script(&["-v", &mount, "-u", "1000"], "id -u"), "1000");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_links_that_lead_a_mount_into_proc_are_refused_cve_2019_16884_cve_2025_52881() {
    let stage = Stage::new();
    let dir = stage.onggi.dir();
    let (root, volume) = (dir.join("rootfs"), dir.join("volume"));
    for path in [root.join("bin"), root.join("data"), volume.clone()] {
        fs::create_dir_all(path).expect("a directory is made");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox is copied");
    std::os::unix::fs::symlink("busybox", root.join("bin/true")).expect("a link is made");
    for (name, target) in [("attr", "/proc/self/attr"), ("all", "/proc"), ("everything", "/"), ("fine", "/data")] {
        std::os::unix::fs::symlink(target, root.join(name)).expect("a link is made");
    }
    let run = |target: &str| {
        let volume = format!("{}:/{target}", volume.display());
        let image = format!("rootfs:{}", root.display());
        stage.onggi.run(&["run", "--rm", "--network", "none", "-v", &volume, &image, "true"])
    };
    for hostile in ["attr", "all", "everything"] {
        let ran = run(hostile);
        assert_eq!(ran.code, Some(125), "{hostile}: {ran}");
        assert!(ran.stderr.contains("hint:"), "{ran}");
    }
    let benign = run("fine");
    assert_eq!(benign.code, Some(0), "a link inside the root is followed: {benign}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_published_port_cannot_be_taken_by_another_program() {
    let stage = Stage::new();
    let id = stage.onggi.ok(&["run", "-d", "-p", "8089:80", &stage.busybox, "sleep", "100"]);
    let bound = std::net::TcpListener::bind(("0.0.0.0", 8089));
    assert!(bound.is_err(), "the port belongs to the container");
    stage.onggi.ok(&["rm", "-f", &id]);
    std::net::TcpListener::bind(("0.0.0.0", 8089)).expect("the port is free again");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_monitor_keeps_only_the_privileges_that_it_needs() {
    let stage = Stage::new();
    let id = stage.onggi.ok(&["run", "-d", "-p", "8088:80", &stage.busybox, "sleep", "100"]);
    let pid = fs::read_to_string(stage.onggi.runroot().join("containers").join(id.trim()).join("monitor.pid"));
    let pid = pid.expect("the monitor leaves its pid");
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("the monitor lives");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    // Neither SETUID nor SYS_MODULE, SYS_RAWIO, SYS_PTRACE, MKNOD, BPF; also not for what it executes.
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(caps(&status, set) & (1 << 7 | 1 << 16 | 1 << 17 | 1 << 19 | 1 << 27 | 1 << 39), 0, "{set}");
    }
    // The exit command inherits all of it and still cleans up.
    stage.onggi.ok(&["kill", &id]);
    let gone = || stage.onggi.ok(&["ps", "-q"]).is_empty().then_some(());
    onggi_tests::eventually("the container is over", gone);
    stage.onggi.ok(&["rm", &id]);
    stage.onggi.assert_nothing_left();
}

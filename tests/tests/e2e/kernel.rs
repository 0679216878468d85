//! `ns` and `caps`: what the kernel tells of processes and containers, beside the tools that people know.

use onggi_tests::machine::sh;

use crate::Stage;

/// Lines in an order of their own.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines
}

/// A container that waits.
fn start(stage: &Stage, name: &str) {
    let options = ["run", "-d", "--network", "none", "--hostname", "jar", "--name", name];
    stage.onggi.ok(&[&options[..], &[&stage.busybox, "sleep", "300"]].concat());
}

#[test]
fn e2e_namespaces_are_listed_as_lsns_does_with_their_containers() {
    let stage = Stage::new();
    start(&stage, "box");
    let columns = "{{.Inode}} {{.Type}} {{.Processes}} {{.Pid}}";
    let ours = stage.onggi.ok(&["ns", "ls", "--format", columns]);
    assert_eq!(sorted(&ours), sorted(&sh("exec lsns --noheadings --output NS,TYPE,NPROCS,PID")));
    let nets = stage.onggi.ok(&["ns", "ls", "-t", "net", "--format", "{{.Type}} {{.Container}}"]);
    assert_eq!(sorted(&nets), ["net", "net box"]);
    let own = stage.onggi.ok(&["ns", "ls", "--process", "box", "--format", "{{.Type}}={{.Container}}"]);
    assert_eq!(sorted(&own), ["cgroup=box", "ipc=box", "mnt=box", "net=box", "pid=box", "time=", "user=", "uts=box"]);
    let tree = stage.onggi.ok(&["ns", "ls", "--tree", "-t", "uts"]);
    let lines: Vec<&str> = tree.lines().collect();
    assert!(lines[0].starts_with("user ") && lines[1].starts_with("  uts "), "{tree}");
    sh("ip netns add kept");
    let kept = stage.onggi.ok(&["ns", "ls", "-t", "net", "--format", "{{.File}} {{.Processes}}"]);
    assert!(kept.lines().any(|line| line == "/run/netns/kept 0"), "{kept}");
    assert_eq!(stage.onggi.ok(&["ns", "enter", "/run/netns/kept", "ls", "/sys/class/net"]).trim(), links_of("kept"));
    sh("ip netns del kept; umount /run/netns");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

/// sysfs shows the devices of the network namespace in which it was mounted, for nsenter(1) too.
fn links_of(name: &str) -> String {
    sh(&format!("nsenter --net=/run/netns/{name} ls /sys/class/net")).trim().to_owned()
}

#[test]
fn e2e_namespaces_of_a_container_are_compared_and_entered() {
    let stage = Stage::new();
    start(&stage, "box");
    let shared = stage.onggi.ok(&["ns", "diff", "box", "--format", "{{.Type}}={{.Shared}}"]);
    assert_eq!(
        sorted(&shared),
        ["cgroup=no", "ipc=no", "mnt=no", "net=no", "pid=no", "time=yes", "user=yes", "uts=no"]
    );
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    let inodes = stage.onggi.ok(&["ns", "inspect", &pid, "--format", "{{.Type}}:[{{.Inode}}]"]);
    let links = sh(&format!("for f in user cgroup ipc uts net pid time mnt; do readlink /proc/{pid}/ns/$f; done"));
    assert_eq!(sorted(&inodes), sorted(&links));
    assert_eq!(stage.onggi.ok(&["ns", "enter", "box", "hostname"]), "jar");
    assert_eq!(stage.onggi.ok(&["ns", "enter", "-t", "uts", &pid, "hostname"]), "jar");
    let inside =
        stage.onggi.ok(&["ns", "enter", "--workdir", "/etc", "box", "sh", "-c", "pwd; readlink /proc/1/exe; ls /proc"]);
    assert!(inside.starts_with("/etc\n/bin/") && !inside.lines().any(|line| line == pid), "{inside}");
    assert_eq!(stage.onggi.run(&["ns", "enter", "box", "sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(stage.onggi.run(&["ns", "enter", "box", "sh", "-c", "kill -9 $$"]).code, Some(137));
    assert_eq!(stage.onggi.run(&["ns", "enter", "box", "no-such-program"]).code, Some(127));
    for (arguments, part) in [
        (["ns", "enter", "/etc/passwd", "id"], "/etc/passwd is no namespace"),
        (["ns", "enter", "ghost", "id"], "ghost"),
        (["ns", "diff", "999999", "self"], "there is no process 999999"),
        (["ns", "ls", "-t", "nets"], "expected cgroup, ipc, mnt, net, pid, time, user or uts"),
    ] {
        let refused = stage.onggi.run(&arguments);
        assert!(refused.code != Some(0) && refused.stderr.contains(part), "{refused}");
    }
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_capabilities_are_decoded_as_libcap_does() {
    let stage = Stage::new();
    let names = |text: &str| sorted(&text.trim().replace(',', "\n"));
    for mask in ["0", "1", "00000000a80425fb", "000001ffffffffff", "20000002000"] {
        let ours = stage.onggi.ok(&["caps", "decode", mask, "--format", "{{.Name}}"]);
        let theirs = sh(&format!("capsh --decode={mask}"));
        let theirs = theirs.trim().split_once('=').map(|(_, names)| names).unwrap_or_default();
        assert_eq!(names(&ours), names(theirs), "{mask}");
    }
    let program = stage.onggi.dir().join("program");
    let path = program.display().to_string();
    sh(&format!("cp /bin/busybox {path}"));
    assert_eq!(stage.onggi.ok(&["caps", "show", &path]), format!("{path}: no capabilities"));
    sh(&format!("setcap cap_net_raw,cap_net_bind_service=ep {path}"));
    let shown = stage.onggi.ok(&["caps", "show", &path, "--format", "{{.Name}} {{.Sets}}"]);
    assert_eq!(shown, "cap_net_bind_service effective,permitted\ncap_net_raw effective,permitted");
    sh(&format!("setcap cap_chown=i {path}"));
    let shown = stage.onggi.ok(&["caps", "show", &path, "--format", "{{.Name}} {{.Sets}}"]);
    assert_eq!(shown, "cap_chown inheritable");
    start(&stage, "box");
    let shown = stage.onggi.ok(&["caps", "show", "box"]);
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    let effective = sh(&format!("sed -n 's/^CapEff:[[:space:]]*//p' /proc/{pid}/status"));
    assert!(shown.contains(&format!("effective    {effective}")), "{shown}");
    assert!(shown.contains("listen on ports below 1024") && !shown.contains("cap_sys_admin"), "{shown}");
    let bad = stage.onggi.run(&["caps", "decode", "xyz"]);
    assert!(bad.code == Some(1) && bad.stderr.contains("hexadecimal"), "{bad}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

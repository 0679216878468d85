//! What somebody who comes from Docker does every day, and what he is told when it cannot be.

use std::process::Stdio;

use onggi_tests::{eventually, machine::sh, onggi::collect};

use crate::Stage;

#[test]
fn e2e_a_frozen_container_is_paused_everywhere_and_exec_says_so() {
    let stage = Stage::new();
    stage.onggi.ok(&["run", "-d", "--name", "ice", "--network", "none", &stage.busybox, "sleep", "100"]);
    stage.onggi.ok(&["cgroup", "freeze", "ice"]);
    let of = |args: &[&str]| stage.onggi.ok(args);
    let status = of(&["ps", "--format", "{{.State}} {{.Status}}"]);
    assert!(status.starts_with("paused Up ") && status.ends_with(" (Paused)"), "{status}");
    let fields = "{{.State.Status}} {{.State.Running}} {{.State.Paused}}";
    assert_eq!(of(&["inspect", "-f", fields, "ice"]), "paused true true");
    assert_eq!(of(&["ps", "-q", "--filter", "status=running"]), "");
    assert_eq!(of(&["ps", "--filter", "status=paused", "--format", "{{.Names}}"]), "ice");
    assert_eq!(of(&["info", "-f", "{{.ContainersRunning}} {{.ContainersPaused}}"]), "0 1");
    let exec = stage.onggi.run(&["exec", "ice", "true"]);
    assert_eq!(exec.code, Some(1), "{exec}");
    assert!(exec.stderr.contains("ice: it is paused") && exec.stderr.contains("hint: "), "{exec}");
    assert!(exec.stderr.contains("onggi unpause ice"), "{exec}");
    of(&["cgroup", "thaw", "ice"]);
    assert_eq!(of(&["inspect", "-f", fields, "ice"]), "running true false");
    of(&["exec", "ice", "true"]);
    of(&["rm", "-f", "ice"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_logs_are_byte_for_byte_what_was_written() {
    let stage = Stage::new();
    let script = "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i + 1)); done; printf 'caf\\351\\n\\377'; \
                  head -c 40000 /dev/urandom; printf end";
    let out = stage.onggi.dir().join("out");
    let (program, log) = (stage.onggi.program().display().to_string(), stage.onggi.dir().join("log"));
    let roots = format!("--root {} --runroot {}", stage.onggi.root().display(), stage.onggi.runroot().display());
    sh(&format!(
        "{program} {roots} run --name raw --network none {} sh -c '{}' > {}",
        stage.busybox,
        script.replace('\'', "'\\''"),
        out.display()
    ));
    sh(&format!("{program} {roots} logs raw > {}; cmp {} {}", log.display(), out.display(), log.display()));
    stage.onggi.ok(&["rm", "raw"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_an_image_of_another_platform_is_warned_of_unless_it_was_asked_for() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().join("root.tar").display().to_string();
    sh(&format!("tar -C /usr/bin -cf {dir} busybox"));
    stage.onggi.ok(&["import", "--platform", "linux/arm64", &dir, "foreign:1"]);
    let of = |options: &[&str]| {
        stage.onggi.run(&[&["run", "--rm", "--network", "none"], options, &["foreign:1", "/busybox", "true"]].concat())
    };
    let ran = of(&[]);
    let warning =
        "The requested image's platform (linux/arm64) does not match the detected host platform (linux/amd64)";
    assert!(ran.code == Some(0) && ran.stderr.contains(warning), "{ran}");
    let asked = of(&["--platform", "linux/arm64"]);
    assert_eq!((asked.code, asked.stderr.contains("platform")), (Some(0), false), "{asked}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_mistyped_destination_or_program_makes_nothing() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let nowhere = stage.onggi.dir().join("nope");
    for kind in ["dir", "oci"] {
        let ran = stage.onggi.run(&["image", "copy", &stage.busybox, &format!("{kind}:{}/x/y", nowhere.display())]);
        assert!(ran.code == Some(1) && ran.stderr.contains("ENOENT") && !nowhere.exists(), "{ran}");
    }
    for (program, why) in
        [("nope", "none of /usr/local/sbin"), ("/etc", "directory"), ("/etc/passwd", "not executable")]
    {
        let ran = stage.onggi.run(&["image", "from-binary", program]);
        assert!(ran.code == Some(1) && ran.stderr.contains(why) && ran.stderr.contains("hint: "), "{ran}");
    }
    let ran = stage.onggi.run(&["overlay", "diff", "nope"]);
    assert!(ran.code == Some(125) || ran.code == Some(1), "{ran}");
    assert!(ran.stderr.contains("no overlay is mounted on nope"), "{ran}");
}

#[test]
fn e2e_scripts_do_the_thing_or_say_what_no_shell_can() {
    let stage = Stage::new();
    let tools = stage.onggi.dir().join("tools");
    std::fs::create_dir(&tools).expect("make a directory");
    let roots = format!("--root {} --runroot {}", stage.onggi.root().display(), stage.onggi.runroot().display());
    sh(&format!(
        "printf '#!/bin/sh\\nexec {} {roots} \"$@\"\\n' > {1}/onggi; chmod +x {1}/onggi",
        stage.onggi.program().display(),
        tools.display()
    ));
    let script = |args: &[&str]| {
        let text = stage.onggi.ok(args);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &text]).env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display()));
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        onggi_tests::onggi::collect(shell.spawn().expect("start sh"), args.join(" "))
    };
    // An image without env(1) and sh(1).
    let made = script(&["image", "from-binary", "--explain=sh", "-t", "bare:1", "busybox"]);
    assert_eq!(made.code, Some(0), "{made}");
    let ran = script(&["run", "--explain=sh", "--network", "none", "-w", "/work", "bare:1", "pwd"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "/work\n"), "{ran}");
    stage.onggi.ok(&["run", "-d", "--name", "box", "--network", "none", "bare:1", "sleep", "100"]);
    let exec =
        ["exec", "--explain=sh", "-e", "A=b c", "-w", "/usr", "box", "/usr/bin/busybox", "sh", "-c", "echo $A; pwd"];
    let ran = script(&exec);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "b c\n/usr\n"), "{ran}");
    let stopped = script(&["stop", "--explain=sh", "-t", "1", "box"]);
    assert_eq!((stopped.code, stopped.stdout.as_str(), stopped.stderr.as_str()), (Some(0), "", ""), "{stopped}");
    assert_eq!(stage.onggi.ok(&["why", "-f", "{{.Cause}}", "box"]), "stopped");
    let removed = script(&["rm", "--explain=sh", "box"]);
    assert_eq!((removed.code, removed.stderr.as_str()), (Some(0), ""), "{removed}");
    assert_eq!(script(&["tag", "--explain=sh", "bare:1", "bare:2"]).code, Some(0));
    assert_eq!(stage.onggi.ok(&["images", "-q", "bare:2"]), stage.onggi.ok(&["images", "-q", "bare:1"]));
    for args in [&["save", "--explain=sh", "bare:1"][..], &["load", "--explain=sh", "-i", "/nowhere"]] {
        let ran = script(args);
        assert!(ran.code == Some(1) && ran.stderr.starts_with("no command of a shell does this"), "{ran}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_an_exported_tree_by_hand_has_what_is_below_too() {
    let stage = Stage::new();
    stage.onggi.ok(&[
        "run",
        "--name",
        "tree",
        "--network",
        "none",
        &stage.busybox,
        "sh",
        "-c",
        "echo > /new; rm /etc/group",
    ]);
    let list = |tar: &str| sh(&format!("tar -tf {tar} | sed 's,^\\./,,; s,/$,,' | grep -vxF -e . -e '' | sort"));
    let at = |name: &str| stage.onggi.dir().join(name).display().to_string();
    sh(&stage.onggi.ok(&["export", "--explain=sh", "-o", &at("hand.tar"), "tree"]));
    stage.onggi.ok(&["export", "-o", &at("ours.tar"), "tree"]);
    assert_eq!(list(&at("hand.tar")), list(&at("ours.tar")));
    stage.onggi.ok(&["rm", "tree"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_ps_counts_as_docker_does_and_filters_by_time_volume_and_port() {
    let stage = Stage::new();
    let start = |name: &str, more: &[&str]| {
        let fixed = ["run", "-d", "--name", name];
        stage.onggi.ok(&[&fixed[..], more, &[&stage.busybox, "sleep", "100"]].concat());
    };
    start("first", &["--network", "none", "-v", "/srv:/data"]);
    start("second", &["-p", "18081-18082:18081-18082", "-p", "18090:80"]);
    let names = |args: &[&str]| stage.onggi.ok(&[&["ps", "--format", "{{.Names}}"], args].concat());
    let ports = "0.0.0.0:18090->80/tcp, 0.0.0.0:18081-18082->18081-18082/tcp";
    assert_eq!(stage.onggi.ok(&["ps", "--format", "{{.Ports}}", "-f", "name=second"]), ports);
    for (filter, found) in [
        ("before=second", "first"),
        ("since=first", "second"),
        ("volume=/data", "first"),
        ("volume=/srv", "first"),
        ("publish=18082", "second"),
        ("publish=18000-18100/tcp", "second"),
        ("publish=18082/udp", ""),
        ("expose=80", "second"),
    ] {
        assert_eq!(names(&["-f", filter]), found, "{filter}");
    }
    assert_eq!((names(&["-n", "-1"]).lines().count(), names(&["-n", "1"]).as_str()), (2, "second"));
    let missing = stage.onggi.run(&["ps", "-f", "before=nope"]);
    assert!(missing.code == Some(1) && missing.stderr.contains("no such container: nope"), "{missing}");
    stage.onggi.ok(&["rm", "-f", "first", "second"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_what_learn_has_seen_survives_somebody_who_insists_on_the_end() {
    let stage = Stage::new();
    let out = stage.onggi.dir().join("learned");
    let out = out.display().to_string();
    let run = [
        "learn",
        "run",
        "--network",
        "none",
        "--output",
        &out,
        &stage.busybox,
        "sh",
        "-c",
        "trap : INT; echo up; while :; do sleep 1; done",
    ];
    let mut child =
        stage.onggi.command(&run).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start onggi");
    eventually("the workload runs", || (!stage.onggi.ok(&["ps", "-q"]).is_empty()).then_some(()));
    let ran = loop {
        sh(&format!("kill -INT {}", child.id()));
        std::thread::sleep(std::time::Duration::from_millis(200));
        if child.try_wait().expect("look at onggi").is_some() {
            break collect(child, "learn run, and three ^C".to_owned());
        }
    };
    assert_eq!(ran.code, Some(137), "{ran}");
    assert!(ran.stderr.contains("it is killed"), "{ran}");
    let report = std::fs::read_to_string(format!("{out}/report.json")).expect("the report is written");
    assert!(report.contains("\"Syscalls\""), "{report}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_images_are_filtered_by_age_relative_to_another() {
    let stage = Stage::new();
    stage.onggi.ok(&["image", "from-binary", "-t", "old:1", "busybox"]);
    let tar = stage.onggi.dir().join("root.tar").display().to_string();
    sh(&format!("tar -C /usr/bin -cf {tar} busybox"));
    stage.onggi.ok(&["import", &tar, "new:1"]);
    let names = |filter: &str| stage.onggi.ok(&["images", "--format", "{{.Repository}}", "-f", filter]);
    assert_eq!((names("before=new:1").as_str(), names("since=old:1").as_str()), ("old", "new"));
    assert_eq!((names("before=old:1").as_str(), names("since=new:1").as_str()), ("", ""));
    let missing = stage.onggi.run(&["images", "-f", "since=nope"]);
    assert!(missing.code == Some(1) && missing.stderr.contains("no such image: nope"), "{missing}");
}

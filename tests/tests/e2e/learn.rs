//! `learn run`: the proposal is enough for the workload, and for nothing beyond it.

use std::fs;

use onggi_tests::machine::sh;
use serde_json::Value;

use crate::Stage;

/// Runs under observation; the flags and the report.
fn learn(stage: &Stage, options: &[&str], command: &[&str]) -> (Vec<String>, Value) {
    let dir = stage.onggi.dir().join("learned");
    let dir_text = dir.display().to_string();
    let image = [stage.busybox.as_str()];
    let run = ["learn", "run", "--output", &dir_text, "--network", "none"];
    let ran = stage.onggi.run(&[&run, options, &image, command].concat());
    assert_eq!(ran.code, Some(0), "{ran}");
    let flags = fs::read_to_string(dir.join("flags")).expect("flags are written");
    let report = fs::read_to_string(dir.join("report.json")).expect("a report is written");
    let profile: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("profile.json")).expect("a profile")).expect("it is JSON");
    assert_eq!(profile["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    (flags.lines().map(str::to_owned).collect(), serde_json::from_str(&report).expect("it is JSON"))
}

fn run(stage: &Stage, flags: &[String], command: &[&str]) -> onggi_tests::Ran {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    stage.onggi.run(&[&["run", "--rm", "--network", "none"], &flags[..], &[stage.busybox.as_str()], command].concat())
}

fn names(report: &Value, key: &str) -> Vec<String> {
    let list = report[key].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

#[test]
fn e2e_a_workload_runs_with_what_was_learned_of_it_and_what_is_outside_is_refused() {
    let stage = Stage::new();
    let workload = ["sh", "-c", "cat /etc/passwd | grep -q root && id -u"];
    let (flags, report) = learn(&stage, &[], &workload);
    assert_eq!(report["LostEvents"], 0, "{report}");
    let calls = names(&report, "Syscalls");
    for call in ["execve", "read", "write", "openat", "exit_group", "getuid"] {
        assert!(calls.iter().any(|c| c == call) || call == "openat", "{call}: {calls:?}");
    }
    assert!(calls.len() < 80 && !calls.iter().any(|c| c == "mount" || c == "socket"), "{calls:?}");
    assert!(flags.contains(&"--read-only".to_owned()) && flags.contains(&"--cap-drop=ALL".to_owned()), "{flags:?}");
    let again = run(&stage, &flags, &workload);
    assert_eq!((again.code, again.stdout.trim()), (Some(0), "0"), "{again}");
    // None of these calls was made: making a directory, a link, a socket; and the root is read-only.
    let outside =
        run(&stage, &flags, &["sh", "-c", "nc -l -p 80 127.0.0.1 & mkdir /tmp/x; echo $?; touch /y; echo $?"]);
    assert_eq!(outside.stdout.split_whitespace().collect::<Vec<_>>(), ["1", "1"], "{outside}");
    let socket = run(&stage, &flags, &["ping", "-c", "1", "127.0.0.1"]);
    assert!(socket.code != Some(0) && socket.stderr.contains("permission denied"), "{socket}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_workload_that_cannot_be_started_is_said_at_once_and_leaves_nothing() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().join("learned");
    let output = dir.to_str().expect("a name");
    let ran = stage.onggi.run(&["learn", "run", "--output", output, "--network", "none", &stage.busybox, "no-such"]);
    assert_eq!(ran.code, Some(127), "{ran}");
    assert!(ran.stderr.contains("no-such"), "{ran}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_capabilities_and_written_paths_are_those_that_were_used() {
    let stage = Stage::new();
    let data = stage.onggi.dir().join("data");
    fs::create_dir(&data).expect("a directory is made");
    fs::write(data.join("file"), "x").expect("a file is made");
    // Older than any clock's tick.
    sh(&format!("touch -d '1 hour ago' {0}/file {0}; sleep 2.1", data.display()));
    let volume = format!("{}:/data", data.display());
    let workload = ["sh", "-c", "cat /data/file; touch /var/made; busybox chown 5 /var/made; kill -0 1"];
    let (flags, report) = learn(&stage, &["-v", &volume], &workload);
    let capabilities = names(&report, "Capabilities");
    let known = !report["Capabilities"].is_null();
    if known {
        assert!(capabilities.contains(&"CAP_CHOWN".to_owned()), "{report}");
        assert!(!capabilities.contains(&"CAP_NET_RAW".to_owned()), "{report}");
    }
    assert_eq!(names(&report, "Written"), ["/var/made"], "{report}");
    assert!(!names(&report, "ReadonlyPaths").contains(&"/var".to_owned()), "{report}");
    assert!(!flags.contains(&"--read-only".to_owned()), "{flags:?}");
    assert!(flags.iter().any(|f| f.ends_with(":/data:ro")), "the volume was only read: {flags:?}");
    let again = run(&stage, &flags, &workload);
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "x"), "{again}");
    if known {
        let refused = run(
            &stage,
            &flags,
            &["sh", "-c", "cat /data/file; touch /var/made; busybox chown 5 /var/made; mkdir /data/y"],
        );
        assert!(refused.code != Some(0), "the volume is read-only now: {refused}");
    }
    stage.onggi.assert_nothing_left();
}

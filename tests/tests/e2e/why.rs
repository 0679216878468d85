//! `why`: the cause that was recorded, for every way in which a container can end or fail to start.

use std::fs;

use onggi_tests::{
    image::{Compression, Flavour, Image, ImageBuilder, busybox_tree},
    machine::sh,
};
use serde_json::Value;

use crate::Stage;

fn why(stage: &Stage, name: &str) -> Value {
    serde_json::from_str(&stage.onggi.ok(&["why", "--format", "json", name])).expect("why prints JSON")
}

/// Cause and summary after a run to the end.
#[track_caller]
fn after(stage: &Stage, options: &[&str], command: &[&str]) -> (String, String) {
    let image = [stage.busybox.as_str()];
    let ran = stage.onggi.run(&[&["run", "--name", "box", "--network", "none"], options, &image, command].concat());
    let told = why(stage, "box");
    assert_eq!(told["ExitCode"].as_i64(), ran.code.map(i64::from), "{ran}\n{told}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    (text("Cause"), format!("{told}"))
}

#[test]
fn e2e_an_end_is_explained_by_what_was_recorded() {
    let stage = Stage::new();
    let cases: [(&[&str], &[&str], &str, &str); 8] = [
        (&[], &["true"], "success", "by itself"),
        (&[], &["sh", "-c", "echo last words >&2; exit 3"], "exit-code", "last words"),
        (&[], &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], "exit-code", "no signal ended it"),
        (&[], &["sh", "-c", "no-such-command"], "exit-code", "does not find a command"),
        (&["--init"], &["sh", "-c", "kill -SEGV $$"], "exit-code", "SIGSEGV"),
        (&["-m", "12m"], &["sh", "-c", "tail /dev/zero"], "out-of-memory", "12MiB"),
        (&["--pids-limit", "4"], &["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 3 & done; wait"], "pids-limit", "4"),
        (&["--read-only"], &["touch", "/x"], "exit-code", "--read-only"),
    ];
    for (options, command, cause, part) in cases {
        let (found, text) = after(&stage, options, command);
        assert!(found == cause && text.contains(part), "{command:?}: expected {cause} and {part:?}: {text}");
    }
    let ran = stage.onggi.run(&["why", "ghost"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("--rm"), "{ran}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_stop_a_kill_and_a_stranger_are_told_apart() {
    let stage = Stage::new();
    let start = |options: &[&str], command: &[&str]| {
        let image = [stage.busybox.as_str()];
        stage.onggi.ok(&[&["run", "-d", "--name", "box", "--network", "none"], options, &image, command].concat());
    };
    let cause = |part: &str| {
        let told = why(&stage, "box");
        assert!(told["Summary"].as_str().unwrap_or_default().contains(part), "{part}: {told}");
        stage.onggi.ok(&["rm", "-f", "box"]);
        told["Cause"].as_str().unwrap_or_default().to_owned()
    };
    start(&[], &["sleep", "300"]);
    assert_eq!(why(&stage, "box")["Cause"], "running");
    stage.onggi.ok(&["stop", "-t", "1", "box"]);
    assert_eq!(cause("killed it after"), "stopped");
    start(&["--init"], &["sleep", "300"]);
    stage.onggi.ok(&["kill", "box"]);
    stage.onggi.run(&["wait", "box"]);
    assert_eq!(cause("onggi kill"), "killed");
    start(&[], &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]);
    stage.onggi.ok(&["stop", "box"]);
    assert_eq!(cause("handled"), "stopped");
    start(&[], &["sleep", "300"]);
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    sh(&format!("kill -KILL {pid}"));
    stage.onggi.run(&["wait", "box"]);
    assert_eq!(cause("no command of onggi"), "signal");
    stage.onggi.ok(&["create", "--name", "box", "--network", "none", &stage.busybox, "true"]);
    assert_eq!(cause("never started"), "never-started");
    stage.onggi.assert_nothing_left();
}

/// busybox, and programs that cannot start, each for a reason of its own.
fn broken_image() -> Image {
    let mut foreign = fs::read("/bin/busybox").expect("busybox is installed");
    // e_machine: EM_AARCH64.
    foreign[18..20].copy_from_slice(&183u16.to_le_bytes());
    let dynamic = fs::read("/bin/ls").expect("read /bin/ls");
    let tree = busybox_tree()
        .file("bin/script", 0o755, b"#!/usr/bin/python9\n")
        .file("bin/dos", 0o755, b"#!/bin/sh\r\necho\r\n")
        .file("bin/arm", 0o755, &foreign)
        .file("bin/plain", 0o644, b"#!/bin/sh\n")
        .file("bin/noise", 0o755, b"neither program nor script\n")
        .file("bin/dynamic", 0o755, &dynamic);
    ImageBuilder::new(Flavour::Oci).layer(&tree.finish(), Compression::Gzip).build()
}

#[test]
fn e2e_a_command_that_cannot_start_is_explained_by_the_files_of_the_image() {
    let stage = Stage::new();
    let image = stage.registry.serve("broken", "latest", &broken_image());
    let cases = [
        ("ghost", "command-not-found", "/usr/bin/ghost"),
        ("/opt/ghost", "command-not-found", "/opt/ghost"),
        ("script", "interpreter-missing", "/usr/bin/python9"),
        ("dos", "interpreter-missing", "DOS line ends"),
        ("/bin/arm", "wrong-architecture", "arm64"),
        ("/bin/plain", "not-executable", "not marked executable"),
        ("/bin/noise", "not-executable", "neither a program nor a script"),
        ("/bin/dynamic", "interpreter-missing", "libc.so.6"),
    ];
    for (command, cause, part) in cases {
        let ran = stage.onggi.run(&["run", "--name", "box", "--network", "none", &image, command]);
        assert!(matches!(ran.code, Some(126 | 127)), "{ran}");
        let told = why(&stage, "box");
        assert_eq!(told["Cause"], cause, "{command}: {told}");
        assert_eq!(told["ExitCode"].as_i64(), ran.code.map(i64::from), "{told}");
        assert!(told.to_string().contains(part), "{command}: {part}: {told}");
        let words = stage.onggi.ok(&["why", "box"]);
        assert!(words.contains("what shows it") && words.contains("what to do"), "{words}");
        stage.onggi.ok(&["rm", "box"]);
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_program_whose_library_is_missing_is_explained_by_its_elf_headers() {
    let stage = Stage::new();
    let loader = "/lib64/ld-linux-x86-64.so.2";
    let tree = busybox_tree()
        .file("bin/dynamic", 0o755, &fs::read("/bin/ls").expect("read /bin/ls"))
        .directory("lib64", 0o755)
        .file("lib64/ld-linux-x86-64.so.2", 0o755, &fs::read(loader).expect("read the loader"));
    let image = ImageBuilder::new(Flavour::Oci).layer(&tree.finish(), Compression::Gzip).build();
    let image = stage.registry.serve("lacking", "latest", &image);
    let ran = stage.onggi.run(&["run", "--name", "box", "--network", "none", &image, "/bin/dynamic"]);
    assert_eq!(ran.code, Some(127), "{ran}");
    let told = why(&stage, "box");
    assert_eq!(told["Cause"], "library-missing", "{told}");
    assert!(told.to_string().contains("libc.so.6"), "{told}");
    stage.onggi.ok(&["rm", "box"]);
    stage.onggi.assert_nothing_left();
}

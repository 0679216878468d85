//! What scripts that were written for other engines take for granted.

use std::process::Stdio;

use onggi_tests::{eventually, machine::sh};

use crate::Stage;

#[test]
fn e2e_wait_tells_how_a_container_of_rm_ended() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    for round in 0..10 {
        let name = format!("short{round}");
        onggi.ok(&[
            "run",
            "-d",
            "--rm",
            "--network",
            "none",
            "--name",
            &name,
            &stage.busybox,
            "sh",
            "-c",
            "sleep 0.5; exit 5",
        ]);
        let waited = onggi.run(&["wait", &name]);
        assert_eq!((waited.code, waited.stdout.trim()), (Some(0), "5"), "{waited}");
    }
    // Its removal begins when it has ended.
    eventually("all are removed", || onggi.ok(&["ps", "-aq"]).is_empty().then_some(()));
    let gone = onggi.run(&["wait", "short0"]);
    assert!(gone.code == Some(1) && gone.stdout.is_empty() && gone.stderr.contains("no such container"), "{gone}");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_wait_during_a_restart_tells_the_end_that_it_waited_for() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["run", "-d", "--network", "none", "--name", "web", &stage.busybox, "sleep", "1000"]);
    for _ in 0..10 {
        let waiting = onggi.command(&["wait", "web"]).stdout(Stdio::piped()).spawn().expect("start onggi");
        std::thread::sleep(std::time::Duration::from_millis(150));
        onggi.ok(&["restart", "-t", "0", "web"]);
        let waited = waiting.wait_with_output().expect("wait for onggi");
        assert_eq!(String::from_utf8_lossy(&waited.stdout).trim(), "137");
    }
    onggi.ok(&["rm", "-f", "web"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_what_is_killed_can_be_removed_or_started_at_once() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    for _ in 0..5 {
        onggi.ok(&["run", "-d", "--network", "none", "--name", "web", &stage.busybox, "sleep", "1000"]);
        let plan = |signal: &str| onggi.ok(&["kill", "-s", signal, "--explain", "web"]);
        assert!(plan("KILL").contains("wait until the monitor") && !plan("HUP").contains("wait until"));
        onggi.ok(&["kill", "web"]);
        assert_eq!(onggi.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web"]), "exited 137");
        onggi.ok(&["start", "web"]);
        assert_eq!(onggi.ok(&["inspect", "-f", "{{.State.Status}}", "web"]), "running");
        onggi.ok(&["kill", "-s", "9", "web"]);
        onggi.ok(&["rm", "web"]);
    }
    onggi.assert_nothing_left();
}

#[test]
fn e2e_the_end_of_input_of_attach_is_not_that_of_a_container_in_the_background() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["run", "-di", "--network", "none", "--name", "cat", &stage.busybox, "cat"]);
    let pipe = |text: &str| {
        let mut attached = onggi.command(&["attach", "cat"]);
        let mut attached = attached.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("start onggi");
        let mut input = attached.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut input, text.as_bytes()).expect("write");
        drop(input);
        eventually("it is echoed", || onggi.ok(&["logs", "cat"]).contains(text.trim()).then_some(()));
        attached.kill().and_then(|()| attached.wait()).expect("end attach");
    };
    pipe("first\n");
    pipe("second\n");
    assert_eq!(onggi.ok(&["inspect", "-f", "{{.State.Status}}", "cat"]), "running");
    onggi.ok(&["rm", "-f", "cat"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_hundreds_of_ports_are_published() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["run", "-d", "-p", "127.0.0.1:3800-4099:3800-4099", "--name", "many", &stage.busybox, "sleep", "1000"]);
    let ports = onggi.ok(&["ps", "--format", "{{.Ports}}"]);
    assert_eq!(ports, "127.0.0.1:3800-4099->3800-4099/tcp");
    onggi.ok(&["rm", "-f", "many"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_ids_and_names_are_taken_as_they_are_printed() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["create", "--network", "none", "--name", "/web", &stage.busybox, "true"]);
    let name = onggi.ok(&["inspect", "-f", "{{.Name}}", "web"]);
    assert_eq!(name, "/web");
    let id = onggi.ok(&["commit", &name]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", &id, "echo", "whole"]), "whole");
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", &id[..19], "echo", "short"]), "short");
    let before = stage.registry.asked().len();
    let none = onggi.run(&["run", "--rm", &format!("sha256:{}", "0".repeat(64)), "true"]);
    assert!(none.code == Some(125) && none.stderr.contains("no such image"), "{none}");
    assert_eq!(stage.registry.asked().len(), before, "an id is no name of a repository");
    let tagged = onggi.run(&["tag", &id, "sha256:tag"]);
    assert!(tagged.code == Some(1), "{tagged}");
    onggi.ok(&["rm", &name]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_signals_reach_the_program_in_the_container() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let script = "for s in HUP USR1 WINCH PWR XCPU IO; do trap \"echo got $s\" $s; done; trap 'exit 0' TERM; echo up; \
                  while :; do sleep 0.05; done";
    let mut command =
        onggi.command(&["run", "--rm", "--name", "web", "--network", "none", &stage.busybox, "sh", "-c", script]);
    let mut running = command.stdout(Stdio::null()).spawn().expect("start onggi");
    let logged = |text: &str| eventually(text, || onggi.run(&["logs", "web"]).stdout.contains(text).then_some(()));
    logged("up");
    for signal in ["HUP", "USR1", "WINCH", "PWR", "XCPU", "IO"] {
        sh(&format!("kill -{signal} {}", running.id()));
        logged(&format!("got {signal}"));
    }
    sh(&format!("kill -TERM {}", running.id()));
    assert_eq!(running.wait().expect("wait for onggi").code(), Some(0));
    onggi.assert_nothing_left();
}

//! `kill -9` at every named point of run, commit, stop, rm and pull, and of the monitor; then the next command;
//! then nothing is left.
//!
//! The points are listed by the program itself (`onggi __failpoints`), so that a new one is tested without
//! a change here.

use std::{fs, process::Command};

use onggi_tests::{Onggi, Ran, eventually};

use crate::Stage;

/// Runs `args` with a failpoint set.
fn run_with(stage: &Stage, failpoint: &str, args: &[&str]) -> Ran {
    stage.onggi.finish(stage.onggi.command(args).env("ONGGI_FAILPOINT", failpoint))
}

fn failpoints(stage: &Stage) -> Vec<String> {
    let list = stage.onggi.ok(&["__failpoints"]);
    assert!(!list.is_empty(), "the program was built without failpoints");
    list.lines().map(str::to_owned).collect()
}

/// What one user does in a row; every failpoint must be met by one of these.
fn life(image: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["pull", image],
        vec!["run", "-d", "--name", "web", "-p", "8080:80", image, "sleep", "100"],
        vec!["commit", "web", "made"],
        vec!["pause", "web"],
        vec!["unpause", "web"],
        vec!["stop", "-t", "0", "web"],
        vec!["rm", "-f", "web"],
        vec!["rmi", "-f", "made"],
    ]
}

/// After a crash: the next command works, and tells the truth.
#[track_caller]
fn check_truth(stage: &Stage, failpoint: &str) {
    let listed = || stage.onggi.ok(&["ps", "--filter", "status=running", "--format", "{{.Names}}"]);
    for name in listed().lines() {
        let ran = stage.onggi.run(&["exec", name, "true"]);
        // What was told to stop may end between the two commands, and is then listed no more.
        let runs = ran.code == Some(0) || !listed().lines().any(|later| later == name);
        assert!(runs, "{failpoint}: {name} is listed as running: {ran}");
    }
}

#[test]
fn e2e_kill_at_every_point_of_a_detached_life_is_cleaned_up_by_the_next_command() {
    let stage = Stage::with(Onggi::with_failpoints);
    for failpoint in failpoints(&stage) {
        let mut killed = 0;
        for args in life(&stage.busybox) {
            let ran = run_with(&stage, &failpoint, &args);
            killed += u32::from(ran.code.is_none());
            assert!(!ran.stderr.contains("panicked"), "{failpoint}: {ran}");
            check_truth(&stage, &failpoint);
        }
        assert!(killed > 0, "{failpoint} is never met");
        stage.onggi.run(&["rm", "-f", "web"]);
        for args in life(&stage.busybox) {
            stage.onggi.ok(&args);
        }
        stage.onggi.assert_nothing_left();
        stage.onggi.ok(&["rmi", &stage.busybox]);
    }
}

#[test]
fn e2e_kill_at_every_point_of_a_foreground_run_is_cleaned_up_by_the_next_command() {
    let stage = Stage::with(Onggi::with_failpoints);
    let args = ["run", "--rm", "-p", "8080:80", &stage.busybox, "sh", "-c", "echo ran"];
    let mut killed = 0;
    for failpoint in failpoints(&stage) {
        let ran = run_with(&stage, &failpoint, &args);
        killed += u32::from(ran.code.is_none());
        assert!(!ran.stderr.contains("panicked"), "{failpoint}: {ran}");
        eventually("the container is gone", || stage.onggi.ok(&["ps", "-a", "-q"]).is_empty().then_some(()));
        stage.onggi.assert_nothing_left();
    }
    assert!(killed >= 10, "a foreground run meets only {killed} failpoints");
    assert_eq!(stage.onggi.ok(&args), "ran");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_killed_monitor_never_leaves_a_container_that_seems_to_run() {
    let stage = Stage::new();
    for _ in 0..5 {
        let id = stage.onggi.ok(&["run", "-d", "--name", "web", "-p", "8080:80", &stage.busybox, "sleep", "100"]);
        let pid = stage.onggi.ok(&["inspect", "--format", "{{.State.Pid}}", "web"]);
        let monitor = fs::read_to_string(stage.onggi.runroot().join("containers").join(&id).join("monitor.pid"));
        let monitor = monitor.expect("the monitor has a pid file");
        let kill = Command::new("kill").args(["-9", monitor.trim()]).status().expect("start kill");
        assert!(kill.success());
        eventually("the workload dies with its monitor", || {
            let alive = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "sleep");
            (!alive).then_some(())
        });
        assert_eq!(stage.onggi.ok(&["ps", "-q"]), "");
        let state = stage.onggi.ok(&["inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", "web"]);
        assert_eq!(state, "false 137");
        stage.onggi.ok(&["rm", "web"]);
        stage.onggi.assert_nothing_left();
    }
}

#[test]
fn e2e_a_killed_client_leaves_the_workload_running_and_its_log_complete() {
    let stage = Stage::new();
    let script = "i=0; while [ $i -lt 20 ]; do echo line $i; i=$((i+1)); sleep 0.1; done";
    let mut command =
        stage.onggi.command(&["run", "--name", "talk", "--network", "none", &stage.busybox, "sh", "-c", script]);
    let mut client = command.stdout(std::process::Stdio::null()).spawn().expect("start onggi");
    eventually("it talks", || {
        let ran = stage.onggi.run(&["logs", "talk"]);
        ran.stdout.contains("line 3").then_some(())
    });
    client.kill().expect("kill the client");
    client.wait().expect("wait for the client");
    assert_eq!(stage.onggi.ok(&["wait", "talk"]), "0");
    assert_eq!(stage.onggi.ok(&["logs", "talk"]).lines().count(), 20);
    stage.onggi.ok(&["rm", "talk"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_reboot_leaves_containers_exited_and_removable() {
    let stage = Stage::new();
    let id = stage.onggi.ok(&["run", "-d", "--name", "web", "-p", "8080:80", &stage.busybox, "sleep", "100"]);
    let monitor = stage.onggi.runroot().join("containers").join(&id).join("monitor.pid");
    let monitor = fs::read_to_string(monitor).expect("the monitor has a pid file");
    // A power cut ends everything at once and empties the run root; links and rules are gone as well.
    assert!(Command::new("kill").args(["-9", monitor.trim()]).status().expect("start kill").success());
    fs::remove_dir_all(stage.onggi.runroot()).expect("empty the run root");
    fs::create_dir(stage.onggi.runroot()).expect("make the run root");
    onggi_tests::machine::sh("ip link del onggi0; nft flush ruleset");
    let table = stage.onggi.ok(&["ps", "-a"]);
    assert!(table.contains("Exited"), "{table}");
    stage.onggi.ok(&["start", "web"]);
    assert!(stage.onggi.ok(&["ps"]).contains("Up"));
    stage.onggi.ok(&["rm", "-f", "web"]);
    stage.onggi.assert_nothing_left();
}

//! `pause` and `unpause`, and what every other verb says to a paused container.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use onggi_tests::{assert_refused, eventually};

use crate::Stage;

impl Stage {
    /// A container that counts in its log, paused when it has begun to.
    fn paused(&self, name: &str) {
        let script = "trap 'echo term; exit 7' TERM; trap 'echo hup' HUP; i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done";
        self.onggi.ok(&["run", "-d", "--name", name, "--network", "none", &self.busybox, "sh", "-c", script]);
        eventually("it counts", || self.onggi.ok(&["logs", name]).contains('1').then_some(()));
        assert_eq!(self.onggi.ok(&["pause", name]), name);
    }

    fn state(&self, name: &str) -> String {
        self.onggi.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Running}} {{.State.Paused}}", name])
    }
}

#[test]
fn e2e_pause_a_paused_container_stands_still_and_goes_on() {
    let stage = Stage::new();
    stage.paused("ice");
    let log = stage.onggi.ok(&["logs", "ice"]);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(stage.onggi.ok(&["logs", "ice"]), log, "nothing is written while it is paused");
    assert_eq!(stage.state("ice"), "paused true true");
    let status = stage.onggi.ok(&["ps", "--filter", "status=paused", "--format", "{{.Names}} {{.Status}}"]);
    assert!(status.starts_with("ice Up ") && status.ends_with(" (Paused)"), "{status}");
    let again = stage.onggi.run(&["pause", "ice"]);
    assert_refused(&again, 1, &["ice", "paused", "onggi unpause ice"]);
    assert_eq!(stage.onggi.ok(&["container", "unpause", "ice"]), "ice");
    assert_eq!(stage.state("ice"), "running true false");
    eventually("it counts again", || (stage.onggi.ok(&["logs", "ice"]).len() > log.len()).then_some(()));
    assert_refused(&stage.onggi.run(&["unpause", "ice"]), 1, &["ice", "running"]);
    stage.onggi.ok(&["rm", "-f", "ice"]);
    assert_refused(&stage.onggi.run(&["pause", "ice"]), 1, &["ice"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_pause_several_and_all_and_those_that_do_not_run() {
    let stage = Stage::new();
    for name in ["one", "two", "six"] {
        stage.onggi.ok(&["run", "-d", "--name", name, "--network", "none", &stage.busybox, "sleep", "300"]);
    }
    stage.onggi.ok(&["create", "--name", "new", "--network", "none", &stage.busybox, "true"]);
    let some = stage.onggi.run(&["pause", "one", "new", "nothing", "two"]);
    assert_eq!((some.code, some.stdout.as_str()), (Some(1), "one\ntwo\n"), "the rest goes on: {some}");
    assert!(some.stderr.contains("cannot pause container new: it is created"), "{some}");
    assert_eq!(stage.onggi.ok(&["pause", "--all"]).lines().count(), 1, "only six was not paused yet");
    assert_eq!(stage.onggi.ok(&["ps", "-q", "--filter", "status=paused"]).lines().count(), 3);
    assert_eq!(stage.onggi.ok(&["unpause", "-a"]).lines().count(), 3);
    assert_eq!(stage.onggi.ok(&["unpause", "-a"]), "");
    assert_eq!(stage.onggi.ok(&["ps", "-q", "--filter", "status=running"]).lines().count(), 3);
    stage.onggi.ok(&["rm", "-f", "one", "two", "six", "new"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_pause_what_other_verbs_say_to_a_paused_container() {
    let stage = Stage::new();
    stage.paused("ice");
    for refused in [&["exec", "ice", "true"][..], &["attach", "ice"], &["start", "ice"], &["start", "-a", "ice"]] {
        assert_refused(&stage.onggi.run(refused), 1, &["ice", "it is paused", "onggi unpause ice"]);
    }
    assert_refused(&stage.onggi.run(&["rm", "ice"]), 1, &["it is paused", "rm -f"]);
    let wait = stage.onggi.command(&["wait", "ice"]).stdout(Stdio::piped()).spawn().expect("start onggi");
    // The image is committed as it stands, and the container stays paused.
    stage.onggi.ok(&["commit", "ice", "made:1"]);
    assert_eq!(stage.state("ice"), "paused true true");
    let start = Instant::now();
    assert_eq!(stage.onggi.ok(&["stop", "ice"]), "ice");
    assert!(start.elapsed() < Duration::from_secs(8), "it saw the signal: {:?}", start.elapsed());
    let waited = wait.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&waited.stdout), "7\n");
    assert!(stage.onggi.ok(&["logs", "ice"]).ends_with("term"));
    stage.onggi.ok(&["rm", "ice"]);
    stage.onggi.ok(&["rmi", "made:1"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_pause_kill_restart_and_rm_end_a_pause() {
    let stage = Stage::new();
    stage.paused("ice");
    stage.onggi.ok(&["kill", "-s", "HUP", "ice"]);
    assert_eq!(stage.state("ice"), "running true false", "any signal ends a pause, as with Docker");
    eventually("the signal arrives", || stage.onggi.ok(&["logs", "ice"]).contains("hup").then_some(()));
    stage.onggi.ok(&["pause", "ice"]);
    assert_eq!(stage.onggi.ok(&["restart", "-t", "5", "ice"]), "ice");
    assert_eq!(stage.state("ice"), "running true false");
    stage.onggi.ok(&["pause", "ice"]);
    stage.onggi.ok(&["kill", "ice"]);
    assert_eq!(stage.onggi.ok(&["wait", "ice"]), "137");
    stage.onggi.ok(&["start", "ice"]);
    stage.onggi.ok(&["pause", "ice"]);
    stage.onggi.ok(&["rm", "-f", "ice"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_pause_explains_itself() {
    let stage = Stage::new();
    stage.paused("ice");
    let words = stage.onggi.ok(&["unpause", "--explain", "ice"]);
    assert!(words.contains("thaw the control group"), "{words}");
    let words = stage.onggi.ok(&["stop", "--explain", "ice"]);
    assert!(words.contains("send SIGTERM") && words.contains("thaw the control group"), "{words}");
    assert_eq!(stage.state("ice"), "paused true true", "nothing was done");
    assert_refused(&stage.onggi.run(&["pause", "--explain", "ice"]), 1, &["paused"]);
    stage.onggi.ok(&["unpause", "ice"]);
    let words = stage.onggi.ok(&["pause", "--explain", "ice"]);
    assert!(words.contains("freeze the control group"), "{words}");
    stage.onggi.ok(&["rm", "-f", "ice"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_pause_without_control_groups_of_version_2_nothing_differs() {
    onggi_tests::isolated();
    onggi_tests::machine::without_unified_cgroups();
    let stage = Stage::new();
    stage.paused("ice");
    assert_eq!(stage.state("ice"), "paused true true");
    let id = stage.onggi.ok(&["inspect", "-f", "{{.Id}}", "ice"]);
    let state = format!("find -L /sys/fs/cgroup/freezer -path '*{id}*' -name freezer.state -exec cat {{}} +");
    let state = onggi_tests::machine::sh(&state);
    stage.onggi.ok(&["kill", "ice"]);
    assert_eq!(stage.onggi.ok(&["wait", "ice"]), "137", "what stands still there is not even ended by SIGKILL");
    // Not before: what this test leaves frozen could not be ended.
    assert_eq!(state, "FROZEN\n");
    stage.onggi.ok(&["start", "ice"]);
    stage.onggi.ok(&["pause", "ice"]);
    let start = Instant::now();
    stage.onggi.ok(&["stop", "ice"]);
    assert!(start.elapsed() < Duration::from_secs(8), "it saw the signal: {:?}", start.elapsed());
    stage.onggi.ok(&["start", "ice"]);
    stage.onggi.ok(&["pause", "ice"]);
    stage.onggi.ok(&["rm", "-f", "ice"]);
    stage.onggi.assert_nothing_left();
}

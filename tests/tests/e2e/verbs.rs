//! The verbs besides `run`: ps, logs, exec, stop, kill, start, rm, wait, inspect.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use onggi_tests::eventually;

use crate::Stage;

impl Stage {
    /// A detached container without a network that runs a script.
    fn detached(&self, name: &str, script: &str) -> String {
        self.onggi.ok(&["run", "-d", "--name", name, "--network", "none", &self.busybox, "sh", "-c", script])
    }
}

#[test]
fn e2e_ps_lists_what_runs_and_with_a_everything() {
    let stage = Stage::new();
    let up = stage.detached("up", "sleep 100");
    stage.detached("down", "exit 4");
    assert_eq!(stage.onggi.ok(&["wait", "down"]), "4");
    let table = stage.onggi.ok(&["ps"]);
    let head = table.lines().next().expect("a table has a head");
    assert_eq!(
        head.split_whitespace().collect::<Vec<_>>(),
        ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    );
    assert!(table.contains(&up[..12]) && table.contains("Up ") && !table.contains("down"), "{table}");
    let all = stage.onggi.ok(&["ps", "-a"]);
    assert!(all.contains("Exited (4)"), "{all}");
    assert_eq!(stage.onggi.ok(&["ps", "-q", "--no-trunc"]), up);
    assert_eq!(stage.onggi.ok(&["ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}"]), "down");
    assert_eq!(stage.onggi.ok(&["ps", "--filter", "name=up", "--format", "{{.ID}}"]), up[..12]);
    stage.onggi.ok(&["rm", "-f", "up", "down"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_logs_keep_both_streams_and_follow_to_the_end() {
    let stage = Stage::new();
    stage.detached("talk", "echo one; echo two >&2; sleep 1; echo three");
    let follow = stage.onggi.run(&["logs", "-f", "talk"]);
    assert_eq!((follow.stdout.as_str(), follow.stderr.as_str()), ("one\nthree\n", "two\n"), "{follow}");
    let tail = stage.onggi.run(&["logs", "--tail", "1", "talk"]);
    assert_eq!((tail.stdout.as_str(), tail.stderr.as_str()), ("three\n", ""), "{tail}");
    let stamped = stage.onggi.ok(&["logs", "-t", "--tail", "1", "talk"]);
    assert!(stamped.starts_with("20") && stamped.contains('T') && stamped.ends_with("Z three"), "{stamped}");
    stage.onggi.ok(&["rm", "talk"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_logs_of_a_time_span_are_those_lines_alone() {
    let stage = Stage::new();
    let script = "echo one; sleep 0.3; echo two; sleep 0.3; echo three";
    stage.onggi.ok(&["run", "--name", "talk", &stage.busybox, "sh", "-c", script]);
    let stamped = stage.onggi.ok(&["logs", "-t", "talk"]);
    let times: Vec<_> = stamped.lines().filter_map(|line| line.split_once(' ')).map(|(time, _)| time).collect();
    let of = |options: &[&str]| stage.onggi.ok(&[&["logs"], options, &["talk"]].concat());
    assert_eq!(of(&["--since", times[1]]), "two\nthree");
    assert_eq!(of(&["--until", times[1]]), "one\ntwo");
    assert_eq!(of(&["--since", times[1], "--until", times[1]]), "two");
    assert_eq!(of(&["--until", times[1], "-n", "1"]), "two", "the last line of those in the span");
    assert_eq!((of(&["--since", "1h"]), of(&["--until", "1h"])), ("one\ntwo\nthree".to_owned(), String::new()));
    let bad = stage.onggi.run(&["logs", "--since", "yesterday", "talk"]);
    assert!(bad.code == Some(1) && bad.stderr.contains("yesterday") && bad.stderr.contains("1h30m"), "{bad}");
    stage.onggi.ok(&["rm", "talk"]);
    stage.onggi.ok(&["run", "-d", "--name", "talk", &stage.busybox, "sh", "-c", "echo up; sleep 60"]);
    let until = onggi_tests::machine::sh("echo $(($(date +%s) + 2))");
    assert_eq!(of(&["-f", "--until", until.trim()]), "up", "what is followed ends then");
    stage.onggi.ok(&["rm", "-f", "talk"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_exec_runs_beside_the_first_process_with_its_own_result() {
    let stage = Stage::new();
    stage.detached("box", "sleep 100");
    let exec = |args: &[&str]| stage.onggi.run(&[&["exec"], args].concat());
    assert_eq!(exec(&["box", "sh", "-c", "exit 9"]).code, Some(9));
    assert_eq!(
        exec(&["-e", "A=1", "-w", "/tmp", "-u", "1000", "box", "sh", "-c", "echo $A $PWD $(id -u)"]).stdout,
        "1 /tmp 1000\n"
    );
    assert_eq!(exec(&["box", "cat", "/proc/1/comm"]).stdout, "sleep\n");
    let missing = exec(&["box", "no-such-command"]);
    assert_eq!(missing.code, Some(127), "{missing}");
    let refused = exec(&["box", "/etc/passwd"]);
    assert_eq!(refused.code, Some(126), "{refused}");
    let mut command = stage.onggi.command(&["exec", "-i", "box", "cat"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start onggi");
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin is a pipe"), b"to the container").expect("write");
    let output = child.wait_with_output().expect("wait");
    assert_eq!(output.stdout, b"to the container");
    stage.onggi.ok(&["exec", "-d", "box", "sh", "-c", "echo late > /tmp/late"]);
    eventually("a detached exec has run", || (exec(&["box", "cat", "/tmp/late"]).stdout == "late\n").then_some(()));
    stage.onggi.ok(&["rm", "-f", "box"]);
    let gone = exec(&["box", "true"]);
    assert_eq!(gone.code, Some(1), "{gone}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_stop_asks_first_and_kills_after_the_timeout() {
    let stage = Stage::new();
    stage.detached("polite", "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done");
    eventually("the trap is set", || stage.onggi.ok(&["logs", "polite"]).contains("up").then_some(()));
    stage.onggi.ok(&["stop", "polite"]);
    assert_eq!(stage.onggi.ok(&["wait", "polite"]), "5");
    stage.detached("deaf", "trap '' TERM; echo up; while :; do sleep 0.1; done");
    eventually("the trap is set", || stage.onggi.ok(&["logs", "deaf"]).contains("up").then_some(()));
    let start = Instant::now();
    stage.onggi.ok(&["stop", "-t", "1", "deaf"]);
    assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(stage.onggi.ok(&["wait", "deaf"]), "137");
    assert_eq!(stage.onggi.ok(&["stop", "deaf"]), "deaf", "stopping what is stopped is fine");
    stage.onggi.ok(&["rm", "polite", "deaf"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_kill_sends_the_signal_that_was_named() {
    let stage = Stage::new();
    stage.detached("box", "trap 'echo usr1' USR1; echo up; while :; do sleep 0.1; done");
    eventually("the trap is set", || stage.onggi.ok(&["logs", "box"]).contains("up").then_some(()));
    stage.onggi.ok(&["kill", "-s", "USR1", "box"]);
    eventually("the signal arrives", || stage.onggi.ok(&["logs", "box"]).contains("usr1").then_some(()));
    stage.onggi.ok(&["kill", "box"]);
    assert_eq!(stage.onggi.ok(&["wait", "box"]), "137");
    let dead = stage.onggi.run(&["kill", "box"]);
    assert_ne!(dead.code, Some(0), "killing what is dead is an error, as with Docker: {dead}");
    stage.onggi.ok(&["rm", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_container_can_be_started_again_and_keeps_its_files() {
    let stage = Stage::new();
    stage.detached("box", "echo run >> /count; cat /count");
    stage.onggi.ok(&["wait", "box"]);
    stage.onggi.ok(&["start", "box"]);
    stage.onggi.ok(&["wait", "box"]);
    assert_eq!(stage.onggi.ok(&["logs", "box"]), "run\nrun\nrun");
    let running = stage.onggi.run(&["rm", "nothing-of-that-name"]);
    assert_ne!(running.code, Some(0), "{running}");
    stage.onggi.ok(&["rm", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_rm_refuses_a_running_container_without_force() {
    let stage = Stage::new();
    let id = stage.detached("box", "sleep 100");
    let refused = stage.onggi.run(&["rm", "box"]);
    onggi_tests::assert_refused(&refused, 1, &["box", "running"]);
    assert_eq!(stage.onggi.ok(&["rm", "-f", &id[..6]]), id[..6], "a unique prefix of the id will do");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_rm_with_the_run_removes_it_even_when_nobody_waits() {
    let stage = Stage::new();
    let id = stage.onggi.ok(&["run", "-d", "--rm", "--network", "none", &stage.busybox, "sleep", "0.3"]);
    eventually("it is gone", || {
        let ids = stage.onggi.ok(&["ps", "-a", "-q", "--no-trunc"]);
        (!ids.contains(&id)).then_some(())
    });
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_inspect_has_dockers_shape() {
    let stage = Stage::new();
    let id = stage.detached("box", "sleep 100");
    let text = stage.onggi.ok(&["inspect", "box"]);
    let value: serde_json::Value = serde_json::from_str(&text).expect("inspect prints JSON");
    let one = &value[0];
    assert_eq!(one["Id"], id);
    assert_eq!(one["Name"], "/box");
    assert_eq!(one["State"]["Running"], true);
    assert!(one["State"]["Pid"].as_i64().is_some_and(|pid| pid > 1), "{one}");
    assert_eq!(one["Config"]["Cmd"], serde_json::json!(["sh", "-c", "sleep 100"]));
    assert!(one["HostConfig"]["NetworkMode"].is_string(), "{one}");
    let data = &one["GraphDriver"]["Data"];
    let dir = |name: &str| data[name].as_str().unwrap_or_else(|| panic!("{name} in {data}")).to_owned();
    std::fs::write(format!("{}/seen", dir("MergedDir")), "by the host").expect("the root is reached through /proc");
    assert_eq!(stage.onggi.ok(&["exec", "box", "cat", "/seen"]), "by the host");
    assert!(std::path::Path::new(&dir("UpperDir")).join("seen").exists(), "{data}");
    assert!(dir("LowerDir").split(':').all(|layer| std::path::Path::new(layer).is_dir()), "{data}");
    assert!(std::path::Path::new(&dir("WorkDir")).is_dir(), "{data}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    let gone = stage.onggi.run(&["inspect", "box"]);
    assert_eq!(gone.code, Some(1), "{gone}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_attach_start_attached_and_restart_stay_with_the_container() {
    let stage = Stage::new();
    stage.detached("box", "echo up; sleep 1; echo later; exit 9");
    let attached = stage.onggi.run(&["attach", "box"]);
    assert_eq!(attached.code, Some(9), "{attached}");
    assert!(attached.stdout.contains("later"), "{attached}");
    let started = stage.onggi.run(&["start", "-a", "box"]);
    assert_eq!((started.code, started.stdout.as_str()), (Some(9), "up\nlater\n"), "{started}");
    assert_eq!(stage.onggi.ok(&["restart", "-t", "0", "box"]), "box");
    assert_eq!(stage.onggi.ok(&["ps", "--format", "{{.Names}} {{.State}}"]), "box running");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_chosen_keys_leave_the_container_running() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let line = |command: &std::process::Command| {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    };
    let ps = line(&stage.onggi.command(&["ps", "-q", "--filter", "name=typed"]));
    // A person waits for the prompt before typing. Whoever is still attached then types what ends cat.
    let type_keys = |command: &str, keys: &str| {
        let ready = format!("for i in $(seq 100); do [ -z \"$({ps})\" ] || break; sleep 0.1; done; sleep 0.5");
        onggi_tests::machine::sh(&format!(
            "({ready}; printf {keys}; sleep 2; printf '\\n\\004'; sleep 1) | script -qec \"{command}\" /dev/null"
        ))
    };
    let run = ["run", "-it", "--name", "typed", "--detach-keys", "a,b", &stage.busybox, "cat"];
    type_keys(&line(&stage.onggi.command(&run)), "ab");
    assert_eq!(stage.onggi.ok(&["inspect", "-f", "{{.State.Running}}", "typed"]), "true");
    type_keys(&line(&stage.onggi.command(&["attach", "typed"])), "\\\\020\\\\021");
    assert_eq!(stage.onggi.ok(&["inspect", "-f", "{{.State.Running}}", "typed"]), "true");
    let bad = stage.onggi.run(&["attach", "--detach-keys", "ctrl-1", "typed"]);
    assert!(bad.stderr.contains("ctrl-1") && bad.stderr.contains("ctrl-p,ctrl-q"), "{bad}");
    stage.onggi.ok(&["rm", "-f", "typed"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_keys_leave_a_command_of_exec_running_with_its_terminal() {
    let stage = Stage::new();
    stage.detached("box", "sleep 300");
    let words = ["exec", "-it", "--detach-keys", "a,b", "box", "sh", "-c"];
    // More than a terminal holds: it goes on only while somebody reads.
    let script = "touch /ready; read line; sleep 1; yes | head -c 300000; tty > /done; sleep 300";
    let mut exec = stage.onggi.command(&words);
    exec.arg(script);
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy());
    let line = [exec.get_program()].into_iter().chain(exec.get_args()).map(quoted).collect::<Vec<_>>().join(" ");
    let file = stage.onggi.dir().join("line.sh");
    std::fs::write(&file, line).expect("write the line");
    let is_there = |path: &str| stage.onggi.run(&["exec", "box", "test", "-e", path]).code == Some(0);
    let typed = std::thread::spawn({
        let file = file.display().to_string();
        move || {
            onggi_tests::machine::sh(&format!(
                "(sleep 3; printf 'x\\nab'; sleep 3; printf 'exit\\n') | script -qec 'sh {file}; echo left $?' /dev/null"
            ))
        }
    });
    eventually("the command runs", || is_there("/ready").then_some(()));
    let seen = typed.join().expect("it ends");
    assert!(seen.contains("left 0"), "{seen}");
    eventually("the command goes on", || is_there("/done").then_some(()));
    assert!(stage.onggi.ok(&["exec", "box", "cat", "/done"]).starts_with("/dev/"), "it has its terminal still");
    let bad = stage.onggi.run(&["exec", "--detach-keys", "ctrl-1", "box", "true"]);
    assert!(bad.stderr.contains("ctrl-1") && bad.stderr.contains("ctrl-p,ctrl-q"), "{bad}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_several_containers_are_stopped_in_the_time_of_one() {
    let stage = Stage::new();
    let names = ["one", "two", "three", "four"];
    for name in names {
        stage.detached(name, "trap '' TERM; echo up; while :; do sleep 0.1; done");
        eventually("the trap is set", || stage.onggi.ok(&["logs", name]).contains("up").then_some(()));
    }
    let start = Instant::now();
    stage.onggi.ok(&[&["stop", "-t", "3"], &names[..]].concat());
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
    stage.onggi.ok(&[&["rm"], &names[..]].concat());
    let gone = stage.onggi.run(&["rm", "-f", "one"]);
    assert_eq!(gone.code, Some(0), "with -f a container that is not there is what was wanted: {gone}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_damaged_exit_record_hides_no_other_container() {
    let stage = Stage::new();
    let damaged = stage.detached("damaged", "exit 3");
    stage.detached("whole", "exit 4");
    assert_eq!(stage.onggi.ok(&["wait", "damaged", "whole"]), "3\n4");
    eventually("the run is over", || stage.onggi.ok(&["ps", "-q"]).is_empty().then_some(()));
    let record = stage.onggi.root().join("containers").join(damaged.trim()).join("exit.json");
    std::fs::write(&record, "").expect("the record is damaged");
    let list = stage.onggi.ok(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]);
    assert!(list.contains("whole Exited (4)") && list.contains("damaged Exited (255)"), "{list}");
    stage.onggi.ok(&["rm", "damaged", "whole"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_wait_does_not_wait_for_what_nobody_started() {
    let stage = Stage::new();
    stage.onggi.ok(&["create", "--name", "box", "--network", "none", &stage.busybox, "true"]);
    assert_eq!(stage.onggi.ok(&["wait", "box"]), "0");
    stage.onggi.ok(&["rm", "box"]);
    stage.onggi.assert_nothing_left();
}

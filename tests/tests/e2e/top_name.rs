//! `top NAME` and `stats`: the processes of a container, and what it uses.

use onggi_tests::{assert_refused, eventually, machine::sh};

use crate::Stage;

#[test]
fn e2e_top_name_lists_processes_as_ps_does() {
    let stage = Stage::new();
    let script = "sleep 301 & sleep 302 & exec sleep 300";
    stage.onggi.ok(&["run", "-d", "--name", "box", "--network", "none", &stage.busybox, "sh", "-c", script]);
    eventually("all run", || (stage.onggi.ok(&["top", "box"]).matches("sleep 30").count() == 3).then_some(()));
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    let table = stage.onggi.ok(&["top", "box"]);
    let lines: Vec<&str> = table.lines().collect();
    let titles: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(titles, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert!(lines.len() == 4 && lines[0].starts_with(&format!("UID{}PID", " ".repeat(17))), "{table}");
    // The same as the host's own program says, word by word.
    let theirs = sh(&format!("ps -f -q {pid} | tail -n 1"));
    let ours = lines.iter().find(|line| line.split_whitespace().nth(1) == Some(&*pid)).expect("the first process");
    assert_eq!(ours.split_whitespace().collect::<Vec<_>>(), theirs.split_whitespace().collect::<Vec<_>>());
    let by_ps = stage.onggi.ok(&["container", "top", "box", "-o", "pid,comm"]);
    assert!(by_ps.lines().count() == 4 && by_ps.starts_with("PID ") && by_ps.contains("sleep"), "{by_ps}");
    let aux = stage.onggi.ok(&["top", "box", "aux"]);
    assert!(aux.starts_with("USER ") && aux.lines().count() == 4 && aux.contains("sleep 302"), "{aux}");
    let forest = stage.onggi.ok(&["top", "box", "-ef", "f"]);
    assert_eq!(forest.lines().count(), 4, "what does not go together with a choice of processes: {forest}");
    assert_refused(&stage.onggi.run(&["top", "box", "-o", "comm"]), 1, &["no column PID"]);
    assert_refused(&stage.onggi.run(&["top", "box", "--bogus"]), 1, &["ps(1)"]);
    stage.onggi.ok(&["pause", "box"]);
    assert_eq!(stage.onggi.ok(&["top", "box"]).lines().count(), 4, "a paused container has its processes");
    stage.onggi.ok(&["kill", "box"]);
    assert_refused(&stage.onggi.run(&["top", "box"]), 1, &["exited", "onggi start box"]);
    stage.onggi.ok(&["rm", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_top_name_has_podmans_columns() {
    let stage = Stage::new();
    let run = ["run", "-d", "--name", "box", "--network", "none", "-u", "1000:7", "--cap-drop", "ALL"];
    stage.onggi.ok(&[&run[..], &[&stage.busybox, "sleep", "300"]].concat());
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    let table = stage.onggi.ok(&["top", "box", "pid,ppid,hpid", "user", "comm,args,state,capbnd,seccomp"]);
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["PID", "PPID", "HPID", "USER", "COMMAND", "COMMAND", "STATE", "BOUNDING CAPS", "SECCOMP"]);
    assert_eq!(rows[1], ["1", "0", &pid, "user", "sleep", "sleep 300", "S", "none", "filter"]);
    let json = stage.onggi.ok(&["top", "--format", "json", "box", "pid,user"]);
    assert_eq!(json, r#"{"PID":"1","USER":"user"}"#);
    assert_refused(&stage.onggi.run(&["top", "box", "pid,colour"]), 1, &["colour", "columns: "]);
    let live = stage.onggi.run(&["top", "-d", "2", "box"]);
    assert_refused(&live, 125, &["--delay"]);
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_stats_show_what_containers_use() {
    let stage = Stage::new();
    let busy = "head -c 30000000 /dev/zero > /dev/shm/x; while :; do :; done";
    stage.onggi.ok(&["run", "-d", "--name", "busy", "-m", "64m", &stage.busybox, "sh", "-c", busy]);
    stage.onggi.ok(&["run", "-d", "--name", "idle", "--network", "none", &stage.busybox, "sleep", "300"]);
    stage.onggi.ok(&["create", "--name", "new", "--network", "none", &stage.busybox, "true"]);
    let table = stage.onggi.ok(&["stats", "--no-stream"]);
    let head = table.lines().next().expect("a table has a head");
    let words = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    assert_eq!(head.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>(), words);
    assert_eq!(table.lines().count(), 3);
    let of =
        |name: &str, format: &str| stage.onggi.ok(&["container", "stats", "--no-stream", "--format", format, name]);
    let cpu: f64 = of("busy", "{{.CPUPerc}}").trim_end_matches('%').parse().expect("a number");
    assert!(cpu > 5.0, "{cpu} percent in a loop");
    assert!(of("busy", "{{.MemUsage}}").ends_with(" / 64MiB"), "{}", of("busy", "{{.MemUsage}}"));
    let memory: f64 = of("busy", "{{.MemPerc}}").trim_end_matches('%').parse().expect("a number");
    assert!((30.0..100.0).contains(&memory), "{memory} percent of the limit");
    assert_eq!(of("idle", "{{.Name}} {{.NetIO}} {{.PIDs}}"), "idle 0B / 0B 1");
    assert_eq!(of("new", "{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}"), "0.00% 0B / 0B 0");
    let all = stage.onggi.ok(&["stats", "-a", "--no-stream", "--no-trunc", "--format", "{{.ID}}"]);
    assert!(all.lines().count() == 3 && all.lines().all(|id| id.len() == 64), "{all}");
    let json: serde_json::Value = serde_json::from_str(&of("idle", "json")).expect("it is JSON");
    assert!(json["Container"] == "idle" && json["BlockIO"].is_string(), "{json}");
    assert_refused(&stage.onggi.run(&["stats", "--no-stream", "nothing"]), 1, &["nothing"]);
    stage.onggi.ok(&["rm", "-f", "busy", "idle", "new"]);
    stage.onggi.assert_nothing_left();
}

//! `top`: in a real terminal (tmux), and as plain tables.

use onggi_tests::machine::sh;

use crate::{Stage, terminal::Terminal};

/// The program with the stage's store, alone on a terminal.
fn on_terminal(stage: &Stage, arguments: &str) -> Terminal {
    let onggi = format!(
        "{} --root {} --runroot {} {arguments}; echo ended with $?; sleep 300",
        stage.onggi.program().display(),
        stage.onggi.root().display(),
        stage.onggi.runroot().display()
    );
    Terminal::run(stage.onggi.dir(), &onggi)
}

#[test]
fn e2e_top_shows_containers_groups_details_logs_and_help_on_a_terminal() {
    let stage = Stage::new();
    let command = "echo first line; echo second line; while :; do sleep 1; done";
    stage.onggi.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "web",
        "-m",
        "64m",
        &stage.busybox,
        "sh",
        "-c",
        command,
    ]);
    let terminal = on_terminal(&stage, "top -d 0.3");
    terminal.shows(&["1 containers, by CPU", "NAME", "web", "64MiB"]);
    terminal.key("m");
    terminal.shows(&["by memory"]);
    terminal.key("Enter");
    let details = terminal.shows(&["web details", "controllers", "OOM kills    0"]);
    assert!(details.contains("of 64MiB"), "{details}");
    terminal.key("l");
    terminal.shows(&["web log", "first line", "second line"]);
    terminal.key("Escape");
    terminal.shows(&["by memory"]);
    terminal.key("?");
    terminal.shows(&["keys", "sort by CPU, memory, tasks"]);
    terminal.key("Tab");
    terminal.shows(&["control groups, by memory"]);
    terminal.tmux(&["resize-window", "-x", "80", "-y", "20"]);
    terminal.shows(&["control groups, by memory"]);
    terminal.key("q");
    terminal.shows(&["ended with 0"]);
    stage.onggi.ok(&["rm", "-f", "web"]);
    drop(terminal);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_top_prints_tables_for_scripts() {
    let stage = Stage::new();
    let busy = ["run", "-d", "--network", "none", "--name", "web", &stage.busybox, "sh", "-c", "while :; do :; done"];
    stage.onggi.ok(&busy);
    let two = stage.onggi.ok(&["top", "-b", "-n", "2", "-d", "0.3"]);
    assert_eq!(two.matches("NAME ").count(), 2, "{two}");
    let row = stage.onggi.ok(&["top", "-n", "1", "-d", "0.5", "--format", "{{.Name}} {{.Tasks}} {{.Cpu}}"]);
    let words: Vec<&str> = row.split(' ').collect();
    assert!(words[0] == "web" && words[1] == "1" && words[2].parse::<f64>().is_ok_and(|cpu| cpu > 0.0), "{row}");
    let json = stage.onggi.ok(&["top", "--groups", "-n", "1", "-d", "0.1", "--depth", "1", "--format", "json"]);
    let groups: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert!(groups.iter().any(|g| g["Group"] == "/"), "{json}");
    let listed = sh("ls -d /sys/fs/cgroup/memory/*/ | wc -l").trim().parse::<usize>().expect("a number");
    assert!(groups.len() > listed.min(2), "{json}");
    let wrong = stage.onggi.run(&["top", "-d", "nan", "-b"]);
    assert!(wrong.code != Some(0) && wrong.stderr.contains("no number of seconds"), "{wrong}");
    stage.onggi.ok(&["rm", "-f", "web"]);
    stage.onggi.assert_nothing_left();
}

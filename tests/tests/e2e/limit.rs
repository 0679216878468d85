//! `limit`: a command or a process within limits, beside cpulimit, nice, taskset and prlimit.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, Stdio},
};

use onggi_tests::{Onggi, eventually, isolated, machine::sh};

fn onggi() -> Onggi {
    isolated();
    Onggi::new()
}

/// Groups of this program that are there, by their last name.
fn groups() -> String {
    sh("find /sys/fs/cgroup -maxdepth 2 -type d -name 'onggi-limit-*' -printf '%f\\n' 2> /dev/null | sort -u")
}

/// The group of a program that runs, in a hierarchy.
fn group_of(pid: u32, controller: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let found = text.lines().find(|l| l.split(':').nth(1) == Some(controller)).and_then(|l| l.split(':').nth(2));
    found.unwrap_or_default().to_owned()
}

fn stat_field(pid: u32, n: usize) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    rest.split_ascii_whitespace().nth(n).and_then(|f| f.parse().ok()).unwrap_or_default()
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start")
}

#[test]
fn e2e_limit_a_command_runs_in_a_group_that_goes_with_it() {
    let onggi = onggi();
    let script = "cat /proc/self/cgroup; for f in memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes pids/pids.max \
                  cpu/cpu.cfs_quota_us cpuset/cpuset.cpus; do g=$(sed -n 's/.*:memory://p' /proc/self/cgroup); \
                  cat /sys/fs/cgroup/${f%/*}/$g/${f#*/}; done; nice; ulimit -n; exit 7";
    let limits =
        ["-m", "50M", "--memory-swap", "50M", "--pids", "30", "--cpus", "0.5", "--cpuset-cpus", "0", "--nice", "5"];
    let ran = onggi.run(&[&["limit"], &limits[..], &["--ulimit", "nofile=99", "sh", "-c", script]].concat());
    assert_eq!(ran.code, Some(7), "{ran}");
    assert!(ran.stdout.ends_with("52428800\n52428800\n30\n50000\n0\n5\n99\n"), "{ran}");
    let name = ran.stdout.lines().find_map(|l| l.split_once(":memory:/")).expect("a group").1.to_owned();
    assert!(name.starts_with("onggi-limit-"), "{name}");
    assert!(!groups().contains(&name), "{name} is left");
    // A job's children end with it, and a signal reaches it.
    let ran = onggi.run(&["limit", "-m", "50M", "sh", "-c", "sleep 300 > /dev/null 2>&1 & echo $!"]);
    let child = format!("/proc/{}", ran.stdout.trim());
    // Killed it is at once; whoever inherits it reaps it when it can.
    eventually("the end of a job's child", || (!std::path::Path::new(&child).exists()).then_some(()));
    let mut child = spawn(&mut onggi.command(&[
        "limit",
        "--pids",
        "9",
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo; while :; do sleep 0.1; done",
    ]));
    eventually("it runs", || groups().contains(&format!("onggi-limit-{}-", child.id())).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    sh(&format!("kill -TERM {}", child.id()));
    assert_eq!(child.wait().expect("it ends").code(), Some(9));
    assert_eq!(onggi.run(&["limit", "-m", "50M", "no-such-program"]).code, Some(127));
    assert_eq!(onggi.run(&["limit", "-m", "16M", "--memory-swap", "16M", "tail", "/dev/zero"]).code, Some(137));
    let high = onggi.run(&["limit", "--memory-high", "9M", "true"]);
    assert!(high.code == Some(125) && high.stderr.contains("no counterpart in cgroup v1"), "{high}");
}

#[test]
fn e2e_limit_what_a_killed_program_leaves_is_taken_away_by_the_next() {
    let onggi = onggi();
    let mut child = spawn(&mut onggi.command(&["limit", "--pids", "9", "sleep", "300"]));
    let name = format!("onggi-limit-{}-", child.id());
    let mut command = 0;
    eventually("it runs", || {
        let procs = sh(&format!("cat /sys/fs/cgroup/pids/{name}*/cgroup.procs 2>/dev/null || true"));
        command = procs.lines().next().and_then(|l| l.parse::<u32>().ok()).unwrap_or_default();
        (fs::read_to_string(format!("/proc/{command}/comm")).unwrap_or_default().trim() == "sleep").then_some(())
    });
    child.kill().expect("kill");
    child.wait().expect("it ends");
    // The command goes on, within its limits; its group stays as long.
    onggi.ok(&["limit", "--pids", "9", "true"]);
    assert!(group_of(command, "pids").contains(&name));
    sh(&format!("kill -KILL {command}"));
    eventually("the next one takes it away", || {
        onggi.ok(&["limit", "--pids", "9", "true"]);
        (!groups().contains(&name)).then_some(())
    });
}

#[test]
fn e2e_limit_a_process_that_runs_is_moved_and_put_back() {
    let onggi = onggi();
    let mut child = Command::new("sh").args(["-c", "sleep 300 & wait"]).spawn().expect("start");
    let below = eventually("its child", || sh(&format!("pgrep -P {} || true", child.id())).trim().parse::<u32>().ok());
    let pid = child.id().to_string();
    let (before, nice) = (group_of(child.id(), "memory"), stat_field(below, 16));
    let said = onggi.ok(&["limit", "-m", "80M", "--nice", "7", "--children", "--pid", &pid]);
    for pid in [child.id(), below] {
        let group = group_of(pid, "memory");
        assert!(group.starts_with(&format!("/onggi-limit-pid-{}-", child.id())), "{group}");
        assert_eq!(stat_field(pid, 16), 7, "nice");
        assert_eq!(
            fs::read_to_string(format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes")).expect("limit").trim(),
            "83886080"
        );
    }
    let program = onggi.program().display().to_string();
    for line in said.lines().filter_map(|l| l.strip_prefix("to undo it: ")) {
        sh(&line.replace("onggi ", &format!("{program} ")));
    }
    assert_eq!(group_of(child.id(), "memory"), before);
    assert_eq!(stat_field(below, 16), nice);
    assert!(!groups().contains(&format!("onggi-limit-pid-{pid}-")));
    sh(&format!("kill {below}"));
    child.wait().expect("it ends");
    assert!(onggi.run(&["limit", "-m", "9M", "--pid", "999999999"]).stderr.contains("there is no process"));
}

#[test]
fn e2e_limit_without_groups_keeps_a_share_by_stopping_as_cpulimit_does() {
    let onggi = onggi();
    let busy = "busybox sh -c 'while :; do :; done'";
    let mut child =
        spawn(&mut onggi.command(&["limit", "--no-cgroup", "--cpus", "0.2", "sh", "-c", &format!("{busy} & wait")]));
    let busy_pid = eventually("the loop", || {
        sh(&format!("pgrep -f 'sh -c while' -P $(pgrep -P {}) || true", child.id())).trim().parse::<u32>().ok()
    });
    // 30 ticks used; more time than at full speed must have passed: the kernel's own count of both.
    let ticks = |pid: u32| stat_field(pid, 11) + stat_field(pid, 12);
    eventually("it has run", || (ticks(busy_pid) >= 30).then_some(()));
    let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
    // proc_uptime(5) gives hundredths of a second, which are ticks: without them up to a second of life is missing.
    let now = uptime.split(' ').next().and_then(|s| s.replace('.', "").parse::<u64>().ok()).expect("ticks");
    let lived = now.saturating_sub(stat_field(busy_pid, 19));
    let share = ticks(busy_pid) as f64 / lived.max(1) as f64;
    assert!(share < 0.45, "{share} of a CPU in {lived} ticks");
    sh(&format!("kill -TERM {}", child.id()));
    child.wait().expect("it ends");
    eventually("what was stopped goes on and can end", || {
        sh(&format!("kill -TERM {busy_pid} 2>/dev/null || true"));
        (!std::path::Path::new(&format!("/proc/{busy_pid}")).exists()).then_some(())
    });
    // A process that runs: limited until told otherwise, and left running.
    let mut child = Command::new("busybox").args(["sh", "-c", "while :; do :; done"]).spawn().expect("start");
    let mut limit =
        spawn(&mut onggi.command(&["limit", "--no-cgroup", "--cpus", "0.01", "--pid", &child.id().to_string()]));
    let state = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") T ");
    eventually("it is stopped now and then", || state(child.id()).then_some(()));
    sh(&format!("kill -INT {}", limit.id()));
    assert_eq!(limit.wait().expect("it ends").code(), Some(0));
    assert!(!state(child.id()));
    child.kill().expect("kill");
    assert_eq!(child.wait().expect("it ends").signal(), Some(9));
}

#[test]
fn e2e_limit_an_ordinary_user_gets_what_there_is_and_is_told_what_not() {
    let onggi = onggi();
    let program = onggi.program().display().to_string();
    let user =
        |words: &str| sh(&format!("setpriv --reuid 65534 --regid 65534 --clear-groups {program} limit {words} 2>&1"));
    let said = user(
        "--cpuset-cpus 0 -m 200M --pids 9 --nice 3 --ulimit nofile=64 sh -c 'taskset -cp $$; nice; ulimit -n; ulimit -v'",
    );
    for part in [
        "there is no control group for it (no permission to make",
        "RLIMIT_AS",
        "pids=9 is not kept: RLIMIT_NPROC counts all processes of the user",
        "affinity list: 0\n3\n64\n204800\n",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let words = user("--explain --cpus 0.5 --cpuset-cpus 0 true");
    assert!(words.contains("sched_setaffinity(2): CPUs 0") && words.contains("SIGSTOP"), "{words}");
}

#[test]
fn e2e_limit_plans_show_themselves_and_their_scripts_do_the_same() {
    let onggi = onggi();
    let options = ["-m", "50M", "--nice", "4", "--cpuset-cpus", "0", "--ulimit", "nofile=77"];
    let command = [
        "sh",
        "-c",
        "g=$(sed -n 's/.*:memory://p' /proc/self/cgroup); cat /sys/fs/cgroup/memory$g/memory.limit_in_bytes; nice; ulimit -n",
    ];
    let explain = |how: &str| onggi.ok(&[&["limit", how], &options[..], &command[..]].concat());
    let words = explain("--explain");
    assert!(
        words.contains("memory limit of 50 MiB") && words.contains("when it has ended: kill every process"),
        "{words}"
    );
    let json: serde_json::Value = serde_json::from_str(&explain("--explain=json")).expect("JSON");
    assert_eq!(json["inside"]["nice"], 4);
    assert_eq!(sh(&explain("--explain=sh")), "52428800\n4\n77\n");
    let none = onggi.run(&["limit", "-m", "5M"]);
    assert!(none.code == Some(125) && none.stderr.contains("there is nothing to limit"), "{none}");
}

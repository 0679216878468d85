//! `limit` and `cgroup` beside the tools that people have: nice, taskset, prlimit, cpulimit, cgexec, cgclassify; and groups
//! of containers by their names.

use std::{fs, process::Command};

use onggi_tests::{Onggi, eventually, isolated, machine::sh};

use crate::Stage;

/// What a command prints within limits of ours, and within those of the tool.
#[track_caller]
fn same(onggi: &Onggi, ours: &[&str], theirs: &str, command: &str) {
    let mine = onggi.ok(&[&["limit", "--no-cgroup"], ours, &["sh", "-c", command]].concat());
    let told = sh(&format!("{theirs} sh -c '{command}'"));
    // The number of the process that asks is in what taskset says.
    let plain =
        |text: &str| text.trim().split_once("'s").map_or_else(|| text.trim().to_owned(), |(_, rest)| rest.to_owned());
    assert_eq!(plain(&mine), plain(&told), "{ours:?} beside {theirs}");
}

#[test]
fn e2e_limit_does_what_nice_taskset_and_prlimit_do() {
    isolated();
    let onggi = Onggi::new();
    // nice(1) adds to what there is; ours is the value itself, as renice(1) and Nice= have it.
    let base: i32 = sh("nice").trim().parse().expect("a number");
    for nice in [7, 19] {
        let add = format!("nice -n {}", nice - base);
        same(&onggi, &["--nice", &nice.to_string()], &add, "nice; cut -d \" \" -f 19 /proc/self/stat");
    }
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for cpus in ["0", "0-1", "1"].into_iter().take(if all > 1 { 3 } else { 1 }) {
        same(&onggi, &["--cpuset-cpus", cpus], &format!("taskset -c {cpus}"), "taskset -cp $$; nproc");
    }
    for (ours, theirs, name) in [
        ("nofile=99", "--nofile=99", "nofile"),
        ("nofile=99:200", "--nofile=99:200", "nofile"),
        ("core=0:unlimited", "--core=0:unlimited", "core"),
        ("fsize=4096", "--fsize=4096", "fsize"),
        ("cpu=10:20", "--cpu=10:20", "cpu"),
        ("stack=1048576", "--stack=1048576", "stack"),
        ("nproc=500", "--nproc=500", "nproc"),
        ("as=1073741824", "--as=1073741824", "as"),
    ] {
        let show = format!("prlimit --raw --noheadings --output SOFT,HARD --{name}");
        same(&onggi, &["--ulimit", ours], &format!("prlimit {theirs}"), &show);
    }
    // A process that runs: every thread of it, as taskset -a and renice do.
    let mut child = Command::new("sleep").arg("300").spawn().expect("start sleep");
    let pid = child.id().to_string();
    onggi.ok(&["limit", "--no-cgroup", "--cpuset-cpus", "0", "--nice", "9", "--ulimit", "nofile=77", "--pid", &pid]);
    assert!(sh(&format!("taskset -cp {pid}")).ends_with("list: 0\n"));
    let now = sh(&format!("ps -o ni= -p {pid}; prlimit --nofile --raw --noheadings -o SOFT,HARD -p {pid}"));
    assert_eq!(now.split_whitespace().collect::<Vec<_>>(), ["9", "77", "77"]);
    child.kill().expect("kill");
    child.wait().expect("it ends");
}

#[test]
fn e2e_limit_stops_and_continues_as_cpulimit_does_and_keeps_the_exit_code() {
    isolated();
    let onggi = Onggi::new();
    // cpulimit's own code says nothing about the command.
    let ours = onggi.run(&["limit", "--no-cgroup", "--cpus", "0.5", "sh", "-c", "exit 7"]);
    assert_eq!(ours.code, Some(7), "{ours}");
    // Both stop a loop, and neither leaves it stopped.
    let program = onggi.program().display().to_string();
    for limit in [format!("{program} limit --no-cgroup --cpus 0.02 --pid"), "cpulimit -l 2 -p".to_owned()] {
        let mut busy = Command::new("busybox").args(["sh", "-c", "while :; do :; done"]).spawn().expect("start");
        let mut keeper =
            Command::new("sh").args(["-c", &format!("exec {limit} {} > /dev/null", busy.id())]).spawn().expect("start");
        let stopped = || fs::read_to_string(format!("/proc/{}/stat", busy.id())).unwrap_or_default().contains(") T ");
        eventually(&format!("{limit} stops it"), || stopped().then_some(()));
        sh(&format!("kill -INT {}", keeper.id()));
        keeper.wait().expect("it ends");
        eventually(&format!("{limit} lets it go on"), || (!stopped()).then_some(()));
        busy.kill().expect("kill");
        busy.wait().expect("it ends");
    }
}

#[test]
fn e2e_cgroup_exec_and_mv_do_what_cgexec_and_cgclassify_do() {
    isolated();
    let onggi = Onggi::new();
    let unique = onggi.dir().file_name().unwrap_or_default().to_string_lossy().replace("onggi-e2e-", "");
    let name = format!("onggi-test-tools-{unique}");
    let named = format!("cpu,memory,pids:{name}");
    onggi.ok(&["cgroup", "create", "-g", &named]);
    let groups = "grep -o \":[a-z,]*:/.*\" /proc/self/cgroup";
    let ours = onggi.ok(&["cgroup", "exec", "-g", &named, "sh", "-c", groups]);
    let theirs = sh(&format!("cgexec -g {named} sh -c '{groups}'"));
    assert_eq!(ours, theirs.trim_end());
    assert_eq!(ours.matches(&name).count(), 3, "{ours}");
    let memberships = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let mut sleepers = [(); 2].map(|()| Command::new("sleep").arg("300").spawn().expect("start sleep"));
    onggi.ok(&["cgroup", "mv", "-g", &named, &sleepers[0].id().to_string()]);
    sh(&format!("cgclassify -g {named} {}", sleepers[1].id()));
    assert_eq!(memberships(sleepers[0].id()), memberships(sleepers[1].id()));
    for sleeper in &mut sleepers {
        sleeper.kill().expect("kill");
        sleeper.wait().expect("it ends");
    }
    onggi.ok(&["cgroup", "rm", "-g", &named]);
}

#[test]
fn e2e_cgroup_a_running_container_is_a_group_by_its_name() {
    let stage = Stage::new();
    let name = stage.onggi.dir().file_name().unwrap_or_default().to_string_lossy().replace("onggi-e2e-", "box-");
    let run = ["run", "-d", "--network", "none", "--name", &name, "-m", "48m", "--pids-limit", "40"];
    let id = stage.onggi.ok(&[&run[..], &[&stage.busybox, "sleep", "300"]].concat());
    let ok = |arguments: &[&str]| stage.onggi.ok(&[&["cgroup"], arguments].concat());
    for word in [&name, &id, &id[..12].to_owned(), &format!("container:{name}")] {
        assert_eq!(ok(&["get", "-v", word, "memory", "pids"]), "48M\n40", "{word}");
    }
    ok(&["set", "-q", &name, "pids=50"]);
    assert_eq!(ok(&["get", "-v", "-r", "pids", &name]), "50");
    assert!(ok(&["stat", &name, "--format", "{{.Key}}={{.Value}}"]).contains("pids.limit=50"));
    assert!(ok(&["ls", "-p", &name]).contains("sleep 300"));
    assert!(ok(&["ls", &name, "--format", "{{.Path}}"]).contains(&id));
    assert!(ok(&["exec", &name, "cat", "/proc/self/cgroup"]).contains(&id));
    assert!(ok(&["freeze", "--explain", &name]).contains(&id));
    // A group of the same name: one has to say which is meant.
    ok(&["create", &format!("pids:{name}")]);
    let both = stage.onggi.run(&["cgroup", "get", &name, "pids"]);
    assert!(
        both.code != Some(0) && both.stderr.contains(&format!("write /{name} for the group, container:{name}")),
        "{both}"
    );
    assert_eq!(ok(&["get", "-v", &format!("/{name}"), "pids"]), "max");
    assert_eq!(ok(&["get", "-v", &format!("container:{name}"), "pids"]), "50");
    // Groups are removed by their paths alone.
    ok(&["rm", &name]);
    let none = stage.onggi.run(&["cgroup", "rm", "--kill", &name]);
    assert!(none.stderr.contains("there is no control group"), "{none}");
    ok(&["kill", &name]);
    stage.onggi.run(&["wait", &name]);
    let gone = stage.onggi.run(&["cgroup", "get", &format!("container:{name}")]);
    assert!(gone.code == Some(1) && gone.stderr.contains("onggi start"), "{gone}");
    assert!(stage.onggi.run(&["cgroup", "get", "container:nobody"]).stderr.contains("nobody"));
    stage.onggi.ok(&["rm", "-f", &name]);
    stage.onggi.assert_nothing_left();
}

//! `cgroup`: groups by hand, beside libcgroup's tools. Groups have names of their own and go with the test.

use std::{fs, path::PathBuf, process::Command};

use onggi_tests::{Lab, eventually, machine::sh};

use crate::Stage;

/// Output of a tool of libcgroup without its title.
fn cgget(arguments: &str) -> String {
    sh(&format!("cgget -n {arguments}")).trim().to_owned()
}

#[test]
fn e2e_cgroup_words_and_files_of_both_versions_become_what_libcgroup_reads() {
    let lab = Lab::new("set");
    let group = lab.path("");
    lab.ok(&["create", &group]);
    lab.ok(&["create", &group]);
    let told =
        lab.ok(&["set", &group, "cpus=0.5", "memory=100M", "memory-swap=0", "pids=50", "cpuset=0", "cpu-weight=100"]);
    assert_eq!(
        told.lines().collect::<Vec<_>>(),
        [
            "cpus=0.5 → cpu.cfs_period_us 100000, cpu.cfs_quota_us 50000 (v1)",
            "memory=100M → memory.limit_in_bytes 104857600 (v1)",
            "memory-swap=0 → memory.memsw.limit_in_bytes 104857600 (v1)",
            "pids=50 → pids.max 50 (v1)",
            "cpuset=0 → cpuset.cpus 0 (v1)",
            "cpu-weight=100 → cpu.shares 1024 (v1)",
        ]
    );
    let variables =
        "-v -r cpu.cfs_quota_us -r memory.limit_in_bytes -r memory.memsw.limit_in_bytes -r pids.max -r cpuset.cpus";
    assert_eq!(cgget(&format!("{variables} {group}")), "50000\n104857600\n104857600\n50\n0");
    // Files of version 2 are translated, those of version 1 written as they are.
    lab.ok(&["set", &group, "cpu.max=30000 200000", "memory.max=max", "memory.swappiness=10", "cpu.weight=50"]);
    let variables =
        "-v -r cpu.cfs_quota_us -r cpu.cfs_period_us -r memory.limit_in_bytes -r memory.swappiness -r cpu.shares";
    assert_eq!(cgget(&format!("{variables} {group}")), "30000\n200000\n421\n9223372036854771712\n10");
    assert_eq!(
        lab.ok(&["get", "-v", &group, "cpus", "cpu.max", "memory", "cpu-weight"]),
        "0.15\n30000 200000\nmax\n50"
    );
    // What cgset writes we read.
    sh(&format!("cgset -r cpu.cfs_quota_us=-1 -r memory.limit_in_bytes=64M {group}"));
    assert_eq!(lab.ok(&["get", "-v", &group, "cpus", "memory"]), "max\n64M");
    let all = lab.ok(&["get", "--all", &group, "--format", "{{.Key}}: {{.Value}}"]);
    for line in cgget(&format!("-g pids {group}")).lines() {
        assert!(all.lines().any(|own| own == line) || line.starts_with("pids.events"), "{line} is not in {all}");
    }
    assert_eq!(lab.ok(&["get", "-v", "-r", "pids", &group]), "50");
}

#[test]
fn e2e_cgroup_what_cannot_be_is_explained() {
    let lab = Lab::new("bad");
    let group = lab.path("");
    assert!(
        lab.refused(&["set", &group, "cpus=1"]).contains(&format!("hint: make it with: onggi cgroup create {group}"))
    );
    lab.ok(&["create", "-g", &format!("cpu,memory:{group}")]);
    for (setting, part) in [
        ("memry=1M", "hint: did you mean memory?"),
        ("memory.hihg=1M", "there is no setting"),
        ("memory.high=80M", "memory.soft_limit_in_bytes is not the same"),
        ("memory-high=80M", "no counterpart in cgroup v1"),
        ("cpus=0.001", "use a number of CPUs from 0.01"),
        ("cpu-weight=0", "use 1 to 10000"),
        ("cpu.cfs_quota_us=5", "at least 1000"),
        ("pids=5", &format!("needs the pids controller, in which the group {group} is not")),
        ("memory.usage_in_bytes=5", "can only be read"),
        ("cgroup.procs=1", "use onggi cgroup mv"),
        ("io-read-bps=/dev/null:1M", "is no block device"),
        ("memory=0", "would end every process"),
        ("memory=100", "less than a page (4096)"),
    ] {
        let said = lab.refused(&["set", &group, setting]);
        assert!(said.contains(part), "{setting}: {said}");
    }
    // All or nothing.
    lab.refused(&["set", &group, "cpu.cfs_quota_us=70000", "cpu.cfs_period_us=1"]);
    assert_eq!(lab.read("cpu", "cpu.cfs_quota_us"), "-1");
    assert!(lab.refused(&["create", "-g", &format!("cpus:{group}")]).contains("there is no controller cpus"));
    assert!(lab.refused(&["rm", "/"]).contains("root of the hierarchy"));
    // With --explain, so that a mistake here ends nothing.
    assert!(lab.refused(&["kill", "--explain", "/"]).contains("every process of this machine"));
    for verb in [&["kill", "--explain", ""][..], &["set", "", "pids=5"], &["mv", "", "1"], &["exec", "", "true"]] {
        assert!(lab.refused(verb).contains("it is empty"), "{verb:?}");
    }
}

#[test]
fn e2e_cgroup_processes_run_move_stand_still_and_end_as_told() {
    let lab = Lab::new("run");
    let group = lab.path("");
    lab.ok(&["create", &group]);
    let seen = lab.ok(&["exec", &group, "--", "cat", "/proc/self/cgroup"]);
    let own = format!("/{group}");
    for controller in ["cpu", "memory", "pids", "freezer"] {
        assert!(seen.lines().any(|l| l.split(':').nth(1) == Some(controller) && l.ends_with(&own)), "{seen}");
    }
    assert_eq!(lab.onggi.run(&["cgroup", "exec", &group, "sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(lab.onggi.run(&["cgroup", "exec", &group, "no-such-program"]).code, Some(127));
    let mut sleeper = lab.sleeper(&lab.name);
    let pid = sleeper.id().to_string();
    let busy = lab.refused(&["rm", &group]);
    assert!(busy.contains(&format!("{pid} sleep 300")) && busy.contains("--to-parent"), "{busy}");
    assert_eq!(lab.ok(&["ls", &group, "--format", "{{.Path}} {{.Pids}}"]), format!("/{group} {pid}"));
    assert!(lab.ok(&["ls", "-p", &group]).contains(&format!("{pid} sleep 300")));
    lab.ok(&["freeze", &group]);
    let frozen = format!("/sys/fs/cgroup/unified/{group}/cgroup.events");
    assert!(fs::read_to_string(&frozen).expect("the unified group").contains("frozen 1"));
    lab.ok(&["thaw", &group]);
    // A process that left version 2's group alone, as cgclassify's, stands still too.
    fs::write("/sys/fs/cgroup/unified/cgroup.procs", &pid).expect("to the root");
    lab.ok(&["freeze", &group]);
    assert_eq!(lab.read("freezer", "freezer.state"), "FROZEN");
    lab.ok(&["thaw", &group]);
    assert_eq!(lab.read("freezer", "freezer.state"), "THAWED");
    lab.ok(&["create", &lab.path("below")]);
    lab.ok(&["mv", &lab.path("below"), &pid]);
    assert_eq!(lab.ok(&["ls", &lab.path("below"), "--format", "{{.Pids}}"]), pid);
    assert!(lab.refused(&["rm", &group]).contains("groups below it: below"));
    assert!(lab.refused(&["mv", &group, "999999999"]).contains("there is no process 999999999"));
    // As cgdelete: whoever is inside goes to the parent.
    lab.ok(&["rm", "-r", "--to-parent", &group]);
    let now = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    assert!(!now.contains(&group), "{now}");
    lab.ok(&["create", &group]);
    lab.ok(&["mv", &group, &pid]);
    lab.ok(&["kill", "-s", "TERM", &group]);
    assert_eq!(sleeper.wait().expect("it ends").to_string(), "signal: 15 (SIGTERM)");
}

#[test]
fn e2e_cgroup_trees_are_listed_as_lscgroup_does_and_groups_of_cgcreate_are_ours_too() {
    let lab = Lab::new("tree");
    let (a, b) = (lab.path("a"), lab.path("b/c"));
    sh(&format!("cgcreate -g cpu,memory:{a}"));
    lab.ok(&["create", "-g", &format!("cpu,memory:{b}")]);
    let theirs = sh(&format!("lscgroup cpu:/{0} memory:/{0}", lab.name));
    let ours = lab.ok(&["ls", "--hierarchies", &format!("cpu,memory:{}", lab.name)]);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(|l| l.trim_end_matches('/').to_owned()).collect();
        lines.sort();
        lines.dedup();
        lines
    };
    assert_eq!(sorted(&ours), sorted(&theirs));
    let tree = lab.ok(&["ls", &lab.name, "--format", "{{.Path}} {{.Controllers}}"]);
    let names = ["", "/a", "/b", "/b/c"].map(|below| format!("/{}{below} cpu,memory", lab.name));
    assert_eq!(tree.lines().collect::<Vec<_>>(), names);
    assert_eq!(
        lab.ok(&["ls", &format!("cpu:{}", lab.name), "--depth", "1", "--format", "{{.Group}}"]).lines().count(),
        3
    );
    sh(&format!("cgdelete -r -g cpu:{0}; cgdelete -r -g memory:{0}", lab.name));
    assert!(lab.refused(&["get", &lab.name]).contains("there is no control group"));
}

#[test]
fn e2e_cgroup_a_group_may_be_given_to_a_user_as_with_cgcreate() {
    let lab = Lab::new("owner");
    let group = lab.path("");
    lab.ok(&["create", "-a", "nobody:12345", "-g", &format!("memory:{group}")]);
    let owners =
        sh(&format!("cd /sys/fs/cgroup/memory/{group}; stat -c '%U:%g %n' . tasks cgroup.procs memory.limit_in_bytes"));
    assert_eq!(
        owners.trim(),
        "nobody:12345 .\nnobody:12345 tasks\nnobody:12345 cgroup.procs\nroot:0 memory.limit_in_bytes"
    );
}

#[test]
fn e2e_cgroup_plans_show_themselves_and_their_scripts_do_the_same() {
    let lab = Lab::new("explain");
    let group = lab.path("a");
    let words = lab.ok(&["create", "--explain", &group]);
    assert!(words.contains(&format!("mkdir(2) /sys/fs/cgroup/memory/{group}")), "{words}");
    assert!(!PathBuf::from(format!("/sys/fs/cgroup/memory/{group}")).exists());
    sh(&lab.ok(&["create", "--explain=sh", &group]));
    sh(&lab.ok(&["create", "--explain=sh", &group]));
    let json = lab.ok(&["set", "--explain=json", &group, "memory=50M"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["ops"][0]["writes"][0]["file"], "memory.limit_in_bytes");
    sh(&lab.ok(&["set", "--explain=sh", &group, "memory=50M", "cpus=0.3", "cpuset=0"]));
    assert_eq!(lab.ok(&["get", "-v", &group, "memory", "cpus", "cpuset"]), "50M\n0.3\n0");
    let inside = sh(&lab.ok(&["exec", "--explain=sh", &group, "cat", "/proc/self/cgroup"]));
    assert!(inside.contains(&format!("memory:/{group}")), "{inside}");
    for command in ["freeze", "thaw"] {
        sh(&lab.ok(&[command, "--explain=sh", &group]));
    }
    let mut child = Command::new("sleep").arg("300").spawn().expect("start sleep");
    sh(&lab.ok(&["mv", "--explain=sh", &group, &child.id().to_string()]));
    sh(&lab.ok(&["kill", "--explain=sh", &group]));
    assert_eq!(child.wait().expect("it ends").to_string(), "signal: 9 (SIGKILL)");
    sh(&lab.ok(&["rm", "-r", "--explain=sh", &lab.name]));
    assert!(lab.refused(&["get", &lab.name]).contains("there is no control group"));
}

#[test]
fn e2e_cgroup_limits_hold_memory_processes_and_cpu_time() {
    let lab = Lab::new("hold");
    let group = lab.path("");
    lab.ok(&["create", &group]);
    lab.ok(&["set", &group, "memory=16M", "memory-swap=0", "pids=20", "cpus=0.02"]);
    let big = lab.onggi.run(&["cgroup", "exec", &group, "--", "tail", "/dev/zero"]);
    assert_eq!(big.code, None, "the OOM killer ends it: {big}");
    assert!(lab.read("memory", "memory.oom_control").lines().any(|l| l == "oom_kill 1"));
    let bomb = "i=0; while [ $i -lt 60 ]; do sleep 5 > /dev/null 2>&1 & i=$((i+1)); done; wait";
    let ran = lab.onggi.run(&["cgroup", "exec", &group, "--", "busybox", "sh", "-c", bomb]);
    assert_ne!(ran.code, Some(0), "sixty processes were made");
    lab.ok(&["kill", &group]);
    // A busy loop is stopped in nearly every period.
    let mut loops = lab.onggi.command(&["cgroup", "exec", &group, "--", "busybox", "sh", "-c", "while :; do :; done"]);
    let mut child = loops.spawn().expect("start a loop");
    let field = |name: &str| {
        let stat = lab.read("cpu", "cpu.stat");
        let value = stat.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in {stat}"))
    };
    let used = || lab.read("cpuacct", "cpuacct.usage").parse::<u64>().expect("a number");
    let (before, start) = (field("nr_periods "), used());
    eventually("it was throttled", || {
        (field("nr_throttled ") >= 10 && field("nr_periods ") >= before + 15).then_some(())
    });
    let (periods, time) = (field("nr_periods ") - before, used() - start);
    lab.ok(&["kill", &group]);
    child.wait().expect("it ends");
    // 2 ms of each 100 ms, by the kernel's own counters; what was taken beyond a slice is paid back later.
    assert!(time <= periods * 4_000_000 + 100_000_000, "{time} ns in {periods} periods");
}

#[test]
fn e2e_cgroup_a_tree_is_kept_as_cgsnapshot_keeps_it_and_made_again() {
    let lab = Lab::new("keep");
    let (group, below) = (lab.path(""), lab.path("below"));
    lab.ok(&["create", "-g", &format!("cpu,memory:{below}")]);
    lab.ok(&["set", &group, "cpus=0.7", "memory=100M"]);
    lab.ok(&["set", &below, "cpus=0.3", "memory=50M", "memory-swap=0", "memory.swappiness=7"]);
    let ours = lab.ok(&["snapshot", &format!("cpu,memory:{group}")]);
    // The same values in the same sections as cgsnapshot's.
    let theirs = sh("cgsnapshot -b /dev/null -s cpu memory 2>/dev/null");
    let blocks = |text: &str, name: &str| -> String {
        let start = format!("group {name} {{");
        let starts = text.match_indices(&start).map(|(at, _)| &text[at..]);
        starts.map(|rest| format!("{}\n}}\n", &rest[..rest.find("\n}").unwrap_or(rest.len())])).collect()
    };
    for name in [&group, &below] {
        let theirs = blocks(&theirs, name).replace(['\t', ' '], "");
        for line in blocks(&ours, name).lines().filter(|l| l.contains('=')) {
            let line = line.replace(' ', "");
            assert!(theirs.contains(&line), "{line} is not in {theirs}");
        }
    }
    let same = |step: &str| {
        let keys = ["cpus", "memory", "memory-swap", "swappiness"];
        assert_eq!(lab.ok(&[&["get", "-v", below.as_str()], &keys[..]].concat()), "0.3\n50M\n50M\n7", "{step}");
        assert_eq!(lab.ok(&["get", "-v", &group, "cpus", "memory"]), "0.7\n100M", "{step}");
    };
    let dir = lab.onggi.dir().to_owned();
    let file = |name: &str, text: &str| {
        fs::write(dir.join(name), text).expect("write");
        dir.join(name).display().to_string()
    };
    let own = file("own.conf", &(ours.clone() + "\n"));
    let other = file("other.conf", &(blocks(&theirs, &group) + &blocks(&theirs, &below)));
    let again = |step: &str, make: &dyn Fn()| {
        lab.ok(&["rm", "-r", &group]);
        make();
        same(step);
    };
    again("restore of ours", &|| drop(lab.ok(&["restore", &own])));
    lab.ok(&["restore", &own]);
    again("script of restore", &|| drop(sh(&lab.ok(&["restore", "--explain=sh", &own]))));
    again("restore of cgsnapshot's", &|| drop(lab.ok(&["restore", &other])));
    again("cgconfigparser reads ours", &|| drop(sh(&format!("cgconfigparser -l {own}"))));
    lab.ok(&["restore", "--prefix", &lab.path("copy"), &own]);
    assert_eq!(lab.ok(&["get", "-v", &lab.path(&format!("copy/{below}")), "cpus"]), "0.3");
    // Limits of version 2 are translated, and what has no counterpart is told.
    let foreign = file(
        "v2.conf",
        &format!(
            "group {group}/new {{ cpu {{ cpu.max = \"20000 100000\"; }} memory {{ memory.max = 8388608; memory.high = 4194304; }} }}"
        ),
    );
    let ran = lab.onggi.run(&["cgroup", "restore", &foreign]);
    assert!(ran.code == Some(0) && ran.stderr.contains("memory.high is left out"), "{ran}");
    assert_eq!(lab.ok(&["get", "-v", &lab.path("new"), "cpus", "memory"]), "0.2\n8M");
    let broken = file("broken.conf", "group a {\n cpu { x = ; } }");
    assert!(lab.refused(&["restore", &broken]).contains("line 2 of the snapshot: expected a value"));
    let persist = lab.refused(&["persist", &group]);
    assert!(persist.contains("systemd does not run here") && persist.contains("hint: keep the file"), "{persist}");
    assert!(lab.ok(&["persist", "--explain", &group]).contains("systemctl enable --now onggi-cgroup-"));
}

#[test]
fn e2e_cgroup_counters_of_a_group_are_shown() {
    let lab = Lab::new("stat");
    let group = lab.path("");
    lab.ok(&["create", &group]);
    lab.ok(&["set", "-q", &group, "memory=64M", "pids=9"]);
    lab.ok(&["exec", &group, "--", "busybox", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]);
    let text = lab.ok(&["stat", &group, "--format", "{{.Key}}={{.Value}}"]);
    let value = |key: &str| {
        let found = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
    };
    assert_eq!(value("cpu.time"), lab.read("cpuacct", "cpuacct.usage"));
    assert_eq!(
        (value("memory.limit"), value("pids.limit"), value("memory.oom_kills")),
        ("67108864".into(), "9".into(), "0".into())
    );
    assert!(lab.ok(&["stat", &group]).contains("CPU time used"));
}

/// The text of a block of docs/cgroups.md.
fn block(name: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cgroups.md");
    let text = fs::read_to_string(page).expect("read docs/cgroups.md");
    let named = |block: &&str| block.lines().next().is_some_and(|fence| fence.split(' ').nth(1) == Some(name));
    let found = text.split("```").skip(1).step_by(2).find(named);
    found.and_then(|block| block.split_once('\n')).unwrap_or_else(|| panic!("no block {name}")).1.to_owned()
}

#[test]
fn e2e_cgroup_the_guide_is_carried_out_as_it_stands() {
    let lab = Lab::new("guide");
    let program = lab.onggi.program().display().to_string();
    let dir = lab.onggi.dir().display().to_string();
    let run = |name: &str| {
        sh(&format!("set -e\ncd {dir}\nLAB={}\nonggi() {{ {program} \"$@\"; }}\n{}", lab.name, block(name)))
    };
    assert_eq!(run("make"), block("told"));
    assert!(run("use").starts_with("in the group\n"));
    assert_eq!(run("keep"), "64M\n");
    let limit = run("limit");
    assert!(limit.starts_with("5\n") && limit.contains("memory limit of 100 MiB"), "{limit}");
}

#[test]
fn e2e_cgroup_a_container_has_groups_of_its_own_where_programs_look_for_their_limits() {
    let stage = Stage::new();
    if !PathBuf::from("/sys/fs/cgroup/cpuset/cpuset.cpus").exists() {
        return;
    }
    stage.onggi.ok(&["run", "-d", "--name", "java", "--network", "none", "-m", "64m", &stage.busybox, "sleep", "100"]);
    let script = "cd /sys/fs/cgroup; cat cpuset/cpuset.cpus memory/memory.limit_in_bytes; cat cpuset/tasks | head -n 1; \
                  grep -c ':/$' /proc/self/cgroup; for c in cpu cpuacct freezer; do test -e $c/tasks || echo no $c; done";
    let seen = stage.onggi.ok(&["exec", "java", "sh", "-c", script]);
    let cpus = fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus").expect("the machine's processors");
    let all = fs::read_to_string("/proc/self/cgroup").expect("our groups").lines().count();
    assert_eq!(seen, format!("{}\n{}\n1\n{all}", cpus.trim(), 64 << 20));
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "java"]);
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
    for controller in ["cpuset", "cpuacct", "freezer", "cpu", "memory"] {
        let own = |line: &str| line.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == controller));
        assert!(groups.lines().any(|l| own(l) && l.contains("/onggi-")), "{controller}: {groups}");
    }
    stage.onggi.ok(&["rm", "-f", "java"]);
    stage.onggi.assert_nothing_left();
}

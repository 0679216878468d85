//! `cgroup` and `limit` on pure version 2 with systemd, beside cgget and systemd-run.

use std::{fs, process::Command};

use onggi_tests::{Bundle, Lab, Runtime, eventually, machine::sh};

/// The value of a key in a file of the topmost group.
#[track_caller]
fn field(lab: &Lab, file: &str, key: &str) -> u64 {
    let text = lab.read("", file);
    let value = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {key} in {text}"))
}

#[test]
fn vm_cgroup_words_and_files_of_both_versions_are_set() {
    let lab = Lab::new("set");
    let group = &lab.name;
    lab.ok(&["create", group]);
    let told = lab.ok(&[
        "set",
        group,
        "cpus=0.5",
        "memory=100M",
        "memory-high=80M",
        "swap=0",
        "pids=50",
        "cpuset=0",
        "cpu-weight=50",
    ]);
    assert!(told.contains("cpus=0.5 → cpu.max 50000 100000 (v2)\n"), "{told}");
    let values = ["cpu.max", "memory.max", "memory.high", "memory.swap.max", "pids.max", "cpuset.cpus", "cpu.weight"];
    assert_eq!(values.map(|f| lab.read("", f)).join(" "), "50000 100000 104857600 83886080 0 50 0 50");
    lab.ok(&[
        "set",
        group,
        "cpu.cfs_quota_us=30000",
        "memory.limit_in_bytes=64M",
        "cpu.shares=1024",
        "memory.high=max",
    ]);
    assert_eq!(["cpu.max", "memory.max", "cpu.weight"].map(|f| lab.read("", f)).join(" "), "30000 100000 67108864 100");
    assert_eq!(
        lab.ok(&["get", "-v", group, "cpus", "cpu.cfs_quota_us", "memory", "memory-high"]),
        "0.3\n30000\n64M\nmax"
    );
    assert_eq!(sh(&format!("cgget -nvr memory.max {group}")).trim(), "67108864");
    let disk = sh("lsblk -dnro MAJ:MIN | head -1");
    lab.ok(&[
        "set",
        group,
        &format!("io-read-bps={}:1M", disk.trim()),
        &format!("blkio.throttle.write_iops_device={} 99", disk.trim()),
    ]);
    assert_eq!(lab.read("", "io.max"), format!("{} rbps=1048576 wbps=max riops=max wiops=99", disk.trim()));
    for (setting, part) in [
        ("memory.swappiness=10", "no counterpart in cgroup v2"),
        ("cpu.max=5", "at least 1000"),
        ("cgroup.controllers=cpu", "can only be read"),
        ("cpuset=999", "use CPUs that the parent group has"),
    ] {
        let said = lab.refused(&["set", group, setting]);
        assert!(said.contains(part), "{setting}: {said}");
    }
    // As a file, and back; also as a file of version 1.
    let file = lab.onggi.dir().join("tree.conf").display().to_string();
    lab.ok(&["snapshot", "-o", &file, group]);
    lab.ok(&["rm", group]);
    lab.ok(&["restore", &file]);
    assert_eq!(["cpu.max", "memory.max", "pids.max"].map(|f| lab.read("", f)).join(" "), "30000 100000 67108864 50");
    fs::write(
        &file,
        format!(
            "group {group}/old {{ cpu {{ cpu.cfs_quota_us = 20000; }} memory {{ memory.limit_in_bytes = 8388608; }} }}"
        ),
    )
    .expect("write");
    lab.ok(&["restore", &file]);
    assert_eq!(lab.ok(&["get", "-v", &format!("{group}/old"), "cpus", "memory"]), "0.2\n8M");
}

#[test]
fn vm_cgroup_limits_hold_and_pressure_is_shown() {
    let lab = Lab::new("hold");
    let group = &lab.name;
    lab.ok(&["create", group]);
    lab.ok(&["set", group, "memory-high=8M", "memory=64M", "swap=max", "pids=20"]);
    let fill = "head -c 24000000 /dev/zero | tail -c 24000000 > /dev/null";
    lab.ok(&["exec", group, "--", "sh", "-c", fill]);
    assert!(field(&lab, "memory.events", "high") > 0, "nothing was taken back: {}", lab.read("", "memory.events"));
    assert_eq!(field(&lab, "memory.events", "oom_kill"), 0);
    lab.ok(&["set", group, "memory-high=max", "memory=8M", "swap=0"]);
    assert_eq!(lab.onggi.run(&["cgroup", "exec", group, "--", "tail", "/dev/zero"]).code, None);
    assert_eq!(field(&lab, "memory.events", "oom_kill"), 1);
    let bomb = "i=0; while [ $i -lt 40 ]; do sleep 5 > /dev/null 2>&1 & i=$((i+1)); done; wait";
    assert_ne!(lab.onggi.run(&["cgroup", "exec", group, "--", "busybox", "sh", "-c", bomb]).code, Some(0));
    assert!(field(&lab, "pids.events", "max") > 0);
    lab.ok(&["kill", group]);
    lab.ok(&["set", group, "cpus=0.02"]);
    let mut busy = lab
        .onggi
        .command(&["cgroup", "exec", group, "--", "busybox", "sh", "-c", "while :; do :; done"])
        .spawn()
        .expect("start");
    eventually("it is throttled", || (field(&lab, "cpu.stat", "nr_throttled") > 3).then_some(()));
    lab.ok(&["freeze", group]);
    assert_eq!(field(&lab, "cgroup.events", "frozen"), 1);
    lab.ok(&["thaw", group]);
    let stat = lab.ok(&["stat", group, "--format", "{{.Key}}"]);
    for key in ["cpu.throttled", "memory.oom_kills", "pressure.cpu.some", "pressure.memory.full", "pressure.io.some"] {
        assert!(stat.lines().any(|l| l == key), "{key} is not in {stat}");
    }
    // What it has used too much of its share, on a busy machine, it is made to wait for.
    eventually("its use of the processor is shown", || {
        let top = lab.ok(&["top", "-n", "1", group, "--format", "{{.Group}} {{.Cpu}} {{.CpuPressure}}"]);
        let words: Vec<&str> = top.split(' ').collect();
        assert!(words[2].parse::<f64>().is_ok(), "{top}");
        words[1].parse::<f64>().is_ok_and(|cpu| cpu > 0.0).then_some(())
    });
    lab.ok(&["kill", group]);
    busy.wait().expect("it ends");
}

#[test]
fn vm_cgroup_a_group_has_processes_or_gives_controllers_to_its_children() {
    let lab = Lab::new("rule");
    let (group, below) = (lab.name.clone(), format!("{}/below", lab.name));
    lab.ok(&["create", &group]);
    let mut sleeper = lab.sleeper(&group);
    let pid = sleeper.id().to_string();
    let own = format!("it has 1 process of its own ({pid} sleep 300), and cgroup v2 allows either");
    // The group is made, without controllers, and its parent stays what it was.
    let made = lab.onggi.run(&["cgroup", "create", &below]);
    assert!(made.code == Some(0) && made.stderr.contains(&own), "{made}");
    assert_eq!((lab.read("", "cgroup.type"), lab.read("", "below/cgroup.type")), ("domain".into(), "domain".into()));
    assert_eq!(lab.read("", "cgroup.subtree_control"), "");
    for refused in [
        &["create", "-g", &format!("cpu,memory:{group}/named")][..],
        &["set", &below, "cpus=0.5"],
        &["set", &below, "memory=64M"],
    ] {
        let said = lab.refused(refused);
        assert!(said.contains(&own), "{refused:?}: {said}");
        let hint =
            format!("hint: move them to a group below it first: onggi cgroup create {group}/leaf; onggi cgroup mv");
        assert!(said.contains(&hint), "{refused:?}: {said}");
    }
    // As the hint says.
    lab.ok(&["create", &format!("{group}/leaf")]);
    lab.ok(&["mv", &format!("{group}/leaf"), &pid]);
    lab.ok(&["set", &below, "cpus=0.5", "memory=64M"]);
    assert_eq!(lab.read("", "below/memory.max"), "67108864");
    // The other way about: who gives takes nobody.
    for refused in [&["mv", &group, &pid][..], &["exec", &group, "true"]] {
        let said = lab.refused(refused);
        let part = "takes no processes: it gives controllers";
        assert!(
            said.contains(part) && said.contains(&format!("onggi cgroup create {group}/leaf")),
            "{refused:?}: {said}"
        );
    }
    lab.ok(&["exec", &below, "true"]);
    lab.ok(&["kill", &group]);
    sleeper.wait().expect("it ends");
    threads_alone(&lab);
}

/// By hand the kernel lets a group have both, and then has only threads below it.
fn threads_alone(lab: &Lab) {
    let top = format!("{}/top", lab.name);
    lab.ok(&["create", &top]);
    let mut sleeper = lab.sleeper(&top);
    let mut other = Command::new("sleep").arg("300").spawn().expect("start sleep");
    let dir = lab.dir("").join("top");
    sh(&format!("echo +pids > {0}/cgroup.subtree_control; mkdir {0}/below", dir.display()));
    assert_eq!(lab.read("", "top/below/cgroup.type"), "domain invalid");
    let below = format!("{top}/below");
    for refused in [&["mv", &below, &other.id().to_string()][..], &["exec", &below, "true"]] {
        let said = lab.refused(refused);
        for part in [
            "takes no processes (its cgroup.type is domain invalid)",
            &format!("/sys/fs/cgroup/{top} above it has 1 process of its own ({} sleep 300)", sleeper.id()),
            &format!(
                "hint: take the controllers back, and with them the limits below: echo \"-pids\" > /sys/fs/cgroup/{top}/"
            ),
        ] {
            assert!(said.contains(part), "{refused:?}: {part:?} is not in {said}");
        }
    }
    sh(&format!("echo -pids > {}/cgroup.subtree_control", dir.display()));
    lab.ok(&["mv", &below, &other.id().to_string()]);
    lab.ok(&["kill", &lab.name]);
    sleeper.wait().expect("it ends");
    other.wait().expect("it ends");
}

#[test]
fn vm_cgroup_a_container_below_a_group_with_processes_makes_no_threaded_domain_of_it() {
    let lab = Lab::new("inner");
    lab.ok(&["create", &lab.name]);
    let mut sleeper = lab.sleeper(&lab.name);
    let runtime = Runtime::Onggi.instance();
    let run = |name: &str, resources: serde_json::Value| {
        let mut bundle = Bundle::new(&["true"]);
        bundle.config["linux"]["cgroupsPath"] = format!("/{}/box", lab.name).into();
        bundle.config["linux"]["resources"] = resources;
        runtime.run_bundle(&bundle, &runtime.id(name))
    };
    let limited = run("limited", serde_json::json!({ "cpu": { "quota": 50_000, "period": 100_000 } }));
    let why = format!("cannot give the controller cpu to groups below /sys/fs/cgroup/{}", lab.name);
    assert!(limited.code != Some(0) && runtime.explain(&limited).contains(&why), "{}", runtime.explain(&limited));
    assert_eq!((lab.read("", "cgroup.type"), lab.read("", "cgroup.subtree_control")), ("domain".into(), String::new()));
    let plain = run("plain", serde_json::json!({}));
    assert_eq!(plain.code, Some(0), "{}", runtime.explain(&plain));
    assert_eq!((lab.read("", "cgroup.type"), lab.read("", "cgroup.subtree_control")), ("domain".into(), String::new()));
    lab.ok(&["kill", &lab.name]);
    sleeper.wait().expect("it ends");
}

#[test]
fn vm_cgroup_ls_and_top_show_what_systemd_cgls_and_cgtop_show() {
    let lab = Lab::shared("show");
    let (group, below) = (lab.name.clone(), format!("{}/below", lab.name));
    lab.ok(&["create", &below]);
    let mut sleepers = [lab.sleeper(&below), lab.sleeper(&below)];
    let processes = |text: &str| {
        let lines = text.lines().filter(|l| l.contains("sleep 300"));
        let pid = |l: &str| l.split(|c: char| !c.is_ascii_digit()).find(|w| !w.is_empty()).map(str::to_owned);
        let mut found: Vec<String> = lines.filter_map(pid).collect();
        found.sort();
        found
    };
    let theirs = sh(&format!("systemd-cgls --no-pager /{group}"));
    let ours = lab.ok(&["ls", "-p", &group]);
    assert_eq!(processes(&ours), processes(&theirs), "{ours}\n{theirs}");
    assert_eq!(processes(&ours).len(), 2, "{ours}");
    assert!(ours.contains("below") && theirs.contains("below"), "{ours}\n{theirs}");
    // Path, tasks, CPU, memory, and so on.
    let theirs = sh(&format!("systemd-cgtop -b -n 1 --raw -P --order=path {group}"));
    let tasks = |path: &str| {
        let line = theirs.lines().find(|l| l.split_whitespace().next().is_some_and(|p| p.trim_matches('/') == path));
        line.and_then(|l| l.split_whitespace().nth(1).map(str::to_owned)).unwrap_or_else(|| panic!("{path}: {theirs}"))
    };
    let ours = lab.ok(&["top", "-n", "1", "-d", "0.1", &group, "--format", "{{.Group}} {{.Tasks}}"]);
    for path in [&group, &below] {
        assert!(ours.lines().any(|l| l == format!("/{path} {}", tasks(path))), "{path}: {ours}\n{theirs}");
    }
    lab.ok(&["kill", &group]);
    for sleeper in &mut sleepers {
        sleeper.wait().expect("it ends");
    }
}

//! What the suites of other runtimes ask of a machine that has cgroup version 2 alone: groups that are not fit, that the
//! container divides, that belong to its user. Run in the VM.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{
    harness::{Bundle, Done},
    mounts::in_user_namespace,
};

const TOP: &str = "/sys/fs/cgroup";

/// A container in a group of its own at the top.
fn in_group(script: &str) -> (Bundle, PathBuf) {
    let mut b = Bundle::new(script);
    let name = format!("onggi-suite-{}", b.id);
    b.config["linux"]["cgroupsPath"] = json!(format!("/{name}"));
    (b, Path::new(TOP).join(name))
}

fn cgroup_mount(b: &mut Bundle, writable: &str) {
    let options = ["nosuid", "noexec", "nodev", "relatime", writable];
    b.add_mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }));
}

fn shell(b: &Bundle, script: &str) -> Done {
    let done = b.exec(&[], &["sh", "-euc", script]);
    assert_eq!(done.code, 0, "{script}: {}", done.err);
    done
}

#[test]
fn vm_a_group_that_is_frozen_or_not_empty_is_refused_and_stays() {
    let (b, group) = in_group("true");
    fs::create_dir(&group).unwrap();
    fs::write(group.join("cgroup.freeze"), "1").unwrap();
    for done in [b.run(), b.create()] {
        assert!(done.code == 1 && done.err.contains("container's cgroup unexpectedly frozen"), "{}", done.err);
    }
    fs::write(group.join("cgroup.freeze"), "0").unwrap();
    let mut guest = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(group.join("cgroup.procs"), guest.id().to_string()).unwrap();
    let done = b.create();
    assert!(
        done.code == 1 && done.err.contains("container's cgroup is not empty: 1 process(es) found"),
        "{}",
        done.err
    );
    assert!(guest.try_wait().unwrap().is_none(), "who was there lives on");
    guest.kill().unwrap();
    guest.wait().unwrap();
    b.until("an empty group", |_| fs::read_to_string(group.join("cgroup.procs")).unwrap().is_empty());
    assert_eq!(b.run().code, 0);
}

#[test]
fn vm_a_group_has_every_controller_of_its_parent_and_no_group_in_it() {
    let (mut b, group) = in_group("sleep 60");
    b.config["linux"]["resources"] = json!({ "pids": { "limit": 20 } });
    cgroup_mount(&mut b, "ro");
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    let controllers = |at: &Path| fs::read_to_string(at.join("cgroup.controllers")).unwrap();
    assert_eq!(controllers(&group), controllers(Path::new(TOP)));
    assert_eq!(shell(&b, "cd /sys/fs/cgroup; ls -d */ 2>/dev/null | wc -l; cat /proc/self/cgroup").out, "0\n0::/\n");
}

/// With a controller turned on for groups below, a process can be in one of those only.
#[test]
fn vm_exec_follows_the_first_process_into_the_group_that_the_container_made() {
    let (mut b, group) = in_group("while :; do sleep 1; done");
    cgroup_mount(&mut b, "rw");
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    shell(&b, "mkdir /sys/fs/cgroup/foo; echo 1 > /sys/fs/cgroup/foo/cgroup.procs");
    assert_eq!(b.exec(&[], &["cat", "/proc/self/cgroup"]).out, "0::/\n");
    let divide = "echo $$ > /sys/fs/cgroup/foo/cgroup.procs
        for p in $(cat /sys/fs/cgroup/cgroup.procs); do echo $p > /sys/fs/cgroup/foo/cgroup.procs; done
        echo +memory > /sys/fs/cgroup/cgroup.subtree_control";
    b.until("no process at the top", |b| b.exec(&[], &["sh", "-euc", divide]).code == 0);
    assert_eq!(b.exec(&[], &["cat", "/proc/self/cgroup"]).out, "0::/foo\n");
    for (flag, why) in [("/", "/cgroup.procs: device or resource busy"), ("no", "/no/cgroup.procs: no such file ")] {
        let done = b.exec(&["--cgroup", flag], &["true"]);
        let says = done.err.contains(" adding pid ") && done.err.contains(" to cgroups") && done.err.contains(why);
        assert!(done.code == 255 && says, "{flag}: {}", done.err);
    }
    assert_eq!(b.verb("delete", &["--force"]).code, 0);
    assert!(!group.exists());
}

#[test]
fn vm_groups_of_threads_below_the_containers_go_with_it() {
    let (mut b, group) = in_group("while :; do sleep 1; done");
    cgroup_mount(&mut b, "rw");
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    let nest = "cd /sys/fs/cgroup; echo +pids > cgroup.subtree_control; mkdir foo; cd foo; echo threaded > cgroup.type; \
        echo 1 > cgroup.threads; cat cgroup.threads";
    assert_eq!(shell(&b, nest).out, "1\n");
    assert!(group.join("foo").is_dir());
    assert_eq!(b.verb("delete", &["--force"]).code, 0);
    assert!(!group.exists());
}

#[test]
fn vm_a_process_outside_of_the_containers_pids_is_signalled_also_in_groups_below() {
    let (mut b, group) = in_group("sleep 1000 & sleep 1000 & wait");
    b.remove_namespace("pid");
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    let procs = |at: &Path| fs::read_to_string(at.join("cgroup.procs")).unwrap_or_default();
    b.until("three processes", |_| procs(&group).lines().count() == 3);
    let inner = group.join("inner");
    fs::create_dir(&inner).unwrap();
    let moved = procs(&group).lines().last().unwrap().to_owned();
    fs::write(inner.join("cgroup.procs"), &moved).unwrap();
    assert_eq!(b.verb("kill", &["--all", "KILL"]).code, 0);
    b.until("no process", |_| procs(&group).is_empty() && procs(&inner).is_empty());
    b.until("stopped", |b| b.status() == "stopped");
    assert_eq!(b.verb("delete", &[]).code, 0);
    assert!(!group.exists());
}

/// In a user namespace the owner is seen by name: nobody, or the namespace's root.
#[test]
fn vm_a_group_is_given_to_the_root_of_a_user_namespace_that_may_write_to_it() {
    for (writable, own_namespace, owner) in [("ro", true, "65534"), ("rw", false, "65534"), ("rw", true, "0")] {
        let (mut b, _) = in_group("sleep 60");
        cgroup_mount(&mut b, writable);
        if !own_namespace {
            b.remove_namespace("cgroup");
        }
        in_user_namespace(&mut b);
        assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
        let seen = b.exec(&[], &["stat", "-c", "%u", "/sys/fs/cgroup"]);
        assert_eq!(seen.out.trim(), owner, "{writable}, own namespace {own_namespace}: {}", seen.err);
    }
}

/// By whichever scheduler has weights: BFQ takes it as it is, the others on a scale ten times as long.
#[test]
fn vm_a_weight_of_version_1_is_converted_for_version_2() {
    let (mut b, group) = in_group("sleep 60");
    b.config["linux"]["resources"] = json!({ "blockIO": { "weight": 750 } });
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    let read =
        |file: &str| fs::read_to_string(group.join(file)).map(|text| text.lines().next().unwrap_or("").to_owned());
    match (read("io.bfq.weight"), read("io.weight")) {
        (Ok(weight), _) => assert!(weight == "default 750" || weight == "750", "{weight}"),
        (_, Ok(weight)) => assert_eq!(weight, "default 7475"),
        // Nobody has weights: that is said.
        _ => assert!(b.output().contains("I/O weight 750"), "{}", b.output()),
    }
}

/// All that runc's case of `resources.unified` looks at, beside limits that it overrides.
#[test]
fn vm_unified_settings_win_over_the_others() {
    let (mut b, group) = in_group("sleep 60");
    let unified = json!({
        "memory.min": "131072", "memory.low": "524288", "memory.high": "41943040", "memory.max": "50331648",
        "memory.swap.max": "20971520", "pids.max": "42", "cpu.max": "5000 50000", "cpu.weight": "42"
    });
    b.config["linux"]["resources"] = json!({
        "memory": { "limit": 33_554_432, "swap": 33_554_432, "reservation": 1_048_576 },
        "cpu": { "shares": 3333, "quota": 40_000, "period": 100_000 }, "pids": { "limit": 20 }, "unified": unified
    });
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    for (file, value) in unified.as_object().unwrap() {
        let shown = fs::read_to_string(group.join(file)).unwrap();
        assert_eq!(Value::from(shown.trim()), *value, "{file}");
    }
}

/// The words that crun's suite looks for.
#[test]
fn vm_unified_settings_that_cannot_be_are_told_by_controller_or_key() {
    for (key, words) in [
        ("foo.bar", "the requested cgroup controller `foo` is not available"),
        ("NOT-A-VALID-KEY", "the specified key has not the form CONTROLLER.VALUE `NOT-A-VALID-KEY`"),
        ("memory.DOESNTEXIST", "no such file or directory"),
    ] {
        let (mut b, group) = in_group("true");
        b.config["linux"]["resources"] = json!({ "unified": { key: "1" } });
        let done = b.run();
        assert!(done.code == 1 && done.err.contains(words), "{key}: {}", done.err);
        assert!(!group.exists(), "{key}");
    }
}

#[test]
fn vm_exec_enters_the_group_that_it_is_told() {
    let (mut b, group) = in_group("sleep 60");
    cgroup_mount(&mut b, "rw");
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    fs::create_dir(group.join("foo")).unwrap();
    for flag in ["/foo", "foo"] {
        assert_eq!(b.exec(&["--cgroup", flag], &["cat", "/proc/self/cgroup"]).out, "0::/foo\n", "{flag}");
    }
    for (flag, why) in
        [("..", "bad sub cgroup path"), ("none", "no such file or directory"), ("memory:foo", "controller")]
    {
        let done = b.exec(&["--cgroup", flag], &["true"]);
        assert!(done.code == 255 && done.err.to_lowercase().contains(why), "{flag}: {}", done.err);
    }
}

#[test]
fn vm_shares_are_weights_by_the_conversion_of_newer_runtimes() {
    for (shares, weight) in [(2, "1"), (100, "17"), (512, "59"), (1024, "100"), (4321, "316"), (262_144, "10000")] {
        let (mut b, group) = in_group("sleep 60");
        b.config["linux"]["resources"] = json!({ "cpu": { "shares": shares } });
        assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
        assert_eq!(fs::read_to_string(group.join("cpu.weight")).unwrap().trim(), weight, "{shares}");
    }
}

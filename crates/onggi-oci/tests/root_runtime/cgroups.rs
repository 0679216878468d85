//! Limits, their change, what is counted, and where the groups are. The tests hold on version 1, hybrid and
//! version 2.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::harness::{Bundle, Done};

/// Sleeps until it is killed.
const IDLE: &str = "sleep 1000";

/// The machine has nothing but version 2.
fn pure_v2() -> bool {
    fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok()
}

/// The container's directory of a controller, as its first process tells.
fn dir(b: &Bundle, controller: &str) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", b.pid())).unwrap();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let below = path.trim_start_matches('/');
        if pure_v2() {
            return PathBuf::from("/sys/fs/cgroup").join(below);
        }
        if controllers.split(',').any(|c| c == controller) {
            return PathBuf::from("/sys/fs/cgroup").join(controllers).join(below);
        }
    }
    panic!("no {controller} in {groups}");
}

/// What a limit is: its file on version 1 or on version 2.
fn limit(b: &Bundle, controller: &str, v1: &str, v2: &str) -> String {
    let at = dir(b, controller).join(if pure_v2() { v2 } else { v1 });
    fs::read_to_string(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display())).trim().to_owned()
}

fn memory(b: &Bundle) -> String {
    limit(b, "memory", "memory.limit_in_bytes", "memory.max")
}

fn memory_and_swap(b: &Bundle) -> String {
    limit(b, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
}

fn pids(b: &Bundle) -> String {
    limit(b, "pids", "pids.max", "pids.max")
}

fn update(b: &Bundle, flags: &[&str]) -> Done {
    let mut args = vec!["update"];
    args.extend(flags);
    args.push(&b.id);
    b.oci(&args).output().unwrap().into()
}

fn update_from_stdin(b: &Bundle, resources: &Value) -> Done {
    let mut child = b
        .oci(&["update", "-r", "-", &b.id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(resources.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn limited(script: &str, resources: Value) -> Bundle {
    let mut b = Bundle::new(script);
    b.config["linux"]["resources"] = resources;
    b
}

fn ok(done: &Done) {
    assert_eq!(done.code, 0, "{} {}", done.out, done.err);
}

#[test]
fn root_memory_and_swap_can_be_raised_and_lowered_together() {
    const MIB: u64 = 1 << 20;
    let b = limited(IDLE, json!({ "memory": { "limit": 64 * MIB, "swap": 128 * MIB } }));
    ok(&b.run_detached(&[]));
    for (limit, both) in [(200, 400), (30, 50), (60, 80)] {
        ok(&update(&b, &["--memory", &format!("{limit}M"), "--memory-swap", &format!("{both}M")]));
        assert_eq!(memory(&b), (limit * MIB).to_string());
        let swap = if pure_v2() { both - limit } else { both };
        assert_eq!(memory_and_swap(&b), (swap * MIB).to_string());
    }
    ok(&update(&b, &["--memory", "-1"]));
    let unlimited = if pure_v2() { "max" } else { "9223372036854771712" };
    assert_eq!((memory(&b).as_str(), memory_and_swap(&b).as_str()), (unlimited, unlimited));
}

#[test]
fn root_quota_and_period_can_be_changed_one_at_a_time() {
    let b = limited(IDLE, json!({ "cpu": { "quota": 500_000, "period": 1_000_000, "shares": 100 } }));
    ok(&b.run_detached(&[]));
    let quota = |b: &Bundle| {
        if pure_v2() {
            return limit(b, "cpu", "", "cpu.max");
        }
        let of = |file| limit(b, "cpu", file, file);
        format!("{} {}", of("cpu.cfs_quota_us").replace("-1", "max"), of("cpu.cfs_period_us"))
    };
    assert_eq!(quota(&b), "500000 1000000");
    for (flags, now) in [
        (["--cpu-period", "900000"], "500000 900000"),
        (["--cpu-quota", "600000"], "600000 900000"),
        (["--cpu-quota", "-1"], "max 900000"),
        (["--cpu-quota", "30000"], "30000 900000"),
        (["--cpu-period", "50000"], "30000 50000"),
    ] {
        ok(&update(&b, &flags));
        assert_eq!(quota(&b), now);
    }
    ok(&update_from_stdin(&b, &json!({ "CPU": { "Quota": 500_000, "period": 1_000_000 } })));
    assert_eq!(quota(&b), "500000 1000000");
}

/// What came after runc 1.1, at the creation and by `update`.
#[test]
fn root_burst_and_idle_are_the_kernels_and_can_be_changed() {
    let b = limited(IDLE, json!({ "cpu": { "quota": 50_000, "period": 100_000, "burst": 4000 } }));
    ok(&b.run_detached(&[]));
    let burst = || limit(&b, "cpu", "cpu.cfs_burst_us", "cpu.max.burst");
    let idle = || limit(&b, "cpu", "cpu.idle", "cpu.idle");
    assert_eq!((burst().as_str(), idle().as_str()), ("4000", "0"));
    ok(&update(&b, &["--cpu-burst", "6000"]));
    assert_eq!(burst(), "6000");
    ok(&update(&b, &["--cpu-burst", "0"]));
    assert_eq!(burst(), "0");
    ok(&update(&b, &["--cpu-idle", "1"]));
    assert_eq!(idle(), "1");
    ok(&update(&b, &["--cpu-idle", "0"]));
    assert_eq!(idle(), "0");
    let beyond = update(&b, &["--cpu-burst", "60000"]);
    assert!(beyond.code == 1 && beyond.err.contains("60000"), "more than the quota: {}", beyond.err);
    let b = limited(IDLE, json!({ "cpu": { "idle": 1 } }));
    ok(&b.run_detached(&[]));
    assert_eq!(limit(&b, "cpu", "cpu.idle", "cpu.idle"), "1");
}

#[test]
fn root_limits_of_kernel_memory_are_ignored_with_a_warning() {
    let b = Bundle::new(IDLE);
    ok(&b.run_detached(&[]));
    for flag in ["--kernel-memory", "--kernel-memory-tcp"] {
        let done = update(&b, &[flag, "64M"]);
        assert!(done.code == 0 && done.err.contains("Kernel memory settings are ignored"), "{flag}: {done:?}");
    }
}

#[test]
fn root_a_refused_update_leaves_every_limit_as_it_was() {
    let b = limited(IDLE, json!({ "pids": { "limit": 20 }, "memory": { "limit": 67_108_864 } }));
    ok(&b.run_detached(&[]));
    let refused = update(&b, &["--memory", "40M", "--pids-limit", "30", "--cpuset-mems", "63"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("63") && refused.err.contains("cpuset.mems"), "{}", refused.err);
    let refused = update_from_stdin(
        &b,
        &json!({ "memory": { "limit": 41_943_040 }, "pids": { "limit": 30 }, "network": { "priorities": [
            { "name": "no-such-link0", "priority": 1 }] }, "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] }),
    );
    assert_eq!(refused.code, 1, "{}", refused.out);
    assert_eq!((memory(&b).as_str(), pids(&b).as_str()), ("67108864", "20"));
    for (flags, text) in [
        (["--memory", "10x"], "invalid value for memory: invalid size: '10x'"),
        (["--cpu-share", "1"], "the minimum allowed cpu-shares is 2"),
        (["--cpu-share", "262145"], "the maximum allowed cpu-shares is 262144"),
        (["--l3-cache-schema", "L3:0=1"], "Intel RDT/CAT: l3 cache schema is not enabled"),
        (["--cpu-idle", "2"], "use 0 or 1"),
    ] {
        let done = update(&b, &flags);
        assert_eq!(done.code, 1);
        assert!(done.err.contains(text), "{}", done.err);
    }
}

#[test]
fn root_updates_are_remembered_and_a_stopped_container_has_none() {
    let b = limited(IDLE, json!({ "pids": { "limit": 20 } }));
    ok(&b.run_detached(&[]));
    ok(&update(&b, &["--pids-limit", "33"]));
    let kept = fs::read_to_string(b.dir.join("state").join(&b.id).join("resources.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&kept).unwrap()["pids"]["limit"], 33);
    for unlimited in ["-1", "0"] {
        ok(&update(&b, &["--pids-limit", unlimited]));
        assert_eq!(pids(&b), "max", "{unlimited}");
        ok(&update(&b, &["--pids-limit", "34"]));
    }
    ok(&b.verb("kill", &["KILL"]));
    b.until("stopped", |b| b.status() == "stopped");
    let late = update(&b, &["--pids-limit", "5"]);
    assert!(late.code == 1 && late.err.contains("container not running"), "{}", late.err);
}

#[test]
fn root_a_paused_container_stays_paused_when_it_is_updated() {
    let b = Bundle::new(IDLE);
    ok(&b.run_detached(&[]));
    ok(&b.verb("pause", &[]));
    ok(&update(&b, &["--pids-limit", "30"]));
    assert_eq!((b.status().as_str(), pids(&b).as_str()), ("paused", "30"));
    ok(&b.verb("resume", &[]));
}

#[test]
fn root_device_rules_are_replaced_without_a_moment_of_refusal() {
    let mut b = Bundle::new("while :; do echo x > /dev/null || echo refused; sleep 0.01; done");
    let rule = json!({ "allow": true, "type": "c", "major": 240, "minor": 99, "access": "rw" });
    b.config["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    b.config["linux"]["devices"] =
        json!([{ "path": "/dev/probe", "type": "c", "major": 240, "minor": 99, "fileMode": 438 }]);
    ok(&b.run_detached(&[]));
    let opened = |b: &Bundle| b.exec(&[], &["cat", "/dev/probe"]).err;
    assert!(opened(&b).contains("not permitted"), "{}", opened(&b));
    for _ in 0..2 {
        ok(&update_from_stdin(&b, &json!({ "devices": [{ "allow": false, "access": "rwm" }, rule] })));
        // Nobody drives this number: that is said only to those who may open it.
        assert!(opened(&b).contains("No such device"), "{}", opened(&b));
        ok(&update_from_stdin(&b, &json!({ "devices": [{ "allow": false, "access": "rwm" }] })));
        assert!(opened(&b).contains("not permitted"), "{}", opened(&b));
    }
    assert_eq!(b.output(), "");
}

#[test]
fn root_stats_have_runcs_members() {
    let b = limited(IDLE, json!({ "pids": { "limit": 20 }, "memory": { "limit": 67_108_864 } }));
    ok(&b.run_detached(&[]));
    let done: Done = b.oci(&["events", "--stats", &b.id]).output().unwrap().into();
    ok(&done);
    assert!(done.out.starts_with(&format!(r#"{{"type":"stats","id":"{}","data":{{"cpu":"#, b.id)), "{}", done.out);
    let data = &serde_json::from_str::<Value>(&done.out).unwrap()["data"];
    assert_eq!((data["pids"]["limit"].as_u64(), data["pids"]["current"].as_u64()), (Some(20), Some(1)));
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert!(data["memory"]["usage"]["usage"].as_u64() > Some(0));
    assert!(data["cpu"]["usage"]["total"].as_u64() > Some(0));
    for member in ["cpuset", "blkio", "hugetlb", "intel_rdt"] {
        assert!(data[member].is_object(), "{member}: {data}");
    }
    assert!(data["network_interfaces"].is_null());
}

#[test]
fn root_events_tell_usage_and_oom_kills_until_the_container_ends() {
    let b = limited(IDLE, json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } }));
    ok(&b.run_detached(&[]));
    let mut events = b.oci(&["events", "--interval", "100ms", &b.id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with(r#"{"type":"stats""#));
    let mut hog = b.spawn_exec(&["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]);
    let oom = format!(r#"{{"type":"oom","id":"{}"}}"#, b.id);
    assert!(lines.any(|line| line.unwrap() == oom), "events ended without {oom}");
    hog.wait().unwrap();
    ok(&b.verb("kill", &["KILL"]));
    // The rest of the stream, to its end.
    assert!(lines.all(|line| line.is_ok()));
    assert!(events.wait().unwrap().success());
    let late: Done = b.oci(&["events", &b.id]).output().unwrap().into();
    assert!(late.err.contains("is not running"), "{}", late.err);
    let zero: Done = b.oci(&["events", "--interval", "0s", &b.id]).output().unwrap().into();
    assert!(zero.err.contains("duration interval must be greater than 0"), "{}", zero.err);
}

#[test]
fn root_a_container_has_a_group_of_its_id_in_every_hierarchy() {
    let b = Bundle::new(IDLE);
    ok(&b.run_detached(&[]));
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", b.pid())).unwrap();
    assert!(groups.lines().all(|line| line.ends_with(&format!("/{}", b.id))), "{groups}");
}

#[test]
fn root_a_cgroup_path_never_leads_above_the_root() {
    let mut b = Bundle::new(IDLE);
    b.config["linux"]["cgroupsPath"] = json!(format!("/../../{}", b.id));
    ok(&b.run_detached(&[]));
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", b.pid())).unwrap();
    assert!(groups.lines().all(|line| line.ends_with(&format!(":/{}", b.id))), "{groups}");
}

#[test]
fn root_a_group_with_processes_is_refused_and_one_without_is_taken() {
    let mut b = Bundle::new(IDLE);
    b.config["linux"]["cgroupsPath"] = json!(format!("/{}", b.id));
    let memory = if pure_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
    let group = PathBuf::from(memory).join(&b.id);
    fs::create_dir(&group).unwrap();
    let mut guest = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(group.join("cgroup.procs"), guest.id().to_string()).unwrap();
    let refused = b.run();
    guest.kill().unwrap();
    guest.wait().unwrap();
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("container's cgroup is not empty: 1 process(es) found"), "{}", refused.err);
    // A dying process leaves its group a moment after it was waited for.
    b.until("empty", |_| fs::read_to_string(group.join("cgroup.procs")).unwrap().is_empty());
    ok(&b.run_detached(&[]));
}

#[test]
fn root_groups_below_the_containers_go_with_it() {
    let b = Bundle::new("sleep 1000 & wait");
    ok(&b.run_detached(&[]));
    let below = dir(&b, "memory").join("inner");
    fs::create_dir(&below).unwrap();
    b.until("two processes", |b| Done::from(b.oci(&["ps", "-f", "json", &b.id]).output().unwrap()).out.contains(','));
    let member = fs::read_to_string(dir(&b, "memory").join("cgroup.procs")).unwrap();
    fs::write(below.join("cgroup.procs"), member.lines().last().unwrap()).unwrap();
    ok(&b.verb("delete", &["--force"]));
    assert!(!below.exists());
}

#[test]
fn root_what_a_version_lacks_is_told_and_unified_is_for_version_2() {
    let done = limited("true", json!({ "blockIO": { "leafWeight": 100 } })).run();
    ok(&done);
    assert!(done.err.contains("level=warning") && done.err.contains("I/O leaf weight"), "{}", done.err);
    // A device whose scheduler has no weights, on a kernel that may know some. Version 2 fails as runc does.
    if !pure_v2() {
        let weight = json!({ "weightDevice": [{ "major": 7, "minor": 7, "weight": 300 }] });
        let done = limited("true", json!({ "blockIO": weight })).run();
        ok(&done);
        assert!(done.err.contains("there is no I/O weight 300 on 7:7"), "{}", done.err);
    }
    let done = limited("true", json!({ "unified": { "pids.max": "9" } })).run();
    match pure_v2() {
        true => ok(&done),
        false => assert!(done.code == 1 && done.err.contains("invalid configuration"), "{}", done.err),
    }
}

#[test]
fn root_a_limit_of_no_process_at_all_is_kept_since_it_has_a_meaning() {
    for (version, limit) in [("1.3.0", "1"), ("1.4.0-rc.1", "1"), ("1.2.1", "max"), ("1.0.2-dev", "max")] {
        let mut b = limited(IDLE, json!({ "pids": { "limit": 0 } }));
        b.config["ociVersion"] = json!(version);
        ok(&b.run_detached(&[]));
        assert_eq!(pids(&b), limit, "{version}");
    }
}

/// What a container of another engine without a cgroup namespace sees: its own group at the mount points of version 1, and
/// the host's paths in /proc/self/cgroup.
#[test]
fn root_a_container_in_a_container_without_a_cgroup_namespace_gets_its_groups_below() {
    let mut b = Bundle::new("grep -v ^0: /proc/self/cgroup");
    b.remove_namespace("cgroup");
    b.write_config();
    let run = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
    let outer = format!("outer-{}", b.id);
    let script = format!(
        r#"for m in $(awk '$3 == "cgroup" {{ print $2 }}' /proc/mounts); do
             mkdir $m/{outer} || exit 90; [ ! -e $m/cpuset.mems ] || for f in cpus mems; do
               cat $m/cpuset.$f > $m/{outer}/cpuset.$f || exit 91; done
             echo $$ > $m/{outer}/cgroup.procs && mount --bind $m/{outer} $m || exit 92
           done; exec "$@""#
    );
    let mut shell = std::process::Command::new("unshare");
    shell.args(["-m", "sh", "-c", &script, "sh"]).arg(run.get_program()).args(run.get_args());
    let done: crate::harness::Done = shell.stdin(std::process::Stdio::null()).output().unwrap().into();
    for group in crate::harness::cgroups_of(&outer) {
        b.until("its group is empty", |_| fs::remove_dir(&group).is_ok());
    }
    assert_eq!(done.code, 0, "{}", done.err);
    let below = format!("/{outer}/{}", b.id);
    assert!(done.out.lines().all(|line| line.ends_with(&below)), "{}", done.out);
}

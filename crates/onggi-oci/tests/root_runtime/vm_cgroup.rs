//! Resources on a machine that has nothing but cgroup version 2, without systemd's help: what the configuration
//! asks is read back from the kernel's files, and the kernel is seen to enforce it.
//!
//! Run by `cargo xtask vm` only; a missing controller is a failure.

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::harness::{Bundle, Done, cgroups_of};

const TOP: &str = "/sys/fs/cgroup";
const MIB: i64 = 1 << 20;

/// A container with these resources in a group that carries its id.
fn limited(script: &str, resources: &Value) -> Bundle {
    let mut b = Bundle::new(script);
    b.config["linux"]["resources"] = resources.clone();
    b.config["linux"]["cgroupsPath"] = json!(format!("/{}", group_name(&b.id)));
    b
}

/// The same, running.
fn running(resources: &Value) -> Bundle {
    let b = limited("trap exit TERM; while :; do sleep 0.1; done", resources);
    let done = b.run_detached(&[]);
    assert_eq!(done.code, 0, "{}", done.out);
    b
}

fn group_name(id: &str) -> String {
    format!("onggi-vm-{id}")
}

fn group(b: &Bundle) -> PathBuf {
    PathBuf::from(TOP).join(group_name(&b.id))
}

fn read(b: &Bundle, file: &str) -> String {
    let path = group(b).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// The number after `key` in a file of `key number` lines.
fn counter(b: &Bundle, file: &str, key: &str) -> u64 {
    let text = read(b, file);
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {key} in {text}"))
}

fn delete(b: &Bundle) {
    let done: Done = b.oci(&["delete", "-f", &b.id]).output().unwrap().into();
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(!group(b).exists(), "the group is left");
}

#[test]
fn vm_the_guest_has_version_2_alone_with_every_controller_tested_here() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let kinds: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert!(kinds.contains(&"cgroup2") && !kinds.contains(&"cgroup"), "{mounts}");
    let offered = fs::read_to_string(format!("{TOP}/cgroup.controllers")).unwrap();
    for controller in ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"] {
        assert!(offered.split_whitespace().any(|c| c == controller), "no {controller} in {offered}");
    }
}

#[test]
fn vm_memory_limits_are_the_kernels() {
    let memory = json!({ "limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB });
    let b = running(&json!({ "memory": memory }));
    assert_eq!(read(&b, "memory.max"), (64 * MIB).to_string());
    assert_eq!(read(&b, "memory.low"), (32 * MIB).to_string());
    assert_eq!(read(&b, "memory.swap.max"), (32 * MIB).to_string(), "version 2 counts swap alone");
    delete(&b);
}

#[test]
fn vm_an_unlimited_memory_is_max_and_all_swap_can_be_forbidden() {
    let b = running(&json!({ "memory": { "limit": -1 } }));
    assert_eq!((read(&b, "memory.max").as_str(), read(&b, "memory.swap.max").as_str()), ("max", "max"));
    delete(&b);
    let b = running(&json!({ "memory": { "limit": 64 * MIB, "swap": 64 * MIB } }));
    assert_eq!(read(&b, "memory.swap.max"), "0");
    delete(&b);
    let b = running(&json!({ "memory": { "swap": 0 } }));
    assert_eq!((read(&b, "memory.max").as_str(), read(&b, "memory.swap.max").as_str()), ("max", "0"));
    delete(&b);
}

#[test]
fn vm_a_process_beyond_its_memory_is_killed_and_the_container_ends_with_137() {
    let memory = json!({ "memory": { "limit": 16 * MIB, "swap": 16 * MIB } });
    let done = limited("exec dd if=/dev/zero of=/dev/null bs=32M count=1", &memory).run();
    assert_eq!(done.code, 137, "{}", done.err);
}

#[test]
fn vm_an_oom_kill_is_counted_in_the_containers_events() {
    let b = limited(
        "dd if=/dev/zero of=/dev/null bs=32M count=1; echo ended; while :; do sleep 0.1; done",
        &json!({ "memory": { "limit": 16 * MIB, "swap": 16 * MIB } }),
    );
    assert_eq!(b.run_detached(&[]).code, 0);
    b.until("the kill", |b| b.output().contains("ended"));
    assert_eq!(counter(&b, "memory.events", "oom_kill"), 1);
    assert_eq!(b.status(), "running", "only the process that asked for too much is gone");
    delete(&b);
}

#[test]
fn vm_cpu_shares_quota_burst_and_idle_are_the_kernels() {
    let b = running(&json!({ "cpu": { "quota": 50_000, "period": 200_000, "burst": 10_000, "shares": 1024 } }));
    assert_eq!(read(&b, "cpu.max"), "50000 200000");
    assert_eq!(read(&b, "cpu.max.burst"), "10000");
    assert_eq!(read(&b, "cpu.weight"), "100", "the default of version 1 is that of version 2");
    delete(&b);
    let b = running(&json!({ "cpu": { "quota": -1 } }));
    assert_eq!(read(&b, "cpu.max"), "max 100000");
    delete(&b);
    let b = running(&json!({ "cpu": { "idle": 1 } }));
    assert_eq!(read(&b, "cpu.idle"), "1");
    delete(&b);
}

#[test]
fn vm_a_cpu_quota_throttles() {
    let b = limited("while :; do :; done", &json!({ "cpu": { "quota": 20_000, "period": 100_000 } }));
    assert_eq!(b.run_detached(&[]).code, 0);
    b.until("throttling", |b| counter(b, "cpu.stat", "nr_throttled") > 2);
    delete(&b);
}

#[test]
fn vm_the_processors_of_a_cpuset_are_the_only_ones() {
    let b = running(&json!({ "cpu": { "cpus": "1", "mems": "0" } }));
    assert_eq!((read(&b, "cpuset.cpus").as_str(), read(&b, "cpuset.mems").as_str()), ("1", "0"));
    let allowed = b.exec(&[], &["grep", "Cpus_allowed_list", "/proc/self/status"]).out;
    assert_eq!(allowed.split_whitespace().last(), Some("1"));
    delete(&b);
}

#[test]
fn vm_the_limit_of_processes_holds() {
    let b = running(&json!({ "pids": { "limit": 12 } }));
    assert_eq!(read(&b, "pids.max"), "12");
    let script = "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done";
    let done = b.exec(&[], &["sh", "-c", script]);
    assert_ne!(done.code, 0, "thirty processes were made");
    assert!(counter(&b, "pids.events", "max") > 0);
    delete(&b);
    let b = running(&json!({ "pids": { "limit": -1 } }));
    assert_eq!(read(&b, "pids.max"), "max");
    delete(&b);
}

#[test]
fn vm_limits_of_a_disk_are_in_io_max() {
    let disk = fs::read_to_string("/sys/block/vda/dev").unwrap().trim().to_owned();
    let (major, minor) = disk.split_once(':').unwrap();
    let rate = |rate: u64| json!([{ "major": major.parse::<i64>().unwrap(), "minor": minor.parse::<i64>().unwrap(), "rate": rate }]);
    let io = json!({
        "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
        "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200),
    });
    let b = running(&json!({ "blockIO": io }));
    assert_eq!(read(&b, "io.max"), format!("{disk} rbps=1048576 wbps=2097152 riops=100 wiops=200"));
    delete(&b);
}

#[test]
fn vm_huge_pages_are_limited_by_size() {
    let b = running(&json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 * MIB }] }));
    assert_eq!(read(&b, "hugetlb.2MB.max"), (4 * MIB).to_string());
    assert_eq!(read(&b, "hugetlb.2MB.rsvd.max"), (4 * MIB).to_string(), "what is reserved is limited too");
    delete(&b);
}

#[test]
fn vm_unified_settings_are_written_as_they_are() {
    let b =
        running(&json!({ "unified": { "memory.high": (48 * MIB).to_string(), "cpu.weight": "77", "pids.max": "99" } }));
    assert_eq!(read(&b, "memory.high"), (48 * MIB).to_string());
    assert_eq!((read(&b, "cpu.weight").as_str(), read(&b, "pids.max").as_str()), ("77", "99"));
    delete(&b);
    let b = limited("true", &json!({ "unified": { "memory.nonsense": "1" } }));
    let done = b.run();
    assert_ne!(done.code, 0);
    assert!(done.err.contains("memory.nonsense"), "{}", done.err);
    assert!(!group(&b).exists(), "a refused setting leaves no group");
}

#[test]
fn vm_devices_that_are_not_allowed_cannot_be_opened_not_even_by_exec() {
    // The root disk: no container may open it by default.
    let disk = fs::read_to_string("/sys/block/vda/dev").unwrap();
    let (major, minor) = disk.trim().split_once(':').unwrap();
    let number = |text: &str| text.parse::<i64>().unwrap();
    let allow = json!({ "allow": true, "type": "b", "major": number(major), "minor": number(minor), "access": "r" });
    let script = format!(
        "mknod /dev/d b {major} {minor}; head -c1 /dev/d > /dev/null && echo read
        (: >> /dev/d) && echo written; echo x > /dev/null && echo null"
    );
    for (rules, wanted) in [(json!([{ "allow": false, "access": "rwm" }]), "null\n"), (json!([allow]), "read\nnull\n")]
    {
        let mut b = limited("while :; do sleep 0.1; done", &json!({ "devices": rules }));
        for set in ["bounding", "effective", "permitted"] {
            b.config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_MKNOD"));
        }
        assert_eq!(b.run_detached(&[]).code, 0);
        let done = b.exec(&[], &["sh", "-c", &script]);
        assert_eq!(done.out, wanted, "{}", done.err);
        delete(&b);
    }
}

#[test]
fn vm_pause_freezes_the_group_and_a_frozen_container_can_be_deleted() {
    let b = running(&json!({}));
    assert_eq!(b.verb("pause", &[]).code, 0);
    assert_eq!(b.status(), "paused");
    assert_eq!((read(&b, "cgroup.freeze").as_str(), counter(&b, "cgroup.events", "frozen")), ("1", 1));
    assert_eq!(b.verb("resume", &[]).code, 0);
    assert_eq!((b.status().as_str(), counter(&b, "cgroup.events", "frozen")), ("running", 0));
    assert_eq!(b.verb("pause", &[]).code, 0);
    delete(&b);
}

#[test]
fn vm_delete_kills_a_forking_crowd_without_a_pid_namespace() {
    let mut b = limited("trap '' TERM INT HUP; while :; do sleep 0.05 & done", &json!({ "pids": { "limit": 40 } }));
    b.remove_namespace("pid");
    assert_eq!(b.run_detached(&[]).code, 0);
    b.until("a crowd", |b| read(b, "cgroup.procs").lines().count() > 10);
    delete(&b);
}

#[test]
fn vm_the_first_process_is_born_in_its_group() {
    let b = limited("true", &json!({ "pids": { "limit": 9 } }));
    b.write_config();
    let trace = b.dir.join("trace");
    let runtime = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=clone3,write,openat", "-o"]).arg(&trace);
    strace.arg(runtime.get_program()).args(runtime.get_args());
    assert!(strace.status().expect("start strace (Debian package strace)").success());
    let text = fs::read_to_string(&trace).unwrap();
    assert!(text.contains("CLONE_INTO_CGROUP"), "{text}");
    let moved = format!("{}/cgroup.procs", group_name(&b.id));
    assert!(!text.contains(&moved), "a process was moved into the group by hand");
}

#[test]
fn vm_the_container_sees_its_own_group_as_the_top_and_cannot_change_it() {
    let mut b = limited(
        "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max; (echo 99 > /sys/fs/cgroup/pids.max) 2>/dev/null || echo refused",
        &json!({ "pids": { "limit": 33 } }),
    );
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    b.add_mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }));
    let done = b.run();
    assert_eq!(done.out, "0::/\n33\nrefused\n", "{}", done.err);
}

#[test]
fn vm_without_a_path_the_group_is_named_after_the_container_and_goes_with_it() {
    let b = Bundle::new("while :; do sleep 0.1; done");
    assert_eq!(b.run_detached(&[]).code, 0);
    let groups = cgroups_of(&b.id);
    assert_eq!(groups.len(), 1, "{groups:?}");
    let members = fs::read_to_string(groups[0].join("cgroup.procs")).unwrap();
    assert!(members.lines().any(|pid| pid == b.pid().to_string()), "{members}");
    let done: Done = b.oci(&["delete", "-f", &b.id]).output().unwrap().into();
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(cgroups_of(&b.id).is_empty());
}

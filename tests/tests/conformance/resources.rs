//! config-linux.md, `linux.resources` and `cgroupsPath`: the values that the kernel holds, read from the host.

use std::fs;

use onggi_tests::{Bundle, Instance};
use serde_json::{Value, json};

use crate::{
    compare::{Known, known, same, same_but, same_output},
    probe::{self, View},
};

/// The cgroup directory of a process in one version 1 hierarchy.
fn cgroup_of(pid: u32, controller: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        let path = parts.next()?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    })?;
    Some(format!("/sys/fs/cgroup/{controller}{path}"))
}

/// `controller file` → its content.
pub(crate) fn values(pid: u32, files: &[&str]) -> View {
    let mut view = View::new();
    for file in files {
        let (controller, name) = file.split_once('/').expect("controller/file");
        let directory = cgroup_of(pid, controller).unwrap_or_default();
        let value = fs::read_to_string(format!("{directory}/{name}"));
        view.insert((*file).to_owned(), value.map_or_else(|e| e.to_string(), |text| text.trim_end().to_owned()));
    }
    view
}

/// Starts a container with these resources and reads these files.
fn look(instance: &Instance, resources: &Value, files: &[&str]) -> View {
    look_at(instance, &limited(resources), files)
}

fn limited(resources: &Value) -> Bundle {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["resources"] = resources.clone();
    bundle
}

fn look_at(instance: &Instance, bundle: &Bundle, files: &[&str]) -> View {
    let id = instance.id("limits");
    let ran = instance.make(bundle, &id, "create", &[]);
    let mut view = View::from([("exit".to_owned(), format!("{:?}", ran.code))]);
    if ran.code == Some(0) {
        view.extend(values(instance.pid(&id), files));
    } else {
        view.insert("~why".to_owned(), instance.explain(&ran));
    }
    view
}

fn same_values(resources: &Value, files: &[&str]) {
    same(|instance| look(instance, resources, files));
}

const MEMORY: [&str; 6] = [
    "memory/memory.limit_in_bytes",
    "memory/memory.soft_limit_in_bytes",
    "memory/memory.memsw.limit_in_bytes",
    "memory/memory.kmem.tcp.limit_in_bytes",
    "memory/memory.swappiness",
    "memory/memory.oom_control",
];

#[test]
fn conformance_resources_memory() {
    same_values(&json!({ "memory": { "limit": 64 << 20, "reservation": 32 << 20 } }), &MEMORY[..2]);
    same_values(&json!({ "memory": { "limit": 64 << 20, "swappiness": 10 } }), &["memory/memory.swappiness"]);
    same_values(&json!({ "memory": { "limit": -1 } }), &MEMORY[..2]);
    same_values(&json!({ "memory": { "limit": 64 << 20, "swap": 128 << 20 } }), &MEMORY[..3]);
    same_values(&json!({ "memory": { "limit": 64 << 20, "swap": 32 << 20 } }), &MEMORY[..3]);
    same_values(&json!({ "memory": { "limit": 64 << 20, "disableOOMKiller": true } }), &["memory/memory.oom_control"]);
    same_values(&json!({ "memory": { "limit": 64 << 20, "kernelTCP": 16 << 20 } }), &MEMORY[..4]);
    same_values(&json!({ "memory": { "limit": 64 << 20, "kernel": 32 << 20 } }), &MEMORY[..1]);
    same_values(&json!({ "memory": { "limit": 64 << 20, "useHierarchy": true } }), &MEMORY[..1]);
}

#[test]
fn conformance_resources_cpu() {
    let files =
        ["cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpuset/cpuset.cpus", "cpuset/cpuset.mems"];
    same_values(
        &json!({ "cpu": { "shares": 512, "quota": 50000, "period": 100_000, "cpus": "0-1", "mems": "0" } }),
        &files,
    );
    same_values(&json!({ "cpu": { "shares": 2 } }), &files[..1]);
    same_values(&json!({ "cpu": { "shares": 1 } }), &files[..1]);
    same_values(&json!({ "cpu": { "quota": -1, "period": 50000 } }), &files[1..3]);
    same_values(&json!({ "cpu": { "quota": 20000 } }), &files[1..3]);
    same_values(&json!({ "cpu": { "quota": 10 } }), &files[1..3]);
    same_values(&json!({ "cpu": { "cpus": "0" } }), &files[3..]);
    same_values(&json!({ "cpu": { "cpus": "999" } }), &files[3..]);
    let real_time = ["cpu/cpu.rt_runtime_us", "cpu/cpu.rt_period_us"];
    same_values(&json!({ "cpu": { "realtimeRuntime": 20_000, "realtimePeriod": 500_000 } }), &real_time);
    same_values(&json!({ "cpu": { "realtimeRuntime": 20_000 } }), &real_time);
    same_values(&json!({ "cpu": { "realtimePeriod": 2_000_000 } }), &real_time);
    same_values(&json!({ "cpu": { "realtimeRuntime": 900_000, "realtimePeriod": 800_000 } }), &real_time);
}

#[test]
fn conformance_resources_pids() {
    // Documents of older versions mean no limit by 0.
    for limit in [10, -1, 0] {
        same_values(&json!({ "pids": { "limit": limit } }), &["pids/pids.max"]);
    }
    // Since specification 1.3 it is a limit as any other.
    same_but(&[known("pids/pids.max", "1", "D-pids-zero")], |instance| {
        let mut bundle = limited(&json!({ "pids": { "limit": 0 } }));
        bundle.config["ociVersion"] = json!("1.3.0");
        look_at(instance, &bundle, &["pids/pids.max"])
    });
}

#[test]
fn conformance_resources_pids_limit_holds() {
    // The shell itself and two more; it ends with an error when it cannot fork.
    same_output("sleep 1000 & sleep 1000 & echo three; sleep 1000 & echo four", |bundle| {
        bundle.config["linux"]["resources"] = json!({ "pids": { "limit": 3 } });
    });
}

#[test]
fn conformance_resources_block_io() {
    let files = [
        "blkio/blkio.throttle.read_bps_device",
        "blkio/blkio.throttle.write_bps_device",
        "blkio/blkio.throttle.read_iops_device",
        "blkio/blkio.throttle.write_iops_device",
    ];
    let rate =
        |rate: u64| json!([{ "major": 7, "minor": 0, "rate": rate }, { "major": 7, "minor": 1, "rate": rate + 1 }]);
    same_values(
        &json!({ "blockIO": { "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(77), "throttleWriteIOPSDevice": rate(88) } }),
        &files,
    );
    // Where the kernel has but the weights of BFQ.
    same_values(&json!({ "blockIO": { "weight": 500 } }), &["blkio/blkio.weight", "blkio/blkio.bfq.weight"]);
    same_values(&json!({ "blockIO": { "weight": 5 } }), &["blkio/blkio.weight"]);
    const LEFT_OUT: [Known; 2] =
        [known("exit", "Some(0)", "D-io-weight"), known("blkio/blkio.bfq.weight", "100", "D-io-weight")];
    for weight in [
        json!({ "leafWeight": 300 }),
        // No scheduler of this device has weights.
        json!({ "weightDevice": [{ "major": 7, "minor": 7, "weight": 300 }] }),
    ] {
        same_but(&LEFT_OUT, |instance| look(instance, &json!({ "blockIO": weight }), &["blkio/blkio.bfq.weight"]));
    }
}

#[test]
fn conformance_resources_of_controllers_that_are_missing() {
    same_values(&json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }), &[]);
    same_values(&json!({ "network": { "classID": 0x10_0001 } }), &[]);
    same_values(&json!({ "network": { "priorities": [{ "name": "lo", "priority": 5 }] } }), &[]);
    same_values(&json!({ "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 100 } } }), &[]);
    same_values(&json!({ "unified": { "memory.max": "1000000" } }), &[]);
}

#[test]
fn conformance_cgroups_path_absolute_is_used_below_each_hierarchy() {
    same(|instance| {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        let path = format!("/{}/inner", instance.id("parent"));
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        bundle.config["linux"]["resources"] = json!({ "pids": { "limit": 7 }, "memory": { "limit": 64 << 20 } });
        let id = instance.id("path");
        instance.create(&bundle, &id);
        let pid = instance.pid(&id);
        let seen = ["pids", "memory"].map(|controller| {
            let directory = cgroup_of(pid, controller).unwrap_or_default();
            (format!("below {controller}"), directory.ends_with(&path).to_string())
        });
        let mut view = View::from(seen);
        instance.ok(&["start", &id]);
        instance.ok(&["delete", "--force", &id]);
        view.insert("own left".to_owned(), instance.cgroups().iter().any(|dir| dir.ends_with("inner")).to_string());
        for dir in instance.cgroups() {
            // The parent is not the runtime's to remove in every runtime; the next test run must not meet it.
            let _ = fs::remove_dir(dir);
        }
        view
    });
}

#[test]
fn conformance_cgroups_path_of_a_strange_form() {
    for form in ["../../ID", "/ID:b/c", "system.slice:onggi:ID"] {
        same(|instance| {
            // The three run side by side, and a group is one container's.
            let name = instance.id("strange");
            let mut bundle = Bundle::script("echo in");
            bundle.config["linux"]["cgroupsPath"] = json!(form.replace("ID", &name));
            let view = probe::look(instance, &bundle);
            for dir in instance.cgroups() {
                // The parent is not the runtime's to remove in every runtime.
                let _ = fs::remove_dir(dir);
            }
            view
        });
    }
}

#[test]
fn conformance_members_that_are_numbers_and_left_out_are_zero() {
    let rule = |rule: Value| {
        same_output("echo ran", move |bundle| {
            let rules = &mut bundle.config["linux"]["resources"]["devices"];
            match rules.as_array_mut() {
                Some(list) => list.push(rule.clone()),
                None => *rules = json!([rule.clone()]),
            }
        });
    };
    rule(json!({ "type": "c", "major": 1, "minor": 3, "access": "r" }));
    // About everything, whatever else it says.
    rule(json!({ "allow": true, "type": "a", "major": -1, "minor": -1, "access": "rw" }));
    rule(json!({ "allow": true, "type": "a", "major": 1, "access": "rwm" }));
    rule(json!({ "allow": true, "access": "rw" }));
    same_output("echo ran", |bundle| {
        let filter = json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{ "op": "SCMP_CMP_EQ" }] });
        bundle.config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [filter] });
    });
    same_output("echo ran", |bundle| bundle.config["process"]["consoleSize"] = json!({}));
}

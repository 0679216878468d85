//! Namespaces that are joined, user namespaces of every shape, network devices.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::{
    harness::{Bundle, Done},
    mounts::in_user_namespace,
};

fn waiting() -> Bundle {
    let mut b = Bundle::new("sleep 60");
    in_user_namespace(&mut b);
    let started = b.run_detached(&[]);
    assert_eq!(started.code, 0, "{}", started.out);
    b
}

/// A bundle in the user namespace of `other`.
fn joining(other: &Bundle, script: &str) -> Bundle {
    let mut b = Bundle::new(script);
    in_user_namespace(&mut b);
    b.remove_namespace("user");
    b.add_namespace(json!({ "type": "user", "path": format!("/proc/{}/ns/user", other.pid()) }));
    b.config["linux"]["uidMappings"] = Value::Null;
    b.config["linux"]["gidMappings"] = Value::Null;
    b
}

#[test]
fn root_a_user_namespace_is_joined_before_the_others_are_made_in_it() {
    let other = waiting();
    let mut b =
        joining(&other, "readlink /proc/self/ns/user; cat /proc/self/uid_map; ip link set lo mtu 9000 && echo mine");
    for set in ["bounding", "effective", "permitted"] {
        b.config["process"]["capabilities"][set] = json!(["CAP_NET_ADMIN"]);
    }
    let done = b.run();
    let theirs = fs::read_link(format!("/proc/{}/ns/user", other.pid())).unwrap();
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(lines.first().copied(), theirs.to_str(), "{}", done.err);
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(lines.get(2), Some(&"mine"), "the new network namespace belongs to it: {}", done.err);
}

#[test]
fn root_mappings_beside_a_joined_user_namespace_must_be_its_own() {
    let other = waiting();
    let mut b = joining(&other, "id -u");
    let map = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 65_536 }]);
    (b.config["linux"]["uidMappings"], b.config["linux"]["gidMappings"]) = (map(100_000), map(100_000));
    assert_eq!(b.run().out, "0\n");
    b.config["linux"]["uidMappings"] = map(1);
    let done = b.run();
    assert!(done.code != 0 && done.err.contains("not those of the user namespace"), "{}", done.err);
}

#[test]
fn root_a_user_namespace_without_root_runs_its_only_user() {
    let mut b = Bundle::new("id -u; id -g; cat /proc/self/uid_map; sleep 60");
    in_user_namespace(&mut b);
    b.config["linux"]["uidMappings"] = json!([{ "containerID": 1000, "hostID": 100_000, "size": 1 }]);
    b.config["linux"]["gidMappings"] = json!([{ "containerID": 1000, "hostID": 100_000, "size": 1 }]);
    b.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    for mount in b.config["mounts"].as_array_mut().unwrap() {
        mount["options"].as_array_mut().unwrap().retain(|o| o != "gid=5");
    }
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    b.until("output", |b| b.output().lines().count() == 3);
    let out = b.output();
    assert!(out.starts_with("1000\n1000\n"), "{out}");
    assert_eq!(b.exec(&["--user", "1000:1000"], &["id", "-u"]).out, "1000\n");
}

#[test]
fn root_a_path_of_another_kind_of_namespace_is_refused() {
    let mut b = Bundle::new("true");
    b.remove_namespace("network");
    b.add_namespace(json!({ "type": "network", "path": "/proc/self/ns/ipc" }));
    let done = b.run();
    assert!(done.code != 0 && done.err.contains("join network namespace"), "{}", done.err);
}

#[test]
fn root_time_offsets_work_in_a_user_namespace_and_need_a_time_namespace() {
    let mut b = Bundle::new("cat /proc/self/timens_offsets");
    b.config["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 7881, "nanosecs": 2_718_281 } });
    assert!(b.run().code != 0, "offsets without the namespace");
    b.add_namespace(json!({ "type": "time" }));
    in_user_namespace(&mut b);
    let done = b.run();
    let words: Vec<&str> = done.out.split_whitespace().take(3).collect();
    assert_eq!(words, ["monotonic", "7881", "2718281"], "{}", done.err);
}

/// Runs the bundle in a network namespace of the test's own, which has a device `device7`.
fn with_device(b: &Bundle, prepare: &str, after: &str) -> Done {
    b.write_config();
    let script = format!(
        "set -e; ip link add device7 type veth peer name peer7; {prepare}\nset +e; \"$@\"; code=$?; {after}\nexit $code"
    );
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", &script, "sh"]).arg(env!("CARGO_BIN_EXE_onggi-oci"));
    command.arg("--root").arg(b.dir.join("state")).args(["run", "-b"]).arg(&b.dir).arg(&b.id);
    command.output().unwrap().into()
}

#[test]
fn root_network_devices_move_with_their_addresses_and_are_up() {
    for user in [false, true] {
        let mut b = Bundle::new("ip address show dev inside");
        b.config["linux"]["netDevices"] = json!({ "device7": { "name": "inside" } });
        if user {
            in_user_namespace(&mut b);
        }
        let prepare = "ip link set device7 mtu 1789 address 00:11:22:33:44:55; ip address add 169.254.169.77/32 dev device7; \
            ip address add 10.1.2.3/24 brd 10.1.2.254 dev device7; ip address add 127.0.0.33 dev device7";
        let done = with_device(&b, prepare, "");
        for text in ["mtu 1789", "00:11:22:33:44:55", "169.254.169.77/32", "10.1.2.3/24 brd 10.1.2.254", "UP"] {
            assert!(done.out.contains(text), "{text}: {} {}", done.out, done.err);
        }
        assert!(!done.out.contains("127.0.0.33"), "an address of the host only: {}", done.out);
    }
}

#[test]
fn root_a_network_device_goes_back_when_the_creation_fails() {
    let mut b = Bundle::new("true");
    b.config["linux"]["netDevices"] = json!({ "device7": { "name": "inside" } });
    b.config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    let prepare = "ip address add 10.1.2.3/24 dev device7; ip link set device7 up";
    let done = with_device(&b, prepare, "ip address show dev device7");
    assert_ne!(done.code, 0);
    assert!(done.out.contains("10.1.2.3/24") && done.out.contains("UP"), "{} {}", done.out, done.err);
}

#[test]
fn root_network_devices_that_cannot_move_are_errors() {
    for (devices, text) in [
        (json!({ "device8": {} }), "device8"),
        (json!({ "device7": { "name": "a/b" } }), "invalid network device name"),
        (json!({ "device7": { "name": "lo" } }), "device7"),
    ] {
        let mut b = Bundle::new("true");
        b.config["linux"]["netDevices"] = devices;
        let done = with_device(&b, "true", "ip link show device7 >&2");
        assert!(done.code != 0 && done.err.contains(text), "{text}: {}", done.err);
    }
    let mut b = Bundle::new("true");
    b.config["linux"]["netDevices"] = json!({ "device7": {} });
    b.remove_namespace("network");
    let done = with_device(&b, "true", "");
    assert!(done.err.contains("without a NET namespace"), "{}", done.err);
}

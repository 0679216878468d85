//! Behaviour of crun that callers of it rely on, where runc refuses or knows nothing of it.

use std::{
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Bundle, Done, cgroups_of, field};

/// What cannot be had where only one id is mapped: the group of terminals.
fn with_one_id(b: &mut Bundle) {
    for mount in b.config["mounts"].as_array_mut().unwrap() {
        mount["options"].as_array_mut().unwrap().retain(|o| o != "gid=5");
    }
}

#[test]
fn root_a_user_namespace_without_mappings_has_its_caller_as_root() {
    let mut b = Bundle::new("id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /tmp/mine && echo writes");
    with_one_id(&mut b);
    b.add_namespace(json!({ "type": "user" }));
    let done = b.run();
    let words: Vec<&str> = done.out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "0", "1", "0", "0", "1", "writes"], "{}", done.err);
    // Of two containers the second joins; its mount has no type, which is optional.
    b.args(&["sleep", "60"]);
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    let mut other = Bundle::new("readlink /proc/self/ns/user; ls /etc/file");
    with_one_id(&mut other);
    other.add_namespace(json!({ "type": "user", "path": format!("/proc/{}/ns/user", b.pid()) }));
    other.add_mount(json!({ "destination": "/etc/file", "source": "/etc/hostname", "options": ["bind", "ro"] }));
    let done = other.run();
    let joined = std::fs::read_link(format!("/proc/{}/ns/user", b.pid())).unwrap();
    assert_eq!(done.out, format!("{}\n/etc/file\n", joined.display()), "{}", done.err);
}

/// With these supplementary groups.
fn in_groups(b: &Bundle, words: &[&str]) -> Command {
    b.write_config();
    let oci = b.oci(words);
    let mut command = Command::new("setpriv");
    command.args(["--groups", "7,8"]).arg(oci.get_program()).args(oci.get_args()).current_dir(&b.dir);
    command.stdin(Stdio::null());
    command
}

/// A created container keeps the streams.
fn creates(mut command: Command) {
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
}

#[test]
fn root_the_callers_groups_stay_when_the_annotation_says_so() {
    let script = "exec sleep 60";
    for (annotations, expected) in [
        (json!({}), ""),
        (json!({ "run.oci.keep_original_groups": "0" }), ""),
        (json!({ "run.oci.keep_original_groups": "1" }), "7 8"),
    ] {
        let mut b = Bundle::new(script);
        b.config["annotations"] = annotations;
        creates(in_groups(&b, &["create", &b.id]));
        assert_eq!(b.verb("start", &[]).code, 0);
        let mut exec = in_groups(&b, &["exec", &b.id, "cat", "/proc/1/status", "/proc/self/status"]);
        let entered: Done = exec.output().unwrap().into();
        for status in entered.out.split("Name:").skip(1) {
            assert_eq!(field(status, "Groups"), expected, "{}", entered.err);
        }
    }
}

#[test]
fn root_a_bundle_is_named_as_its_caller_names_it() {
    let mut b = Bundle::new("true");
    let link = b.dir.join("link");
    symlink(".", &link).unwrap();
    let hook = |kind: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat > {kind}.state")] }]);
    b.config["hooks"] = json!({ "createRuntime": hook("createRuntime"), "poststop": hook("poststop") });
    b.write_config();
    creates(b.oci(&["create", "--bundle", link.to_str().unwrap(), &b.id]));
    let bundle = |text: &str| serde_json::from_str::<Value>(text).unwrap()["bundle"].as_str().unwrap().to_owned();
    assert_eq!(bundle(&b.verb("state", &[]).out), link.display().to_string());
    assert_eq!(b.verb("start", &[]).code, 0);
    b.until("stopped", |b| b.status() == "stopped");
    assert_eq!(b.verb("delete", &[]).code, 0);
    for kind in ["createRuntime", "poststop"] {
        let state = std::fs::read_to_string(b.dir.join(format!("{kind}.state"))).unwrap();
        assert_eq!(bundle(&state), link.display().to_string());
    }
    // What `..` means depends on links; such a name is followed.
    let up = b.dir.join("rootfs/..");
    creates(b.oci(&["create", "--bundle", up.to_str().unwrap(), &b.id]));
    assert_eq!(bundle(&b.verb("state", &[]).out), b.dir.canonicalize().unwrap().display().to_string());
}

#[test]
fn root_without_a_cgroup_manager_the_container_stays_in_its_callers_groups() {
    let mut b = Bundle::new("cat /proc/self/cgroup; sleep 60");
    b.remove_namespace("cgroup");
    b.config["linux"]["cgroupsPath"] = json!(format!("/{}", b.id));
    b.write_config();
    let bundle = b.dir.to_str().unwrap();
    let run = |manager: &str| {
        let out = std::fs::File::create(b.dir.join("out")).unwrap();
        let mut command = b.oci(&["--cgroup-manager", manager, "run", "-d", "-b", bundle, &b.id]);
        command.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap().success()
    };
    assert!(!run("nosuch") && b.output().contains("unknown cgroup manager"), "{}", b.output());
    assert!(run("disabled"), "{}", b.output());
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    b.until("output", |b| b.output() == own);
    assert!(cgroups_of(&b.id).is_empty());
    assert_eq!(b.exec(&[], &["cat", "/proc/self/cgroup"]).out, own);
    assert_eq!(b.verb("delete", &["--force"]).code, 0);
    b.config["linux"]["resources"] = json!({ "pids": { "limit": 10 } });
    b.write_config();
    let done: Done = b.oci(&["--cgroup-manager", "disabled", "run", "-b", bundle, &b.id]).output().unwrap().into();
    assert!(done.code == 1 && done.err.contains("needs a cgroup"), "{}", done.err);
}

#[test]
fn root_a_program_on_a_noexec_mount_is_told_by_create() {
    let mut b = Bundle::new("true");
    let volume = b.dir.join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::copy("/bin/busybox", volume.join("true")).unwrap();
    b.add_mount(json!({ "destination": "/vol", "source": volume, "type": "bind", "options": ["bind", "noexec"] }));
    b.args(&["/vol/true"]);
    let done = b.create();
    assert!(done.code == 1 && done.err.contains("exec: \"/vol/true\": permission denied"), "{}", done.err);
    assert_eq!(b.status(), "absent");
}

#[test]
fn root_sysctls_that_lead_elsewhere_are_invalid_paths() {
    for key in ["net/../kernel/sysrq", "net/..//kernel/sysrq", "/net/ipv4/ip_forward", ".net.ipv4.ip_forward"] {
        let mut b = Bundle::new("true");
        b.config["linux"]["sysctl"] = json!({ key: "1" });
        let done = b.run();
        assert!(done.code == 1 && done.err.contains("contains an invalid path"), "{key}: {}", done.err);
    }
}

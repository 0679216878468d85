//! Behaviour that the public suites of other runtimes ask for and nothing else here covers.

use std::{fs, os::unix::fs::MetadataExt, process::Command};

use serde_json::{Value, json};

use crate::{
    harness::{Bundle, Done},
    mounts::in_user_namespace,
};

/// Runs a script in a mount namespace of its own: `$OCI` is the runtime with its state root, `$B` the bundle, `$ID`
/// the container.
fn private_script(b: &Bundle, script: &str) -> Done {
    b.write_config();
    let oci = format!("{} --root {}", env!("CARGO_BIN_EXE_onggi-oci"), b.dir.join("state").display());
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script]);
    command.env("OCI", oci).env("B", &b.dir).env("ID", &b.id).current_dir(&b.dir);
    command.output().unwrap().into()
}

fn without_mount_namespace(script: &str) -> Bundle {
    let mut b = Bundle::new(script);
    b.remove_namespace("mount");
    b.config["linux"]["maskedPaths"] = json!([]);
    b.config["linux"]["readonlyPaths"] = json!([]);
    b
}

#[test]
fn root_without_a_mount_namespace_the_root_is_entered_by_chroot() {
    let mut b = without_mount_namespace("ls -d /bin/sh /proc/self /dev/null; readlink /proc/self/ns/mnt; sleep 60");
    b.config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", "touch hook.ran"] }] });
    let script = "count() { wc -l < /proc/self/mountinfo; }
        before=$(count); readlink /proc/self/ns/mnt
        $OCI run -d -b $B $ID > out 2>&1 || cat out >&2
        until grep -q mnt out; do sleep 0.05; done; cat out
        $OCI exec $ID ls /bin/busybox
        $OCI delete -f $ID && test $(count) = $before && echo clean";
    let done = private_script(&b, script);
    let lines: Vec<&str> = done.out.lines().collect();
    let [own, rest @ ..] = &lines[..] else { panic!("{} {}", done.out, done.err) };
    assert_eq!(rest, ["/bin/sh", "/dev/null", "/proc/self", own, "/bin/busybox", "clean"], "{}", done.err);
    assert!(b.dir.join("hook.ran").exists());
}

/// Everything is the caller's, but for the root filesystem.
#[test]
fn root_without_a_linux_section_no_namespace_is_new() {
    let mut b = Bundle::new("for n in mnt pid net uts ipc; do readlink /proc/self/ns/$n; done; ls -d /bin /dev/null");
    for field in ["linux", "hostname"] {
        b.config.as_object_mut().unwrap().remove(field);
    }
    b.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] == "proc");
    let script = "for n in mnt pid net uts ipc; do readlink /proc/self/ns/$n; done; $OCI run -b $B $ID";
    let done = private_script(&b, script);
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(lines.len() == 12 && lines[..5] == lines[5..10], "{} {}", done.out, done.err);
    assert_eq!(lines[10..], ["/bin", "/dev/null"]);
}

#[test]
fn root_without_a_mount_namespace_a_failed_create_leaves_no_mount() {
    let mut b = without_mount_namespace("true");
    b.config["hooks"] = json!({ "createContainer": [{ "path": "/bin/false" }] });
    let script = "before=$(wc -l < /proc/self/mountinfo); $OCI run -b $B $ID; echo $?
        test $(wc -l < /proc/self/mountinfo) = $before && echo clean";
    let done = private_script(&b, script);
    assert_eq!(done.out, "1\nclean\n", "{}", done.err);
}

#[test]
fn root_without_a_mount_namespace_nothing_can_be_masked() {
    let mut b = Bundle::new("true");
    b.remove_namespace("mount");
    let done = b.run();
    assert_eq!(done.code, 1);
    assert!(done.err.contains("unable to restrict sys entries without a private MNT namespace"), "{}", done.err);
    let mut b = without_mount_namespace("true");
    in_user_namespace(&mut b);
    assert!(b.run().err.contains("no mount namespace"));
}

#[test]
fn root_without_pivoting_no_bare_proc_is_left() {
    let mut b = Bundle::new("unshare -mrpf sh -c 'mount -t proc none /proc && echo bare'");
    std::os::unix::fs::symlink("busybox", b.root().join("bin/unshare")).unwrap();
    let sysfs = b.config["mounts"].as_array().unwrap().iter().any(|m| m["type"] == "sysfs");
    assert!(sysfs, "the bundle has both");
    for set in ["bounding", "effective", "permitted"] {
        b.config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
    }
    let done = b.run_with(&["--no-pivot"]);
    assert!(done.code == 1 && done.err.contains("permission denied"), "{} {}", done.out, done.err);
    assert!(!done.out.contains("bare"), "{}", done.out);
}

#[test]
fn root_without_pivoting_the_hosts_root_mount_stays_one() {
    let mut b = Bundle::new("true");
    b.config["linux"]["rootfsPropagation"] = json!("rshared");
    let script = "mount --make-rshared /; mount --bind rootfs rootfs
        roots() { awk '$5 == \"/\"' /proc/self/mountinfo | wc -l; }
        before=$(roots); $OCI run --no-pivot -b $B $ID; echo $? $(( $(roots) - before ))";
    let done = private_script(&b, script);
    assert_eq!(done.out, "0 0\n", "{}", done.err);
}

#[test]
fn root_streams_on_the_hosts_null_become_the_containers() {
    let b = Bundle::new(
        "for f in /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2 /dev/null; do d=$(stat -L -c %d $f); echo $d >> /tmp/devices; done",
    );
    b.write_config();
    let mut command = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
    let null = || fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    assert!(command.stdout(null()).stderr(null()).status().unwrap().success());
    let devices = fs::read_to_string(b.root().join("tmp/devices")).unwrap();
    let lines: Vec<&str> = devices.lines().collect();
    assert!(lines.len() == 4 && lines.iter().all(|l| *l == lines[3]), "{devices}");
    let host = fs::metadata("/dev/null").unwrap().dev().to_string();
    assert_ne!(lines[0], host, "of the container's own /dev");
}

#[test]
fn root_options_of_a_filesystem_may_be_longer_than_one_string() {
    let long = "l".repeat(200);
    let mut b = Bundle::new("ls /mnt; ls /other; grep ' /other ' /proc/mounts");
    let dir = |name: &str| {
        let at = b.dir.join(name);
        fs::create_dir_all(&at).unwrap();
        at.display().to_string()
    };
    let layer = |n: u32| {
        let at = dir(&format!("{long}{n}"));
        fs::write(format!("{at}/file{n}"), "").unwrap();
        at
    };
    let lower = format!("lowerdir={}:{}", layer(1), layer(2));
    let deep = dir(&format!("{}/{long}/up", "d".repeat(100)));
    let work = dir(&format!("{}/{long}/work", "d".repeat(100)));
    let overlay = |at: &str, options: &[&str]| json!({ "destination": at, "type": "overlay", "source": "overlay", "options": options });
    let (up, wk) = (dir("up"), dir("wk"));
    let mounts = [
        overlay("/mnt", &[&lower, &format!("upperdir={up}"), &format!("workdir={wk}")]),
        overlay(
            "/other",
            &[&format!("lowerdir={}", layer(3)), &format!("upperdir={deep}"), &format!("workdir={work}"), "ro"],
        ),
    ];
    mounts.into_iter().for_each(|m| b.add_mount(m));
    let done = b.run();
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(lines.get(..3), Some(&["file1", "file2", "file3"][..]), "{} {}", done.out, done.err);
    assert!(lines[3].starts_with("overlay /other overlay ro,"), "{}", lines[3]);
}

#[test]
fn root_a_failed_mount_names_source_and_destination() {
    let mut b = Bundle::new("true");
    b.add_mount(json!({ "destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"] }));
    let done = b.run();
    assert!(done.err.contains("error mounting \"/no/such\" to rootfs at \"/x\": "), "{}", done.err);
    let mut b = Bundle::new("true");
    b.add_mount(json!({ "destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["nosuchoption=1"] }));
    let done = b.run();
    assert!(done.err.contains("error mounting \"tmpfs\" to rootfs at \"/x\": "), "{}", done.err);
}

#[test]
fn root_message_queues_belong_to_the_containers_root() {
    let mut b = Bundle::new("stat -c %u:%g:%a /dev/mqueue");
    b.add_mount(json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue" }));
    in_user_namespace(&mut b);
    let done = b.run();
    assert_eq!(done.out, "0:0:1777\n", "{}", done.err);
}

#[test]
fn root_exec_sets_limits_in_a_user_namespace() {
    let mut b = Bundle::new("sleep 60");
    in_user_namespace(&mut b);
    b.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 500, "hard": 500 }]);
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    assert_eq!(b.exec(&[], &["sh", "-c", "ulimit -n"]).out, "500\n");
    // More than the container's own processes have.
    let process = json!({ "args": ["sh", "-c", "ulimit -Hn"], "cwd": "/", "env": ["PATH=/bin"],
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 600, "hard": 900 }] });
    let file = b.dir.join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    let done: Done = b.oci(&["exec", "-p", file.to_str().unwrap(), &b.id]).output().unwrap().into();
    assert_eq!(done.out, "900\n", "{}", done.err);
}

#[test]
fn root_debug_tells_filter_flags_and_affinity() {
    let mut b = Bundle::new("sleep 60");
    b.config["linux"]["seccomp"] =
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"] });
    b.config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
    b.write_config();
    let log = b.dir.join("log");
    let debug = |args: &[&str]| {
        let mut all = vec!["--debug", "--log", log.to_str().unwrap()];
        all.extend(args);
        // The created container keeps the streams: a pipe would not end.
        let null = std::process::Stdio::null;
        assert!(b.oci(&all).stdout(null()).stderr(null()).status().unwrap().success());
        fs::read_to_string(&log).unwrap()
    };
    let lines = debug(&["create", "-b", b.dir.to_str().unwrap(), &b.id]);
    assert!(lines.contains("msg=\"seccomp filter flags: 2\""), "{lines}");
    let lines = debug(&["exec", &b.id, "true"]);
    assert!(lines.contains("nsexec-0[") && lines.contains("]: affinity: 0x1\""), "{lines}");
}

#[test]
fn root_checkpoint_and_restore_say_what_is_missing() {
    let b = Bundle::new("sleep 60");
    assert!(b.verb("checkpoint", &[]).err.contains("container does not exist"));
    assert_eq!(b.run_detached(&[]).code, 0);
    for verb in ["checkpoint", "restore"] {
        let done: Done = b.oci(&[verb, "--image-path", "/nowhere", &b.id]).output().unwrap().into();
        assert!(done.code == 1 && done.err.contains("CRIU is not supported"), "{}", done.err);
    }
    assert_eq!(b.status(), "running");
}

#[test]
fn root_a_limit_of_one_process_leaves_room_to_join_namespaces() {
    let other = Bundle::new("sleep 60");
    assert_eq!(other.run_detached(&[]).code, 0);
    for limit in [0, 1] {
        let mut b = Bundle::new("echo alone; true & echo two");
        b.config["ociVersion"] = json!("1.3.0");
        b.remove_namespace("pid");
        b.add_namespace(json!({ "type": "pid", "path": format!("/proc/{}/ns/pid", other.pid()) }));
        b.config["linux"]["resources"] = json!({ "pids": { "limit": limit } });
        let done = b.run();
        assert_eq!(done.out, "alone\n", "{}", done.err);
        assert!(done.err.contains("fork"), "the limit holds: {}", done.err);
    }
}

#[test]
fn root_rootless_true_goes_without_cgroups_that_cannot_be_made() {
    let mut b = Bundle::new("true");
    let script = |flag: &str| {
        format!(
            "awk '$0 ~ / - cgroup2? / {{ print $5 }}' /proc/self/mountinfo | while read at; do
                mount -o remount,bind,ro $at
            done
            $OCI {flag} run -b $B $ID; echo $?"
        )
    };
    assert_eq!(private_script(&b, &script("--rootless true")).out, "0\n");
    for flag in ["", "--rootless false"] {
        let done = private_script(&b, &script(flag));
        assert!(done.out == "1\n" && done.err.contains("read-only file system"), "{flag}: {}", done.err);
    }
    b.config["linux"]["resources"] = json!({ "pids": { "limit": 20 } });
    let done = private_script(&b, &script("--rootless true"));
    assert!(done.err.contains("rootless needs no limits"), "{}", done.err);
    b.config["linux"]["resources"] = Value::Null;
    b.config["linux"]["cgroupsPath"] = json!("/some/group");
    let done = private_script(&b, &script("--rootless true"));
    assert!(done.err.contains("unable to apply cgroup configuration"), "{}", done.err);
}

#[test]
fn root_a_group_in_use_is_never_recorded_as_the_containers() {
    let other = Bundle::new("sleep 60");
    assert_eq!(other.run_detached(&[]).code, 0);
    let mut b = Bundle::new("true");
    // The other container's own group.
    b.config["linux"]["cgroupsPath"] = json!(other.id);
    b.write_config();
    let done = b.run();
    assert!(done.code == 1 && done.err.contains("is not empty: 1 process"), "{}", done.err);
    assert_eq!(b.verb("delete", &["-f"]).code, 0);
    assert_eq!(other.status(), "running");
}

#[test]
fn root_a_start_container_hook_without_environment_has_that_of_the_process() {
    let mut b = Bundle::new("true");
    let hook = |script: &str| json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    b.config["process"]["env"] = json!(["PATH=/bin", "ONE=two"]);
    b.config["hooks"] = json!({ "startContainer": [hook("test $ONE = two && test -n \"$HOME\"")] });
    let done = b.run();
    assert_eq!(done.code, 0, "{}", done.err);
    let mut own = hook("test $ONLY = this && test -z \"$ONE\"");
    own["env"] = json!(["ONLY=this", "PATH=/bin"]);
    b.config["hooks"] = json!({ "startContainer": [own] });
    let done = b.run();
    assert_eq!(done.code, 0, "{}", done.err);
    b.config["hooks"] = json!({ "startContainer": [hook("kill -31 $$")] });
    let done = b.run();
    assert!(done.err.contains("error running startContainer hook #0: ") && done.err.contains("bad system call"));
}

#[test]
fn root_a_device_path_that_is_taken_must_be_that_device() {
    let mut b = Bundle::new("ls -l /data/null");
    b.config["linux"]["devices"] = json!([{ "path": "/data/null", "type": "c", "major": 1, "minor": 3 }]);
    let data = b.root().join("data");
    fs::create_dir(&data).unwrap();
    let node = |minor: &str| {
        let done = Command::new("mknod").arg(data.join("null")).args(["c", "1", minor]).status().unwrap();
        assert!(done.success());
    };
    node("3");
    assert_eq!(b.run().code, 0);
    fs::remove_file(data.join("null")).unwrap();
    node("5");
    let done = b.run();
    let text = "/data/null has incorrect major:minor: 1:5 doesn't match expected 1:3";
    assert!(done.code == 1 && done.err.contains(text), "{}", done.err);
    fs::remove_file(data.join("null")).unwrap();
    fs::write(data.join("null"), "").unwrap();
    assert!(b.run().err.contains("/data/null has incorrect ftype"));
}

#[test]
fn root_ambient_capabilities_that_cannot_be_are_one_warning() {
    let mut b = Bundle::new("grep CapAmb /proc/self/status");
    let caps = &mut b.config["process"]["capabilities"];
    caps["inheritable"] = json!(["CAP_KILL"]);
    caps["ambient"] = json!(["CAP_KILL", "CAP_CHOWN"]);
    let done = b.run();
    assert_eq!(done.out, "CapAmb:\t0000000000000020\n", "{}", done.err);
    assert!(done.err.contains("can't raise ambient capability CAP_CHOWN: "), "{}", done.err);

    // As Buildah writes it: no inheritable ones at all. Root has them all the same, another user has not.
    let mut b = Bundle::new("grep CapPrm /proc/self/status");
    let two = json!(["CAP_KILL", "CAP_CHOWN"]);
    b.config["process"]["capabilities"] =
        json!({ "bounding": two, "effective": two, "permitted": two, "ambient": two });
    let done = b.run();
    assert_eq!((done.out.as_str(), done.err.as_str()), ("CapPrm:\t0000000000000021\n", ""));
    b.config["process"]["user"]["uid"] = json!(1000);
    let done = b.run();
    assert_eq!(done.out, "CapPrm:\t0000000000000000\n", "{}", done.err);
    assert!(done.err.contains("can't raise ambient capability CAP_CHOWN, CAP_KILL: "), "{}", done.err);
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
}

#[test]
fn root_failures_of_the_containers_process_have_runcs_words() {
    let mut b = Bundle::new("true");
    b.args(&["no-such-program"]);
    let done = b.run();
    assert!(done.err.contains(" run failed: unable to start container process: exec: \"no-such-program\": "));
    let mut b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let done = b.exec(&["--cwd", "/none"], &["true"]);
    assert!(done.err.contains("exec failed: unable to start container process: chdir to cwd"), "{}", done.err);
    b.config["linux"]["cgroupsPath"] = json!(b.id);
    let mut failing = Bundle::new("true");
    failing.add_mount(json!({ "destination": "/x", "type": "bind", "source": "/none", "options": ["bind"] }));
    let words = "unable to start container process: error during container init: error mounting \"/none\"";
    for user in [false, true] {
        if user {
            in_user_namespace(&mut failing);
        }
        let done = failing.run();
        assert!(done.err.contains(words), "{}", done.err);
    }
}

/// On a machine with a version 2 hierarchy beside the others too.
#[test]
fn root_exec_follows_an_init_whose_group_is_gone() {
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let pid = b.pid().to_string();
    let mount = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].into_iter().map(std::path::PathBuf::from);
    let mount = mount.into_iter().find(|m| m.join("cgroup.procs").exists()).expect("a version 2 hierarchy");
    let path = |who: &str| {
        let text = fs::read_to_string(format!("/proc/{who}/cgroup")).unwrap();
        text.lines().find_map(|l| l.strip_prefix("0::/")).unwrap().to_owned()
    };
    let (own, other) = (mount.join(path(&pid)), mount.join(format!("{}-moved", b.id)));
    assert!(own.ends_with(&b.id), "{}", own.display());
    fs::create_dir(&other).unwrap();
    fs::write(other.join("cgroup.procs"), &pid).unwrap();
    fs::remove_dir(&own).unwrap();
    let process = b.spawn_exec(&["sleep", "60"]);
    b.until("the process is there", |_| fs::read_to_string(other.join("cgroup.procs")).unwrap().lines().count() == 2);
    assert_eq!(b.verb("delete", &["-f"]).code, 0);
    let mut process = process;
    process.wait().unwrap();
    b.until("the group is empty", |_| fs::remove_dir(&other).is_ok());
}

#[test]
fn root_a_hook_without_environment_has_the_runtimes() {
    for stage in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let mut b = Bundle::new("true");
        let record = |to: &str| format!("env > {}", b.dir.join(to).display());
        let hook = |to: &str| json!({ "path": "/bin/sh", "args": ["sh", "-c", record(to)] });
        let (without, mut empty) = (hook("inherited"), hook("empty"));
        empty["env"] = json!([]);
        b.config["hooks"] = json!({ stage: [without, empty] });
        b.write_config();
        let bundle = b.dir.to_str().unwrap();
        let done: Done = b.oci(&["run", "-b", bundle, &b.id]).env("MARK", "of the caller").output().unwrap().into();
        assert_eq!(done.code, 0, "{stage}: {}", done.err);
        let read = |name: &str| fs::read_to_string(b.dir.join(name)).unwrap();
        assert!(read("inherited").contains("MARK=of the caller"), "{stage}: {}", read("inherited"));
        assert!(!read("empty").contains("MARK"), "{stage}");
    }
}

#[test]
fn root_an_id_that_is_not_one_is_told_by_its_character() {
    let b = Bundle::new("true");
    b.write_config();
    let done: Done = b.oci(&["run", "-b", b.dir.to_str().unwrap(), "this/is/not"]).output().unwrap().into();
    assert!(done.code == 1 && done.err.contains("invalid container ID format"), "{}", done.err);
    assert!(done.err.contains("invalid character '/'"), "{}", done.err);
}

#[test]
fn root_an_empty_signal_is_none_and_spec_names_the_file_that_is_there() {
    let b = Bundle::new("trap 'echo term; exit 0' TERM; while :; do sleep 0.05; done");
    let script = "$OCI run -d -b $B $ID > out; sleep 0.5; $OCI kill $ID ''; echo $?
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -s out ] && break; sleep 0.1; done
        cat out; $OCI delete -f $ID; $OCI spec";
    let done = private_script(&b, script);
    assert_eq!(done.out, "0\nterm\n", "{}", done.err);
    assert!(done.err.contains("File config.json exists. Remove it first"), "{}", done.err);
}

#[test]
fn root_the_root_itself_can_be_a_read_only_path() {
    let mut b = Bundle::new("touch /new || echo refused; touch /dev/new && echo written");
    b.config["linux"]["readonlyPaths"] = json!(["/"]);
    let done = b.run();
    assert_eq!(done.out, "refused\nwritten\n", "{}", done.err);
}

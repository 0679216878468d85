//! Ordinary users, mounts with mapped owners, time namespaces: what only one of the other two knows, or only the
//! specification.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use onggi_tests::{Bundle, Instance, Runtime, isolated};
use serde_json::json;

use crate::{
    compare::same,
    lifecycle::Steps,
    probe::{self, View},
};

const UID: u32 = 54_321;

/// `run` by an ordinary user. crun 1.8 refuses the hybrid layout, so it gets a machine without its second version.
fn run_as_user(instance: &Instance, bundle: &Bundle, id: &str) -> onggi_tests::Ran {
    bundle.write();
    let home = instance.dir().join("home");
    fs::create_dir(&home).expect("make a directory");
    for at in [&home, bundle.path()] {
        let done = Command::new("chown").args(["-hR", &format!("{UID}:{UID}")]).arg(at).status().expect("start chown");
        assert!(done.success());
    }
    // The program must be where an ordinary user reaches it.
    let program = home.join("runtime");
    fs::copy(instance.runtime().program(), &program).expect("copy the runtime");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let hide = "[ ! -e /sys/fs/cgroup/unified/cgroup.procs ] || umount /sys/fs/cgroup/unified; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", if instance.runtime() == Runtime::Crun { hide } else { "exec \"$@\"" }, "sh"]);
    let uid = UID.to_string();
    command.args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"]).arg(&program);
    command.arg("--root").arg(home.join("state")).args(["run", "--bundle"]).arg(bundle.path()).arg(id);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", &home).env("XDG_RUNTIME_DIR", &home);
    command.stdin(Stdio::null());
    instance.finish(&mut command)
}

#[test]
fn conformance_linux_user_mappings_of_an_ordinary_user() {
    same(|instance| {
        let script = "echo == maps; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; \
            echo == id; id -u; id -g; \
            echo == caps; grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status; \
            echo == namespaces; for n in ipc mnt pid user uts; do readlink /proc/self/ns/$n | cut -d: -f1; done; \
            echo == files; touch /tmp/file && stat -c %u:%g /tmp/file / /proc /dev/null; \
            echo == root; mount -t tmpfs t /mnt 2>&1 | head -1; hostname; echo == end";
        let mut bundle = Bundle::script(script);
        bundle.namespace(json!({ "type": "user" }));
        bundle.without_namespace("network");
        let map = json!([{ "containerID": 0, "hostID": UID, "size": 1 }]);
        bundle.config["linux"]["uidMappings"] = map.clone();
        bundle.config["linux"]["gidMappings"] = map;
        // What an unmapped group owns cannot be asked for, and a sysfs needs a network namespace of one's own.
        let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["destination"] != "/sys" && mount["destination"] != "/dev/mqueue");
        for mount in mounts.iter_mut().filter(|mount| mount["destination"] == "/dev/pts") {
            mount["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
        }
        bundle.config["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
        let id = instance.id("user");
        let ran = run_as_user(instance, &bundle, &id);
        let mut view: View = probe::parse(&ran.stdout, &bundle, &id);
        view.insert("exit".to_owned(), format!("{:?}", ran.code));
        view.insert("~why".to_owned(), ran.stderr);
        view
    });
}

/// No group is the user's: a mount of them shows those that it is in, and nothing of them can be changed.
#[test]
fn conformance_mounts_cgroup_of_an_ordinary_user() {
    same(|instance| {
        let script = "echo == groups; for c in cpu memory pids; do cd /sys/fs/cgroup/$c 2>&1 && ls | grep -c -E '^(tasks|cgroup.procs)$'; \
            mkdir inner 2>/dev/null || echo refused; done; echo == end";
        let mut bundle = Bundle::script(script);
        bundle.namespace(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": UID, "size": 1 }]);
        bundle.config["linux"]["uidMappings"] = map.clone();
        bundle.config["linux"]["gidMappings"] = map;
        let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["destination"] != "/dev/mqueue" && mount["destination"] != "/dev/pts");
        bundle.mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }));
        bundle.config["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
        let id = instance.id("groups");
        let ran = run_as_user(instance, &bundle, &id);
        let mut view: View = probe::parse(&ran.stdout, &bundle, &id);
        view.insert("exit".to_owned(), format!("{:?}", ran.code));
        view.insert("~why".to_owned(), ran.stderr);
        view
    });
}

/// Every id of 1000 to 1009 on disk is one of 0 to 9 in the mount, and the other way round.
#[test]
fn conformance_mounts_with_mapped_owners() {
    // runc 1.1 does not know them; crun and we agree.
    same(|instance| {
        let mut steps = Steps::new(instance);
        if instance.runtime() == Runtime::Runc {
            return steps.view;
        }
        let script = "stat -c %u:%g /mnt /mnt/file; touch /mnt/new 2>/dev/null; echo $?; ls /mnt";
        let mut bundle = Bundle::script(script);
        let source = bundle.file("source/file", 0o644, "x").parent().expect("a directory").to_path_buf();
        std::os::unix::fs::chown(source.join("file"), Some(3), Some(4)).expect("chown");
        let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
        bundle.mount(json!({ "destination": "/mnt", "type": "bind", "source": source, "options": ["bind", "idmap"],
            "uidMappings": map, "gidMappings": map }));
        let ran = instance.run_bundle(&bundle, &instance.id("idmap"));
        steps.ran("run", &ran);
        steps.see("owners", ran.stdout);
        steps.view
    });
}

/// runc 1.1 does not know the namespace and crun 1.8 cannot enter it here, so this is against time_namespaces(7).
#[test]
fn conformance_linux_time_offsets_are_what_the_clocks_show() {
    isolated();
    let instance = Runtime::Onggi.instance();
    let script = "cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time; \
        readlink /proc/self/ns/time_for_children";
    let mut bundle = Bundle::script(script);
    bundle.namespace(json!({ "type": "time" }));
    bundle.config["linux"]["timeOffsets"] =
        json!({ "monotonic": { "secs": 3000, "nanosecs": 7 }, "boottime": { "secs": 7_000_000 } });
    let uptime = || -> u64 {
        let text = fs::read_to_string("/proc/uptime").expect("/proc is there");
        text.split('.').next().and_then(|n| n.parse().ok()).expect("a number")
    };
    let before = uptime();
    let ran = instance.run_bundle(&bundle, &instance.id("time"));
    let after = uptime();
    assert_eq!(ran.code, Some(0), "{}", instance.explain(&ran));
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[0]), ["monotonic", "3000", "7"]);
    assert_eq!(words(lines[1]), ["boottime", "7000000", "0"]);
    let inside: u64 = lines[2].parse().expect("a number");
    assert!((before + 7_000_000..=after + 7_000_000).contains(&inside), "{before} {inside} {after}");
    let host = fs::read_link("/proc/self/ns/time").expect("a link").display().to_string();
    assert!(lines[3] != host && lines[3] == lines[4], "{lines:?}");
    // Offsets without the namespace have nothing to act upon.
    bundle.without_namespace("time");
    assert_ne!(instance.run_bundle(&bundle, &instance.id("none")).code, Some(0));
}

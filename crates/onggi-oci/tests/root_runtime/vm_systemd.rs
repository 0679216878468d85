//! The systemd driver, rootless cgroups, and what only a pure version 2 machine shows. Run in the VM.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use super::harness::{Bundle, Done};

const IDLE: &str = "sleep 1000";
const ROOT: &str = "/sys/fs/cgroup";

fn ok(done: &Done) {
    assert_eq!(done.code, 0, "{} {}", done.out, done.err);
}

/// A bundle that runs under systemd's driver.
struct Unit {
    b: Bundle,
    name: String,
}

impl Unit {
    fn new(change: impl FnOnce(&mut Bundle)) -> Self {
        let mut b = Bundle::new(IDLE);
        change(&mut b);
        let name = format!("onggi-{}.scope", b.id);
        Self { b, name }
    }

    fn start(&self) {
        self.b.write_config();
        let out = fs::File::create(self.b.dir.join("out")).unwrap();
        let mut command =
            self.b.oci(&["--systemd-cgroup", "run", "-d", "-b", self.b.dir.to_str().unwrap(), &self.b.id]);
        let status = command.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
        assert!(status.success(), "{}", self.b.output());
    }

    fn show(&self, property: &str) -> String {
        show(&self.name, property)
    }

    fn dir(&self) -> PathBuf {
        PathBuf::from(format!("{ROOT}{}", self.show("ControlGroup")))
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(name)).unwrap().trim().to_owned()
    }

    fn update(&self, flags: &[&str]) {
        let mut args = vec!["update"];
        args.extend(flags);
        args.push(&self.b.id);
        let done: Done = self.b.oci(&args).output().unwrap().into();
        ok(&done);
    }
}

fn show(unit: &str, property: &str) -> String {
    systemctl(&["show", "--value", "-p", property, unit]).trim().to_owned()
}

fn systemctl(args: &[&str]) -> String {
    String::from_utf8(Command::new("systemctl").args(args).output().unwrap().stdout).unwrap()
}

#[test]
fn vm_a_scope_has_the_limits_and_goes_with_the_container() {
    let u = Unit::new(|b| {
        b.config["linux"]["resources"] = json!({
            "memory": { "limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432 },
            "cpu": { "shares": 1024, "quota": 500_000, "period": 1_000_000, "cpus": "0" },
            "pids": { "limit": 20 }
        });
    });
    u.start();
    assert_eq!(u.show("ControlGroup"), format!("/system.slice/{}", u.name));
    let expected = [
        "ActiveState=active",
        "Slice=system.slice",
        "Delegate=yes",
        "MemoryMax=67108864",
        "MemorySwapMax=67108864",
        "MemoryLow=33554432",
        "TasksMax=20",
        "CPUWeight=100",
        "CPUQuotaPerSecUSec=500ms",
        "CPUQuotaPeriodUSec=1s",
        "AllowedCPUs=0",
        "DevicePolicy=strict",
    ];
    // One question for all: under emulation each takes half a second.
    let all = systemctl(&["show", &u.name]);
    for line in expected {
        assert!(all.lines().any(|shown| shown == line), "{line} is not in\n{all}");
    }
    for (file, value) in [
        ("cgroup.procs", u.b.pid().to_string().as_str()),
        ("memory.max", "67108864"),
        ("pids.max", "20"),
        ("cpu.max", "500000 1000000"),
    ] {
        assert_eq!(u.file(file), value, "{file}");
    }
    let dir = u.dir();
    ok(&u.b.verb("delete", &["--force"]));
    assert!(!dir.exists());
    assert_eq!(show(&u.name, "LoadState"), "not-found");
}

#[test]
fn vm_an_update_reaches_systemd_and_outlives_its_reload() {
    let u = Unit::new(|b| {
        b.config["linux"]["resources"] =
            json!({ "memory": { "limit": 67_108_864 }, "cpu": { "quota": 500_000, "period": 1_000_000 } });
    });
    u.start();
    u.update(&["--memory", "100M", "--pids-limit", "50", "--cpu-period", "900000", "--cpu-share", "2048"]);
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    assert_eq!((u.show("MemoryMax").as_str(), u.show("TasksMax").as_str()), ("104857600", "50"));
    assert_eq!(u.show("CPUQuotaPerSecUSec"), "560ms");
    for (file, value) in [("memory.max", "104857600"), ("pids.max", "50")] {
        assert_eq!(u.file(file), value, "{file}");
    }
    assert!(u.file("cpu.max").ends_with(" 900000"), "{}", u.file("cpu.max"));
    u.update(&["--cpu-quota", "-1", "--memory", "-1"]);
    assert_eq!((u.show("CPUQuotaPerSecUSec").as_str(), u.show("MemoryMax").as_str()), ("infinity", "infinity"));
    ok(&u.b.exec(&[], &["true"]));
}

#[test]
fn vm_an_update_that_the_kernel_refuses_is_unknown_to_systemd_too() {
    let u = Unit::new(|b| {
        b.config["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864 }, "cpu": { "period": 50_000 } });
    });
    u.start();
    let properties = ["CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs", "MemoryMax", "TasksMax"];
    let seen = || {
        let properties = properties.map(|name| u.show(name)).to_vec();
        [properties, ["cpu.max", "memory.max", "pids.max"].map(|name| u.file(name)).to_vec()].concat()
    };
    let before = seen();
    let cpus = fs::read_to_string(Path::new(ROOT).join("cpuset.cpus.effective")).unwrap();
    for flags in [
        ["--memory", "100M", "--cpu-period", "20000", "--cpu-quota", "500"],
        ["--memory", "100M", "--pids-limit", "50", "--cpuset-cpus", "0-99"],
        ["--cpuset-cpus", "0", "--cpu-period", "20000", "--cpu-quota", "500"],
    ] {
        let mut args = vec!["update"];
        args.extend(flags);
        args.push(&u.b.id);
        let refused: Done = u.b.oci(&args).output().unwrap().into();
        assert_eq!(refused.code, 1, "{flags:?}: {}", refused.err);
        assert_eq!(seen(), before, "{flags:?}: {}", refused.err);
        // A controller that nothing was limited by before has its files only now.
        let effective = fs::read_to_string(u.dir().join("cpuset.cpus.effective")).unwrap_or_else(|_| cpus.clone());
        assert_eq!(effective.trim(), cpus.trim(), "{flags:?}");
    }
    u.update(&["--cpuset-cpus", "0", "--cpu-quota", "25500"]);
    assert_eq!((u.file("cpuset.cpus").as_str(), u.file("cpu.max").as_str()), ("0", "25500 50000"));
    assert_eq!(u.show("AllowedCPUs"), "0");
}

#[test]
fn vm_a_group_belongs_to_the_containers_user_only_when_it_is_to_manage_it() {
    let owner = |options: &[&str], own_group_namespace: bool| {
        let u = Unit::new(|b| {
            let mount =
                json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options });
            b.add_mount(mount);
            let namespaces = b.config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|n| n["type"] != "cgroup");
            if own_group_namespace {
                namespaces.push(json!({ "type": "cgroup" }));
            }
            b.config["process"]["user"] = json!({ "uid": 1234, "gid": 0 });
        });
        u.start();
        let group = Path::new("/sys/fs/cgroup").join(u.show("ControlGroup").trim_start_matches('/'));
        let uid = |file: &str| fs::metadata(group.join(file)).unwrap().uid();
        let owners = [uid("."), uid("cgroup.procs"), uid("cgroup.subtree_control"), uid("memory.max")];
        ok(&u.b.verb("delete", &["--force"]));
        owners
    };
    assert_eq!(owner(&["rw", "nosuid"], true), [1234, 1234, 1234, 0], "limits stay root's");
    assert_eq!(owner(&["ro", "nosuid"], true), [0; 4], "nothing can be written");
    assert_eq!(owner(&["rw", "nosuid"], false), [0; 4], "the groups of others would be seen");
}

#[test]
fn vm_slices_prefixes_and_annotations_are_taken_and_a_failed_unit_goes() {
    let slice = format!("onggitest{}-inner.slice", std::process::id());
    let mut u = Unit::new(|b| {
        b.config["linux"]["cgroupsPath"] = json!(format!("{slice}:pre:{}", b.id));
        b.config["annotations"] =
            json!({ "org.systemd.property.RuntimeMaxSec": "4", "org.systemd.property.TimeoutStopSec": "1" });
    });
    u.name = format!("pre-{}.scope", u.b.id);
    u.start();
    let outer = slice.replace("-inner", "");
    assert_eq!(u.show("ControlGroup"), format!("/{outer}/{slice}/{}", u.name));
    u.b.until("the unit's time to be over", |b| b.status() == "stopped");
    u.b.until("failure", |_| show(&u.name, "ActiveState") == "failed");
    ok(&u.b.verb("delete", &[]));
    assert_eq!(show(&u.name, "LoadState"), "not-found");
    assert!(Command::new("systemctl").args(["stop", &outer]).status().unwrap().success());
}

#[test]
fn vm_an_idle_group_of_systemd_has_no_weight_and_a_weight_ends_it() {
    const WARNING: &str = "unable to apply both";
    let u = Unit::new(|b| b.config["linux"]["resources"] = json!({ "cpu": { "shares": 200, "idle": 1 } }));
    u.start();
    assert!(u.b.output().contains(WARNING), "{}", u.b.output());
    let change = |flags: &[&str], idle: &str, warns: bool| {
        let done = u.b.verb("update", flags);
        ok(&done);
        assert_eq!(done.err.contains(WARNING), warns, "{flags:?}: {}", done.err);
        assert_eq!(u.file("cpu.idle"), idle, "{flags:?}");
    };
    assert_eq!(u.file("cpu.idle"), "1");
    change(&["--cpu-share", "200"], "0", false);
    change(&["--cpu-share", "200", "--cpu-idle", "1"], "1", true);
    let file = u.b.dir.join("change.json");
    let path = file.to_str().unwrap();
    fs::write(&file, json!({ "unified": { "cpu.weight": "8" } }).to_string()).unwrap();
    change(&["-r", path], "0", false);
    fs::write(&file, json!({ "unified": { "cpu.idle": "1", "cpu.weight": "8" } }).to_string()).unwrap();
    change(&["-r", path], "1", true);
}

#[test]
fn vm_a_unit_in_use_and_a_frozen_group_are_refused_as_without_systemd() {
    let u = Unit::new(|_| {});
    let again = |id: &str| -> Done {
        let bundle = u.b.dir.to_str().unwrap();
        u.b.oci(&["--systemd-cgroup", "create", "-b", bundle, id]).stdin(Stdio::null()).output().unwrap().into()
    };
    let group = Path::new(ROOT).join("system.slice").join(&u.name);
    u.b.write_config();
    fs::create_dir(&group).unwrap();
    fs::write(group.join("cgroup.freeze"), "1").unwrap();
    let done = again(&u.b.id);
    assert!(done.code == 1 && done.err.contains("container's cgroup unexpectedly frozen"), "{}", done.err);
    fs::remove_dir(&group).unwrap();
    let mut second = u.b.config.clone();
    second["linux"]["cgroupsPath"] = json!(format!("system.slice:onggi:{}", u.b.id));
    u.start();
    fs::write(u.b.dir.join("config.json"), second.to_string()).unwrap();
    let done = again(&format!("{}-two", u.b.id));
    assert!(
        done.code == 1 && done.err.contains("container's cgroup is not empty: 1 process(es) found"),
        "{}",
        done.err
    );
    assert_eq!((u.b.status().as_str(), u.show("ActiveState").as_str()), ("running", "active"));
}

#[test]
fn vm_devices_of_a_driver_that_is_not_there_yet_are_in_the_units_list() {
    let u = Unit::new(|b| {
        b.config["linux"]["resources"]["devices"] = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 89, "access": "rwm" },
            { "allow": true, "type": "b", "major": 8, "minor": 0, "access": "rw" }
        ]);
    });
    u.start();
    let list = u.show("DeviceAllow");
    for entry in ["char-89 rwm", "/dev/block/8:0 rw", "char-136 rwm"] {
        assert!(list.lines().any(|line| line == entry), "{entry} is not in\n{list}");
    }
    assert_eq!(u.show("DevicePolicy"), "strict");
}

#[test]
fn vm_a_paused_container_of_systemd_is_deleted() {
    let u = Unit::new(|_| {});
    u.start();
    ok(&u.b.verb("pause", &[]));
    assert_eq!(u.b.status(), "paused");
    ok(&u.b.verb("delete", &["--force"]));
    assert_eq!(show(&u.name, "LoadState"), "not-found");
}

#[test]
fn vm_what_is_no_unit_is_refused_before_anything_is_made() {
    for (path, annotation, text) in [
        ("/a/b", None, "expected cgroupsPath to be of format"),
        ("a--b.slice:p:n", None, "invalid slice name"),
        ("system.slice:p:n", Some(("org.systemd.property.TimeoutStopUSec", "soon")), "unknown word"),
        ("system.slice:p:n", Some(("org.systemd.property.Slice", "'a.slice'")), "the runtime itself decides"),
    ] {
        let mut b = Bundle::new(IDLE);
        b.config["linux"]["cgroupsPath"] = json!(path);
        if let Some((name, value)) = annotation {
            b.config["annotations"] = json!({ name: value });
        }
        b.write_config();
        let done: Done =
            b.oci(&["--systemd-cgroup", "run", "-b", b.dir.to_str().unwrap(), &b.id]).output().unwrap().into();
        assert!(done.code == 1 && done.err.contains(text), "{path}: {}", done.err);
        assert_eq!(b.status(), "absent");
    }
}

#[test]
fn vm_a_limit_below_the_usage_is_rejected_when_asked_to_check() {
    let mut b = Bundle::new(IDLE);
    b.config["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864 } });
    ok(&b.run_detached(&[]));
    let change = b.dir.join("change.json");
    fs::write(&change, json!({ "memory": { "limit": 1024, "checkBeforeUpdate": true } }).to_string()).unwrap();
    let done: Done = b.oci(&["update", "-r", change.to_str().unwrap(), &b.id]).output().unwrap().into();
    assert!(done.code == 1 && done.err.contains("rejecting memory limit 1024 <= usage"), "{}", done.err);
    assert_eq!(b.status(), "running");
}

#[test]
fn vm_pressure_is_among_the_stats_and_can_be_waited_for() {
    let mut b = Bundle::new("while :; do :; done");
    b.config["linux"]["resources"] = json!({ "cpu": { "quota": 5000, "period": 100_000 } });
    ok(&b.run_detached(&[]));
    b.until("pressure", |b| {
        let done: Done = b.oci(&["events", "--stats", &b.id]).output().unwrap().into();
        let event: serde_json::Value = serde_json::from_str(&done.out).unwrap();
        event["data"]["cpu"]["psi"]["some"]["total"].as_u64() > Some(0)
    });
}

/// Runs a script as the ordinary user of the VM, with a session's environment.
fn as_tester(script: &str) -> Done {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--init-groups", "sh", "-euc", script]);
    command.env("XDG_RUNTIME_DIR", "/run/user/1000").env_remove("DBUS_SESSION_BUS_ADDRESS").env("HOME", "/tmp");
    command.stdin(Stdio::null()).output().unwrap().into()
}

/// A bundle that the ordinary user may read, with a user namespace for him, and the script's beginning.
fn rootless(resources: serde_json::Value) -> (Bundle, String) {
    let mut b = Bundle::new(IDLE);
    b.add_namespace(json!({ "type": "user" }));
    b.remove_namespace("network");
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    b.config["linux"]["uidMappings"] = map.clone();
    b.config["linux"]["gidMappings"] = map;
    b.config["linux"]["resources"] = resources;
    b.config["mounts"] = json!([{ "destination": "/proc", "type": "proc", "source": "proc" }]);
    b.config["linux"]["maskedPaths"] = json!([]);
    b.config["linux"]["readonlyPaths"] = json!([]);
    b.write_config();
    chown(&b.dir);
    let state = b.dir.join("mine");
    let head = format!(
        "O='{} --root {}'; B={}; ID={}; pid() {{ $O state $ID | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p'; }}; \
         group() {{ echo {ROOT}$(sed -n 's/^0:://p' /proc/$(pid)/cgroup); }};\n",
        env!("CARGO_BIN_EXE_onggi-oci"),
        state.display(),
        b.dir.display(),
        b.id,
    );
    (b, head)
}

fn chown(dir: &Path) {
    assert!(Command::new("chown").args(["-R", "1000:1000"]).arg(dir).status().unwrap().success());
}

#[test]
fn vm_a_users_container_has_limits_through_his_own_systemd() {
    let (_b, head) = rootless(json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 20 } }));
    let script = head
        + "$O --systemd-cgroup run -d -b $B $ID </dev/null >$B/out 2>&1 || { cat $B/out; exit 1; }
           group; cat $(group)/memory.max $(group)/pids.max
           systemctl --user show --value -p MemoryMax onggi-$ID.scope
           $O exec $ID true; $O pause $ID; $O resume $ID
           $O update --memory 100M $ID
           cat $(group)/memory.max; systemctl --user show --value -p MemoryMax onggi-$ID.scope
           $O delete --force $ID; systemctl --user show --value -p LoadState onggi-$ID.scope";
    let done = as_tester(&script);
    ok(&done);
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(lines[0].contains("/user.slice/user-1000.slice/user@1000.service/user.slice/onggi-"), "{}", done.out);
    assert_eq!(lines[1..], ["67108864", "20", "67108864", "104857600", "104857600", "not-found"]);
}

#[test]
fn vm_a_users_container_has_limits_in_a_subtree_that_was_delegated() {
    let (_b, head) = rootless(json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 20 } }));
    let inner = head
        + "$O run -d -b $B $ID </dev/null >$B/out 2>&1 || { cat $B/out; exit 1; }
           basename $(group); cat $(group)/memory.max $(group)/pids.max
           $O update --pids-limit 33 $ID; cat $(group)/pids.max; $O pause $ID; $O resume $ID; G=$(group)
           $O delete --force $ID; test ! -d $G";
    let id = _b.id.clone();
    fs::write(_b.dir.join("inner.sh"), inner).unwrap();
    let script = format!("systemd-run --user --scope -q -p Delegate=yes sh -eu {}/inner.sh", _b.dir.display());
    let done = as_tester(&script);
    ok(&done);
    assert_eq!(done.out.lines().collect::<Vec<_>>(), [id.as_str(), "67108864", "20", "33"]);
}

#[test]
fn vm_delegated_groups_are_not_written_through_the_hosts_hierarchy() {
    let (b, head) = rootless(json!({ "pids": { "limit": 20 } }));
    let mut config = b.config.clone();
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "cgroup");
    let groups = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"] });
    config["mounts"].as_array_mut().unwrap().push(groups);
    let look = "ls -d /sys/fs/cgroup/user.slice; mkdir /sys/fs/cgroup/$(sed -n s/^0:://p /proc/self/cgroup)/inner 2>&1 | \
                grep -o 'Read-only file system'";
    config["process"]["args"] = json!(["sh", "-c", look]);
    fs::write(b.dir.join("config.json"), config.to_string()).unwrap();
    fs::write(b.dir.join("inner.sh"), head + "$O run -b $B $ID").unwrap();
    let script = format!("systemd-run --user --scope -q -p Delegate=yes sh -eu {}/inner.sh", b.dir.display());
    let done = as_tester(&script);
    ok(&done);
    assert_eq!(done.out, "/sys/fs/cgroup/user.slice\nRead-only file system\n", "{}", done.err);
}

#[test]
fn vm_without_delegation_a_user_has_no_limits_and_is_told_what_to_do() {
    let (b, head) = rootless(json!({ "pids": { "limit": 20 } }));
    let run = "$O run -d -b $B $ID </dev/null >$B/out 2>&1 || { cat $B/out; exit 7; }";
    let done = as_tester(&(head.clone() + run));
    assert_eq!(done.code, 7, "{}", done.out);
    assert!(
        done.out.contains("rootless needs no limits + no cgrouppath when no permission is granted for cgroups"),
        "{}",
        done.out
    );
    assert!(done.out.contains("systemd-run --user --scope -p Delegate=yes"), "{}", done.out);
    // Without limits there is nothing to need a group for.
    let mut config = b.config.clone();
    config["linux"]["resources"] = json!({});
    fs::write(b.dir.join("config.json"), config.to_string()).unwrap();
    ok(&as_tester(&(head.clone() + run + "; $O delete --force $ID")));
    config["linux"]["cgroupsPath"] = json!("/onggi-not-mine");
    fs::write(b.dir.join("config.json"), config.to_string()).unwrap();
    let done = as_tester(&(head + run));
    assert!(done.code == 7 && done.out.contains("permission denied"), "{}", done.out);
}

#[test]
fn vm_without_delegation_a_user_sees_the_groups_that_it_is_in() {
    let (b, head) = rootless(json!({}));
    let mut config = b.config.clone();
    let look = "cat /sys/fs/cgroup/cgroup.controllers > /dev/null && ls /sys/fs/cgroup | grep -c '^cgroup.procs$'; \
                mkdir /sys/fs/cgroup/inner 2>&1 | grep -o 'Read-only file system'";
    config["process"]["args"] = json!(["sh", "-c", look]);
    let groups = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"] });
    config["mounts"].as_array_mut().unwrap().push(groups);
    let run = head + "$O run -b $B $ID";
    for own_namespace in [true, false] {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "cgroup");
        if own_namespace {
            namespaces.push(json!({ "type": "cgroup" }));
        }
        fs::write(b.dir.join("config.json"), config.to_string()).unwrap();
        let done = as_tester(&run);
        ok(&done);
        assert_eq!(done.out, "1\nRead-only file system\n", "{own_namespace}: {}", done.err);
    }
}

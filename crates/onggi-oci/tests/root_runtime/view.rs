//! What a container sees and is allowed to do.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use crate::harness::{Bundle, Done, field};

#[test]
fn root_every_namespace_is_its_own() {
    let kinds = ["pid", "mnt", "net", "ipc", "uts", "cgroup"];
    let done = Bundle::new("for n in pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done").run();
    for (line, kind) in done.out.lines().zip(kinds) {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(line, ours.to_string_lossy(), "{kind}");
    }
    assert_eq!(done.out.lines().count(), kinds.len(), "{}", done.err);
}

#[test]
fn root_a_namespace_can_be_joined_by_path() {
    let mut b = Bundle::new("readlink /proc/self/ns/net");
    b.remove_namespace("network");
    b.add_namespace(json!({ "type": "network", "path": "/proc/self/ns/net" }));
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(b.run().out.trim(), ours.to_string_lossy());
}

#[test]
fn root_a_time_namespace_has_its_offsets() {
    let mut b = Bundle::new("cat /proc/uptime");
    b.add_namespace(json!({ "type": "time" }));
    b.config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000 } });
    let done = b.run();
    let uptime: f64 = done.out.split(' ').next().unwrap().parse().unwrap();
    let host: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > host + 999_000.0, "{} {}", done.out, done.err);
}

#[test]
fn root_capabilities_are_as_configured_and_never_inheritable() {
    let status = Bundle::new("cat /proc/self/status").run().out;
    assert_eq!(field(&status, "CapEff"), "00000000800405fb");
    assert_eq!(field(&status, "CapPrm"), "00000000800405fb");
    assert_eq!(field(&status, "CapBnd"), "00000000800405fb");
    assert_eq!(field(&status, "CapInh"), "0000000000000000");
    assert_eq!(field(&status, "CapAmb"), "0000000000000000");
}

#[test]
fn root_ambient_capabilities_reach_an_ordinary_user_when_asked() {
    let mut b = Bundle::new("cat /proc/self/status");
    b.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let net = json!(["CAP_NET_BIND_SERVICE"]);
    for set in ["effective", "permitted", "inheritable", "ambient"] {
        b.config["process"]["capabilities"][set] = net.clone();
    }
    let status = b.run().out;
    assert_eq!(field(&status, "CapEff"), "0000000000000400");
    assert_eq!(field(&status, "CapAmb"), "0000000000000400");
}

#[test]
fn root_user_groups_umask_and_no_new_privs_are_set() {
    let mut b = Bundle::new("cat /proc/self/status; umask");
    b.config["process"]["user"] = json!({ "uid": 1000, "gid": 100, "additionalGids": [100, 7], "umask": 0o27 });
    b.config["process"]["noNewPrivileges"] = json!(true);
    let out = b.run().out;
    assert_eq!(field(&out, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field(&out, "Gid"), "100\t100\t100\t100");
    assert_eq!(field(&out, "Groups"), "7 100");
    assert_eq!(field(&out, "NoNewPrivs"), "1");
    assert!(out.ends_with("0027\n"));
}

#[test]
fn root_limits_are_set_and_one_that_cannot_be_raised_stays_with_a_note() {
    let mut b = Bundle::new("ulimit -n; ulimit -H -n");
    b.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    assert_eq!(b.run().out, "100\n200\n");
    let mut b = Bundle::new("ulimit -H -l");
    b.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_MEMLOCK", "soft": u64::MAX, "hard": u64::MAX }]);
    let done = b.run();
    assert_eq!(done.code, 0, "{}", done.err);
    let kept = done.err.contains("RLIMIT_MEMLOCK stays at");
    assert!(kept || done.out.trim() == "unlimited", "{} {}", done.out, done.err);
}

#[test]
fn root_masked_paths_are_empty_and_read_only_paths_refuse_writes() {
    let script = "cat /proc/keys | wc -c; ls /sys/firmware | wc -l; touch /sys/firmware/x || echo ro; \
        echo 1 > /proc/sys/kernel/domainname || echo ro; ls -d /proc/not-there || echo absent";
    let done = Bundle::new(script).run();
    assert_eq!(done.out, "0\n0\nro\nro\nabsent\n", "{}", done.err);
}

#[test]
fn root_a_file_is_masked_and_read_only_whatever_follows_its_name() {
    let mut b =
        Bundle::new("cat /etc/secret | wc -c; (echo x >> /etc/fixed) 2>/dev/null || echo ro; ls /etc/dir | wc -l");
    fs::create_dir(b.root().join("etc/dir")).unwrap();
    for file in ["secret", "fixed", "dir/inner"] {
        fs::write(b.root().join("etc").join(file), "content").unwrap();
    }
    b.config["linux"]["maskedPaths"] = json!(["/etc/secret/", "/etc/dir//", "/"]);
    b.config["linux"]["readonlyPaths"] = json!(["/etc/fixed//"]);
    let done = b.run();
    assert_eq!(done.out, "0\nro\n0\n", "{}", done.err);
}

#[test]
fn root_devices_and_links_of_the_specification_are_there() {
    let script = "for d in null zero full random urandom tty; do stat -c '%F %t:%T %a' /dev/$d; done; \
        for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; echo x > /dev/null && echo works";
    let done = Bundle::new(script).run();
    let nodes = "character special file 1:3 666\ncharacter special file 1:5 666\ncharacter special file 1:7 666\n\
        character special file 1:8 666\ncharacter special file 1:9 666\ncharacter special file 5:0 666\n";
    let links = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\nworks\n";
    assert_eq!(done.out, format!("{nodes}{links}"), "{}", done.err);
}

#[test]
fn root_extra_devices_get_owner_and_mode() {
    let mut b = Bundle::new("stat -c '%F %t:%T %a %u:%g' /dev/sub/mine");
    b.config["linux"]["devices"] = json!([{
        "path": "/dev/sub/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6
    }]);
    assert_eq!(b.run().out, "character special file 1:3 640 5:6\n");
}

#[test]
fn root_bind_mounts_of_directories_and_files_with_their_options() {
    let mut b = Bundle::new(
        "cat /data/f /etc/one; echo 2 > /data/g || echo ro; echo new > /etc/one; grep -E ' /data | /etc/one ' /proc/self/mountinfo | wc -l",
    );
    let source = b.dir.join("data");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("f"), "dir\n").unwrap();
    fs::write(b.dir.join("one"), "file\n").unwrap();
    b.add_mount(
        json!({ "destination": "/data", "type": "bind", "source": source, "options": ["rbind", "rro", "nosuid"] }),
    );
    b.add_mount(json!({ "destination": "/etc/one", "source": "one", "options": ["bind", "rw"] }));
    let done = b.run();
    assert_eq!(done.out, "dir\nfile\nro\n2\n", "{}", done.err);
    assert_eq!(fs::read_to_string(b.dir.join("one")).unwrap(), "new\n");
}

#[test]
fn root_a_recursive_read_only_bind_covers_its_submounts_and_a_plain_one_its_top() {
    for (option, expected) in [("rro", "top-ro\nsub-ro\n"), ("ro", "top-ro\n")] {
        let mut b = Bundle::new("touch /data/x || echo top-ro; touch /data/sub/x || echo sub-ro");
        fs::create_dir_all(b.dir.join("data/sub")).unwrap();
        b.write_config();
        b.add_mount(json!({ "destination": "/data", "type": "bind", "source": "data", "options": ["rbind", option] }));
        b.write_config();
        // A mount namespace of the test's own, so that the host never sees the submount.
        let script = "mount -t tmpfs tmpfs $1/data/sub; shift; exec \"$@\"";
        let out = std::process::Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(&b.dir)
            .arg(env!("CARGO_BIN_EXE_onggi-oci"))
            .arg("--root")
            .arg(b.dir.join("state"))
            .args(["run", "-b"])
            .arg(&b.dir)
            .arg(&b.id)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), expected, "{option}");
    }
}

#[test]
fn root_tmpfs_options_arrive() {
    let mut b = Bundle::new("stat -c %a /t; grep ' /t ' /proc/self/mountinfo; touch /t/x && echo writable");
    b.add_mount(json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "mode=0711", "size=1m"] }));
    let out = b.run().out;
    assert!(out.starts_with("711\n") && out.ends_with("writable\n"), "{out}");
    assert!(out.contains("nosuid,noexec") && out.contains("size=1024k"), "{out}");
}

#[test]
fn root_a_tmpfs_can_begin_with_what_it_covers() {
    let mut b = Bundle::new("cat /t/f /t/d/g; readlink /t/l; stat -c '%a %u' /t /t/f; echo new > /t/f");
    let at = b.root().join("t");
    fs::create_dir_all(at.join("d")).unwrap();
    fs::write(at.join("f"), "f\n").unwrap();
    fs::write(at.join("d/g"), "g\n").unwrap();
    std::os::unix::fs::symlink("/etc/shadow", at.join("l")).unwrap();
    std::os::unix::fs::chown(at.join("f"), Some(7), Some(7)).unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o1777)).unwrap();
    let options = ["rw", "nosuid", "nodev", "tmpcopyup"];
    b.add_mount(json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": options }));
    let done = b.run();
    assert_eq!(done.out, "f\ng\n/etc/shadow\n1777 0\n644 7\n", "{}", done.err);
    assert_eq!(fs::read_to_string(at.join("f")).unwrap(), "f\n");
}

#[test]
fn root_a_read_only_root_refuses_writes_but_its_mounts_do_not() {
    let mut b = Bundle::new("touch /x || echo ro; touch /dev/shm/x && echo rw");
    b.config["root"]["readonly"] = json!(true);
    assert_eq!(b.run().out, "ro\nrw\n");
}

#[test]
fn root_sysctls_of_own_namespaces_are_set_and_others_refused() {
    let mut b = Bundle::new("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni");
    b.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "7", "kernel.shmmni": "77" });
    assert_eq!(b.run().out, "7\n77\n");
    for (key, kind) in [("kernel.core_pattern", ""), ("vm.swappiness", ""), ("net.ipv4.ip_forward", "network")] {
        let mut b = Bundle::new("true");
        b.config["linux"]["sysctl"] = json!({ key: "1" });
        b.remove_namespace(kind);
        let done = b.run();
        assert_eq!(done.code, 1);
        assert!(done.err.contains("it would change the host"), "{}", done.err);
    }
}

#[test]
fn root_hostname_and_loopback_are_ready() {
    let done = Bundle::new("hostname; ip addr show lo | grep -o 'inet 127.0.0.1'").run();
    assert_eq!(done.out, "jar\ninet 127.0.0.1\n", "{}", done.err);
}

#[test]
fn root_the_working_directory_is_made_and_entered() {
    let mut b = Bundle::new("pwd");
    b.config["process"]["cwd"] = json!("/srv/app");
    assert_eq!(b.run().out, "/srv/app\n");
}

#[test]
fn root_a_private_directory_of_the_user_can_be_the_working_directory() {
    let mut b = Bundle::new("pwd");
    let at = b.root().join("mine");
    fs::create_dir(&at).unwrap();
    std::os::unix::fs::chown(&at, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o700)).unwrap();
    b.config["process"]["cwd"] = json!("/mine");
    b.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let done = b.run();
    assert_eq!(done.out, "/mine\n", "{}", done.err);
}

#[test]
fn root_a_seccomp_policy_is_enforced() {
    for no_new_privs in [false, true] {
        let mut b = Bundle::new("mkdir /x && echo made; grep Seccomp: /proc/self/status");
        b.config["process"]["noNewPrivileges"] = json!(no_new_privs);
        b.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }]
        });
        let done = b.run();
        assert_eq!(done.out.trim(), "Seccomp:\t2", "{}", done.err);
        assert!(done.err.contains("Operation not permitted"), "{}", done.err);
    }
}

#[test]
fn root_memory_and_pids_limits_are_in_the_containers_cgroup() {
    let mut b = Bundle::new("sleep 60");
    b.config["linux"]["resources"] = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 16 } });
    b.config["linux"]["cgroupsPath"] = json!(format!("/onggi-test-{}", b.id));
    assert_eq!(b.run_detached(&[]).code, 0);
    let groups = crate::harness::cgroups_of(&b.id);
    let read = |file: &str| groups.iter().find_map(|g| fs::read_to_string(g.join(file)).ok()).unwrap_or_default();
    let memory = read("memory.limit_in_bytes") + &read("memory.max");
    assert_eq!(memory.trim(), (64 << 20).to_string());
    assert_eq!(read("pids.max").trim(), "16");
    let members = groups.iter().filter_map(|g| fs::read_to_string(g.join("cgroup.procs")).ok());
    assert!(members.into_iter().any(|m| m.trim() == b.pid().to_string()));
}

#[test]
fn root_a_memory_limit_below_what_a_start_needs_is_named() {
    let mut b = Bundle::new("true");
    b.config["linux"]["resources"] = json!({ "memory": { "limit": 4096 } });
    let done = b.run();
    assert_eq!((done.code, done.out.as_str()), (1, ""), "{}", done.err);
    assert!(done.err.contains("container init was OOM-killed (memory limit too low?)"), "{}", done.err);
    assert!(crate::harness::cgroups_of(&b.id).is_empty(), "its groups are left");
}

#[test]
fn root_a_user_namespace_maps_ids_and_hides_the_hosts_root() {
    let mut b = Bundle::new(
        "id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /owned; echo x > /dev/null && echo dev",
    );
    b.add_namespace(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    b.config["linux"]["uidMappings"] = map.clone();
    b.config["linux"]["gidMappings"] = map;
    chown_tree(&b.root(), 100_000);
    // The child is an ordinary user of the host by then.
    fs::set_permissions(&b.dir, fs::Permissions::from_mode(0o711)).unwrap();
    let done = b.run();
    let lines: Vec<&str> = done.out.lines().map(str::trim).collect();
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!((lines[0], lines[2], lines[3]), ("0", "0", "dev"), "{}", done.err);
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(b.root().join("owned")).unwrap());
    assert_eq!(owner, 100_000);
}

const USER: u32 = 54_321;

/// A container of an ordinary user, and the runtime where he reaches it.
fn of_ordinary_user(script: &str) -> (Bundle, std::path::PathBuf) {
    let mut b = Bundle::new(script);
    b.add_namespace(json!({ "type": "user" }));
    b.remove_namespace("cgroup");
    let map = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    b.config["linux"]["uidMappings"] = map.clone();
    b.config["linux"]["gidMappings"] = map;
    for m in b.config["mounts"].as_array_mut().unwrap() {
        m["options"].as_array_mut().unwrap().retain(|o| o != "gid=5");
    }
    b.write_config();
    // The build directory may be out of that user's reach.
    let program = b.dir.join("onggi-oci");
    fs::copy(env!("CARGO_BIN_EXE_onggi-oci"), &program).unwrap();
    chown_tree(&b.dir, USER);
    (b, program)
}

/// The same machine without privilege: only the caller's own ids exist in the container.
#[test]
fn root_an_ordinary_user_can_run_and_enter_a_container() {
    let (b, program) = of_ordinary_user("id -u; cat /proc/self/uid_map; echo x > /dev/null && echo dev; sleep 60");
    let run = |args: &[&str]| {
        let mut c = std::process::Command::new("setpriv");
        c.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"]);
        c.arg(&program).arg("--root").arg(b.dir.join("state")).args(args);
        let out = fs::File::options().create(true).append(true).open(b.dir.join("out")).unwrap();
        c.stdin(std::process::Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).status().unwrap()
    };
    assert!(run(&["run", "-d", "-b", b.dir.to_str().unwrap(), &b.id]).success(), "{}", b.output());
    b.until("output", |b| b.output().ends_with("dev\n"));
    assert!(run(&["exec", &b.id, "id", "-u"]).success(), "{}", b.output());
    assert!(b.output().ends_with("dev\n0\n"), "{}", b.output());
    assert!(run(&["kill", &b.id, "KILL"]).success());
    b.until("stopped", |b| b.status() == "stopped");
    assert!(run(&["delete", &b.id]).success());
}

/// While a process changes its ids, such a /proc shows it to nobody but the host's root.
#[test]
fn root_a_users_container_is_known_where_proc_hides_processes() {
    let (b, program) = of_ordinary_user("sleep 60");
    let script = "mount -t proc -o hidepid=2 proc /proc
        oci() { setpriv --reuid $USER --regid $USER --clear-groups $OCI --root $B/state \"$@\"; }
        for i in 1 2 3 4 5 6 7 8 9 10; do
            oci run -d -b $B $ID < /dev/null > $B/out 2>&1 || cat $B/out
            oci state $ID | grep -c '\"status\": \"running\"'
            oci delete -f $ID
        done";
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script]);
    let command = command.env("USER", USER.to_string()).env("OCI", &program).env("B", &b.dir).env("ID", &b.id);
    let done: Done = command.output().unwrap().into();
    assert_eq!(done.out, "1\n".repeat(10), "{}", done.err);
}

/// Before its program runs nobody may trace the process, which such a /proc takes for a reason to hide it.
#[test]
fn root_a_users_created_container_is_known_where_proc_hides_processes() {
    let (b, program) = of_ordinary_user("sleep 60");
    let script = "mount -t proc -o hidepid=2 proc /proc
        oci() { setpriv --reuid $USER --regid $USER --clear-groups $OCI --root $B/state \"$@\"; }
        status() { oci state $ID | grep -o '\"status\": *\"[a-z]*\"' | cut -d '\"' -f 4; }
        make() { oci create -b $B --pid-file $B/pid $ID < /dev/null > $B/out 2>&1 || cat $B/out; }
        hidden() { setpriv --reuid $USER --regid $USER --clear-groups test ! -e /proc/$(cat $B/pid) && echo hidden; }
        make; hidden; status; oci list -q | grep -c .; oci delete $ID && oci list -q | grep -c .
        make; oci start $ID; status; oci start $ID 2>&1 | grep -o 'already running'; oci delete -f $ID
        make; kill -9 $(cat $B/pid); until [ $(status) = stopped ]; do sleep 0.1; done; status; oci delete $ID && echo gone
        make; oci kill $ID TERM; until [ $(status) = stopped ]; do sleep 0.1; done; status
        oci start $ID 2>&1 | grep -o 'has stopped'; oci delete $ID && echo gone";
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script]);
    let command = command.env("USER", USER.to_string()).env("OCI", &program).env("B", &b.dir).env("ID", &b.id);
    let done: Done = command.output().unwrap().into();
    let expected = "hidden created 1 0 running already running stopped gone stopped has stopped gone";
    assert_eq!(done.out.replace('\n', " ").trim_end(), expected, "{}", done.err);
}

#[test]
fn root_an_idmapped_bind_shows_mapped_owners() {
    let mut b = Bundle::new("stat -c %u /data/f; touch /data/new");
    fs::create_dir(b.dir.join("data")).unwrap();
    fs::write(b.dir.join("data/f"), "").unwrap();
    std::os::unix::fs::chown(b.dir.join("data"), Some(0), Some(0)).unwrap();
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 1000 }]);
    b.add_mount(json!({
        "destination": "/data", "type": "bind", "source": "data", "options": ["bind", "idmap"],
        "uidMappings": map, "gidMappings": map
    }));
    let done = b.run();
    assert_eq!(done.out, "200000\n", "{}", done.err);
}

#[test]
fn root_a_container_can_share_anothers_namespaces() {
    let a = Bundle::new("sleep 60");
    assert_eq!(a.run_detached(&[]).code, 0);
    let pid = a.pid();
    let mut b = Bundle::new("for n in pid ipc net; do readlink /proc/self/ns/$n; done; ps | grep -c 'sleep 60'");
    for (kind, file) in [("pid", "pid"), ("ipc", "ipc"), ("network", "net")] {
        b.remove_namespace(kind);
        b.add_namespace(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }));
    }
    let done = b.run();
    let lines: Vec<&str> = done.out.lines().collect();
    for (line, file) in lines.iter().zip(["pid", "ipc", "net"]) {
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
        assert_eq!(*line, theirs.to_string_lossy(), "{}", done.err);
    }
    assert_eq!(lines.len(), 4, "{}", done.err);
}

#[test]
fn root_a_root_can_be_entered_without_pivoting() {
    let b = Bundle::new("ls / | sort | head -2; cat /etc/hostname || echo own");
    let done = b.run_with(&["--no-pivot"]);
    assert_eq!(done.out, "bin\ndev\nown\n", "{}", done.err);
}

fn chown_tree(at: &std::path::Path, id: u32) {
    std::os::unix::fs::lchown(at, Some(id), Some(id)).unwrap();
    if at.is_dir() && !at.is_symlink() {
        for entry in fs::read_dir(at).unwrap().flatten() {
            chown_tree(&entry.path(), id);
        }
    }
}

#[test]
fn root_exec_enters_a_user_namespace_too() {
    let mut b = Bundle::new("sleep 60");
    b.add_namespace(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    b.config["linux"]["uidMappings"] = map.clone();
    b.config["linux"]["gidMappings"] = map;
    chown_tree(&b.root(), 100_000);
    fs::set_permissions(&b.dir, fs::Permissions::from_mode(0o711)).unwrap();
    let started = b.run_detached(&[]);
    assert_eq!(started.code, 0, "{}", started.out);
    let done = b.exec(&[], &["id", "-u"]);
    assert_eq!(done.out, "0\n", "{}", done.err);
}

#[test]
fn root_a_requested_label_without_its_lsm_is_an_error() {
    // A machine with AppArmor says so of SELinux: no kernel of Debian has both turned on.
    let armed = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|s| s.trim() == "Y");
    let (field, value, module) = if armed {
        ("selinuxLabel", "system_u:system_r:container_t:s0", "SELinux")
    } else {
        ("apparmorProfile", "docker-default", "AppArmor")
    };
    let mut b = Bundle::new("true");
    b.config["process"][field] = json!(value);
    let done = b.run();
    assert_eq!(done.code, 1);
    assert!(done.err.contains(&format!("runs without {module}")), "{}", done.err);
}

#[test]
fn root_a_terminal_is_the_containers_own() {
    let mut b = Bundle::new("tty; test -c /dev/console && echo console; stty size");
    b.config["process"]["terminal"] = json!(true);
    b.config["process"]["consoleSize"] = json!({ "width": 100, "height": 30 });
    let done = b.run();
    assert_eq!(done.out.replace('\r', ""), "/dev/pts/0\nconsole\n30 100\n", "{}", done.err);
}

//! Plans as readable lists: what the kernel is asked to do for a configuration, without doing it.

use std::path::Path;

use onggi_sandbox::plan::{ParentOp, PlanInput, ProcessOp, SandboxFacts, SandboxPlan, SetupOp, plan, rdt::RdtFacts};
use onggi_spec::{
    facts::{CgroupLayout, V1Hierarchy},
    monitor::{OverlayMount, RootFs, SubOverlay},
    oci::runtime::Spec,
};
use serde_json::{Value, json};

fn config() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": ["sh", "-c", "exit"], "env": ["PATH=/bin"], "cwd": "/srv",
            "capabilities": { "bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"] },
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs" },
        "hostname": "jar",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/etc/hosts", "type": "bind", "source": "hosts", "options": ["bind", "rprivate", "ro"] }
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "ipc" },
                { "type": "network" }, { "type": "cgroup" }
            ],
            "sysctl": { "net.ipv4.ip_forward": "1" },
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn layout(controllers: &[&str]) -> CgroupLayout {
    let hierarchies = controllers.iter().map(|c| V1Hierarchy {
        controllers: vec![(*c).to_owned()],
        mount: format!("/sys/fs/cgroup/{c}"),
        own: "/".into(),
    });
    CgroupLayout::V1 { hierarchies: hierarchies.collect(), unified: None }
}

fn facts() -> SandboxFacts {
    SandboxFacts {
        cgroup_layout: CgroupLayout::None,
        visible_cgroups: None,
        privileged: true,
        sets_groups: true,
        caller: (0, 0),
        rootless_cgroups: false,
        apparmor: false,
        selinux: false,
        systemd: None,
        rdt: None,
    }
}

fn make_with(
    config: &Value,
    rootfs: &RootFs,
    facts: &SandboxFacts,
    change: impl Fn(&mut PlanInput<'_>),
) -> Result<SandboxPlan, String> {
    let config: Spec = serde_json::from_value(config.clone()).unwrap();
    let mut input = PlanInput {
        id: "web",
        bundle: Path::new("/b"),
        config: &config,
        rootfs,
        netns_given: false,
        init: false,
        die_with_parent: false,
        wait_for_start: false,
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
        cgroup_driver: onggi_sandbox::CgroupDriver::Lean,
    };
    change(&mut input);
    plan(&input, facts).map_err(|e| e.to_string())
}

fn make(config: &Value) -> Result<SandboxPlan, String> {
    make_with(config, &RootFs::Path, &facts(), |_| {})
}

fn words(plan: &SandboxPlan) -> String {
    plan.words().join("\n")
}

#[test]
fn an_ordinary_container() {
    insta::assert_snapshot!(words(&make(&config()).unwrap()), @r#"
    clone3 a child into new namespaces: pid, mount, uts, ipc, network
    new cgroup namespace
    start a new session
    join a new session keyring
    make the mount tree slave
    take /b/rootfs as root filesystem
    attach the root at /b/rootfs in this mount namespace
    mount proc on /proc (nosuid,nodev,noexec)
    mount tmpfs on /dev (nosuid,mode=755)
    bind /b/hosts on /etc/hosts (ro)
    make character device /dev/null (1:3, mode 0666)
    make character device /dev/zero (1:5, mode 0666)
    make character device /dev/full (1:7, mode 0666)
    make character device /dev/random (1:8, mode 0666)
    make character device /dev/urandom (1:9, mode 0666)
    make character device /dev/tty (5:0, mode 0666)
    link /dev/fd to /proc/self/fd
    link /dev/stdin to /proc/self/fd/0
    link /dev/stdout to /proc/self/fd/1
    link /dev/stderr to /proc/self/fd/2
    link /dev/ptmx to pts/ptmx
    link /dev/core to /proc/kcore
    make sure that directory /srv exists
    set sysctl net.ipv4.ip_forward to 1
    set host name jar
    bring the loopback interface up
    make /proc/sys read-only
    hide /proc/kcore
    pivot into the root filesystem, detach the old root
    let it run on every CPU
    enter working directory /srv
    look the command up
    set HOME to that of uid 0 in /etc/passwd
    mark descriptors from 3 close-on-exec
    open the streams that are /dev/null again, in the container
    set no_new_privs
    limit the bounding set to CAP_CHOWN
    become uid 0, gid 0, groups []
    set capabilities: CAP_CHOWN
    set umask 0022
    enter working directory /srv as the user
    execute ["sh", "-c", "exit"]
    "#);
}

#[test]
fn an_overlay_with_a_given_network_and_an_init() {
    let overlay = OverlayMount {
        lower: vec!["/layers/2".into(), "/layers/1".into()],
        upper: "/c/upper".into(),
        work: "/c/work".into(),
        userxattr: false,
        volatile: false,
        submounts: vec![SubOverlay { path: "/home".into(), upper: "/c/u1".into(), work: "/c/w1".into() }],
        hidden: vec!["/var/lib/onggi".into()],
    };
    let plan = make_with(&config(), &RootFs::Overlay(overlay), &facts(), |i| {
        i.netns_given = true;
        i.init = true;
        i.die_with_parent = true;
    })
    .unwrap();
    insta::assert_snapshot!(words(&plan), @r#"
    clone3 a child into new namespaces: pid, mount, uts, ipc
    join network namespace the one that was prepared
    new cgroup namespace
    start a new session
    join a new session keyring
    make the mount tree slave
    mount overlay of 2 layers with upper /c/upper
    attach the root at /c/work in this mount namespace
    mount overlay over /home with upper /c/u1
    hide /var/lib/onggi
    mount proc on /proc (nosuid,nodev,noexec)
    mount tmpfs on /dev (nosuid,mode=755)
    bind /b/hosts on /etc/hosts (ro)
    make character device /dev/null (1:3, mode 0666)
    make character device /dev/zero (1:5, mode 0666)
    make character device /dev/full (1:7, mode 0666)
    make character device /dev/random (1:8, mode 0666)
    make character device /dev/urandom (1:9, mode 0666)
    make character device /dev/tty (5:0, mode 0666)
    link /dev/fd to /proc/self/fd
    link /dev/stdin to /proc/self/fd/0
    link /dev/stdout to /proc/self/fd/1
    link /dev/stderr to /proc/self/fd/2
    link /dev/ptmx to pts/ptmx
    link /dev/core to /proc/kcore
    make sure that directory /srv exists
    set sysctl net.ipv4.ip_forward to 1
    set host name jar
    make /proc/sys read-only
    hide /proc/kcore
    pivot into the root filesystem, detach the old root
    let it run on every CPU
    enter working directory /srv
    look the command up
    set HOME to that of uid 0 in /etc/passwd
    fork: PID 1 reaps and forwards signals, its child goes on
    mark descriptors from 3 close-on-exec
    open the streams that are /dev/null again, in the container
    set no_new_privs
    limit the bounding set to CAP_CHOWN
    become uid 0, gid 0, groups []
    set capabilities: CAP_CHOWN
    set umask 0022
    enter working directory /srv as the user
    die with the parent process
    execute ["sh", "-c", "exit"]
    "#);
}

#[test]
fn cgroups_are_made_before_and_entered_by_the_child() {
    let mut c = config();
    c["linux"]["resources"] = json!({ "memory": { "limit": 1 << 20 }, "pids": { "limit": 9 } });
    c["linux"]["cgroupsPath"] = json!("/onggi/web");
    c["mounts"] = json!([{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }]);
    let facts = SandboxFacts { cgroup_layout: layout(&["memory", "pids"]), ..facts() };
    let text = words(&make_with(&c, &RootFs::Path, &facts, |_| {}).unwrap());
    let lines: Vec<&str> = text.lines().filter(|l| l.contains("cgroup")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    make cgroup /sys/fs/cgroup/memory/onggi/web
    make cgroup /sys/fs/cgroup/pids/onggi/web
    write 1048576 to /sys/fs/cgroup/memory/onggi/web/memory.limit_in_bytes (memory limit of 1 MiB)
    write 9 to /sys/fs/cgroup/pids/onggi/web/pids.max (limit of 9 processes)
    enter the cgroups
    new cgroup namespace
    mount tmpfs on /sys/fs/cgroup (nosuid,nodev,noexec,mode=755,size=64k)
    bind /sys/fs/cgroup/memory/onggi/web on /sys/fs/cgroup/memory (ro,nosuid,nodev,noexec)
    bind /sys/fs/cgroup/pids/onggi/web on /sys/fs/cgroup/pids (ro,nosuid,nodev,noexec)
    make /sys/fs/cgroup ro
    "#);
}

/// A user to whom no group was given: the mount shows the groups that the caller is in.
#[test]
fn groups_that_may_only_be_seen_are_mounted_for_reading() {
    let mounts = |visible: CgroupLayout, own_namespace: bool| {
        let mut c = config();
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| own_namespace || n["type"] != "cgroup");
        c["mounts"] = json!([{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [] }]);
        let visible_cgroups = Some(visible);
        let facts = SandboxFacts { visible_cgroups, privileged: false, rootless_cgroups: true, ..facts() };
        let text = words(&make_with(&c, &RootFs::Path, &facts, |_| {}).unwrap());
        let lines = text.lines().filter(|l| l.contains("/sys/fs/cgroup") || l.contains("/cg"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    insta::assert_snapshot!(mounts(layout(&["pids"]), true), @r"
    mount tmpfs on /sys/fs/cgroup (nosuid,nodev,noexec,mode=755,size=64k)
    bind /sys/fs/cgroup/pids/ on /sys/fs/cgroup/pids (ro,nosuid,nodev,noexec)
    make /sys/fs/cgroup ro
    ");
    let v2 = || CgroupLayout::V2 { mount: "/cg".into(), own: "/me".into(), controllers: Vec::new() };
    insta::assert_snapshot!(mounts(v2(), true), @"mount cgroup2 on /sys/fs/cgroup (ro,nosuid,nodev,noexec)");
    insta::assert_snapshot!(mounts(v2(), false), @"bind /cg on /sys/fs/cgroup (ro,nosuid,nodev,noexec)");
}

#[test]
fn a_group_belongs_to_the_host_id_of_the_containers_user_when_it_may_be_written() {
    let facts = SandboxFacts {
        cgroup_layout: CgroupLayout::V2 { mount: "/cg".into(), own: "/".into(), controllers: Vec::new() },
        ..facts()
    };
    let given = |c: &Value| {
        let text = words(&make_with(c, &RootFs::Path, &facts, |_| {}).unwrap());
        text.lines().find(|line| line.contains(" to user ")).map(str::to_owned)
    };
    let mut c = config();
    c["mounts"] = json!([{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [] }]);
    assert_eq!(given(&c), None, "root has it anyway");
    c["process"]["user"] = json!({ "uid": 1000, "gid": 0 });
    assert!(given(&c).is_some_and(|line| line.ends_with(" 1000")), "{:?}", given(&c));
    let with_users = |c: &Value| {
        let mut c = c.clone();
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        c["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }, { "containerID": 1000, "hostID": 70_000, "size": 9 }]);
        c["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        c
    };
    assert!(given(&with_users(&c)).is_some_and(|line| line.ends_with(" 70000")), "{:?}", given(&with_users(&c)));
    c["mounts"][0]["options"] = json!(["ro"]);
    assert_eq!(given(&c), None, "nothing of it could be written");
    c["mounts"][0]["options"] = json!([]);
    c["mounts"][0]["destination"] = json!("/elsewhere");
    assert_eq!(given(&c), None);
}

#[test]
fn an_ordinary_user_gets_one_id_and_bound_devices() {
    let mut c = config();
    c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    c["linux"]["uidMappings"] = map.clone();
    c["linux"]["gidMappings"] = map;
    let facts = SandboxFacts { privileged: false, sets_groups: false, rootless_cgroups: true, ..facts() };
    let plan = make_with(&c, &RootFs::Path, &facts, |_| {}).unwrap();
    let text = words(&plan);
    assert!(text.contains("map 1 uid and 1 gid ranges into the user namespace, deny setgroups"), "{text}");
    assert!(text.contains("bind the host's /dev/null"), "{text}");
    assert!(plan.process.iter().any(|op| matches!(op, ProcessOp::Credentials { groups: None, .. })));
}

#[test]
fn seccomp_comes_last_with_no_new_privs_and_before_the_credentials_without() {
    for (nnp, after_credentials) in [(true, true), (false, false)] {
        let mut c = config();
        c["process"]["noNewPrivileges"] = json!(nnp);
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        let ops = make(&c).unwrap().process;
        let at = |f: &dyn Fn(&ProcessOp) -> bool| ops.iter().position(f).unwrap();
        let seccomp = at(&|op| matches!(op, ProcessOp::Seccomp { .. }));
        let credentials = at(&|op| matches!(op, ProcessOp::Credentials { .. }));
        assert_eq!(seccomp > credentials, after_credentials);
        assert!(at(&|op| matches!(op, ProcessOp::CloseOnExec { .. })) < seccomp.min(credentials));
    }
}

#[test]
fn everything_of_the_image_happens_before_the_root_changes_and_masks_come_last() {
    let setup = make(&config()).unwrap().setup;
    let at = |f: &dyn Fn(&SetupOp) -> bool| setup.iter().position(f).unwrap();
    let pivot = at(&|op| matches!(op, SetupOp::PivotRoot { .. }));
    let mask = at(&|op| matches!(op, SetupOp::Mask { .. }));
    let sysctl = at(&|op| matches!(op, SetupOp::Sysctl { .. }));
    assert!(sysctl < mask && mask < pivot);
    assert_eq!(pivot, setup.len() - 1);
}

#[test]
fn contradictions_are_refused_by_name() {
    let cases: [(&str, Value, &str); 17] = [
        ("/process/args", json!([]), "no command was given"),
        ("/process/cwd", json!("srv"), "not an absolute path"),
        ("/process/env", json!(["A=\u{0}"]), "nul byte"),
        ("/process/cwd", json!(""), "must not be empty"),
        ("/process/env", json!(["A"]), "missing '='"),
        ("/process/scheduler", json!({ "policy": "SCHED_X" }), "invalid scheduler policy"),
        ("/process/ioPriority", json!({ "class": "X" }), "invalid ioPriority.Class"),
        ("/linux/personality", json!({ "domain": "X" }), "invalid personality domain"),
        ("/linux/memoryPolicy", json!({ "nodes": "0" }), "invalid memory policy mode"),
        ("/linux/sysctl", json!({ "kernel.hostname": "x" }), "conflicts with the OCI \"hostname\" field"),
        ("/process/rlimits", json!([{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }]), "RLIMIT_X"),
        ("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }]), "soft limit exceeds"),
        ("/process/user", json!({ "uid": u32::MAX, "gid": 0 }), "is not an id"),
        ("/process/apparmorProfile", json!("x"), "AppArmor"),
        ("/process/selinuxLabel", json!("x"), "SELinux"),
        ("/linux/sysctl", json!({ "vm.swappiness": "1" }), "would change the host"),
        ("/linux/uidMappings", json!([{ "containerID": 0, "hostID": 0, "size": 1 }]), "user namespace isn't enabled"),
    ];
    for (pointer, value, text) in cases {
        let mut c = config();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        c.pointer_mut(parent).unwrap()[key] = value;
        let e = make(&c).unwrap_err();
        assert!(e.contains(text), "{pointer}: {e}");
    }
}

#[test]
fn unknown_capabilities_are_ignored_with_one_note() {
    let mut c = config();
    c["process"]["capabilities"]["bounding"] = json!(["CAP_NOPE", "CAP_KILL", "CAP\n"]);
    c["process"]["capabilities"]["effective"] = json!(["CAP_NOPE"]);
    let plan = make(&c).unwrap();
    assert_eq!(plan.notes.len(), 1);
    assert!(plan.notes[0].contains("unknown or unavailable capabilities: [CAP\\n, CAP_NOPE]"), "{}", plan.notes[0]);
    let kept = plan.process.iter().find_map(|op| match op {
        ProcessOp::BoundingSet { keep } => Some(*keep),
        _ => None,
    });
    assert_eq!(kept, Some(1 << 5));
}

#[test]
fn a_process_without_capabilities_member_has_none() {
    let mut c = config();
    c["process"].as_object_mut().unwrap().remove("capabilities");
    assert!(make(&c).unwrap().process.contains(&ProcessOp::BoundingSet { keep: 0 }));
}

#[test]
fn a_created_container_waits_with_the_rights_of_its_program() {
    for no_new_privileges in [false, true] {
        let mut c = config();
        c["process"]["noNewPrivileges"] = json!(no_new_privileges);
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        c["hooks"] = json!({ "startContainer": [{ "path": "/bin/true" }] });
        let ops = make_with(&c, &RootFs::Path, &facts(), |input| input.wait_for_start = true).unwrap().process;
        let at = |wanted: &dyn Fn(&ProcessOp) -> bool| ops.iter().position(wanted).unwrap();
        let wait = at(&|op| *op == ProcessOp::AwaitStart);
        let ids = at(&|op| matches!(op, ProcessOp::Credentials { .. }));
        let filter = at(&|op| matches!(op, ProcessOp::Seccomp { .. }));
        let access = at(&|op| *op == ProcessOp::CheckAccess);
        let hooks = at(&|op| matches!(op, ProcessOp::Hooks { .. }));
        assert!(ids < access && access < wait && filter < wait && wait < hooks && hooks == ops.len() - 2);
        assert_eq!(filter < ids, !no_new_privileges);
    }
}

#[test]
fn what_init_must_not_lose_is_set_by_its_creator_in_a_user_namespace() {
    let mut c = config();
    c["process"]["oomScoreAdj"] = json!(-500);
    assert!(make(&c).unwrap().process.contains(&ProcessOp::OomScore { value: -500 }));
    c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    c["linux"]["uidMappings"] = map.clone();
    c["linux"]["gidMappings"] = map;
    let plan = make(&c).unwrap();
    assert!(plan.after.contains(&ParentOp::OomScore { value: -500 }));
}

#[test]
fn a_mount_label_goes_to_new_filesystems_that_do_not_label_themselves() {
    let mut c = config();
    c["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c4,c5");
    let error = make(&c).unwrap_err();
    assert!(error.contains("linux.mountLabel") && error.contains("SELinux"), "{error}");
    let facts = SandboxFacts { selinux: true, ..facts() };
    let plan = make_with(&c, &RootFs::Path, &facts, |_| ()).unwrap();
    let labelled: Vec<&str> = plan
        .setup
        .iter()
        .filter_map(|op| match op {
            SetupOp::Mount(m) if m.data.iter().any(|(k, _)| k == "context") => Some(m.fstype.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(labelled, ["tmpfs"]);
}

#[test]
fn what_needs_no_group_comes_before_them_unless_a_sysctl_of_the_network_comes_first() {
    let facts = SandboxFacts { cgroup_layout: layout(&["pids"]), ..facts() };
    let order = |config: &Value| {
        let plan = make_with(config, &RootFs::Path, &facts, |_| {}).unwrap();
        let at = |wanted: &str| plan.setup.iter().position(|op| op.words().starts_with(wanted)).unwrap();
        ["start a new session", "join a new session", "bring the loopback", "enter the cgroups", "set sysctl"].map(at)
    };
    let mut c = config();
    let [session, keyring, loopback, groups, sysctl] = order(&c);
    assert!(groups < session && session < keyring && sysctl < loopback);
    c["linux"]["sysctl"] = json!({ "kernel.msgmax": "65536" });
    let [session, keyring, loopback, groups, sysctl] = order(&c);
    assert!(session < keyring && keyring < loopback && loopback < groups && groups < sysctl);
}

#[test]
fn a_class_of_service_is_entered_with_the_cgroups() {
    let mut c = config();
    c["linux"]["intelRdt"] = json!({ "closID": "gold", "schemata": ["L3:0=f"] });
    assert!(make(&c).unwrap_err().contains("Intel RDT is not enabled"));
    let rdt = RdtFacts { mount: "/r".into(), cache: true, bandwidth: true, monitoring: true };
    let facts = SandboxFacts { rdt: Some(rdt), ..facts() };
    let plan = make_with(&c, &RootFs::Path, &facts, |_| ()).unwrap();
    assert_eq!(plan.rdt.as_ref().map(|g| g.dir.as_path()), Some(Path::new("/r/gold")));
    assert!(plan.setup.contains(&SetupOp::EnterCgroups));
    assert!(plan.words().contains(&"use class of service /r/gold (L3:0=f)".to_owned()));
}

#[test]
fn the_session_keyring_has_the_label_of_the_process() {
    let mut c = config();
    c["process"]["selinuxLabel"] = json!("a:b:c");
    let facts = SandboxFacts { selinux: true, ..facts() };
    let plan = make_with(&c, &RootFs::Path, &facts, |_| ()).unwrap();
    let labelled = |op: &SetupOp| matches!(op, SetupOp::NewKeyring { label: Some(l), .. } if l == "a:b:c");
    assert!(plan.setup.iter().any(labelled), "{:?}", plan.setup);
}

#[test]
fn hostile_destinations_are_refused() {
    for at in ["/proc", "/proc/self", "/proc/sys/kernel", "/a/../proc/sys"] {
        let mut c = config();
        c["mounts"] = json!([{ "destination": at, "type": "tmpfs", "source": "tmpfs" }]);
        assert!(make(&c).is_err(), "{at}");
    }
}

#[test]
fn destinations_cannot_climb_out_of_the_root() {
    for (at, inside) in [("/a/../../b", "/b"), ("/../../etc/x", "/etc/x"), ("/a/./b/..", "/a")] {
        let mut c = config();
        c["mounts"] = json!([{ "destination": at, "type": "tmpfs", "source": "tmpfs" }]);
        let plan = make(&c).unwrap();
        let target = plan.setup.iter().find_map(|op| match op {
            SetupOp::Mount(m) if m.fstype == "tmpfs" => Some(m.target.as_path()),
            _ => None,
        });
        assert_eq!(target, Some(Path::new(inside)), "{at}");
    }
}

#[test]
fn the_script_quotes_what_a_shell_would_interpret() {
    let mut c = config();
    c["process"]["args"] = json!(["sh", "-c", "echo 'a' \"$b\" `c`; # d"]);
    c["hostname"] = json!("jar; reboot");
    let script = make(&c).unwrap().script();
    assert!(script.contains(r#"'echo '\''a'\'' "$b" `c`; # d'"#), "{script}");
    assert!(script.contains("echo 'jar; reboot' > /proc/sys/kernel/hostname"), "{script}");
}

#[test]
fn a_plan_is_plain_data() {
    let plan = make(&config()).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<SandboxPlan>(&text).unwrap(), plan);
}

#[test]
fn processes_that_nothing_could_find_again_are_warned_of() {
    let mut shared = config();
    shared["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
    let warned = |config: &Value, layout: CgroupLayout| {
        let facts = SandboxFacts { cgroup_layout: layout, privileged: false, rootless_cgroups: true, ..facts() };
        let plan = make_with(config, &RootFs::Path, &facts, |input| {
            input.cgroup_driver = onggi_sandbox::CgroupDriver::Cgroupfs;
        });
        plan.unwrap().notes.iter().any(|note| note.contains("Such configuration is strongly discouraged"))
    };
    assert!(warned(&shared, CgroupLayout::None));
    assert!(!warned(&shared, layout(&["pids", "memory"])));
    assert!(!warned(&config(), CgroupLayout::None));
}

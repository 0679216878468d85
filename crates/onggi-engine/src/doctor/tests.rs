//! Findings of simulated hosts.

use std::collections::{BTreeMap, BTreeSet};

use onggi_spec::{
    HostFacts,
    facts::{CgroupLayout, V1Hierarchy},
};

use super::*;

/// A host on which everything is as it should be, seen by root.
fn good() -> DoctorFacts {
    let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    DoctorFacts {
        host: HostFacts {
            euid: 0,
            egid: 0,
            effective_caps: u64::MAX,
            hostname: "h".into(),
            kernel: "6.12.4-arch1".into(),
            architecture: "amd64".into(),
            cgroup: CgroupLayout::V2 {
                mount: "/sys/fs/cgroup".into(),
                controllers: names(&["cpu", "cpuset", "io", "memory", "pids"]),
                own: "/".into(),
            },
            overlay: true,
            user_namespaces: true,
            nofile_hard: 1 << 20,
            submounts: Vec::new(),
            mount_points: Vec::new(),
            resolv_conf: String::new(),
            cpus: 2,
            apparmor: true,
            seccomp: true,
        },
        rootless: false,
        user: "root".into(),
        namespaces: ["mnt", "uts", "ipc", "net", "pid", "cgroup", "user", "time"].map(str::to_owned).into(),
        sysctls: BTreeMap::from([
            ("user/max_user_namespaces", "28000".to_owned()),
            ("fs/inotify/max_user_instances", "1024".to_owned()),
            ("kernel/pid_max", "4194304".to_owned()),
            ("net/ipv4/ip_forward", "1".to_owned()),
        ]),
        seccomp_actions: "kill_process errno user_notif allow".into(),
        proc_options: "rw,nosuid".into(),
        store: DiskFacts {
            path: "/var/lib/onggi".into(),
            fstype: "ext4".into(),
            total: 1 << 40,
            free: 1 << 39,
            inodes: 1000,
            inodes_free: 900,
            options: "rw".into(),
        },
        runroot_type: "tmpfs".into(),
        driver: Ok("overlay".into()),
        runtime: Ok("/usr/local/libexec/onggi/onggi-oci".into()),
        nofile_soft: 1024,
        subuid: Vec::new(),
        subgid: Vec::new(),
        helpers: BTreeMap::from([("apparmor_parser", false)]),
        delegated: None,
        systemd: true,
        network: Err("not asked".into()),
        nameservers: names(&["9.9.9.9"]),
        selinux: None,
        leftovers: Vec::new(),
    }
}

fn of<'f>(findings: &'f [Finding], name: &str) -> &'f Finding {
    findings.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("there is no finding {name}"))
}

/// Level and fix of one finding after a change.
fn after(name: &str, change: impl FnOnce(&mut DoctorFacts)) -> (Level, String) {
    let mut facts = good();
    change(&mut facts);
    let findings = judge(&facts);
    let found = of(&findings, name);
    (found.level, found.fix.clone())
}

#[test]
fn a_good_host_has_nothing_to_mend_but_what_was_not_asked() {
    let findings = judge(&good());
    let bad: Vec<_> = findings.iter().filter(|f| f.level != Level::Ok).map(|f| f.name).collect();
    assert_eq!(bad, ["nftables"], "the network is the only thing that these facts leave out");
    let names: BTreeSet<_> = findings.iter().map(|f| (f.group, f.name)).collect();
    assert_eq!(names.len(), findings.len(), "names are unique");
    assert!(findings.iter().all(|f| !f.why.is_empty() && !f.found.is_empty()));
}

#[test]
fn what_keeps_containers_from_starting_fails_with_the_command_that_mends_it() {
    let (level, fix) = after("overlay", |f| f.host.overlay = false);
    assert!(level == Level::Fail && fix.starts_with("modprobe overlay"), "{fix}");
    assert_eq!(after("version", |f| f.host.kernel = "4.19.0".into()).0, Level::Fail);
    assert_eq!(after("version", |f| f.host.kernel = "5.10.0-9-amd64".into()).0, Level::Warn);
    assert_eq!(after("architecture", |f| f.host.architecture = "arm64".into()).0, Level::Fail);
    assert_eq!(after("namespaces", |f| f.namespaces.retain(|n| n != "pid")).0, Level::Fail);
    assert_eq!(after("runtime", |f| f.runtime = Err("nowhere".into())).0, Level::Fail);
    assert_eq!(after("space", |f| f.store.free = 1 << 20).0, Level::Fail);
    assert_eq!(after("layout", |f| f.host.cgroup = CgroupLayout::None).0, Level::Fail);
    for fstype in ["nfs4", "overlay", "vfat"] {
        assert_eq!(after("filesystem", |f| f.store.fstype = fstype.into()).0, Level::Fail, "{fstype}");
    }
    assert_eq!(after("filesystem", |f| f.store.options = "ro,relatime".into()).0, Level::Fail);
}

#[test]
fn what_only_costs_something_warns() {
    let missing = |f: &mut DoctorFacts| {
        f.host.cgroup = CgroupLayout::V2 {
            mount: "/sys/fs/cgroup".into(),
            controllers: vec!["cpu".into(), "pids".into()],
            own: "/".into(),
        }
    };
    let (level, fix) = after("controllers", missing);
    assert_eq!((level, fix.as_str()), (Level::Warn, "echo '+memory +cpuset' > /sys/fs/cgroup/cgroup.subtree_control"));
    let (level, fix) = after("inotify-instances", |f| {
        f.sysctls.insert("fs/inotify/max_user_instances", "128".into());
    });
    assert_eq!((level, fix.as_str()), (Level::Warn, "sysctl -w fs.inotify.max_user_instances=512"));
    assert_eq!(after("dns", |f| f.nameservers.clear()).0, Level::Warn);
    assert_eq!(after("dns", |f| f.nameservers = vec!["127.0.0.1".into()]).0, Level::Warn);
    assert_eq!(after("apparmor", |f| f.helpers.clear()).0, Level::Warn);
    assert_eq!(after("selinux", |f| f.selinux = Some("enforcing".into())).0, Level::Warn);
    assert_eq!(after("filesystem", |f| f.store.fstype = "tmpfs".into()).0, Level::Warn);
    assert_eq!(after("inodes", |f| f.store.inodes_free = 1).0, Level::Warn);
    assert_eq!(after("run-root", |f| f.runroot_type = "ext4".into()).0, Level::Warn);
    assert_eq!(after("time-namespaces", |f| f.namespaces.retain(|n| n != "time")).0, Level::Warn);
    assert_eq!(after("engines", |f| f.leftovers = vec![("/var/lib/docker/overlay2".into(), "Docker")]).0, Level::Ok);
}

#[test]
fn an_ordinary_user_is_judged_by_what_an_ordinary_user_needs() {
    let user = |f: &mut DoctorFacts| {
        f.rootless = true;
        f.user = "kim".into();
        f.host.euid = 1000;
    };
    let (level, fix) = after("subuid", user);
    assert_eq!((level, fix.as_str()), (Level::Warn, "usermod --add-subuids 100000-165535 kim"));
    assert_eq!(after("newuidmap", user).1, "apt install uidmap");
    let (level, fix) = after("newgidmap", |f| {
        user(f);
        f.helpers.insert("newgidmap", false);
    });
    assert_eq!((level, fix.as_str()), (Level::Warn, "chmod u+s /usr/bin/newgidmap"));
    let off = |f: &mut DoctorFacts| drop(f.sysctls.insert("user/max_user_namespaces", "0".into()));
    assert_eq!(after("user-namespaces", off).0, Level::Warn, "root does without");
    let (level, fix) = after("user-namespaces", |f| {
        user(f);
        off(f);
    });
    assert_eq!((level, fix.as_str()), (Level::Fail, "sysctl -w user.max_user_namespaces=28633"));
    assert_eq!(after("delegation", user).0, Level::Warn);
    let delegated = |f: &mut DoctorFacts| {
        user(f);
        f.delegated = Some(["cpu", "memory", "pids"].map(str::to_owned).into());
    };
    assert_eq!(after("delegation", delegated).0, Level::Ok);
    let version_1 = |f: &mut DoctorFacts| {
        user(f);
        f.host.cgroup = CgroupLayout::V1 {
            hierarchies: vec![V1Hierarchy { controllers: vec!["cpu".into()], mount: "/c".into(), own: "/".into() }],
            unified: None,
        };
    };
    assert_eq!(after("layout", version_1).0, Level::Warn);
    let hidden = |f: &mut DoctorFacts| {
        user(f);
        f.proc_options = "rw,hidepid=invisible".into();
    };
    assert_eq!(after("proc-hidepid", hidden).0, Level::Warn);
    let mut facts = good();
    user(&mut facts);
    assert!(judge(&facts).iter().all(|f| f.name != "nftables" && f.name != "ip-forward"), "root's alone");
}

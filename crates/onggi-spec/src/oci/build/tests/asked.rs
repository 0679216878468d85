//! What options beyond the usual ones become.

use super::*;
use crate::{
    device::DeviceSpec,
    oci::runtime::LinuxNamespaceType,
    request::SharedNamespaces,
    resources::{BlockLimit, BlockLimitKind},
    tmpfs::parse_tmpfs,
    ulimit::Ulimit,
};

#[test]
fn limits_become_settings_of_control_groups() {
    let resources = Resources {
        cpu_shares: Some(512),
        cpu_quota: Some(5000),
        cpuset_cpus: Some("0-1".into()),
        memory: Some(64 << 20),
        memory_swap: Some(-1),
        memory_reservation: Some(32 << 20),
        blkio_weight: Some(300),
        block_devices: vec![BlockLimit { kind: BlockLimitKind::ReadBytes, path: "/dev/vda".into(), value: 5 }],
        ..Resources::default()
    };
    let spec = built(&ContainerRequest { resources, ..request() });
    let limits = spec.linux.expect("linux").resources.expect("limits");
    let (cpu, memory) = (limits.cpu.expect("cpu"), limits.memory.expect("memory"));
    assert_eq!((cpu.shares, cpu.quota, cpu.period, cpu.cpus.as_deref()), (Some(512), Some(5000), None, Some("0-1")));
    assert_eq!((memory.limit, memory.swap, memory.reservation), (Some(64 << 20), Some(-1), Some(32 << 20)));
    let io = limits.block_io.expect("block I/O");
    assert_eq!(io.weight, Some(300));
    let throttle = &io.throttle_read_bps_device[0];
    assert_eq!((throttle.major, throttle.minor, throttle.rate), (254, 0, 5));
}

#[test]
fn what_the_host_or_its_control_groups_lack_is_refused() {
    let with = |resources| ContainerRequest { resources, ..request() };
    let beyond = Resources { cpuset_cpus: Some("0-64".into()), ..Resources::default() };
    assert!(matches!(build(&with(beyond), None, root(), &facts()), Err(BuildError::NoSuchCpus { .. })));
    let version2 = HostFacts {
        cgroup: CgroupLayout::V2 { mount: "/sys/fs/cgroup".into(), controllers: vec![], own: "/".into() },
        ..facts()
    };
    for (resources, option) in [
        (Resources { memory_swappiness: Some(0), ..Resources::default() }, "--memory-swappiness"),
        (Resources { oom_kill_disable: true, ..Resources::default() }, "--oom-kill-disable"),
    ] {
        assert_eq!(build(&with(resources), None, root(), &version2), Err(BuildError::OnlyVersion1 { option }));
    }
}

#[test]
fn ulimits_replace_the_default_of_the_same_name() {
    let of = |ulimits| built(&ContainerRequest { ulimits, ..request() }).process.expect("process").rlimits;
    let limit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
    assert_eq!(of(vec![limit("core", 0, 0)]).len(), 2);
    let own = of(vec![limit("nofile", 10, u64::MAX)]);
    assert_eq!((own.len(), own[0].typ.as_str(), own[0].soft, own[0].hard), (1, "RLIMIT_NOFILE", 10, u64::MAX));
}

#[test]
fn sysctls_come_over_the_defaults_and_need_a_namespace() {
    let sysctls: BTreeMap<_, _> = [
        ("net.ipv4.ip_unprivileged_port_start".to_owned(), "1024".to_owned()),
        ("kernel.shmmax".to_owned(), "1".to_owned()),
    ]
    .into();
    let own = ContainerRequest { sysctls, ..request() };
    let set = built(&own).linux.expect("linux").sysctl;
    assert_eq!(set["net.ipv4.ip_unprivileged_port_start"], "1024");
    assert_eq!((set["kernel.shmmax"].as_str(), set.len()), ("1", 3));
    let shared = ContainerRequest { network: NetworkMode::Host, ..own.clone() };
    assert!(matches!(build(&shared, None, root(), &facts()), Err(BuildError::SharedSysctl { .. })));
    // In a user namespace on the bridge the engine makes them, with the namespace.
    let block = Some("1610612736".parse().expect("a block"));
    assert!(bridge_sysctls(&own, block).contains(&("net.ipv4.ip_unprivileged_port_start".into(), "1024".into())));
    assert!(bridge_sysctls(&own, None).is_empty());
}

#[test]
fn names_sizes_and_annotations_arrive() {
    let wanted = ContainerRequest {
        domainname: Some("example.org".into()),
        shm_size: Some(1 << 20),
        oom_score_adj: Some(500),
        annotations: [("a".to_owned(), "b".to_owned())].into(),
        ..request()
    };
    let spec = built(&wanted);
    assert_eq!((spec.domainname.as_deref(), spec.annotations["a"].as_str()), (Some("example.org"), "b"));
    assert_eq!(spec.process.expect("process").oom_score_adj, Some(500));
    let shm = spec.mounts.iter().find(|m| m.destination == "/dev/shm").expect("shm");
    assert!(shm.options.contains(&"size=1024k".to_owned()), "{:?}", shm.options);
}

#[test]
fn without_root_a_device_is_bound_under_its_other_path() {
    let mut wanted = request();
    wanted.network = NetworkMode::Host;
    let device =
        |host: &str, target: &str| DeviceSpec { host: host.into(), target: target.into(), access: "rwm".into() };
    wanted.devices = vec![device("/dev/null", "/dev/nothing"), device("/dev/fuse", "/dev/fuse")];
    let sources = |facts: &HostFacts| {
        let spec = build(&wanted, None, root(), facts).expect("builds");
        let bound = |m: &Mount| (m.destination.clone(), m.source.clone().unwrap_or_default());
        spec.mounts
            .iter()
            .map(bound)
            .filter(|(target, _)| target.starts_with("/dev/nothing") || target == "/dev/fuse")
            .collect::<Vec<_>>()
    };
    assert_eq!(sources(&facts()), []);
    let user = HostFacts { euid: 1000, egid: 1001, effective_caps: 0, ..facts() };
    assert_eq!(sources(&user), [("/dev/nothing".to_owned(), "/dev/null".to_owned())]);
}

/// As if the host had it under number 42.
pub(super) fn host_device(asked: &DeviceSpec) -> HostDevice {
    let path = asked.target.clone();
    let node = LinuxDevice { typ: "c".into(), path, major: 42, minor: 7, file_mode: None, uid: None, gid: None };
    HostDevice { source: asked.host.clone(), node, access: asked.access.clone() }
}

#[test]
fn a_device_is_made_and_may_be_opened_as_asked() {
    let devices = vec![DeviceSpec { host: "/dev/x".into(), target: "/dev/y".into(), access: "r".into() }];
    let linux = built(&ContainerRequest { devices, ..request() }).linux.expect("linux");
    assert_eq!(linux.devices.iter().map(|d| d.path.as_str()).collect::<Vec<_>>(), ["/dev/y"]);
    let rules = linux.resources.expect("limits").devices;
    let last = rules.last().expect("rules");
    assert_eq!((last.allow, last.major, last.minor, last.access.as_deref()), (true, Some(42), Some(7), Some("r")));
    assert!(!rules[0].allow, "everything else is denied first");
}

#[test]
fn nothing_is_held_back_from_a_privileged_container() {
    let spec = built(&ContainerRequest { privileged: true, ..request() });
    let linux = spec.linux.expect("linux");
    assert!(linux.masked_paths.is_empty() && linux.readonly_paths.is_empty() && linux.seccomp.is_none());
    let rules = linux.resources.expect("limits").devices;
    assert_eq!((rules.len(), rules[0].allow, rules[0].typ.as_deref()), (1, true, None));
    let process = spec.process.expect("process");
    assert_eq!(process.capabilities.expect("sets").bounding.len(), capability::ALL.len());
    assert!(!process.no_new_privileges);
    let writable =
        |path: &str| spec.mounts.iter().any(|m| m.destination == path && m.options.iter().any(|o| o == "rw"));
    assert!(writable("/sys") && writable("/sys/fs/cgroup"));
    // What is said by name still counts.
    let dropped = ContainerRequest { privileged: true, cap_drop: strings(&["SYS_ADMIN"]), ..request() };
    let bounding = built(&dropped).process.expect("process").capabilities.expect("sets").bounding;
    assert!(!bounding.contains(&"CAP_SYS_ADMIN".to_owned()));
}

#[test]
fn namespaces_of_the_host_are_left_out() {
    let shared = SharedNamespaces { pid: true, ipc: true, uts: true, cgroup: true };
    let spec = built(&ContainerRequest { shared, ..request() });
    let kinds: Vec<_> = spec.linux.expect("linux").namespaces.iter().map(|n| n.typ).collect();
    assert_eq!(kinds, [LinuxNamespaceType::Mount, LinuxNamespaceType::Network]);
    assert_eq!(spec.hostname, None);
    let shm = spec.mounts.iter().find(|m| m.destination == "/dev/shm").expect("shm");
    assert_eq!((shm.typ.as_deref(), shm.source.as_deref()), (Some("bind"), Some("/dev/shm")));
    let named = ContainerRequest { shared, hostname: Some("x".into()), ..request() };
    assert_eq!(build(&named, None, root(), &facts()), Err(BuildError::SharedName));
    let sysctls: BTreeMap<_, _> = [("kernel.shmmax".to_owned(), "1".to_owned())].into();
    let shared_ipc = ContainerRequest { shared, sysctls, ..request() };
    assert!(matches!(build(&shared_ipc, None, root(), &facts()), Err(BuildError::SharedSysctl { .. })));
}

#[test]
fn temporary_filesystems_stand_among_the_volumes() {
    let tmpfs = vec![parse_tmpfs("/a/b:size=1m").expect("parses"), parse_tmpfs("/dev/shm").expect("parses")];
    let mounts = vec![parse_volume("/src:/a").expect("parses")];
    let spec = built(&ContainerRequest { tmpfs: tmpfs.clone(), mounts: mounts.clone(), ..request() });
    let at = |path: &str| spec.mounts.iter().position(|m| m.destination == path).expect(path);
    assert!(at("/a") < at("/a/b"));
    assert_eq!(spec.mounts.iter().filter(|m| m.destination == "/dev/shm").count(), 1);
    let twice = ContainerRequest { tmpfs, mounts: vec![parse_volume("/src:/a/b").expect("parses")], ..request() };
    assert!(matches!(build(&twice, None, root(), &facts()), Err(BuildError::DuplicateTarget { .. })));
    let mut flat = mounts;
    flat[0].non_recursive = true;
    let spec = built(&ContainerRequest { mounts: flat, ..request() });
    assert!(spec.mounts.iter().any(|m| m.destination == "/a" && m.options[0] == "bind"));
}

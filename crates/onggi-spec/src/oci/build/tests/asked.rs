//! What options beyond the usual ones become.

use super::*;
use crate::{
    resources::{BlockLimit, BlockLimitKind},
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

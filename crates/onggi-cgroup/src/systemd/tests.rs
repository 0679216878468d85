//! Messages there and back, and units as they are asked for.

use std::collections::BTreeMap;

use onggi_spec::{
    facts::{CgroupLayout, V1Hierarchy},
    oci::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources},
};
use proptest::prelude::*;

use super::{
    wire::{Kind, Message},
    *,
};
use crate::{CgroupRequest, Membership};

fn v2() -> CgroupLayout {
    CgroupLayout::V2 {
        mount: "/cg".into(),
        controllers: vec!["cpu".into(), "memory".into(), "pids".into(), "cpuset".into()],
        own: "/me".into(),
    }
}

fn facts(manager: Manager, version: u32) -> SystemdFacts {
    let control_group = match manager {
        Manager::System => "",
        Manager::User => "/user.slice/user-7.slice/user@7.service",
    };
    let devices = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n".into();
    SystemdFacts { manager, version, control_group: control_group.into(), devices }
}

fn resources() -> LinuxResources {
    let rule = |allow, typ: Option<&str>, major, minor, access: &str| LinuxDeviceCgroup {
        allow,
        typ: typ.map(str::to_owned),
        major,
        minor,
        access: Some(access.into()),
    };
    LinuxResources {
        memory: Some(LinuxMemory {
            limit: Some(1 << 20),
            swap: Some(3 << 20),
            reservation: Some(4096),
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu {
            shares: Some(1024),
            quota: Some(150_500),
            period: Some(100_000),
            cpus: Some("0-1,9".into()),
            ..LinuxCpu::default()
        }),
        pids: Some(LinuxPids { limit: Some(-1) }),
        devices: vec![
            rule(false, None, None, None, "rwm"),
            rule(true, Some("c"), None, None, "m"),
            rule(true, Some("c"), Some(1), Some(3), "rw"),
            rule(true, Some("c"), Some(136), None, "rwm"),
            rule(true, Some("c"), Some(200), None, "rwm"),
        ],
        unified: [("memory.high".to_owned(), "max".to_owned()), ("io.latency".into(), "x".into())].into(),
        ..LinuxResources::default()
    }
}

fn make(
    layout: &CgroupLayout,
    path: Option<&str>,
    resources: &LinuxResources,
    facts: &SystemdFacts,
    annotations: &[(&str, &str)],
) -> Result<crate::CgroupPlan, String> {
    let groups = CgroupRequest { path: "x", resources, membership: Membership::All, rootless: false, owner: None };
    let annotations: BTreeMap<String, String> =
        annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    plan(layout, &groups, &UnitRequest { id: "web", cgroups_path: path, facts, annotations: &annotations })
        .map_err(|e| e.to_string())
}

fn words(plan: &crate::CgroupPlan) -> String {
    let unit = plan.unit.as_ref().expect("unit");
    let properties = unit.properties.iter().map(Property::words);
    [unit.name.clone()].into_iter().chain(properties).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_unit_of_version_2_has_the_limits_that_systemd_knows() {
    let plan = make(
        &v2(),
        Some("test-a.slice:docker:1"),
        &LinuxResources { unified: BTreeMap::new(), ..resources() },
        &facts(Manager::System, 252),
        &[],
    )
    .unwrap();
    insta::assert_snapshot!(words(&plan), @r"
    docker-1.scope
    Description=onggi container web
    Slice=test-a.slice
    Delegate=yes
    MemoryAccounting=yes
    CPUAccounting=yes
    IOAccounting=yes
    TasksAccounting=yes
    DefaultDependencies=no
    DevicePolicy=strict
    DeviceAllow=
    DeviceAllow=char-* m /dev/char/1:3 rw char-136 rwm char-200 rwm
    MemoryMax=1048576
    MemoryLow=4096
    MemorySwapMax=2097152
    CPUWeight=100
    CPUQuotaPeriodUSec=100000
    CPUQuotaPerSecUSec=1510000
    AllowedCPUs=0x03 0x02
    TasksMax=infinity
    ");
    assert_eq!(plan.paths()[""], std::path::Path::new("/cg/test.slice/test-a.slice/docker-1.scope"));
}

#[test]
fn an_old_systemd_is_not_asked_for_what_it_does_not_know() {
    let plan = make(
        &v2(),
        None,
        &LinuxResources { unified: BTreeMap::new(), ..resources() },
        &facts(Manager::System, 239),
        &[],
    )
    .unwrap();
    let text = words(&plan);
    assert!(!text.contains("CPUQuotaPeriodUSec") && !text.contains("AllowedCPUs"), "{text}");
    assert!(text.contains("CPUQuotaPerSecUSec=1510000"), "{text}");
    assert!(text.contains("\nDeviceAllow=char-* m /dev/char/1:3 rw char-pts rwm\n"), "{text}");
}

#[test]
fn a_minor_number_of_every_driver_is_left_to_our_own_filter() {
    let mut asked = LinuxResources { unified: BTreeMap::new(), ..resources() };
    let rule = LinuxDeviceCgroup { minor: Some(229), access: Some("rw".into()), ..asked.devices[1].clone() };
    asked.devices.push(rule);
    let text = words(&make(&v2(), None, &asked, &facts(Manager::System, 252), &[]).unwrap());
    assert!(text.contains("\nDeviceAllow=char-* rwm "), "{text}");
}

#[test]
fn a_user_without_a_path_gets_a_scope_in_his_own_slice() {
    let plan = make(&v2(), None, &LinuxResources::default(), &facts(Manager::User, 252), &[]).unwrap();
    let leaf = "/cg/user.slice/user-7.slice/user@7.service/user.slice/onggi-web.scope";
    assert_eq!(plan.paths()[""], std::path::Path::new(leaf));
    assert!(words(&plan).contains("Slice=user.slice"));
    let v1 = CgroupLayout::V1 { hierarchies: Vec::new(), unified: None };
    let error = make(&v1, None, &LinuxResources::default(), &facts(Manager::User, 252), &[]).unwrap_err();
    assert!(error.contains("cannot use rootless systemd cgroups manager on cgroup v1"), "{error}");
}

#[test]
fn a_unit_of_version_1_is_in_every_hierarchy() {
    let hierarchy = |c: &str| V1Hierarchy { controllers: vec![c.into()], mount: format!("/cg/{c}"), own: "/me".into() };
    let layout = CgroupLayout::V1 { hierarchies: ["memory", "name=systemd"].map(hierarchy).into(), unified: None };
    let memory = LinuxResources { memory: resources().memory, ..LinuxResources::default() };
    let plan = make(&layout, None, &memory, &facts(Manager::System, 252), &[]).unwrap();
    assert_eq!(plan.paths().into_keys().collect::<Vec<_>>(), ["memory", "name=systemd"]);
    assert!(words(&plan).contains("MemoryLimit=1048576\n") || words(&plan).ends_with("MemoryLimit=1048576"));
    assert_eq!(plan.paths()["memory"], std::path::Path::new("/cg/memory/system.slice/onggi-web.scope"));
}

#[test]
fn names_that_are_no_units_are_refused() {
    let sys = facts(Manager::System, 252);
    for path in [
        "/a/b",
        "a:b",
        "a:b:c:d",
        "a.slice:b:c d",
        "a.slice:b:../c",
        "a:b:c",
        "-a.slice:b:c",
        "a--b.slice:b:c",
        "a.slice:b:",
        "a.slice:b:x.slice",
        "a\n.slice:b:c",
    ] {
        assert!(make(&v2(), Some(path), &LinuxResources::default(), &sys, &[]).is_err(), "{path}");
    }
    let root = make(&v2(), Some("-.slice:b:c"), &LinuxResources::default(), &sys, &[]).unwrap();
    assert_eq!(root.paths()[""], std::path::Path::new("/cg/b-c.scope"));
}

#[test]
fn annotations_become_properties_of_their_type_and_nothing_else() {
    let sys = facts(Manager::System, 252);
    let with = |key: &str, value: &str| make(&v2(), None, &LinuxResources::default(), &sys, &[(key, value)]);
    let ok = with("org.systemd.property.TimeoutStopUSec", "uint64 30000000").unwrap();
    assert!(words(&ok).contains("TimeoutStopUSec=30000000"));
    let seconds = with("org.systemd.property.RuntimeMaxSec", "2.5").unwrap();
    assert!(words(&seconds).contains("RuntimeMaxUSec=2500000"));
    let list = with("org.systemd.property.After", "['crio.service']").unwrap();
    assert!(words(&list).contains("After=crio.service"));
    assert!(with("org.example.other", "nonsense").is_ok());
    for (name, value) in [
        ("A", "1"),
        ("Memory-Max", "1"),
        ("Memory\nMax", "1"),
        ("X=Y", "1"),
        ("TimeoutSec", "'x'"),
        ("Name", "x"),
        ("PIDs", "@au [1]"),
        ("Slice", "'a.slice'"),
        ("TimeoutStopSec", "-1"),
    ] {
        assert!(with(&format!("org.systemd.property.{name}"), value).is_err(), "{name}");
    }
}

#[test]
fn unified_limits_reach_systemd_under_its_names() {
    let unified = [
        ("memory.high", "max"),
        ("cpu.max", "5000 50000"),
        ("cpu.weight", " 42 "),
        ("pids.max", "99"),
        ("cpuset.cpus", "0"),
        ("io.max", "8:0 rbps=1"),
    ];
    let resources = LinuxResources {
        unified: unified.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..LinuxResources::default()
    };
    let properties = update_properties(true, &resources, &facts(Manager::System, 252)).unwrap();
    insta::assert_snapshot!(properties.iter().map(Property::words).collect::<Vec<_>>().join("\n"), @r"
    CPUQuotaPeriodUSec=50000
    CPUQuotaPerSecUSec=100000
    CPUWeight=42
    AllowedCPUs=0x01
    MemoryHigh=infinity
    TasksMax=99
    ");
    let wrong =
        LinuxResources { unified: [("pids.max".to_owned(), "many".to_owned())].into(), ..LinuxResources::default() };
    assert!(update_properties(true, &wrong, &facts(Manager::System, 252)).is_err());
}

#[test]
fn a_call_has_the_bytes_of_the_specification() {
    let mut call = Message::call(1, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello");
    call.body.push(Value::str("x"));
    let bytes = call.encode().unwrap();
    assert_eq!(bytes[..4], *b"l\x01\0\x01");
    assert_eq!(u32::from_le_bytes(bytes[4..8].try_into().unwrap()), 6);
    assert_eq!(bytes.len() % 8, 6);
    assert_eq!(bytes[bytes.len() - 6..], *b"\x01\0\0\0x\0");
    assert_eq!(Message::decode(&bytes).unwrap(), call);
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<u8>().prop_map(Value::Byte),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<u64>().prop_map(Value::U64),
        "[a-z ]{0,9}".prop_map(Value::Str),
        Just(Value::F64(0.5)),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Value::Struct),
            (inner.clone(), 0usize..4).prop_map(|(v, n)| Value::Array(v.signature(), vec![v; n])),
            inner.prop_map(|v| Value::Variant(Box::new(v))),
        ]
    })
}

proptest! {
    #[test]
    fn messages_are_read_as_they_were_written(body in proptest::collection::vec(values(), 0..4), serial in 1u32..) {
        let mut message = Message::call(serial, "a.b", "/c", "d.e", "F");
        message.kind = Kind::Signal;
        message.body = body;
        let bytes = message.encode().unwrap();
        prop_assert_eq!(Message::length(bytes[..16].try_into().unwrap()).unwrap(), bytes.len());
        prop_assert_eq!(Message::decode(&bytes).unwrap(), message);
    }

    #[test]
    fn damaged_messages_are_refused_or_read_but_never_panic(body in proptest::collection::vec(values(), 0..3), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut message = Message::call(1, "a.b", "/c", "d.e", "F");
        message.body = body;
        let mut bytes = message.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Message::decode(&bytes);
        let _ = Message::decode(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn bytes_of_any_content_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&bytes);
        if let Ok(head) = <[u8; 16]>::try_from(bytes.get(..16).unwrap_or_default()) {
            let _ = Message::length(&head);
        }
    }
}

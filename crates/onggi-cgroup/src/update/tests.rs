//! What was set, what shall change, and which writes come out.

use std::path::PathBuf;

use onggi_spec::oci::runtime::{LinuxDeviceCgroup, LinuxPids};

use super::*;

fn v2_layout() -> CgroupLayout {
    CgroupLayout::V2 { mount: "/cg".into(), controllers: vec!["cpu".into(), "memory".into()], own: "/me".into() }
}

fn cpu(quota: Option<i64>, period: Option<u64>) -> LinuxResources {
    let cpu = LinuxCpu { quota, period, ..LinuxCpu::default() };
    LinuxResources { cpu: Some(cpu), ..LinuxResources::default() }
}

fn memory(limit: Option<i64>, swap: Option<i64>) -> LinuxResources {
    let memory = LinuxMemory { limit, swap, ..LinuxMemory::default() };
    LinuxResources { memory: Some(memory), ..LinuxResources::default() }
}

fn v2(before: &LinuxResources, change: &LinuxResources) -> Result<Vec<String>, String> {
    let paths = Paths::from([(String::new(), PathBuf::from("/cg/x"))]);
    let (plan, _) = plan_update(&v2_layout(), &paths, "/x", (before, change)).map_err(|e| e.to_string())?;
    Ok(plan.writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect())
}

#[test]
fn quota_and_period_of_version_2_are_completed_from_what_was_set() {
    let before = cpu(Some(500_000), Some(1_000_000));
    assert_eq!(v2(&before, &cpu(None, Some(900_000))).unwrap(), ["cpu.max=500000 900000"]);
    assert_eq!(v2(&before, &cpu(Some(600_000), None)).unwrap(), ["cpu.max=600000 1000000"]);
    assert_eq!(v2(&before, &cpu(Some(-1), None)).unwrap(), ["cpu.max=max 1000000"]);
    assert_eq!(v2(&LinuxResources::default(), &cpu(Some(30_000), None)).unwrap(), ["cpu.max=30000 100000"]);
    assert_eq!(v2(&LinuxResources::default(), &cpu(None, Some(50_000))).unwrap(), ["cpu.max=max 50000"]);
}

#[test]
fn what_is_left_out_is_not_written_again() {
    let before = memory(Some(1 << 20), Some(2 << 20));
    assert_eq!(v2(&before, &memory(Some(3 << 19), None)).unwrap(), ["memory.max=1572864"]);
    assert_eq!(v2(&before, &memory(None, Some(4 << 20))).unwrap(), ["memory.max=1048576", "memory.swap.max=3145728"]);
    assert_eq!(v2(&before, &memory(Some(-1), None)).unwrap(), ["memory.max=max", "memory.swap.max=max"]);
    assert!(v2(&LinuxResources::default(), &memory(None, Some(4096))).unwrap_err().contains("without memory limit"));
    assert!(v2(&LinuxResources::default(), &memory(None, Some(0))).unwrap().is_empty());
}

#[test]
fn an_update_is_remembered_member_by_member() {
    let before = LinuxResources { pids: Some(LinuxPids { limit: Some(7) }), ..cpu(Some(1), Some(2)) };
    let all = merged(&merged(&before, &cpu(Some(5), None)), &memory(Some(-1), None));
    assert_eq!(all.cpu, cpu(Some(5), Some(2)).cpu);
    assert_eq!(all.memory.unwrap().swap, Some(-1));
    assert_eq!(all.pids, before.pids);
}

#[test]
fn a_container_of_version_1_enters_a_hierarchy_when_something_is_limited_there() {
    let hierarchy = |c: &str| onggi_spec::facts::V1Hierarchy {
        controllers: vec![c.into()],
        mount: format!("/cg/{c}"),
        own: "/".into(),
    };
    let layout = CgroupLayout::V1 { hierarchies: vec![hierarchy("cpu"), hierarchy("pids")], unified: None };
    let paths = Paths::from([("cpu".to_owned(), PathBuf::from("/cg/cpu/a/x"))]);
    let change = LinuxResources { pids: Some(LinuxPids { limit: Some(7) }), ..LinuxResources::default() };
    let (plan, _) = plan_update(&layout, &paths, "/a/x", (&LinuxResources::default(), &change)).unwrap();
    assert_eq!(plan.enter, Paths::from([("pids".to_owned(), PathBuf::from("/cg/pids/a/x"))]));
    assert_eq!(plan.prepare.len(), 2);
    assert_eq!(plan.writes[0].path, PathBuf::from("/cg/pids/a/x"));
    let none = CgroupLayout::V1 { hierarchies: vec![hierarchy("cpu")], unified: None };
    let error = plan_update(&none, &paths, "/a/x", (&LinuxResources::default(), &change)).unwrap_err();
    assert!(error.to_string().contains("the requested cgroup controller `pids` is not available"), "{error}");
}

#[test]
fn device_rules_replace_those_before_as_a_whole() {
    let rule =
        |allow, major| LinuxDeviceCgroup { allow, typ: Some("c".into()), major: Some(major), ..Default::default() };
    let change = LinuxResources { devices: vec![rule(true, 10)], ..LinuxResources::default() };
    let before = LinuxResources { devices: vec![rule(true, 1)], ..LinuxResources::default() };
    let paths = Paths::from([(String::new(), PathBuf::from("/cg/x"))]);
    let (plan, after) = plan_update(&v2_layout(), &paths, "/x", (&before, &change)).unwrap();
    assert_eq!(plan.devices.unwrap().1.len(), 1);
    assert!(plan.writes.is_empty());
    assert_eq!(after.devices, change.devices);
}

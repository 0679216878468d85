//! Plans as they come out: a request and a layout in, the operations as text.

use onggi_spec::oci::runtime::{LinuxCpu, LinuxMemory, LinuxPids};
use proptest::prelude::*;

use super::*;

fn hybrid() -> CgroupLayout {
    let hierarchy = |controllers: &[&str]| V1Hierarchy {
        controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
        mount: format!("/cg/{}", controllers.join(",")),
        own: "/me".into(),
    };
    CgroupLayout::V1 {
        hierarchies: vec![
            hierarchy(&["cpu", "cpuacct"]),
            hierarchy(&["cpuset"]),
            hierarchy(&["memory"]),
            hierarchy(&["pids"]),
        ],
        unified: Some("/cg/unified".into()),
    }
}

fn v2(controllers: &[&str]) -> CgroupLayout {
    CgroupLayout::V2 {
        mount: "/cg".into(),
        controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
        own: "/me".into(),
    }
}

fn limits() -> LinuxResources {
    LinuxResources {
        memory: Some(LinuxMemory { limit: Some(512 << 20), swap: Some(1 << 30), ..LinuxMemory::default() }),
        cpu: Some(LinuxCpu {
            shares: Some(512),
            quota: Some(150_000),
            period: Some(100_000),
            cpus: Some("0-1".into()),
            ..LinuxCpu::default()
        }),
        pids: Some(LinuxPids { limit: Some(100) }),
        ..LinuxResources::default()
    }
}

fn make(
    layout: &CgroupLayout,
    path: &str,
    resources: &LinuxResources,
    rootless: bool,
) -> Result<CgroupPlan, CgroupError> {
    plan(layout, &CgroupRequest { path, resources, membership: Membership::Needed, rootless, owner: None })
}

/// One line per operation, as a person would write it down.
fn text(plan: &CgroupPlan) -> String {
    let prepare = plan.prepare.iter().map(|step| match step {
        Prepare::MakeDir { path, own } => format!("mkdir {}{}", path.display(), if *own { " *" } else { "" }),
        Prepare::Inherit { path, file } => format!("inherit {}/{file}", path.display()),
        Prepare::Enable { path, required, wanted } => {
            format!("enable {} {} ({})", path.display(), required.join("+"), wanted.join("+"))
        }
        Prepare::Delegate { path, uid } => format!("chown {uid} {}", path.display()),
    });
    let writes = plan.writes.iter().map(|w| {
        let mark = if w.optional { "?" } else { "" };
        format!("{}/{}{mark} = {}", w.path.display(), w.file, w.value)
    });
    let join = plan.join.clone_into.iter().map(|p| format!("clone into {}", p.display()));
    let tasks = plan.join.tasks.iter().map(|p| format!("join {}", p.display()));
    prepare.chain(writes).chain(join).chain(tasks).collect::<Vec<_>>().join("\n")
}

#[test]
fn limits_on_a_hybrid_machine() {
    let plan = make(&hybrid(), "/onggi/x", &limits(), false).expect("plan");
    insta::assert_snapshot!(text(&plan), @r"
    mkdir /cg/cpu,cpuacct/onggi
    mkdir /cg/cpu,cpuacct/onggi/x *
    mkdir /cg/cpuset/onggi
    inherit /cg/cpuset/onggi/cpuset.cpus
    inherit /cg/cpuset/onggi/cpuset.mems
    mkdir /cg/cpuset/onggi/x *
    inherit /cg/cpuset/onggi/x/cpuset.cpus
    inherit /cg/cpuset/onggi/x/cpuset.mems
    mkdir /cg/memory/onggi
    mkdir /cg/memory/onggi/x *
    mkdir /cg/pids/onggi
    mkdir /cg/pids/onggi/x *
    mkdir /cg/unified/onggi
    mkdir /cg/unified/onggi/x *
    /cg/cpuset/onggi/x/cpuset.cpus = 0-1
    /cg/cpu,cpuacct/onggi/x/cpu.shares = 512
    /cg/cpu,cpuacct/onggi/x/cpu.cfs_period_us = 100000
    /cg/cpu,cpuacct/onggi/x/cpu.cfs_quota_us = 150000
    /cg/memory/onggi/x/memory.limit_in_bytes = 536870912
    /cg/memory/onggi/x/memory.memsw.limit_in_bytes? = 1073741824
    /cg/pids/onggi/x/pids.max = 100
    clone into /cg/unified/onggi/x
    join /cg/cpu,cpuacct/onggi/x/tasks
    join /cg/cpuset/onggi/x/tasks
    join /cg/memory/onggi/x/tasks
    join /cg/pids/onggi/x/tasks
    ");
}

#[test]
fn limits_on_a_v2_machine() {
    let plan =
        make(&v2(&["cpuset", "cpu", "io", "memory", "pids", "misc"]), "/onggi/x", &limits(), false).expect("plan");
    insta::assert_snapshot!(text(&plan), @r"
    enable /cg cpuset+cpu+memory+pids (cpuset+cpu+io+memory+pids)
    mkdir /cg/onggi
    enable /cg/onggi cpuset+cpu+memory+pids (cpuset+cpu+io+memory+pids)
    mkdir /cg/onggi/x *
    /cg/onggi/x/cpuset.cpus = 0-1
    /cg/onggi/x/cpu.weight = 59
    /cg/onggi/x/cpu.max = 150000 100000
    /cg/onggi/x/memory.max = 536870912
    /cg/onggi/x/memory.swap.max? = 536870912
    /cg/onggi/x/pids.max = 100
    clone into /cg/onggi/x
    ");
}

#[test]
fn a_relative_path_begins_at_our_own_group_or_beside_it_on_version_2() {
    let plan = make(&hybrid(), "a", &LinuxResources::default(), false).expect("plan");
    assert_eq!(plan.paths()["memory"], PathBuf::from("/cg/memory/me/a"));
    let plan = make(&v2(&[]), "a", &LinuxResources::default(), false).expect("plan");
    assert_eq!(plan.paths()[""], PathBuf::from("/cg/a"));
}

#[test]
fn controllers_of_one_hierarchy_share_a_directory_and_are_joined_once() {
    let plan = make(&hybrid(), "/x", &limits(), false).expect("plan");
    assert_eq!(plan.paths()["cpu"], plan.paths()["cpuacct"]);
    assert_eq!(plan.join.tasks.len(), 4);
}

#[test]
fn only_hierarchies_that_limit_or_count_or_that_programs_look_for_are_entered() {
    let none = LinuxResources::default();
    let hybrid_plan = make(&hybrid(), "/x", &none, false).expect("plan");
    assert_eq!(hybrid_plan.paths().into_keys().collect::<Vec<_>>(), ["", "cpu", "cpuacct", "cpuset", "memory"]);
    let ready = |file: &str| Prepare::Inherit { path: "/cg/cpuset/x".into(), file: file.into() };
    assert!(["cpuset.cpus", "cpuset.mems"].iter().all(|file| hybrid_plan.prepare.contains(&ready(file))));
    // Without the unified hierarchy, freezing, counting and membership need version 1.
    let CgroupLayout::V1 { hierarchies, .. } = hybrid() else { panic!("hybrid is v1") };
    let v1_plan = make(&CgroupLayout::V1 { hierarchies, unified: None }, "/x", &none, false).expect("plan");
    assert_eq!(v1_plan.paths().into_keys().collect::<Vec<_>>(), ["cpu", "cpuacct", "cpuset", "memory", "pids"]);
    assert_eq!(v1_plan.join.clone_into, None);
}

#[test]
fn possible_paths_hold_those_of_every_plan() {
    for layout in [hybrid(), v2(&["memory", "cpu", "cpuset", "pids"]), CgroupLayout::None] {
        let possible = possible_paths(&layout, "/x/y").expect("paths");
        for resources in [LinuxResources::default(), limits()] {
            // Without cgroups a limit is refused, so there is no plan to cover.
            let Ok(plan) = make(&layout, "/x/y", &resources, false) else { continue };
            assert!(plan.paths().iter().all(|(c, p)| possible.get(c) == Some(p)), "{possible:?}");
        }
    }
}

#[test]
fn a_limit_without_its_controller_is_an_error_that_names_both() {
    let error = make(&v2(&["cpuset", "cpu", "pids"]), "/x", &limits(), false).expect_err("no memory controller");
    assert_eq!(
        error.to_string(),
        "the requested cgroup controller `memory` is not available, so the memory limit of 512 MiB cannot be kept"
    );
    assert!(error.hint().is_some_and(|h| h.contains("leave the limit out")));
}

#[test]
fn without_limits_absent_controllers_do_not_matter() {
    let plan = make(&v2(&[]), "/x", &LinuxResources::default(), false).expect("plan");
    assert!(plan.writes.is_empty());
}

#[test]
fn a_rootless_limit_is_an_error_and_no_limit_means_no_cgroup() {
    let error = make(&CgroupLayout::None, "/x", &limits(), true).expect_err("rootless limit");
    assert!(matches!(error, CgroupError::Rootless { .. }), "{error}");
    let none = make(&CgroupLayout::None, "/x", &LinuxResources::default(), true).expect("plan");
    assert_eq!(none, CgroupPlan::default());
}

#[test]
fn no_cgroup_filesystem_allows_only_containers_without_limits() {
    let error = make(&CgroupLayout::None, "/x", &limits(), false).expect_err("limit without cgroups");
    assert!(matches!(error, CgroupError::NotMounted { .. }), "{error}");
    assert_eq!(
        make(&CgroupLayout::None, "/x", &LinuxResources::default(), false).expect("plan"),
        CgroupPlan::default()
    );
}

#[test]
fn paths_that_are_the_root_are_refused_and_none_climbs_above_it() {
    for path in ["", "/", "//", "/.", "/a/../..", "a/..", "..", "/a\nb", "/a\0"] {
        let refused = make(&hybrid(), path, &LinuxResources::default(), false);
        assert!(matches!(refused, Err(CgroupError::BadPath { .. })), "{path:?}: {refused:?}");
    }
    assert!(make(&hybrid(), "/a:b/c:d:e", &LinuxResources::default(), false).is_ok());
    let climbing = make(&v2(&[]), "/../../x", &LinuxResources::default(), false).expect("plan");
    assert_eq!(climbing.paths()[""], Path::new("/cg/x"));
}

#[test]
fn values_outside_their_range_are_refused_with_the_member_name() {
    let memory = |m: LinuxMemory| LinuxResources { memory: Some(m), ..LinuxResources::default() };
    let refused = [
        memory(LinuxMemory { limit: Some(-2), ..LinuxMemory::default() }),
        memory(LinuxMemory { limit: Some(10), swap: Some(5), ..LinuxMemory::default() }),
        memory(LinuxMemory { swappiness: Some(101), ..LinuxMemory::default() }),
        LinuxResources {
            cpu: Some(LinuxCpu { cpus: Some("0;1".into()), ..LinuxCpu::default() }),
            ..LinuxResources::default()
        },
    ];
    for resources in refused {
        let error = make(&hybrid(), "/x", &resources, false).expect_err("out of range");
        assert!(error.to_string().starts_with("linux.resources."), "{error}");
    }
}

#[test]
fn what_version_2_has_no_file_for_is_a_note() {
    let resources = LinuxResources {
        memory: Some(LinuxMemory { disable_oom_killer: Some(true), ..LinuxMemory::default() }),
        ..LinuxResources::default()
    };
    let plan = make(&v2(&["memory"]), "/x", &resources, false).expect("plan");
    assert_eq!(plan.notes, ["a disabled OOM killer cannot be set with cgroup version 2 and is ignored"]);
    assert!(plan.writes.is_empty());
}

#[test]
fn unified_on_version_1_is_an_invalid_configuration() {
    let resources = LinuxResources { unified: [("memory.min".into(), "1".into())].into(), ..LinuxResources::default() };
    let error = make(&hybrid(), "/x", &resources, false).expect_err("version 1");
    assert!(error.to_string().starts_with("invalid configuration: cannot use unified on cgroup v1"), "{error}");
}

#[test]
fn other_runtimes_callers_find_a_directory_in_every_hierarchy() {
    let resources = LinuxResources::default();
    let request = CgroupRequest {
        path: "/x",
        resources: &resources,
        membership: Membership::All,
        rootless: false,
        owner: Some(7),
    };
    let plan = super::plan(&hybrid(), &request).expect("plan");
    assert_eq!(plan.paths().into_keys().collect::<Vec<_>>(), ["", "cpu", "cpuacct", "cpuset", "memory", "pids"]);
    let plan = super::plan(&v2(&["cpu", "misc"]), &request).expect("plan");
    insta::assert_snapshot!(text(&plan), @r"
    enable /cg  (cpu+misc)
    mkdir /cg/x *
    chown 7 /cg/x
    clone into /cg/x
    ");
}

#[test]
fn unified_sets_limits_but_never_moves_kills_or_freezes() {
    let unified = |file: &str| LinuxResources {
        unified: [(file.to_owned(), "1".to_owned())].into(),
        ..LinuxResources::default()
    };
    let layout = v2(&["memory"]);
    let plan_of = |file: &str| make(&layout, "/x", &unified(file), false);
    let plan = plan_of("memory.high").expect("plan");
    assert_eq!(plan.writes.last().map(|w| w.file.as_str()), Some("memory.high"));
    assert!(plan_of("cgroup.max.descendants").is_ok());
    assert!(matches!(plan_of("hugetlb.2MB.max"), Err(CgroupError::ControllerMissing { .. })));
    for file in ["cgroup.procs", "cgroup.kill", "cgroup.freeze"] {
        assert!(matches!(plan_of(file), Err(CgroupError::BadValue { .. })), "{file}");
    }
    for file in ["../x.y", "memory", ".x", "a/b.c"] {
        assert!(matches!(plan_of(file), Err(CgroupError::UnifiedKey { .. })), "{file}");
    }
}

#[test]
fn unified_values_win_over_those_of_other_fields() {
    let resources: LinuxResources = serde_json::from_value(serde_json::json!({
        "memory": { "limit": 33_554_432 }, "pids": { "limit": 7 },
        "cpu": { "shares": 3333, "quota": 40_000, "period": 100_000 },
        "unified": {
            "memory.min": "131072", "memory.max": "10485760", "pids.max": "42", "cpu.max": "5000 50000", "cpu.weight": "42"
        },
    }))
    .expect("resources");
    let plan = make(&v2(&["memory", "cpu", "pids"]), "/x", &resources, false).expect("plan");
    for (file, value) in &resources.unified {
        let last = plan.writes.iter().rfind(|w| w.file == *file).map(|w| w.value.as_str());
        assert_eq!(last, Some(value.as_str()), "{file}");
    }
}

#[test]
fn a_plan_survives_json() {
    let plan = make(&hybrid(), "/onggi/x", &limits(), false).expect("plan");
    let json = serde_json::to_string(&plan).expect("encode");
    assert_eq!(serde_json::from_str::<CgroupPlan>(&json).expect("decode"), plan);
}

proptest! {
    #[test]
    fn no_path_leads_out_of_the_hierarchy(path in "[a-z./:]{0,24}", rel in any::<bool>()) {
        let path = if rel { path } else { format!("/{path}") };
        for layout in [hybrid(), v2(&["memory"])] {
            if let Ok(plan) = make(&layout, &path, &LinuxResources::default(), false) {
                for dir in &plan.dirs {
                    prop_assert!(dir.path.starts_with("/cg") && dir.path != Path::new("/cg"));
                    prop_assert!(dir.path.components().all(|c| c.as_os_str() != ".."));
                }
            }
        }
    }

    #[test]
    fn any_numbers_are_planned_or_refused_without_panic(
        limit in any::<Option<i64>>(), swap in any::<Option<i64>>(), shares in any::<Option<u64>>(),
        quota in any::<Option<i64>>(), period in any::<Option<u64>>(), pids in any::<Option<i64>>(),
    ) {
        let resources = LinuxResources {
            memory: Some(LinuxMemory { limit, swap, ..LinuxMemory::default() }),
            cpu: Some(LinuxCpu { shares, quota, period, ..LinuxCpu::default() }),
            pids: Some(LinuxPids { limit: pids }),
            ..LinuxResources::default()
        };
        for layout in [hybrid(), v2(&["memory", "cpu", "pids"])] {
            let _ = make(&layout, "/x", &resources, false);
        }
    }
}

//! The plans on this machine's own hierarchies, below directories of their own. Needs root.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use onggi_cgroup::{
    CgroupError, CgroupPlan, CgroupRequest, Membership, Paths, apply_create, freeze, is_frozen, kill_all, layout,
    oom_count, pids, plan, remove, stats, thaw,
};
use onggi_spec::{
    facts::CgroupLayout,
    oci::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources},
};

/// Groups of one test; removed when it ends, however it ends.
struct Groups {
    plan: CgroupPlan,
    paths: Paths,
}

impl Groups {
    fn plan(layout: &CgroupLayout, resources: &LinuxResources) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = format!("/onggi-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let request =
            CgroupRequest { path: &path, resources, membership: Membership::Needed, rootless: false, owner: None };
        let plan = plan(layout, &request).expect("plan");
        Self { paths: plan.paths(), plan }
    }

    fn make(layout: &CgroupLayout, resources: &LinuxResources) -> Self {
        let groups = Self::plan(layout, resources);
        apply_create(&groups.plan).expect("apply");
        groups
    }

    /// Runs a shell command that has entered the groups as a container's first process does.
    fn spawn(&self, command: &str) -> Child {
        let unified = self.plan.join.clone_into.iter().map(|dir| dir.join("cgroup.procs"));
        let files = unified.chain(self.plan.join.tasks.iter().cloned());
        let join: String = files.map(|f| format!("echo 0 > {} && ", f.display())).collect();
        Command::new("sh")
            .args(["-c", &format!("{join} {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawn")
    }

    /// Waits until the groups have `count` processes or more.
    fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while pids(&self.paths).expect("pids").len() < count {
            assert!(Instant::now() < deadline, "never {count} processes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn read(&self, controller: &str, file: &str) -> String {
        let path = self.paths[controller].join(file);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
    }

    fn assert_gone(&self) {
        for dir in self.paths.values() {
            assert!(!dir.exists(), "{} is left", dir.display());
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // A test that fails half-way must not leave groups behind; its own failure is the one to show.
        let _ = remove(&self.paths);
    }
}

fn host() -> CgroupLayout {
    layout::detect().expect("layout")
}

/// This machine without its unified hierarchy, when it has version 1.
fn pure_v1() -> Option<CgroupLayout> {
    match host() {
        CgroupLayout::V1 { hierarchies, .. } => Some(CgroupLayout::V1 { hierarchies, unified: None }),
        _ => None,
    }
}

fn has(layout: &CgroupLayout, controller: &str) -> bool {
    match layout {
        CgroupLayout::V1 { hierarchies, .. } => {
            hierarchies.iter().any(|h| h.controllers.iter().any(|c| c == controller))
        }
        CgroupLayout::V2 { controllers, .. } => controllers.iter().any(|c| c == controller),
        CgroupLayout::None => false,
    }
}

fn memory(limit: i64) -> LinuxResources {
    let memory = LinuxMemory { limit: Some(limit), swap: Some(limit), ..LinuxMemory::default() };
    LinuxResources { memory: Some(memory), ..LinuxResources::default() }
}

fn nothing() -> LinuxResources {
    LinuxResources::default()
}

#[test]
fn root_limits_reach_the_kernel_and_removal_leaves_nothing() {
    let layout = host();
    let CgroupLayout::V1 { .. } = layout else { return };
    let resources = LinuxResources {
        cpu: Some(LinuxCpu {
            shares: Some(512),
            quota: Some(150_000),
            period: Some(100_000),
            cpus: Some("0".into()),
            ..LinuxCpu::default()
        }),
        pids: Some(LinuxPids { limit: Some(77) }),
        ..memory(64 << 20)
    };
    let groups = Groups::make(&layout, &resources);
    assert_eq!(groups.read("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(groups.read("cpu", "cpu.shares"), "512");
    assert_eq!(groups.read("cpu", "cpu.cfs_quota_us"), "150000");
    assert_eq!(groups.read("cpuset", "cpuset.cpus"), "0");
    assert_ne!(groups.read("cpuset", "cpuset.mems"), "");
    assert_eq!(groups.read("pids", "pids.max"), "77");

    // The file appears when the shell is in all of its groups.
    let dir = tempfile::tempdir().expect("tempdir");
    let inside = dir.path().join("inside");
    let mut child = groups.spawn(&format!(": > {} && exec sleep 1000", inside.display()));
    while !inside.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(pids(&groups.paths).expect("pids"), [child.id() as i32]);
    let seen = stats(&groups.paths).expect("stats");
    assert_eq!((seen.memory_limit, seen.pids_limit, seen.pids), (Some(64 << 20), Some(77), 1));
    assert!(seen.memory > 0 && seen.cpu_ns > 0);

    remove(&groups.paths).expect("remove");
    groups.assert_gone();
    assert!(!child.wait().expect("reap").success());
    remove(&groups.paths).expect("remove again");
}

#[test]
fn root_a_forking_crowd_is_killed_on_both_kinds_of_layout() {
    for layout in [Some(host()), pure_v1()].into_iter().flatten() {
        let limit = LinuxResources { pids: Some(LinuxPids { limit: Some(60) }), ..nothing() };
        let groups = Groups::make(&layout, &limit);
        let mut child = groups.spawn("trap '' TERM INT HUP; while :; do sleep 0.01 & done");
        groups.wait_for(10);
        remove(&groups.paths).expect("remove");
        groups.assert_gone();
        child.wait().expect("reap");
    }
}

#[test]
fn root_groups_that_the_container_made_are_removed_too() {
    for layout in [Some(host()), pure_v1()].into_iter().flatten() {
        let groups = Groups::make(&layout, &nothing());
        for dir in groups.paths.values() {
            fs::create_dir_all(dir.join("a/b")).expect("mkdir");
            fs::create_dir_all(dir.join("c")).expect("mkdir");
        }
        let nested = match groups.paths.get("memory") {
            Some(v1) => v1.join("a/b/tasks"),
            None => groups.paths[""].join("a/b/cgroup.procs"),
        };
        let mut child = groups.spawn(&format!("echo 0 > {} && exec sleep 1000", nested.display()));
        groups.wait_for(1);
        kill_all(&groups.paths).expect("kill");
        remove(&groups.paths).expect("remove");
        groups.assert_gone();
        child.wait().expect("reap");
    }
}

#[test]
fn root_frozen_processes_stand_still_run_again_and_can_be_removed_frozen() {
    for layout in [Some(host()), pure_v1()].into_iter().flatten() {
        let groups = Groups::make(&layout, &nothing());
        let dir = tempfile::tempdir().expect("tempdir");
        let counter = dir.path().join("n");
        let mut child = groups.spawn(&format!("while :; do echo x >> {}; done", counter.display()));
        let length = || fs::metadata(&counter).map_or(0, |m| m.len());
        let grows_from = |from: u64| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while length() <= from {
                assert!(Instant::now() < deadline, "it does not run");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        grows_from(0);
        freeze(&groups.paths).expect("freeze");
        assert!(is_frozen(&groups.paths).expect("state"));
        let before = length();
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(length(), before);
        thaw(&groups.paths).expect("thaw");
        assert!(!is_frozen(&groups.paths).expect("state"));
        grows_from(before);
        freeze(&groups.paths).expect("freeze");
        remove(&groups.paths).expect("remove");
        groups.assert_gone();
        child.wait().expect("reap");
    }
}

#[test]
fn root_an_oom_kill_is_counted() {
    let layout = host();
    if !has(&layout, "memory") {
        return;
    }
    let groups = Groups::make(&layout, &memory(16 << 20));
    assert_eq!(oom_count(&groups.paths).expect("count"), 0);
    // tail keeps the last line, and /dev/zero has no end of line.
    let status = groups.spawn("exec tail /dev/zero").wait().expect("wait");
    assert!(!status.success());
    assert!(oom_count(&groups.paths).expect("count") >= 1);
}

#[test]
fn root_a_refused_limit_leaves_no_directory() {
    let layout = host();
    if !has(&layout, "cpuset") {
        return;
    }
    let cpu = LinuxCpu { cpus: Some("8000".into()), ..LinuxCpu::default() };
    let groups = Groups::plan(&layout, &LinuxResources { cpu: Some(cpu), ..memory(64 << 20) });
    let error = apply_create(&groups.plan).expect_err("no such CPU");
    assert!(error.to_string().starts_with("set the binding to CPUs 8000: write \"8000\" to "), "{error}");
    assert_eq!(error.call(), "write");
    assert_ne!(error.errno(), 0);
    groups.assert_gone();
}

#[test]
fn root_a_group_in_use_is_not_shared_and_not_removed() {
    let groups = Groups::make(&host(), &nothing());
    let mut child = groups.spawn("exec sleep 1000");
    groups.wait_for(1);
    let refused = apply_create(&groups.plan).expect_err("in use");
    assert!(matches!(refused, CgroupError::InUse { .. }), "{refused}");
    assert_eq!(pids(&groups.paths).expect("pids").len(), 1);
    remove(&groups.paths).expect("remove");
    child.wait().expect("reap");
}

#[test]
fn root_an_empty_left_over_group_is_taken() {
    let groups = Groups::make(&host(), &nothing());
    apply_create(&groups.plan).expect("apply again");
}

/// The unified hierarchy alone, as a version 2 machine without controllers.
fn pure_v2() -> Option<CgroupLayout> {
    match host() {
        CgroupLayout::V1 { unified: Some(mount), .. } => {
            Some(CgroupLayout::V2 { mount, controllers: Vec::new(), own: "/".into() })
        }
        other @ CgroupLayout::V2 { .. } => Some(other),
        _ => None,
    }
}

#[test]
fn root_device_rules_hold_on_both_versions() {
    let rule = |allow, minor: Option<i64>, access: &str| LinuxDeviceCgroup {
        allow,
        typ: minor.map(|_| "c".into()),
        major: minor.map(|_| 1),
        minor,
        access: Some(access.into()),
    };
    let devices = vec![rule(false, None, "rwm"), rule(true, Some(3), "rwm"), rule(true, Some(5), "r")];
    for layout in [Some(host()), pure_v2()].into_iter().flatten() {
        let groups = Groups::make(&layout, &LinuxResources { devices: devices.clone(), ..nothing() });
        let succeeds = |command: &str| groups.spawn(command).wait().expect("wait").success();
        assert!(succeeds("head -c1 < /dev/null"), "{layout:?}");
        assert!(succeeds(": > /dev/null"));
        assert!(succeeds("head -c1 < /dev/zero"));
        assert!(!succeeds(": > /dev/zero"));
        assert!(!succeeds("head -c1 < /dev/urandom"));
        let dir = tempfile::tempdir().expect("tempdir");
        let mknod = |minor: u8| succeeds(&format!("mknod {}/{minor} c 1 {minor}", dir.path().display()));
        assert!(mknod(3));
        assert!(!mknod(5));
    }
}

/// Offers a controller of the unified hierarchy for the time of a test.
struct Offered<'d>(&'d Path, bool);

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        if self.1 {
            // As it was before; a failure here shows in the suite's leak check.
            let _ = fs::write(self.0.join("cgroup.subtree_control"), "-hugetlb");
        }
    }
}

#[test]
fn root_version_2_controllers_are_enabled_on_the_way_down() {
    let CgroupLayout::V1 { unified: Some(mount), .. } = host() else { return };
    let root = Path::new(&mount);
    let read = |file: &str| fs::read_to_string(root.join(file)).expect("read");
    if !read("cgroup.controllers").contains("hugetlb") {
        return;
    }
    let _offered = Offered(root, !read("cgroup.subtree_control").contains("hugetlb"));
    let layout = CgroupLayout::V2 { mount: mount.clone(), controllers: vec!["hugetlb".into()], own: "/".into() };
    let hugepage_limits = vec![LinuxHugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }];
    let groups = Groups::make(&layout, &LinuxResources { hugepage_limits, ..nothing() });
    assert_eq!(groups.read("", "hugetlb.2MB.max"), (4 << 20).to_string());
    let mut child = groups.spawn("exec sleep 1000");
    groups.wait_for(1);
    assert!(stats(&groups.paths).expect("stats").pids >= 1);
    remove(&groups.paths).expect("remove");
    groups.assert_gone();
    child.wait().expect("reap");
}

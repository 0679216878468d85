//! Request and facts to a plan. Pure.

use onggi_spec::quantity::{parse_cpus, parse_size};

use super::{Inside, LimitFacts, LimitPlan, LimitRequest, Means, Target, unit};
use crate::cgroup::{Group, GroupError, GroupFacts, GroupPlan, Op, Place, Version, create_plan, plan_move, plan_set};

/// Plans the limits.
///
/// # Errors
/// A wrong value, a missing controller, or what this machine cannot keep although it has groups.
pub fn plan_limit(request: &LimitRequest, facts: &LimitFacts) -> Result<LimitPlan, GroupError> {
    match &facts.means {
        Means::Group { path, places } => by_group(request, facts, path, places),
        Means::Unit(unit) => unit::plan(request, facts, unit),
        Means::Process { why } => by_process(request, facts, why),
    }
}

/// What every process of the target is told, whatever keeps the rest.
pub(super) fn inside(request: &LimitRequest) -> Inside {
    let command = match &request.target {
        Target::Command(command) => command.clone(),
        Target::Processes { .. } => Vec::new(),
    };
    Inside { rlimits: request.rlimits.clone(), nice: request.nice, command, ..Inside::default() }
}

fn by_group(request: &LimitRequest, facts: &LimitFacts, path: &str, places: &[Place]) -> Result<LimitPlan, GroupError> {
    let mut plan = LimitPlan::default();
    let mut inside = inside(request);
    if !request.settings.is_empty() {
        let group = Group { controllers: Vec::new(), path: path.to_owned() };
        let mut setup = create_plan(&facts.layout, &needed(&group, request, &facts.layout), places, &facts.offered)?;
        let version = Version::of(&facts.layout);
        let (files, offers) = (std::collections::BTreeMap::new(), crate::cgroup::Offers::new());
        let empty = GroupFacts { version, places: places.to_vec(), files, offers };
        let (set, _) = plan_set(&facts.layout, &group, &empty, &request.settings, &facts.devices)?;
        // What the groups above offer is in the plan of the group already.
        setup.ops.extend(set.ops.into_iter().filter(|op| !matches!(op, Op::Prepare { .. })));
        setup.notes.extend(set.notes);
        inside.join = places.iter().map(|place| place.dir.join("cgroup.procs")).collect();
        plan.setup = setup;
        plan.cleanup.ops = places.iter().map(|place| Op::Destroy { dir: place.dir.clone() }).collect();
    }
    match &request.target {
        Target::Command(_) => plan.inside = Some(inside),
        Target::Processes { pids, thread } => {
            if !request.settings.is_empty() {
                plan.setup.ops.extend(plan_move(places, pids, *thread).ops);
            }
            // The group stays as long as the processes are in it.
            plan.cleanup = GroupPlan::default();
            tell(&mut plan, inside, pids);
            plan.undo = undo(request, facts, path, pids);
        }
    }
    Ok(plan)
}

/// On version 2 the controllers that the settings need are asked for by name, so that a refusal is an error.
fn needed(group: &Group, request: &LimitRequest, layout: &onggi_spec::facts::CgroupLayout) -> Group {
    let controllers = match Version::of(layout) {
        Version::V1 => Vec::new(),
        Version::V2 => controllers(&request.settings, Version::V2),
    };
    Group { controllers, path: group.path.clone() }
}

/// The version 1 controllers whose hierarchies a command enters for its settings.
pub fn controllers_v1(settings: &[(String, String)]) -> Vec<String> {
    controllers(settings, Version::V1)
}

/// The controllers that settings need.
fn controllers(settings: &[(String, String)], version: Version) -> Vec<String> {
    let io = if version == Version::V1 { "blkio" } else { "io" };
    let mut all: Vec<String> = Vec::new();
    for (key, _) in settings {
        let controller = match key.as_str() {
            "cpus" | "cpu-weight" | "cpu-shares" | "cpu-burst" | "cpu-idle" => "cpu",
            "cpuset" | "cpuset-mems" => "cpuset",
            "pids" => "pids",
            key if key.starts_with("io-") => io,
            key if key.starts_with("hugetlb") => "hugetlb",
            key if key.starts_with("memory") || key.contains("swap") || key == "oom-group" => "memory",
            other => other.split('.').next().unwrap_or_default(),
        };
        if !all.iter().any(|c| c == controller) {
            all.push(controller.to_owned());
        }
    }
    all
}

/// Single processes: what there is for a setting, or why not.
fn by_process(request: &LimitRequest, facts: &LimitFacts, why: &str) -> Result<LimitPlan, GroupError> {
    let mut plan = LimitPlan::default();
    let mut inside = inside(request);
    let bad = |key: &str, value: &str, reason: &str| GroupError::BadValue {
        key: key.to_owned(),
        value: value.to_owned(),
        reason: reason.to_owned(),
    };
    if !request.settings.is_empty() {
        plan.notes.push(format!("there is no control group for it ({why}): what single processes can be told is done"));
    }
    for (key, value) in &request.settings {
        match key.as_str() {
            "cpus" => {
                let nano = parse_cpus(value).map_err(|e| bad(key, value, &e.reason))?;
                let none = || bad(key, value, "0 would stop every process; max is no limit");
                plan.duty = Some(nano.ok_or_else(none)?);
                plan.notes.push(format!(
                    "cpus={value}: kept by stopping and continuing the processes (SIGSTOP, SIGCONT), as cpulimit does"
                ));
            }
            "cpuset" => inside.affinity = Some(value.clone()),
            "memory" => {
                let bytes = parse_size(value).map_err(|e| bad(key, value, &e.reason))?;
                inside.rlimits.push(super::Rlimit {
                    name: "RLIMIT_AS".into(),
                    number: RLIMIT_AS,
                    soft: bytes,
                    hard: bytes,
                });
                plan.notes.push(format!(
                    "memory={value}: each process may have that much address space (RLIMIT_AS); there is no limit for all \
                     of them together, and allocations fail instead of the OOM killer's coming"
                ));
            }
            _ => plan.notes.push(format!("{key}={value} is not kept: {}", no_way(key))),
        }
    }
    match &request.target {
        Target::Command(_) => {
            inside.wake_at_death = plan.duty.is_some();
            plan.inside = Some(inside);
        }
        Target::Processes { pids, .. } => {
            tell(&mut plan, inside, pids);
            plan.undo = undo(request, facts, "", pids);
        }
    }
    Ok(plan)
}

/// `RLIMIT_AS` of getrlimit(2).
const RLIMIT_AS: u32 = 9;

fn no_way(key: &str) -> &'static str {
    match key {
        "pids" => "RLIMIT_NPROC counts all processes of the user, not those of a command (--ulimit nproc=N sets it)",
        "memory-high" | "memory-low" | "memory-min" => "only a group is reclaimed from",
        "memory-swap" | "swap" => "swap is counted for groups only",
        "cpu-weight" | "cpu-shares" => "use --nice, which weighs processes",
        _ if key.starts_with("io-") => "I/O is limited for groups only (ionice has classes)",
        _ => "only a group can",
    }
}

fn tell(plan: &mut LimitPlan, inside: Inside, pids: &[i32]) {
    plan.processes = pids.to_vec();
    let told = Inside { join: Vec::new(), ..inside };
    if told.nice.is_some() || told.affinity.is_some() || !told.rlimits.is_empty() {
        plan.told = Some(told);
    }
}

/// Commands that put the processes back where they were.
fn undo(request: &LimitRequest, facts: &LimitFacts, path: &str, pids: &[i32]) -> Vec<String> {
    let all = pids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
    let mut lines = Vec::new();
    if let Means::Group { places, .. } = &facts.means
        && !request.settings.is_empty()
    {
        for (controllers, origin) in &facts.origins {
            let moved = places.iter().any(|place| place.controllers == *controllers) && *origin != format!("/{path}");
            let named = controllers.join(",");
            let name = if named.is_empty() { origin.clone() } else { format!("{named}:{origin}") };
            // The unified hierarchy of a hybrid layout has no controller to name it by.
            let unified = named.is_empty() && Version::of(&facts.layout) == Version::V1;
            let mount = places.iter().find(|place| place.controllers.is_empty()).map(|place| place.mount.clone());
            match (moved, unified, mount) {
                (true, true, Some(mount)) => {
                    let file = mount.join(origin.trim_start_matches('/')).join("cgroup.procs");
                    lines.extend(pids.iter().map(|pid| format!("echo {pid} > {}", file.display())));
                }
                (true, _, _) => lines.push(format!("onggi cgroup mv {name} {all}")),
                _ => {}
            }
        }
        lines.push(format!("onggi cgroup rm {path}"));
    }
    let (nice, cpus) = &facts.before;
    if request.nice.is_some() {
        lines.push(format!("renice -n {nice} -p {all}"));
    }
    if matches!(facts.means, Means::Process { .. }) && request.settings.iter().any(|(key, _)| key == "cpuset") {
        lines.extend(pids.iter().map(|pid| format!("taskset -apc {cpus} {pid}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(settings: &[(&str, &str)], target: Target) -> LimitRequest {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LimitRequest { settings, nice: Some(5), rlimits: Vec::new(), target }
    }

    fn facts(means: Means) -> LimitFacts {
        let layout = onggi_spec::facts::CgroupLayout::V2 {
            mount: "/c".into(),
            controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
            own: "/".into(),
        };
        let offered = std::collections::BTreeMap::new();
        let origins = vec![(Vec::new(), "/old".to_owned())];
        LimitFacts { layout, means, offered, devices: Default::default(), origins, before: (0, "0-1".into()) }
    }

    fn group() -> Means {
        let places = vec![Place { controllers: Vec::new(), mount: "/c".into(), dir: "/c/g".into() }];
        Means::Group { path: "g".into(), places }
    }

    #[test]
    fn a_command_gets_a_group_that_goes_with_it() {
        let command = Target::Command(vec!["true".into()]);
        let plan = plan_limit(&request(&[("cpus", "0.5"), ("memory", "10M")], command), &facts(group())).expect("plan");
        insta_like(
            &plan.words(),
            &[
                "write \"+cpu +memory\" to /c/cgroup.subtree_control: a version 2 group has only the controllers that its \
                 parent gives",
                "mkdir(2) /c/g",
                "write \"50000 100000\" to /c/g/cpu.max: CPU limit of 0.5 CPUs",
                "write \"10485760\" to /c/g/memory.max: memory limit of 10 MiB",
                "in a child: write 0 to /c/g/cgroup.procs",
                "in a child: setpriority(2): 5",
                "in a child: execve(2): true",
                "when it has ended: kill every process of /c/g and of groups below it, then rmdir(2) them",
            ],
        );
    }

    fn insta_like(text: &str, lines: &[&str]) {
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn processes_that_run_are_moved_and_can_be_put_back() {
        let target = Target::Processes { pids: vec![7, 8], thread: false };
        let plan = plan_limit(&request(&[("memory", "10M")], target), &facts(group())).expect("plan");
        assert!(plan.cleanup.ops.is_empty(), "{plan:?}");
        assert_eq!(plan.undo, ["onggi cgroup mv /old 7 8", "onggi cgroup rm g", "renice -n 0 -p 7 8"]);
    }

    #[test]
    fn without_groups_what_is_not_kept_is_said() {
        let means = Means::Process { why: "no permission".into() };
        let command = Target::Command(vec!["true".into()]);
        let settings = [("cpus", "0.5"), ("cpuset", "0"), ("memory", "10M"), ("pids", "5")];
        let plan = plan_limit(&request(&settings, command), &facts(means)).expect("plan");
        assert_eq!(plan.duty, Some(500_000_000));
        let inside = plan.inside.expect("a child");
        assert_eq!((inside.affinity.as_deref(), inside.rlimits[0].soft), (Some("0"), 10 << 20));
        assert!(plan.notes.iter().any(|n| n.starts_with("pids=5 is not kept")), "{:?}", plan.notes);
    }
}

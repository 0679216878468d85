//! The container's cgroup, and how cgroupfs appears inside it.

use std::{collections::BTreeMap, path::PathBuf};

use onggi_cgroup::{
    CgroupPlan, CgroupRequest, Membership,
    systemd::{SystemdFacts, UnitRequest},
};
use onggi_spec::{
    facts::CgroupLayout,
    oci::{
        build::default_device_rules,
        runtime::{LinuxNamespaceType, LinuxResources, Mount, Spec},
    },
};
use onggi_sys::mount::attr;

use super::{BindMount, FsMount, MountOptions, SetupOp, TargetKind, build::Context};
use crate::{
    CgroupDriver,
    create::cgroup_failure,
    error::{Result, StartFailureError},
};

/// Plans the groups and limits; none when the caller may not write to cgroupfs.
pub(super) fn plan_cgroup(cx: &Context<'_>) -> Result<Option<CgroupPlan>> {
    let resources = resources(cx);
    let path = cgroups_path(cx.input.config, cx.input.id);
    let request = CgroupRequest {
        path: &path,
        resources: &resources,
        membership: match cx.input.cgroup_driver {
            CgroupDriver::Lean => Membership::Needed,
            CgroupDriver::Cgroupfs | CgroupDriver::Systemd => Membership::All,
        },
        rootless: !cx.facts.privileged,
        owner: owner(cx),
    };
    let layout = &cx.facts.cgroup_layout;
    let planned = match &cx.facts.systemd {
        Some(systemd) => onggi_cgroup::systemd::plan(layout, &request, &unit_request(cx, systemd)),
        None => onggi_cgroup::plan(layout, &request),
    };
    let plan = planned.map_err(|e| cgroup_failure(&format!("plan cgroup {path}"), &e))?;
    let explicit = cx.linux.cgroups_path.as_deref().is_some_and(|p| !p.is_empty());
    // The engine names a group whether it can have one or not.
    if plan.dirs.is_empty() && request.rootless && explicit && cx.input.cgroup_driver != CgroupDriver::Lean {
        return Err(StartFailureError::new(format!("applying cgroup configuration: mkdir {path}: permission denied"))
            .hint("leave linux.cgroupsPath out, or name a group below one that was delegated to this user"));
    }
    Ok((!plan.dirs.is_empty() || !plan.notes.is_empty()).then_some(plan))
}

/// `linux.cgroupsPath`; without it a group of the id's name beside or below our own, as runc has it.
pub(crate) fn cgroups_path(config: &Spec, id: &str) -> String {
    let given = config.linux.as_ref().and_then(|l| l.cgroups_path.clone()).filter(|p| !p.is_empty());
    given.unwrap_or_else(|| id.to_owned())
}

fn unit_request<'a>(cx: &Context<'a>, facts: &'a SystemdFacts) -> UnitRequest<'a> {
    let cgroups_path = cx.linux.cgroups_path.as_deref();
    UnitRequest { id: cx.input.id, cgroups_path, facts, annotations: &cx.input.config.annotations }
}

/// Root of the container's user namespace, when the container is to manage its own subtree: it has a cgroup
/// namespace and a writable cgroup mount.
fn owner(cx: &Context<'_>) -> Option<u32> {
    let own_namespaces =
        cx.namespaces.makes(LinuxNamespaceType::Cgroup) && cx.namespaces.makes(LinuxNamespaceType::User);
    let writable = |m: &Mount| {
        matches!(m.typ.as_deref(), Some("cgroup" | "cgroup2")) && !m.options.iter().any(|o| o == "ro" || o == "rro")
    };
    if !own_namespaces || !cx.facts.privileged || !cx.input.config.mounts.iter().any(writable) {
        return None;
    }
    let root = cx.linux.uid_mappings.iter().find(|m| m.container_id == 0 && m.size > 0)?;
    Some(root.host_id)
}

/// The host's own console; a container's is a terminal of its own.
const HOST_CONSOLE: (Option<i64>, Option<i64>) = (Some(5), Some(1));

/// The limits. Devices that no rule allows are denied, whether there are rules or not (I15); an ordinary user
/// cannot make device rules, and needs none. Those that every container needs come last (as in runc), because
/// the container's own nodes are made under them. Making a node is guarded by CAP_MKNOD, not by these.
fn resources(cx: &Context<'_>) -> LinuxResources {
    let resources = cx.linux.resources.clone().unwrap_or_default();
    if resources.devices.is_empty() && !(cx.facts.privileged && can_deny(&cx.facts.cgroup_layout)) {
        return resources;
    }
    with_device_rules(resources)
}

/// The rules of `resources` between the one that denies everything and those that every container needs.
pub(crate) fn with_device_rules(mut resources: LinuxResources) -> LinuxResources {
    let (allowed, mut rules): (Vec<_>, Vec<_>) = default_device_rules().into_iter().partition(|r| r.allow);
    // The rule that denies everything, unless the configuration begins with its own.
    rules.retain(|deny| resources.devices.first() != Some(deny));
    rules.append(&mut resources.devices);
    let needed = allowed.into_iter().filter(|r| (r.major, r.minor) != HOST_CONSOLE);
    let missing: Vec<_> = needed.filter(|r| !rules.contains(r)).collect();
    rules.extend(missing);
    resources.devices = rules;
    resources
}

/// There is something that could keep device rules. Rules that the configuration has are an error without it.
fn can_deny(layout: &CgroupLayout) -> bool {
    match layout {
        CgroupLayout::None => false,
        CgroupLayout::V1 { hierarchies, .. } => {
            hierarchies.iter().any(|h| h.controllers.iter().any(|c| c == "devices"))
        }
        CgroupLayout::V2 { .. } => true,
    }
}

/// `type: cgroup`: the container's own groups, as binds of their directories. Each is what a fresh mount
/// inside the cgroup namespace would show, in half the system calls.
pub(super) fn plan_mount(cx: &Context<'_>, mount: &Mount, cgroup: Option<&CgroupPlan>) -> Vec<SetupOp> {
    let options = MountOptions::parse(&mount.options);
    let target = PathBuf::from(&mount.destination);
    let set = options.set | options.recursive_set | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let bind = |source: PathBuf, target: PathBuf| {
        SetupOp::Bind(BindMount {
            source,
            target,
            recursive: false,
            attributes: (set, 0),
            recursive_attributes: (0, 0),
            propagation: None,
            must_be_proc: false,
            id_map: None,
        })
    };
    match (&cx.facts.cgroup_layout, cgroup) {
        (CgroupLayout::V2 { .. }, Some(plan)) if cx.namespaces.has(LinuxNamespaceType::Cgroup) => {
            plan.dirs.iter().take(1).map(|d| bind(d.path.clone(), target.clone())).collect()
        }
        (CgroupLayout::V1 { .. }, Some(plan)) => v1(plan, &target, options.set, bind),
        (CgroupLayout::V2 { .. }, _) => vec![SetupOp::Mount(fresh_v2(target, set))],
        // None can be made for this caller. What a bind of the host's /sys has brought there must not be writable
        // (I15, CVE-2023-25809).
        _ => vec![SetupOp::ReadOnly { path: target }],
    }
}

fn fresh_v2(target: PathBuf, attributes: u64) -> FsMount {
    FsMount {
        fstype: "cgroup2".into(),
        source: "cgroup".into(),
        target,
        target_kind: TargetKind::Directory,
        data: Vec::new(),
        attributes,
        propagation: None,
        copy_up: false,
    }
}

/// A tmpfs with one directory per hierarchy and a link per further controller of a shared one.
fn v1(
    plan: &CgroupPlan,
    target: &std::path::Path,
    asked: u64,
    bind: impl Fn(PathBuf, PathBuf) -> SetupOp,
) -> Vec<SetupOp> {
    let mut ops = vec![SetupOp::Mount(FsMount {
        fstype: "tmpfs".into(),
        source: "cgroup".into(),
        target: target.to_path_buf(),
        target_kind: TargetKind::Directory,
        data: vec![("mode".into(), Some("755".into())), ("size".into(), Some("64k".into()))],
        attributes: attr::NOSUID | attr::NODEV | attr::NOEXEC,
        propagation: None,
        copy_up: false,
    })];
    let mut by_dir: BTreeMap<&PathBuf, Vec<&str>> = BTreeMap::new();
    for dir in &plan.dirs {
        let name = dir.controller.strip_prefix("name=").unwrap_or(&dir.controller);
        by_dir.entry(&dir.path).or_default().push(if name.is_empty() { "unified" } else { name });
    }
    for (dir, names) in by_dir {
        let joined = names.join(",");
        ops.push(bind(dir.clone(), target.join(&joined)));
        let links = names.iter().filter(|_| names.len() > 1);
        ops.extend(links.map(|n| SetupOp::Symlink {
            path: target.join(n),
            target: PathBuf::from(&joined),
            only_if: None,
        }));
    }
    if asked & attr::RDONLY != 0 {
        ops.push(SetupOp::Attributes { target: target.to_path_buf(), set: attr::RDONLY });
    }
    ops
}

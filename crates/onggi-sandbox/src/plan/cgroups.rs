//! The container's cgroup, and how cgroupfs appears inside it.

use std::{collections::BTreeMap, path::PathBuf};

use onggi_cgroup::CgroupPlan;
use onggi_spec::{
    facts::CgroupLayout,
    oci::{
        build::default_device_rules,
        runtime::{LinuxNamespaceType, LinuxResources, Mount},
    },
};
use onggi_sys::mount::attr;

use super::{BindMount, FsMount, MountOptions, SetupOp, TargetKind, build::Context};
use crate::error::{Result, StartFailureError};

/// Plans the groups and limits; none when the caller may not write to cgroupfs.
pub(super) fn plan_cgroup(cx: &Context<'_>) -> Result<Option<CgroupPlan>> {
    let resources = resources(cx);
    let own = format!("/onggi-{}", cx.input.id);
    let path = cx.linux.cgroups_path.as_deref().filter(|p| !p.is_empty()).unwrap_or(&own);
    let plan = onggi_cgroup::plan(&cx.facts.cgroup_layout, path, &resources, !cx.facts.privileged).map_err(|e| {
        let failure = StartFailureError::new(format!("plan cgroup {path}: {e}"));
        match e.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    Ok((!plan.dirs.is_empty()).then_some(plan))
}

/// The host's own console; a container's is a terminal of its own.
const HOST_CONSOLE: (Option<i64>, Option<i64>) = (Some(5), Some(1));

/// The limits. Devices that no rule allows are denied, whether there are rules or not (I15); an ordinary user
/// cannot make device rules, and needs none. Those that every container needs come last (as in runc), because
/// the container's own nodes are made under them. Making a node is guarded by CAP_MKNOD, not by these.
fn resources(cx: &Context<'_>) -> LinuxResources {
    let mut resources = cx.linux.resources.clone().unwrap_or_default();
    if resources.devices.is_empty() && !(cx.facts.privileged && can_deny(&cx.facts.cgroup_layout)) {
        return resources;
    }
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

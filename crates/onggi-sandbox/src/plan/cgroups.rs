//! The container's cgroup, and how cgroupfs appears inside it.

use std::path::{Path, PathBuf};

use onggi_cgroup::{
    CgroupPlan, CgroupRequest, Membership,
    systemd::{SystemdFacts, UnitRequest},
};
use onggi_spec::{
    facts::{CgroupLayout, V1Hierarchy},
    oci::{
        build::default_device_rules,
        runtime::{LinuxNamespaceType, LinuxResources, Mount, Spec},
    },
};
use onggi_sys::mount::attr;

use super::{BindLinks, BindMount, FsMount, MountOptions, SetupOp, TargetKind, build::Context};
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
            CgroupDriver::Cgroupfs | CgroupDriver::Systemd | CgroupDriver::Disabled => Membership::All,
        },
        rootless: !cx.facts.privileged
            || cx.input.cgroup_driver == CgroupDriver::Disabled
            || (cx.facts.rootless_cgroups && cx.facts.cgroup_layout == CgroupLayout::None),
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
    let may_lack = matches!(cx.input.cgroup_driver, CgroupDriver::Lean | CgroupDriver::Disabled);
    if plan.dirs.is_empty() && request.rootless && explicit && !may_lack {
        return Err(StartFailureError::new(format!(
            "unable to apply cgroup configuration: mkdir {path}: permission denied"
        ))
        .hint("leave linux.cgroupsPath out, or name a group below one that was delegated to this user"));
    }
    Ok((!plan.dirs.is_empty() || !plan.notes.is_empty()).then_some(plan))
}

/// A container whose processes can be told from others neither by a group nor by a namespace: its `kill` and
/// `delete` know of its first process alone. Engines and people look for runc's last words.
pub(super) fn warn_of_stray_processes(cx: &Context<'_>, cgroup: Option<&CgroupPlan>) -> Option<String> {
    let grouped = cgroup.is_some_and(|plan| !plan.dirs.is_empty());
    if grouped || cx.namespaces.makes(LinuxNamespaceType::Pid) {
        return None;
    }
    let text = "the container has neither a cgroup nor a pid namespace of its own: what its first process leaves \
                behind cannot be found to be killed. Such configuration is strongly discouraged";
    Some(text.to_owned())
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

/// The host's number of the container's user, when the container is to manage its own subtree: it has a cgroup
/// namespace and a writable cgroup mount (config-linux.md, "Cgroup ownership"). Root of the host owns it anyway.
fn owner(cx: &Context<'_>) -> Option<u32> {
    let writable = |m: &Mount| {
        matches!(m.typ.as_deref(), Some("cgroup" | "cgroup2"))
            && Path::new(&m.destination) == Path::new("/sys/fs/cgroup")
            && !m.options.iter().any(|o| o == "ro" || o == "rro")
    };
    let own_namespace = cx.namespaces.makes(LinuxNamespaceType::Cgroup);
    if !own_namespace || !cx.facts.privileged || !cx.input.config.mounts.iter().any(writable) {
        return None;
    }
    let user = cx.input.config.process.as_ref().map_or(0, |process| process.user.uid);
    let uid = if cx.namespaces.makes(LinuxNamespaceType::User) {
        cx.linux.uid_mappings.iter().find_map(|m| {
            let at = user.checked_sub(m.container_id).filter(|at| *at < m.size)?;
            m.host_id.checked_add(at)
        })
    } else {
        // Whose ids are whose in a namespace of somebody else is not ours to say.
        (!cx.namespaces.has(LinuxNamespaceType::User)).then_some(user)
    };
    uid.filter(|uid| *uid != 0)
}

/// The host's own console; a container's is a terminal of its own.
const HOST_CONSOLE: (Option<i64>, Option<i64>) = (Some(5), Some(1));

/// The limits. Devices that no rule allows are denied, whether there are rules or not (I15); an ordinary user
/// cannot make device rules, and needs none. Those that every container needs come last (as in runc), because
/// the container's own nodes are made under them. Making a node is guarded by CAP_MKNOD, not by these.
fn resources(cx: &Context<'_>) -> LinuxResources {
    let mut resources = cx.linux.resources.clone().unwrap_or_default();
    // "No limit" to those who write such documents (Podman's `--pids-limit -1`).
    if is_before_1_3(&cx.input.config.oci_version) {
        resources.pids.take_if(|pids| pids.limit == Some(0));
    }
    if resources.devices.is_empty() && !(cx.facts.privileged && can_deny(&cx.facts.cgroup_layout)) {
        return resources;
    }
    with_device_rules(resources)
}

/// A version of the specification in which a limit of 0 processes had no meaning.
fn is_before_1_3(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (1, 3)
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

/// A type that is mounted as any other filesystem: version 2 where the host's groups are of version 1.
pub(super) fn is_plain(cx: &Context<'_>, typ: &str) -> bool {
    typ == "cgroup2" && !matches!(visible(cx), CgroupLayout::V2 { .. })
}

/// What a mount shows: where the caller may use no group, those that it is in itself.
fn visible<'a>(cx: &Context<'a>) -> &'a CgroupLayout {
    cx.facts.visible_cgroups.as_ref().unwrap_or(&cx.facts.cgroup_layout)
}

/// `type: cgroup`: the container's own groups, as binds of their directories. Each is what a fresh mount
/// inside the cgroup namespace would show, in half the system calls.
pub(super) fn plan_mount(
    cx: &Context<'_>,
    options: &MountOptions,
    target: PathBuf,
    cgroup: Option<&CgroupPlan>,
) -> Vec<SetupOp> {
    let own = cx.namespaces.has(LinuxNamespaceType::Cgroup);
    let user = !cx.facts.privileged || cx.namespaces.has(LinuxNamespaceType::User);
    let version_2 = matches!(visible(cx), CgroupLayout::V2 { .. });
    // Groups that are not the container's own are for reading (I15, CVE-2023-25809).
    let foreign = if cgroup.is_none() || (version_2 && user && !own) { attr::RDONLY } else { 0 };
    let set = options.of_filesystem() | attr::NOSUID | attr::NODEV | attr::NOEXEC | foreign;
    let bind = |source: PathBuf, target: PathBuf| {
        SetupOp::Bind(BindMount {
            source,
            target,
            recursive: false,
            attributes: (set, 0),
            refused: (0, 0),
            atime: 0,
            recursive_attributes: (0, 0),
            propagation: options.propagation,
            peers: super::options::host_peers(cx.linux),
            must_be_proc: false,
            id_map: None,
            in_root: None,
            links: BindLinks::default(),
            locked: false,
        })
    };
    match (visible(cx), cgroup) {
        (CgroupLayout::V2 { .. }, Some(plan)) if own => {
            plan.dirs.iter().take(1).map(|d| bind(d.path.clone(), target.clone())).collect()
        }
        // A user namespace may only mount the hierarchy that its own cgroup namespace shows.
        (CgroupLayout::V2 { mount, .. }, _) if user && !own => vec![bind(mount.into(), target)],
        (CgroupLayout::V2 { .. }, _) => vec![SetupOp::Mount(fresh_v2(target, set))],
        (CgroupLayout::V1 { hierarchies, .. }, plan) => {
            let tmpfs = v1_tmpfs(cx, target.clone());
            let mut ops = vec![SetupOp::Mount(tmpfs)];
            ops.extend(v1(hierarchies, plan, &target, bind));
            if set & attr::RDONLY != 0 {
                ops.push(SetupOp::Attributes { target, set: attr::RDONLY });
            }
            ops
        }
        // What a bind of the host's /sys has brought there must not be writable (I15, CVE-2023-25809).
        (CgroupLayout::None, _) => vec![SetupOp::ReadOnly { path: target }],
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

fn v1_tmpfs(cx: &Context<'_>, target: PathBuf) -> FsMount {
    let mut data = vec![("mode".into(), Some("755".into())), ("size".into(), Some("64k".into()))];
    data.extend(cx.mount_label().map(|label| ("context".to_owned(), Some(label))));
    FsMount {
        fstype: "tmpfs".into(),
        source: "cgroup".into(),
        target,
        target_kind: TargetKind::Directory,
        data,
        attributes: attr::NOSUID | attr::NODEV | attr::NOEXEC,
        propagation: None,
        copy_up: false,
    }
}

/// One directory per hierarchy, named as the host names it, and a link per controller of a shared one. Without
/// groups of its own the container shows those of the caller.
fn v1(
    hierarchies: &[V1Hierarchy],
    plan: Option<&CgroupPlan>,
    target: &Path,
    bind: impl Fn(PathBuf, PathBuf) -> SetupOp,
) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    for hierarchy in hierarchies {
        let mount = Path::new(&hierarchy.mount);
        let Some(name) = mount.file_name().and_then(|n| n.to_str()) else { continue };
        let made = |plan: &CgroupPlan| plan.dirs.iter().find(|d| d.path.starts_with(mount)).map(|d| d.path.clone());
        let source = match plan {
            Some(plan) => made(plan),
            None => Some(mount.join(hierarchy.own.trim_start_matches('/'))),
        };
        // The caller's own group would show what other containers have.
        let Some(source) = source else { continue };
        ops.push(bind(source, target.join(name)));
        let links = name.split(',').filter(|link| *link != name);
        ops.extend(links.map(|link| SetupOp::Symlink {
            path: target.join(link),
            target: PathBuf::from(name),
            only_if: None,
        }));
    }
    ops
}

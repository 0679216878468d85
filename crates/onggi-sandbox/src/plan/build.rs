//! The order of everything: one function per stage, each in its own file.

use std::path::{Path, PathBuf};

use onggi_spec::{
    monitor::RootFs,
    oci::runtime::{Hooks, Linux, LinuxNamespaceType, Process, Spec},
};

use super::{
    PlanInput, ProcessOp, Propagation, SandboxFacts, SandboxPlan, SetupOp, cgroups, devices, mounts,
    namespaces::Namespaces, options::parse_propagation, process, sysctl,
};
use crate::error::{Result, StartFailureError};

/// Everything that is looked at more than once while planning.
pub(super) struct Context<'a> {
    pub(super) input: &'a PlanInput<'a>,
    pub(super) facts: &'a SandboxFacts,
    pub(super) linux: &'a Linux,
    pub(super) process: &'a Process,
    pub(super) namespaces: Namespaces,
}

/// Plans a container.
///
/// # Errors
/// The configuration contradicts itself, asks for what this host lacks, or violates an invariant; each names
/// the member of the configuration.
pub fn plan(input: &PlanInput<'_>, facts: &SandboxFacts) -> Result<SandboxPlan> {
    let no_linux = Linux::default();
    let config = input.config;
    check_version(config)?;
    let process = config.process.as_ref().ok_or_else(|| StartFailureError::new("config.json has no process"))?;
    let linux = config.linux.as_ref().unwrap_or(&no_linux);
    let namespaces = Namespaces::plan(input, linux)?;
    refuse_unsupported(linux)?;
    let cx = Context { input, facts, linux, process, namespaces };
    let cgroup = cgroups::plan_cgroup(&cx)?;
    let process = process::plan_process(&cx)?;
    let mut after = cx.namespaces.id_map_ops(facts);
    after.extend(process.parent);
    Ok(SandboxPlan {
        setup: setup(&cx, cgroup.as_ref())?,
        cgroup,
        before: cx.namespaces.parent_ops(linux),
        clone: cx.namespaces.cloned(),
        after,
        process: process.child,
        notes: process.notes,
        poststart: config.hooks.as_ref().map(|h| h.poststart.clone()).unwrap_or_default(),
    })
}

fn check_version(config: &Spec) -> Result<()> {
    if config.oci_version.starts_with("1.") {
        return Ok(());
    }
    Err(StartFailureError::new(format!("ociVersion {:?} is not 1.x", config.oci_version)))
}

/// Settings that would be silently weaker than asked are refused.
fn refuse_unsupported(linux: &Linux) -> Result<()> {
    let asked = [
        (!linux.net_devices.is_empty(), "linux.netDevices"),
        (linux.intel_rdt.is_some(), "linux.intelRdt"),
        (linux.mount_label.as_deref().is_some_and(|l| !l.is_empty()), "linux.mountLabel"),
    ];
    match asked.iter().find(|(is, _)| *is) {
        Some((_, name)) => Err(StartFailureError::new(format!("{name} is not supported by this runtime"))
            .hint("remove it from config.json")),
        None => Ok(()),
    }
}

/// The child's work up to the point where only the program is missing.
fn setup(cx: &Context<'_>, cgroup: Option<&onggi_cgroup::CgroupPlan>) -> Result<Vec<SetupOp>> {
    let mut ops = cx.namespaces.child_ops(cx, cgroup);
    if !cx.namespaces.has_mount() {
        return Err(StartFailureError::new("config.json has no mount namespace")
            .hint("add {\"type\": \"mount\"} to linux.namespaces: without it the host's mounts would change"));
    }
    let hooks = cx.input.config.hooks.clone().unwrap_or_default();
    let (host, root) = propagation(cx.linux)?;
    ops.push(SetupOp::HostPropagation { propagation: host });
    ops.extend(rootfs(cx)?);
    ops.extend(mounts::plan_mounts(cx, cgroup)?);
    ops.extend(devices::plan_devices(cx)?);
    ops.push(SetupOp::MakeDir { path: process::working_directory(cx.process)?, mode: 0o755 });
    ops.extend(terminal(cx));
    ops.extend(sysctl::plan_sysctls(cx)?);
    ops.extend(names(cx)?);
    if cx.namespaces.makes(LinuxNamespaceType::Network) {
        ops.push(SetupOp::LoopbackUp);
    }
    ops.extend(hook_ops(&hooks));
    let linux = cx.linux;
    ops.extend(linux.readonly_paths.iter().map(|p| SetupOp::ReadOnly { path: PathBuf::from(p) }));
    ops.extend(linux.masked_paths.iter().map(|p| SetupOp::Mask { path: PathBuf::from(p) }));
    if cx.input.config.root.as_ref().is_some_and(|r| r.readonly) {
        ops.push(SetupOp::ReadOnlyRoot);
    }
    ops.push(SetupOp::PivotRoot { by_move: cx.input.no_pivot });
    if let Some(propagation) = root {
        ops.push(SetupOp::RootPropagation { propagation });
    }
    Ok(ops)
}

/// Propagation of the copied tree, then that of the new root. The copy is a slave at most: nothing that is
/// mounted in it may appear on the host; binds that shall are cloned before (`Propagation::Shared`).
fn propagation(linux: &Linux) -> Result<(Propagation, Option<Propagation>)> {
    let Some(text) = linux.rootfs_propagation.as_deref().filter(|t| !t.is_empty()) else {
        return Ok((Propagation::Slave, None));
    };
    let (p, _) = parse_propagation(text)
        .ok_or_else(|| StartFailureError::new(format!("linux.rootfsPropagation {text:?} is not a propagation")))?;
    Ok(match p {
        Propagation::Private => (Propagation::Private, None),
        Propagation::Slave => (Propagation::Slave, None),
        Propagation::Shared | Propagation::Unbindable => (Propagation::Slave, Some(p)),
    })
}

fn rootfs(cx: &Context<'_>) -> Result<Vec<SetupOp>> {
    match cx.input.rootfs {
        RootFs::Path => {
            let root =
                cx.input.config.root.as_ref().ok_or_else(|| StartFailureError::new("config.json has no root"))?;
            if root.path.is_empty() {
                return Err(StartFailureError::new("root.path is empty"));
            }
            let source = absolute(cx.input.bundle, &root.path);
            if source == Path::new("/") {
                return Err(StartFailureError::new("root.path is the host's own root"));
            }
            Ok(vec![SetupOp::BindRoot { source: source.clone() }, SetupOp::AttachRoot { at: source }])
        }
        RootFs::Overlay(overlay) => {
            // Covers only what nobody reaches by path any more; files of the bundle are still to be bound.
            let at = overlay.work.clone();
            let mut ops = vec![SetupOp::OverlayRoot { overlay: overlay.clone() }, SetupOp::AttachRoot { at }];
            ops.extend(overlay.submounts.iter().map(|s| SetupOp::SubOverlay {
                path: s.path.clone(),
                upper: s.upper.clone(),
                work: s.work.clone(),
                userxattr: overlay.userxattr,
            }));
            ops.extend(overlay.hidden.iter().map(|p| SetupOp::Mask { path: p.clone() }));
            Ok(ops)
        }
    }
}

/// `path` of the bundle as an absolute host path.
pub(super) fn absolute(bundle: &Path, path: &str) -> PathBuf {
    if path.starts_with('/') { PathBuf::from(path) } else { bundle.join(path) }
}

fn terminal(cx: &Context<'_>) -> Option<SetupOp> {
    cx.process.terminal.then_some(SetupOp::Terminal {
        size: cx.process.console_size,
        console: true,
        uid: cx.process.user.uid,
    })
}

fn names(cx: &Context<'_>) -> Result<Vec<SetupOp>> {
    let mut ops = Vec::new();
    let own = cx.namespaces.has(LinuxNamespaceType::Uts);
    let config = cx.input.config;
    for (what, name) in [("hostname", &config.hostname), ("domainname", &config.domainname)] {
        let Some(name) = name.as_ref().filter(|n| !n.is_empty()) else { continue };
        if !own {
            return Err(StartFailureError::new(format!("{what} is set without a UTS namespace"))
                .hint("the host's own name would change; add {\"type\": \"uts\"} to linux.namespaces"));
        }
        ops.push(match what {
            "hostname" => SetupOp::Hostname { name: name.clone() },
            _ => SetupOp::Domainname { name: name.clone() },
        });
    }
    Ok(ops)
}

fn hook_ops(hooks: &Hooks) -> Vec<SetupOp> {
    let mut ops = Vec::new();
    let runtime: Vec<_> = hooks.prestart.iter().chain(&hooks.create_runtime).cloned().collect();
    if !runtime.is_empty() {
        ops.push(SetupOp::RuntimeHooks { hooks: runtime });
    }
    if !hooks.create_container.is_empty() {
        ops.push(SetupOp::ContainerHooks { hooks: hooks.create_container.clone() });
    }
    ops
}

/// The hooks of a container, or none.
pub(super) fn start_hooks(config: &Spec) -> Option<ProcessOp> {
    let hooks = config.hooks.as_ref()?.start_container.clone();
    (!hooks.is_empty()).then_some(ProcessOp::Hooks { hooks })
}

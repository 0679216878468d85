//! The order of everything: one function per stage, each in its own file.

use std::path::{Path, PathBuf};

use onggi_spec::{
    monitor::RootFs,
    oci::runtime::{Hooks, Linux, LinuxNamespaceType, Process, Spec},
};

use super::{
    PlanInput, ProcessOp, Propagation, SandboxFacts, SandboxPlan, SetupOp, cgroups, devices, mounts,
    namespaces::Namespaces, net_devices, options::parse_propagation, process, rdt, sysctl,
};
use crate::error::{Result, StartFailureError};

/// Everything that is looked at more than once while planning.
pub(super) struct Context<'a> {
    pub(super) input: &'a PlanInput<'a>,
    pub(super) facts: &'a SandboxFacts,
    pub(super) linux: &'a Linux,
    pub(super) process: &'a Process,
    pub(super) namespaces: Namespaces,
    /// The root as a path of the host, where it is one.
    root: Option<PathBuf>,
}

impl Context<'_> {
    pub(super) fn root_path(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// linux.mountLabel, when there is one.
    pub(super) fn mount_label(&self) -> Option<String> {
        self.linux.mount_label.clone().filter(|label| !label.is_empty())
    }
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
    let process = config.process.as_ref().ok_or_else(|| {
        StartFailureError::new("config.json has no process").hint("`spec` writes a configuration to begin with")
    })?;
    let linux = config.linux.as_ref().unwrap_or(&no_linux);
    let namespaces = Namespaces::plan(input, linux, facts)?;
    let root = root_path(input)?;
    let cx = Context { input, facts, linux, process, namespaces, root };
    refuse_label(&cx)?;
    let cgroup = cgroups::plan_cgroup(&cx)?;
    let process = process::plan_process(&cx)?;
    let mut after = cx.namespaces.id_map_ops(facts);
    after.extend(process.parent);
    let mut notes = process.notes;
    notes.extend(cgroups::warn_of_stray_processes(&cx, cgroup.as_ref()));
    let group = linux.intel_rdt.as_ref().map(|r| rdt::plan_group(r, input.id, facts.rdt.as_ref())).transpose()?;
    Ok(SandboxPlan {
        setup: setup(&cx, cgroup.as_ref())?,
        cgroup,
        rdt: group,
        before: cx.namespaces.parent_ops(linux, facts),
        clone: cx.namespaces.cloned(),
        after,
        process: process.child,
        notes,
        poststart: config.hooks.as_ref().map(|h| h.poststart.clone()).unwrap_or_default(),
    })
}

fn check_version(config: &Spec) -> Result<()> {
    // As in runc and crun, drafts before 1.0 count: their fields have kept their meaning or are unknown here.
    if config.oci_version.starts_with("1.") || config.oci_version.starts_with("0.") {
        return Ok(());
    }
    Err(StartFailureError::new(format!("ociVersion {:?} is not 1.x", config.oci_version))
        .hint("this runtime knows the versions that `features` prints"))
}

fn refuse_label(cx: &Context<'_>) -> Result<()> {
    match cx.mount_label() {
        Some(label) if !cx.facts.selinux => Err(StartFailureError::new(format!(
            "linux.mountLabel {label:?} is set, but this kernel runs without SELinux"
        ))
        .hint("remove it from config.json")),
        _ => Ok(()),
    }
}

/// The child's work up to the point where only the program is missing.
fn setup(cx: &Context<'_>, cgroup: Option<&onggi_cgroup::CgroupPlan>) -> Result<Vec<SetupOp>> {
    let mut ops = cx.namespaces.child_ops(cx, cgroup);
    let private = cx.namespaces.has_mount();
    if !private {
        check_host_mounts(cx)?;
    }
    let hooks = cx.input.config.hooks.clone().unwrap_or_default();
    let (host, root) = propagation(cx.linux)?;
    if private {
        ops.push(SetupOp::HostPropagation { propagation: host });
    }
    ops.extend(rootfs(cx)?);
    let mounts = mounts::plan_mounts(cx, cgroup)?;
    ops.extend(mounts.now);
    ops.extend(devices::plan_devices(cx)?);
    ops.push(SetupOp::MakeDir { path: process::working_directory(cx.process)?, mode: 0o755 });
    ops.extend(terminal(cx));
    ops.extend(sysctl::plan_sysctls(cx)?);
    ops.extend(names(cx)?);
    ops.extend(cx.namespaces.late_loopback(cx));
    ops.extend(net_devices::plan_net_devices(cx)?);
    ops.extend(hook_ops(&hooks)?);
    ops.extend(mounts.late);
    let linux = cx.linux;
    // A bind of the root on itself would lie above the root that is entered.
    let (whole, paths): (Vec<_>, Vec<_>) = linux.readonly_paths.iter().partition(|p| is_root(p));
    ops.extend(paths.into_iter().map(|p| SetupOp::ReadOnly { path: without_last_slash(p) }));
    let mask = |p: &String| SetupOp::Mask { path: without_last_slash(p), label: cx.mount_label() };
    ops.extend(linux.masked_paths.iter().map(mask));
    if !whole.is_empty() || cx.input.config.root.as_ref().is_some_and(|r| r.readonly) {
        ops.push(SetupOp::ReadOnlyRoot);
    }
    ops.extend(enter_root(private, cx.input.no_pivot));
    if let Some(propagation) = root {
        ops.push(SetupOp::RootPropagation { propagation: propagation.0, recursive: propagation.1 });
    }
    Ok(ops)
}

fn is_root(path: &str) -> bool {
    path.starts_with('/') && Path::new(path).parent().is_none()
}

/// A slash behind a file would make the kernel find nothing to mask there.
fn without_last_slash(path: &str) -> PathBuf {
    match path.trim_end_matches('/') {
        "" => PathBuf::from(path),
        path => PathBuf::from(path),
    }
}

/// A container whose mounts are made in the host's own namespace, as runc has it: below its root only, which it
/// enters by chroot(2). `delete` takes them away.
fn check_host_mounts(cx: &Context<'_>) -> Result<()> {
    let fail = |why: &str| {
        Err(StartFailureError::new(format!("config.json has no mount namespace: {why}"))
            .hint("add {\"type\": \"mount\"} to linux.namespaces"))
    };
    if !cx.linux.masked_paths.is_empty() || !cx.linux.readonly_paths.is_empty() {
        return fail("unable to restrict sys entries without a private MNT namespace");
    }
    if cx.namespaces.has(LinuxNamespaceType::User) || !cx.facts.privileged {
        return fail("in a user namespace nothing can be mounted in the host's");
    }
    if *cx.input.rootfs != RootFs::Path {
        return fail("a root of layers needs one");
    }
    Ok(())
}

fn enter_root(private: bool, no_pivot: bool) -> Vec<SetupOp> {
    match (private, no_pivot) {
        (false, _) => vec![SetupOp::ChangeRoot],
        (true, false) => vec![SetupOp::PivotRoot { by_move: false }],
        (true, true) => vec![SetupOp::CoverHostSystems, SetupOp::PivotRoot { by_move: true }],
    }
}

/// Propagation of the copied tree, then that of the new root. The copy is a slave at most: nothing that is
/// mounted in it may appear on the host; binds that shall are cloned before (`Propagation::Shared`), as far as
/// `HostPeers` lets them.
fn propagation(linux: &Linux) -> Result<(Propagation, Option<(Propagation, bool)>)> {
    let Some(text) = linux.rootfs_propagation.as_deref().filter(|t| !t.is_empty()) else {
        return Ok((Propagation::Slave, None));
    };
    let asked = parse_propagation(text)
        .ok_or_else(|| StartFailureError::new(format!("rootfsPropagation={text} is not supported")))?;
    Ok(match asked.0 {
        Propagation::Private if asked.1 => (Propagation::Private, None),
        Propagation::Slave => (Propagation::Slave, None),
        Propagation::Private | Propagation::Shared | Propagation::Unbindable => (Propagation::Slave, Some(asked)),
    })
}

fn rootfs(cx: &Context<'_>) -> Result<Vec<SetupOp>> {
    match cx.input.rootfs {
        RootFs::Path => {
            let source = cx.root.clone().ok_or_else(|| StartFailureError::new("config.json has no root"))?;
            Ok(vec![SetupOp::BindRoot { source: source.clone() }, SetupOp::AttachRoot { at: source }])
        }
        RootFs::Overlay(overlay) => {
            // An ordinary user's own layers belong to the ids that are mapped already.
            let ids = cx.namespaces.id_map_source().filter(|_| cx.facts.privileged);
            // Covers only what nobody reaches by path any more; files of the bundle are still to be bound. In a user
            // namespace the store's directories are closed; over `/`, paths go on meaning what they meant.
            let at = if ids.is_some() { PathBuf::from("/") } else { overlay.work.clone() };
            let root = SetupOp::OverlayRoot { overlay: overlay.clone(), ids: ids.clone() };
            let mut ops = vec![root, SetupOp::AttachRoot { at }];
            ops.extend(overlay.submounts.iter().map(|s| SetupOp::SubOverlay {
                path: s.path.clone(),
                upper: s.upper.clone(),
                work: s.work.clone(),
                flags: overlay.flags(),
                ids: ids.clone(),
            }));
            ops.extend(overlay.hidden.iter().map(|p| SetupOp::Mask { path: p.clone(), label: None }));
            Ok(ops)
        }
    }
}

/// root.path as an absolute path of the host; none where the root is assembled from layers.
fn root_path(input: &PlanInput<'_>) -> Result<Option<PathBuf>> {
    if *input.rootfs != RootFs::Path {
        return Ok(None);
    }
    let root = input.config.root.as_ref().ok_or_else(|| StartFailureError::new("root must be specified"))?;
    if root.path.is_empty() {
        return Err(StartFailureError::new("root.path is empty"));
    }
    let source = absolute(input.bundle, &root.path);
    if source == Path::new("/") {
        return Err(StartFailureError::new("root.path is the host's own root"));
    }
    Ok(Some(source))
}

/// `path` of the bundle as an absolute host path, without `.`; `..` stays, because links decide what it means.
pub(super) fn absolute(bundle: &Path, path: &str) -> PathBuf {
    let joined = bundle.join(path);
    joined.components().collect()
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
        if name.contains('\0') {
            return Err(StartFailureError::new(format!("{what} {name:?} contains a NUL byte")));
        }
        ops.push(match what {
            "hostname" => SetupOp::Hostname { name: name.clone() },
            _ => SetupOp::Domainname { name: name.clone() },
        });
    }
    Ok(ops)
}

fn hook_ops(hooks: &Hooks) -> Result<Vec<SetupOp>> {
    let early = hooks.prestart.iter().chain(&hooks.create_runtime).chain(&hooks.create_container);
    for hook in early.chain(&hooks.start_container).chain(&hooks.poststart).chain(&hooks.poststop) {
        crate::hooks::check(hook).map_err(|e| StartFailureError::new(format!("hook {:?}: {e}", hook.path)))?;
    }
    let mut ops = Vec::new();
    let (prestart, create_runtime) = (hooks.prestart.clone(), hooks.create_runtime.clone());
    if !prestart.is_empty() || !create_runtime.is_empty() {
        ops.push(SetupOp::RuntimeHooks { prestart, create_runtime });
    }
    if !hooks.create_container.is_empty() {
        ops.push(SetupOp::ContainerHooks { hooks: hooks.create_container.clone() });
    }
    Ok(ops)
}

/// The hooks of a container, or none.
pub(super) fn start_hooks(config: &Spec) -> Option<ProcessOp> {
    let hooks = config.hooks.as_ref()?.start_container.clone();
    (!hooks.is_empty()).then_some(ProcessOp::Hooks { hooks })
}

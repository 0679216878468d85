//! Mounts that the child of the clone cannot make itself.
//!
//! In a user namespace it may not traverse the caller's directories; a bind that stays shared with the host has
//! to be cloned before the child's tree becomes a slave; and user namespaces that exist for their id maps need a
//! process that the runtime can write the maps of.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    rc::Rc,
};

use onggi_spec::oci::runtime::{LinuxIdMapping, LinuxNamespaceType};
use onggi_sys::{
    SysContext,
    mount::{self, AttributeChange, Depth, FsContext, attr},
    ns,
    process::{self, CloneRequest, Cloned},
};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};

use crate::{
    channel::{Channel, Message},
    child::{self, BindContext},
    error::{Result, StartFailureError, Step},
    idmapped::{self, Layers},
    plan::{
        BindMount, DeviceKind, DeviceNode, FsMount, IdMapSource, ParentOp, Propagation, SandboxFacts, SandboxPlan,
        SetupOp,
    },
    sources,
};

/// By index of the operation in `plan.setup`.
#[derive(Debug, Default)]
pub(crate) struct MountSources {
    /// Detached mounts.
    pub(crate) ready: BTreeMap<usize, OwnedFd>,
    /// Binds that have to wait for their turn: earlier mounts make their sources.
    pub(crate) asked_for: BTreeSet<usize>,
    /// For idmapped binds.
    pub(crate) user_namespaces: BTreeMap<usize, Rc<OwnedFd>>,
}

/// Makes what can be made before the clone.
///
/// `scratch` is a directory that only the runtime can enter, `netns` the network namespace that was given.
pub(crate) fn prepare(
    plan: &SandboxPlan,
    facts: &SandboxFacts,
    scratch: &Path,
    netns: Option<&OwnedFd>,
) -> Result<MountSources> {
    let user = facts.privileged && has_user_namespace(plan);
    let mut out = MountSources::default();
    let mut known = Namespaces::default();
    for (index, op) in plan.setup.iter().enumerate() {
        match op {
            SetupOp::BindRoot { source } if user => {
                out.ready.insert(index, child::bind_root(source)?);
            }
            SetupOp::BindNode(node) if user && child::host_device(&node.path, node.major, node.minor).is_err() => {
                let made = make_device(&scratch.join(format!("device-{index}")), node, plan).step(|| op.words())?;
                out.ready.insert(index, made);
            }
            SetupOp::OverlayRoot { overlay: o, ids: Some(ids) } => {
                let layers = Layers { lower: &o.lower, upper: &o.upper, work: &o.work, flags: o.flags() };
                out.ready.insert(index, idmapped::overlay(layers, known.get(ids)?.as_fd(), owner_of(ids)?)?);
            }
            SetupOp::SubOverlay { path, upper, work, flags, ids: Some(ids) } if path.exists() => {
                let layers = Layers { lower: std::slice::from_ref(path), upper, work, flags: *flags };
                out.ready.insert(index, idmapped::overlay(layers, known.get(ids)?.as_fd(), owner_of(ids)?)?);
            }
            SetupOp::Mount(mount) if user && mount.fstype == "sysfs" => {
                if let Some(netns) = netns {
                    out.ready.insert(index, sysfs_of(netns, mount)?);
                }
            }
            SetupOp::Bind(bind) => {
                if let Some(map) = &bind.id_map {
                    out.user_namespaces.insert(index, known.get(&map.source)?);
                }
                prepare_bind(&mut out, index, bind, user, facts).map_err(|e| e.mounting(&bind.source, &bind.target))?;
            }
            _ => {}
        }
    }
    Ok(out)
}

fn has_user_namespace(plan: &SandboxPlan) -> bool {
    let joined = |op: &ParentOp| matches!(op, ParentOp::Join { kind: LinuxNamespaceType::User, .. });
    plan.clone.contains(&LinuxNamespaceType::User) || plan.before.iter().any(joined)
}

fn prepare_bind(
    out: &mut MountSources,
    index: usize,
    bind: &BindMount,
    user: bool,
    facts: &SandboxFacts,
) -> Result<()> {
    let shared = facts.privileged && bind.propagation.is_some_and(|(p, _)| p == Propagation::Shared);
    if user && bind.in_root.is_some() {
        out.asked_for.insert(index);
    } else if (user && !bind.links.copy) || shared {
        let ids = out.user_namespaces.get(&index).map(|fd| fd.as_fd());
        let mount = child::prepare_bind(bind, BindContext { root: None, ids })?;
        out.ready.insert(index, mount);
    }
    Ok(())
}

/// A device that the host does not have under that path: mknod(2) is not for user namespaces, a bind is. The node
/// stays beside the state, because what is unlinked cannot be attached; it goes with the state.
fn make_device(at: &Path, node: &DeviceNode, plan: &SandboxPlan) -> onggi_sys::Result<OwnedFd> {
    let what = || format!("{at:?}");
    let kind = match node.kind {
        DeviceKind::Block => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    };
    let number = rustix::fs::makedev(node.major, node.minor);
    rustix::fs::mknodat(CWD, at, kind, Mode::empty(), number).sys("mknod", what)?;
    let (uid, gid) = host_ids(plan, node.uid, node.gid);
    rustix::fs::chown(at, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).sys("chown", what)?;
    rustix::fs::chmod(at, Mode::from_raw_mode(node.mode)).sys("chmod", what)?;
    let mount = mount::clone_tree(at, Depth::One)?;
    let change = AttributeChange { clear: attr::NODEV, ..AttributeChange::default() };
    mount::set_attributes(mount.as_fd(), Depth::One, change)?;
    Ok(mount)
}

/// Ids of the container as the host has them; unmapped ones stay with root.
fn host_ids(plan: &SandboxPlan, uid: u32, gid: u32) -> (u32, u32) {
    let maps = plan.after.iter().find_map(|op| match op {
        ParentOp::WriteIdMaps { uid, gid, .. } | ParentOp::CheckIdMaps { uid, gid } => Some((uid, gid)),
        _ => None,
    });
    let outside = |map: &[LinuxIdMapping], id| sources::host_id(map, id).unwrap_or(0);
    maps.map_or((0, 0), |(u, g)| (outside(u, uid), outside(g, gid)))
}

/// User namespaces for id maps; most mounts of a container want the same.
#[derive(Debug, Default)]
struct Namespaces(Vec<(IdMapSource, Rc<OwnedFd>)>);

impl Namespaces {
    fn get(&mut self, source: &IdMapSource) -> Result<Rc<OwnedFd>> {
        if let Some((_, known)) = self.0.iter().find(|(s, _)| s == source) {
            return Ok(known.clone());
        }
        let made = Rc::new(namespace_of(source)?);
        self.0.push((source.clone(), made.clone()));
        Ok(made)
    }
}

/// sysfs shows the devices of the network namespace of whoever mounts it, who must have power over that: root
/// has over one that the engine made, the container's root has not.
fn sysfs_of(netns: &OwnedFd, mount: &FsMount) -> Result<OwnedFd> {
    let step = || SetupOp::Mount(mount.clone()).words();
    let made = || {
        ns::join(netns.as_fd(), ns::flag::NETWORK)?;
        let fs = FsContext::open("sysfs")?;
        fs.set("source", mount.source.as_bytes())?;
        fs.mount(mount.attributes)
    };
    by_helper(CloneRequest::default(), || made().step(step))
}

/// A mount that a short-lived process makes, which may change its namespaces and credentials for it: the runtime
/// needs its own.
pub(crate) fn by_helper(request: CloneRequest<'_>, make: impl FnOnce() -> Result<OwnedFd>) -> Result<OwnedFd> {
    let (ours, theirs) = Channel::pair()?;
    match process::clone_process(request).step(|| "clone a helper for mounts".into())? {
        Cloned::Child => {
            let message = match make() {
                Ok(fd) => Message::Mount(fd),
                Err(e) => Message::Failed(e.0),
            };
            // Without a reader the runtime is gone, and so is whoever wanted the mount.
            let _ = theirs.send(&message);
            process::exit_now(0)
        }
        Cloned::Parent { pidfd, .. } => {
            drop(theirs);
            let answer = ours.receive();
            let _ = process::wait_pidfd(pidfd.as_fd());
            match answer? {
                Some(Message::Mount(fd)) => Ok(fd),
                Some(Message::Failed(failure)) => Err(StartFailureError(failure)),
                _ => Err(StartFailureError::new("the helper for mounts died")),
            }
        }
    }
}

/// Root of the container, seen from outside.
fn owner_of(source: &IdMapSource) -> Result<(u32, u32)> {
    let owner = match source {
        IdMapSource::Maps(uid, gid) => sources::host_id(uid, 0).zip(sources::host_id(gid, 0)),
        IdMapSource::Namespace(_) => None,
    };
    owner.ok_or_else(|| StartFailureError::new("an overlay needs a user namespace with a root of its own"))
}

fn namespace_of(source: &IdMapSource) -> Result<OwnedFd> {
    match source {
        IdMapSource::Maps(uid, gid) => sources::user_namespace(uid, gid),
        IdMapSource::Namespace(at) => sources::open(at).step(|| format!("open user namespace {}", at.display())),
    }
}

/// Makes the bind with this index in the mount namespace of the child `pid`, which has asked for it.
pub(crate) fn make_in(pid: i32, plan: &SandboxPlan, index: usize, ids: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let Some(SetupOp::Bind(bind)) = plan.setup.get(index) else {
        return Err(StartFailureError::new("the child asked for a mount that is not in its plan"));
    };
    let root = plan.setup.iter().find_map(|op| match op {
        SetupOp::AttachRoot { at } => Some(at.as_path()),
        _ => None,
    });
    by_helper(CloneRequest::default(), || make_there(pid, bind, root, ids))
        .map_err(|e| e.mounting(&bind.source, &bind.target))
}

fn make_there(pid: i32, bind: &BindMount, root: Option<&Path>, ids: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let step = || "enter the container's mount namespace".to_string();
    let namespace = sources::open(&Path::new("/proc").join(pid.to_string()).join("ns/mnt")).step(step)?;
    ns::join(namespace.as_fd(), ns::flag::MOUNT).step(step)?;
    let root = match root {
        Some(at) => Some(
            rustix::fs::open(at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .sys("open", || format!("{at:?}"))
                .step(step)?,
        ),
        None => None,
    };
    child::prepare_bind(bind, BindContext { root: root.as_ref().map(AsFd::as_fd), ids })
}

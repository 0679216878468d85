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

use onggi_spec::oci::runtime::LinuxNamespaceType;
use onggi_sys::{
    SysContext, ns,
    process::{self, CloneRequest, Cloned},
};
use rustix::fs::{Mode, OFlags};

use crate::{
    channel::{Channel, Message},
    child::{self, BindContext},
    error::{Result, StartFailureError, Step},
    plan::{BindMount, IdMap, IdMapSource, ParentOp, Propagation, SandboxFacts, SandboxPlan, SetupOp},
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
pub(crate) fn prepare(plan: &SandboxPlan, facts: &SandboxFacts) -> Result<MountSources> {
    let user = facts.privileged && has_user_namespace(plan);
    let mut out = MountSources::default();
    for (index, op) in plan.setup.iter().enumerate() {
        match op {
            SetupOp::BindRoot { source } if user => {
                out.ready.insert(index, child::bind_root(source)?);
            }
            SetupOp::Bind(bind) => prepare_bind(&mut out, index, bind, user, facts)?,
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
    if let Some(map) = &bind.id_map {
        let ids = user_namespace(map)?;
        out.user_namespaces.insert(index, Rc::new(ids));
    }
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

fn user_namespace(map: &IdMap) -> Result<OwnedFd> {
    match &map.source {
        IdMapSource::Maps(uid, gid) => sources::user_namespace(uid, gid),
        IdMapSource::Namespace(at) => sources::open(at).step(|| format!("open user namespace {}", at.display())),
    }
}

/// Makes the bind with this index in the mount namespace of the child `pid`, which has asked for it. A process of
/// its own goes there: the runtime needs its namespace.
pub(crate) fn make_in(pid: i32, plan: &SandboxPlan, index: usize, ids: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let Some(SetupOp::Bind(bind)) = plan.setup.get(index) else {
        return Err(StartFailureError::new("the child asked for a mount that is not in its plan"));
    };
    let root = plan.setup.iter().find_map(|op| match op {
        SetupOp::AttachRoot { at } => Some(at.as_path()),
        _ => None,
    });
    let (ours, theirs) = Channel::pair()?;
    match process::clone_process(CloneRequest::default()).step(|| "clone a helper for mounts".into())? {
        Cloned::Child => {
            let message = match make_there(pid, bind, root, ids) {
                Ok(fd) => Message::Mount(fd),
                Err(e) => Message::Failed(e.0),
            };
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

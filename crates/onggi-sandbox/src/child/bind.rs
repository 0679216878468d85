//! Binds: a detached copy of a piece of the mount tree, with its attributes, attached in the root.
//!
//! Who makes the copy depends on who may: the child itself, the runtime before the clone (the child is in a
//! user namespace, or the mount stays shared with the host), or, for a source that earlier mounts of the same
//! container have made, a helper of the runtime in the child's mount namespace.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use onggi_sys::{
    Errno, SysContext, SysError,
    mount::{self, AttributeChange, Depth, attr},
    path::{self, Node, OFlags},
};
use rustix::fs::{AtFlags, FileType, Mode, StatVfsMountFlags};

use super::{
    Child,
    mounts::{PROC_SUPER_MAGIC, change, propagation_bits},
};
use crate::{
    channel::Message,
    error::{Result, StartFailureError, Step},
    plan::{BindMount, HostPeers, Propagation, SetupOp, atime},
};

/// Attributes that a mount of another user namespace keeps (mount_namespaces(7), "locked").
const LOCKABLE: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;

/// What a bind may need besides its own description.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BindContext<'a> {
    /// The root filesystem, for sources inside it.
    pub(crate) root: Option<BorrowedFd<'a>>,
    /// The user namespace whose ids the mount shows.
    pub(crate) ids: Option<BorrowedFd<'a>>,
}

/// The detached mount of a bind, with its attributes.
pub(crate) fn prepare_bind(bind: &BindMount, cx: BindContext<'_>) -> Result<OwnedFd> {
    let step = || SetupOp::Bind(bind.clone()).words();
    let fd = copy(bind, cx).map_err(|e| {
        let failure = StartFailureError::from_sys(step(), &e);
        match e.errno {
            Errno::NOENT => failure.hint(format!("{} does not exist on the host", bind.source.display())),
            _ => failure,
        }
    })?;
    if bind.must_be_proc {
        let fs = rustix::fs::fstatfs(&fd).sys("fstatfs", || "bind source").step(step)?;
        if fs.f_type != PROC_SUPER_MAGIC {
            return Err(StartFailureError::new(format!(
                "{}: it cannot be mounted because it is not of type proc",
                step()
            )));
        }
    }
    leave_peers(&fd, bind).step(step)?;
    set_attributes(&fd, bind).step(step)?;
    if let (Some(map), Some(ids)) = (&bind.id_map, cx.ids) {
        let depth = if map.recursive { Depth::Recursive } else { Depth::One };
        let change = AttributeChange { set: attr::IDMAP, user_namespace: Some(ids), ..AttributeChange::default() };
        mount::set_attributes(fd.as_fd(), depth, change).map_err(|e| {
            let failure = StartFailureError::from_sys(format!("{}: map its ids", step()), &e);
            if e.errno == Errno::INVAL { failure.hint("not every filesystem can be id-mapped") } else { failure }
        })?;
    }
    Ok(fd)
}

fn copy(bind: &BindMount, cx: BindContext<'_>) -> onggi_sys::Result<OwnedFd> {
    let depth = if bind.recursive { Depth::Recursive } else { Depth::One };
    match (&bind.in_root, cx.root) {
        // Links of the image lead nowhere but into the image.
        (Some(inside), Some(root)) => {
            let source = path::open_in_root(root, inside, OFlags::PATH)?;
            mount::clone_tree_at(source.as_fd(), depth)
        }
        _ if bind.links.keep_source => mount::clone_tree_no_follow(&bind.source, depth),
        _ => mount::clone_tree(&bind.source, depth),
    }
}

/// Takes a mount that will get or send events out of the host's peer groups, as far as `rootfsPropagation` says.
/// Nothing is mounted on it yet, so no event is lost or sent meanwhile.
fn leave_peers(fd: &OwnedFd, bind: &BindMount) -> onggi_sys::Result<()> {
    if !matches!(bind.propagation, Some((Propagation::Shared | Propagation::Slave, _))) {
        return Ok(());
    }
    let (p, depth) = match bind.peers {
        HostPeers::All(p) => (p, Depth::Recursive),
        HostPeers::OnRoot(p) if bind.in_root.is_none() && on_host_root(bind)? => (p, Depth::One),
        HostPeers::OnRoot(_) | HostPeers::Kept => return Ok(()),
    };
    let change = AttributeChange { propagation: propagation_bits(p), ..AttributeChange::default() };
    mount::set_attributes(fd.as_fd(), depth, change)
}

/// Whether the source is on the same mount as the host's root directory. Whoever asks has not left that yet.
fn on_host_root(bind: &BindMount) -> onggi_sys::Result<bool> {
    let id_of = |path: &Path, more: OFlags| {
        let flags = OFlags::PATH | OFlags::CLOEXEC | more;
        let fd = rustix::fs::open(path, flags, Mode::empty()).sys("open", || format!("{path:?}"))?;
        mount::id(fd.as_fd())
    };
    let follow = if bind.links.keep_source { OFlags::NOFOLLOW } else { OFlags::empty() };
    Ok(id_of(&bind.source, follow)? == id_of(Path::new("/"), OFlags::empty())?)
}

fn set_attributes(fd: &OwnedFd, bind: &BindMount) -> onggi_sys::Result<()> {
    // A volume neither sends nor receives mount events unless asked.
    let (p, recursive) = bind.propagation.unwrap_or((Propagation::Private, bind.recursive));
    let own = if bind.locked { respect_locks(fd, bind)? } else { bind.attributes };
    let recursive_attributes = bind.recursive_attributes;
    let (mut one, mut all) = (change(own.0, own.1), change(recursive_attributes.0, recursive_attributes.1));
    if recursive {
        all.propagation = propagation_bits(p)
    } else {
        one.propagation = propagation_bits(p)
    }
    for (depth, change) in [(Depth::One, one), (Depth::Recursive, all)] {
        if change.set | change.clear | change.propagation != 0 {
            mount::set_attributes(fd.as_fd(), depth, change)?;
        }
    }
    Ok(())
}

/// What a container in a user namespace may make of the attributes of a mount of the host: those of the source
/// stay, and refusing one of them by name is an error. The kernel itself would say so only once the mount is in
/// the other namespace; here the answer is the same whoever prepares it (runc's).
fn respect_locks(fd: &OwnedFd, bind: &BindMount) -> onggi_sys::Result<(u64, u64)> {
    let (set, clear) = bind.attributes;
    let (has, times) = source_attributes(fd)?;
    let loses = has & clear & LOCKABLE != 0;
    let retimes = bind.atime != 0 && normalised(bind.atime) != times;
    if !loses && !retimes {
        return Ok((set, clear));
    }
    let denied = has & bind.refused.0 & LOCKABLE != 0 || times & bind.refused.1 != 0 || retimes;
    if denied {
        let what = format!("{:?} has attributes that a user namespace cannot clear", bind.source);
        return Err(SysError::new("mount_setattr", what, Errno::PERM));
    }
    Ok((set | (has & LOCKABLE), clear & !(has & LOCKABLE)))
}

/// Attribute bits and access-time words of a mount.
fn source_attributes(fd: &OwnedFd) -> onggi_sys::Result<(u64, u8)> {
    const NOSYMFOLLOW: u64 = 0x2000;
    const RELATIME: u64 = 0x1000;
    let flags = rustix::fs::fstatvfs(fd).sys("fstatfs", || "bind source")?.f_flag;
    let plain = [
        (StatVfsMountFlags::RDONLY.bits(), attr::RDONLY),
        (StatVfsMountFlags::NOSUID.bits(), attr::NOSUID),
        (StatVfsMountFlags::NODEV.bits(), attr::NODEV),
        (StatVfsMountFlags::NOEXEC.bits(), attr::NOEXEC),
        (NOSYMFOLLOW, attr::NOSYMFOLLOW),
    ];
    let has = plain.iter().filter(|(bit, _)| flags.bits() & bit != 0).fold(0, |all, (_, attribute)| all | attribute);
    let times = [
        (StatVfsMountFlags::NOATIME.bits(), atime::NO),
        (StatVfsMountFlags::NODIRATIME.bits(), atime::NO_DIRECTORIES),
        (RELATIME, atime::RELATIVE),
    ];
    let words = times.iter().filter(|(bit, _)| flags.bits() & bit != 0).fold(0, |all, (_, word)| all | word);
    let strict = if words & (atime::NO | atime::RELATIVE) == 0 { atime::STRICT } else { 0 };
    Ok((has, words | strict))
}

/// One mode: `nodiratime` alone means relatime too.
fn normalised(words: u8) -> u8 {
    let mode = [atime::STRICT, atime::NO].into_iter().find(|mode| words & mode != 0).unwrap_or(atime::RELATIVE);
    mode | (words & atime::NO_DIRECTORIES)
}

/// The mount point cannot be made.
fn no_target(step: String, e: &SysError) -> StartFailureError {
    let failure = StartFailureError::from_sys(step, e);
    match e.errno {
        Errno::ROFS => failure.hint("make it there first, empty, or mount what it is in writable"),
        _ => failure,
    }
}

/// move_mount(2) says EINVAL of a directory and a file, mount(2) ENOTDIR: engines look for the latter's words.
pub(super) fn refuse_unlike(is_dir: bool, target: &OwnedFd) -> onggi_sys::Result<()> {
    let stat = rustix::fs::fstat(target).sys("fstat", || "mount target")?;
    match (FileType::from_raw_mode(stat.st_mode) == FileType::Directory) == is_dir {
        true => Ok(()),
        false => Err(SysError::new("move_mount", "a directory and a file", Errno::NOTDIR)),
    }
}

impl Child {
    pub(super) fn bind(&mut self, index: usize, bind: &BindMount) -> Result<()> {
        let step = || SetupOp::Bind(bind.clone()).words();
        if bind.links.copy && self.copy_link(bind)? {
            return Ok(());
        }
        let fd = match self.prepared.mounts.remove(&index) {
            Some(fd) => fd,
            None if self.prepared.asked_for.contains(&index) => self.ask_for_mount(index)?,
            None => {
                let ids = self.prepared.user_namespaces.get(&index).map(AsFd::as_fd);
                prepare_bind(bind, BindContext { root: Some(self.root()?), ids })?
            }
        };
        let stat = rustix::fs::fstat(&fd).sys("fstat", || "bind source").step(step)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let node = if is_dir { Node::Directory(0o755) } else { Node::File(0o644) };
        let target = match bind.links.keep_target {
            true => path::ensure_no_follow(self.root()?, &bind.target, node),
            false => path::ensure(self.root()?, &bind.target, node),
        };
        let target = target.map_err(|e| no_target(step(), &e))?;
        self.check_target(&target, &bind.target)?;
        refuse_unlike(is_dir, &target).and_then(|()| mount::attach(fd.as_fd(), target.as_fd())).map_err(|e| {
            let failure = StartFailureError::from_sys(step(), &e);
            match e.errno {
                Errno::NOTDIR => failure.hint("one of source and target is a directory and the other is not"),
                _ => failure,
            }
        })?;
        if bind.target == Path::new("/") {
            self.root = Some(fd);
        } else if bind.must_be_proc {
            self.bound_proc = Some(fd);
        }
        Ok(())
    }

    /// The runtime may what this process may not.
    fn ask_for_mount(&mut self, index: usize) -> Result<OwnedFd> {
        self.channel.send(&Message::MountWanted(index))?;
        match self.channel.receive()? {
            Some(Message::Mount(fd)) => Ok(fd),
            _ => Err(StartFailureError::new("the runtime gave up")),
        }
    }

    /// True when the source is a link, and the same link is at the target now.
    fn copy_link(&self, bind: &BindMount) -> Result<bool> {
        let step = || format!("copy the link {} to {}", bind.source.display(), bind.target.display());
        let link = match rustix::fs::readlink(&bind.source, Vec::new()) {
            Err(Errno::INVAL) => return Ok(false),
            r => r.sys("readlink", || format!("{:?}", bind.source)).step(step)?,
        };
        let (Some(parent), Some(name)) = (bind.target.parent(), bind.target.file_name()) else { return Ok(false) };
        let dir = path::ensure(self.root()?, parent, Node::Directory(0o755)).step(step)?;
        match rustix::fs::symlinkat(link.as_c_str(), &dir, name) {
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).sys("fstatat", || "target");
                let same = FileType::from_raw_mode(there.step(step)?.st_mode) == FileType::Symlink;
                if same { Ok(true) } else { Err(Errno::EXIST).sys("symlinkat", || format!("{name:?}")).step(step) }
            }
            r => r.map(|()| true).sys("symlinkat", || format!("{name:?}")).step(step),
        }
    }
}

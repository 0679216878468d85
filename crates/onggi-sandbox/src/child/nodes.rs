//! Device nodes, links and directories inside the root, made descriptor-relative in their parent directory.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    rc::Rc,
};

use onggi_sys::{
    Errno, SysContext, SysError,
    mount::{self, Depth},
    path::{self, Node, OFlags},
};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};

use super::Child;
use crate::{
    error::{Result, StartFailureError, Step},
    plan::{DeviceKind, DeviceNode, SetupOp},
};

/// Opens a device of the host and checks on the same descriptor that it is the one that is meant (I5).
pub(crate) fn host_device(at: &Path, major: u32, minor: u32) -> onggi_sys::Result<OwnedFd> {
    let fd = rustix::fs::open(at, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .sys("open", || format!("{at:?}"))?;
    let stat = rustix::fs::fstat(&fd).sys("fstat", || format!("{at:?}"))?;
    let device = matches!(FileType::from_raw_mode(stat.st_mode), FileType::CharacterDevice | FileType::BlockDevice);
    if !device || stat.st_rdev != rustix::fs::makedev(major, minor) {
        return Err(SysError::new("fstat", format!("{at:?} is not device {major}:{minor}"), Errno::NODEV));
    }
    Ok(fd)
}

impl Child {
    pub(super) fn make_dir(&self, at: &Path, mode: u32) -> onggi_sys::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        path::ensure(root.as_fd(), at, Node::Directory(mode)).map(drop)
    }

    /// The parent directory (made when missing) and the name. Neighbours share one lookup.
    fn parent<'p>(&mut self, at: &'p Path) -> onggi_sys::Result<(Rc<OwnedFd>, &'p OsStr)> {
        let invalid = || SysError::new("openat2", format!("{at:?}"), Errno::INVAL);
        let root = self.root.as_ref().ok_or_else(invalid)?;
        let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else { return Err(invalid()) };
        if let Some((_, fd)) = self.last_parent.as_ref().filter(|(known, _)| known == parent) {
            return Ok((Rc::clone(fd), name));
        }
        let fd = Rc::new(path::ensure(root.as_fd(), parent, Node::Directory(0o755))?);
        self.last_parent = Some((parent.to_path_buf(), Rc::clone(&fd)));
        Ok((fd, name))
    }

    pub(super) fn symlink(&mut self, at: &Path, target: &Path, only_if: Option<&Path>) -> onggi_sys::Result<()> {
        if only_if.is_some_and(|p| rustix::fs::stat(p).is_err()) {
            return Ok(());
        }
        let (dir, name) = self.parent(at)?;
        match rustix::fs::symlinkat(target, &*dir, name) {
            Err(Errno::EXIST) => Ok(()),
            r => r.sys("symlinkat", || format!("{target:?}, {at:?}")),
        }
    }

    /// A node that is there already must be the right one.
    pub(super) fn node(&mut self, node: &DeviceNode) -> onggi_sys::Result<()> {
        let (dir, name) = self.parent(&node.path)?;
        let what = || format!("{:?}", node.path);
        let kind = match node.kind {
            DeviceKind::Char => FileType::CharacterDevice,
            DeviceKind::Block => FileType::BlockDevice,
            DeviceKind::Fifo => FileType::Fifo,
        };
        let dev = rustix::fs::makedev(node.major, node.minor);
        let mode = Mode::from_raw_mode(node.mode);
        match rustix::fs::mknodat(&*dir, name, kind, mode, dev) {
            Ok(()) => {}
            Err(Errno::EXIST) => return check_node(node, &dir, name, kind),
            Err(e) => return Err(SysError::new("mknodat", what(), e)),
        }
        if (node.uid, node.gid) == (0, 0) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        rustix::fs::chownat(&*dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).sys("fchownat", what)
    }

    pub(super) fn bind_node(&mut self, index: usize, node: &DeviceNode) -> Result<()> {
        let step = || SetupOp::BindNode(node.clone()).words();
        let copy = match self.prepared.mounts.remove(&index) {
            Some(made) => made,
            None => {
                let device = host_device(&node.path, node.major, node.minor).map_err(|e| {
                    StartFailureError::from_sys(step(), &e)
                        .hint("in a user namespace only devices that the host has can be given to a container")
                })?;
                mount::clone_tree_at(device.as_fd(), Depth::One).step(step)?
            }
        };
        let target = path::ensure(self.root()?, &node.path, Node::File(0o666)).step(step)?;
        self.check_target(&target, &node.path)?;
        mount::attach(copy.as_fd(), target.as_fd()).step(step)
    }
}

/// What is there already is right, or said to be wrong in runc's words.
fn check_node(node: &DeviceNode, dir: &OwnedFd, name: &OsStr, kind: FileType) -> onggi_sys::Result<()> {
    let at = node.path.display();
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).sys("fstatat", || format!("{name:?}"))?;
    let wrong = |what: String| Err(SysError::new("mknodat", format!("{at} has incorrect {what}"), Errno::EXIST));
    if FileType::from_raw_mode(stat.st_mode) != kind {
        return wrong("ftype".into());
    }
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if kind != FileType::Fifo && (major, minor) != (node.major, node.minor) {
        return wrong(format!("major:minor: {major}:{minor} doesn't match expected {}:{}", node.major, node.minor));
    }
    Ok(())
}

//! A file's attributes as an image layer has them, and whether two files are the same.

use std::os::fd::AsFd;

use onggi_sys::SysError;
use onggi_sys::fs::{self, FileType, Time};

use super::content;
use super::dir::Found;
use crate::extract::Privilege;
use crate::tar::{Entry, Kind};

type Sys<T> = std::result::Result<T, SysError>;

/// What is written of one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    /// Sorted.
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    File {
        size: u64,
    },
    Directory,
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    /// Has no place in an archive: left out, as Docker does.
    Socket,
}

impl Node {
    /// Reads the attributes of `name`.
    pub(super) fn read(found: &Found, name: &[u8], privilege: Privilege) -> Sys<Self> {
        let stat = &found.stat;
        let device = || (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        let kind = match fs::file_type(stat) {
            FileType::RegularFile => {
                let size = match &found.data {
                    Some(data) => fs::stat(data.as_fd())?.st_size,
                    None => stat.st_size,
                };
                NodeKind::File { size: size.max(0) as u64 }
            }
            FileType::Directory => NodeKind::Directory,
            FileType::Symlink => NodeKind::Symlink(fs::read_link(found.parent.as_fd(), name)?),
            FileType::CharacterDevice => NodeKind::Char(device().0, device().1),
            FileType::BlockDevice => NodeKind::Block(device().0, device().1),
            FileType::Fifo => NodeKind::Fifo,
            _ => NodeKind::Socket,
        };
        Ok(Self {
            kind,
            mode: stat.st_mode & 0o7777,
            owner: (owner(stat.st_uid, Id::User, privilege), owner(stat.st_gid, Id::Group, privilege)),
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            xattrs: xattrs(found)?,
        })
    }

    /// As an entry of an archive; `link` names an earlier entry with the same inode.
    pub(super) fn entry(&self, path: &[u8], link: Option<&[u8]>) -> Option<Entry> {
        let kind = match (&self.kind, link) {
            (_, Some(first)) => Kind::HardLink(first.to_vec()),
            (NodeKind::File { size }, None) => Kind::File { size: *size },
            (NodeKind::Directory, None) => Kind::Directory,
            (NodeKind::Symlink(target), None) => Kind::Symlink(target.clone()),
            (NodeKind::Char(major, minor), None) => Kind::Char(*major, *minor),
            (NodeKind::Block(major, minor), None) => Kind::Block(*major, *minor),
            (NodeKind::Fifo, None) => Kind::Fifo,
            (NodeKind::Socket, None) => return None,
        };
        let xattrs = if link.is_some() { Vec::new() } else { self.xattrs.clone() };
        let (uid, gid) = self.owner;
        let mtime = Time { sec: self.mtime.0, nsec: self.mtime.1 };
        Some(Entry { offset: 0, path: path.to_vec(), kind, mode: self.mode, uid, gid, mtime, xattrs })
    }

    /// The same without its time: that of a root says when a container was made.
    pub(super) fn without_time(self) -> Self {
        Self { mtime: (0, 0), ..self }
    }

    /// Everything but the time, which a directory changes with its content.
    pub(super) fn same_but_time(&self, other: &Self) -> bool {
        self.kind == other.kind && self.mode == other.mode && self.owner == other.owner && self.xattrs == other.xattrs
    }
}

/// True when the new file says nothing that the old one did not: equal attributes, equal bytes.
pub(super) fn same(new: &Found, old: &Found, new_node: &Node, old_node: &Node) -> Sys<bool> {
    if new_node != old_node {
        return Ok(false);
    }
    match new_node.kind {
        NodeKind::File { .. } => content::equal(new, old),
        _ => Ok(true),
    }
}

enum Id {
    User,
    Group,
}

/// Without privilege what the container's root owns belongs to the caller outside.
fn owner(id: u32, which: Id, privilege: Privilege) -> u32 {
    let own = match which {
        Id::User => rustix::process::geteuid().as_raw(),
        Id::Group => rustix::process::getegid().as_raw(),
    };
    if privilege == Privilege::Limited && id == own { 0 } else { id }
}

/// The attributes that an image may carry: the same that unpacking sets.
fn xattrs(found: &Found) -> Sys<Vec<(Vec<u8>, Vec<u8>)>> {
    let file_type = fs::file_type(&found.stat);
    // Links and special files carry none of these (xattr(7): user attributes are for files and directories).
    if !matches!(file_type, FileType::RegularFile | FileType::Directory) {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for name in fs::list_xattr_handle(found.handle.as_fd())? {
        let kept = name == b"security.capability"
            || name.starts_with(b"system.posix_acl_")
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
        if kept && let Some(value) = fs::get_xattr_handle(found.handle.as_fd(), &name)? {
            out.push((name, value));
        }
    }
    out.sort();
    Ok(out)
}

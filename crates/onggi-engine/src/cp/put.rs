//! Makes files in a directory that somebody else may write to at the same time: each by its name in an open directory, never
//! through a link, and never by opening what was there before.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use onggi_sys::{
    Errno, SysError,
    fs::{self, Time},
};
use rustix::fs::{FileType, Stat};

/// Permission bits; and all bits, which have a meaning only together with the owner.
const PERMISSIONS: u32 = 0o1777;
const ALL_BITS: u32 = 0o7777;

/// What a file has beside its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
}

impl Meta {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & ALL_BITS,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time { sec: stat.st_mtime, nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
        }
    }
}

/// Who owns what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// As at the source.
    Kept,
    /// Whoever we are: root in a container, the caller on the host. Set-user-ID bits, which were another's, go.
    Ours,
}

/// Why something cannot be made.
#[derive(Debug)]
pub(super) enum PutError {
    /// A directory is where a file is to be, or the other way round.
    Kind(&'static str),
    /// The kernel's word.
    Sys(SysError),
}

impl From<SysError> for PutError {
    fn from(e: SysError) -> Self {
        Self::Sys(e)
    }
}

type Result<T> = std::result::Result<T, PutError>;

/// Makes a directory, or opens the one that is there. True when it is new: then [`finish_directory`] gives it what it has.
pub(super) fn directory(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, bool)> {
    let made = match fs::make_dir(dir, name, 0o700) {
        Ok(()) => true,
        Err(e) if e.errno == Errno::EXIST => false,
        Err(e) => return Err(e.into()),
    };
    match fs::open_dir_at(dir, name) {
        Err(e) if matches!(e.errno, Errno::NOTDIR | Errno::LOOP) => {
            Err(PutError::Kind("something that is no directory is where a directory is to be"))
        }
        other => Ok((other?, made)),
    }
}

/// Owner, mode and time of a directory that was made, when everything is in it.
pub(super) fn finish_directory(dir: BorrowedFd<'_>, meta: Meta, owner: Owner) -> Result<()> {
    finish(dir, meta, owner)
}

/// Makes a regular file of what `fill` writes. What had its name goes, unless that is a directory.
pub(super) fn file(
    dir: BorrowedFd<'_>,
    name: &[u8],
    meta: Meta,
    owner: Owner,
    fill: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
    make_room(dir, name)?;
    let file = fs::create_file(dir, name, 0o600)?;
    fill(file.as_fd()).and_then(|()| finish(file.as_fd(), meta, owner)).inspect_err(|_| {
        // A half is worse than nothing; the first error is the one to report.
        let _ = fs::unlink(dir, name);
    })
}

/// Makes a symbolic link.
pub(super) fn link(dir: BorrowedFd<'_>, name: &[u8], target: &[u8], meta: Meta, owner: Owner) -> Result<()> {
    make_room(dir, name)?;
    fs::make_symlink(target, dir, name)?;
    finish_name(dir, name, meta, owner)
}

/// Makes a FIFO or a device.
pub(super) fn node(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: FileType,
    device: u64,
    meta: Meta,
    owner: Owner,
) -> Result<()> {
    make_room(dir, name)?;
    fs::make_node(dir, name, kind, 0o600, device)?;
    let handle = fs::open_handle(dir, name)?;
    finish_name(dir, name, meta, owner)?;
    Ok(fs::chmod_handle(handle.as_fd(), bits(meta, owner))?)
}

/// Makes a further name of a file in another directory of the same tree.
pub(super) fn hard_link(from: BorrowedFd<'_>, from_name: &[u8], dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    make_room(dir, name)?;
    Ok(fs::make_link(from, from_name, dir, name)?)
}

fn make_room(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match fs::unlink(dir, name) {
        Err(e) if e.errno == Errno::NOENT => Ok(()),
        Err(e) if matches!(e.errno, Errno::ISDIR | Errno::PERM) && is_directory(dir, name) => {
            Err(PutError::Kind("a directory is where a file is to be"))
        }
        Err(e) if e.errno == Errno::BUSY => Err(PutError::Kind("a file that is mounted there cannot be replaced")),
        other => Ok(other?),
    }
}

fn is_directory(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    fs::stat_at(dir, name).is_ok_and(|stat| fs::file_type(&stat).is_dir())
}

fn bits(meta: Meta, owner: Owner) -> u32 {
    meta.mode & if owner == Owner::Kept { ALL_BITS } else { PERMISSIONS }
}

/// The owner first: a change of it takes set-user-ID bits away.
fn finish(fd: BorrowedFd<'_>, meta: Meta, owner: Owner) -> Result<()> {
    if owner == Owner::Kept {
        permitted(fs::chown(fd, meta.uid, meta.gid))?;
    }
    fs::chmod(fd, bits(meta, owner))?;
    Ok(fs::set_times(fd, meta.mtime)?)
}

fn finish_name(dir: BorrowedFd<'_>, name: &[u8], meta: Meta, owner: Owner) -> Result<()> {
    if owner == Owner::Kept {
        permitted(fs::chown_at(dir, name, meta.uid, meta.gid))?;
    }
    Ok(fs::set_times_at(dir, name, meta.mtime)?)
}

/// An ordinary user can give files to nobody else, and they stay his own.
fn permitted(done: onggi_sys::Result<()>) -> Result<()> {
    match done {
        Err(e) if matches!(e.errno, Errno::PERM | Errno::INVAL) && !rustix::process::geteuid().is_root() => Ok(()),
        other => Ok(other?),
    }
}

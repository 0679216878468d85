//! `tmpcopyup`: what a mount point holds is copied into the tmpfs that will cover it.
//!
//! Descriptor-relative throughout, no link is followed, special files are left out. The tmpfs bounds the
//! bytes, constants here the rest (I12).

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use onggi_sys::{Errno, Result, SysContext, SysError, path::OFlags};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, Stat, Uid};

/// Entries that are copied; a mount point that holds more is not meant for memory.
const MAX_ENTRIES: usize = 100_000;
/// Directories below each other.
const MAX_DEPTH: usize = 64;

/// Copies what is in `from` (O_PATH will do) into the directory `to`, which gets its mode and owner unless the
/// mount's own options (`mode`, `uid`, `gid`) say what they are.
pub(super) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, options: &[(String, Option<String>)]) -> Result<()> {
    let stat = rustix::fs::fstat(from).sys("fstat", || "mount point")?;
    let mut left = MAX_ENTRIES;
    directory(from, to, MAX_DEPTH, &mut left)?;
    // `to` may be an O_PATH descriptor of a detached mount: opened again through itself.
    let this = open(to, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let free = |key: &str| !options.iter().any(|(given, _)| given == key);
    rustix::fs::fchown(&this, Some(uid).filter(|_| free("uid")), Some(gid).filter(|_| free("gid")))
        .sys("fchown", || "tmpfs")?;
    if free("mode") {
        rustix::fs::fchmod(&this, Mode::from_raw_mode(stat.st_mode & 0o7777)).sys("fchmod", || "tmpfs")?;
    }
    Ok(())
}

fn open(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, name, flags, Mode::empty()).sys("openat", || format!("{name:?}"))
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize, left: &mut usize) -> Result<()> {
    if depth == 0 {
        return Err(SysError::new("openat", "tmpcopyup, directories too deep", Errno::LOOP));
    }
    let readable = open(from, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    for entry in Dir::read_from(&readable).sys("getdents64", || "")? {
        let entry = entry.sys("getdents64", || "")?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        *left = left
            .checked_sub(1)
            .ok_or_else(|| SysError::new("getdents64", format!("more than {MAX_ENTRIES} entries"), Errno::FBIG))?;
        copy_entry(readable.as_fd(), to, name, depth, left)?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize, left: &mut usize) -> Result<()> {
    let what = || format!("{name:?}");
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).sys("fstatat", what)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU).sys("mkdirat", what)?;
            let (a, b) = (open(from, name, OFlags::PATH | OFlags::DIRECTORY)?, open(to, name, OFlags::PATH)?);
            directory(a.as_fd(), b.as_fd(), depth - 1, left)?;
        }
        FileType::RegularFile => file(from, to, name)?,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new()).sys("readlinkat", what)?;
            rustix::fs::symlinkat(target.as_c_str(), to, name).sys("symlinkat", what)?;
        }
        _ => return Ok(()),
    }
    keep_attributes(to, name, &stat)
}

fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let what = || format!("{name:?}");
    let source = open(from, name, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR).sys("openat", what)?;
    let (mut source, mut target) = (std::fs::File::from(source), std::fs::File::from(target));
    std::io::copy(&mut source, &mut target).map(drop).sys("write", what)
}

/// Owner first: changing it clears set-user-ID bits.
fn keep_attributes(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    let what = || format!("{name:?}");
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).sys("fchownat", what)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    rustix::fs::chmodat(to, name, mode, AtFlags::empty()).sys("fchmodat", what)
}

//! Files by directory descriptor: what unpacking, snapshots and removal need of the filesystem.
//!
//! Every function takes a directory descriptor and a *single* name (or, where it says so, a path that the
//! kernel resolves beneath a root), never follows a symbolic link in the last component, and names call
//! and object in its error. Nothing here decides anything. Names are bytes: archives are not UTF-8.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
pub use rustix::fs::{Dev, FileType, RawMode, Stat, major, makedev, minor};

use crate::error::{Errno, Result, SysContext};

/// Seconds and nanoseconds since 1970; seconds may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds.
    pub sec: i64,
    /// 0..1_000_000_000.
    pub nsec: u32,
}

/// Shows a name the way strace does.
pub(crate) fn quote(name: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(name))
}

fn pair(fd: BorrowedFd<'_>, name: &[u8]) -> String {
    format!("{}, {}", fd.as_raw_fd(), quote(name))
}

/// Opens a directory for reading by a path of the administrator's or our own; links are followed, so that a data root
/// may be one. Never for a path that an image had a part in.
///
/// # Errors
/// open(2).
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).sys("open", || format!("{path:?}, O_DIRECTORY"))
}

/// Opens the directory `name` in `dir` for reading, without following a link.
///
/// # Errors
/// openat(2).
pub fn open_dir_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).sys("openat", || pair(dir, name))
}

/// A handle on `name` in `dir` that neither reads nor triggers anything (`O_PATH | O_NOFOLLOW`): safe for
/// FIFOs and devices.
///
/// # Errors
/// openat(2).
pub fn open_handle(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).sys("openat", || pair(dir, name))
}

/// Opens for reading what an `O_PATH` handle stands for; the caller has checked its type on the handle.
///
/// # Errors
/// open(2) of `/proc/self/fd/N`.
pub fn reopen_read(handle: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = proc_path(handle);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).sys("open", || format!("{path:?}"))
}

/// The directory at `path` below `root`, every link on the way resolved as if `root` were `/`
/// (openat2(2), `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV`).
///
/// # Errors
/// openat2(2): `ENOENT` when a component is missing, `ENOTDIR` when one is no directory.
pub fn open_dir_in_root(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), how) {
            // A rename anywhere on the machine can make the kernel give up; it asks to be called again.
            Err(Errno::AGAIN) => {}
            other => return other.sys("openat2", || format!("{}, RESOLVE_IN_ROOT", pair(root, path))),
        }
    }
}

/// Creates the regular file `name`, which must not exist, for writing.
///
/// # Errors
/// openat(2); `EEXIST`.
pub fn create_file(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode))
        .sys("openat", || format!("{}, O_CREAT|O_EXCL", pair(dir, name)))
}

/// mkdirat(2). The mode is cut by the umask.
///
/// # Errors
/// mkdirat(2); `EEXIST`.
pub fn make_dir(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode)).sys("mkdirat", || pair(dir, name))
}

/// symlinkat(2).
///
/// # Errors
/// symlinkat(2); `EEXIST`.
pub fn make_symlink(target: &[u8], dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::fs::symlinkat(target, dir, name).sys("symlinkat", || format!("{}, {}", quote(target), pair(dir, name)))
}

/// linkat(2) without following a link at `from`.
///
/// # Errors
/// linkat(2); `EEXIST`, `ENOENT`, `EPERM` for a directory.
pub fn make_link(from_dir: BorrowedFd<'_>, from: &[u8], dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::fs::linkat(from_dir, from, dir, name, AtFlags::empty())
        .sys("linkat", || format!("{}, {}", pair(from_dir, from), pair(dir, name)))
}

/// mknodat(2) for a FIFO, a device or a socket. A character device 0:0 (an overlay whiteout) needs no
/// privilege since Linux 5.8.
///
/// # Errors
/// mknodat(2); `EEXIST`, `EPERM`.
pub fn make_node(dir: BorrowedFd<'_>, name: &[u8], kind: FileType, mode: u32, dev: Dev) -> Result<()> {
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), dev)
        .sys("mknodat", || format!("{}, {kind:?}, {}:{}", pair(dir, name), major(dev), minor(dev)))
}

/// Removes a name that is no directory.
///
/// # Errors
/// unlinkat(2).
pub fn unlink(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).sys("unlinkat", || pair(dir, name))
}

/// Removes an empty directory.
///
/// # Errors
/// unlinkat(2); `ENOTEMPTY`, `EBUSY` for a mount point of this namespace.
pub fn remove_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).sys("unlinkat", || pair(dir, name))
}

/// Renames; refuses to replace anything (`RENAME_NOREPLACE`).
///
/// # Errors
/// renameat2(2); `EEXIST`.
pub fn rename_new(from_dir: BorrowedFd<'_>, from: &[u8], dir: BorrowedFd<'_>, to: &[u8]) -> Result<()> {
    rustix::fs::renameat_with(from_dir, from, dir, to, RenameFlags::NOREPLACE)
        .sys("renameat2", || format!("{}, {}", pair(from_dir, from), pair(dir, to)))
}

/// fstatat(2) without following a link.
///
/// # Errors
/// fstatat(2).
pub fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).sys("newfstatat", || pair(dir, name))
}

/// fstat(2); works on `O_PATH` handles too.
///
/// # Errors
/// fstat(2).
pub fn stat(fd: BorrowedFd<'_>) -> Result<Stat> {
    rustix::fs::fstat(fd).sys("fstat", || fd.as_raw_fd().to_string())
}

/// The file type of a stat result.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// readlinkat(2).
///
/// # Errors
/// readlinkat(2); `EINVAL` when it is no link.
pub fn read_link(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>> {
    rustix::fs::readlinkat(dir, name, Vec::new())
        .map(std::ffi::CString::into_bytes)
        .sys("readlinkat", || pair(dir, name))
}

/// fchown(2). Clears setuid bits and file capabilities: set those afterwards.
///
/// # Errors
/// fchown(2); an id of 2^32-1, which means "unchanged" to the kernel, is `EINVAL`.
pub fn chown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    let ids = owner(uid, gid);
    let done = ids.and_then(|(u, g)| rustix::fs::fchown(fd, Some(u), Some(g)));
    done.sys("fchown", || format!("{}, {uid}, {gid}", fd.as_raw_fd()))
}

/// fchownat(2) of the name itself, never of what it links to.
///
/// # Errors
/// As [`chown`].
pub fn chown_at(dir: BorrowedFd<'_>, name: &[u8], uid: u32, gid: u32) -> Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let done = owner(uid, gid).and_then(|(u, g)| rustix::fs::chownat(dir, name, Some(u), Some(g), flags));
    done.sys("fchownat", || format!("{}, {uid}, {gid}", pair(dir, name)))
}

fn owner(uid: u32, gid: u32) -> std::result::Result<(Uid, Gid), Errno> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

/// fchmod(2).
///
/// # Errors
/// fchmod(2).
pub fn chmod(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).sys("fchmod", || format!("{}, {mode:#o}", fd.as_raw_fd()))
}

/// chmod(2) of what an `O_PATH` handle stands for (fchmod refuses those); not for symbolic links.
///
/// # Errors
/// chmod(2) of `/proc/self/fd/N`.
pub fn chmod_handle(handle: BorrowedFd<'_>, mode: u32) -> Result<()> {
    let path = proc_path(handle);
    rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).sys("chmod", || format!("{path:?}, {mode:#o}"))
}

/// Sets access and modification time through a descriptor.
///
/// # Errors
/// utimensat(2).
pub fn set_times(fd: BorrowedFd<'_>, time: Time) -> Result<()> {
    rustix::fs::futimens(fd, &timestamps(time)).sys("utimensat", || fd.as_raw_fd().to_string())
}

/// Sets access and modification time of the name itself, never of what it links to.
///
/// # Errors
/// utimensat(2).
pub fn set_times_at(dir: BorrowedFd<'_>, name: &[u8], time: Time) -> Result<()> {
    rustix::fs::utimensat(dir, name, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW).sys("utimensat", || pair(dir, name))
}

fn timestamps(time: Time) -> Timestamps {
    let t = Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) };
    Timestamps { last_access: t, last_modification: t }
}

/// fsetxattr(2) on a descriptor that was opened for real (not `O_PATH`).
///
/// # Errors
/// fsetxattr(2).
pub fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
        .sys("fsetxattr", || format!("{}, {}", pair(fd, name), value.len()))
}

/// Sets an extended attribute through an `O_PATH` handle, also of a symbolic link, a FIFO or a device.
///
/// # Errors
/// setxattr(2) of `/proc/self/fd/N`.
pub fn set_xattr_handle(handle: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<()> {
    let path = proc_path(handle);
    rustix::fs::setxattr(&path, name, value, XattrFlags::empty())
        .sys("setxattr", || format!("{path:?}, {}, {}", quote(name), value.len()))
}

/// An extended attribute through an `O_PATH` handle, `None` when there is none, the filesystem has no such
/// attributes, or it is longer than 64 KiB.
///
/// # Errors
/// getxattr(2) of `/proc/self/fd/N`.
pub fn get_xattr_handle(handle: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let path = proc_path(handle);
    let mut value = Vec::with_capacity(65_536);
    match rustix::fs::getxattr(&path, name, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(None),
        Err(e) => Err(e).sys("getxattr", || format!("{path:?}, {}", quote(name))),
    }
}

/// The names of the extended attributes of what an `O_PATH` handle stands for.
///
/// # Errors
/// listxattr(2) of `/proc/self/fd/N`.
pub fn list_xattr_handle(handle: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    let path = proc_path(handle);
    let mut names = Vec::with_capacity(65_536);
    match rustix::fs::listxattr(&path, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => Ok(names.split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect()),
        Err(Errno::NOTSUP) => Ok(Vec::new()),
        Err(e) => Err(e).sys("listxattr", || format!("{path:?}")),
    }
}

/// Removes an extended attribute through any handle; one that is not there is removed already.
///
/// # Errors
/// removexattr(2) of `/proc/self/fd/N`.
pub fn remove_xattr_handle(handle: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let path = proc_path(handle);
    match rustix::fs::removexattr(&path, name) {
        Err(Errno::NODATA) => Ok(()),
        other => other.sys("removexattr", || format!("{path:?}, {}", quote(name))),
    }
}

/// Fills `buffer` from `offset` as far as the file goes.
///
/// # Errors
/// pread(2).
pub fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e).sys("pread64", || format!("{}, offset {offset}", fd.as_raw_fd())),
        }
    }
    Ok(have)
}

fn proc_path(handle: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

/// What a directory opened for reading holds, without `.` and `..`, from its beginning. Names may be removed
/// while it is read.
///
/// # Errors
/// getdents64(2), at once or from the iterator.
pub fn read_dir(dir: BorrowedFd<'_>) -> Result<impl Iterator<Item = Result<(Vec<u8>, FileType)>>> {
    Ok(read_dir_inodes(dir)?.map(|entry| entry.map(|entry| (entry.name, entry.kind))))
}

/// What a directory says of one of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// The inode's number; some filesystems tell another one in stat(2).
    pub ino: u64,
    /// Its type, where the filesystem keeps that in directories.
    pub kind: FileType,
}

/// As [`read_dir`], with inode numbers.
///
/// # Errors
/// As those of [`read_dir`].
pub fn read_dir_inodes(dir: BorrowedFd<'_>) -> Result<impl Iterator<Item = Result<DirEntry>>> {
    let number = dir.as_raw_fd().to_string();
    let entries = rustix::fs::Dir::read_from(dir).sys("getdents64", || number.clone())?;
    Ok(entries.filter_map(move |entry| match entry {
        Ok(entry) => {
            let name = entry.file_name().to_bytes();
            let (ino, kind) = (entry.ino(), entry.file_type());
            (name != b"." && name != b"..").then(|| Ok(DirEntry { name: name.to_vec(), ino, kind }))
        }
        Err(e) => Some(Err(e).sys("getdents64", || number.clone())),
    }))
}

/// Opens the directory `name` in `dir` for reading; refuses links and anything on another mount
/// (openat2(2), `RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH`).
///
/// # Errors
/// openat2(2); `EXDEV` for a mount point, bind mounts of the same filesystem included.
pub fn open_dir_same_mount(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let how = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            other => return other.sys("openat2", || format!("{}, RESOLVE_NO_XDEV", pair(dir, name))),
        }
    }
}

/// ftruncate(2): gives a sparse file its length.
///
/// # Errors
/// ftruncate(2); `EFBIG`.
pub fn set_length(fd: BorrowedFd<'_>, length: u64) -> Result<()> {
    rustix::fs::ftruncate(fd, length).sys("ftruncate", || format!("{}, {length}", fd.as_raw_fd()))
}

/// Writes all of `data` at the current position.
///
/// # Errors
/// write(2).
pub fn write_all(fd: BorrowedFd<'_>, mut data: &[u8]) -> Result<()> {
    let object = |left: usize| format!("{}, {left} bytes", fd.as_raw_fd());
    while !data.is_empty() {
        match rustix::io::write(fd, data) {
            Ok(0) => return Err(Errno::IO).sys("write", || object(data.len())),
            Ok(n) => data = &data[n..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e).sys("write", || object(data.len())),
        }
    }
    Ok(())
}

/// Writes all of `data` at `offset`.
///
/// # Errors
/// pwrite(2).
pub fn write_all_at(fd: BorrowedFd<'_>, mut data: &[u8], mut offset: u64) -> Result<()> {
    let object = |at: u64| format!("{}, offset {at}", fd.as_raw_fd());
    while !data.is_empty() {
        match rustix::io::pwrite(fd, data, offset) {
            Ok(0) => return Err(Errno::IO).sys("pwrite64", || object(offset)),
            Ok(n) => {
                data = &data[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e).sys("pwrite64", || object(offset)),
        }
    }
    Ok(())
}

/// Writes everything that is dirty on the filesystem of `fd` to the disk.
///
/// # Errors
/// syncfs(2), among them the write-back errors (`EIO`, `ENOSPC`) since the descriptor was opened.
pub fn sync_fs(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::syncfs(fd).sys("syncfs", || fd.as_raw_fd().to_string())
}

/// fsync(2): of a directory after a rename.
///
/// # Errors
/// fsync(2).
pub fn sync(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::fsync(fd).sys("fsync", || fd.as_raw_fd().to_string())
}

/// flock(2), exclusive; waits.
///
/// # Errors
/// flock(2).
pub fn lock(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd();
    loop {
        match rustix::fs::flock(fd, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            other => return other.sys("flock", || format!("{}, LOCK_EX", fd.as_raw_fd())),
        }
    }
}

/// flock(2), exclusive; false when someone else holds it.
///
/// # Errors
/// flock(2).
pub fn try_lock(fd: impl AsFd) -> Result<bool> {
    let fd = fd.as_fd();
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e).sys("flock", || format!("{}, LOCK_EX|LOCK_NB", fd.as_raw_fd())),
    }
}

/// Writes to a descriptor that is known by its number, in one call; what cannot be written is lost.
pub fn write_raw(fd: i32, data: &[u8]) {
    // SAFETY: write reads `data.len()` bytes from the live slice; a number that is no open descriptor gives EBADF.
    let _ = unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) };
}

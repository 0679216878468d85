//! Copies that share data where the filesystem can: btrfs subvolumes (btrfs-ioctl(2) of the kernel's
//! `include/uapi/linux/btrfs.h`), reflinks (ioctl_ficlone(2)), copy_file_range(2), and holes (lseek(2)).

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::SeekFrom;

use crate::{
    error::{Errno, Result, SysContext, SysError},
    fs::{self, quote},
};

/// `BTRFS_SUPER_MAGIC` of statfs(2).
const BTRFS_SUPER_MAGIC: i64 = 0x9123_683e;
/// `BTRFS_PATH_NAME_MAX` + 1.
const NAME: usize = 4088;
/// `_IOW(0x94, n, struct btrfs_ioctl_vol_args)`, the struct has 4096 bytes.
const fn request(number: u64) -> u64 {
    (1 << 30) | (4096 << 16) | (0x94 << 8) | number
}
const SNAP_CREATE: u64 = request(1);
const SUBVOL_CREATE: u64 = request(14);
const SNAP_DESTROY: u64 = request(15);

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolumeArgs {
    fd: i64,
    name: [u8; NAME],
}

/// True when the filesystem of `dir` is btrfs.
///
/// # Errors
/// fstatfs(2).
pub fn is_btrfs(dir: BorrowedFd<'_>) -> Result<bool> {
    let found = rustix::fs::fstatfs(dir).sys("fstatfs", || dir.as_raw_fd().to_string())?;
    Ok(found.f_type == BTRFS_SUPER_MAGIC)
}

/// Makes the empty subvolume `name` in `dir`.
///
/// # Errors
/// ioctl(2) `BTRFS_IOC_SUBVOL_CREATE`; `EEXIST`.
pub fn make_subvolume(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    volume(dir, SUBVOL_CREATE, "BTRFS_IOC_SUBVOL_CREATE", 0, name)
}

/// Makes the writable snapshot `name` of the subvolume `source` in `dir`.
///
/// # Errors
/// ioctl(2) `BTRFS_IOC_SNAP_CREATE`; `EEXIST`, `EINVAL` when `source` is no subvolume.
pub fn snapshot_subvolume(source: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    volume(dir, SNAP_CREATE, "BTRFS_IOC_SNAP_CREATE", i64::from(source.as_raw_fd()), name)
}

/// Removes the subvolume `name` in `dir` with everything in it.
///
/// # Errors
/// ioctl(2) `BTRFS_IOC_SNAP_DESTROY`; `ENOENT`, `EINVAL` or `ENOTTY` when it is no subvolume, `EPERM`.
pub fn remove_subvolume(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    volume(dir, SNAP_DESTROY, "BTRFS_IOC_SNAP_DESTROY", 0, name)
}

fn volume(dir: BorrowedFd<'_>, number: u64, call: &'static str, fd: i64, name: &[u8]) -> Result<()> {
    let object = || format!("{call}, {}, {}", dir.as_raw_fd(), quote(name));
    let mut args = VolumeArgs { fd, name: [0; NAME] };
    if name.len() >= NAME || name.contains(&0) || name.contains(&b'/') {
        return Err(SysError::new("ioctl", object(), Errno::INVAL));
    }
    args.name[..name.len()].copy_from_slice(name);
    // SAFETY: `dir` is an open descriptor; `args` has the layout of btrfs_ioctl_vol_args, is initialised, ends in NUL
    // (its length was checked above), and outlives the call, which only reads it.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), number as libc::Ioctl, &raw const args) };
    if done < 0 { Err(SysError::new("ioctl", object(), last_errno())) } else { Ok(()) }
}

fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Gives the empty file `to` the content of `from`: by sharing its extents, else by copying data inside the kernel and
/// leaving holes as holes. Returns true when extents are shared.
///
/// # Errors
/// copy_file_range(2), lseek(2), ftruncate(2).
pub fn copy_content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> Result<bool> {
    let object = || format!("{} to {}", from.as_raw_fd(), to.as_raw_fd());
    if size == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(size != 0);
    }
    let mut at = 0;
    while at < size {
        let Some((start, end)) = next_data(from, at, size).sys("lseek", object)? else { break };
        copy_range(from, to, start, end).sys("copy_file_range", object)?;
        at = end;
    }
    fs::set_length(to, size)?;
    Ok(false)
}

/// The next stretch of data at or after `at`; `None` when there are only holes.
fn next_data(from: BorrowedFd<'_>, at: u64, size: u64) -> std::result::Result<Option<(u64, u64)>, Errno> {
    let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // The filesystem knows no holes.
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(e) => return Err(e),
    };
    let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
    Ok((start < size).then_some((start, end.min(size))))
}

fn copy_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> std::result::Result<(), Errno> {
    let (mut read, mut write) = (start, start);
    while read < end {
        let left = usize::try_from(end - read).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), left) {
            // The file became shorter meanwhile.
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
                return copy_by_hand(from, to, read, end);
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn copy_by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mut at: u64, end: u64) -> std::result::Result<(), Errno> {
    let mut buffer = vec![0; 1 << 18];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let n = rustix::io::pread(from, &mut buffer[..want], at)?;
        if n == 0 {
            return Ok(());
        }
        fs::write_all_at(to, &buffer[..n], at).map_err(|e| e.errno)?;
        at += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read, os::fd::AsFd, os::unix::fs::FileExt, os::unix::fs::MetadataExt};

    #[test]
    fn copies_keep_holes_and_lengths() {
        let dir = std::env::temp_dir().join(format!("onggi-sys-copy-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let from = File::options().read(true).write(true).create(true).truncate(true).open(dir.join("a")).unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(b"middle", 8 << 20).unwrap();
        from.set_len(16 << 20).unwrap();
        let to = File::options().read(true).write(true).create(true).truncate(true).open(dir.join("b")).unwrap();
        copy_content(from.as_fd(), to.as_fd(), 16 << 20).unwrap();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        File::open(dir.join("a")).unwrap().read_to_end(&mut a).unwrap();
        File::open(dir.join("b")).unwrap().read_to_end(&mut b).unwrap();
        assert!(a == b);
        assert!(to.metadata().unwrap().blocks() < 4096, "holes were filled");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

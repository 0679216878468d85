//! The mount API: filesystem contexts, detached mounts, attributes, pivot_root.
//!
//! Everything is addressed by descriptors, so that a path is resolved once by its caller (I1).
//! man pages: fsopen(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2).

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::CWD,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

pub use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::{Errno, Result, SysContext, SysError};

/// Mount attributes (`MOUNT_ATTR_*` of mount_setattr(2)).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-ID bits are ignored.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Programs cannot be executed.
    pub const NOEXEC: u64 = 0x8;
    /// Mask of the access-time mode.
    pub const ATIME: u64 = 0x70;
    /// Access times are not updated.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always updated.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are not updated.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are mapped through a user namespace.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// A filesystem being configured (fsopen(2)).
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
    fstype: String,
}

impl FsContext {
    /// fsopen(2).
    ///
    /// # Errors
    /// ENODEV when the kernel has no such filesystem; EPERM without privilege.
    pub fn open(fstype: &str) -> Result<Self> {
        let fd = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).sys("fsopen", || format!("{fstype:?}"))?;
        Ok(Self { fd, fstype: fstype.to_owned() })
    }

    /// Sets `key=value`. The kernel limits a value to 255 bytes.
    ///
    /// # Errors
    /// EINVAL for an unknown key or value; the kernel's own message is appended.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        rustix::mount::fsconfig_set_string(&self.fd, key, value)
            .map_err(|e| self.error("fsconfig", format!("{key:?}, {:?}", String::from_utf8_lossy(value)), e))
    }

    /// Sets a flag without a value.
    ///
    /// # Errors
    /// As [`FsContext::set`].
    pub fn set_flag(&self, key: &str) -> Result<()> {
        rustix::mount::fsconfig_set_flag(&self.fd, key).map_err(|e| self.error("fsconfig", format!("{key:?}"), e))
    }

    /// Creates the superblock and a detached mount of it with `attributes` (bits of [`attr`]).
    ///
    /// # Errors
    /// What mounting the filesystem fails with; the kernel's own message is appended.
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        rustix::mount::fsconfig_create(&self.fd).map_err(|e| self.error("fsconfig", "CMD_CREATE".into(), e))?;
        let flags = MountAttrFlags::from_bits_retain(attributes as u32);
        rustix::mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, flags)
            .map_err(|e| self.error("fsmount", format!("{attributes:#x}"), e))
    }

    /// The kernel's messages about this context, oldest first, bounded.
    fn messages(&self) -> String {
        let mut all = String::new();
        let mut buf = [0u8; 512];
        for _ in 0..8 {
            let Ok(n) = rustix::io::read(&self.fd, &mut buf) else { break };
            if n == 0 {
                break;
            }
            all.push_str("; ");
            all.push_str(String::from_utf8_lossy(&buf[..n]).trim_end());
        }
        all
    }

    fn error(&self, call: &'static str, what: String, errno: Errno) -> SysError {
        SysError::new(call, format!("{:?}, {what}{}", self.fstype, self.messages()), errno)
    }
}

/// What [`set_attributes`] changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttributeChange<'a> {
    /// Bits of [`attr`] to set.
    pub set: u64,
    /// Bits of [`attr`] to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0 to leave it.
    pub propagation: u64,
    /// The user namespace of an idmapped mount; `attr::IDMAP` must be set then.
    pub user_namespace: Option<BorrowedFd<'a>>,
}

/// Whether an operation covers the mounts below the given one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// One mount.
    One,
    /// It and everything below.
    Recursive,
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// mount_setattr(2) on the mount that `mount` is the root of.
///
/// # Errors
/// EINVAL when `mount` is not the root of a mount; EPERM for locked flags.
pub fn set_attributes(mount: BorrowedFd<'_>, depth: Depth, change: AttributeChange<'_>) -> Result<()> {
    let attr = MountAttr {
        set: change.set,
        clear: change.clear,
        propagation: change.propagation,
        userns_fd: change.user_namespace.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if depth == Depth::Recursive { libc::AT_RECURSIVE } else { 0 };
    let empty: &CStr = c"";
    // SAFETY: `empty` is NUL-terminated and static; `attr` is a live repr(C) struct whose size (32) is
    // passed, MOUNT_ATTR_SIZE_VER0; the kernel only reads both; `mount` is open for the call's duration.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if r < 0 {
        let what = format!("fd, set={:#x}, clear={:#x}, propagation={:#x}", attr.set, attr.clear, attr.propagation);
        return Err(SysError::last("mount_setattr", what));
    }
    Ok(())
}

/// A detached copy of the mount tree at `path` (symbolic links followed), relative to the cwd or absolute.
///
/// # Errors
/// ENOENT; EPERM without privilege; EINVAL for a copy that would reveal what locked mounts hide.
pub fn clone_tree(path: &Path, depth: Depth) -> Result<OwnedFd> {
    rustix::mount::open_tree(CWD, path, clone_flags(depth)).sys("open_tree", || format!("{path:?}"))
}

/// As [`clone_tree`], of the symbolic link itself when `path` is one.
///
/// # Errors
/// As [`clone_tree`].
pub fn clone_tree_no_follow(path: &Path, depth: Depth) -> Result<OwnedFd> {
    let flags = clone_flags(depth) | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(CWD, path, flags).sys("open_tree", || format!("{path:?}, AT_SYMLINK_NOFOLLOW"))
}

/// As [`clone_tree`], of what `fd` refers to (an O_PATH descriptor will do).
///
/// # Errors
/// As [`clone_tree`].
pub fn clone_tree_at(fd: BorrowedFd<'_>, depth: Depth) -> Result<OwnedFd> {
    let flags = clone_flags(depth) | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(fd, c"", flags).sys("open_tree", || format!("fd {}", fd.as_raw_fd()))
}

fn clone_flags(depth: Depth) -> OpenTreeFlags {
    let base = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match depth {
        Depth::One => base,
        Depth::Recursive => base | OpenTreeFlags::AT_RECURSIVE,
    }
}

/// Attaches the detached `mount` on top of what `target` refers to.
///
/// # Errors
/// EINVAL when `target` is not in this mount namespace; ENOTDIR when file and directory meet.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags).sys("move_mount", || "fd, fd")
}

/// Changes the propagation of the whole tree below `/`.
///
/// # Errors
/// EPERM without privilege.
pub fn set_root_propagation(propagation: MountPropagationFlags) -> Result<()> {
    rustix::mount::mount_change(c"/", propagation).sys("mount", || format!("NULL, \"/\", {propagation:?}"))
}

/// mount(2) on the current directory, for filesystems or kernels that the new API does not serve.
///
/// # Errors
/// mount(2).
pub fn mount_on_cwd(source: &Path, fstype: &str, flags: MountFlags, data: &CStr) -> Result<()> {
    rustix::mount::mount(source, c".", fstype, flags, Some(data))
        .sys("mount", || format!("{source:?}, \".\", {fstype:?}, {flags:?}, {data:?}"))
}

/// Makes the current directory the root of this mount namespace and detaches the old root.
///
/// # Errors
/// EINVAL when the old root is an initramfs, or the current directory is not a mount point.
pub fn pivot_to_cwd() -> Result<()> {
    rustix::process::pivot_root(c".", c".").sys("pivot_root", || "\".\", \".\"")?;
    // The old root now lies on top of the new one; "." still names the new root's directory, and the
    // lookup of umount2 sees the topmost mount there (pivot_root(2), NOTES).
    rustix::mount::unmount(c".", UnmountFlags::DETACH).sys("umount2", || "\".\", MNT_DETACH")?;
    rustix::process::chdir(c"/").sys("chdir", || "\"/\"")
}

/// Moves the mount at the current directory over `/` and enters it: for roots that cannot be pivoted.
///
/// # Errors
/// mount(2), chroot(2).
pub fn move_cwd_to_root() -> Result<()> {
    rustix::mount::mount_move(c".", c"/").sys("mount", || "\".\", \"/\", MS_MOVE")?;
    rustix::process::chroot(c".").sys("chroot", || "\".\"")?;
    rustix::process::chdir(c"/").sys("chdir", || "\"/\"")
}

/// Enters the current directory by chroot(2), without changing any mount.
///
/// # Errors
/// chroot(2).
pub fn change_root_to_cwd() -> Result<()> {
    rustix::process::chroot(c".").sys("chroot", || "\".\"")?;
    rustix::process::chdir(c"/").sys("chdir", || "\"/\"")
}

/// The id of the mount that `fd` is on (statx(2), `STATX_MNT_ID`); ids are used again after an unmount.
///
/// # Errors
/// ENOSYS before Linux 5.8.
pub fn id(fd: BorrowedFd<'_>) -> Result<u64> {
    use rustix::fs::{AtFlags, StatxFlags};
    let asked = StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, asked).sys("statx", || "STATX_MNT_ID")?;
    match stat.stx_mask & asked.bits() {
        0 => Err(SysError::new("statx", "STATX_MNT_ID", Errno::NOSYS)),
        _ => Ok(stat.stx_mnt_id),
    }
}

/// Makes the mounts at and below `path` receive events and send none.
///
/// # Errors
/// EINVAL when nothing is mounted there.
pub fn make_tree_slave(path: &Path) -> Result<()> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change(path, flags).sys("mount", || format!("NULL, {path:?}, MS_SLAVE | MS_REC"))
}

/// mount(2) of a new filesystem at a path.
///
/// # Errors
/// mount(2).
pub fn mount_at(source: &Path, target: &Path, fstype: &str, flags: MountFlags) -> Result<()> {
    rustix::mount::mount(source, target, fstype, flags, None)
        .sys("mount", || format!("{source:?}, {target:?}, {fstype:?}, {flags:?}"))
}

/// mount(2) of a new filesystem at a path, with options as text: at most a page of them.
///
/// # Errors
/// mount(2); EINVAL for a NUL byte in the options.
pub fn mount_with(source: &Path, target: &Path, fstype: &str, flags: MountFlags, options: &str) -> Result<()> {
    let what = || format!("{source:?}, {target:?}, {fstype:?}, {flags:?}, {options:?}");
    let data = std::ffi::CString::new(options).map_err(|_| SysError::new("mount", what(), Errno::INVAL))?;
    rustix::mount::mount(source, target, fstype, flags, Some(data.as_c_str())).sys("mount", what)
}

/// umount2(path, UMOUNT_NOFOLLOW).
///
/// # Errors
/// EBUSY while something in it is in use; EINVAL when nothing is mounted there.
pub fn unmount(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW).sys("umount2", || format!("{path:?}, UMOUNT_NOFOLLOW"))
}

/// umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW).
///
/// # Errors
/// EINVAL when nothing is mounted there.
pub fn detach(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .sys("umount2", || format!("{path:?}, MNT_DETACH"))
}

/// A read-only, detached view of the file `path`, fit for execveat(2): whoever gets hold of it through
/// /proc/PID/exe cannot open it for writing (I4, CVE-2019-5736).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over this mount namespace.
pub fn read_only_file(path: &Path) -> Result<OwnedFd> {
    let fd = clone_tree(path, Depth::One)?;
    let change = AttributeChange { set: attr::RDONLY, ..AttributeChange::default() };
    set_attributes(fd.as_fd(), Depth::One, change)?;
    Ok(fd)
}

//! New filesystems: configured and mounted detached, then attached to a mount point found in the root.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use onggi_sys::{
    Errno, SysContext, SysError,
    mount::{self, Depth, FsContext, attr},
    path::{self, Node, OFlags},
};

use super::{
    Child,
    bind::refuse_unlike,
    copy_up, long_options,
    mounts::{PROC_SUPER_MAGIC, change, set_propagation},
};
use crate::{
    error::{Result, StartFailureError, Step},
    plan::{self, FsMount, SetupOp, TargetKind},
};

/// Where a mount goes.
pub(super) struct Target {
    pub(super) fd: OwnedFd,
    /// It was there before.
    pub(super) existed: bool,
}

impl Child {
    pub(super) fn mount(&mut self, index: usize, m: &FsMount) -> Result<()> {
        let step = || SetupOp::Mount(m.clone()).words();
        let target = self.target(&m.target, m.target_kind)?;
        if m.fstype != "proc" {
            self.check_target(&target.fd, &m.target)?;
        }
        let ready = self.prepared.mounts.remove(&index);
        if ready.is_none() && long_options::needs_mount_2(m) {
            return self.mount_long(m, target).map_err(|e| failure(step(), m, &e));
        }
        let fd = match ready.map_or_else(|| make(m, &target), Ok) {
            // Of another user namespace's network only a copy can be had.
            Err(e) if e.errno == Errno::PERM && m.fstype == "sysfs" => host_sys(m).unwrap_or(Err(e)),
            // Before Linux 6.6 `lowerdir+` is unknown, which overlayfs says only when the filesystem is made.
            Err(e) if e.errno == Errno::INVAL && long_options::has_lower_list(m) => {
                return self.mount_long(m, target).map_err(|e| failure(step(), m, &e));
            }
            r => r,
        }
        .map_err(|e| failure(step(), m, &e))?;
        // A mount point that was only made for it has nothing to give, its mode neither.
        if m.copy_up && target.existed {
            copy_up::tree(target.fd.as_fd(), fd.as_fd(), &m.data).step(step)?;
        }
        attach(&fd, &target).map_err(|e| failure(step(), m, &e))?;
        if let Some((p, recursive)) = m.propagation {
            set_propagation(&fd, p, recursive).step(step)?;
        }
        if m.fstype == "mqueue"
            && let Some((_, Some(label))) = m.data.iter().find(|(key, _)| key == "context")
        {
            onggi_sys::fs::set_xattr_handle(fd.as_fd(), b"security.selinux", label.as_bytes()).step(step)?;
        }
        self.keep(fd, m);
        Ok(())
    }

    /// Later operations are about this very mount, whatever its path means by then.
    pub(super) fn keep(&mut self, fd: OwnedFd, m: &FsMount) {
        if m.target == Path::new("/") {
            self.root = Some(fd);
        } else if m.fstype == "proc" {
            self.proc = Some(fd);
        } else {
            self.mounted.push((m.target.clone(), fd));
        }
    }

    /// The planner has judged the destination by its spelling; a link in the root filesystem may lead elsewhere.
    /// Asked of the very descriptor that is mounted on (I1, CVE-2019-16884, CVE-2025-52881).
    pub(super) fn check_target(&self, target: &OwnedFd, destination: &Path) -> Result<()> {
        let step = || format!("find the mount point {}", destination.display());
        let refuse = |what: &str| {
            let hint = "a symbolic link in the root filesystem leads there: use another destination, or mend the image";
            Err(StartFailureError::new(format!("{}: it is {what}", step())).hint(hint))
        };
        let fs = rustix::fs::fstatfs(target).sys("fstatfs", || "mount point").step(step)?;
        if fs.f_type == PROC_SUPER_MAGIC && !plan::may_cover_in_proc(destination) {
            return refuse("inside /proc");
        }
        let identity = |fd: BorrowedFd<'_>| {
            let stat = rustix::fs::fstat(fd).sys("fstat", || "mount point").step(step)?;
            Ok::<_, StartFailureError>((stat.st_dev, stat.st_ino))
        };
        if destination != Path::new("/") && identity(target.as_fd())? == identity(self.root()?)? {
            return refuse("the root itself");
        }
        Ok(())
    }

    fn target(&self, target: &Path, kind: TargetKind) -> Result<Target> {
        let step = || format!("find the mount point {}", target.display());
        let root = self.root()?;
        let found = match kind {
            TargetKind::RealDirectory => path::open_in_root_no_links(root, target, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(|e| match e.errno {
                    Errno::LOOP | Errno::NOTDIR => StartFailureError::from_sys(
                        format!("{}: filesystem must be mounted on ordinary directory", step()),
                        &e,
                    )
                    .hint(format!("{} is a symbolic link in the root filesystem", target.display())),
                    _ => StartFailureError::from_sys(step(), &e),
                }),
            _ => path::open_in_root(root, target, OFlags::PATH).step(step),
        };
        match found {
            Err(e) if e.0.errno == Errno::NOENT.raw_os_error() => {
                let fd = path::ensure(root, target, Node::Directory(0o755)).step(step)?;
                Ok(Target { fd, existed: false })
            }
            r => r.map(|fd| Target { fd, existed: true }),
        }
    }

    pub(super) fn attributes(&self, target: &Path, set: u64) -> onggi_sys::Result<()> {
        let kept = self.mounted.iter().rev().find(|(at, _)| at == target);
        match (kept, &self.root) {
            (Some((_, fd)), _) => mount::set_attributes(fd.as_fd(), Depth::One, change(set, 0)),
            (None, Some(root)) => {
                let fd = path::open_in_root(root.as_fd(), target, OFlags::PATH)?;
                mount::set_attributes(fd.as_fd(), Depth::One, change(set, 0))
            }
            (None, None) => Ok(()),
        }
    }
}

fn attach(fd: &OwnedFd, target: &Target) -> onggi_sys::Result<()> {
    refuse_unlike(true, &target.fd)?;
    mount::attach(fd.as_fd(), target.fd.as_fd())
}

fn make(m: &FsMount, target: &Target) -> onggi_sys::Result<OwnedFd> {
    let fs = FsContext::open(&m.fstype)?;
    if !m.source.is_empty() {
        fs.set("source", m.source.as_bytes())?;
    }
    let given = |key: &str| m.data.iter().any(|(k, _)| k == key);
    if m.fstype == "tmpfs" && target.existed && !given("mode") {
        // The tmpfs takes the place of what is there (runc).
        let stat = rustix::fs::fstat(&target.fd).sys("fstat", || "mount point")?;
        fs.set("mode", format!("{:04o}", stat.st_mode & 0o7777).as_bytes())?;
    }
    for (key, value) in m.data.iter().filter(|(key, _)| m.fstype != "mqueue" || key != "context") {
        match value {
            Some(v) if long_options::is_lower_list(m, key, v) => long_options::set_lower(&fs, v)?,
            Some(v) => fs.set(key, v.as_bytes())?,
            None => fs.set_flag(key)?,
        }
    }
    fs.mount(m.attributes)
}

/// The caller's own /sys. Its mounts are locked together, so all of them come along.
fn host_sys(m: &FsMount) -> Option<onggi_sys::Result<OwnedFd>> {
    let fd = mount::clone_tree(Path::new("/sys"), Depth::Recursive).ok()?;
    let done = mount::set_attributes(fd.as_fd(), Depth::Recursive, change(m.attributes & !attr::ATIME, 0));
    Some(done.map(|()| fd))
}

fn failure(step: String, m: &FsMount, e: &SysError) -> StartFailureError {
    let failure = StartFailureError::from_sys(step, e);
    match e.errno {
        Errno::NODEV => failure.hint(format!("this kernel has no {} filesystem", m.fstype)),
        Errno::PERM if m.fstype == "proc" => {
            failure.hint("a procfs can be mounted only for a pid namespace that belongs to the user namespace")
        }
        _ => failure,
    }
}

/// A mount that later operations may be about.
pub(super) type Mounted = Vec<(PathBuf, OwnedFd)>;

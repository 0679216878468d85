//! The root filesystem: made detached, attached, entered; and what all mount operations share.

use std::{
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use onggi_spec::{
    monitor::OverlayMount,
    overlay::{OverlayFlags, escaped, joined},
};
use onggi_sys::{
    Errno, SysContext, SysError,
    mount::{self, AttributeChange, Depth, FsContext, MountFlags, MountPropagationFlags, attr},
    path::{self, OFlags},
};

use super::Child;
use crate::{
    error::{Result, StartFailureError, Step},
    plan::{Propagation, SetupOp},
};

pub(super) const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// mount(2) flags of a recursive change.
pub(super) fn propagation_flags(p: Propagation) -> MountPropagationFlags {
    let flag = match p {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
    };
    flag | MountPropagationFlags::REC
}

pub(super) fn propagation_bits(p: Propagation) -> u64 {
    u64::from((propagation_flags(p) - MountPropagationFlags::REC).bits())
}

/// Access-time modes exclude each other: the kernel wants the whole mask cleared with any of them.
pub(super) fn change(set: u64, clear: u64) -> AttributeChange<'static> {
    let clear = if (set | clear) & attr::ATIME != 0 { clear | attr::ATIME } else { clear };
    AttributeChange { set, clear, ..AttributeChange::default() }
}

pub(super) fn set_propagation(mount: &OwnedFd, p: Propagation, recursive: bool) -> onggi_sys::Result<()> {
    let change = AttributeChange { propagation: propagation_bits(p), ..AttributeChange::default() };
    mount::set_attributes(mount.as_fd(), if recursive { Depth::Recursive } else { Depth::One }, change)
}

/// overlayfs leaves a mark in the work directory of a volatile mount and refuses the next one, for after a crash the
/// upper may be torn. A container that is started again was not torn: what was thrown away with a crash is gone.
pub(crate) fn forget_volatile(work: &Path) {
    let _ = std::fs::remove_dir_all(work.join("work/incompat"));
}

/// A detached overlay. Layers are given one by one where the kernel can (6.5); the older single option is
/// limited to 255 bytes in this interface.
fn overlay(lower: &[&Path], upper: &Path, work: &Path, flags: OverlayFlags) -> onggi_sys::Result<OwnedFd> {
    if flags.volatile {
        forget_volatile(work);
    }
    match overlay_of(Lower::OneByOne, lower, upper, work, flags) {
        // Before Linux 6.6 the option is unknown, which overlayfs says only when the file system is made.
        Err(e) if e.errno == Errno::INVAL => overlay_of(Lower::Joined, lower, upper, work, flags),
        made => made,
    }
}

/// How overlayfs is told its lower directories.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lower {
    /// `lowerdir+`, any number of any paths; Linux 6.6.
    OneByOne,
    /// `lowerdir=a:b`, as long as one string of fsconfig(2) may be.
    Joined,
}

fn overlay_of(
    how: Lower,
    lower: &[&Path],
    upper: &Path,
    work: &Path,
    flags: OverlayFlags,
) -> onggi_sys::Result<OwnedFd> {
    let fs = FsContext::open("overlay")?;
    fs.set("source", b"overlay")?;
    match how {
        Lower::OneByOne => lower.iter().try_for_each(|layer| fs.set("lowerdir+", path::bytes(layer)))?,
        Lower::Joined => fs.set("lowerdir", &joined(lower))?,
    }
    fs.set("upperdir", &escaped(upper))?;
    fs.set("workdir", &escaped(work))?;
    flags.names().try_for_each(|flag| fs.set_flag(flag))?;
    fs.mount(0)
}

/// The same by mount(2), onto the current directory.
fn overlay_on_cwd(o: &OverlayMount) -> onggi_sys::Result<()> {
    let data = o.directories().data(o.flags().names());
    let data = CString::new(data).map_err(|_| SysError::new("mount", "overlay, NUL in a path", Errno::INVAL))?;
    mount::mount_on_cwd(Path::new("overlay"), "overlay", MountFlags::empty(), &data)
}

impl Child {
    pub(super) fn make_root(&mut self, index: usize, op: &SetupOp) -> Result<()> {
        let step = || op.words();
        if let Some(fd) = self.prepared.mounts.remove(&index) {
            self.root = Some(fd);
            return Ok(());
        }
        match op {
            SetupOp::BindRoot { source } => {
                self.root = Some(bind_root(source)?);
            }
            SetupOp::OverlayRoot { overlay: o, ids: _ } => {
                let lower: Vec<&Path> = o.lower.iter().map(AsRef::as_ref).collect();
                match overlay(&lower, &o.upper, &o.work, o.flags()) {
                    Ok(fd) => self.root = Some(fd),
                    Err(e) if e.errno == Errno::INVAL => self.legacy_root(o, &e).step(step)?,
                    Err(e) => return Err(overlay_failure(step(), &e)),
                }
            }
            _ => return Err(StartFailureError::new("not an operation that makes a root")),
        }
        Ok(())
    }

    /// Before Linux 6.5 (no `lowerdir+`) or with paths over 255 bytes. Mounted on the work directory, which
    /// nobody reaches by path any more.
    fn legacy_root(&mut self, o: &OverlayMount, first: &SysError) -> onggi_sys::Result<()> {
        rustix::process::chdir(&o.work).sys("chdir", || format!("{:?}", o.work))?;
        overlay_on_cwd(o).map_err(|e| if e.errno == Errno::INVAL { first.clone() } else { e })?;
        let cwd = rustix::process::getcwd(Vec::new()).sys("getcwd", || "")?;
        let root = rustix::fs::open(cwd.as_c_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, 0.into())
            .sys("open", || format!("{cwd:?}"))?;
        self.root = Some(root);
        self.root_attached = true;
        Ok(())
    }

    pub(super) fn attach_root(&mut self, at: &Path) -> Result<()> {
        if self.root_attached {
            return Ok(());
        }
        let step = || format!("attach the root at {}", at.display());
        let target = rustix::fs::open(at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, 0.into())
            .sys("open", || format!("{at:?}"))
            .step(step)?;
        mount::attach(self.root()?, target.as_fd()).step(step)
    }

    pub(super) fn sub_overlay(
        &mut self,
        index: usize,
        at: &Path,
        (upper, work): (&Path, &Path),
        flags: OverlayFlags,
    ) -> Result<()> {
        let step = || format!("mount overlay over {}", at.display());
        let ready = self.prepared.mounts.remove(&index);
        let fd = match ready.map_or_else(|| overlay(&[at], upper, work, flags), Ok) {
            // The host's directory went away since it was looked at: the view does not have it either.
            Err(e) if e.errno == Errno::NOENT && !at.exists() => return Ok(()),
            made => made.map_err(|e| overlay_failure(step(), &e))?,
        };
        let target = path::open_in_root_no_links(self.root()?, at, OFlags::PATH | OFlags::DIRECTORY).step(step)?;
        mount::attach(fd.as_fd(), target.as_fd()).step(step)
    }

    pub(super) fn read_only_root(&self) -> onggi_sys::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        mount::set_attributes(root.as_fd(), Depth::One, change(attr::RDONLY, 0))
    }

    pub(super) fn root_propagation(&self, p: Propagation, recursive: bool) -> onggi_sys::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        if p == Propagation::Shared {
            // Shared below itself alone: a slave of the host's would go on to get what is mounted there.
            set_propagation(root, Propagation::Private, false)?;
        }
        set_propagation(root, p, recursive)
    }

    pub(super) fn pivot(&mut self, by_move: bool) -> onggi_sys::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        rustix::process::fchdir(root).sys("fchdir", || "root")?;
        match by_move {
            true => mount::move_cwd_to_root()?,
            false => mount::pivot_to_cwd()?,
        }
        self.view = super::View::Container;
        Ok(())
    }
}

/// The whole tree of `source`. It receives the host's mount events below it (runc), where the tree it is a copy
/// of does; it never sends any.
pub(crate) fn bind_root(source: &Path) -> Result<OwnedFd> {
    let step = || format!("take {} as root filesystem", source.display());
    let fd = mount::clone_tree(source, Depth::Recursive).map_err(|e| {
        let failure = StartFailureError::from_sys(step(), &e);
        match e.errno {
            Errno::NOENT => failure.hint("root.path of config.json does not exist"),
            _ => failure,
        }
    })?;
    let stat = rustix::fs::fstat(&fd).sys("fstat", || "root").step(step)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
        return Err(StartFailureError::new(format!("{}: it is not a directory", step()))
            .hint("root.path of config.json names the directory with the container's files"));
    }
    set_propagation(&fd, Propagation::Slave, true).step(step)?;
    Ok(fd)
}

fn overlay_failure(step: String, e: &SysError) -> StartFailureError {
    let failure = StartFailureError::from_sys(step, e);
    match e.errno {
        Errno::NODEV => failure.hint("this kernel has no overlayfs (CONFIG_OVERLAY_FS)"),
        Errno::PERM => failure.hint("overlayfs in a user namespace needs Linux 5.11"),
        _ => failure,
    }
}

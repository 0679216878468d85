//! An overlay for a container in a user namespace: its layers keep their owners on disk and are seen through the
//! container's id maps, so that root's files are root's there.
//!
//! overlayfs takes id-mapped layers (Linux 5.19) only where it can reach them by path. They are attached in a
//! mount namespace of a short-lived process that nobody else sees; what comes back is the detached overlay.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use onggi_spec::overlay::{Directories, OverlayFlags, escaped};
use onggi_sys::{
    Errno, SysContext, SysError, cred,
    mount::{self, AttributeChange, Depth, FsContext, MountFlags, MountPropagationFlags, attr},
    ns,
    process::CloneRequest,
};
use rustix::fs::{Mode, OFlags};

use crate::{
    child::forget_volatile,
    error::{Result, StartFailureError},
    mount_sources::by_helper,
};

const STEP: &str = "mount the overlay with mapped ids";

/// Directories of the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layers<'a> {
    /// Topmost first.
    pub(crate) lower: &'a [PathBuf],
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
    /// Its options.
    pub(crate) flags: OverlayFlags,
}

/// The detached overlay, its ids mapped as in the user namespace `user`, whose root is `owner` (uid, gid) outside.
pub(crate) fn overlay(layers: Layers<'_>, user: BorrowedFd<'_>, owner: (u32, u32)) -> Result<OwnedFd> {
    let places = Places::of(layers)
        .ok_or_else(|| StartFailureError::new(format!("{STEP}: upper and work directory have no common parent")))?;
    if layers.flags.volatile {
        forget_volatile(layers.work);
    }
    let request = CloneRequest { namespaces: ns::flag::MOUNT, ..CloneRequest::default() };
    by_helper(request, || become_owner(owner).and_then(|()| places.mount(user)).map_err(|e| explained(&e)))
}

/// overlayfs works on its layers with the credentials of whoever mounted it, and in id-mapped layers there is no
/// root but the container's: with ours it could not even make its work directory. The capabilities stay.
fn become_owner((uid, gid): (u32, u32)) -> onggi_sys::Result<()> {
    let held = cred::capabilities()?;
    cred::keep_capabilities(true)?;
    cred::set_gid(gid)?;
    cred::set_uid(uid)?;
    cred::set_capabilities(cred::Capabilities { effective: held.permitted, ..held })
}

fn explained(e: &SysError) -> StartFailureError {
    let failure = StartFailureError::from_sys(STEP, e);
    match e.errno {
        Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS => {
            failure.hint("this kernel or the filesystem of the store has no id-mapped mounts: use --userns host")
        }
        _ => failure,
    }
}

/// What is mounted, with the one directory that holds upper and work: overlayfs wants both on one mount.
struct Places<'a> {
    lower: &'a [PathBuf],
    writable: &'a Path,
    upper: &'a Path,
    work: &'a Path,
    flags: OverlayFlags,
}

impl<'a> Places<'a> {
    fn of(layers: Layers<'a>) -> Option<Self> {
        let writable =
            layers.upper.ancestors().skip(1).find(|dir| dir.is_absolute() && layers.work.starts_with(dir))?;
        let below = |dir: &'a Path| dir.strip_prefix(writable).ok();
        let (upper, work) = (below(layers.upper)?, below(layers.work)?);
        Some(Self { lower: layers.lower, writable, upper, work, flags: layers.flags })
    }

    /// In a mount namespace of its own.
    fn mount(&self, user: BorrowedFd<'_>) -> onggi_sys::Result<OwnedFd> {
        mount::set_root_propagation(MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let lower = self.lower.iter().map(|dir| mapped(dir, user)).collect::<onggi_sys::Result<Vec<_>>>()?;
        let writable = mapped(self.writable, user)?;
        // On top of `/`: every host has that, and absolute paths go on meaning what they meant.
        let desk = FsContext::open("tmpfs")?.mount(0)?;
        let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .sys("open", || "\"/\"")?;
        mount::attach(desk.as_fd(), root.as_fd())?;
        for (at, layer) in lower.iter().enumerate() {
            attach(&desk, &at.to_string(), layer)?;
        }
        attach(&desk, "w", &writable)?;
        rustix::process::fchdir(&desk).sys("fchdir", || "tmpfs")?;
        match self.by_steps() {
            Err(e) if e.errno == Errno::INVAL => self.by_one_call(&desk).map_err(|_| e),
            made => made,
        }
    }

    fn by_steps(&self) -> onggi_sys::Result<OwnedFd> {
        let fs = FsContext::open("overlay")?;
        fs.set("source", b"overlay")?;
        for at in 0..self.lower.len() {
            fs.set("lowerdir+", at.to_string().as_bytes())?;
        }
        fs.set("upperdir", &escaped(&Path::new("w").join(self.upper)))?;
        fs.set("workdir", &escaped(&Path::new("w").join(self.work)))?;
        self.flags.names().try_for_each(|flag| fs.set_flag(flag))?;
        fs.mount(0)
    }

    /// Before Linux 6.5. Seen from the mount point, the layers are beside it.
    fn by_one_call(&self, desk: &OwnedFd) -> onggi_sys::Result<OwnedFd> {
        let at = directory(desk, "m")?;
        rustix::process::fchdir(&at).sys("fchdir", || "m")?;
        let lower: Vec<PathBuf> = (0..self.lower.len()).map(|at| format!("../{at}").into()).collect();
        let beside = Path::new("../w");
        let (upper, work) = (beside.join(self.upper), beside.join(self.work));
        let data = Directories { lower: &lower, upper: Some((&upper, &work)) }.data(self.flags.names());
        let data = CString::new(data).map_err(|_| SysError::new("mount", "overlay, NUL in a path", Errno::INVAL))?;
        mount::mount_on_cwd(Path::new("overlay"), "overlay", MountFlags::empty(), &data)?;
        let mounted = rustix::fs::openat(desk, c"m", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .sys("open", || "m")?;
        mount::clone_tree_at(mounted.as_fd(), Depth::One)
    }
}

fn mapped(dir: &Path, user: BorrowedFd<'_>) -> onggi_sys::Result<OwnedFd> {
    let tree = mount::clone_tree(dir, Depth::One)?;
    let change = AttributeChange { set: attr::IDMAP, user_namespace: Some(user), ..AttributeChange::default() };
    mount::set_attributes(tree.as_fd(), Depth::One, change)?;
    Ok(tree)
}

fn attach(desk: &OwnedFd, name: &str, layer: &OwnedFd) -> onggi_sys::Result<()> {
    mount::attach(layer.as_fd(), directory(desk, name)?.as_fd())
}

fn directory(desk: &OwnedFd, name: &str) -> onggi_sys::Result<OwnedFd> {
    rustix::fs::mkdirat(desk, name, Mode::from_raw_mode(0o755)).sys("mkdirat", || name)?;
    rustix::fs::openat(desk, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .sys("openat", || name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writable<'a>(upper: &'a str, work: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
        let layers =
            Layers { lower: &[], upper: Path::new(upper), work: Path::new(work), flags: OverlayFlags::default() };
        let places = Places::of(layers)?;
        Some((places.writable.to_str()?, places.upper.to_str()?, places.work.to_str()?))
    }

    #[test]
    fn upper_and_work_are_reached_through_their_nearest_common_directory() {
        assert_eq!(writable("/store/c/upper", "/store/c/work"), Some(("/store/c", "upper", "work")));
        assert_eq!(writable("/store/c/sub/1/u", "/store/c/sub/1/w"), Some(("/store/c/sub/1", "u", "w")));
        assert_eq!(writable("upper", "/work"), None);
    }
}

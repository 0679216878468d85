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

use onggi_spec::{monitor::OverlayMount, oci::runtime::LinuxIdMapping};
use onggi_sys::{
    Errno, SysContext, SysError,
    mount::{self, AttributeChange, Depth, FsContext, MountFlags, MountPropagationFlags, attr},
    ns, path,
    process::{self, CloneRequest, Cloned},
    signal,
};
use rustix::fs::{Mode, OFlags};

use crate::{
    channel::{Channel, Message},
    error::{Result, StartFailureError, Step},
    sources,
};

/// Id maps of a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdMaps<'a> {
    pub(crate) uid: &'a [LinuxIdMapping],
    pub(crate) gid: &'a [LinuxIdMapping],
}

/// The detached overlay.
pub(crate) fn overlay(overlay: &OverlayMount, maps: IdMaps<'_>) -> Result<OwnedFd> {
    let step = || "mount the overlay with mapped ids".to_string();
    let layers = Layers::of(overlay).ok_or_else(|| {
        StartFailureError::new(format!("{}: upper and work directory have no common parent", step()))
    })?;
    let user = sources::user_namespace(maps.uid, maps.gid)?;
    let (ours, theirs) = Channel::pair()?;
    let request = CloneRequest { namespaces: ns::flag::MOUNT, ..CloneRequest::default() };
    match process::clone_process(request).step(step)? {
        Cloned::Child => {
            drop(ours);
            let message = match layers.mount(user.as_fd()) {
                Ok(fd) => Message::Mount(fd),
                Err(e) => Message::Failed(explained(&e).0),
            };
            let _ = theirs.send(&message);
            process::exit_now(0)
        }
        Cloned::Parent { pidfd, .. } => {
            drop(theirs);
            let answer = ours.receive();
            let _ = process::pidfd_kill(pidfd.as_fd(), signal::number::KILL);
            let _ = process::wait_pidfd(pidfd.as_fd());
            match answer? {
                Some(Message::Mount(fd)) => Ok(fd),
                Some(Message::Failed(failure)) => Err(StartFailureError(failure)),
                _ => Err(StartFailureError::new(format!("{}: the process that does it died", step()))),
            }
        }
    }
}

fn explained(e: &SysError) -> StartFailureError {
    let failure = StartFailureError::from_sys("mount the overlay with mapped ids", e);
    match e.errno {
        Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS => {
            failure.hint("this kernel or the filesystem of the store has no id-mapped mounts: use --userns host")
        }
        _ => failure,
    }
}

/// What is mounted, with the one directory that holds upper and work: overlayfs wants both on one mount.
struct Layers {
    lower: Vec<PathBuf>,
    writable: PathBuf,
    upper: PathBuf,
    work: PathBuf,
}

impl Layers {
    fn of(overlay: &OverlayMount) -> Option<Self> {
        let writable = overlay.upper.ancestors().skip(1).find(|dir| overlay.work.starts_with(dir))?;
        let below = |dir: &Path| dir.strip_prefix(writable).map(Path::to_path_buf).ok();
        Some(Self {
            lower: overlay.lower.clone(),
            writable: writable.to_path_buf(),
            upper: below(&overlay.upper)?,
            work: below(&overlay.work)?,
        })
    }

    /// In a mount namespace of its own.
    fn mount(&self, user: BorrowedFd<'_>) -> onggi_sys::Result<OwnedFd> {
        mount::set_root_propagation(MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let lower = self.lower.iter().map(|dir| mapped(dir, user)).collect::<onggi_sys::Result<Vec<_>>>()?;
        let writable = mapped(&self.writable, user)?;
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
        fs.set("upperdir", path::bytes(&Path::new("w").join(&self.upper)))?;
        fs.set("workdir", path::bytes(&Path::new("w").join(&self.work)))?;
        fs.mount(0)
    }

    /// Before Linux 6.5. Seen from the mount point, the layers are beside it.
    fn by_one_call(&self, desk: &OwnedFd) -> onggi_sys::Result<OwnedFd> {
        let at = directory(desk, "m")?;
        rustix::process::fchdir(&at).sys("fchdir", || "m")?;
        let lower: Vec<String> = (0..self.lower.len()).map(|at| format!("../{at}")).collect();
        let data = format!(
            "lowerdir={},upperdir=../w/{},workdir=../w/{}",
            lower.join(":"),
            self.upper.display(),
            self.work.display()
        );
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

    fn layers(upper: &str, work: &str) -> Option<Layers> {
        Layers::of(&OverlayMount {
            lower: vec!["/a".into()],
            upper: upper.into(),
            work: work.into(),
            userxattr: false,
            submounts: Vec::new(),
            hidden: Vec::new(),
        })
    }

    #[test]
    fn upper_and_work_are_reached_through_their_nearest_common_directory() {
        let found = layers("/store/c/upper", "/store/c/work").unwrap();
        assert_eq!(found.writable, Path::new("/store/c"));
        assert_eq!((found.upper.as_path(), found.work.as_path()), (Path::new("upper"), Path::new("work")));
        let deep = layers("/store/c/sub/1/upper", "/store/c/sub/1/work").unwrap();
        assert_eq!(deep.writable, Path::new("/store/c/sub/1"));
        assert!(layers("upper", "/work").is_none());
    }
}

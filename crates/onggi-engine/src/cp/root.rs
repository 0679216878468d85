//! The root directory of a container as a descriptor, with everything mounted in it: nothing of a container is executed or
//! loaded, and no path in it is opened but below that descriptor ([`onggi_sys::path`]).
//!
//! A running one: the root of its first process, where the kernel finds all of its mounts. A stopped one: its layers and
//! volumes are mounted in a mount namespace of one thread, and are gone with it.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
};

use onggi_spec::{
    UserNamespace,
    monitor::{OverlayMount, RootFs, SandboxState},
    overlay::Directories,
};
use onggi_state::ContainerRecord;
use onggi_storage::driver::lookup_view;
use onggi_sys::{
    Errno, SysError,
    fs::open_dir,
    mount::{self, AttributeChange, Depth, FsContext, MountFlags, attr},
    ns::{self, flag},
    path::{self, Node, OFlags},
};
use rustix::mount::MountPropagationFlags;

use crate::{Engine, EngineError, status};

/// mount(2) takes a page of options.
const MAX_OPTIONS: usize = 4095;

/// What is done to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Names and contents are read; owners do not matter.
    Read,
    /// It is written to, or owners matter.
    Full,
}

impl Engine {
    /// Calls `work` with the root of a container.
    pub(super) fn with_root<T: Send>(
        &self,
        record: &ContainerRecord,
        access: Access,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T, EngineError> + Send,
    ) -> Result<T, EngineError> {
        if let Some((_, state)) = self.living(record)? {
            return self.with_running_root(record, &state, access, work);
        }
        if !self.rootful() {
            return Err(EngineError::Unsupported {
                what: format!("copying from or to container {}", record.name),
                reason: "its root is not mounted while it does not run, and mounting it needs root".into(),
                hint: format!("start it first: onggi start {}", record.name),
            });
        }
        // Nobody starts or removes it meanwhile. One of --rm that was never started would be removed if we died here.
        let intent = match record.request.remove {
            true => None,
            false => Some(self.intents()?.wait(record.id.as_str())?),
        };
        let done = match self.living(record)? {
            // Somebody has just started it.
            Some((_, state)) => self.with_running_root(record, &state, access, work),
            None => self.with_mounted_root(record, work),
        };
        intent.map_or(Ok(()), onggi_state::files::Intent::complete)?;
        done
    }

    fn with_running_root<T>(
        &self,
        record: &ContainerRecord,
        state: &SandboxState,
        access: Access,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        if record.request.userns == UserNamespace::Auto && access == Access::Full {
            return Err(EngineError::Unsupported {
                what: format!("copying to container {}, or with owners,", record.name),
                reason: "it runs in a user namespace of its own (--userns auto)".into(),
                hint: format!("stop it first: onggi stop {}", record.name),
            });
        }
        let root = root_of_process(state)?;
        work(root.as_fd())
    }

    fn with_mounted_root<T: Send>(
        &self,
        record: &ContainerRecord,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T, EngineError> + Send,
    ) -> Result<T, EngineError> {
        let rootfs = self.rootfs_of(record)?;
        let view = lookup_view(&rootfs, &self.paths.bundle(&record.id));
        // A place that exists; what is in it is not needed on this thread.
        let place = self.paths.root.join("containers");
        let op = || format!("mount the root of container {}", record.id.short());
        let failed = |source| EngineError::Sys { op: op(), source };
        let on_thread = || {
            let root = mount_root(record, &rootfs, &view, &place).map_err(failed)?;
            work(root.as_fd())
        };
        thread::scope(|scope| match scope.spawn(on_thread).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

/// The root directory of the first process, which is known to be that process still after it was opened.
fn root_of_process(state: &SandboxState) -> Result<OwnedFd, EngineError> {
    let path = format!("/proc/{}/root", state.pid);
    let failed = |errno| EngineError::Sys {
        op: "open the container's root".into(),
        source: SysError::new("open", path.clone(), errno),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&*path, flags, rustix::fs::Mode::empty()).map_err(failed)?;
    match status::process_lives(state)? {
        true => Ok(root),
        false => Err(failed(Errno::SRCH)),
    }
}

/// Mounts root and volumes over `place` in a new mount namespace of the calling thread.
fn mount_root(
    record: &ContainerRecord,
    rootfs: &RootFs,
    view: &OverlayMount,
    place: &Path,
) -> onggi_sys::Result<OwnedFd> {
    ns::unshare(flag::MOUNT)?;
    mount::set_root_propagation(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    // Opened before anything covers them.
    let volumes = record.request.mounts.iter().map(|m| {
        let depth = if m.non_recursive { Depth::One } else { Depth::Recursive };
        Ok((m, mount::clone_tree(Path::new(&m.source), depth)?))
    });
    let volumes = volumes.collect::<onggi_sys::Result<Vec<_>>>()?;
    let submounts = view.submounts.iter().map(|sub| {
        let directories = Directories { lower: std::slice::from_ref(&sub.path), upper: Some((&sub.upper, &sub.work)) };
        Ok((&sub.path, overlay(&directories, view.userxattr)?))
    });
    let submounts = submounts.collect::<onggi_sys::Result<Vec<_>>>()?;
    match rootfs {
        RootFs::Overlay(_) => attach_overlay(view, place)?,
        RootFs::Path => {
            let tree = mount::clone_tree_no_follow(&view.upper, Depth::One)?;
            mount::attach(tree.as_fd(), open_dir(place)?.as_fd())?;
        }
    }
    let root = open_dir(place)?;
    for (at, tree) in submounts {
        attach_in(root.as_fd(), at, tree.as_fd())?;
    }
    for hidden in &view.hidden {
        let empty = FsContext::open("tmpfs")?.mount(attr::RDONLY)?;
        attach_in(root.as_fd(), hidden, empty.as_fd())?;
    }
    for (m, tree) in volumes {
        let node = if fs::metadata(&m.source).is_ok_and(|meta| meta.is_dir()) {
            Node::Directory(0o755)
        } else {
            Node::File(0o644)
        };
        if m.read_only {
            read_only(tree.as_fd(), Depth::Recursive)?;
        }
        let target = path::ensure(root.as_fd(), Path::new(&m.target), node)?;
        mount::attach(tree.as_fd(), target.as_fd())?;
    }
    // Last: places for volumes may have had to be made.
    if record.request.read_only {
        read_only(root.as_fd(), Depth::One)?;
    }
    Ok(root)
}

fn read_only(mount: BorrowedFd<'_>, depth: Depth) -> onggi_sys::Result<()> {
    mount::set_attributes(mount, depth, AttributeChange { set: attr::RDONLY, ..AttributeChange::default() })
}

fn attach_in(root: BorrowedFd<'_>, at: &Path, tree: BorrowedFd<'_>) -> onggi_sys::Result<()> {
    match path::open_in_root(root, at, OFlags::PATH) {
        Ok(target) => mount::attach(tree, target.as_fd()),
        // Nothing to cover.
        Err(e) if e.errno == Errno::NOENT => Ok(()),
        Err(e) => Err(e),
    }
}

fn overlay(directories: &Directories<'_>, userxattr: bool) -> onggi_sys::Result<OwnedFd> {
    let context = FsContext::open("overlay")?;
    for dir in directories.lower {
        context.set("lowerdir+", dir.as_os_str().as_encoded_bytes())?;
    }
    if let Some((upper, work)) = directories.upper {
        context.set("upperdir", upper.as_os_str().as_encoded_bytes())?;
        context.set("workdir", work.as_os_str().as_encoded_bytes())?;
    }
    if userxattr {
        context.set_flag("userxattr")?;
    }
    context.mount(0)
}

fn attach_overlay(view: &OverlayMount, place: &Path) -> onggi_sys::Result<()> {
    let directories = view.directories();
    match overlay(&directories, view.userxattr) {
        Ok(tree) => mount::attach(tree.as_fd(), open_dir(place)?.as_fd()),
        // Before Linux 6.6 layers cannot be given one by one, and the old way has room for a page of them.
        Err(e) if e.errno == Errno::INVAL => {
            let data = directories.data(view.userxattr.then_some("userxattr"));
            let options = String::from_utf8_lossy(&data).into_owned();
            if options.len() > MAX_OPTIONS || options.as_bytes() != data {
                return Err(e);
            }
            mount::mount_with(Path::new("overlay"), place, "overlay", MountFlags::empty(), &options)
        }
        Err(e) => Err(e),
    }
}

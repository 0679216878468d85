//! Mounts of a container without a mount namespace: they are below its root filesystem on the host, on top of one
//! bind mount of the root on itself, and go with that.
//!
//! What may be removed is recorded before anything is mounted (`SandboxState::host_root`): the mount that the root
//! was on, and the directory itself. A mount on top that shows the same directory is the container's; anything else
//! is not touched.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use onggi_spec::monitor::{HostRoot, SandboxState};
use onggi_sys::{SysContext, mount, procfs};
use rustix::fs::{Mode, OFlags};

use crate::{
    error::{Result, Step},
    plan::{SandboxPlan, SetupOp},
};

fn open(at: &Path) -> onggi_sys::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(at, flags, Mode::empty()).sys("open", || format!("{at:?}"))
}

/// The mount that the root is on before the container is made; none where its mounts are its own affair.
pub(crate) fn before(plan: &SandboxPlan, rootfs: &Path) -> Result<Option<HostRoot>> {
    if !plan.setup.contains(&SetupOp::ChangeRoot) {
        return Ok(None);
    }
    let step = || format!("open root filesystem {}", rootfs.display());
    open(rootfs).and_then(|fd| look_at(&fd)).step(step).map(Some)
}

fn look_at(dir: &OwnedFd) -> onggi_sys::Result<HostRoot> {
    let stat = rustix::fs::fstat(dir).sys("fstat", || "rootfs")?;
    Ok(HostRoot { mount: mount::id(dir.as_fd())?, device: stat.st_dev, inode: stat.st_ino })
}

/// Unmounts what the container has left on the host. Gone already is fine.
pub(crate) fn remove(state: &SandboxState) -> Result<()> {
    let Some(before) = state.host_root else { return Ok(()) };
    let step = || format!("unmount {}", state.rootfs.display());
    // Mount ids begin anew with every boot.
    if procfs::boot_id().unwrap_or_default() != state.boot_id {
        return Ok(());
    }
    let Ok(at) = state.rootfs.canonicalize() else { return Ok(()) };
    let Ok(now) = open(&at).and_then(|fd| look_at(&fd)) else { return Ok(()) };
    let ours = now.mount != before.mount && (now.device, now.inode) == (before.device, before.inode);
    if !ours {
        return Ok(());
    }
    // Mounts that are shared with the host must not go there too.
    let unmounted = mount::make_tree_slave(&at).and_then(|()| mount::detach(&at)).step(step);
    unmounted.map_err(|e| e.hint(format!("umount --recursive --lazy {}", at.display())))
}

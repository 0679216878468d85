//! The owner of /dev/mqueue in a user namespace. mq_overview(7).
//!
//! The kernel makes the filesystem's root together with the ipc namespace, in the one clone that makes the user
//! namespace too: by then no ids are mapped, so it belongs to the host's root, who is nobody inside. Only the runtime
//! may give it away. It does so from within the ipc namespace, before the child goes on.

use std::{os::fd::AsFd, path::Path};

use onggi_spec::oci::runtime::LinuxNamespaceType;
use onggi_sys::{SysContext, mount::FsContext, ns};
use rustix::fs::{Gid, OFlags, Uid};

use crate::{
    error::{Result, Step},
    plan::{ParentOp, SandboxPlan, SetupOp},
    sources,
};

/// Gives the message queues of the child `pid` to the root of its user namespace, where both are new.
pub(crate) fn give_to_root(plan: &SandboxPlan, privileged: bool, pid: i32) -> Result<()> {
    let new = |kind| plan.clone.contains(&kind);
    let mounted = plan.setup.iter().any(|op| matches!(op, SetupOp::Mount(m) if m.fstype == "mqueue"));
    let both = new(LinuxNamespaceType::User) && new(LinuxNamespaceType::Ipc);
    let maps = plan.after.iter().find_map(|op| match op {
        ParentOp::WriteIdMaps { uid, gid, .. } => Some((sources::host_id(uid, 0)?, sources::host_id(gid, 0)?)),
        _ => None,
    });
    let Some((uid, gid)) = maps.filter(|_| both && mounted && privileged) else { return Ok(()) };
    let step = || "give /dev/mqueue to the container's root".to_string();
    let own = sources::open(Path::new("/proc/self/ns/ipc")).step(step)?;
    let theirs = sources::open(&Path::new("/proc").join(pid.to_string()).join("ns/ipc")).step(step)?;
    ns::join(theirs.as_fd(), ns::flag::IPC).step(step)?;
    let given = FsContext::open("mqueue").and_then(|fs| fs.mount(0)).and_then(|root| {
        let root =
            rustix::fs::openat(&root, c".", OFlags::RDONLY | OFlags::CLOEXEC, 0.into()).sys("openat", || "mqueue")?;
        rustix::fs::fchown(&root, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).sys("fchown", || "mqueue")
    });
    // Hooks run in the runtime's own namespaces.
    ns::join(own.as_fd(), ns::flag::IPC).step(step)?;
    given.step(step)
}

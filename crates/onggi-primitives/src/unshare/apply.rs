//! Carries the plan out. No policy: one operation of the plan, one request to the kernel.

use std::{fs, io, path::Path};

use onggi_sys::{
    Errno, SysError, cred,
    mount::{MountFlags, MountPropagationFlags, mount_on_cwd, set_root_propagation},
    ns,
    process::set_parent_death_signal,
    trace,
};

use super::{Op, Propagation, UnsharePlan, keepable, show};
use crate::PrimitiveError;

/// SIGKILL of signal(7).
const SIGKILL: i32 = 9;

/// What the caller has to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Start a child that applies the rest, and wait for it.
    Fork(UnsharePlan),
    /// Let the helper outside do its part, then apply the rest.
    Outside(UnsharePlan),
    /// Execute the command.
    Execute(Vec<String>),
}

/// Does the operations up to the fork or the command. The calling process must have one thread.
///
/// # Errors
/// The kernel refuses one of them; those before it are done.
pub fn apply(plan: &UnsharePlan) -> Result<Stage, PrimitiveError> {
    for (index, op) in plan.ops.iter().enumerate() {
        match op {
            Op::Fork { kill_child } => {
                let mut rest = plan.ops[index + 1..].to_vec();
                if *kill_child {
                    rest.insert(0, Op::DieWithParent);
                }
                return Ok(Stage::Fork(UnsharePlan { ops: rest }));
            }
            Op::Outside(_) => return Ok(Stage::Outside(UnsharePlan { ops: plan.ops[index + 1..].to_vec() })),
            Op::Execute { command } => {
                trace::point("primitives", || show::words(op));
                return Ok(Stage::Execute(command.clone()));
            }
            op => trace::step("primitives", || show::words(op), || one(op))?,
        }
    }
    Ok(Stage::Execute(Vec::new()))
}

fn one(op: &Op) -> Result<(), PrimitiveError> {
    match op {
        Op::Unshare { kinds, keepable } => {
            let names = kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
            let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
            let made = if *keepable { keepable::unshare(flags) } else { ns::unshare(flags) };
            made.map_err(|source| sys(format!("make new namespaces ({names})"), source))
        }
        Op::DenySetgroups => write("/proc/self/setgroups", "deny"),
        Op::AllowSetgroups => write("/proc/self/setgroups", "allow"),
        Op::MapUser { inside, outside } => write("/proc/self/uid_map", &format!("{inside} {outside} 1")),
        Op::MapGroup { inside, outside } => write("/proc/self/gid_map", &format!("{inside} {outside} 1")),
        Op::OffsetClock { clock, seconds } => {
            write("/proc/self/timens_offsets", &format!("{} {seconds} 0", clock.name()))
        }
        Op::DieWithParent => {
            set_parent_death_signal(SIGKILL).map_err(|source| sys("be killed with the parent".to_owned(), source))
        }
        Op::Propagate { propagation } => propagate(*propagation),
        Op::Hostname { name } => rustix::system::sethostname(name.as_bytes())
            .map_err(|e| sys(format!("set the host name {name:?}"), SysError::new("sethostname", name, e))),
        Op::Chroot { dir } => chroot(dir),
        Op::MountProc { dir } => mount_proc(dir),
        Op::Workdir { dir } => chdir(dir),
        Op::KeepCapabilities => keep_capabilities().map_err(|source| sys("keep the capabilities".to_owned(), source)),
        Op::Root(op) => crate::chroot::apply(op),
        Op::Credentials(op) => crate::credentials::apply(op),
        // They end a stage; see `apply`.
        Op::Fork { .. } | Op::Outside(_) | Op::Execute { .. } => Ok(()),
    }
}

fn sys(operation: String, source: SysError) -> PrimitiveError {
    PrimitiveError::Sys { operation, source }
}

fn write(path: &str, text: &str) -> Result<(), PrimitiveError> {
    fs::write(path, text).map_err(|e: io::Error| {
        let errno = Errno::from_raw_os_error(e.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
        sys(format!("write {text:?} to {path}"), SysError::new("write", path, errno))
    })
}

/// What execve(2) would take from somebody who is not root there (capabilities(7)).
fn keep_capabilities() -> onggi_sys::Result<()> {
    let held = cred::capabilities()?;
    cred::set_capabilities(cred::Capabilities { inheritable: held.permitted, ..held })?;
    cred::set_ambient(held.permitted)
}

fn propagate(propagation: Propagation) -> Result<(), PrimitiveError> {
    let kind = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Unchanged => return Ok(()),
    };
    set_root_propagation(kind | MountPropagationFlags::REC)
        .map_err(|source| sys(format!("make every mount {}", propagation.name()), source))
}

fn chroot(dir: &Path) -> Result<(), PrimitiveError> {
    let object = format!("{dir:?}");
    rustix::process::chroot(dir)
        .map_err(|e| sys(format!("make {} the root directory", dir.display()), SysError::new("chroot", object, e)))?;
    chdir(Path::new("/"))
}

fn chdir(dir: &Path) -> Result<(), PrimitiveError> {
    let failed = |e| sys(format!("go to {}", dir.display()), SysError::new("chdir", format!("{dir:?}"), e));
    rustix::process::chdir(dir).map_err(failed)
}

/// The directory is entered, so that the mount is on what was looked up.
fn mount_proc(dir: &Path) -> Result<(), PrimitiveError> {
    let before = std::env::current_dir();
    chdir(dir)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_on_cwd(Path::new("proc"), "proc", flags, c"")
        .map_err(|source| sys(format!("mount a new proc on {}", dir.display()), source))?;
    chdir(before.as_deref().unwrap_or(Path::new("/")))
}

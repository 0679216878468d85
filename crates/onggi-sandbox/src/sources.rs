//! Namespaces as the runtime handles them: joined by path, made with offsets or id maps.

mod id_maps;

use std::{
    fmt::Write,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use onggi_spec::oci::runtime::{LinuxIdMapping, LinuxNamespaceType as Kind, LinuxTimeOffset};
use onggi_sys::{
    Errno, SysContext, ns, path,
    process::{self, CloneRequest, Cloned},
    rlimit::Limit,
    signal,
};
use rustix::fs::{Mode, OFlags};

pub(crate) use id_maps::{first_ids, host_id, own_streams};

use crate::{
    error::{Result, StartFailureError, Step},
    plan::{NamespaceSource, ParentOp},
};

/// The clone flag of a kind.
pub(crate) fn flag(kind: Kind) -> u64 {
    match kind {
        Kind::Pid => ns::flag::PID,
        Kind::Network => ns::flag::NETWORK,
        Kind::Mount => ns::flag::MOUNT,
        Kind::Ipc => ns::flag::IPC,
        Kind::Uts => ns::flag::UTS,
        Kind::User => ns::flag::USER,
        Kind::Cgroup => ns::flag::CGROUP,
        Kind::Time => ns::flag::TIME,
    }
}

/// setns(2) by path; the kernel checks that it is of the right kind.
pub(crate) fn join(kind: Kind, source: &NamespaceSource) -> Result<()> {
    let NamespaceSource::Path(at) = source else {
        return Err(StartFailureError::new(format!("no {kind} namespace was given")));
    };
    let step = || format!("join {kind} namespace {}", at.display());
    let fd = open(at).map_err(|e| {
        let failure = StartFailureError::from_sys(step(), &e);
        if e.errno == Errno::NOENT { failure.hint("the namespace's file does not exist") } else { failure }
    })?;
    ns::join(fd.as_fd(), flag(kind)).step(step)
}

pub(crate) fn open(at: &Path) -> onggi_sys::Result<OwnedFd> {
    rustix::fs::open(at, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).sys("open", || format!("{at:?}"))
}

pub(crate) fn open_dir(at: &str) -> onggi_sys::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(at, flags, Mode::empty()).sys("open", || at)
}

/// Executes an operation before the clone, on the calling process.
pub(crate) fn before_clone(op: &ParentOp, netns: Option<&OwnedFd>) -> Result<()> {
    match (op, netns) {
        (ParentOp::Join { kind: Kind::Network, source: NamespaceSource::Given }, Some(fd)) => {
            ns::join(fd.as_fd(), ns::flag::NETWORK).step(|| op.words())
        }
        (ParentOp::Join { kind, source }, _) => join(*kind, source),
        (ParentOp::TimeOffsets { offsets }, _) => set_time_offsets(offsets).step(|| op.words()),
        _ => Ok(()),
    }
}

/// A new time namespace for the children of this process.
fn set_time_offsets(offsets: &[(String, LinuxTimeOffset)]) -> onggi_sys::Result<()> {
    ns::unshare(ns::flag::TIME)?;
    let mut text = String::new();
    for (clock, offset) in offsets {
        let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    write(Path::new("/proc/self/timens_offsets"), &text)
}

/// The same, entered by this process itself.
pub(crate) fn own_time_offsets(offsets: &[(String, LinuxTimeOffset)]) -> onggi_sys::Result<()> {
    // The file belongs to root unless this process may be traced.
    process::set_dumpable(true)?;
    let done = set_time_offsets(offsets);
    process::set_dumpable(false)?;
    done?;
    let fd = open(Path::new("/proc/self/ns/time_for_children"))?;
    ns::join(fd.as_fd(), ns::flag::TIME)
}

/// Executes an operation of the runtime on its child `pid`; says what was kept as it was.
pub(crate) fn after_clone(op: &ParentOp, pid: i32) -> Result<Option<String>> {
    let step = || op.words();
    match op {
        ParentOp::WriteIdMaps { uid, gid, deny_setgroups } => id_maps::write_maps(pid, uid, gid, *deny_setgroups)?,
        ParentOp::CheckIdMaps { uid, gid } => id_maps::check(pid, uid, gid)?,
        ParentOp::Rlimit(l) => {
            let wanted = Limit { soft: l.soft, hard: l.hard };
            match onggi_sys::rlimit::set_of(pid, l.number, wanted) {
                Err(e) if e.errno == Errno::PERM => {
                    let current = onggi_sys::rlimit::get(l.number).step(step)?;
                    let kept = Limit { soft: l.soft.min(current.hard), hard: l.hard.min(current.hard) };
                    onggi_sys::rlimit::set_of(pid, l.number, kept).step(step)?;
                    return Ok(Some(limit_kept(&l.name, current.hard, l.hard)));
                }
                r => r.step(step)?,
            }
        }
        ParentOp::OomScore { value } => match write(&proc_file(pid, "oom_score_adj"), &value.to_string()) {
            Err(e) if e.errno == Errno::ACCESS => return Ok(Some(score_kept(*value))),
            r => r.step(step)?,
        },
        _ => {}
    }
    Ok(None)
}

fn proc_file(pid: i32, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

/// The note on a hard limit that could not be raised.
pub(crate) fn limit_kept(name: &str, current: u64, wanted: u64) -> String {
    format!("{name} stays at {current}: raising it to {wanted} needs CAP_SYS_RESOURCE")
}

/// The note on a score that could not be lowered.
pub(crate) fn score_kept(wanted: i32) -> String {
    format!("oom_score_adj stays: lowering it to {wanted} needs CAP_SYS_RESOURCE")
}

pub(super) fn write(at: &Path, text: &str) -> onggi_sys::Result<()> {
    let fd = rustix::fs::open(at, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .sys("open", || format!("{at:?}"))?;
    path::write_once(fd.as_fd(), text.as_bytes(), &at.to_string_lossy())
}

/// A user namespace that exists only for its id maps, as idmapped mounts want it.
pub(crate) fn user_namespace(uid: &[LinuxIdMapping], gid: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let step = || "make a user namespace for the id maps".to_string();
    let request = CloneRequest { namespaces: ns::flag::USER, ..CloneRequest::default() };
    match process::clone_process(request).step(step)? {
        Cloned::Child => loop {
            let _ = signal::block_all();
            let _ = signal::wait_any();
        },
        Cloned::Parent { pid, pidfd } => {
            let op = ParentOp::WriteIdMaps { uid: uid.to_vec(), gid: gid.to_vec(), deny_setgroups: false };
            let result = after_clone(&op, pid)
                .and_then(|_| open(&Path::new("/proc").join(pid.to_string()).join("ns/user")).step(step));
            let _ = process::pidfd_kill(pidfd.as_fd(), signal::number::KILL);
            let _ = process::wait_pidfd(pidfd.as_fd());
            result
        }
    }
}

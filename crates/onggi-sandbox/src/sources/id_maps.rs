//! uid and gid maps of a user namespace (user_namespaces(7)): written by us where we may, else by newuidmap(1)
//! and newgidmap(1), and read back.

use std::{
    fmt::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
};

use onggi_spec::oci::runtime::LinuxIdMapping;
use onggi_sys::{Errno, SysContext, SysError};
use rustix::fs::{FileType, Uid};

use super::write;
use crate::{
    error::{Result, StartFailureError, Step},
    plan::{ParentOp, ProcessOp, SandboxPlan},
};

/// Where the set-user-ID helpers may be; never a PATH (I6).
const TRUSTED: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"];

/// Maps the ids of the user namespace of `pid`, which was just made.
pub(super) fn write_maps(pid: i32, uid: &[LinuxIdMapping], gid: &[LinuxIdMapping], deny_setgroups: bool) -> Result<()> {
    let step = || format!("map {} uid and {} gid ranges into the user namespace", uid.len(), gid.len());
    let file = |name: &str| Path::new("/proc").join(pid.to_string()).join(name);
    if deny_setgroups {
        write(&file("setgroups"), "deny").step(step)?;
    }
    for (name, helper, map) in [("uid_map", "newuidmap", uid), ("gid_map", "newgidmap", gid)] {
        match write(&file(name), &text(map)) {
            Err(e) if e.errno == Errno::PERM => by_helper(helper, pid, map, &e).map_err(|mut e| {
                e.0.step = format!("{}: {}", step(), e.0.step);
                e
            })?,
            r => r.step(step)?,
        }
    }
    Ok(())
}

/// Gives pipes to the program's user before the clone: root's own ids do not exist in the new user namespace, so
/// the child could not (see `ProcessOp::OwnStdio`).
pub(crate) fn own_streams(plan: &SandboxPlan, streams: &[OwnedFd; 3]) {
    let uid = plan.process.iter().find_map(|op| match op {
        ProcessOp::OwnStdio { uid } => Some(*uid),
        _ => None,
    });
    let map = plan.after.iter().find_map(|op| match op {
        ParentOp::WriteIdMaps { uid, .. } => Some(uid.as_slice()),
        _ => None,
    });
    let Some(owner) = uid.zip(map).and_then(|(uid, map)| host_id(map, uid)) else { return };
    for fd in streams {
        let is_pipe = rustix::fs::fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Fifo);
        if is_pipe {
            // Without the right to do so the stream still works, only reopening it does not.
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(owner)), None);
        }
    }
}

/// What an id of the container is outside.
pub(crate) fn host_id(map: &[LinuxIdMapping], id: u32) -> Option<u32> {
    map.iter().find_map(|m| {
        let offset = id.checked_sub(m.container_id).filter(|offset| *offset < m.size)?;
        m.host_id.checked_add(offset)
    })
}

fn text(map: &[LinuxIdMapping]) -> String {
    let mut text = String::new();
    for m in map {
        let _ = writeln!(text, "{} {} {}", m.container_id, m.host_id, m.size);
    }
    text
}

/// Maps that an ordinary user may not write: /etc/subuid and /etc/subgid say what is theirs.
fn by_helper(name: &str, pid: i32, map: &[LinuxIdMapping], refused: &SysError) -> Result<()> {
    let at = TRUSTED.iter().map(|dir| PathBuf::from(dir).join(name)).find(|at| at.is_file()).ok_or_else(|| {
        StartFailureError::from_sys(format!("{name} is not installed"), refused)
            .hint("without root only one's own uid and gid can be mapped, one id each; install uidmap for more")
    })?;
    let mut command = Command::new(&at);
    command.env_clear().arg(pid.to_string());
    for m in map {
        command.args([m.container_id, m.host_id, m.size].map(|n| n.to_string()));
    }
    let fail = |why: String| StartFailureError::new(format!("{}: {why}", at.display()));
    let done = command.output().map_err(|e| fail(e.to_string()))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let said = said.trim().chars().take(512).collect::<String>();
    let kind = if name == "newuidmap" { "/etc/subuid" } else { "/etc/subgid" };
    Err(fail(format!("{}: {said}", done.status)).hint(format!("{kind} must give the calling user these ids")))
}

/// Both maps of a namespace that was joined are the ones that the configuration has, in any order.
pub(super) fn check(pid: i32, uid: &[LinuxIdMapping], gid: &[LinuxIdMapping]) -> Result<()> {
    for (name, asked) in [("uid_map", uid), ("gid_map", gid)] {
        let mut actual = read(&pid.to_string(), name).step(|| format!("read {name} of the joined user namespace"))?;
        let mut asked = asked.to_vec();
        actual.sort_by_key(|m| m.container_id);
        asked.sort_by_key(|m| m.container_id);
        if actual != asked {
            return Err(StartFailureError::new(format!(
                "the mappings of the configuration are not those of the user namespace that is joined ({name}: {})",
                text(&actual).trim().replace('\n', ", ")
            )));
        }
    }
    Ok(())
}

/// The ids that the namespace of a process (`self`, or a pid) gives its root: 0, or the first that is mapped.
///
/// # Errors
/// /proc cannot be read; EINVAL when nothing is mapped.
pub(crate) fn first_ids(process: &str) -> onggi_sys::Result<(u32, u32)> {
    let first = |name: &str| {
        let map = read(process, name)?;
        let zero = map.iter().find(|m| m.container_id == 0);
        let id = zero.or(map.first()).map(|m| m.container_id);
        id.ok_or_else(|| SysError::new("read", format!("{name} is empty"), Errno::INVAL))
    };
    Ok((first("uid_map")?, first("gid_map")?))
}

fn read(process: &str, name: &str) -> onggi_sys::Result<Vec<LinuxIdMapping>> {
    let at = Path::new("/proc").join(process).join(name);
    let bytes = std::fs::read_to_string(&at).sys("read", || format!("{at:?}"))?;
    Ok(bytes.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<LinuxIdMapping> {
    let mut fields = line.split_ascii_whitespace().map(str::parse);
    let mut next = || fields.next()?.ok();
    Some(LinuxIdMapping { container_id: next()?, host_id: next()?, size: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_survives_being_written_and_read() {
        let map = [
            LinuxIdMapping { container_id: 0, host_id: 1000, size: 1 },
            LinuxIdMapping { container_id: 1, host_id: 100_000, size: 65_536 },
        ];
        assert_eq!(text(&map).lines().filter_map(parse).collect::<Vec<_>>(), map);
        assert_eq!(parse("         0     100000      65536"), parse("0 100000 65536"));
        assert_eq!(parse("0 x 1"), None);
    }
}

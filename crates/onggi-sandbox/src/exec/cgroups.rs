//! The cgroups of an `exec`'d process: the container's own, or the ones below it that `--cgroup` names.
//!
//! Every directory is opened before the clone; the process enters by clone3 (version 2) and by writing `0`
//! to `tasks` (version 1). Nothing here makes a group.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use onggi_spec::monitor::SandboxState;
use onggi_sys::{Errno, SysContext};
use rustix::fs::{Mode, OFlags};

use crate::{
    error::{Result, StartFailureError, Step},
    options::CgroupChoice,
};

/// What the new process enters, opened.
#[derive(Debug)]
pub(super) struct Entry {
    /// Version 2 directories to try, best first, and where they are.
    pub(super) unified: Vec<(OwnedFd, PathBuf)>,
    /// The `tasks` file of every version 1 hierarchy.
    pub(super) tasks: Vec<OwnedFd>,
}

/// Finds and opens them.
pub(super) fn open(state: &SandboxState, choice: &CgroupChoice) -> Result<Entry> {
    let dirs = match choice {
        CgroupChoice::Container => state.cgroup_paths.clone(),
        CgroupChoice::Below(list) => below(state, list)?,
    };
    let mut unified = Vec::new();
    let own = dirs.get("").map(|dir| open_dir(dir, choice)).transpose()?;
    let gone = matches!(own, Some(None));
    unified.extend(own.flatten());
    if *choice == CgroupChoice::Container {
        // With controllers enabled for its children a group takes no processes: the container's init has
        // moved itself below, and a new process belongs beside it. So it does where init went when the container's
        // own group is gone: never is it left in the caller's.
        let beside = group_of_init(state, gone);
        if gone && beside.is_none() {
            return Err(StartFailureError::new(format!("{}: the container's group is gone", adding())));
        }
        unified.extend(beside);
    }
    let v1: BTreeSet<_> = dirs.iter().filter(|(c, _)| !c.is_empty()).map(|(_, dir)| dir.join("tasks")).collect();
    let tasks = v1.iter().map(|at| open_file(at)).collect::<Result<_>>()?;
    Ok(Entry { unified, tasks })
}

/// The container's directories with the chosen ones replaced.
fn below(state: &SandboxState, list: &[(Option<String>, PathBuf)]) -> Result<BTreeMap<String, PathBuf>> {
    let mut dirs = state.cgroup_paths.clone();
    for (controller, sub) in list {
        if dirs.is_empty() {
            return Err(StartFailureError::new(format!("container {} has no cgroup of its own", state.id)));
        }
        let mut found = false;
        for (name, own) in &state.cgroup_paths {
            if controller.as_ref().is_none_or(|c| c == name) {
                dirs.insert(name.clone(), join(own, sub)?);
                found = true;
            }
        }
        if !found {
            let name = controller.as_deref().unwrap_or_default();
            return Err(StartFailureError::new(format!("unknown controller {name} in --cgroup")));
        }
    }
    Ok(dirs)
}

/// `sub` below `own`, never beside or above it.
fn join(own: &Path, sub: &Path) -> Result<PathBuf> {
    let mut at = own.to_path_buf();
    for part in sub.components() {
        match part {
            Component::Normal(name) => at.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(StartFailureError::new(format!("bad sub cgroup path: {}", sub.display())));
            }
        }
    }
    Ok(at)
}

/// A group that is gone is left out where the caller did not name it.
fn open_dir(dir: &Path, choice: &CgroupChoice) -> Result<Option<(OwnedFd, PathBuf)>> {
    match rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(open) => Ok(Some((open, dir.to_owned()))),
        Err(Errno::NOENT) if *choice == CgroupChoice::Container => Ok(None),
        Err(e) => Err(refused(dir, e)),
    }
}

fn open_file(at: &Path) -> Result<OwnedFd> {
    rustix::fs::open(at, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).sys("open", || format!("{at:?}")).step(adding)
}

/// runc's words.
fn adding() -> String {
    "error adding pid of the new process to cgroups".into()
}

/// A version 2 group that takes no process, by the file that others write to and tell of.
pub(super) fn refused(dir: &Path, errno: Errno) -> StartFailureError {
    let mut failure = StartFailureError::new(format!("{}: {}/cgroup.procs", adding(), dir.display()));
    failure.0.errno = errno.raw_os_error();
    failure
}

/// The version 2 group that the first process is in now, when it is below the container's, or `anywhere`.
fn group_of_init(state: &SandboxState, anywhere: bool) -> Option<(OwnedFd, PathBuf)> {
    let own = state.cgroup_paths.get("")?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", state.pid)).ok()?;
    let relative = text.lines().find_map(|l| l.strip_prefix("0::"))?;
    // The part of the path below the mount point is the tail of the container's own directory.
    let mut now = own.ancestors().map(|mount| mount.join(relative.trim_start_matches('/')));
    let dir = match anywhere {
        true => now.find(|at| holds(at, state.pid))?,
        false => now.find(|at| at.starts_with(own) && at != own && at.is_dir())?,
    };
    let open = rustix::fs::open(&dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    Some((open, dir))
}

/// The process is a member of that very group: a guess at the mount point is proven by it.
fn holds(group: &Path, pid: i32) -> bool {
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    members.lines().any(|line| line.parse() == Ok(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> SandboxState {
        let json = r#"{"ociVersion":"1.2.0","id":"x","pid":1,"pidStartTime":1,"bootId":"","bundle":"/b",
            "started":true,"createdAt":0,"ownerUid":0,
            "cgroupPaths":{"":"/u/x","memory":"/m/x","cpu":"/c/x"}}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_sub_cgroup_stays_below_the_containers() {
        for bad in ["..", "a/../..", "/.."] {
            let e = below(&state(), &[(None, bad.into())]).unwrap_err();
            assert!(e.to_string().contains("bad sub cgroup path"), "{e}");
        }
        let all = below(&state(), &[(None, "/".into())]).unwrap();
        assert_eq!(all, state().cgroup_paths);
        let one = below(&state(), &[(Some("memory".into()), "sub/a".into())]).unwrap();
        assert_eq!((one["memory"].as_path(), one["cpu"].as_path()), (Path::new("/m/x/sub/a"), Path::new("/c/x")));
        assert!(below(&state(), &[(Some("what".into()), "/".into())]).unwrap_err().to_string().contains("unknown con"));
    }
}

//! Carries a plan out. No policy: one operation, one or two requests to the kernel; what comes back is explained.

use std::{
    fs, io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use onggi_cgroup::{CgroupError, Paths, Prepare, UpdatePlan, apply_update, freeze, remove, thaw};
use onggi_sys::{
    process::{pidfd_kill, pidfd_open},
    trace,
};
use rustix::io::Errno;

use super::{
    GroupError, GroupPlan, Op,
    enter::enter,
    members::{commands, keepers, members},
};

/// Does all operations but [`Op::Execute`]. Returns what was left out, one line each.
///
/// # Errors
/// The kernel refuses one; those before it are done.
pub fn apply(plan: &GroupPlan) -> Result<Vec<String>, GroupError> {
    let mut notes = plan.notes.clone();
    for op in &plan.ops {
        notes.extend(trace::step("primitives", || op.words().join("; "), || one(op))?);
    }
    Ok(notes)
}

fn one(op: &Op) -> Result<Vec<String>, GroupError> {
    match op {
        Op::Prepare { step } => return prepare(step),
        Op::Set { writes } => {
            let update = UpdatePlan { writes: writes.clone(), ..UpdatePlan::default() };
            let done = apply_update(&update, &Paths::new()).map_err(explain_write)?;
            return Ok(done.notes);
        }
        Op::Give { dir, files, uid, gid } => give(dir, files, *uid, *gid)?,
        Op::Move { pid, file } => return enter(file, &pid.to_string()),
        Op::Join { file } => return enter(file, "0"),
        Op::Freeze { dir, file } => freeze(&freezer(dir, file))?,
        Op::Thaw { dir, file } => thaw(&freezer(dir, file))?,
        Op::Signal { dir, signal } => signal_all(dir, *signal)?,
        Op::Destroy { dir } => remove(&Paths::from([(String::new(), dir.clone())]))?,
        Op::Remove { dir } => remove_dir(dir)?,
        Op::Execute { .. } => {}
    }
    Ok(Vec::new())
}

fn freezer(dir: &Path, file: &str) -> Paths {
    let controller = if file == "cgroup.freeze" { "" } else { "freezer" };
    Paths::from([(controller.to_owned(), dir.to_owned())])
}

fn prepare(step: &Prepare) -> Result<Vec<String>, GroupError> {
    if let Some(refusal) = busy(step) {
        let demanded = matches!(step, Prepare::Enable { required, .. } if !required.is_empty());
        return if demanded { Err(refusal) } else { Ok(vec![refusal.to_string()]) };
    }
    let update = UpdatePlan { prepare: vec![step.clone()], ..UpdatePlan::default() };
    apply_update(&update, &Paths::new()).map_err(|e| match step {
        // Whoever came in between, or a threaded tree.
        Prepare::Enable { path, required, .. }
            if [Errno::BUSY, Errno::OPNOTSUPP].map(Errno::raw_os_error).contains(&e.errno())
                && !members(path).is_empty() =>
        {
            internal(path, &required.join(" "))
        }
        _ => e.into(),
    })?;
    let Prepare::Enable { path, required, wanted } = step else { return Ok(Vec::new()) };
    let offered = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
    let lacks = |c: &&String| !required.contains(c) && !offered.split_ascii_whitespace().any(|o| o == c.as_str());
    let refused: Vec<&str> = wanted.iter().filter(lacks).map(String::as_str).collect();
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    let why = match members(path).is_empty() {
        true => "the kernel refuses to".to_owned(),
        false => internal(path, &refused.join(" ")).to_string(),
    };
    Ok(vec![format!("{} are not offered below {}: {why}", refused.join(" "), path.display())])
}

/// A group that would have to give controllers and has processes.
fn busy(step: &Prepare) -> Option<GroupError> {
    let Prepare::Enable { path, required, wanted } = step else { return None };
    let given = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
    let lacks = |c: &&String| !given.split_ascii_whitespace().any(|g| g == c.as_str());
    let mut missing: Vec<&str> = required.iter().chain(wanted).filter(lacks).map(String::as_str).collect();
    missing.dedup();
    (!missing.is_empty() && !keepers(path).is_empty()).then(|| internal(path, &missing.join(" ")))
}

fn internal(dir: &Path, controllers: &str) -> GroupError {
    GroupError::InternalProcesses {
        dir: dir.to_owned(),
        controllers: controllers.to_owned(),
        processes: commands(&members(dir)),
    }
}

/// What control files take, for people whose value the kernel refused (Documentation/admin-guide/cgroup-v1, cgroup-v2.rst).
const RANGES: &[(&str, &str)] = &[
    ("cpu.cfs_quota_us", "use -1, or at least 1000 microseconds and no more than the parent group has"),
    ("cpu.cfs_period_us", "use 1000 to 1000000 microseconds; a quota must be at least 1000 of them"),
    ("cpu.max", "use \"QUOTA PERIOD\": at least 1000 microseconds or max, of 1000 to 1000000"),
    ("cpu.max.burst", "use no more than the quota"),
    ("cpu.cfs_burst_us", "use no more than the quota"),
    ("cpu.shares", "use 2 to 262144"),
    ("cpu.weight", "use 1 to 10000"),
    ("cpu.idle", "use 0 or 1"),
    ("cpuset.cpus", "use CPUs that the parent group has, as 0-1,3"),
    ("cpuset.mems", "use memory nodes that the parent group has, as 0"),
    ("memory.limit_in_bytes", "use bytes (K, M, G), or -1, and no more than memory.memsw.limit_in_bytes"),
    ("memory.memsw.limit_in_bytes", "use bytes (K, M, G), or -1, and no less than memory.limit_in_bytes"),
    ("memory.max", "use bytes (K, M, G), or max"),
    ("memory.high", "use bytes (K, M, G), or max"),
    ("memory.swap.max", "use bytes (K, M, G), or max"),
    ("memory.swappiness", "use 0 to 200"),
    ("pids.max", "use a number, or max"),
    ("io.weight", "use 1 to 10000, or \"MAJOR:MINOR WEIGHT\""),
    ("blkio.bfq.weight", "use 1 to 1000"),
    ("io.max", "use \"MAJOR:MINOR rbps=N wbps=N riops=N wiops=N\" of a whole disk"),
];

/// A control file that a version 2 group lacks belongs to a controller that a parent does not offer.
fn explain_write(e: CgroupError) -> GroupError {
    let CgroupError::Write { path, source, value, .. } = &e else { return e.into() };
    let file = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let range = RANGES.iter().find(|(name, _)| *name == file).filter(|_| {
        matches!(source.kind(), io::ErrorKind::InvalidInput)
            || source.raw_os_error() == Some(Errno::RANGE.raw_os_error())
    });
    if let Some((_, range)) = range {
        let reason = format!("the kernel refuses it ({source}): {range}");
        return GroupError::BadValue { key: file.to_owned(), value: value.clone(), reason };
    }
    if source.kind() != io::ErrorKind::NotFound {
        return e.into();
    }
    let dir = path.parent().unwrap_or(path).to_owned();
    let controller = file.split('.').next().unwrap_or_default();
    let blocking = dir.ancestors().skip(1).find(|parent| {
        let offered = fs::read_to_string(parent.join("cgroup.subtree_control"));
        offered.is_ok_and(|list| !list.split_ascii_whitespace().any(|c| c == controller)) && !members(parent).is_empty()
    });
    match blocking {
        Some(parent) => internal(parent, controller),
        None => e.into(),
    }
}

fn give(dir: &Path, files: &[String], uid: Option<u32>, gid: Option<u32>) -> Result<(), GroupError> {
    let own = |path: &Path| match chown(path, uid, gid) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(GroupError::Io { operation: "change the owner of", path: path.to_owned(), source })
        }
        _ => Ok(()),
    };
    own(dir)?;
    files.iter().try_for_each(|file| own(&dir.join(file)))
}

/// SIGKILL reaches those too that are forked meanwhile.
fn signal_all(dir: &Path, signal: i32) -> Result<(), GroupError> {
    let paths = Paths::from([(String::new(), dir.to_owned())]);
    if signal == rustix::process::Signal::KILL.as_raw() {
        return Ok(onggi_cgroup::kill_all(&paths)?);
    }
    for pid in onggi_cgroup::pids(&paths)? {
        let sent = pidfd_open(pid).and_then(|fd| pidfd_kill(std::os::fd::AsFd::as_fd(&fd), signal));
        match sent {
            Err(e) if e.errno != Errno::SRCH => {
                let path = PathBuf::from(format!("/proc/{pid}"));
                return Err(GroupError::Io { operation: "send a signal to", path, source: e.into() });
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is gone already is removed.
fn remove_dir(dir: &Path) -> Result<(), GroupError> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy && !members(dir).is_empty() => {
            Err(GroupError::Busy { group: dir.display().to_string(), processes: commands(&members(dir)) })
        }
        Err(source) => Err(GroupError::Io { operation: "remove", path: dir.to_owned(), source }),
    }
}

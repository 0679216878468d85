//! Executes a plan. No policy here: what may fail without harm is marked in the plan.
//!
//! A crash half-way leaves directories without processes; `remove` of the planned paths takes them away.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
};

use onggi_sys::small_file;
use rustix::io::Errno;

use crate::{CgroupError, CgroupPlan, CgroupWrite, Prepare, device_filter, procs};

/// ENOTSUPP: the kernel's own number, which some control files leak to user space.
const ENOTSUPP: i32 = 524;

/// Another container's clean-up may remove a shared parent between our mkdir of it and of its child.
const PARENT_RETRIES: u32 = 5;

/// Makes the directories and writes the limits. On failure everything that was made is removed again.
/// Returns what was left out, one line each.
///
/// # Errors
/// The first failure; also [`CgroupError::InUse`] when the container's own directory has processes.
pub fn apply_create(plan: &CgroupPlan) -> Result<Vec<String>, CgroupError> {
    let mut made = Vec::new();
    let mut notes = plan.notes.clone();
    let applied = prepare_all(&plan.prepare, &mut made).and_then(|()| write_all(&plan.writes, &mut notes));
    match applied.and_then(|()| attach_devices(plan)) {
        Ok(()) => Ok(notes),
        Err(e) => {
            for dir in made.iter().rev() {
                // Best effort: the failure that led here is the one to report.
                let _ = fs::remove_dir(dir);
            }
            Err(e)
        }
    }
}

/// The container's own directories are free to be made or taken. Asked before they are recorded as the container's:
/// a record of somebody else's group would make `delete` remove it.
///
/// # Errors
/// [`CgroupError::InUse`], [`CgroupError::Frozen`].
pub fn check_free(plan: &CgroupPlan) -> Result<(), CgroupError> {
    let own = plan.prepare.iter().filter_map(|step| match step {
        Prepare::MakeDir { path, own: true } => Some(path),
        _ => None,
    });
    own.filter(|path| path.is_dir()).try_for_each(|path| check_usable(path))
}

/// The groups of a unit that is to be started are not in use: systemd would only say that there is such a unit, and take
/// frozen ones.
///
/// # Errors
/// [`CgroupError::InUse`], [`CgroupError::Frozen`].
pub fn check_unit_free(plan: &CgroupPlan) -> Result<(), CgroupError> {
    plan.dirs.iter().filter(|dir| dir.path.is_dir()).try_for_each(|dir| check_usable(&dir.path))
}

pub(crate) fn prepare_all(steps: &[Prepare], made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let mut tries = 0;
    loop {
        let prepared = steps.iter().try_for_each(|step| prepare(step, made));
        match prepared {
            Err(CgroupError::MakeDir { source, .. })
                if source.kind() == io::ErrorKind::NotFound && tries < PARENT_RETRIES =>
            {
                tries += 1;
            }
            other => return other,
        }
    }
}

fn prepare(step: &Prepare, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    match step {
        Prepare::MakeDir { path, own } => make_dir(path, *own, made),
        Prepare::Inherit { path, file } => inherit(path, file, made.contains(path)),
        Prepare::Enable { path, required, wanted } => enable(path, required, wanted),
        Prepare::Delegate { path, uid } => delegate(path, *uid),
    }
}

fn make_dir(path: &Path, own: bool, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => {
            made.push(path.to_owned());
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !own => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if made.iter().any(|m| m == path) {
                Ok(())
            } else {
                check_usable(path)
            }
        }
        Err(source) => Err(CgroupError::MakeDir { path: path.to_owned(), source }),
    }
}

/// A group that was there already, as engines make them for pods, must be empty and not frozen.
fn check_usable(path: &Path) -> Result<(), CgroupError> {
    let count = procs::members(path)?.len();
    if count != 0 {
        return Err(CgroupError::InUse { path: path.to_owned(), count });
    }
    let says = |file: &str, frozen: &str| fs::read_to_string(path.join(file)).is_ok_and(|s| s.trim() == frozen);
    if says("cgroup.freeze", "1") || says("freezer.state", "FROZEN") {
        return Err(CgroupError::Frozen { path: path.to_owned() });
    }
    Ok(())
}

/// Files that cgroups(7) names, for kernels that do not list them (before 4.15).
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

fn delegate(path: &Path, uid: u32) -> Result<(), CgroupError> {
    let fail = |path: &Path, source| CgroupError::Delegate { path: path.to_owned(), uid, source };
    chown(path, Some(uid), None).map_err(|e| fail(path, e))?;
    let list = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| DELEGATED.into());
    for file in list.lines().filter(|name| !name.is_empty() && !name.contains('/')) {
        let at = path.join(file);
        match chown(&at, Some(uid), None) {
            // Not every controller is there.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(&at, e)),
            _ => {}
        }
    }
    Ok(())
}

/// What a new group has is nothing, or what is written now (cgroup.clone_children).
fn inherit(path: &Path, file: &str, new: bool) -> Result<(), CgroupError> {
    let target = path.join(file);
    if !new && !read(&target)?.trim().is_empty() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(path).join(file);
    let value = read(&parent)?;
    write(&target, value.trim(), "inheritance of the parent's CPUs and memory nodes")
}

fn enable(path: &Path, required: &[String], wanted: &[String]) -> Result<(), CgroupError> {
    let file = path.join("cgroup.subtree_control");
    let present = read(&file)?;
    let present: Vec<&str> = present.split_ascii_whitespace().collect();
    let missing: Vec<&String> = wanted
        .iter()
        .chain(required.iter().filter(|r| !wanted.contains(r)))
        .filter(|c| !present.contains(&c.as_str()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    // The kernel would give cpu, cpuset and pids, make a threaded domain of the group by that, and let no process into
    // the groups below it (cgroup-v2.rst, "Threads"). It must not be asked.
    let count = keepers(path)?;
    if count > 0 {
        let controller = missing.into_iter().find(|c| required.contains(c));
        return controller.map_or(Ok(()), |controller| {
            Err(CgroupError::InternalProcesses { path: path.to_owned(), controller: controller.clone(), count })
        });
    }
    let all = missing.iter().map(|c| format!("+{c}")).collect::<Vec<_>>().join(" ");
    if write(&file, &all, "controllers of the children").is_ok() {
        return Ok(());
    }
    // All or nothing: one that cannot be enabled spoils the others, so one by one.
    for controller in missing {
        let written = write(&file, &format!("+{controller}"), &format!("{controller} controller of the children"));
        if required.contains(controller) {
            written?;
        }
    }
    Ok(())
}

/// How many processes of its own keep a group from giving controllers. The root has no `cgroup.type` and may have both; a
/// threaded tree is somebody's wish, and the kernel's to judge. Processes of other pid namespaces count too.
fn keepers(path: &Path) -> Result<usize, CgroupError> {
    let kind = match read(&path.join("cgroup.type")) {
        Err(e) if e.errno() == Errno::NOENT.raw_os_error() => return Ok(0),
        other => other?,
    };
    match kind.trim() {
        "domain" => Ok(read(&path.join("cgroup.procs"))?.lines().count()),
        _ => Ok(0),
    }
}

fn attach_devices(plan: &CgroupPlan) -> Result<(), CgroupError> {
    let unified = plan.dirs.iter().find(|d| d.controller.is_empty());
    match unified {
        Some(dir) if !plan.devices.is_empty() => device_filter::attach(&dir.path, &plan.devices),
        _ => Ok(()),
    }
}

/// Writes one value of a plan by itself, later than the others.
///
/// # Errors
/// The kernel refuses it.
pub fn write_limit(limit: &CgroupWrite) -> Result<(), CgroupError> {
    write_one(limit, &mut None)
}

/// Writes the values in order; those that had to wait for others come again at the end.
pub(crate) fn write_all(writes: &[CgroupWrite], notes: &mut Vec<String>) -> Result<(), CgroupError> {
    let mut last = None;
    let mut again = Vec::new();
    for w in writes {
        match write_one(w, &mut last) {
            Ok(()) => {}
            Err(e) if w.again && e.errno() == Errno::INVAL.raw_os_error() => again.push(w),
            Err(e) if w.optional && is_absent(e.errno()) => notes.extend(left_out(w, e.errno())),
            Err(e) => return Err(explain(w, e)),
        }
    }
    again.into_iter().try_for_each(|w| write_one(w, &mut last).map_err(|e| explain(w, e)))
}

fn left_out(w: &CgroupWrite, errno: i32) -> Option<String> {
    let why = match errno == Errno::NOENT.raw_os_error() {
        true => format!("this kernel has no {}", w.file),
        false => format!("{} is not supported here", w.file),
    };
    (!w.quiet).then(|| format!("{why}: there is no {}", w.what))
}

/// EBUSY of a version 1 memory limit: more is used, and the kernel could not take it back.
fn explain(w: &CgroupWrite, e: CgroupError) -> CgroupError {
    if e.errno() != Errno::BUSY.raw_os_error() || w.file != "memory.limit_in_bytes" {
        return e;
    }
    let value = |file: &str| read(&w.path.join(file)).map_or_else(|_| "unknown".into(), |s| s.trim().to_owned());
    CgroupError::MemoryBusy {
        limit: w.value.clone(),
        usage: value("memory.usage_in_bytes"),
        peak: value("memory.max_usage_in_bytes"),
    }
}

/// `last` keeps a file open over neighbours: device rules are many writes to two files.
fn write_one(w: &CgroupWrite, last: &mut Option<ControlFile>) -> Result<(), CgroupError> {
    let path = w.path.join(&w.file);
    let written = match last {
        Some(file) if file.path == path => file.write(&w.value, &w.what),
        _ => ControlFile::open(path, &w.value, &w.what).and_then(|file| last.insert(file).write(&w.value, &w.what)),
    };
    match (&w.alternative, &written) {
        (Some(other), Err(e)) if is_absent(e.errno()) => write(&w.path.join(&other.file), &other.value, &w.what),
        _ => written,
    }
}

fn is_absent(errno: i32) -> bool {
    [Errno::NOENT.raw_os_error(), Errno::OPNOTSUPP.raw_os_error(), ENOTSUPP].contains(&errno)
}

/// One value into one file.
pub(crate) fn write(path: &Path, value: &str, what: &str) -> Result<(), CgroupError> {
    ControlFile::open(path.to_owned(), value, what)?.write(value, what)
}

/// An open control file. Each value is one write(2): the kernel does not take one in pieces.
struct ControlFile {
    file: File,
    path: PathBuf,
}

impl ControlFile {
    /// Opens for writing; an error tells what was to be written.
    fn open(path: PathBuf, value: &str, what: &str) -> Result<Self, CgroupError> {
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(failure(&path, value, what, source)),
        }
    }

    fn write(&mut self, value: &str, what: &str) -> Result<(), CgroupError> {
        match self.file.write(value.as_bytes()) {
            Ok(n) if n == value.len() => Ok(()),
            Ok(_) => Err(failure(&self.path, value, what, io::ErrorKind::WriteZero.into())),
            Err(source) => Err(failure(&self.path, value, what, source)),
        }
    }
}

fn failure(path: &Path, value: &str, what: &str, source: io::Error) -> CgroupError {
    CgroupError::Write { path: path.to_owned(), value: value.to_owned(), what: what.to_owned(), source }
}

/// A whole control file.
pub(crate) fn read(path: &Path) -> Result<String, CgroupError> {
    small_file::read_text(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group of version 2 as files.
    fn group(kind: Option<&str>, processes: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        let files = [("cgroup.subtree_control", Some("")), ("cgroup.type", kind), ("cgroup.procs", Some(processes))];
        for (name, text) in files {
            if let Some(text) = text {
                fs::write(dir.path().join(name), text).expect("write");
            }
        }
        dir
    }

    fn enabled(dir: &tempfile::TempDir, required: &[&str]) -> (Result<(), CgroupError>, String) {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let done = enable(dir.path(), &all(required), &all(&["cpu", "memory"]));
        (done, fs::read_to_string(dir.path().join("cgroup.subtree_control")).expect("read"))
    }

    #[test]
    fn a_group_with_processes_is_never_asked_to_give_controllers() {
        let busy = group(Some("domain\n"), "7\n0\n");
        let (refused, asked) = enabled(&busy, &["cpu"]);
        assert!(matches!(refused, Err(CgroupError::InternalProcesses { count: 2, .. })), "{refused:?}");
        assert_eq!(asked, "");
        let (wished, asked) = enabled(&busy, &[]);
        assert!(wished.is_ok() && asked.is_empty(), "what nobody demands is left out: {wished:?} {asked}");
    }

    #[test]
    fn the_root_an_empty_group_and_a_threaded_one_are_asked() {
        for (kind, processes) in [(None, "1\n"), (Some("domain\n"), ""), (Some("domain threaded\n"), "7\n")] {
            let (done, asked) = enabled(&group(kind, processes), &["cpu"]);
            assert!(done.is_ok() && asked == "+cpu +memory", "{kind:?}: {done:?} {asked}");
        }
    }
}

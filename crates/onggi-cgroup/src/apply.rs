//! Executes a plan. No policy here: what may fail without harm is marked in the plan.
//!
//! A crash half-way leaves directories without processes; `remove` of the planned paths takes them away.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::{CgroupError, CgroupPlan, CgroupWrite, Prepare, device_filter};

/// ENOTSUPP: the kernel's own number, which some control files leak to user space.
const ENOTSUPP: i32 = 524;

/// Another container's clean-up may remove a shared parent between our mkdir of it and of its child.
const PARENT_RETRIES: u32 = 5;

/// An optional write that this kernel did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// What it was for.
    pub what: String,
    /// The file.
    pub path: PathBuf,
}

/// Makes the directories and writes the limits. On failure everything that was made is removed again.
///
/// # Errors
/// The first failure; also [`CgroupError::InUse`] when the container's own directory has processes.
pub fn apply_create(plan: &CgroupPlan) -> Result<Vec<Skipped>, CgroupError> {
    let mut made = Vec::new();
    let applied = prepare_all(plan, &mut made).and_then(|()| write_all(&plan.writes)).and_then(|skipped| {
        attach_devices(plan)?;
        Ok(skipped)
    });
    if applied.is_err() {
        for dir in made.iter().rev() {
            // Best effort: the failure that led here is the one to report.
            let _ = fs::remove_dir(dir);
        }
    }
    applied
}

fn prepare_all(plan: &CgroupPlan, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let mut tries = 0;
    loop {
        let prepared = plan.prepare.iter().try_for_each(|step| prepare(step, made));
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
        Prepare::Inherit { path, file } => inherit(path, file),
        Prepare::Enable { path, required, wanted } => enable(path, required, wanted),
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
            let ours = made.iter().any(|m| m == path);
            let empty = ours || read(&path.join("cgroup.procs"))?.trim().is_empty();
            if empty { Ok(()) } else { Err(CgroupError::InUse { path: path.to_owned() }) }
        }
        Err(source) => Err(CgroupError::MakeDir { path: path.to_owned(), source }),
    }
}

fn inherit(path: &Path, file: &str) -> Result<(), CgroupError> {
    let target = path.join(file);
    if !read(&target)?.trim().is_empty() {
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

fn attach_devices(plan: &CgroupPlan) -> Result<(), CgroupError> {
    let unified = plan.dirs.iter().find(|d| d.controller.is_empty());
    match unified {
        Some(dir) if !plan.devices.is_empty() => device_filter::attach(&dir.path, &plan.devices),
        _ => Ok(()),
    }
}

fn write_all(writes: &[CgroupWrite]) -> Result<Vec<Skipped>, CgroupError> {
    let mut skipped = Vec::new();
    let mut last = None;
    for w in writes {
        if let Err(e) = write_one(w, &mut last) {
            if !(w.optional && is_absent(e.errno())) {
                return Err(e);
            }
            skipped.push(Skipped { what: w.what.clone(), path: w.path.join(&w.file) });
        }
    }
    Ok(skipped)
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
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

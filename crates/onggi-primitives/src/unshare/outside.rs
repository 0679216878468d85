//! What a process in new namespaces cannot do for itself: a helper stays outside, with the caller's privileges, maps ids
//! of a user namespace and mounts namespaces on files that keep them.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    time::{Duration, Instant},
};

use onggi_spec::ParseError;
use onggi_sys::{Errno, SysError, ns, trace};
use serde::{Deserialize, Serialize};

use crate::{Kind, PrimitiveError};

/// A pid namespace has its file once it has its first process; that is made next.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// Programs that map ids without root (newuidmap(1), newgidmap(1)), where shadow installs them.
const MAPPERS: [&str; 2] = ["/usr/bin/newuidmap", "/usr/bin/newgidmap"];

/// Ids in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first one in the new namespace.
    pub inside: u32,
    /// The first one in the old one.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl FromStr for IdRange {
    type Err = ParseError;

    /// `OUTSIDE,INSIDE,COUNT` or `INSIDE:OUTSIDE:COUNT`, as unshare(1) has them.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = |reason: &str| {
            ParseError::new("range of ids", text, reason).hint("INSIDE:OUTSIDE:COUNT, as in 0:100000:65536")
        };
        let commas = text.contains(',');
        let numbers: Result<Vec<u32>, _> = text.split([',', ':']).map(str::parse).collect();
        let numbers = numbers.map_err(|_| wrong("expected three numbers"))?;
        let [a, b, count] = numbers[..] else { return Err(wrong("expected three numbers")) };
        let (inside, outside) = if commas { (b, a) } else { (a, b) };
        let end = |first: u32| first.checked_add(count);
        if count == 0 || end(inside).is_none() || end(outside).is_none() {
            return Err(wrong("it is empty, or goes beyond the highest id"));
        }
        Ok(Self { inside, outside, count })
    }
}

/// A namespace that a file keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Which kind.
    pub kind: Kind,
    /// The file that it is mounted on.
    pub file: PathBuf,
}

/// What the helper does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// Users of a new user namespace.
    pub users: Vec<IdRange>,
    /// Groups of a new user namespace.
    pub groups: Vec<IdRange>,
    /// Files.
    pub keep: Vec<Kept>,
}

impl Outside {
    /// It ends only when the child is there.
    pub fn waits_for_child(&self) -> bool {
        self.keep.iter().any(|kept| kept.kind == Kind::Pid)
    }

    /// Does it for a process, from outside.
    ///
    /// # Errors
    /// The kernel, or a program that maps ids, refuses.
    pub fn apply(&self, pid: i32) -> Result<(), PrimitiveError> {
        for (name, mapper, ranges) in [("uid_map", MAPPERS[0], &self.users), ("gid_map", MAPPERS[1], &self.groups)] {
            if !ranges.is_empty() {
                let words = || format!("write the map of {} ranges to /proc/{pid}/{name}", ranges.len());
                trace::step("primitives", words, || map(pid, name, mapper, ranges))?;
            }
        }
        self.keep.iter().try_for_each(|kept| {
            let words = || format!("keep the {} namespace by {}", kept.kind, kept.file.display());
            trace::step("primitives", words, || keep(pid, kept))
        })
    }
}

fn map(pid: i32, name: &str, mapper: &str, ranges: &[IdRange]) -> Result<(), PrimitiveError> {
    let path = format!("/proc/{pid}/{name}");
    let lines: String = ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.count)).collect();
    match fs::write(&path, &lines) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        Err(e) => return Err(sys(format!("write {lines:?} to {path}"), "write", &path, &e)),
    }
    let mut command = Command::new(mapper);
    command.arg(pid.to_string());
    for range in ranges {
        command.args([range.inside, range.outside, range.count].map(|n| n.to_string()));
    }
    let refused = |why: String| PrimitiveError::Refused {
        message: format!("cannot map ids by {mapper}: {why}"),
        hint: "without root only ranges of /etc/subuid and /etc/subgid can be mapped (package uidmap)".to_owned(),
    };
    let ran = command.output().map_err(|e| refused(e.to_string()))?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(refused(String::from_utf8_lossy(&ran.stderr).trim().to_owned())),
    }
}

fn keep(pid: i32, kept: &Kept) -> Result<(), PrimitiveError> {
    let (file, kind) = (&kept.file, kept.kind);
    let name = if matches!(kind, Kind::Pid | Kind::Time) { format!("{kind}_for_children") } else { kind.to_string() };
    let source = PathBuf::from(format!("/proc/{pid}/ns/{name}"));
    let deadline = Instant::now() + PATIENCE;
    while fs::read_link(&source).is_err() && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
    }
    let operation = format!("keep the {kind} namespace by {}", file.display());
    let made = !file.exists();
    if made {
        fs::write(file, "").map_err(|e| sys(operation.clone(), "open", file, &e))?;
    }
    // What the file kept before.
    release(file)?;
    let Err(errno) = rustix::mount::mount_bind(&source, file) else { return Ok(()) };
    let why = if errno == Errno::INVAL && kind == Kind::Mnt { refused(&operation, &source, file) } else { None };
    if made {
        // It is of no use; where it cannot be removed either, the first failure is told.
        let _ = fs::remove_file(file);
    }
    let plain =
        || PrimitiveError::Sys { operation, source: SysError::new("mount", format!("{source:?}, {file:?}"), errno) };
    Err(why.unwrap_or_else(plain))
}

/// Which of the two rules for mount namespaces is broken (mount_namespaces(7); [`super::keepable`]).
fn refused(operation: &str, source: &Path, file: &Path) -> Option<PrimitiveError> {
    let because = |why: String, hint: &str| {
        Some(PrimitiveError::Refused { message: format!("cannot {operation}: {why}"), hint: hint.to_owned() })
    };
    if let Some((point, group)) = shared(file) {
        return because(
            format!("it is on the mount {point}, which others share ({group} in /proc/self/mountinfo)"),
            "a mount namespace is kept on a private mount: mount --bind DIR DIR; mount --make-private DIR",
        );
    }
    let id = |path: &Path| fs::File::open(path).ok().and_then(|file| ns::mount_id(file.as_fd()).ok().flatten());
    match (id(source), id(Path::new("/proc/self/ns/mnt"))) {
        (Some(theirs), Some(ours)) if theirs <= ours => because(
            format!("the kernel numbers it as older than this one ({theirs}, {ours})"),
            "each CPU has numbers of its own: try again, or without taskset(1) and cpuset",
        ),
        _ => None,
    }
}

/// Mount point and peer group (`shared:N`) of the mount that a file is on, where it has one.
fn shared(file: &Path) -> Option<(String, String)> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(file, flags, rustix::fs::Mode::empty()).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd())).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let fields = |line: &str| {
        let (left, _) = line.split_once(" - ")?;
        let mut fields = left.split(' ');
        (fields.next() == Some(id)).then_some(())?;
        let point = fields.nth(3)?.to_owned();
        Some((crate::namespaces::unescape(&point), fields.find(|field| field.starts_with("shared:"))?.to_owned()))
    };
    table.lines().find_map(fields)
}

/// Unmounts what a file keeps.
fn release(file: &Path) -> Result<(), PrimitiveError> {
    while crate::namespaces(&[])?.iter().any(|namespace| namespace.file.as_deref() == Some(file)) {
        rustix::mount::unmount(file, rustix::mount::UnmountFlags::DETACH).map_err(|e| PrimitiveError::Sys {
            operation: format!("release {}", file.display()),
            source: SysError::new("umount2", format!("{file:?}"), e),
        })?;
    }
    Ok(())
}

/// What takes namespaces off the files that keep them: a namespace goes when nothing runs in it any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForgetPlan {
    /// Files with a namespace mounted on them.
    files: Vec<PathBuf>,
}

impl ForgetPlan {
    /// For `files`, by their real paths.
    ///
    /// # Errors
    /// One of them keeps no namespace.
    pub fn new(files: Vec<PathBuf>) -> Result<Self, PrimitiveError> {
        let kept = crate::namespaces(&[])?;
        match files.iter().find(|file| !kept.iter().any(|namespace| namespace.file.as_ref() == Some(*file))) {
            Some(file) => Err(PrimitiveError::NoNamespace { path: file.clone() }),
            None => Ok(Self { files }),
        }
    }

    /// One line per operation.
    pub fn words(&self) -> String {
        let lines = self.files.iter().map(|file| {
            let file = file.display();
            format!("umount2(2) {file} (MNT_DETACH): the file keeps no namespace any more\nunlink(2) {file}\n")
        });
        lines.collect()
    }

    /// A script that does the same.
    pub fn shell(&self) -> String {
        let lines = self.files.iter().map(|file| {
            let file = crate::shell::path(file);
            format!("umount -l {file}\nrm {file}\n")
        });
        format!("#!/bin/sh\nset -e\n{}", lines.collect::<String>())
    }

    /// Carries it out.
    ///
    /// # Errors
    /// A file cannot be unmounted (`EPERM` without CAP_SYS_ADMIN) or removed.
    pub fn apply(&self) -> Result<(), PrimitiveError> {
        for file in &self.files {
            let name = file.display();
            trace::step("primitives", || format!("umount2(2) {name} (MNT_DETACH)"), || release(file))?;
            let removed = || fs::remove_file(file).map_err(|e| sys(format!("remove {name}"), "unlink", file, &e));
            trace::step("primitives", || format!("unlink(2) {name}"), removed)?;
        }
        Ok(())
    }
}

fn sys(operation: String, call: &'static str, object: impl AsRef<Path>, e: &io::Error) -> PrimitiveError {
    let errno = Errno::from_raw_os_error(e.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
    PrimitiveError::Sys { operation, source: SysError::new(call, format!("{:?}", object.as_ref()), errno) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_range_are_read() {
        let range = IdRange { inside: 0, outside: 100_000, count: 65_536 };
        assert_eq!("0:100000:65536".parse(), Ok(range));
        assert_eq!("100000,0,65536".parse(), Ok(range));
        for wrong in ["", "1:2", "1:2:0", "1:2:x", "4294967295:0:2"] {
            assert!(wrong.parse::<IdRange>().is_err(), "{wrong}");
        }
    }
}

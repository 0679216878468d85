//! An instance of tracefs of our own, and the text in which the kernel tells (Documentation/trace/ftrace.rst).
//!
//! tracefs is mounted where nobody else sees it, and the instance is removed when it is dropped: nobody else's tracing is
//! touched.

use std::{
    io::Read as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use onggi_sys::{SysContext as _, mount::FsContext};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use crate::cap_probe::Probes;

/// A directory of tracefs that is ours. Its files have to be closed before it goes.
#[derive(Debug)]
pub(crate) struct Instance {
    instances: OwnedFd,
    dir: OwnedFd,
    /// An open file of it: nobody can remove it meanwhile (EBUSY).
    pin: Option<OwnedFd>,
    pub(crate) name: String,
}

/// Somebody who clears away may take a new instance for one that was left, before it is pinned.
const TRIES: u32 = 5;

/// Whether the kernel's tracing has a file, as `events/capability/cap_capable`.
pub(crate) fn kernel_has(file: &str) -> onggi_sys::Result<bool> {
    let root = tracefs()?;
    Ok(rustix::fs::accessat(&root, file, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok())
}

impl Instance {
    /// Makes one, with a name that no other process has.
    pub(crate) fn make() -> onggi_sys::Result<Self> {
        // Detached: nobody else sees a mount.
        let root = tracefs()?;
        let instances = open_at(root.as_fd(), "instances", OFlags::DIRECTORY | OFlags::RDONLY)?;
        sweep(&instances);
        let id = rustix::thread::gettid().as_raw_nonzero();
        let name = format!("{PREFIX}{id}-{}", start_time(id.get()).unwrap_or(0));
        let mut tries = 0;
        loop {
            rustix::fs::mkdirat(&instances, &name, Mode::from_raw_mode(0o700)).sys("mkdirat", || name.clone())?;
            tries += 1;
            match pinned(&instances, &name) {
                Ok((dir, pin)) => return Ok(Self { instances, dir, pin: Some(pin), name }),
                Err(e) => {
                    let gone = matches!(e.errno, Errno::NOENT | Errno::NODEV);
                    let _ = rustix::fs::unlinkat(&instances, &name, AtFlags::REMOVEDIR);
                    if !gone || tries == TRIES {
                        return Err(e);
                    }
                }
            }
        }
    }

    /// Has probes of functions tell of capability checks, in this instance.
    pub(crate) fn probes(&self) -> onggi_sys::Result<Probes> {
        let root = open_at(self.instances.as_fd(), "..", OFlags::DIRECTORY | OFlags::RDONLY)?;
        Probes::listen(root.as_fd(), |event| self.set(&format!("{event}/enable"), "1"))
    }

    /// Opens a file.
    pub(crate) fn open(&self, file: &str, flags: OFlags) -> onggi_sys::Result<OwnedFd> {
        open_at(self.dir.as_fd(), file, flags)
    }

    /// What events are read from, without waiting for more.
    pub(crate) fn pipe(&self) -> onggi_sys::Result<OwnedFd> {
        self.open("trace_pipe", OFlags::RDONLY | OFlags::NONBLOCK)
    }

    /// Sets a value.
    pub(crate) fn set(&self, file: &str, text: &str) -> onggi_sys::Result<()> {
        let fd = self.open(file, OFlags::WRONLY | OFlags::TRUNC)?;
        onggi_sys::path::write_once(fd.as_fd(), text.as_bytes(), file)
    }

    /// Adds a value to those that are there.
    pub(crate) fn add(&self, file: &str, text: &str) -> onggi_sys::Result<()> {
        let fd = self.open(file, OFlags::WRONLY | OFlags::APPEND)?;
        onggi_sys::path::write_once(fd.as_fd(), text.as_bytes(), file)
    }

    /// What has been told up to now; it is forgotten then.
    pub(crate) fn take(&self) -> onggi_sys::Result<String> {
        let mut text = String::new();
        let file = self.open("trace", OFlags::RDONLY)?;
        std::fs::File::from(file).read_to_string(&mut text).sys("read", || "trace")?;
        // Opening for writing with O_TRUNC empties it.
        drop(self.open("trace", OFlags::WRONLY | OFlags::TRUNC)?);
        Ok(text)
    }
}

/// How the names of ours begin: the maker's number and when it was started follow.
const PREFIX: &str = "onggi-";

fn start_time(id: i32) -> Option<u64> {
    onggi_sys::procfs::stat(id).ok().flatten().map(|stat| stat.start_time)
}

/// Removes what makers that were killed have left. An instance whose maker is not seen from this pid namespace, and lives,
/// is being read: the kernel does not remove it (EBUSY).
fn sweep(instances: &OwnedFd) {
    for name in left(instances).unwrap_or_default() {
        let _ = rustix::fs::unlinkat(instances, name, AtFlags::REMOVEDIR);
    }
}

/// Names of instances whose makers are not seen.
fn left(instances: &OwnedFd) -> onggi_sys::Result<Vec<String>> {
    let entries = rustix::fs::Dir::read_from(instances).sys("getdents", || "instances")?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let gone = |name: &String| maker(name).is_some_and(|(id, started)| start_time(id) != Some(started));
    Ok(names.filter(gone).collect())
}

/// The number of the process that made an instance of ours, and when that was started.
fn maker(name: &str) -> Option<(i32, u64)> {
    let (id, started) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some((id.parse().ok()?, started.parse().ok()?))
}

/// Traces of ours that nobody reads: whoever made them was killed. They go on recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftTraces {
    /// Names of the instances.
    pub names: Vec<String>,
    /// Every process of the machine is seen from here, so that their makers are gone, not only out of sight.
    pub certain: bool,
}

/// The inode of the first pid namespace (linux/proc_ns.h, `PROC_PID_INIT_INO`).
pub(crate) const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// What killed makers have left. Nothing is changed.
///
/// # Errors
/// Without root, or in a kernel without tracefs.
pub fn left_traces() -> onggi_sys::Result<LeftTraces> {
    use std::os::unix::fs::MetadataExt as _;
    let instances = open_at(tracefs()?.as_fd(), "instances", OFlags::DIRECTORY | OFlags::RDONLY)?;
    let own = std::fs::metadata("/proc/self/ns/pid").sys("stat", || "/proc/self/ns/pid")?.ino();
    let mut names = left(&instances)?;
    names.sort();
    Ok(LeftTraces { names, certain: own == FIRST_PID_NAMESPACE })
}

/// Removes them, and the probes that nobody listens to.
///
/// # Errors
/// As [`left_traces`]. One that is read after all stays.
pub fn clear_left_traces() -> onggi_sys::Result<()> {
    let root = tracefs()?;
    sweep(&open_at(root.as_fd(), "instances", OFlags::DIRECTORY | OFlags::RDONLY)?);
    crate::cap_probe::remove_unused(root.as_fd())
}

/// Mounted where nobody else sees it.
fn tracefs() -> onggi_sys::Result<OwnedFd> {
    FsContext::open("tracefs")?.mount(0)
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.pin = None;
        // Busy while a file of it is open. One that is left is harmless: it is only memory, and `rmdir` removes it.
        let _ = rustix::fs::unlinkat(&self.instances, &self.name, AtFlags::REMOVEDIR);
    }
}

fn pinned(instances: &OwnedFd, name: &str) -> onggi_sys::Result<(OwnedFd, OwnedFd)> {
    let dir = open_at(instances.as_fd(), name, OFlags::DIRECTORY | OFlags::RDONLY)?;
    let pin = open_at(dir.as_fd(), "tracing_on", OFlags::RDONLY)?;
    Ok((dir, pin))
}

fn open_at(dir: BorrowedFd<'_>, name: &str, flags: OFlags) -> onggi_sys::Result<OwnedFd> {
    rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty()).sys("openat", || name.to_owned())
}

/// Whole lines of what is read in pieces.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Hands over the lines that a piece completes.
    pub(crate) fn feed(&mut self, piece: &[u8], mut line: impl FnMut(&str)) {
        self.rest.extend_from_slice(piece);
        let end = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        String::from_utf8_lossy(&self.rest[..end]).lines().for_each(&mut line);
        self.rest.drain(..end);
    }
}

/// `CPU:1 [LOST 12 EVENTS]`: how many the kernel could not keep.
pub(crate) fn lost(line: &str) -> Option<u64> {
    line.split_once("[LOST ")?.1.split(' ').next()?.parse().ok()
}

/// One line of `trace_pipe`.
#[derive(Debug)]
pub(crate) struct Line<'l> {
    /// The program's name, cut off after fifteen bytes.
    pub(crate) program: &'l str,
    /// The thread's number in the first pid namespace.
    pub(crate) task: u32,
    /// Name of the event.
    pub(crate) event: &'l str,
    /// What it tells.
    pub(crate) rest: &'l str,
}

impl<'l> Line<'l> {
    /// `           <...>-1234    [001] .....  12.345678: sys_enter: NR 1 (1, 2, 3, 4, 5, 6)`
    pub(crate) fn parse(line: &'l str) -> Option<Self> {
        let (at, program, task) = line.match_indices('[').find_map(|(at, _)| {
            let (program, digits) = line[..at].trim_end().rsplit_once('-')?;
            Some((at, program.trim_start(), digits.parse().ok()?))
        })?;
        // Flags, then the time with a colon, then the event's name with one.
        let (_, after) = line[at..].split_once(": ")?;
        let (event, rest) = after.split_once(": ").unwrap_or((after.trim_end_matches(':'), ""));
        Some(Self { program, task, event: event.trim(), rest })
    }

    /// The number behind `key`.
    pub(crate) fn number(&self, key: &str) -> Option<i64> {
        let text = &self.rest[self.rest.rfind(key)? + key.len()..];
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
        text[..end].parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_program_is_called() {
        let line = Line::parse("  we [1] i-rd-103     [001] .....  1.8: sys_enter: NR 59 (-1, 0)").expect("it is one");
        assert_eq!((line.program, line.task, line.event), ("we [1] i-rd", 103, "sys_enter"));
        assert_eq!((line.number("NR "), line.number("XX ")), (Some(59), None));
        let stack = Line::parse("   sh-9   [001] .....  12.3: <stack trace>").expect("it is one");
        assert_eq!((stack.event, stack.rest), ("<stack trace>", ""));
        for none in ["", "# tracer: nop", "x-1 [0] y", " => cap_capable"] {
            assert!(Line::parse(none).is_none(), "{none}");
        }
        assert_eq!((lost("CPU:1 [LOST 12 EVENTS]"), lost("[LOST x]")), (Some(12), None));
    }

    #[test]
    fn only_instances_of_ours_have_a_maker() {
        assert_eq!(maker("onggi-17-900"), Some((17, 900)));
        for other in ["onggi-by-hand-17", "onggi-17", "foo", "onggi-17-x"] {
            assert_eq!(maker(other), None, "{other}");
        }
    }

    #[test]
    fn lines_come_whole_and_once() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in ["a\nb", "b\n\nc", "c"] {
            lines.feed(piece.as_bytes(), |line| seen.push(line.to_owned()));
        }
        assert_eq!(seen, ["a", "bb", ""]);
    }
}

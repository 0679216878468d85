//! Which process a pid once meant: pid, start time and boot id together name it for good.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::FileError;

/// A process, named so that a reused pid or a reboot is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Pid in the pid namespace of the reader.
    pub pid: i32,
    /// Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)).
    pub start_time: u64,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// The process that has `pid` now; `None` when there is none.
    pub fn of(pid: i32) -> Result<Option<Self>, FileError> {
        Ok(match stat(pid)? {
            Some(stat) => Some(Self { pid, start_time: stat.start_time, boot_id: boot_id()? }),
            None => None,
        })
    }

    /// Whether this very process still runs. A zombie has ended and counts as dead.
    pub fn is_alive(&self) -> Result<bool, FileError> {
        if self.pid <= 0 || self.boot_id != boot_id()? {
            return Ok(false);
        }
        let same = |stat: Stat| stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X');
        Ok(stat(self.pid)?.is_some_and(same))
    }
}

/// The kernel's identifier of this boot (random(4)).
pub fn boot_id() -> Result<String, FileError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = read(path).map_err(|e| FileError::io("read", path, e))?;
    Ok(text.trim_end().to_owned())
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    start_time: u64,
}

fn stat(pid: i32) -> Result<Option<Stat>, FileError> {
    let path = format!("/proc/{pid}/stat");
    let path = Path::new(&path);
    match read(path) {
        Ok(text) => parse_stat(&text)
            .map(Some)
            .ok_or_else(|| FileError::Content { path: path.to_owned(), expected: "proc_pid_stat(5)" }),
        // ESRCH: it ended between open and read.
        Err(e) if e.kind() == io::ErrorKind::NotFound || is_esrch(&e) => Ok(None),
        Err(e) => Err(FileError::io("read", path, e)),
    }
}

fn is_esrch(e: &io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// The command name in parentheses may hold anything, even `)`: fields are counted after the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

fn read(path: &Path) -> io::Result<String> {
    // A stat line is below 1 KiB; the command name may not be UTF-8.
    let mut bytes = Vec::with_capacity(1024);
    File::open(path)?.take(4096).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_and_spaces_does_not_shift_fields() {
        let line = "7 (a) R (b) 1) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3";
        assert_eq!(parse_stat(line), Some(Stat { state: 'S', start_time: 4242 }));
    }

    #[test]
    fn a_short_line_is_refused() {
        assert_eq!(parse_stat("7 (x) S 1 2 3"), None);
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_stat("7 (x"), None);
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let me = ProcessIdentity::of(std::process::id() as i32).expect("read").expect("exists");
        assert!(me.is_alive().expect("read"));
        assert!(!ProcessIdentity { start_time: me.start_time + 1, ..me.clone() }.is_alive().expect("read"));
        assert!(!ProcessIdentity { boot_id: "other".into(), ..me }.is_alive().expect("read"));
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().expect("spawn");
        let id = ProcessIdentity::of(child.id() as i32).expect("read").expect("exists");
        child.kill().expect("kill");
        // Not yet reaped: it is, or soon becomes, a zombie.
        while id.is_alive().expect("read") {
            std::thread::yield_now();
        }
        child.wait().expect("reap");
        assert_eq!(ProcessIdentity::of(id.pid).expect("read").filter(|p| *p == id), None);
    }
}

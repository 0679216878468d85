//! Which process a pid once meant: pid, start time and boot id together name it for good.

use std::path::Path;

use onggi_sys::procfs;
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
        Ok(stat(self.pid)?.is_some_and(|s| s.start_time == self.start_time && !s.has_ended()))
    }
}

/// The kernel's identifier of this boot (random(4)).
pub fn boot_id() -> Result<String, FileError> {
    procfs::boot_id().map_err(|e| FileError::io("read", Path::new("/proc/sys/kernel/random/boot_id"), e))
}

fn stat(pid: i32) -> Result<Option<procfs::Stat>, FileError> {
    procfs::stat(pid).map_err(|e| FileError::io("read", Path::new(&format!("/proc/{pid}/stat")), e))
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! Lines of the kernel's log (`/dev/kmsg`) about one container's end: the OOM killer's victim, a seccomp kill, a fault.
//! Without the right to read it there are none; they add names to what the exit record tells and replace nothing.

use std::os::fd::OwnedFd;

use onggi_spec::monitor::ExitRecord;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

/// Records that are read: more than the kernel's buffer holds by default.
const MAX_RECORDS: usize = 100_000;
/// Lines that are kept.
const MAX_LINES: usize = 6;

/// What the kernel's log says about the end of a container.
pub(super) fn about(id: &str, exit: &ExitRecord) -> Vec<String> {
    let detail = exit.detail.as_deref();
    let signalled = detail.is_some_and(|d| d.signal.is_some());
    if !exit.oom_killed && !signalled {
        return Vec::new();
    }
    let pid = detail.map_or(0, |d| d.pid);
    let Some(log) = open() else { return Vec::new() };
    let mut lines: Vec<String> = records(&log).filter(|line| concerns(line, id, pid, exit.oom_killed)).collect();
    let from = lines.len().saturating_sub(MAX_LINES);
    lines.drain(..from);
    lines
}

fn open() -> Option<OwnedFd> {
    rustix::fs::open("/dev/kmsg", OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// One record per read (dev-kmsg of the kernel's ABI documents); EPIPE says that some were overwritten meanwhile.
fn records(log: &OwnedFd) -> impl Iterator<Item = String> {
    let mut buffer = vec![0; 8192];
    let mut left = MAX_RECORDS;
    std::iter::from_fn(move || {
        while left > 0 {
            left -= 1;
            match rustix::io::read(log, &mut buffer[..]) {
                Ok(n) if n > 0 => return Some(message(&String::from_utf8_lossy(&buffer[..n]))),
                Err(Errno::PIPE | Errno::INTR) => {}
                _ => return None,
            }
        }
        None
    })
}

/// The first line behind `priority,sequence,time,flags;`.
fn message(record: &str) -> String {
    let text = record.split_once(';').map_or(record, |(_, text)| text);
    text.lines().next().unwrap_or_default().to_owned()
}

fn concerns(line: &str, id: &str, pid: i32, oom: bool) -> bool {
    let names_group = oom && line.contains("oom-kill:") && line.contains(id);
    let names_process = pid > 0
        && (line.contains(&format!("[{pid}]"))
            || (line.contains("type=1326") && line.contains(&format!(" pid={pid} "))));
    names_group || names_process
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_about_the_container_are_kept() {
        let record =
            "6,1234,99,-;audit: type=1326 audit(1.2:3): auid=0 uid=0 pid=77 comm=\"x\" sig=31 syscall=59\n K=V\n";
        let line = message(record);
        assert!(line.starts_with("audit: type=1326") && line.ends_with("syscall=59"), "{line}");
        assert!(concerns(&line, "abc", 77, false) && !concerns(&line, "abc", 7, false));
        let oom = "oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/onggi-abc,task=sh,pid=9,uid=0";
        assert!(concerns(oom, "abc", 0, true) && !concerns(oom, "abd", 0, true) && !concerns(oom, "abc", 0, false));
        assert!(concerns("sh[77]: segfault at 0 ip 1", "x", 77, false));
    }
}

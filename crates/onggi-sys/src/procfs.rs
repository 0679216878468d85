//! The few facts of /proc that identify a process for good: its start time and the boot.

use std::{io, path::Path, sync::OnceLock};

use crate::small_file;

/// Longest `/proc/PID/stat`: about 50 numbers and a name.
const MAX_STAT: usize = 1 << 16;

/// State and start time of a process (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Field 3: `R`, `S`, `Z` …
    pub state: char,
    /// Field 22: clock ticks between boot and its start.
    pub start_time: u64,
}

impl Stat {
    /// A zombie has ended and only waits to be reaped.
    pub fn has_ended(self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Reads `/proc/PID/stat`; `None` when there is no such process.
///
/// # Errors
/// /proc cannot be read, or shows something else.
pub fn stat(pid: i32) -> io::Result<Option<Stat>> {
    // ESRCH: it ended between open and read.
    let gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH);
    match small_file::read(Path::new(&format!("/proc/{pid}/stat")), MAX_STAT) {
        Ok(bytes) => parse(&String::from_utf8_lossy(&bytes)).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        Err(e) if gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The kernel's identifier of this boot (random(4)). Read once: no process sees two.
///
/// # Errors
/// /proc cannot be read.
pub fn boot_id() -> io::Result<String> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(id) = BOOT.get() {
        return Ok(id.clone());
    }
    let id = small_file::read_text(Path::new("/proc/sys/kernel/random/boot_id"))?.trim_end().to_owned();
    Ok(BOOT.get_or_init(|| id).clone())
}

/// The command name in parentheses may hold anything, even `)`: fields are counted after the last one.
fn parse(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_cannot_shift_the_fields() {
        let text = "7 (a) Z 1 (b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 0";
        assert_eq!(parse(text), Some(Stat { state: 'S', start_time: 4242 }));
    }

    #[test]
    fn a_short_line_is_refused() {
        assert_eq!(["7 (x) S 1 2 3", "", "7 (x"].map(parse), [None; 3]);
    }

    #[test]
    fn this_process_has_a_start_time_and_pid_0_does_not_exist() {
        assert!(stat(std::process::id().cast_signed()).unwrap().is_some());
        assert_eq!(stat(0).unwrap(), None);
    }
}

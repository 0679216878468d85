//! The one line that tells the engine whether the workload runs.

use std::os::fd::OwnedFd;

use onggi_spec::monitor::{MonitorReport, StartFailure};

/// Notes in one report; each is a sentence, and the reader's line is bounded.
const MAX_NOTES: usize = 32;
/// Longest note in bytes.
const MAX_NOTE: usize = 512;

/// The line for a started workload.
pub(super) fn started(pid: i32, notes: &[String]) -> Vec<u8> {
    let cut = |note: &String| note.chars().take(MAX_NOTE / 4).collect();
    line(&MonitorReport::Started { pid, notes: notes.iter().take(MAX_NOTES).map(cut).collect() })
}

/// The line for a failed start.
pub(super) fn failed(failure: &StartFailure) -> Vec<u8> {
    line(&MonitorReport::Failed(failure.clone()))
}

fn line(report: &MonitorReport) -> Vec<u8> {
    // Numbers and texts always serialise.
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Writes the line and closes the descriptor. False: nobody heard it.
pub(super) fn send(report: OwnedFd, line: &[u8]) -> bool {
    let mut rest = line;
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(&report, rest)) {
            Ok(n) if n > 0 => rest = &rest[n..],
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_engine_reads_one_line_and_then_the_end() {
        let (mut r, w) = std::io::pipe().unwrap();
        assert!(send(w.into(), &started(42, &["a note".into()])));
        let mut text = String::new();
        r.read_to_string(&mut text).unwrap();
        assert!(text.ends_with('\n') && text.lines().count() == 1);
        let report: MonitorReport = serde_json::from_str(&text).unwrap();
        assert_eq!(report, MonitorReport::Started { pid: 42, notes: vec!["a note".into()] });
    }

    #[test]
    fn many_long_notes_fit_into_a_line() {
        assert!(started(1, &vec!["ä".repeat(10_000); 1000]).len() < 16 * 1024);
    }

    #[test]
    fn an_engine_that_is_gone_is_noticed() {
        let (r, w) = std::io::pipe().unwrap();
        drop(r);
        assert!(!send(w.into(), &started(1, &[])));
    }
}

//! Assertions that many tests share.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::Ran;

/// A refusal as users expect it: the exit code, every given piece of text, a hint, and no panic.
#[track_caller]
pub fn assert_refused(ran: &Ran, code: i32, pieces: &[&str]) {
    let text = &ran.stderr;
    assert_eq!(ran.code, Some(code), "exit code of {ran}");
    for piece in pieces {
        assert!(text.contains(piece), "{piece:?} is missing in the message of {ran}");
    }
    assert!(text.contains("hint:"), "no hint in the message of {ran}");
    assert!(!text.contains("panicked"), "a panic: {ran}");
}

/// Waits until `probe` gives something.
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(15), "waited 15 s in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

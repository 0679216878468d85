//! Signals of this command become signals of the process it is attached to.

use std::thread;

use onggi_engine::ProcessHandle;
use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGWINCH},
    iterator::Signals,
};

use crate::error::CliError;

/// What the process gets in our place, by number: all but those that a fault of ours raises (ILL, FPE, SEGV), that cannot be caught (KILL,
/// STOP), that are about our own files and children (PIPE, CHLD, URG), and job control (TSTP, TTIN, TTOU), which stays ours.
const FORWARDED: [std::ops::RangeInclusive<i32>; 8] =
    [1..=3, 5..=7, 10..=10, 12..=12, 14..=16, 18..=18, 24..=31, 34..=64];

/// So many SIGINTs and SIGTERMs and the process still lives: `give_up` is called, as Docker's client leaves.
pub(super) const PATIENCE: u32 = 3;

/// Forwards signals from a thread of its own; `resize` is called when our terminal changes its size, and says whether the process has
/// one that follows. A process without one gets the signal.
pub(super) fn forward(
    process: ProcessHandle,
    resize: impl Fn() -> bool + Send + 'static,
    give_up: impl Fn() + Send + 'static,
) -> Result<(), CliError> {
    let mut signals = Signals::new(FORWARDED.into_iter().flatten()).map_err(CliError::Signals)?;
    thread::spawn(move || {
        let mut asked_to_end = 0;
        for signal in signals.forever() {
            asked_to_end += u32::from(matches!(signal, SIGINT | SIGTERM));
            if signal == SIGWINCH && resize() {
                continue;
            }
            if asked_to_end >= PATIENCE {
                give_up();
            } else if let Err(e) = process.signal(signal) {
                tracing::warn!("cannot forward signal {signal}: {e}");
            }
        }
    });
    Ok(())
}

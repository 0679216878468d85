//! Signals of this command become signals of the process it is attached to.

use std::thread;

use onggi_engine::ProcessHandle;
use signal_hook::{
    consts::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::Signals,
};

use crate::error::CliError;

/// What the process gets in our place. Job control (TSTP, TTIN, TTOU) stays ours.
const FORWARDED: [i32; 8] = [SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// So many SIGINTs and SIGTERMs and the process still lives: `give_up` is called, as Docker's client leaves.
pub(super) const PATIENCE: u32 = 3;

/// Forwards signals from a thread of its own; `resize` is called when our terminal changes its size.
pub(super) fn forward(
    process: ProcessHandle,
    resize: impl Fn() + Send + 'static,
    give_up: impl Fn() + Send + 'static,
) -> Result<(), CliError> {
    let mut signals = Signals::new(FORWARDED.iter().chain(&[SIGWINCH])).map_err(CliError::Signals)?;
    thread::spawn(move || {
        let mut asked_to_end = 0;
        for signal in signals.forever() {
            asked_to_end += u32::from(matches!(signal, SIGINT | SIGTERM));
            if signal == SIGWINCH {
                resize();
            } else if asked_to_end >= PATIENCE {
                give_up();
            } else if let Err(e) = process.signal(signal) {
                tracing::warn!("cannot forward signal {signal}: {e}");
            }
        }
    });
    Ok(())
}

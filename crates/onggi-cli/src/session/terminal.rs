//! Our own terminal: raw mode while attached, its size.

use std::io;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::CliError;

/// stdin's terminal in raw mode; restored when dropped.
pub(super) struct RawTerminal {
    saved: Termios,
}

impl RawTerminal {
    /// Switches stdin's terminal to raw mode.
    pub(super) fn enter() -> Result<Self, CliError> {
        let saved = tcgetattr(io::stdin())
            .map_err(|source| CliError::Terminal { operation: "read the terminal's mode", source })?;
        let mut raw = saved.clone();
        raw.make_raw();
        let set = tcsetattr(io::stdin(), OptionalActions::Drain, &raw);
        set.map_err(|source| CliError::Terminal { operation: "set the terminal's mode", source })?;
        Ok(Self { saved })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.saved);
    }
}

/// Columns and rows of the terminal that shows the output, or that is typed at.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    Some((size.ws_col, size.ws_row))
}

/// stdin's terminal without echo, for a password; restored when dropped.
pub(crate) struct Hidden {
    saved: Termios,
}

impl Hidden {
    /// Switches the echo off.
    pub(crate) fn enter() -> Result<Self, CliError> {
        let saved = tcgetattr(io::stdin())
            .map_err(|source| CliError::Terminal { operation: "read the terminal's mode", source })?;
        let mut quiet = saved.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let set = tcsetattr(io::stdin(), OptionalActions::Flush, &quiet);
        set.map_err(|source| CliError::Terminal { operation: "set the terminal's mode", source })?;
        Ok(Self { saved })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.saved);
    }
}

//! Our own terminal while a container's is shown on it: raw mode, window size.

use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
};

use onggi_spec::oci::runtime::{ConsoleSize, Process};
use onggi_sys::pty;
use rustix::termios::{OptionalActions, OutputModes, Termios};

/// Gives a process without a console size that of our own terminal.
pub(super) fn inherit_size(process: Option<&mut Process>) {
    let Some(process) = process.filter(|p| p.console_size.is_none()) else { return };
    if let Ok((width, height)) = pty::size(io::stdin().as_fd()) {
        process.console_size = Some(ConsoleSize { height: height.into(), width: width.into() });
    }
}

/// Raw mode for as long as this lives.
pub(super) struct Raw(Option<Termios>);

impl Raw {
    pub(super) fn enter() -> Self {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Self(None);
        }
        let Ok(old) = rustix::termios::tcgetattr(&stdin) else { return Self(None) };
        let mut raw = old.clone();
        raw.make_raw();
        // The container's terminal leaves CR LF to this one.
        raw.output_modes |= OutputModes::OPOST;
        let set = rustix::termios::tcsetattr(&stdin, OptionalActions::Flush, &raw);
        Self(set.is_ok().then_some(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(old) = &self.0 {
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, old);
        }
    }
}

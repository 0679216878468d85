//! Waiting for a process in the foreground: signals are forwarded, its exit code becomes ours.

use std::os::fd::{AsFd, OwnedFd};

use onggi_sandbox::StartFailureError;
use onggi_sys::{
    process,
    signal::{self, number},
};

use super::CliError;

fn failed(e: onggi_sys::SysError) -> CliError {
    StartFailureError::from_sys("wait for the container", &e).into()
}

/// Signals that are about this program and not about the container.
pub(super) fn is_own(signal: i32) -> bool {
    // SIGURG is what Go programs signal each other with; stops by the terminal are the shell's.
    matches!(signal, number::CHLD | number::URG | number::TTIN | number::TTOU | number::TSTP | number::WINCH)
}

/// Waits for our child behind `pidfd`.
pub(super) fn wait(pidfd: &OwnedFd) -> Result<i32, CliError> {
    signal::block_all().map_err(failed)?;
    loop {
        if let Some(exit) = process::try_wait_pidfd(pidfd.as_fd()).map_err(failed)? {
            return Ok(exit.code());
        }
        match signal::wait_any().map_err(failed)? {
            n if is_own(n) => {}
            // The process may have ended meanwhile; then SIGCHLD is next.
            n => drop(process::pidfd_kill(pidfd.as_fd(), n)),
        }
    }
}

//! Pseudo-terminals: opening a pair in a given devpts, controlling terminal, size. pty(7).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::termios::{OptionalActions, OutputModes, Winsize};

use crate::{Result, SysContext, SysError};

/// Unlocks the slave of `master` (a freshly opened ptmx) and opens it through the master, so that no path in
/// somebody else's filesystem is looked up (TIOCGPTPEER).
///
/// # Errors
/// ENOTTY when `master` is not a pseudo-terminal master.
pub fn open_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::pty::unlockpt(master).sys("ioctl", || "TIOCSPTLCK")?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes an integer argument; `master` is open for the call's duration.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if fd < 0 {
        return Err(SysError::last("ioctl", "TIOCGPTPEER"));
    }
    // SAFETY: a non-negative result is a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number N of `/dev/pts/N` of a master (TIOCGPTN).
///
/// # Errors
/// ENOTTY when it is not a master.
pub fn number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut n: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int through the pointer, which is live and writable.
    let r = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut n) };
    if r < 0 {
        return Err(SysError::last("ioctl", "TIOCGPTN"));
    }
    Ok(n)
}

/// Makes `terminal` the controlling terminal of this session leader.
///
/// # Errors
/// EPERM when this is not a session leader or the terminal belongs to another session.
pub fn set_controlling(terminal: BorrowedFd<'_>) -> Result<()> {
    rustix::process::ioctl_tiocsctty(terminal).sys("ioctl", || "TIOCSCTTY")
}

/// A line feed that is written to the terminal stays one: not CR LF (ONLCR).
///
/// # Errors
/// ENOTTY.
pub fn leave_line_feeds(terminal: BorrowedFd<'_>) -> Result<()> {
    let mut modes = rustix::termios::tcgetattr(terminal).sys("ioctl", || "TCGETS")?;
    modes.output_modes -= OutputModes::ONLCR;
    rustix::termios::tcsetattr(terminal, OptionalActions::Now, &modes).sys("ioctl", || "TCSETS")
}

/// Sets the size in characters.
///
/// # Errors
/// ENOTTY.
pub fn set_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal.as_fd(), size).sys("ioctl", || "TIOCSWINSZ")
}

/// Reads the size: columns, rows.
///
/// # Errors
/// ENOTTY.
pub fn size(terminal: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let s = rustix::termios::tcgetwinsize(terminal).sys("ioctl", || "TIOCGWINSZ")?;
    Ok((s.ws_col, s.ws_row))
}

//! Standard streams on /dev/null.
//!
//! A caller's /dev/null is on a mount of the host: what the container sees of it (its path, its mount id, what
//! `/proc/self/fd/0` leads to) is the host's. runc opens the container's own instead, and so do we.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use onggi_sys::spawn;
use rustix::fs::{FileType, Mode, OFlags};

/// major:minor of /dev/null.
const NULL: (u32, u32) = (1, 3);

fn is_null(fd: BorrowedFd<'_>) -> bool {
    let Ok(stat) = rustix::fs::fstat(fd) else { return false };
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && number == NULL
}

/// The container's /dev/null, verified: an image may have put something else there.
fn own_null() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK;
    let fd = rustix::fs::open(c"/dev/null", flags, Mode::empty()).ok().filter(|fd| is_null(fd.as_fd()))?;
    rustix::fs::fcntl_setfl(&fd, OFlags::empty()).ok()?;
    Some(fd)
}

/// A stream that cannot be opened again stays as it is: it works.
pub(super) fn reopen_null() {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut null = None;
    for (number, fd) in [(0, stdin.as_fd()), (1, stdout.as_fd()), (2, stderr.as_fd())] {
        if !is_null(fd) {
            continue;
        }
        if null.is_none() {
            null = own_null();
        }
        let Some(null) = &null else { return };
        let _ = spawn::install_stdio(null.as_fd(), number);
    }
}

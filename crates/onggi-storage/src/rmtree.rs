//! Recursive removal by directory descriptor.
//!
//! Never follows a link, never enters another mount, is not stopped by depth (directories deeper than
//! [`MAX_DEPTH`] are first moved up, so neither the stack nor the descriptor table grows) nor by missing
//! permissions on directories that we own. "Already gone" is success. It goes on past failures and returns the first.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use onggi_sys::fs::{self, FileType};
use onggi_sys::{Errno, SysError, clone_data};

type Result<T> = std::result::Result<T, SysError>;

/// Directories that are open at the same time.
const MAX_DEPTH: usize = 64;

/// What is a subvolume in a directory of the btrfs driver.
const SUBVOLUMES: [&[u8]; 2] = [b"tree", b"rootfs"];

/// Removes `name` in `parent`, whatever it is.
///
/// # Errors
/// The first call that failed; what could be removed is gone.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let stat = match fs::stat_at(parent, name) {
        Ok(stat) => stat,
        Err(e) => return gone(Err(e)),
    };
    if fs::file_type(&stat) != FileType::Directory {
        return gone(fs::unlink(parent, name));
    }
    let top = match open(parent, name) {
        Ok(top) => top,
        Err(e) => return gone(Err(e)),
    };
    Removal { top: top.as_fd(), moved: 0, failure: None }.run()?;
    gone(fs::remove_dir(parent, name))
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
    failure: Option<SysError>,
}

impl Removal<'_> {
    /// Empties the top directory; again as long as deep directories were moved into it.
    fn run(mut self) -> Result<()> {
        loop {
            let before = self.moved;
            let top = self.top;
            let pass = self.empty(top, 0);
            self.note(pass);
            if let Some(e) = self.failure {
                return Err(e);
            }
            if self.moved == before {
                return Ok(());
            }
        }
    }

    fn empty(&mut self, dir: BorrowedFd<'_>, depth: usize) -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let (name, kind) = entry?;
            let done = self.entry(dir, &name, kind, depth);
            self.note(gone(done));
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &[u8], kind: FileType, depth: usize) -> Result<()> {
        let is_dir = match kind {
            FileType::Unknown => fs::file_type(&fs::stat_at(dir, name)?) == FileType::Directory,
            kind => kind == FileType::Directory,
        };
        if !is_dir {
            return writable(dir, || fs::unlink(dir, name));
        }
        // A subvolume of the btrfs driver goes in one call; elsewhere the call refuses.
        if depth == 0 && SUBVOLUMES.contains(&name) && clone_data::remove_subvolume(dir, name).is_ok() {
            return Ok(());
        }
        let child = open(dir, name)?;
        if depth == MAX_DEPTH {
            return self.move_up(dir, name, child.as_fd());
        }
        self.empty(child.as_fd(), depth + 1)?;
        writable(dir, || fs::remove_dir(dir, name))
    }

    /// Moves a directory to the top, where the next pass finds it.
    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &[u8], child: BorrowedFd<'_>) -> Result<()> {
        loop {
            self.moved += 1;
            let to = format!(".deep-{}", self.moved);
            let moved = writable(dir, || writable(child, || fs::rename_new(dir, name, self.top, to.as_bytes())));
            match moved {
                Err(e) if e.errno == Errno::EXIST => {}
                other => return other,
            }
        }
    }

    fn note(&mut self, done: Result<()>) {
        if let Err(e) = done {
            self.failure.get_or_insert(e);
        }
    }
}

/// Opens a directory to empty it; one that forbids its owner to read it is changed first.
fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    match fs::open_dir_same_mount(parent, name) {
        Err(e) if e.errno == Errno::ACCESS => {
            fs::chmod_handle(fs::open_handle(parent, name)?.as_fd(), 0o700)?;
            fs::open_dir_same_mount(parent, name)
        }
        other => other,
    }
}

/// Runs `operation`; once more with `dir` made writable when permission was missing.
fn writable(dir: BorrowedFd<'_>, operation: impl Fn() -> Result<()>) -> Result<()> {
    match operation() {
        Err(e) if e.errno == Errno::ACCESS => {
            fs::chmod(dir, 0o700)?;
            operation()
        }
        other => other,
    }
}

fn gone(done: Result<()>) -> Result<()> {
    match done {
        Err(e) if e.errno == Errno::NOENT => Ok(()),
        other => other,
    }
}

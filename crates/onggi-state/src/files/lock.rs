//! flock(2) on a file of its own. The kernel releases it when the holder dies, however it dies.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use super::{FileError, component, make_dir};

/// How often a lock file may vanish under us before we call it an error; each time means that another
/// process finished and removed it, so this is never reached without a bug.
const MAX_RETRIES: u32 = 1000;

/// A held lock; released when dropped or when the process ends. The descriptor is close-on-exec.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock, alone.
    pub fn exclusive(path: &Path) -> Result<Self, FileError> {
        acquire(path, |file| file.lock().map(|()| true)).and_then(|lock| held(path, lock))
    }

    /// Waits for the lock, together with other shared holders.
    pub fn shared(path: &Path) -> Result<Self, FileError> {
        acquire(path, |file| file.lock_shared().map(|()| true)).and_then(|lock| held(path, lock))
    }

    /// The lock if it is free now, else `None`.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>, FileError> {
        acquire(path, |file| tried(file.try_lock()))
    }

    /// The shared lock if it is free now, else `None`.
    pub fn try_shared(path: &Path) -> Result<Option<Self>, FileError> {
        acquire(path, |file| tried(file.try_lock_shared()))
    }

    /// `<runroot>/locks/<name>`, for the functions above; makes the directory.
    pub fn named(runroot: &Path, name: &str) -> Result<PathBuf, FileError> {
        let dir = runroot.join("locks");
        make_dir(&dir)?;
        Ok(dir.join(component("lock", name)?))
    }

    /// Whether somebody holds the lock exclusively. A missing file is a free lock; none is made.
    pub fn is_held(path: &Path) -> Result<bool, FileError> {
        let file = match OpenOptions::new().read(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(|e| FileError::io("open the lock", path, e))?,
        };
        // Shared, so that two who ask at once do not take each other for the holder.
        tried(file.try_lock_shared()).map(|free| !free).map_err(|e| FileError::io("lock", path, e))
    }

    /// Waits until nobody holds the lock exclusively. A missing file is a free lock; none is made.
    pub fn await_free(path: &Path) -> Result<(), FileError> {
        let file = match OpenOptions::new().read(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(|e| FileError::io("open the lock", path, e))?,
        };
        loop {
            match file.lock_shared() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                waited => return waited.map_err(|e| FileError::io("lock", path, e)),
            }
        }
    }

    /// The lock's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, then releases. Whoever waits for it notices and makes a new one.
    pub fn remove(self) -> Result<(), FileError> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::io("remove the lock", &self.path, e)),
            _ => Ok(()),
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn held(path: &Path, lock: Option<Lock>) -> Result<Lock, FileError> {
    lock.ok_or_else(|| FileError::Busy { name: path.display().to_string() })
}

fn tried(result: Result<(), TryLockError>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

fn acquire(path: &Path, lock: impl Fn(&File) -> io::Result<bool>) -> Result<Option<Lock>, FileError> {
    let fail = |e| FileError::io("lock", path, e);
    for _ in 0..MAX_RETRIES {
        let file = open(path).map_err(|e| FileError::io("open the lock", path, e))?;
        loop {
            match lock(&file) {
                Ok(true) => break,
                Ok(false) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(fail(e)),
            }
        }
        // The file may have been removed (and made anew) between open and lock.
        if still_there(&file, path).map_err(fail)? {
            return Ok(Some(Lock { file, path: path.to_owned() }));
        }
    }
    Err(FileError::Busy { name: path.display().to_string() })
}

fn open(path: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
}

fn still_there(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(now) => Ok((now.dev(), now.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

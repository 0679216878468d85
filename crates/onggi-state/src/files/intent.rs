//! "I am about to create things for this id": written before the first of them exists.
//!
//! The file is locked for as long as its owner works. Whoever finds one that can be locked knows that
//! the owner died half-way, runs the idempotent clean-up of that id, and completes the intent.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{FileError, Lock, component, make_dir};

/// `<runroot>/intents`.
#[derive(Debug, Clone)]
pub struct Intents {
    dir: PathBuf,
}

/// An intent that this process holds. Dropping it without [`Intent::complete`] leaves the file behind
/// unlocked: the next command will clean up.
#[derive(Debug)]
#[must_use = "an intent that is dropped at once tells others that its owner died"]
pub struct Intent {
    id: String,
    lock: Lock,
}

impl Intents {
    /// The intents below this run root; the directory is made when missing.
    pub fn open(runroot: &Path) -> Result<Self, FileError> {
        let dir = runroot.join("intents");
        make_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Declares that this process is about to create things for `id`; `None` while another process holds the intent.
    pub fn try_begin(&self, id: &str) -> Result<Option<Intent>, FileError> {
        let path = self.dir.join(component("container", id)?);
        Ok(Lock::try_exclusive(&path)?.map(|lock| Intent { id: id.to_owned(), lock }))
    }

    /// Waits until nobody else works on `id`, then holds the intent. The way for new names too: whoever looks for
    /// abandoned intents holds a file for a moment that its maker has not locked yet.
    pub fn wait(&self, id: &str) -> Result<Intent, FileError> {
        let path = self.dir.join(component("container", id)?);
        Ok(Intent { id: id.to_owned(), lock: Lock::exclusive(&path)? })
    }

    /// Whether a living process holds the intent for `id`.
    pub fn is_held(&self, id: &str) -> Result<bool, FileError> {
        Lock::is_held(&self.dir.join(component("container", id)?))
    }

    /// Intents whose owner died, each now held by this process. Clean the id up, then complete it.
    pub fn abandoned(&self) -> Result<Vec<Intent>, FileError> {
        let mut found = Vec::new();
        let entries = std::fs::read_dir(&self.dir).map_err(|e| FileError::io("list", &self.dir, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| FileError::io("list", &self.dir, e))?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            if component("container", &id).is_err() {
                continue;
            }
            found.extend(self.take_over(&id)?);
        }
        Ok(found)
    }

    /// Locks an existing intent without making one that has just been completed.
    fn take_over(&self, id: &str) -> Result<Option<Intent>, FileError> {
        if self.is_held(id)? {
            return Ok(None);
        }
        match std::fs::symlink_metadata(self.dir.join(id)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => self.try_begin(id),
        }
    }
}

impl Intent {
    /// The container (or other object) it is about.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The work is complete, or undone: the intent disappears.
    pub fn complete(self) -> Result<(), FileError> {
        self.lock.remove()
    }
}

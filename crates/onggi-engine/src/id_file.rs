//! `--cidfile`: a file that names the container, for scripts that must find it again.

use std::{
    cell::Cell,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use onggi_spec::ContainerId;

use crate::EngineError;

/// The file, which nobody else has. It goes again when no container was made.
#[derive(Debug)]
pub struct IdFile {
    path: PathBuf,
    file: File,
    written: Cell<bool>,
}

impl IdFile {
    /// Makes the file.
    ///
    /// # Errors
    /// It exists, or it cannot be made.
    pub fn reserve(path: &Path) -> Result<Self, EngineError> {
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => Ok(Self { path: path.to_owned(), file, written: Cell::new(false) }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(EngineError::IdFileExists { path: path.into() }),
            Err(source) => Err(EngineError::WriteFile { path: path.into(), source }),
        }
    }

    /// Writes the id, without a newline, as Docker.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&self, id: &ContainerId) -> Result<(), EngineError> {
        let written = (&self.file).write_all(id.as_str().as_bytes());
        written.map_err(|source| EngineError::WriteFile { path: self.path.clone(), source })?;
        self.written.set(true);
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.written.get() {
            // It was empty; whoever finds it finds nothing.
            let _ = fs::remove_file(&self.path);
        }
    }
}

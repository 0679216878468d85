//! What the pull of a name found, so that the next one of the same digest need not read documents again to know what must be
//! there: content that is named by its digest does not change.
//!
//! A row is only a memory of what verified documents said. It is used when the name still stands for the same digest, and goes
//! with the name.

use std::path::Path;

use onggi_spec::{Digest, ImageReference};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::{
    ImageRecord, State, StateError,
    db::{Sync, decode, encode, translate},
    images::name_text,
};

/// The blobs of a pulled image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledParts {
    /// The platform that was asked for, `os/architecture[/variant]`: an index stands for another image on another one.
    pub platform: String,
    /// Index, manifest and configuration, in this order; the last is the image's id.
    pub documents: Vec<Digest>,
    /// Layers as the manifest lists them, lowest first, with their sizes in bytes.
    pub layers: Vec<(Digest, u64)>,
}

impl State {
    /// Stores an image with a name, as [`put_image`](Self::put_image), and what its pull found. Survives a power cut.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn put_pulled(&mut self, image: &ImageRecord, parts: &PulledParts) -> Result<(), StateError> {
        let text = encode(OP, parts)?;
        self.put_image_with(image, |tx, path| match &image.name {
            Some(name) => put_parts(tx, path, name, &text),
            None => Ok(()),
        })
    }

    /// What the pull of an image found that is stored already. A power cut may undo it. A name that has gone meanwhile is no
    /// error.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn remember_parts(&mut self, name: &ImageReference, parts: &PulledParts) -> Result<(), StateError> {
        let text = encode(OP, parts)?;
        self.write(OP, Sync::Normal, |tx, path| put_parts(tx, path, name, &text))
    }

    /// What the last pull of this name found. Ask whether the name still stands for it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn pulled_parts(&self, name: &ImageReference) -> Result<Option<PulledParts>, StateError> {
        let found: Option<String> = self
            .conn()
            .query_row("SELECT parts FROM pulls WHERE name = ?1", [name_text(name)], |row| row.get(0))
            .optional()
            .map_err(|e| self.fail("read what was pulled", e))?;
        found.map(|text| decode(self.path(), "pulls", &text)).transpose()
    }
}

const OP: &str = "note what was pulled";

fn put_parts(tx: &Connection, path: &Path, name: &ImageReference, parts: &str) -> Result<(), StateError> {
    tx.execute(
        "INSERT INTO pulls SELECT name, ?2 FROM names WHERE name = ?1 ON CONFLICT(name) DO UPDATE SET parts = ?2",
        params![name_text(name), parts],
    )
    .map(|_| ())
    .map_err(|e| translate(OP, path, e))
}

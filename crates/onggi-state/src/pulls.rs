//! What the pull of a name found, so that the next one of the same digest need not read documents again to know what must be
//! there: content that is named by its digest does not change.
//!
//! A row is only a memory of what verified documents said. It is used when the name still stands for the same digest, and goes
//! with the name.

use std::path::Path;

use onggi_spec::{Digest, ImageReference};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use crate::{
    ImageRecord, State, StateError,
    db::{Sync, decode, encode, suffixed, translate},
    images::{COLUMNS, HOUR, ImageRow, USED_LAST, name_text},
    memo::Stamp,
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

/// An image that a pull brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The image that the name stands for now.
    pub image: ImageRecord,
    /// What the last pull of the name found: perhaps another image.
    pub parts: PulledParts,
    /// It counts as used now without a further note ([`pulled_again`](State::pulled_again)).
    pub noted: bool,
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

    /// The image that a name stands for and what its last pull found; `None` when nothing was noted of one. In one question,
    /// because the next pull of an image that is here waits for little else.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn pulled(&self, name: &ImageReference, now: i64) -> Result<Option<Pulled>, StateError> {
        let sql = format!(
            "SELECT {COLUMNS}, pulls.parts, {USED_LAST} FROM pulls JOIN names ON names.name = pulls.name \
             JOIN images ON images.id = names.image_id WHERE pulls.name = ?1"
        );
        let read = |row: &Row<'_>| Ok((ImageRow::read(row)?, row.get::<_, String>(8)?, row.get(9)?));
        let found = self.conn().query_row(&sql, params![name_text(name), now.saturating_sub(HOUR)], read).optional();
        let found = found.map_err(|e| self.fail("read what was pulled", e))?;
        let parse = |(image, parts, noted): (ImageRow, String, bool)| {
            Ok(Pulled { image: image.parse(self.path())?, parts: decode(self.path(), "pulls", &parts)?, noted })
        };
        found.map(parse).transpose()
    }

    /// As [`pulled`](Self::pulled), with the stamp of the state in which the database says so, if it is one that a later commit
    /// surely changes: nobody has written for a while, nobody is about to commit, and no commit is left by a writer that was killed.
    ///
    /// # Errors
    /// As [`pulled`](Self::pulled).
    pub fn pulled_for_good(
        &self,
        name: &ImageReference,
        now: i64,
    ) -> Result<(Option<Pulled>, Option<Stamp>), StateError> {
        let root = self.path().parent().unwrap_or(self.path());
        let settled = || Stamp::of(root).filter(|stamp| stamp.is_settled(now));
        // A commit is seen only after its flush, when the file of the WAL has long changed: so not beside a writer.
        if settled().is_none() || !self.try_lock_writers() {
            return Ok((self.pulled(name, now)?, None));
        }
        let stamp = settled().filter(|stamp| stamp.is_indexed(&suffixed(self.path(), "-shm")));
        let found = self.pulled(name, now);
        self.unlock_writers().map_err(|e| self.fail("read what was pulled", e))?;
        Ok((found?, stamp))
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

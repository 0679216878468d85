//! Images and the names that point to them.
//!
//! An image is its configuration's digest; a name points to exactly one image; an image may have any
//! number of names, or none (`<none>`) after its last name has moved on.

use std::path::Path;

use onggi_spec::{Digest, ImageReference};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::{
    State, StateError,
    db::{Sync, decode, encode, translate},
};

/// In nanoseconds.
pub(crate) const HOUR: i64 = 3_600_000_000_000;

/// One image under one name. An image with several names yields several records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The name; `None` for an image that has lost its last one.
    pub name: Option<ImageReference>,
    /// Digest of the manifest that the name meant when it was put.
    pub manifest_digest: Digest,
    /// Digest of the configuration: the image's id.
    pub config_digest: Digest,
    /// ChainIDs of its layers, lowest first.
    pub chain_ids: Vec<Digest>,
    /// Digests of the compressed layers, lowest first.
    pub layer_digests: Vec<Digest>,
    /// Size in bytes of the unpacked layers.
    pub size: u64,
    /// When the image was built, unix time in nanoseconds.
    pub created: i64,
    /// When it came here, unix time in nanoseconds.
    pub pulled_at: i64,
}

/// What [`State::remove_name`] and [`State::remove_image`] took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedImage {
    /// Names that are gone.
    pub untagged: Vec<ImageReference>,
    /// The image itself, when it is gone too. Its layers and blobs may now be unreferenced.
    pub deleted: Option<Digest>,
}

pub(crate) const COLUMNS: &str = "names.name, coalesce(names.manifest_digest, images.manifest_digest), images.id, \
     images.chain_ids, images.layer_digests, images.size, images.created, images.pulled_at";

/// Whether an image was pulled after ?2, and after all others were pulled and their last containers removed.
pub(crate) const USED_LAST: &str = "images.pulled_at > ?2 AND NOT EXISTS (SELECT 1 FROM images AS other \
     LEFT JOIN image_uses ON image_uses.image_id = other.id \
     WHERE other.id <> images.id AND max(other.pulled_at, coalesce(used_at, 0)) >= images.pulled_at)";

impl State {
    /// Stores an image and points its name at it, away from any other image. Survives a power cut.
    pub fn put_image(&mut self, image: &ImageRecord) -> Result<(), StateError> {
        self.put_image_with(image, |_, _| Ok(()))
    }

    /// The same, and `more` in the same transaction.
    pub(crate) fn put_image_with(
        &mut self,
        image: &ImageRecord,
        more: impl Fn(&Connection, &Path) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        const OP: &str = "store the image";
        let chain_ids = encode(OP, &image.chain_ids)?;
        let layer_digests = encode(OP, &image.layer_digests)?;
        self.write_revocably(OP, Sync::Full, |tx, path| {
            tx.execute(
                "INSERT INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(id) DO UPDATE SET \
                 manifest_digest = ?2, chain_ids = ?3, layer_digests = ?4, size = ?5, created = ?6, pulled_at = ?7",
                params![
                    text(&image.config_digest),
                    text(&image.manifest_digest),
                    chain_ids,
                    layer_digests,
                    i64::try_from(image.size).unwrap_or(i64::MAX),
                    image.created,
                    image.pulled_at
                ],
            )
            .map_err(|e| translate(OP, path, e))?;
            if let Some(name) = &image.name {
                put_name(tx, path, name, &image.config_digest, &image.manifest_digest)?;
            }
            more(tx, path)
        })
    }

    /// Notes that an image was pulled once more and found unchanged. A power cut may undo it. Nothing is written where that
    /// would change neither which image was used last nor, by an hour, when.
    pub fn pulled_again(&mut self, id: &Digest, pulled_at: i64) -> Result<(), StateError> {
        const OP: &str = "note the pull";
        if self.was_used_last(id, pulled_at.saturating_sub(HOUR))? {
            return Ok(());
        }
        self.write(OP, Sync::Normal, |tx, path| {
            tx.execute("UPDATE images SET pulled_at = ?2 WHERE id = ?1", params![text(id), pulled_at])
                .map(|_| ())
                .map_err(|e| translate(OP, path, e))
        })
    }

    /// Points another name at an image that is stored (`tag`). Survives a power cut.
    pub fn put_name(&mut self, name: &ImageReference, source: &ImageRecord) -> Result<(), StateError> {
        let id = source.config_digest.clone();
        self.write("tag the image", Sync::Full, |tx, path| {
            require_image(tx, path, &id)?;
            put_name(tx, path, name, &id, &source.manifest_digest)
        })
    }

    /// The image that a name points to.
    pub fn image_by_name(&self, name: &ImageReference) -> Result<Option<ImageRecord>, StateError> {
        let sql =
            format!("SELECT {COLUMNS} FROM names JOIN images ON images.id = names.image_id WHERE names.name = ?1");
        Ok(self.images(&sql, &[&name_text(name)])?.pop())
    }

    /// Images whose id begins with `prefix` (with or without `sha256:`), one record per name.
    /// Anything but hexadecimal digits matches nothing.
    pub fn images_by_id_prefix(&self, prefix: &str) -> Result<Vec<ImageRecord>, StateError> {
        let hex = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM images LEFT JOIN names ON names.image_id = images.id \
             WHERE images.id >= ?1 AND images.id < ?1 || 'g' ORDER BY images.id, names.name"
        );
        self.images(&sql, &[&format!("sha256:{hex}")])
    }

    /// Every image under every name, newest first.
    pub fn list_images(&self) -> Result<Vec<ImageRecord>, StateError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM images LEFT JOIN names ON names.image_id = images.id \
             ORDER BY images.created DESC, images.id, names.name"
        );
        self.images(&sql, &[])
    }

    /// Takes a name away. With its last name goes the image, unless a container refers to it: then it
    /// stays as `<none>`.
    pub fn remove_name(&mut self, name: &ImageReference) -> Result<RemovedImage, StateError> {
        const OP: &str = "remove the image name";
        // Durable before the files go: a power cut must not leave an image without its layers.
        self.write(OP, Sync::Full, |tx, path| {
            let fail = |e| translate(OP, path, e);
            let id: Option<String> = tx
                .query_row("DELETE FROM names WHERE name = ?1 RETURNING image_id", [name_text(name)], |r| r.get(0))
                .optional()
                .map_err(fail)?;
            let id = id.ok_or_else(|| StateError::ImageNotFound { reference: name_text(name) })?;
            let gone = tx
                .execute(
                    "DELETE FROM images WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM names WHERE image_id = ?1) \
                     AND NOT EXISTS (SELECT 1 FROM containers WHERE image_id = ?1)",
                    [&id],
                )
                .map_err(fail)?;
            let deleted = if gone > 0 { Some(digest(path, &id)?) } else { None };
            Ok(RemovedImage { untagged: vec![name.clone()], deleted })
        })
    }

    /// Takes a name away and leaves the image, even without a name (`untag`).
    ///
    /// # Errors
    /// There is no such name.
    pub fn take_name(&mut self, name: &ImageReference) -> Result<(), StateError> {
        const OP: &str = "untag the image";
        self.write(OP, Sync::Normal, |tx, path| {
            let gone = tx.execute("DELETE FROM names WHERE name = ?1", [name_text(name)]);
            match gone.map_err(|e| translate(OP, path, e))? {
                0 => Err(StateError::ImageNotFound { reference: name_text(name) }),
                _ => Ok(()),
            }
        })
    }

    /// Removes an image with all its names. Refuses while a container refers to it, unless `force`.
    pub fn remove_image(&mut self, id: &Digest, force: bool) -> Result<RemovedImage, StateError> {
        const OP: &str = "remove the image";
        // Durable before the files go: a power cut must not leave an image without its layers.
        self.write(OP, Sync::Full, |tx, path| {
            let fail = |e| translate(OP, path, e);
            require_image(tx, path, id)?;
            let user: Option<String> = tx
                .query_row("SELECT id FROM containers WHERE image_id = ?1 LIMIT 1", [text(id)], |r| r.get(0))
                .optional()
                .map_err(fail)?;
            match user {
                Some(container) if !force => return Err(StateError::ImageInUse { image: text(id), container }),
                _ => {}
            }
            let names: Vec<String> = tx
                .prepare("DELETE FROM names WHERE image_id = ?1 RETURNING name")
                .and_then(|mut s| s.query_map([text(id)], |r| r.get(0))?.collect())
                .map_err(fail)?;
            tx.execute("DELETE FROM images WHERE id = ?1", [text(id)]).map_err(fail)?;
            let untagged = names.iter().map(|n| reference(path, n)).collect::<Result<_, _>>()?;
            Ok(RemovedImage { untagged, deleted: Some(id.clone()) })
        })
    }

    /// The image that no container refers to and that was pulled, or whose last container was removed, before all
    /// others; never `keep`. An image with a name that was made here, or came from an archive, comes last of all: no pull brings it back.
    pub fn least_recently_used_image(&self, keep: &Digest) -> Result<Option<Digest>, StateError> {
        let found: Option<String> = self
            .conn()
            .query_row(
                "SELECT id FROM images LEFT JOIN image_uses ON image_uses.image_id = images.id \
                 WHERE id <> ?1 AND NOT EXISTS (SELECT 1 FROM containers WHERE containers.image_id = images.id) \
                 ORDER BY EXISTS (SELECT 1 FROM names WHERE names.image_id = images.id) \
                 AND NOT EXISTS (SELECT 1 FROM names JOIN pulls ON pulls.name = names.name WHERE names.image_id = images.id), \
                 max(pulled_at, coalesce(used_at, 0)), id LIMIT 1",
                [text(keep)],
                |row| row.get(0),
            )
            .optional()
            .map_err(|e| self.fail("read the images", e))?;
        found.map(|id| digest(self.path(), &id)).transpose()
    }

    /// An image that was pulled after `since`, and after all others were pulled and their last containers removed.
    fn was_used_last(&self, id: &Digest, since: i64) -> Result<bool, StateError> {
        let sql = format!("SELECT {USED_LAST} FROM images WHERE id = ?1");
        let found = self.conn().query_row(&sql, params![text(id), since], |row| row.get(0));
        Ok(found.optional().map_err(|e| self.fail("read the images", e))?.unwrap_or(false))
    }

    fn images(&self, sql: &str, args: &[&dyn rusqlite::ToSql]) -> Result<Vec<ImageRecord>, StateError> {
        let rows: Vec<ImageRow> = self
            .conn()
            .prepare_cached(sql)
            .and_then(|mut s| s.query_map(args, ImageRow::read)?.collect())
            .map_err(|e| self.fail("read the images", e))?;
        rows.into_iter().map(|row| row.parse(self.path())).collect()
    }
}

/// A row of [`COLUMNS`] as it is stored.
pub(crate) struct ImageRow {
    name: Option<String>,
    manifest: String,
    id: String,
    chain_ids: String,
    layer_digests: String,
    size: i64,
    created: i64,
    pulled_at: i64,
}

impl ImageRow {
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get(0)?,
            manifest: row.get(1)?,
            id: row.get(2)?,
            chain_ids: row.get(3)?,
            layer_digests: row.get(4)?,
            size: row.get(5)?,
            created: row.get(6)?,
            pulled_at: row.get(7)?,
        })
    }

    pub(crate) fn parse(self, path: &Path) -> Result<ImageRecord, StateError> {
        Ok(ImageRecord {
            name: self.name.map(|n| reference(path, &n)).transpose()?,
            manifest_digest: digest(path, &self.manifest)?,
            config_digest: digest(path, &self.id)?,
            chain_ids: decode(path, "images", &self.chain_ids)?,
            layer_digests: decode(path, "images", &self.layer_digests)?,
            size: self.size.max(0) as u64,
            created: self.created,
            pulled_at: self.pulled_at,
        })
    }
}

fn put_name(
    tx: &Connection,
    path: &Path,
    name: &ImageReference,
    id: &Digest,
    manifest: &Digest,
) -> Result<(), StateError> {
    tx.execute(
        "INSERT INTO names VALUES (?1, ?2, ?3) ON CONFLICT(name) DO UPDATE SET image_id = ?2, manifest_digest = ?3",
        [name_text(name), text(id), text(manifest)],
    )
    .map(|_| ())
    .map_err(|e| translate("name the image", path, e))
}

/// Refuses when the image is not stored (a removal may have won a race).
pub(crate) fn require_image(tx: &Connection, path: &Path, id: &Digest) -> Result<(), StateError> {
    let found: bool = tx
        .query_row("SELECT EXISTS (SELECT 1 FROM images WHERE id = ?1)", [text(id)], |r| r.get(0))
        .map_err(|e| translate("look the image up", path, e))?;
    if found { Ok(()) } else { Err(StateError::ImageNotFound { reference: text(id) }) }
}

/// A digest as it is stored.
pub(crate) fn text(digest: &Digest) -> String {
    String::from(digest.clone())
}

pub(crate) fn name_text(name: &ImageReference) -> String {
    String::from(name.clone())
}

/// A stored digest, parsed again: a row is input like any other.
pub(crate) fn digest(path: &Path, text: &str) -> Result<Digest, StateError> {
    Digest::try_from(text.to_owned()).map_err(|e| StateError::Damaged { path: path.to_owned(), detail: e.to_string() })
}

fn reference(path: &Path, text: &str) -> Result<ImageReference, StateError> {
    ImageReference::try_from(text.to_owned())
        .map_err(|e| StateError::Damaged { path: path.to_owned(), detail: e.to_string() })
}

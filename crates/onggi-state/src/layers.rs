//! Unpacked layers, and which layers and blobs nothing refers to any more.
//!
//! A pull stores layers before the image that refers to them: whoever deletes what the functions here
//! call unreferenced must hold the store lock exclusively, pulls and runs hold it shared
//! ([`crate::files::Lock`]).

use std::{collections::HashSet, path::Path};

use onggi_spec::Digest;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::{
    State, StateError,
    db::{Sync, translate},
    images::{digest, text},
};

/// One unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// ChainID (image-spec, "Layer ChainID"): names the directory below `layers/`.
    pub chain_id: Digest,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// ChainID of the layer below.
    pub parent: Option<Digest>,
    /// Bytes on disk.
    pub size: u64,
}

/// Layers used by images or containers, as a subquery.
const USED_LAYERS: &str = "SELECT value FROM images, json_each(images.chain_ids) \
     UNION SELECT value FROM containers, json_each(containers.record, '$.chain_ids')";

impl State {
    /// Records an unpacked layer; the same again is no error. Call it before or after its rename: an
    /// image that refers to it is stored later, in a commit that survives a power cut.
    pub fn put_layer(&mut self, layer: &LayerRecord) -> Result<(), StateError> {
        const OP: &str = "store the layer";
        self.write(OP, Sync::Normal, |tx, path| {
            tx.execute(
                "INSERT OR REPLACE INTO layers VALUES (?1, ?2, ?3, ?4)",
                params![
                    text(&layer.chain_id),
                    text(&layer.diff_id),
                    layer.parent.as_ref().map(text),
                    i64::try_from(layer.size).unwrap_or(i64::MAX)
                ],
            )
            .map(|_| ())
            .map_err(|e| translate(OP, path, e))
        })
    }

    /// The layer with this ChainID.
    pub fn layer(&self, chain_id: &Digest) -> Result<Option<LayerRecord>, StateError> {
        Ok(self.layers("SELECT * FROM layers WHERE chain_id = ?1", &[&text(chain_id)])?.pop())
    }

    /// Every layer.
    pub fn list_layers(&self) -> Result<Vec<LayerRecord>, StateError> {
        self.layers("SELECT * FROM layers ORDER BY chain_id", &[])
    }

    /// Layers that neither an image nor a container uses.
    pub fn unreferenced_layers(&self) -> Result<Vec<LayerRecord>, StateError> {
        self.layers(&format!("SELECT * FROM layers WHERE chain_id NOT IN ({USED_LAYERS}) ORDER BY chain_id"), &[])
    }

    /// ChainIDs that images and containers refer to, recorded or not.
    pub fn used_layers(&self) -> Result<Vec<Digest>, StateError> {
        let found: Vec<String> = self
            .conn()
            .prepare(&format!("SELECT value FROM ({USED_LAYERS}) ORDER BY value"))
            .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
            .map_err(|e| self.fail("read the layers", e))?;
        found.iter().map(|text| digest(self.path(), text)).collect()
    }

    /// Forgets a layer unless something uses it by now; true when it is forgotten (or was unknown).
    /// Remove the directory afterwards.
    pub fn remove_layer(&mut self, chain_id: &Digest) -> Result<bool, StateError> {
        const OP: &str = "remove the layer";
        self.write(OP, Sync::Normal, |tx, path| {
            let fail = |e| translate(OP, path, e);
            tx.execute(
                &format!("DELETE FROM layers WHERE chain_id = ?1 AND ?1 NOT IN ({USED_LAYERS})"),
                [text(chain_id)],
            )
            .map_err(fail)?;
            tx.query_row("SELECT NOT EXISTS (SELECT 1 FROM layers WHERE chain_id = ?1)", [text(chain_id)], |r| r.get(0))
                .map_err(fail)
        })
    }

    /// Those of `on_disk` (all blobs of the store) that no image's manifest, configuration or layers are.
    pub fn unreferenced_blobs(&self, on_disk: &[Digest]) -> Result<Vec<Digest>, StateError> {
        let used: HashSet<String> = self
            .conn()
            .prepare(
                "SELECT id FROM images UNION SELECT manifest_digest FROM images \
                 UNION SELECT manifest_digest FROM names \
                 UNION SELECT value FROM images, json_each(images.layer_digests) \
                 UNION SELECT image_id FROM containers WHERE image_id IS NOT NULL",
            )
            .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
            .map_err(|e| self.fail("read the images", e))?;
        Ok(on_disk.iter().filter(|d| !used.contains(&text(d))).cloned().collect())
    }

    fn layers(&self, sql: &str, args: &[&dyn rusqlite::ToSql]) -> Result<Vec<LayerRecord>, StateError> {
        let rows: Vec<LayerRow> = self
            .conn()
            .prepare_cached(sql)
            .and_then(|mut s| s.query_map(args, read)?.collect())
            .map_err(|e| self.fail("read the layers", e))?;
        rows.into_iter().map(|row| parse(self.path(), row)).collect()
    }
}

type LayerRow = (String, String, Option<String>, i64);

fn read(row: &Row<'_>) -> rusqlite::Result<LayerRow> {
    Ok((row.get("chain_id")?, row.get("diff_id")?, row.get("parent")?, row.get("size")?))
}

fn parse(path: &Path, (chain_id, diff_id, parent, size): LayerRow) -> Result<LayerRecord, StateError> {
    Ok(LayerRecord {
        chain_id: digest(path, &chain_id)?,
        diff_id: digest(path, &diff_id)?,
        parent: parent.map(|p| digest(path, &p)).transpose()?,
        size: size.max(0) as u64,
    })
}

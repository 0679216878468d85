//! Containers: one row each, the record as JSON beside the columns that are searched.

use std::{collections::HashMap, path::Path};

use onggi_spec::{ContainerId, ContainerName, ContainerRequest, Digest};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::{
    State, StateError,
    db::{Sync, decode, encode, translate},
    images::{require_image, text},
};

/// What is remembered of a container. Whether it runs, its address and how it ended are not here: they
/// are asked of the kernel and of the files that monitor and network keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Id.
    pub id: ContainerId,
    /// Name, unique in the store.
    pub name: ContainerName,
    /// Unix time in nanoseconds.
    pub created_at: i64,
    /// What the user asked for; `start` builds from it again.
    pub request: ContainerRequest,
    /// Id of the image; `None` for `rootfs:` and `host:`.
    pub image_id: Option<Digest>,
    /// The image as the user wrote it.
    pub image_name: String,
    /// ChainIDs of the layers below its upper directory, lowest first.
    pub chain_ids: Vec<Digest>,
    /// Effective command: entrypoint and arguments.
    pub command: Vec<String>,
}

impl State {
    /// Stores a new container and so reserves its name; its image must be stored.
    ///
    /// # Errors
    /// [`StateError::NameTaken`], [`StateError::IdTaken`], [`StateError::ImageNotFound`].
    pub fn insert_container(&mut self, c: &ContainerRecord) -> Result<(), StateError> {
        const OP: &str = "store the container";
        let json = encode(OP, c)?;
        self.write_revocably(OP, Sync::Normal, |tx, path| {
            if let Some(image) = &c.image_id {
                require_image(tx, path, image)?;
            }
            tx.execute(
                "INSERT INTO containers VALUES (?1, ?2, ?3, ?4, ?5)",
                params![c.id.as_str(), c.name.as_str(), c.image_id.as_ref().map(text), c.created_at, json],
            )
            .map(|_| ())
            .map_err(|e| taken(tx, path, c, OP, e))
        })
    }

    /// Replaces the whole record; the name may change too. Prefer [`State::modify_container`] where
    /// another process may write the same container.
    pub fn update_container(&mut self, c: &ContainerRecord) -> Result<(), StateError> {
        self.write("update the container", Sync::Normal, |tx, path| update(tx, path, c))
    }

    /// Reads, changes and writes one record in one transaction, and returns what was written. `change` may
    /// be called again, with the record as it is stored, when the first try found the disk full.
    pub fn modify_container(
        &mut self,
        id: &ContainerId,
        mut change: impl FnMut(&mut ContainerRecord),
    ) -> Result<ContainerRecord, StateError> {
        self.write("update the container", Sync::Normal, |tx, path| {
            let found = select(tx, path, "SELECT record FROM containers WHERE id = ?1", id.as_str())?.pop();
            let mut record = found.ok_or_else(|| not_found(id.as_str()))?;
            change(&mut record);
            update(tx, path, &record)?;
            Ok(record)
        })
    }

    /// Gives a container another name and returns the changed record.
    pub fn rename_container(&mut self, id: &ContainerId, name: &ContainerName) -> Result<ContainerRecord, StateError> {
        self.modify_container(id, |c| c.name = name.clone())
    }

    /// The container meant by a full id, a name or a unique beginning of an id, tried in that order.
    ///
    /// # Errors
    /// [`StateError::ContainerNotFound`], [`StateError::Ambiguous`].
    pub fn container(&self, reference: &str) -> Result<ContainerRecord, StateError> {
        // Docker's names begin with a slash, and so does what `inspect` prints.
        let reference = reference.strip_prefix('/').unwrap_or(reference);
        let select = |sql| select(self.conn(), self.path(), sql, reference);
        let exact = select("SELECT record FROM containers WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC")?;
        if let Some(record) = exact.into_iter().next() {
            return Ok(record);
        }
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if reference.is_empty() || !reference.bytes().all(hex) {
            return Err(not_found(reference));
        }
        let mut found = select("SELECT record FROM containers WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2")?;
        match (found.pop(), found.pop()) {
            (Some(record), None) => Ok(record),
            (Some(_), Some(_)) => Err(StateError::Ambiguous { reference: cut(reference) }),
            (None, _) => Err(not_found(reference)),
        }
    }

    /// The container with exactly this id, if there is one.
    pub fn container_by_id(&self, id: &ContainerId) -> Result<Option<ContainerRecord>, StateError> {
        Ok(select(self.conn(), self.path(), "SELECT record FROM containers WHERE id = ?1", id.as_str())?.pop())
    }

    /// Every container, newest first.
    pub fn list_containers(&self) -> Result<Vec<ContainerRecord>, StateError> {
        // The parameter keeps one helper for all queries; it is not used by this one.
        select(self.conn(), self.path(), "SELECT record FROM containers WHERE ?1 = '' ORDER BY created_at DESC, id", "")
    }

    /// Containers made from an image.
    pub fn containers_of_image(&self, image: &Digest) -> Result<Vec<ContainerRecord>, StateError> {
        select(self.conn(), self.path(), "SELECT record FROM containers WHERE image_id = ?1 ORDER BY id", &text(image))
    }

    /// How many containers each image has that has any, by the image's id.
    pub fn containers_per_image(&self) -> Result<HashMap<String, u32>, StateError> {
        const SQL: &str = "SELECT image_id, count(*) FROM containers WHERE image_id IS NOT NULL GROUP BY image_id";
        self.conn()
            .prepare(SQL)
            .and_then(|mut s| s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
            .map_err(|e| self.fail("count the containers", e))
    }

    /// Forgets a container; true when there was one.
    pub fn delete_container(&mut self, id: &ContainerId) -> Result<bool, StateError> {
        const OP: &str = "remove the container";
        self.write(OP, Sync::Normal, |tx, path| {
            // An image counts as used until its last container is gone.
            tx.execute(
                "INSERT OR REPLACE INTO image_uses SELECT image_id, unixepoch() * 1000000000 \
                 FROM containers WHERE id = ?1 AND image_id IS NOT NULL",
                [id.as_str()],
            )
            .map_err(|e| translate(OP, path, e))?;
            tx.execute("DELETE FROM containers WHERE id = ?1", [id.as_str()])
                .map(|n| n > 0)
                .map_err(|e| translate(OP, path, e))
        })
    }
}

fn update(tx: &Connection, path: &Path, c: &ContainerRecord) -> Result<(), StateError> {
    const OP: &str = "update the container";
    let json = encode(OP, c)?;
    let changed = tx
        .execute(
            "UPDATE containers SET name = ?2, image_id = ?3, created_at = ?4, record = ?5 WHERE id = ?1",
            params![c.id.as_str(), c.name.as_str(), c.image_id.as_ref().map(text), c.created_at, json],
        )
        .map_err(|e| taken(tx, path, c, OP, e))?;
    if changed == 0 { Err(not_found(c.id.as_str())) } else { Ok(()) }
}

/// Which uniqueness a failed write violated.
fn taken(tx: &Connection, path: &Path, c: &ContainerRecord, op: &'static str, e: rusqlite::Error) -> StateError {
    if e.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
        return translate(op, path, e);
    }
    let by: rusqlite::Result<Option<String>> = tx
        .query_row("SELECT id FROM containers WHERE name = ?1 AND id != ?2", [c.name.as_str(), c.id.as_str()], |r| {
            r.get(0)
        })
        .optional();
    match by {
        Ok(Some(by)) => StateError::NameTaken { name: c.name.to_string(), by },
        Ok(None) => StateError::IdTaken { id: c.id.to_string() },
        Err(e) => translate(op, path, e),
    }
}

fn select(conn: &Connection, path: &Path, sql: &str, arg: &str) -> Result<Vec<ContainerRecord>, StateError> {
    let rows: Vec<String> = conn
        .prepare_cached(sql)
        .and_then(|mut s| s.query_map([arg], |r| r.get(0))?.collect())
        .map_err(|e| translate("read the containers", path, e))?;
    rows.iter().map(|row| decode(path, "containers", row)).collect()
}

fn not_found(reference: &str) -> StateError {
    StateError::ContainerNotFound { reference: cut(reference) }
}

/// Hostile arguments must not flood the terminal.
fn cut(reference: &str) -> String {
    reference.chars().take(128).collect()
}

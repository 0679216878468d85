//! Blobs of one image that are made here, on the disk together: one flush for all contents, then the names, then one flush
//! of the names. A name appears after its content is on the disk, as with every blob; without the batch each blob would pay for both.

use std::fs;

use onggi_spec::Digest;

use super::{BlobStore, StoreError, VerifiedBlob, digest_of};

/// Blobs that are written and have no names yet. Dropped without [`commit`](Self::commit), it leaves nothing behind.
#[derive(Debug)]
pub struct Batch {
    store: BlobStore,
    blobs: Vec<VerifiedBlob>,
}

impl BlobStore {
    /// Begins with none.
    pub fn batch(&self) -> Batch {
        Batch { store: self.clone(), blobs: Vec::new() }
    }
}

impl Batch {
    /// Adds a blob that has been written.
    pub fn add(&mut self, blob: VerifiedBlob) {
        self.blobs.push(blob);
    }

    /// Adds a small document, unless it is stored; returns its digest.
    ///
    /// # Errors
    /// The disk failed.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = digest_of(bytes);
        let target = self.store.path(&digest);
        // Its lock is ours until the end: a second writer of the same bytes would wait for itself.
        let pending = self.blobs.iter().any(|blob| blob.target == target);
        if !pending && self.store.read_small(&digest, bytes.len() as u64)?.is_none() {
            let mut writer = self.store.begin_anew(&digest)?;
            writer.write(bytes)?;
            self.blobs.push(writer.verified());
        }
        Ok(digest)
    }

    /// Gives all of them their names. Durable when this returns.
    ///
    /// # Errors
    /// The disk failed; none or some of them have their names.
    pub fn commit(self) -> Result<(), StoreError> {
        let Some(first) = self.blobs.first() else { return Ok(()) };
        // Through the descriptor that is open the longest: it is told of every error of the filesystem since then.
        rustix::fs::syncfs(&first.file).map_err(|e| first.part.error("flush the filesystem of", e.into()))?;
        for mut blob in self.blobs {
            let part = std::mem::take(&mut blob.part.path);
            fs::rename(&part, &blob.target).map_err(|source| StoreError { operation: "rename", path: part, source })?;
        }
        self.store.sync_names()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn blobs_of_a_batch_get_their_names_together_and_dropped_ones_never() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let mut scratch = store.scratch().unwrap();
        scratch.write_all(b"layer").unwrap();
        let (layer, size, blob) = scratch.verified();
        let mut batch = store.batch();
        batch.add(blob.unwrap());
        let config = batch.put_bytes(b"config").unwrap();
        assert_eq!(batch.put_bytes(b"config").unwrap(), config, "the same bytes twice are one blob");
        assert!(!store.has(&layer, None) && !store.has(&config, None));
        batch.commit().unwrap();
        assert!(store.has(&layer, Some(size)) && store.has(&config, Some(6)));
        let mut dropped = store.batch();
        let digest = dropped.put_bytes(b"dropped").unwrap();
        drop(dropped);
        assert!(!store.has(&digest, None));
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        store.batch().commit().unwrap();
    }
}

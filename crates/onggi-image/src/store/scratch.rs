//! A blob whose digest is only known when it is complete: what is made here instead of fetched.
//!
//! `<root>/tmp/blob-new-<random>.part`, flocked by its writer like every other part; renamed to its digest at the end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
};

use onggi_spec::Digest;
use sha2::{Digest as _, Sha256};

use super::{BlobStore, PartFile, StoreError, StoreHold, VerifiedBlob};

/// A blob being made. Dropped without [`finish`](Self::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct Scratch {
    part: PartFile,
    file: File,
    store: BlobStore,
    hasher: Sha256,
    written: u64,
}

impl BlobStore {
    /// Begins a blob whose digest is not known yet.
    ///
    /// # Errors
    /// The disk failed.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let mut random = [0_u8; 16];
        let path = self.root.join("tmp");
        let failed = |operation| {
            let path = path.clone();
            move |source: io::Error| StoreError { operation, path, source }
        };
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| failed("name a file in")(e.into()))?;
        let name: String = random.iter().map(|b| format!("{b:02x}")).collect();
        let part = path.join(format!("blob-new-{name}.part"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&part);
        let file = file.map_err(|source| StoreError { operation: "create", path: part.clone(), source })?;
        let part = PartFile { path: part, keep: false };
        file.lock().map_err(|source| part.error("lock", source))?;
        Ok(Scratch { part, file, store: self.clone(), hasher: Sha256::new(), written: 0 })
    }

    /// Keeps every blob in place, and no other process hands out layers on the base layer `base` meanwhile: for those
    /// who lock several layers at once without a fetch.
    ///
    /// # Errors
    /// A lock file cannot be opened, or this thread has that turn already.
    pub fn hold_base(&self, base: Option<&Digest>) -> Result<StoreHold, StoreError> {
        let hold = self.hold()?;
        let turn = base.map(|digest| self.turn(digest, || {})).transpose()?;
        Ok(hold.with_turn(turn))
    }
}

impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Scratch {
    /// It is complete: its digest and length, and what is yet to be committed, unless the same blob is stored.
    pub fn verified(mut self) -> (Digest, u64, Option<VerifiedBlob>) {
        let digest = Digest::from_sha256(&std::mem::take(&mut self.hasher).finalize().into());
        if self.store.has(&digest, Some(self.written)) {
            return (digest, self.written, None);
        }
        let target = self.store.path(&digest);
        (digest, self.written, Some(VerifiedBlob { part: self.part, file: self.file, target }))
    }

    /// Makes it a blob; returns its digest and length. Durable when this returns.
    ///
    /// # Errors
    /// The disk failed.
    pub fn finish(self) -> Result<(Digest, u64), StoreError> {
        let (digest, written, blob) = self.verified();
        blob.map_or(Ok(()), VerifiedBlob::commit)?;
        Ok((digest, written))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::digest_of;

    #[test]
    fn a_blob_is_named_when_it_is_complete_and_a_dropped_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let mut scratch = store.scratch().unwrap();
        scratch.write_all(b"hello").unwrap();
        assert_eq!(scratch.finish().unwrap(), (digest_of(b"hello"), 5));
        assert!(store.has(&digest_of(b"hello"), Some(5)));
        let mut dropped = store.scratch().unwrap();
        dropped.write_all(b"x").unwrap();
        drop(dropped);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }
}

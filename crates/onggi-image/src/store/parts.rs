//! What is not a blob yet or never will be: left-overs of broken downloads, nameless files, lists beside the blobs,
//! what somebody else has put there.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::PathBuf,
    time::Duration,
};

use onggi_spec::Digest;
use rustix::fs::{Mode, OFlags};

use super::{BlobStore, BlobWriter, digest_of};
use crate::error::{ImageError, StoreError};

impl BlobStore {
    /// Removes what broken downloads left that nobody has touched for so long. Those that somebody writes are locked
    /// and stay. Returns how many bytes that freed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn remove_parts(&self, older_than: Duration) -> Result<u64, StoreError> {
        let dir = self.root.join("tmp");
        let fail = |source| StoreError { operation: "list", path: dir.clone(), source };
        let mut freed = 0;
        for entry in fs::read_dir(&dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with("blob-") || !name.ends_with(".part") {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            let Ok(meta) = file.metadata() else { continue };
            let old = meta.modified().is_ok_and(|m| m.elapsed().is_ok_and(|age| age >= older_than));
            if old && file.try_lock().is_ok() && fs::remove_file(&path).is_ok() {
                freed += meta.len();
            }
        }
        Ok(freed)
    }

    /// A verified document of `size` bytes that several pulls may want at once: the first one fetches it, the others wait and find it in
    /// `tmp/`, where it stays until a pull that has stored it, or was refused, removes it ([`Self::remove_part`]).
    ///
    /// # Errors
    /// It cannot be fetched, or the disk failed.
    pub(crate) fn fetched_once(
        &self,
        digest: &Digest,
        size: u64,
        fetch: impl FnOnce() -> Result<Vec<u8>, ImageError>,
    ) -> Result<Vec<u8>, ImageError> {
        let mut writer = loop {
            if let Some(writer) = self.lock_part(digest, Some(size), &|| ())? {
                break writer;
            }
        };
        // The one that held the lock before may have come to its end.
        if let Some(bytes) = self.read_small(digest, size)? {
            return Ok(bytes);
        }
        let bytes = match writer.content(size)?.filter(|bytes| digest_of(bytes) == *digest) {
            Some(bytes) => bytes,
            None => {
                writer.restart()?;
                let bytes = fetch()?;
                writer.write(&bytes)?;
                bytes
            }
        };
        writer.part.path.clear();
        Ok(bytes)
    }

    /// Removes what a broken download of this blob left, unless somebody writes it.
    pub(crate) fn remove_part(&self, digest: &Digest) {
        let path = self.root.join("tmp").join(format!("blob-{}.part", digest.hex()));
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            // Gone already is as good, and a clean-up takes what stays.
            let _ = fs::remove_file(&path);
        }
    }

    /// A file without a name on the store's filesystem; a crash leaves nothing of it.
    pub(crate) fn nameless(&self) -> Result<File, StoreError> {
        let dir = self.root.join("tmp");
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let made = rustix::fs::open(&dir, flags, Mode::RUSR | Mode::WUSR);
        let fail =
            |e: rustix::io::Errno| StoreError { operation: "make a temporary file in", path: dir, source: e.into() };
        Ok(made.map_err(fail)?.into())
    }

    /// What lies among the blobs and is none: no file, or a file that is not named by a digest.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn strangers(&self) -> Result<Vec<PathBuf>, StoreError> {
        let dir = self.blob_dir();
        let fail = |source| StoreError { operation: "list", path: self.blob_dir(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let named = format!("sha256:{}", entry.file_name().to_string_lossy()).parse::<Digest>().is_ok();
            if !named || entry.file_type().is_ok_and(|kind| !kind.is_file()) {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    /// Where lists of referrers are.
    pub(crate) fn referrers_dir(&self) -> PathBuf {
        self.root.join("blobs/referrers")
    }
}

impl BlobWriter {
    /// What an earlier writer left, when it is so long.
    fn content(&mut self, size: u64) -> Result<Option<Vec<u8>>, StoreError> {
        if self.written != size {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read = io::Seek::rewind(&mut self.file).and_then(|()| self.file.read_to_end(&mut bytes));
        read.map_err(|source| self.part.error("read", source))?;
        Ok(Some(bytes))
    }
}

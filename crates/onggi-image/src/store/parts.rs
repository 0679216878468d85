//! What is not a blob yet or never will be: left-overs of broken downloads, nameless files, lists beside the blobs,
//! what somebody else has put there.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::Duration,
};

use onggi_spec::Digest;
use rustix::fs::{Mode, OFlags};

use super::BlobStore;
use crate::error::StoreError;

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

//! The content store: verified blobs under the digest of their bytes.
//!
//! ```text
//! <root>/blobs/sha256/<hex>     verified content, 0600; appears by rename, never changes
//! <root>/blobs/lock             flock: shared while a pull relies on blobs, exclusive while some are deleted
//! <root>/blobs/turn-<xx>        flock: one pull at a time of images on one base layer (xx: first digits of its diff id)
//! <root>/tmp/blob-<hex>.part    a download; flocked by its writer. A broken one stays, unlocked: the next pull goes
//!                               on from there, hashing what is here again; a clean-up takes old ones
//! ```
//!
//! Two processes that want one blob meet at the flock on its `.part` file: the second waits and then finds the
//! blob. Content is flushed to disk before the rename, so that a power cut leaves the old state or the whole
//! blob. This module never trusts a length or a digest that it did not count itself.

mod batch;
mod parts;
mod scratch;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread::{self, ThreadId},
};

use onggi_spec::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::StoreError;
pub use batch::Batch;
pub use scratch::Scratch;

/// Bytes moved at once between socket, hash and file: large enough that system calls do not count.
pub(crate) const COPY_BUFFER: usize = 1 << 20;

/// Most documents are smaller.
const SMALL: usize = 8 << 10;
/// For open(2): whatever is there, nobody is waited for.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// The store of verified content below one data root. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobStore {
    root: PathBuf,
}

/// While this lives, no process deletes blobs from the store. After a fetch, no other process hands out layers on
/// the same base layer either.
#[derive(Debug)]
pub struct StoreHold {
    /// None where nobody can delete anything.
    _lock: Option<File>,
    _turn: Option<Turn>,
}

/// The turn of one base layer; see [`BlobStore::turn`].
#[derive(Debug)]
pub(crate) struct Turn {
    path: PathBuf,
    _lock: File,
}

/// Turns of this process and the threads that took them: one that takes a turn twice would wait for itself.
static TURNS: Mutex<Vec<(PathBuf, ThreadId)>> = Mutex::new(Vec::new());

impl Drop for Turn {
    fn drop(&mut self) {
        TURNS.lock().unwrap_or_else(PoisonError::into_inner).retain(|(path, _)| *path != self.path);
    }
}

impl StoreHold {
    pub(crate) fn with_turn(self, turn: Option<Turn>) -> Self {
        Self { _turn: turn, ..self }
    }
}

/// What became of a blob that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Deleted,
    /// It was not there.
    Absent,
    /// A pull is under way that may rely on it; a later clean-up can take it.
    Busy,
}

/// The answer to [`BlobStore::begin`].
#[derive(Debug)]
pub enum Begin {
    /// The blob is there; opened for reading.
    Exists(File),
    /// The caller is the only writer of it.
    Mine(BlobWriter),
}

/// Why a finished download was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The content has another digest.
    #[error("expected {expected}, got {actual}")]
    WrongDigest {
        /// The digest asked for.
        expected: Digest,
        /// The digest of the bytes written.
        actual: Digest,
    },
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BlobStore {
    /// Opens the store below `root`, creating its directories (0700; the root itself 0711 for root).
    ///
    /// # Errors
    /// A directory cannot be created.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root_mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        make_dir(root, root_mode)?;
        let store = Self { root: root.to_owned() };
        make_dir(&store.blob_dir(), 0o700)?;
        make_dir(&root.join("tmp"), 0o700)?;
        Ok(store)
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blob_dir().join(digest.hex())
    }

    /// True when the blob is stored; with `size`, only when it also has that many bytes.
    pub fn has(&self, digest: &Digest, size: Option<u64>) -> bool {
        fs::symlink_metadata(self.path(digest)).is_ok_and(|m| m.is_file() && size.is_none_or(|s| m.len() == s))
    }

    /// Opens a blob for reading; `None` when it is not stored, or something else than a file is in its place.
    ///
    /// # Errors
    /// It exists but cannot be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let path = self.path(digest);
        // A FIFO is not waited for.
        match OpenOptions::new().read(true).custom_flags(NONBLOCK).open(&path) {
            Ok(file) if file.metadata().is_ok_and(|found| found.is_file()) => Ok(Some(file)),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError { operation: "open", path, source }),
        }
    }

    /// Reads a small blob and verifies it again; `None` when it is absent, too large or damaged, so that the
    /// caller fetches it anew.
    ///
    /// # Errors
    /// It exists but cannot be read.
    pub fn read_small(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.open_blob(digest)? else { return Ok(None) };
        // Most documents are read by one call, and another sees their end.
        let mut bytes = Vec::with_capacity(SMALL);
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|source| StoreError {
            operation: "read",
            path: self.path(digest),
            source,
        })?;
        Ok((bytes.len() as u64 <= limit && digest_of(&bytes) == *digest).then_some(bytes))
    }

    /// Stores a small document under its own digest, which is returned. Durable when this returns.
    ///
    /// # Errors
    /// The disk failed.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = digest_of(bytes);
        self.put_known(&digest, bytes)?;
        self.sync_names()?;
        Ok(digest)
    }

    /// Stores bytes whose digest was computed before; the name is durable after `sync_names`.
    pub(crate) fn put_known(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.read_small(digest, bytes.len() as u64)?.is_some() {
            return Ok(());
        }
        let mut writer = self.begin_anew(digest)?;
        writer.write(bytes)?;
        writer.verified().commit_content()
    }

    /// Streams content into the store and accepts it only if it has this digest. Durable when this returns.
    ///
    /// # Errors
    /// Reading or writing failed, or the digest is another one.
    pub fn put_verified(&self, digest: &Digest, mut content: impl Read) -> Result<(), FinishError> {
        let Begin::Mine(mut writer) = self.begin(digest, None)? else { return Ok(()) };
        let mut buffer = vec![0; COPY_BUFFER];
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(StoreError { operation: "read content for", path: self.path(digest), source }.into());
                }
            };
            writer.write(&buffer[..n])?;
        }
        Ok(writer.finish()?.commit()?)
    }

    /// Becomes the one writer of a blob, or finds it present. Waits while another process downloads it.
    /// With `size`, a stored blob of another length counts as damaged and is written anew.
    ///
    /// # Errors
    /// The disk failed.
    pub fn begin(&self, digest: &Digest, size: Option<u64>) -> Result<Begin, StoreError> {
        let usable = || if self.has(digest, size) { self.open_blob(digest) } else { Ok(None) };
        loop {
            if let Some(file) = usable()? {
                return Ok(Begin::Exists(file));
            }
            let Some(writer) = self.lock_part(digest, None, &|| ())? else { continue };
            // The one that held the lock before may have finished the blob.
            if let Some(file) = usable()? {
                return Ok(Begin::Exists(file));
            }
            return Ok(Begin::Mine(writer));
        }
    }

    /// Like [`begin`](Self::begin) for a download of `size` bytes: goes on where an earlier one broke off, what is here
    /// being hashed again, and keeps what arrives when it breaks off too. `waiting` is called when another process
    /// has the blob.
    ///
    /// # Errors
    /// The disk failed.
    pub fn begin_download(&self, digest: &Digest, size: u64, waiting: &dyn Fn()) -> Result<Begin, StoreError> {
        let usable = || if self.has(digest, Some(size)) { self.open_blob(digest) } else { Ok(None) };
        loop {
            if let Some(file) = usable()? {
                return Ok(Begin::Exists(file));
            }
            let Some(mut writer) = self.lock_part(digest, Some(size), waiting)? else { continue };
            writer.part.keep = true;
            if let Some(file) = usable()? {
                writer.part.keep = false;
                return Ok(Begin::Exists(file));
            }
            return Ok(Begin::Mine(writer));
        }
    }

    /// Removes a blob, unless a pull is under way.
    ///
    /// # Errors
    /// The disk failed.
    pub fn delete(&self, digest: &Digest) -> Result<Deletion, StoreError> {
        let Some(_exclusive) = self.try_exclusive()? else { return Ok(Deletion::Busy) };
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(Deletion::Deleted),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Deletion::Absent),
            Err(source) => Err(StoreError { operation: "remove", path, source }),
        }
    }

    /// Every stored blob with its size in bytes, in no particular order. Foreign files are passed over.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let dir = self.blob_dir();
        let fail = |source| StoreError { operation: "list", path: self.blob_dir(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Ok(digest) = format!("sha256:{}", entry.file_name().to_string_lossy()).parse() else { continue };
            match entry.metadata() {
                Ok(meta) if meta.is_file() => found.push((digest, meta.len())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(fail(source)),
            }
        }
        Ok(found)
    }

    /// Makes the names of all committed blobs durable.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sync_names(&self) -> Result<(), StoreError> {
        sync_dir(&self.blob_dir())
    }

    /// Keeps every blob in place until the hold is dropped: taken by a pull, kept until what was pulled is
    /// recorded. Waits for a deletion that is under way.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn hold(&self) -> Result<StoreHold, StoreError> {
        let (file, path) = match self.lock_file() {
            Ok(opened) => opened,
            Err(e) if e.source.kind() == io::ErrorKind::ReadOnlyFilesystem => match File::open(&e.path) {
                // Others may see the same files where they can be written.
                Ok(file) => (file, e.path),
                Err(_) => return Ok(StoreHold { _lock: None, _turn: None }),
            },
            Err(e) => return Err(e),
        };
        file.lock_shared().map_err(|source| StoreError { operation: "lock", path, source })?;
        Ok(StoreHold { _lock: Some(file), _turn: None })
    }

    /// Waits for the turn to hand out layers of images whose lowest layer is `base`. Receivers keep what they made
    /// of one layer locked while they wait for the next; without turns, two pulls of images that share layers
    /// would wait for each other. Images that share any ChainID share the lowest one, so one lock is enough, and
    /// with one lock per pull there is no cycle.
    pub(crate) fn turn(&self, base: &Digest, waiting: impl FnOnce()) -> Result<Turn, StoreError> {
        let path = self.root.join(format!("blobs/turn-{}", &base.hex()[..2]));
        let fail = |operation| {
            let path = path.clone();
            move |source| StoreError { operation, path, source }
        };
        let turns = || TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let me = (path.clone(), thread::current().id());
        if turns().contains(&me) {
            return Err(fail("lock a second time")(io::ErrorKind::Deadlock.into()));
        }
        let file = open_private(&path).map_err(fail("open"))?;
        lock_or_wait(&file, waiting).map_err(fail("lock"))?;
        turns().push(me);
        Ok(Turn { path, _lock: file })
    }

    /// `None` when a pull holds the store.
    fn try_exclusive(&self) -> Result<Option<StoreHold>, StoreError> {
        let (file, path) = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(StoreHold { _lock: Some(file), _turn: None })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StoreError { operation: "lock", path, source }),
        }
    }

    fn lock_file(&self) -> Result<(File, PathBuf), StoreError> {
        let path = self.root.join("blobs/lock");
        match open_private(&path) {
            Ok(file) => Ok((file, path)),
            Err(source) => Err(StoreError { operation: "open", path, source }),
        }
    }

    /// The directory of the blobs, for messages.
    pub(crate) fn dir(&self) -> PathBuf {
        self.blob_dir()
    }

    fn blob_dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Like `begin`, but without looking whether the blob is there.
    fn begin_anew(&self, digest: &Digest) -> Result<BlobWriter, StoreError> {
        loop {
            if let Some(writer) = self.lock_part(digest, None, &|| ())? {
                return Ok(writer);
            }
        }
    }

    /// Opens and locks the `.part` file. `None` when it was renamed or removed while waiting for the lock. With
    /// `resume`, what is in it counts, when it is no more than so many bytes.
    fn lock_part(
        &self,
        digest: &Digest,
        resume: Option<u64>,
        waiting: &dyn Fn(),
    ) -> Result<Option<BlobWriter>, StoreError> {
        let part = self.root.join("tmp").join(format!("blob-{}.part", digest.hex()));
        let fail = |operation| {
            let path = part.clone();
            move |source| StoreError { operation, path, source }
        };
        let mut file = open_private(&part).map_err(fail("create"))?;
        lock_or_wait(&file, waiting).map_err(fail("lock"))?;
        let mine = file.metadata().map_err(fail("stat"))?;
        let same = fs::symlink_metadata(&part).is_ok_and(|m| (m.dev(), m.ino()) == (mine.dev(), mine.ino()));
        if !same {
            return Ok(None);
        }
        let mut hasher = Sha256::new();
        let mut written = 0;
        if resume.is_some_and(|most| mine.len() <= most) {
            written = hash_rest(&mut file, &mut hasher).map_err(fail("read"))?;
        } else {
            file.set_len(0).map_err(fail("truncate"))?;
        }
        let part = PartFile { path: part, keep: false };
        Ok(Some(BlobWriter { digest: digest.clone(), file, part, target: self.path(digest), hasher, written }))
    }
}

/// Hashes a file to its end, where it is left; returns how many bytes that were.
fn hash_rest(file: &mut File, hasher: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; COPY_BUFFER];
    let mut total = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The one writer of one blob. Dropped without [`finish`](Self::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    // Declared, hence dropped, before `file`: the name must go while the lock is still held.
    part: PartFile,
    file: File,
    target: PathBuf,
    digest: Digest,
    hasher: Sha256,
    written: u64,
}

impl BlobWriter {
    /// Appends.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|source| self.part.error("write", source))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Throws away what was written.
    ///
    /// # Errors
    /// The disk failed.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.hasher = Sha256::new();
        self.written = 0;
        self.file.set_len(0).map_err(|source| self.part.error("truncate", source))?;
        io::Seek::rewind(&mut self.file).map_err(|source| self.part.error("rewind", source))
    }

    /// Verifies the digest. The content can be read from now on; it becomes a blob by
    /// [`VerifiedBlob::commit`].
    ///
    /// # Errors
    /// The content has another digest.
    pub fn finish(mut self) -> Result<VerifiedBlob, FinishError> {
        let actual = Digest::from_sha256(&std::mem::take(&mut self.hasher).finalize().into());
        if actual != self.digest {
            self.part.keep = false;
            return Err(FinishError::WrongDigest { expected: self.digest.clone(), actual });
        }
        Ok(self.verified())
    }

    fn verified(mut self) -> VerifiedBlob {
        self.part.keep = false;
        VerifiedBlob { part: self.part, file: self.file, target: self.target }
    }
}

/// Content that has its digest but may still be lost by a power cut.
#[derive(Debug)]
pub struct VerifiedBlob {
    part: PartFile,
    file: File,
    target: PathBuf,
}

impl VerifiedBlob {
    /// A fresh read-only file description of the content, which does not share offset or lock.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn reader(&self) -> Result<File, StoreError> {
        File::open(&self.part.path).map_err(|source| self.part.error("open", source))
    }

    /// Flushes the content and gives it its name. Durable when this returns.
    ///
    /// # Errors
    /// The disk failed.
    pub fn commit(self) -> Result<(), StoreError> {
        let target = self.target.clone();
        self.commit_content()?;
        sync_parent(&target)
    }

    /// Like [`commit`](Self::commit), but the name may be lost by a power cut until
    /// [`BlobStore::sync_names`]: for several blobs in a row.
    ///
    /// # Errors
    /// The disk failed.
    pub fn commit_content(mut self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|source| self.part.error("flush", source))?;
        let part = std::mem::take(&mut self.part.path);
        fs::rename(&part, &self.target).map_err(|source| StoreError { operation: "rename", path: part, source })
    }
}

/// The name of a temporary; removed on drop unless it was taken away by a rename, or is worth keeping.
#[derive(Debug)]
struct PartFile {
    path: PathBuf,
    keep: bool,
}

/// Less than this is fetched again rather than kept.
const WORTH_KEEPING: u64 = 64 << 10;

impl PartFile {
    fn error(&self, operation: &'static str, source: io::Error) -> StoreError {
        StoreError { operation, path: self.path.clone(), source }
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        let worth = self.keep && fs::symlink_metadata(&self.path).is_ok_and(|m| m.len() >= WORTH_KEEPING);
        if !self.path.as_os_str().is_empty() && !worth {
            // Failure leaves an unlocked file in tmp, which the next clean-up takes.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The digest of bytes in memory.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|source| StoreError {
        operation: "flush",
        path: dir.to_owned(),
        source,
    })
}

/// Locks a file for ourselves; `waiting` is called when somebody else has it.
fn lock_or_wait(file: &File, waiting: impl FnOnce()) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            waiting();
            file.lock()
        }
        Err(TryLockError::Error(e)) => Err(e),
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| StoreError {
        operation: "create directory",
        path: path.to_owned(),
        source,
    })
}

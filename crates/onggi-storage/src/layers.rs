//! The layer store: unpack, commit, find, remove, collect.
//!
//! An unpack happens in `tmp/layer-<hex>`, whose flock is the lock of that layer: a second process that wants the
//! same one waits for it and then finds the layer, or takes over what a dead process left. A layer is committed by
//! `syncfs`, one rename, `fsync` of `layers/`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use onggi_spec::Digest;
use onggi_sys::Errno;
use onggi_sys::{fs, landlock};
use serde::{Deserialize, Serialize};

use crate::chain::chain_id;
use crate::decompress::check_media_type;
use crate::driver::{self, Driver, DriverKind, LayerDir};
use crate::error::{Result, StorageError, StoreContext};
use crate::extract::{ExtractOptions, Privilege, Unpacked, extract};
use crate::limits::MAX_LOWER;
use crate::record::{self, Verdict};
use crate::{inherit, pipeline, rmtree, trash};

/// Largest `layer.json`: five short fields.
const MAX_RECORD: u64 = 64 << 10;
/// What it really has, and some more: one call reads it.
const SMALL_RECORD: usize = 512;

/// `layer.json`: what is known of an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Identity in the store.
    pub chain_id: Digest,
    /// sha256 of its tar stream.
    pub diff_id: Digest,
    /// ChainID of the layer below.
    pub parent: Option<Digest>,
    /// Bytes of file content.
    pub size: u64,
    /// Inodes and names.
    pub entries: u64,
    /// It hides every layer below it.
    pub opaque_root: bool,
}

/// One layer to unpack.
pub struct UnpackRequest<R> {
    /// The blob, compressed or not, its digest already verified.
    pub blob: R,
    /// As in the manifest.
    pub media_type: String,
    /// As in the image's configuration.
    pub diff_id: Digest,
    /// ChainID of the layer below; that layer must be committed before this one.
    pub parent: Option<Digest>,
}

/// A layer that is unpacked and verified but not yet visible. Dropping it removes it.
#[derive(Debug)]
pub struct Prepared(State);

#[derive(Debug)]
enum State {
    Existing(LayerInfo),
    New(Box<Work>),
}

/// An unpack in flight: the locked directory in `tmp/`.
#[derive(Debug)]
struct Work {
    /// `tmp/` of the store.
    tmp: PathBuf,
    name: String,
    /// Holds the flock.
    dir: OwnedFd,
    info: LayerInfo,
    unpacked: Unpacked,
    /// `layer.tree`, written but for directories that inherit.
    record: Option<record::Unfinished>,
    committed: bool,
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.committed {
            // Still locked here. What cannot be removed now is garbage that the next gc finds unlocked.
            let _ = fs::open_dir(&self.tmp).map(|tmp| rmtree::remove(tmp.as_fd(), self.name.as_bytes()));
        }
    }
}

impl Work {
    /// Directories that the archive does not mention have the attributes of those below, which are known late.
    fn inherits(&self) -> bool {
        !self.unpacked.implicit.is_empty() && !self.unpacked.opaque_root
    }

    /// Writes `layer.tree` while other layers are unpacked: of this one's tree nothing changes any more but directories that inherit.
    fn record(&mut self, path: &Path) -> Result<()> {
        let inherited = if self.inherits() { &self.unpacked.implicit[..] } else { &[] };
        let known = std::mem::take(&mut self.unpacked.known);
        self.record = Some(record::Unfinished::begin(self.dir.as_fd(), path, &known, inherited)?);
        Ok(())
    }
}

/// The layers below one data root.
#[derive(Debug, Clone)]
pub struct Layers {
    root: PathBuf,
    options: ExtractOptions,
    driver: Arc<dyn Driver>,
}

impl Layers {
    /// Opens the store, creating its directories.
    ///
    /// # Errors
    /// A directory cannot be created.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, None)
    }

    /// As [`Self::open`], and insists on a driver.
    ///
    /// # Errors
    /// A directory cannot be created; the store has another driver, or the driver does not work there.
    pub fn open_with(root: &Path, driver: Option<DriverKind>) -> Result<Self> {
        Self::with_options(root, ExtractOptions::new(Privilege::of_this_process()), driver)
    }

    /// As [`Self::open_with`], with explicit bounds and privilege.
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub fn with_options(root: &Path, options: ExtractOptions, driver: Option<DriverKind>) -> Result<Self> {
        for (name, mode) in [("layers", 0o700), ("tmp", 0o700), ("containers", 0o711)] {
            crate::make_dir(&root.join(name), mode)?;
        }
        let driver = driver::open(root, driver)?;
        Ok(Self { root: root.to_path_buf(), options, driver })
    }

    /// The driver of this store.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// The data root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The unpacked tree of a layer: a lower directory of overlayfs.
    pub fn diff_dir(&self, chain_id: &Digest) -> PathBuf {
        self.dir(chain_id).join("diff")
    }

    /// The directory of a layer: `diff/`, its record, and what the driver keeps of it.
    pub fn dir(&self, chain_id: &Digest) -> PathBuf {
        self.root.join("layers").join(chain_id.hex())
    }

    /// The layer, if it is in the store.
    ///
    /// # Errors
    /// Its record is unreadable.
    pub fn get(&self, chain_id: &Digest) -> Result<Option<LayerInfo>> {
        let bad = |reason: String| StorageError::LayerRecord { chain_id: chain_id.clone(), reason };
        let file = match File::open(self.dir(chain_id).join("layer.json")) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(bad(e.to_string())),
        };
        let mut text = Vec::with_capacity(SMALL_RECORD);
        file.take(MAX_RECORD).read_to_end(&mut text).map_err(|e| bad(e.to_string()))?;
        let info: LayerInfo = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if info.chain_id != *chain_id {
            return Err(bad("it belongs to another layer".to_owned()));
        }
        Ok(Some(info))
    }

    /// ChainIDs of every layer in the store, sorted.
    ///
    /// # Errors
    /// `layers/` cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let path = self.root.join("layers");
        let dir = fs::open_dir(&path).store("open", &path)?;
        let mut out = Vec::new();
        for entry in fs::read_dir(dir.as_fd()).store("read", &path)? {
            let (name, _) = entry.store("read", &path)?;
            out.extend(format!("sha256:{}", String::from_utf8_lossy(&name)).parse::<Digest>());
        }
        out.sort();
        Ok(out)
    }

    /// [`Self::prepare`] and [`Self::commit`] in one.
    ///
    /// # Errors
    /// As theirs.
    pub fn unpack<R: Read + Send>(&self, request: UnpackRequest<R>) -> Result<LayerInfo> {
        self.commit(self.prepare(request)?)
    }

    /// Unpacks a layer next to the store and verifies its DiffID. Any number at once, in any order: run one
    /// thread per layer. Waits when another process or thread unpacks the same layer.
    ///
    /// # Errors
    /// The blob or the archive is bad, or the filesystem fails; nothing is left behind.
    pub fn prepare<R: Read + Send>(&self, request: UnpackRequest<R>) -> Result<Prepared> {
        check_media_type(&request.media_type)?;
        let chain_id = chain_id(request.parent.as_ref(), &request.diff_id);
        let Some((name, dir)) = self.reserve(&chain_id)? else {
            return self.get(&chain_id)?.map(|info| Prepared(State::Existing(info))).ok_or_else(|| {
                StorageError::LayerRecord { chain_id: chain_id.clone(), reason: "layer.json is missing".to_owned() }
            });
        };
        let (diff_id, parent) = (request.diff_id, request.parent);
        let info = LayerInfo { chain_id, diff_id, parent, size: 0, entries: 0, opaque_root: false };
        let tmp = self.root.join("tmp");
        let mut work =
            Box::new(Work { tmp, name, dir, info, unpacked: Unpacked::default(), record: None, committed: false });
        let path = work.tmp.join(&work.name).join("diff");
        fs::make_dir(work.dir.as_fd(), b"diff", 0o700).store("create", &path)?;
        let diff = fs::open_dir_at(work.dir.as_fd(), b"diff").store("open", &path)?;
        let options = self.options;
        let blob = request.blob;
        let (unpacked, actual) =
            confined(work.dir.as_fd(), || pipeline::run(blob, |chunks| extract(chunks, diff, options)))
                .map_err(|e| self.full(e))?;
        if actual != work.info.diff_id {
            return Err(StorageError::DiffId { expected: work.info.diff_id.clone(), actual });
        }
        work.info.size = unpacked.bytes;
        work.info.entries = unpacked.entries;
        work.info.opaque_root = unpacked.opaque_root;
        work.unpacked = unpacked;
        let path = work.tmp.join(&work.name);
        work.record(&path).map_err(|e| self.full(e))?;
        Ok(Prepared(State::New(work)))
    }

    /// A full disk is the store's, not the entry's that met its end.
    fn full(&self, e: StorageError) -> StorageError {
        match e {
            StorageError::Unpack { source, .. } if matches!(source.errno, Errno::NOSPC | Errno::DQUOT) => {
                StorageError::Store { action: "unpack a layer below", path: self.root.clone(), source }
            }
            other => other,
        }
    }

    /// Makes a prepared layer visible. Bottom layer first.
    ///
    /// # Errors
    /// The layer below is missing, or the filesystem fails.
    pub fn commit(&self, prepared: Prepared) -> Result<LayerInfo> {
        let mut infos = self.commit_all(vec![prepared])?;
        infos.pop().ok_or_else(|| StorageError::Pipeline { reason: "no layer".to_owned() })
    }

    /// Makes several layers visible with one flush of the disk. Bottom layer first.
    ///
    /// # Errors
    /// As [`Self::commit`]; layers before the failed one stay.
    pub fn commit_all(&self, prepared: Vec<Prepared>) -> Result<Vec<LayerInfo>> {
        let mut below: Vec<(Digest, PathBuf, LayerInfo)> = Vec::new();
        let mut prepared = prepared;
        for layer in &mut prepared {
            if let State::New(work) = &mut layer.0 {
                let path = work.tmp.join(&work.name);
                self.complete(work, &path, &below)?;
                let under = self.under(work.info.parent.as_ref(), &below)?;
                let dir = LayerDir { path: &path, opaque_root: work.info.opaque_root };
                self.driver.complete_layer(dir, under.as_deref())?;
                below.push((work.info.chain_id.clone(), path.join("diff"), work.info.clone()));
            }
        }
        let mut flushed = false;
        let mut infos = Vec::with_capacity(prepared.len());
        for layer in prepared {
            infos.push(match layer.0 {
                State::Existing(info) => info,
                State::New(work) => {
                    if !std::mem::replace(&mut flushed, true) {
                        fs::sync_fs(work.dir.as_fd()).store("sync", &self.root)?;
                    }
                    self.publish(*work)?
                }
            });
        }
        if flushed {
            let path = self.root.join("layers");
            let dir = fs::open_dir(&path).store("open", &path)?;
            fs::sync(dir.as_fd()).store("sync", &path)?;
        }
        Ok(infos)
    }

    /// What can only be done once the layers below are known: directories that the archive left to them, the record.
    fn complete(&self, work: &mut Work, path: &Path, siblings: &[(Digest, PathBuf, LayerInfo)]) -> Result<()> {
        if work.inherits() {
            let below = self.below(work.info.parent.as_ref(), siblings)?;
            inherit::attributes(&path.join("diff"), &below, &work.unpacked.implicit, self.options.privilege)?;
        }
        if let Some(unfinished) = work.record.take() {
            unfinished.end(work.dir.as_fd(), path)?;
        }
        let record = path.join("layer.json");
        let text = serde_json::to_vec(&work.info).map_err(|e| StorageError::Pipeline { reason: e.to_string() })?;
        let file = fs::create_file(work.dir.as_fd(), b"layer.json", 0o600).store("create", &record)?;
        File::from(file).write_all(&text).map_err(|e| {
            let errno = Errno::from_raw_os_error(e.raw_os_error().unwrap_or(5));
            let source = onggi_sys::SysError::new("write", format!("{record:?}"), errno);
            StorageError::Store { action: "write", path: record, source }
        })
    }

    /// The directory of the layer below, in the store or on its way there.
    fn under(&self, parent: Option<&Digest>, siblings: &[(Digest, PathBuf, LayerInfo)]) -> Result<Option<PathBuf>> {
        let Some(chain_id) = parent else { return Ok(None) };
        if let Some((_, diff, _)) = siblings.iter().find(|(id, _, _)| id == chain_id) {
            return Ok(diff.parent().map(Path::to_path_buf));
        }
        match self.get(chain_id)? {
            Some(_) => Ok(Some(self.dir(chain_id))),
            None => Err(StorageError::MissingLayer { chain_id: chain_id.clone() }),
        }
    }

    /// The trees below a layer, topmost first, down to one that hides the rest.
    fn below(&self, parent: Option<&Digest>, siblings: &[(Digest, PathBuf, LayerInfo)]) -> Result<Vec<PathBuf>> {
        let mut out = Vec::new();
        let mut next = parent.cloned();
        while let Some(chain_id) = next {
            let (path, info) = match siblings.iter().find(|(id, _, _)| *id == chain_id) {
                Some((_, path, info)) => (path.clone(), info.clone()),
                None => {
                    let info = self.get(&chain_id)?;
                    let missing = || StorageError::MissingLayer { chain_id: chain_id.clone() };
                    (self.diff_dir(&chain_id), info.ok_or_else(missing)?)
                }
            };
            out.push(path);
            next = if info.opaque_root || out.len() > MAX_LOWER { None } else { info.parent };
        }
        Ok(out)
    }

    fn publish(&self, mut work: Work) -> Result<LayerInfo> {
        let target = self.dir(&work.info.chain_id);
        if let Some(parent) = &work.info.parent
            && self.get(parent)?.is_none()
        {
            return Err(StorageError::MissingLayer { chain_id: parent.clone() });
        }
        let path = self.root.join("layers");
        let layers = fs::open_dir(&path).store("open", &path)?;
        let hex = work.info.chain_id.hex().as_bytes();
        let tmp = fs::open_dir(&work.tmp).store("open", &work.tmp)?;
        match fs::rename_new(tmp.as_fd(), work.name.as_bytes(), layers.as_fd(), hex) {
            // Ours is the lock of this layer, so it is no sibling's: a directory without its record. It may be mounted, so it stays.
            Err(e) if e.errno == Errno::EXIST => {
                let reason = "its directory is there and layer.json is missing".to_owned();
                return Err(StorageError::LayerRecord { chain_id: work.info.chain_id.clone(), reason });
            }
            other => other.store("create", target)?,
        }
        work.committed = true;
        Ok(work.info.clone())
    }

    /// The locked, empty `tmp/layer-<hex>`; `None` when the layer is in the store, perhaps since just now.
    fn reserve(&self, chain_id: &Digest) -> Result<Option<(String, OwnedFd)>> {
        let name = format!("layer-{}", chain_id.hex());
        let tmp_path = self.root.join("tmp");
        let path = tmp_path.join(&name);
        let tmp = fs::open_dir(&tmp_path).store("open", &tmp_path)?;
        loop {
            if self.get(chain_id)?.is_some() {
                return Ok(None);
            }
            match fs::make_dir(tmp.as_fd(), name.as_bytes(), 0o700) {
                Err(e) if e.errno != Errno::EXIST => return Err(e).store("create", path),
                _ => {}
            }
            let dir = match fs::open_dir_at(tmp.as_fd(), name.as_bytes()) {
                Err(e) if e.errno == Errno::NOENT => continue,
                other => other.store("open", &path)?,
            };
            fs::lock(&dir).store("lock", &path)?;
            // While we waited, the directory may have been committed or collected.
            if !trash::is_still(tmp.as_fd(), name.as_bytes(), dir.as_fd()).store("open", &path)? {
                continue;
            }
            for left in [&b"diff"[..], b"tree", b"layer.tree", b"layer.json"] {
                rmtree::remove(dir.as_fd(), left).store("clear", &path)?;
            }
            return Ok(Some((name, dir)));
        }
    }

    /// Removes a layer: at once for everyone who looks, then its files. One that is not there is removed already.
    ///
    /// # Errors
    /// The filesystem fails; what is left lies in `tmp/`.
    pub fn remove(&self, chain_id: &Digest) -> Result<()> {
        trash::discard(&self.root, Path::new("layers"), chain_id.hex())
    }

    /// Removes what dead processes left in `tmp/`; returns how many things.
    ///
    /// # Errors
    /// The filesystem fails; the rest has been tried.
    pub fn gc(&self) -> Result<usize> {
        trash::collect(&self.root)
    }

    /// Compares a layer with what it was when it was committed, every byte of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn verify(&self, chain_id: &Digest) -> Result<Verdict> {
        let told = matches!(self.get(chain_id), Ok(Some(info)) if chain_id_of(&info) == *chain_id);
        let own = (!told).then(|| "layer.json".to_owned());
        Ok(match record::verify(&self.dir(chain_id))? {
            Verdict::Damaged(names) => Verdict::Damaged(own.into_iter().chain(names).collect()),
            sound => own.map_or(sound, |name| Verdict::Damaged(vec![name])),
        })
    }
}

/// What the parts of a record say that it is.
fn chain_id_of(info: &LayerInfo) -> Digest {
    chain_id(info.parent.as_ref(), &info.diff_id)
}

/// Runs `work` on a thread that can write only below `dir` and execute nothing: what an archive makes of our code
/// stays in its own directory. Without Landlock in the kernel the extractor's own care has to do.
fn confined<T: Send>(dir: BorrowedFd<'_>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("unpack".to_owned()).spawn_scoped(scope, || {
            let _ = landlock::write_only_below(dir);
            work()
        });
        let worker = worker.map_err(|e| StorageError::Pipeline { reason: format!("start a thread: {e}") })?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

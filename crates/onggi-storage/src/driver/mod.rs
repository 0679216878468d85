//! Storage drivers: how layers become a container's root filesystem.
//!
//! Every driver keeps `layers/<hex>/diff`, the unpacked layer with overlayfs's marks: it is what `check` verifies and
//! what an image's history is read from. A driver adds what it needs beside it, and decides how a container gets its
//! writable copy:
//!
//! ```text
//!            beside diff/                          containers/<id>/
//! overlay    nothing                               upper/ work/    mounted over the layers' diff/
//! btrfs      tree/  subvolume: this and all below  rootfs/         snapshot of the topmost tree/
//! vfs        tree/  hard links to the diffs        rootfs/         copy of the topmost tree/ (reflinks where possible)
//! ```
//! A driver with another form of layer (an EROFS image, say) writes it in [`Driver::complete_layer`], where the whole
//! stack below is known, and names it in [`Driver::snapshot`]; nothing else asks how a layer looks.
//!
//! `<root>/driver` names the driver of a store. It is written by the first process that uses the store; another driver
//! is refused, because its containers and trees would be neither found nor removed.

mod btrfs;
mod overlay;
pub(crate) mod tree;
mod vfs;

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use onggi_spec::monitor::{OverlayMount, RootFs};
use onggi_sys::{Errno, SysError};

use crate::error::{Result, StorageError};
use crate::image_view::ImageView;

/// The drivers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriverKind {
    /// overlayfs over the layers.
    #[default]
    Overlay,
    /// A subvolume per layer, a snapshot per container.
    Btrfs,
    /// Plain copies, on any filesystem.
    Vfs,
}

impl DriverKind {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Overlay, Self::Btrfs, Self::Vfs];

    /// As in the record, on the command line and in `info`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Btrfs => "btrfs",
            Self::Vfs => "vfs",
        }
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DriverKind {
    type Err = StorageError;

    /// `overlay2` is Docker's name of the first.
    fn from_str(text: &str) -> Result<Self> {
        let text = if text == "overlay2" { "overlay" } else { text };
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| StorageError::UnknownDriver { name: text.chars().take(64).collect() })
    }
}

/// A layer that is about to be committed, or is.
#[derive(Debug, Clone, Copy)]
pub struct LayerDir<'a> {
    /// Its directory, with `diff/` inside.
    pub path: &'a Path,
    /// It hides everything below.
    pub opaque_root: bool,
}

/// What a container changed: a tree with overlayfs's marks above the layers that it was made from.
#[derive(Debug)]
pub struct Changes {
    /// The tree.
    pub upper: PathBuf,
    /// Made for this answer, and removed with it.
    temporary: Option<Temporary>,
}

/// A directory in `tmp/` that goes with its owner.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) root: PathBuf,
    pub(crate) name: String,
    /// Holds the flock.
    _lock: std::os::fd::OwnedFd,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed now is unlocked garbage that the next collection takes.
        let _ = crate::trash::discard(&self.root, Path::new("tmp"), &self.name);
    }
}

impl Changes {
    /// The tree exists for this answer only.
    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }
}

/// One way of keeping layers and containers.
pub trait Driver: fmt::Debug + Send + Sync {
    /// Which one.
    fn kind(&self) -> DriverKind;

    /// Adds to a layer what snapshots need, before it is flushed and becomes visible. `below` is the layer under it,
    /// complete, though perhaps not visible yet. The directory holds nothing of an earlier attempt.
    ///
    /// # Errors
    /// The filesystem fails.
    fn complete_layer(&self, layer: LayerDir<'_>, below: Option<&Path>) -> Result<()>;

    /// A writable root filesystem in the container's directory `dir` above layers, topmost first, none of them hidden
    /// by one above. Idempotent: what exists is kept.
    ///
    /// # Errors
    /// The filesystem fails.
    fn snapshot(&self, dir: &Path, layers: &[PathBuf]) -> Result<RootFs>;

    /// What shows the files of these layers, topmost first, without a container.
    fn image(&self, layers: &[PathBuf]) -> ImageView;

    /// What the container in `dir` changed.
    ///
    /// # Errors
    /// The filesystem fails.
    fn changes(&self, dir: &Path, layers: &[PathBuf]) -> Result<Changes>;

    /// Bytes of the files that the container in `dir` has written.
    ///
    /// # Errors
    /// The filesystem fails.
    fn usage(&self, dir: &Path, layers: &[PathBuf]) -> Result<u64>;
}

/// The driver of the store below `root`. With `wanted`, that one; else the one that the store was made with, else
/// overlay. A store without a record gets one.
///
/// # Errors
/// [`StorageError::OtherDriver`]; the driver does not work on this filesystem; the record cannot be read or written.
pub fn open(root: &Path, wanted: Option<DriverKind>) -> Result<Arc<dyn Driver>> {
    let kind = match (recorded(root)?, wanted) {
        (Some(found), Some(wanted)) if found != wanted => {
            return Err(StorageError::OtherDriver {
                root: root.to_owned(),
                found: found.name(),
                wanted: wanted.name(),
            });
        }
        (Some(found), _) => found,
        (None, wanted) => {
            let kind = wanted.unwrap_or_default();
            make(root, kind)?;
            record(root, kind)?;
            kind
        }
    };
    make(root, kind)
}

fn make(root: &Path, kind: DriverKind) -> Result<Arc<dyn Driver>> {
    Ok(match kind {
        DriverKind::Overlay => Arc::new(overlay::Overlay),
        DriverKind::Btrfs => Arc::new(btrfs::Btrfs::new(root)?),
        DriverKind::Vfs => Arc::new(vfs::Vfs::new(root)),
    })
}

/// The driver that the store was made with. One from before there were drivers has layers and no record.
///
/// # Errors
/// The record is unreadable or names something else.
pub fn recorded(root: &Path) -> Result<Option<DriverKind>> {
    match std::fs::read_to_string(root.join("driver")) {
        Ok(text) => text.trim().parse().map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let used = std::fs::read_dir(root.join("layers")).is_ok_and(|mut layers| layers.next().is_some());
            Ok(used.then_some(DriverKind::Overlay))
        }
        Err(e) => Err(failed("read", root.join("driver"), &e)),
    }
}

/// Writes the record beside and renames it; two processes that start a store at once must agree.
fn record(root: &Path, kind: DriverKind) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (path, new) = (root.join("driver"), root.join(format!("tmp/driver-{}-{number}", std::process::id())));
    let text = format!("{kind}\n");
    let written = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    let linked = written.and_then(|()| std::fs::hard_link(&new, &path));
    let _ = std::fs::remove_file(&new);
    match linked {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => match recorded(root)? {
            Some(found) if found != kind => {
                Err(StorageError::OtherDriver { root: root.to_owned(), found: found.name(), wanted: kind.name() })
            }
            _ => Ok(()),
        },
        other => other.map_err(|e| failed("create", path, &e)),
    }
}

/// The changes of a container whose root filesystem is an overlay.
pub(crate) fn overlaid(dir: &Path) -> Result<Changes> {
    Ok(Changes { upper: dir.join("upper"), temporary: None })
}

/// How the files of a root filesystem are found without mounting it. `bundle` is the container's directory.
pub fn lookup_view(rootfs: &RootFs, bundle: &Path) -> OverlayMount {
    match rootfs {
        RootFs::Overlay(overlay) => overlay.clone(),
        RootFs::Path => OverlayMount {
            lower: Vec::new(),
            upper: bundle.join(tree::ROOTFS),
            work: bundle.to_owned(),
            userxattr: false,
            volatile: false,
            submounts: Vec::new(),
            hidden: Vec::new(),
        },
    }
}

fn failed(action: &'static str, path: PathBuf, e: &std::io::Error) -> StorageError {
    let errno = Errno::from_raw_os_error(e.raw_os_error().unwrap_or(5));
    let source = SysError::new(action, format!("{path:?}"), errno);
    StorageError::Store { action, path, source }
}

/// A locked, empty directory in `tmp/`.
fn temporary(root: &Path) -> Result<(Temporary, PathBuf)> {
    use crate::error::StoreContext;
    use std::os::fd::AsFd;
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let tmp_path = root.join("tmp");
    let tmp = onggi_sys::fs::open_dir(&tmp_path).store("open", &tmp_path)?;
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("changes-{}-{number}", std::process::id());
        let path = tmp_path.join(&name);
        onggi_sys::fs::make_dir(tmp.as_fd(), name.as_bytes(), 0o700).store("create", &path)?;
        let dir = onggi_sys::fs::open_dir_at(tmp.as_fd(), name.as_bytes()).store("open", &path)?;
        onggi_sys::fs::lock(&dir).store("lock", &path)?;
        // A collection may have been faster than the lock.
        if crate::trash::is_still(tmp.as_fd(), name.as_bytes(), dir.as_fd()).store("open", &path)? {
            return Ok((Temporary { root: root.to_owned(), name, _lock: dir }, path));
        }
    }
}

//! Entries to files, below one directory and never outside it.
//!
//! In: a tar stream and the descriptor of an empty directory that nobody else can reach. Out: the layer as
//! overlayfs wants it (whiteouts as character devices 0:0, opaque directories by attribute).
//!
//! Rules, each with a test: a name is split once and `..` is refused; the parent is opened by the kernel with
//! the layer's directory as root, so links in the layer (`lib -> usr/lib`) work and none leads out; the last
//! component is never followed; what is in the way is removed first (the last entry of a name wins). Directories
//! stay 0700 until the end, when their own mode, owner, attributes and times are set deepest first: so neither
//! setgid bits nor default ACLs leak into files, and read-only directories can be filled.
//!
//! A failure leaves a half-filled directory; the caller throws it away.

mod create;
mod dirs;
mod path;
pub(crate) mod whiteout;
mod xattr;

use std::os::fd::{AsFd, OwnedFd};

use onggi_sys::SysError;

pub(crate) use path::EntryPath;

use crate::error::{EntryProblem, Result, StorageError, shown};
use crate::known::Known;
use crate::limits::{MAX_ENTRIES, MAX_UNPACKED};
use crate::tar::{Entry, Kind, Source, TarReader};
use dirs::Dirs;
use path::Target;

/// What this process may do to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Root of the initial user namespace: owners, devices and `trusted.*` attributes.
    Full,
    /// An ordinary user, or root of a user namespace: owners that cannot be set stay the caller's, device
    /// nodes are left out, overlay attributes are `user.overlay.*`.
    Limited,
}

/// Bounds and privilege of one unpack.
#[derive(Debug, Clone, Copy)]
pub struct ExtractOptions {
    /// What may be done.
    pub privilege: Privilege,
    /// Bytes of file content, holes included.
    pub max_bytes: u64,
    /// Inodes.
    pub max_entries: u64,
}

impl ExtractOptions {
    /// The default bounds.
    pub fn new(privilege: Privilege) -> Self {
        Self { privilege, max_bytes: MAX_UNPACKED, max_entries: MAX_ENTRIES }
    }
}

/// What an unpack did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of file content.
    pub bytes: u64,
    /// Inodes and names made.
    pub entries: u64,
    /// Directories (in-root, without leading slash, empty for the root) that the archive does not describe:
    /// made 0755 for the sake of their children. What layers below say about them should hold.
    pub implicit: Vec<Vec<u8>>,
    /// The layer hides everything below it.
    pub opaque_root: bool,
    /// Device nodes left out for lack of privilege.
    pub skipped_devices: u64,
    /// Owners that could not be set for lack of privilege.
    pub skipped_owners: u64,
    /// Files as they were made; not all of a very large layer.
    pub(crate) known: Known,
}

/// Unpacks the archive into the empty directory `root`.
///
/// # Errors
/// The archive breaks the grammar, an entry is refused, or the filesystem fails.
pub fn extract(source: impl Source, root: OwnedFd, options: ExtractOptions) -> Result<Unpacked> {
    let mut tar = TarReader::new(source);
    let mut extractor = Extractor::new(root, options)?;
    while let Some(entry) = tar.next_entry()? {
        extractor.entry(&mut tar, &entry)?;
    }
    extractor.finish()
}

/// The state of one unpack.
struct Extractor {
    dirs: Dirs,
    options: ExtractOptions,
    /// Files are created with this owner.
    own: (u32, u32),
    done: Unpacked,
}

/// The outcome of one entry, before it is given the entry's name.
type EntryResult<T> = std::result::Result<T, Failure>;

/// Why one entry failed.
enum Failure {
    Refused(EntryProblem),
    System(SysError),
    Whole(StorageError),
}

impl From<EntryProblem> for Failure {
    fn from(problem: EntryProblem) -> Self {
        Self::Refused(problem)
    }
}

impl From<SysError> for Failure {
    fn from(e: SysError) -> Self {
        Self::System(e)
    }
}

impl From<crate::tar::TarError> for Failure {
    fn from(e: crate::tar::TarError) -> Self {
        Self::Whole(e.into())
    }
}

impl Failure {
    fn of(self, entry: &[u8]) -> StorageError {
        match self {
            Self::Refused(reason) => StorageError::Entry { entry: shown(entry), reason },
            Self::System(source) => StorageError::Unpack { entry: shown(entry), source },
            Self::Whole(e) => e,
        }
    }
}

impl Extractor {
    fn new(root: OwnedFd, options: ExtractOptions) -> Result<Self> {
        let stat = onggi_sys::fs::stat(root.as_fd()).map_err(|e| Failure::from(e).of(b""))?;
        let own = (stat.st_uid, stat.st_gid);
        let dirs = Dirs::new(root, &stat);
        Ok(Self { dirs, options, own, done: Unpacked::default() })
    }

    fn entry<S: Source>(&mut self, tar: &mut TarReader<S>, entry: &Entry) -> Result<()> {
        self.place(tar, entry).map_err(|failure| failure.of(&entry.path))
    }

    fn place<S: Source>(&mut self, tar: &mut TarReader<S>, entry: &Entry) -> EntryResult<()> {
        self.count(entry)?;
        xattr::check(&entry.xattrs)?;
        match Target::parse(&entry.path)? {
            Target::Skip => Ok(()),
            Target::Root if entry.kind == Kind::Directory => Ok(self.dirs.describe_root(entry)?),
            Target::Root => Err(EntryProblem::RootNotDirectory.into()),
            Target::Plain(path) => self.create(tar, entry, &path),
            Target::Whiteout(path) => {
                whiteout::check_type(&entry.kind)?;
                self.whiteout(&path)
            }
            Target::Opaque(dir) => {
                whiteout::check_type(&entry.kind)?;
                self.opaque(&dir)
            }
        }
    }

    fn count(&mut self, entry: &Entry) -> EntryResult<()> {
        let bytes = match entry.kind {
            Kind::File { size } | Kind::Sparse { size, .. } => size,
            _ => 0,
        };
        self.done.entries += 1;
        self.done.bytes = self.done.bytes.saturating_add(bytes);
        if self.done.entries + self.dirs.made() > self.options.max_entries {
            return Err(EntryProblem::TooManyEntries.into());
        }
        if self.done.bytes > self.options.max_bytes {
            return Err(EntryProblem::TooLarge.into());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Unpacked> {
        self.done.entries += self.dirs.made();
        for (path, meta) in self.dirs.take_pending() {
            let there = self.finish_dir(&path, &meta).map_err(|failure| failure.of(&path))?;
            if there && meta.implicit {
                self.done.implicit.push(path);
            }
        }
        self.done.implicit.sort();
        Ok(self.done)
    }
}

impl Privilege {
    /// Full for root whose user namespace maps every id, which is the initial one (user_namespaces(7)).
    pub fn of_this_process() -> Self {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
        if whole && rustix::process::geteuid().is_root() { Self::Full } else { Self::Limited }
    }
}

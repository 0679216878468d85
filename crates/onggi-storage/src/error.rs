//! What can go wrong in this crate: operation, object, and the system's reason as `source`.

use std::path::PathBuf;

use onggi_spec::Digest;
use onggi_sys::SysError;

use crate::tar::TarError;

/// An operation of the layer store, an unpack, a snapshot or a lookup that failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A directory or file of the store could not be made, opened, locked, renamed or synced.
    #[error("cannot {action} {}", path.display())]
    Store {
        /// Verb: `"create"`, `"open"`, `"lock"`.
        action: &'static str,
        /// The path, made by Onggi.
        path: PathBuf,
        /// The failed call.
        source: SysError,
    },
    /// The media type is none that Onggi unpacks.
    #[error("unsupported layer media type {media_type:?}")]
    MediaType {
        /// As in the manifest, cut to 128 characters.
        media_type: String,
    },
    /// The compressed blob could not be read.
    #[error("cannot read the compressed layer")]
    ReadBlob {
        /// Why.
        source: std::io::Error,
    },
    /// The compressed stream stops before its end marker.
    #[error("the {codec} stream of the layer is truncated")]
    TruncatedStream {
        /// `"gzip"` or `"zstd"`.
        codec: &'static str,
    },
    /// The compressed stream is malformed, or something else follows it.
    #[error("the {codec} stream of the layer is corrupt: {reason}")]
    CorruptStream {
        /// `"gzip"` or `"zstd"`.
        codec: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// Decompression would take more memory than an archive may ask for.
    #[error("the {codec} stream asks for more memory than {} MiB", limit / 1024)]
    StreamMemory {
        /// `"xz"`.
        codec: &'static str,
        /// KiB.
        limit: u32,
    },
    /// The archive breaks the tar grammar.
    #[error("the layer is not a valid tar archive")]
    Archive {
        /// Where and how.
        #[from]
        source: TarError,
    },
    /// An entry of the archive would leave the layer, or cannot mean anything in it.
    #[error("refused layer entry {entry:?}: {reason}")]
    Entry {
        /// Name of the entry, cut.
        entry: String,
        /// What is wrong with it.
        reason: EntryProblem,
    },
    /// The filesystem refused an entry.
    #[error("cannot unpack {entry:?}")]
    Unpack {
        /// Name of the entry, cut.
        entry: String,
        /// The failed call.
        source: SysError,
    },
    /// The uncompressed layer is not the one that the image's configuration names.
    #[error("the layer's content is {actual}, the image's configuration says {expected}")]
    DiffId {
        /// From the image's configuration.
        expected: Digest,
        /// Computed.
        actual: Digest,
    },
    /// A thread of the unpack pipeline could not be started or panicked.
    #[error("the unpack pipeline failed: {reason}")]
    Pipeline {
        /// What happened.
        reason: String,
    },
    /// `layer.json` is missing or malformed.
    #[error("the record of layer {chain_id} is unreadable: {reason}")]
    LayerRecord {
        /// The layer.
        chain_id: Digest,
        /// Why.
        reason: String,
    },
    /// A layer that is needed is not in the store.
    #[error("layer {chain_id} is not in the store")]
    MissingLayer {
        /// The layer.
        chain_id: Digest,
    },
    /// More layers than the kernel's overlay can stack.
    #[error("the image has {count} layers, the kernel's overlay stacks at most {max}")]
    TooManyLayers {
        /// Layers of the image.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// No storage driver has this name.
    #[error("there is no storage driver {name:?}")]
    UnknownDriver {
        /// As given, cut.
        name: String,
    },
    /// The store was made with another driver.
    #[error("the store {} was made with the storage driver {found}, not {wanted}", root.display())]
    OtherDriver {
        /// The data root.
        root: PathBuf,
        /// As recorded.
        found: &'static str,
        /// As asked for.
        wanted: &'static str,
    },
    /// The btrfs driver on something else.
    #[error("the storage driver btrfs needs a btrfs filesystem, and {} is on another one", root.display())]
    NotBtrfs {
        /// The data root.
        root: PathBuf,
    },
    /// A path inside a container's root filesystem could not be looked up or read.
    #[error("cannot read {path:?} in the container's root filesystem")]
    Lookup {
        /// The in-root path.
        path: String,
        /// The failed call.
        source: SysError,
    },
    /// A path inside a container's root filesystem is not what it must be.
    #[error("{path:?} in the container's root filesystem {problem}")]
    InRoot {
        /// The in-root path.
        path: String,
        /// What is wrong with it.
        problem: InRootProblem,
    },
    /// A user or group that the root filesystem does not know.
    #[error("no such {what} in the container's root filesystem: {name:?}")]
    NoSuchAccount {
        /// `"user"` or `"group"`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A passwd or group file beyond the bounds.
    #[error("{path} of the container's root filesystem has a line of more than {limit} bytes")]
    AccountLine {
        /// The file.
        path: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A file of a tree that is to be archived or compared cannot be read.
    #[error("cannot read {path:?} in the container's root filesystem")]
    ReadTree {
        /// The path in the tree, cut.
        path: String,
        /// The failed call.
        source: SysError,
    },
    /// A path of a tree is too long for anyone to unpack it.
    #[error("a path below {path:?} is longer than 4095 bytes")]
    PathTooLong {
        /// The directory, cut.
        path: String,
    },
    /// A file whose name means a deletion in an image layer.
    #[error("{path:?} has a name that image layers reserve for deletions")]
    ReservedName {
        /// The path, cut.
        path: String,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    WriteArchive {
        /// Why.
        source: std::io::Error,
    },
}

/// Why an entry was refused although its header is well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// `..` in the name.
    #[error("its name contains '..'")]
    ParentInName,
    /// `..` in a hard link's target.
    #[error("its hard-link target contains '..'")]
    ParentInTarget,
    /// A component longer than `NAME_MAX`.
    #[error("a component of its name is longer than 255 bytes")]
    NameTooLong,
    /// The layer's root as anything but a directory.
    #[error("the root of a layer must be a directory")]
    RootNotDirectory,
    /// A name below something that is no directory.
    #[error("its parent is not a directory")]
    ParentNotDirectory,
    /// Too many symbolic links on the way.
    #[error("too many symbolic links on the way to its parent")]
    LinkLoop,
    /// The hard link's target is not in the layer.
    #[error("its hard-link target is not in the layer")]
    TargetMissing,
    /// The hard link's target is a directory.
    #[error("its hard-link target is a directory")]
    TargetIsDirectory,
    /// A whiteout without a name, or of `.` or `..`.
    #[error("it is a whiteout of nothing")]
    BadWhiteout,
    /// A whiteout that is no regular file.
    #[error("a whiteout must be a regular file")]
    WhiteoutType,
    /// A name below a whiteout, or in the namespace that whiteouts reserve.
    #[error("its name is reserved for whiteouts")]
    ReservedName,
    /// An attribute that steers overlayfs.
    #[error("it carries an attribute that controls overlayfs")]
    OverlayAttribute,
    /// More inodes than one layer may have.
    #[error("the layer has too many entries")]
    TooManyEntries,
    /// More bytes than one layer may have.
    #[error("the layer is larger than the limit when unpacked")]
    TooLarge,
}

/// What is wrong with a path in a root filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InRootProblem {
    /// Not there.
    #[error("does not exist")]
    NotFound,
    /// A directory, FIFO, device or socket.
    #[error("is not a regular file")]
    NotRegular,
    /// Beyond the bound.
    #[error("is too large")]
    TooLarge,
    /// A loop, or more links than the kernel follows.
    #[error("has too many levels of symbolic links")]
    LinkLoop,
    /// A component on the way is no directory.
    #[error("is below something that is not a directory")]
    NotDirectory,
    /// Beyond `PATH_MAX` or with a NUL byte.
    #[error("is not a valid path")]
    BadPath,
}

impl StorageError {
    /// What the user can do about it, where something can be done.
    pub fn hint(&self) -> Option<String> {
        let errno = |source: &SysError| match onggi_sys::error::name(source.raw()) {
            Some("ENOENT") => Some(MEND),
            Some("ENOSPC" | "EDQUOT") => Some("free some disk space: remove unused images with `onggi rmi`"),
            Some("EROFS") => Some("the data directory is read-only; choose another with --root"),
            Some("EACCES" | "EPERM") => Some("run as the owner of the data directory, or choose another with --root"),
            _ => None,
        };
        let hint = match self {
            Self::Store { source, .. } | Self::Unpack { source, .. } => errno(source)?,
            Self::StreamMemory { .. } => "compress it again with a dictionary of at most 64 MiB, as `xz -9` has",
            Self::TruncatedStream { .. } | Self::CorruptStream { .. } => {
                "pull the image again; if it stays, the registry's copy is damaged"
            }
            Self::DiffId { .. } => "the image is inconsistent; ask its publisher to build and push it again",
            Self::Archive { .. } | Self::Entry { .. } => "the image is malformed or hostile; do not run it",
            Self::TooManyLayers { .. } => "squash the image's layers",
            Self::NoSuchAccount { .. } => "use a number, or a name from the image's /etc/passwd and /etc/group",
            Self::UnknownDriver { .. } => "the drivers are overlay, btrfs and vfs",
            Self::OtherDriver { found, .. } => {
                return Some(format!(
                    "leave --storage-driver out, say {found}, or choose another directory with --root"
                ));
            }
            Self::NotBtrfs { .. } => "choose a directory on btrfs with --root, or another --storage-driver",
            Self::ReservedName { .. } | Self::PathTooLong { .. } => "remove or rename it in the container",
            Self::WriteArchive { source } => errno_io(source)?,
            Self::MissingLayer { .. } | Self::LayerRecord { .. } => MEND,
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// A part of the store is not there.
const MEND: &str =
    "a part of the store is missing: `onggi system check --repair` makes it again; if it cannot, pull the image again";

fn errno_io(source: &std::io::Error) -> Option<&'static str> {
    let full = matches!(source.raw_os_error().and_then(onggi_sys::error::name), Some("ENOSPC" | "EDQUOT"));
    full.then_some("free some disk space, or write the archive elsewhere")
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, StorageError>;

/// Attaches the store's path to a failed call.
pub(crate) trait StoreContext<T> {
    fn store(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> StoreContext<T> for std::result::Result<T, SysError> {
    fn store(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| StorageError::Store { action, path: path.into(), source })
    }
}

/// A name for an error message: lossy, at most 128 characters.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(128).collect()
}

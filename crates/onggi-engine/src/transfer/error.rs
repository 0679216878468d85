//! What can be wrong with an archive or a directory of images.

use std::{io, path::PathBuf};

use onggi_spec::Digest;
use onggi_storage::tar::TarErrorKind;
use thiserror::Error;

const CUT_SHORT: &str = "the file is cut short or damaged: make it, or fetch it, again";

/// An image archive or directory that cannot be read or written.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The file cannot be opened, read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A stream cannot be read or written.
    #[error("cannot {action}")]
    Stream {
        /// What was being done.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The file is no tar archive, or a malformed one.
    #[error("{what} is not a valid archive")]
    NotAnArchive {
        /// The file.
        what: String,
        /// Where and how.
        source: onggi_storage::tar::TarError,
    },
    /// Nothing at all: what was to make it has failed.
    #[error("the archive is empty")]
    Empty,
    /// The same of what was to be loaded.
    #[error("{what} is empty")]
    NoBytes {
        /// The file.
        what: String,
    },
    /// An archive of the caller's own cannot be unpacked.
    #[error("{what} cannot be read as an archive")]
    Unreadable {
        /// The file.
        what: String,
        /// Where and how.
        source: Box<onggi_storage::StorageError>,
    },
    /// Neither of the two formats.
    #[error("{what} holds no images: it has neither manifest.json nor index.json")]
    NoImages {
        /// The file.
        what: String,
    },
    /// A member that a document names is not there.
    #[error("{member:?} is named by a document of the archive, but is not in it")]
    Missing {
        /// The member, cut.
        member: String,
    },
    /// A member's name, or what a document says about one, points out of the archive.
    #[error("{member:?} points outside of the archive")]
    Outside {
        /// The member, cut.
        member: String,
    },
    /// Readers disagree on which of the two counts.
    #[error("{member:?} is twice in the archive")]
    Twice {
        /// The member, cut.
        member: String,
    },
    /// A member that must be a file.
    #[error("{member:?} of the archive is no regular file")]
    NotAFile {
        /// The member, cut.
        member: String,
    },
    /// A document, a list or an archive beyond its bound.
    #[error("{what} is larger than the limit of {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// Bytes, or pieces.
        limit: u64,
    },
    /// A document is no JSON of the right shape.
    #[error("{member:?} is malformed")]
    Json {
        /// The member.
        member: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The content is not what a document says.
    #[error("expected {expected}, found {actual} ({size} bytes)")]
    WrongBlob {
        /// The digest asked for.
        expected: Digest,
        /// The digest of what is there.
        actual: Digest,
        /// Its length.
        size: u64,
    },
    /// The content has the digest of its descriptor, but not the size, or is longer than that.
    #[error("{digest} should have {expected} bytes and has {found}")]
    WrongLength {
        /// Its digest, as the document says.
        digest: Digest,
        /// Its size, as the document says.
        expected: u64,
        /// Its size, or that it is larger.
        found: String,
    },
    /// The numbers of layers disagree.
    #[error("the manifest names {layers} layers, the configuration {diff_ids}")]
    LayerCount {
        /// Of the manifest.
        layers: usize,
        /// Of the configuration.
        diff_ids: usize,
    },
    /// Not a directory of images.
    #[error("{} is not {what}", path.display())]
    NotALayout {
        /// The directory.
        path: PathBuf,
        /// `an OCI layout`.
        what: &'static str,
    },
    /// No such image in the source.
    #[error("there is no image {name:?} in {what}")]
    NoSuchImage {
        /// The name or tag.
        name: String,
        /// The source.
        what: String,
        /// Some of the names that it has.
        known: Vec<String>,
    },
    /// The source has several and none was named.
    #[error("{what} holds {count} images; say which")]
    Several {
        /// The source.
        what: String,
        /// How many.
        count: usize,
    },
    /// No image of the index is for the wanted platform.
    #[error("the image is not for {wanted}")]
    NoPlatform {
        /// The platform.
        wanted: String,
    },
    /// Indexes inside indexes.
    #[error("more than {max} indexes inside each other")]
    Nested {
        /// The bound.
        max: usize,
    },
    /// The manifest would have to be changed.
    #[error("the manifest would change from {from} to {to}, and digests are to be preserved")]
    WouldChange {
        /// Media type now.
        from: String,
        /// Media type then.
        to: String,
    },
    /// The destination keeps no manifest at all.
    #[error("an archive of `docker save` holds no manifest, and digests are to be preserved")]
    NoManifests,
    /// The destination holds the image of one platform.
    #[error("the destination does not hold images of several platforms as one")]
    OnePlatformOnly,
    /// The destination is named by the digest of something else.
    #[error("the destination is named by {expected}, but the manifest is {actual}")]
    OtherManifest {
        /// The digest of the destination's name.
        expected: Digest,
        /// What was to be put there.
        actual: Digest,
    },
    /// What is there is in the way.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A location that does not follow the grammar.
    #[error("{text:?} names no place for images: {reason}")]
    Location {
        /// As written.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl FormatError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotAnArchive { source, .. } if source.kind == TarErrorKind::Truncated => CUT_SHORT,
            Self::NoBytes { .. } => "did the command that was to make it fail?",
            Self::NotAnArchive { .. } | Self::NoImages { .. } => {
                "images are loaded from what `docker save`, `podman save`, `skopeo copy` or `onggi save` wrote; a plain \
                 root filesystem is imported with `onggi import`"
            }
            Self::Empty => {
                "did the command that was to make it fail? an empty root filesystem is `tar -cf - -T /dev/null`"
            }
            Self::Unreadable { .. } => CUT_SHORT,
            Self::Missing { .. } | Self::WrongBlob { .. } | Self::WrongLength { .. } | Self::LayerCount { .. } => {
                "the archive is incomplete or damaged; make it again"
            }
            Self::Outside { .. } | Self::Twice { .. } | Self::NotAFile { .. } => "the archive is malformed or hostile",
            Self::NotALayout { path, .. } if !path.exists() => "there is no such directory",
            Self::NoSuchImage { known, .. } if !known.is_empty() => {
                return Some(format!("it has {}", known.join(", ")));
            }
            Self::Several { .. } => "write the tag or reference behind a colon, or number the image: @0, @1",
            Self::NoPlatform { .. } => "choose another with --platform, or take every image with --all",
            Self::WouldChange { .. } => "leave --preserve-digests or --format out",
            Self::NoManifests => "copy to oci-archive:FILE or dir:DIR, or leave --preserve-digests out",
            Self::OnePlatformOnly => {
                "choose one with --platform, or copy all of them to oci:, oci-archive:, dir: or docker://; into the store, \
                 `onggi pull --all-platforms` brings them"
            }
            Self::OtherManifest { .. } => {
                "leave the digest out or write the manifest's own; of an index, --all keeps the digest"
            }
            Self::Exists { .. } => "remove it first, or choose another name",
            Self::Location { .. } => {
                "places are docker://REFERENCE, onggi:NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], \
                 docker-archive:FILE[:REFERENCE], dir:DIR"
            }
            Self::File { source, .. } | Self::Stream { source, .. } => return crate::error::io_hint(source),
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// What the store says of a stream, said of the archive that the caller has named: no registry is to blame for it.
pub(crate) fn of_archive(what: &str, e: crate::EngineError) -> crate::EngineError {
    use onggi_storage::StorageError;
    let damaged = match &e {
        crate::EngineError::Storage(StorageError::TruncatedStream { .. } | StorageError::CorruptStream { .. }) => true,
        crate::EngineError::Storage(StorageError::Archive { source }) => matches!(
            source.kind,
            TarErrorKind::Truncated | TarErrorKind::Checksum | TarErrorKind::Magic | TarErrorKind::EndlessZeros { .. }
        ),
        _ => false,
    };
    match e {
        crate::EngineError::Storage(source) if damaged => {
            FormatError::Unreadable { what: what.to_owned(), source: Box::new(source) }.into()
        }
        other => other,
    }
}

/// Attaches a path to a failed operation.
pub(crate) fn at(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> FormatError {
    let path = path.to_owned();
    move |source| FormatError::File { action, path, source }
}

/// A name from an archive, for a message.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).take(128).collect()
}

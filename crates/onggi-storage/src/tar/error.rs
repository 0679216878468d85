//! Why an archive was refused.

use std::fmt;

/// A tar archive that breaks the grammar, with the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarError {
    /// Byte offset of the header in the uncompressed stream.
    pub offset: u64,
    /// Name of the entry, cut to 128 characters; empty while it is unknown.
    pub entry: String,
    /// What is wrong.
    pub kind: TarErrorKind,
}

/// What is wrong with an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarErrorKind {
    /// The stream ended inside a header or a file.
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    /// Bytes other than zero after the end-of-archive blocks, or after a single zero block.
    #[error("there is data after the end of the archive")]
    TrailingData,
    /// Zeros without end after the end of the archive.
    #[error("the archive has ended, and more than {limit} bytes of zeros follow")]
    EndlessZeros {
        /// The bound in bytes.
        limit: u64,
    },
    /// The header's checksum does not match.
    #[error("bad header checksum")]
    Checksum,
    /// Neither POSIX, GNU nor V7 tar.
    #[error("unknown tar format")]
    Magic,
    /// A numeric field of the header is malformed.
    #[error("malformed number in the header field {field}")]
    Number {
        /// The field.
        field: &'static str,
    },
    /// A number that the kernel has no room for.
    #[error("{field} {value} is out of range")]
    Range {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// A type flag that Onggi does not unpack.
    #[error("unsupported entry type {:?}", char::from(*flag))]
    UnknownType {
        /// The flag byte.
        flag: u8,
    },
    /// An entry without content claims some: readers disagree on whether to skip it.
    #[error("an entry of type {:?} must not have content", char::from(*flag))]
    UnexpectedContent {
        /// The flag byte.
        flag: u8,
    },
    /// A regular file whose name ends in a slash: readers disagree on what it is.
    #[error("a regular file's name ends in '/'")]
    FileWithSlash,
    /// A link without a target.
    #[error("a link has no target")]
    EmptyTarget,
    /// A name or target that contains a NUL byte: readers disagree on where it ends.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// `"name"` or `"link target"`.
        what: &'static str,
    },
    /// A name or target beyond the limit.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// A malformed record of an extended header.
    #[error("malformed PAX record")]
    Pax,
    /// A key twice in one extended header, or one that must not be empty.
    #[error("PAX key {key} is repeated or empty")]
    PaxKey {
        /// The key.
        key: String,
    },
    /// A global header sets what only an entry's own header may: readers disagree on it.
    #[error("PAX global header sets {key}")]
    PaxGlobal {
        /// The key.
        key: String,
    },
    /// Two extended headers of one kind, or GNU and PAX ones together, before one entry.
    #[error("conflicting extension headers before one entry")]
    Extensions,
    /// Extension headers without an entry.
    #[error("extension headers without an entry")]
    Orphan,
    /// The PAX header's size contradicts the header's own (the CVE-2025-62518 class).
    #[error("PAX size {pax} contradicts the header's size {header}")]
    SizeDisagrees {
        /// Size in the extended header.
        pax: u64,
        /// Size in the header.
        header: u64,
    },
    /// A sparse map that is unordered, overlapping, too long, or does not match the stored bytes.
    #[error("invalid sparse map: {0}")]
    Sparse(&'static str),
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entry.is_empty() {
            // The offset is where the entry begins.
            let at = if self.kind == TarErrorKind::Truncated { "that begins at" } else { "at" };
            return write!(f, "{} {at} byte {}", self.kind, self.offset);
        }
        write!(f, "{} (entry {:?} at byte {})", self.kind, self.entry, self.offset)
    }
}

impl std::error::Error for TarError {}

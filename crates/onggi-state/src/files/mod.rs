//! Files that are not a database: what lives on tmpfs below the run root, and how files are written.
//!
//! ```text
//! <runroot>/
//!   intents/<id>             made and flocked by the process that is about to create things for <id>;
//!                            removed when the operation is complete; unlocked = its owner died
//!   locks/<name>             flocked, never removed
//!   leases/<network>/<ip>    content: container id; made by link(2), so never half-written
//!   pulled/<hash>            what the database said of a pull ([`memo`](crate::memo))
//! ```
//!
//! A crash leaves intents (unlocked by the kernel), leases, and `.<name>.tmp.*` files, each of which
//! the next command recognises. Nothing here opens a path inside a container's root filesystem.

mod atomic;
mod intent;
mod lease;
mod lock;
mod process;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use atomic::{Durability, Pending, atomic_write};
pub use intent::{Intent, Intents};
pub use lease::{Lease, Leases};
pub use lock::Lock;
pub use process::{ProcessIdentity, boot_id};

/// A failure on one of these files.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A system call failed.
    #[error("{operation} {path}")]
    Io {
        /// The operation in words: "lock".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name that could leave its directory or hide.
    #[error("{name:?} cannot be the name of a {kind}")]
    BadName {
        /// What it should name: "lease".
        kind: &'static str,
        /// The name, cut.
        name: String,
    },
    /// A file holds something that none of us writes.
    #[error("{path} holds something else than {expected}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
    },
    /// Another process is working on the same thing.
    #[error("another onggi process is working on {name}")]
    Busy {
        /// The container or other object.
        name: String,
    },
}

impl FileError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }
}

/// A single, visible path component of at most 255 bytes.
fn component<'n>(kind: &'static str, name: &'n str) -> Result<&'n str, FileError> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if (1..=255).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(ok) {
        return Ok(name);
    }
    Err(FileError::BadName { kind, name: name.chars().take(128).collect() })
}

/// A private directory; one that exists is left as it is.
pub(crate) fn make_dir(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| FileError::io("make the directory", path, e))
}

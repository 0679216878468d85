//! Every way in which the state can refuse, as an operation with its fields.

use std::path::PathBuf;

/// A failure of [`crate::State`].
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The root directory or the database file could not be made or opened.
    #[error("open the state database {path}")]
    Open {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a database, belongs to another program, or its content contradicts itself.
    #[error("the state database {path} is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Written by a newer Onggi.
    #[error("the state database {path} has schema {found}; this program knows up to {supported}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest version this program knows.
        supported: i64,
    },
    /// Another process held the write lock longer than the busy timeout.
    #[error("{operation}: another onggi process holds the state database")]
    Busy {
        /// What was being done.
        operation: &'static str,
    },
    /// The disk (or the quota) is full.
    #[error("{operation}: no space is left on the device of the state database {}", path.display())]
    DiskFull {
        /// What was being done.
        operation: &'static str,
        /// The database.
        path: PathBuf,
    },
    /// The database or its directory may not be written.
    #[error("{operation}: the state database is read-only for this user")]
    ReadOnly {
        /// What was being done.
        operation: &'static str,
    },
    /// The filesystem takes no writes at all.
    #[error("{operation}: the state database {} lies on a read-only file system", path.display())]
    ReadOnlyFilesystem {
        /// What was being done.
        operation: &'static str,
        /// The database.
        path: PathBuf,
    },
    /// SQLite failed in another way.
    #[error("{operation}")]
    Sql {
        /// What was being done.
        operation: &'static str,
        /// SQLite's own words.
        #[source]
        source: rusqlite::Error,
    },
    /// A record could not be written as JSON.
    #[error("{operation}: encode the record")]
    Encode {
        /// What was being done.
        operation: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A container of that name exists.
    #[error("the name {name:?} is already used by container {by}")]
    NameTaken {
        /// The name.
        name: String,
        /// Id of the container that has it.
        by: String,
    },
    /// A container of that id exists.
    #[error("a container with the id {id} exists already")]
    IdTaken {
        /// The id.
        id: String,
    },
    /// No such container.
    #[error("no such container: {reference}")]
    ContainerNotFound {
        /// What was asked for.
        reference: String,
    },
    /// Several ids begin like this.
    #[error("{reference:?} is ambiguous: several ids begin with it")]
    Ambiguous {
        /// What was asked for.
        reference: String,
    },
    /// No such image.
    #[error("no such image: {reference}")]
    ImageNotFound {
        /// What was asked for.
        reference: String,
    },
    /// A container refers to the image.
    #[error("image {image} is used by container {container}")]
    ImageInUse {
        /// Image id.
        image: String,
        /// Id of one container that uses it.
        container: String,
    },
}

impl StateError {
    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Damaged { path, .. } => format!(
                "move {} (and its -wal and -shm files) away: images are found again as recovered:ID; the list of containers is \
                 lost, their files stay in containers/ID/upper beside it",
                path.display()
            ),
            Self::Newer { .. } => "use the newer onggi, or another --root".into(),
            Self::Busy { .. } => "wait for the other command and try again".into(),
            Self::DiskFull { .. } => {
                "free space on that filesystem, for example with `onggi rm` and `onggi rmi`".into()
            }
            Self::ReadOnly { .. } => "run as the owner of the store, or use another --root".into(),
            Self::ReadOnlyFilesystem { .. } => {
                "mount it read-write, or use another --root; `save`, `image copy`, `push`, `history` and the inspections work".into()
            }
            Self::NameTaken { .. } => "choose another name, or remove that container first".into(),
            Self::Ambiguous { .. } => "give more digits of the id".into(),
            Self::ImageInUse { container, .. } => format!("remove container {} first, or force", short(container)),
            Self::ContainerNotFound { .. } => "`onggi ps -a` lists the containers".into(),
            Self::ImageNotFound { .. } => "`onggi images` lists the images".into(),
            Self::Open { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "run as the owner of the store, or use another --root".into()
            }
            Self::Open { .. } | Self::Sql { .. } | Self::Encode { .. } | Self::IdTaken { .. } => return None,
        })
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

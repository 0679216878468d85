//! What the files of `transfer` expect of the engine around them.

use onggi_spec::ParseError;
use onggi_storage::StorageError;
use thiserror::Error;

use crate::transfer::FormatError;

/// Why an archive is refused.
#[derive(Debug, Error)]
pub(crate) enum EngineError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Parse(#[from] ParseError),
}

pub(crate) mod error {
    /// Hints are for people.
    pub(crate) fn io_hint(_: &std::io::Error) -> Option<String> {
        None
    }
}

pub(crate) mod names {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::EngineError;

    /// Part of the name of a temporary file.
    pub(crate) struct Id(String);

    impl Id {
        pub(crate) fn short(&self) -> &str {
            &self.0
        }
    }

    /// Never the same again in this process.
    pub(crate) fn random_id() -> Result<Id, EngineError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Id(NEXT.fetch_add(1, Ordering::Relaxed).to_string()))
    }
}

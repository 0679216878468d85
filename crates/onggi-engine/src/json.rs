//! Small JSON files of the engine: read whole, written atomically.

use std::{fs, io, path::Path};

use onggi_state::files::{Durability, atomic_write};
use serde::{Serialize, de::DeserializeOwned};

use crate::EngineError;

/// Reads a file that may be absent.
pub(crate) fn read_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    match fs::read(path) {
        Ok(bytes) => parse(path, &bytes).map(Some),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(EngineError::ReadFile { path: path.to_owned(), source }),
    }
}

/// Reads a file that must be there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, EngineError> {
    let bytes = fs::read(path).map_err(|source| EngineError::ReadFile { path: path.to_owned(), source })?;
    parse(path, &bytes)
}

/// Writes `value` so that a reader sees the old file or the new one.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), EngineError> {
    let bytes = to_vec(path, value)?;
    Ok(atomic_write(path, &bytes, 0o600, Durability::Crash)?)
}

/// Serialises; fails only for a type that JSON cannot hold, which is a damaged document too.
pub(crate) fn to_vec<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, EngineError> {
    serde_json::to_vec(value).map_err(|source| EngineError::DamagedFile { path: path.to_owned(), source })
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(bytes).map_err(|source| EngineError::DamagedFile { path: path.to_owned(), source })
}

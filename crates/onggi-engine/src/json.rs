//! Small JSON files of the engine: read whole, written atomically.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use onggi_state::files::{Durability, Pending, atomic_write};
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

/// As [`write`], but the file has its name only once it is committed: from here on no disk space is needed.
pub(crate) fn prepare<T: Serialize>(path: &Path, value: &T) -> Result<Pending, EngineError> {
    Ok(Pending::write(path, &to_vec(path, value)?, 0o600)?)
}

/// Replaces what a file holds where it lies, for a full disk: a short text needs no space that it has not already. A
/// reader may see half of it.
pub(crate) fn overwrite<T: Serialize>(path: &Path, value: &T) -> Result<(), EngineError> {
    let bytes = to_vec(path, value)?;
    let failed = |source| EngineError::WriteFile { path: path.to_owned(), source };
    let mut file = fs::File::options().write(true).open(path).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.set_len(bytes.len() as u64)).map_err(failed)
}

/// Serialises; fails only for a type that JSON cannot hold, which is a damaged document too.
pub(crate) fn to_vec<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, EngineError> {
    serde_json::to_vec(value).map_err(|source| EngineError::DamagedFile { path: path.to_owned(), source })
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(bytes).map_err(|source| EngineError::DamagedFile { path: path.to_owned(), source })
}

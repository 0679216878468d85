//! Our own files: leased addresses, and the records from which a flushed table is rebuilt.

use std::{
    collections::BTreeSet,
    fs, io,
    net::Ipv4Addr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use onggi_spec::ContainerId;
use onggi_state::files::{Durability, FileError, Leases, atomic_write};

use crate::{
    error::NetworkError,
    types::{NETWORK, NetworkRecord},
};

/// A record with 65 535 published ports stays below this.
const MAX_RECORD: u64 = 16 * 1024 * 1024;

/// Leases of the default network.
pub(crate) fn leases(runroot: &Path) -> Result<Leases, NetworkError> {
    Leases::open(runroot, NETWORK).map_err(NetworkError::File)
}

/// Addresses in use, from the names alone; empty when the directory is missing or unreadable (a plan that is
/// only explained needs no privilege).
pub(crate) fn leased(runroot: &Path) -> BTreeSet<Ipv4Addr> {
    let Ok(entries) = fs::read_dir(runroot.join("leases").join(NETWORK)) else { return BTreeSet::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

fn directory(runroot: &Path) -> PathBuf {
    runroot.join("published")
}

fn path(runroot: &Path, id: &ContainerId) -> PathBuf {
    directory(runroot).join(format!("{id}.json"))
}

/// Writes the record of a container that publishes ports.
pub(crate) fn save(runroot: &Path, record: &NetworkRecord) -> Result<(), NetworkError> {
    let path = path(runroot, &record.id);
    let failed =
        |operation, path: &Path, source| NetworkError::File(FileError::Io { operation, path: path.to_owned(), source });
    let dir = directory(runroot);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| failed("create", &dir, e))?;
    let json = serde_json::to_vec(record)
        .map_err(|source| NetworkError::Record { path: path.display().to_string(), source })?;
    atomic_write(&path, &json, 0o600, Durability::Crash).map_err(NetworkError::File)
}

/// Removes it; a missing one is success.
pub(crate) fn remove(runroot: &Path, id: &ContainerId) -> Result<(), NetworkError> {
    let path = path(runroot, id);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(NetworkError::File(FileError::Io { operation: "remove", path, source: e }))
        }
        _ => Ok(()),
    }
}

/// Every record. One that cannot be read is skipped: it must not keep other containers from starting.
pub(crate) fn all(runroot: &Path) -> Vec<NetworkRecord> {
    let Ok(entries) = fs::read_dir(directory(runroot)) else { return Vec::new() };
    let mut records: Vec<NetworkRecord> = entries.flatten().filter_map(|e| read(&e.path())).collect();
    records.sort_by(|a, b| a.id.cmp(&b.id));
    records
}

fn read(path: &Path) -> Option<NetworkRecord> {
    use io::Read;
    path.extension().filter(|e| *e == "json")?;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_RECORD).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).inspect_err(|e| tracing::warn!(path = %path.display(), error = %e, "skipped")).ok()
}

//! Kernel settings below /proc/sys/net. They belong to the network namespace of the *thread* that opens them.

use std::{fs, io};

use crate::error::NetworkError;

/// `net.ipv4.ip_forward` → its file.
pub(crate) fn path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

/// The value without the newline; `None` when this kernel has no such setting.
pub(crate) fn read(key: &str) -> Result<Option<String>, NetworkError> {
    match fs::read_to_string(path(key)) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NetworkError::Setting { operation: "read", path: path(key), source }),
    }
}

/// Writes a value.
pub(crate) fn write(key: &str, value: &str) -> Result<(), NetworkError> {
    // Not fs::write: it would create and truncate, which a sysctl does not need.
    let open = fs::OpenOptions::new().write(true).open(path(key));
    open.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|source| NetworkError::Setting { operation: "write", path: path(key), source })
}

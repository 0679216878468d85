//! `certs.d`: which authorities a registry is trusted by, and the certificate by which we are known to it
//! (docker's documentation of certificates, containers-certs.d(5)).
//!
//! ```text
//! <certs.d>/<host>[:<port>]/*.crt          authorities
//! <certs.d>/<host>[:<port>]/<name>.cert    our certificate, with
//! <certs.d>/<host>[:<port>]/<name>.key     its key
//! ```

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::options::ClientIdentity;

/// Largest certificate file; bundles of all authorities have about 300 KiB.
const MAX_FILE: u64 = 4 << 20;

/// What a host's directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostCertificates {
    /// PEM texts.
    pub authorities: Vec<String>,
    /// The first pair in the order of names.
    pub identity: Option<ClientIdentity>,
}

/// A directory of certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One half of a pair is missing.
    #[error("{} is missing; a certificate needs its key", path.display())]
    Half {
        /// The missing file.
        path: PathBuf,
    },
}

/// The `certs.d` directories, the most specific first.
pub fn directories(env: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let path = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let user = path("XDG_CONFIG_HOME").or_else(|| path("HOME").map(|h| h.join(".config")));
    let user = user.map(|d| d.join("containers/certs.d"));
    user.into_iter().chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from)).collect()
}

/// What the first directory says that knows the registry.
///
/// # Errors
/// A file cannot be read, or a certificate has no key.
pub fn find(directories: &[PathBuf], registry: &str) -> Result<HostCertificates, CertificatesError> {
    for dir in directories {
        let found = read(&dir.join(registry))?;
        if found != HostCertificates::default() {
            return Ok(found);
        }
    }
    Ok(HostCertificates::default())
}

/// The content of one host's directory; nothing when there is none.
///
/// # Errors
/// As for [`find`].
pub fn read(dir: &Path) -> Result<HostCertificates, CertificatesError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificatesError::Read { path, source }
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(HostCertificates::default());
        }
        Err(source) => return Err(fail(dir)(source)),
    };
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(fail(dir))?;
    paths.sort();
    let mut found = HostCertificates::default();
    for path in &paths {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => found.authorities.push(text(path)?),
            Some("cert") if found.identity.is_none() => {
                let key = path.with_extension("key");
                if !key.exists() {
                    return Err(CertificatesError::Half { path: key });
                }
                found.identity = Some(ClientIdentity { certificate: text(path)?, key: text(&key)? });
            }
            Some("key") if !path.with_extension("cert").exists() => {
                return Err(CertificatesError::Half { path: path.with_extension("cert") });
            }
            _ => {}
        }
    }
    Ok(found)
}

fn text(path: &Path) -> Result<String, CertificatesError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|f| f.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|source| CertificatesError::Read { path: path.to_owned(), source })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_and_pairs_are_found_by_host_and_port() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("r.example:5000");
        fs::create_dir(&host).unwrap();
        for name in ["ca.crt", "client.cert", "client.key", "README"] {
            fs::write(host.join(name), name).unwrap();
        }
        let found = find(&[dir.path().join("absent"), dir.path().to_owned()], "r.example:5000").unwrap();
        assert_eq!(found.authorities, ["ca.crt"]);
        assert_eq!(found.identity.unwrap().key, "client.key");
        assert_eq!(find(&[dir.path().to_owned()], "r.example").unwrap(), HostCertificates::default());
        fs::remove_file(host.join("client.key")).unwrap();
        assert!(matches!(read(&host), Err(CertificatesError::Half { .. })));
    }
}

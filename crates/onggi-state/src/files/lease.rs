//! Addresses and other scarce things in use: one file for each, its content the container that has it.

use std::{
    fmt::Display,
    fs, io,
    marker::PhantomData,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    Durability, FileError,
    atomic::{temporary, write_new},
    component, make_dir,
};

/// Longest owner that is read back: a container id has 64 bytes, others are refused when written.
const MAX_OWNER: u64 = 256;

/// The leases of one network, `<runroot>/leases/<network>/`, or of another set of things whose names are files.
#[derive(Debug, Clone)]
pub struct Leases<T = Ipv4Addr> {
    dir: PathBuf,
    things: PhantomData<T>,
}

/// One thing in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease<T = Ipv4Addr> {
    /// The address.
    pub ip: T,
    /// The container that has it.
    pub owner: String,
}

impl Leases {
    /// The leases of `network`; the directory is made when missing.
    pub fn open(runroot: &Path, network: &str) -> Result<Self, FileError> {
        Self::at(runroot.join("leases").join(component("network", network)?))
    }
}

impl<T: Copy + Display + FromStr + Ord> Leases<T> {
    /// The leases in `dir`, which is made when missing.
    pub fn at(dir: PathBuf) -> Result<Self, FileError> {
        make_dir(&dir)?;
        Ok(Self { dir, things: PhantomData })
    }

    /// Takes `ip` for `owner`; false when another has it. Taking one's own again is true.
    pub fn acquire(&self, ip: T, owner: &str) -> Result<bool, FileError> {
        component("container", owner)?;
        let path = self.path(ip);
        let tmp = temporary(&path);
        write_new(&tmp, owner.as_bytes(), 0o600, Durability::Crash).map_err(|e| FileError::io("write", &tmp, e))?;
        // link(2) fails when the name exists and never shows a half-written file.
        let linked = fs::hard_link(&tmp, &path);
        fs::remove_file(&tmp).map_err(|e| FileError::io("remove", &tmp, e))?;
        match linked {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(self.owner(ip)?.as_deref() == Some(owner)),
            Err(e) => Err(FileError::io("lease", &path, e)),
        }
    }

    /// Who has `ip`.
    pub fn owner(&self, ip: T) -> Result<Option<String>, FileError> {
        let path = self.path(ip);
        match read_bounded(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(FileError::io("read the lease", &path, e)),
        }
    }

    /// Gives `ip` back if `owner` has it; true when it did. Idempotent.
    pub fn release(&self, ip: T, owner: &str) -> Result<bool, FileError> {
        if self.owner(ip)?.as_deref() != Some(owner) {
            return Ok(false);
        }
        let path = self.path(ip);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(FileError::io("remove the lease", &path, e)),
        }
    }

    /// Gives back every address of `owner` and returns them.
    pub fn release_all(&self, owner: &str) -> Result<Vec<T>, FileError> {
        let mut released = Vec::new();
        for lease in self.list()? {
            if lease.owner == owner && self.release(lease.ip, owner)? {
                released.push(lease.ip);
            }
        }
        Ok(released)
    }

    /// All leases, by address.
    pub fn list(&self) -> Result<Vec<Lease<T>>, FileError> {
        let fail = |e| FileError::io("list", &self.dir, e);
        let mut leases = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            let Some(ip) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
            if let Some(owner) = self.owner(ip)? {
                leases.push(Lease { ip, owner });
            }
        }
        leases.sort_by_key(|l| l.ip);
        Ok(leases)
    }

    fn path(&self, ip: T) -> PathBuf {
        self.dir.join(ip.to_string())
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_OWNER).read_to_string(&mut text)?;
    Ok(text)
}

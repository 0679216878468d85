//! What looking at a process can fail with.

use std::{
    io,
    path::{Path, PathBuf},
};

use onggi_sys::SysError;
use thiserror::Error;

/// A failed look.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PrimitiveError {
    /// There is no such process.
    #[error("there is no process {pid}")]
    NoProcess {
        /// Its number.
        pid: i32,
    },
    /// A file of /proc, or the file asked about, cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what the kernel writes there.
    #[error("{} does not look as the kernel writes it", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A file keeps no namespace.
    #[error("{} is no namespace", path.display())]
    NoNamespace {
        /// The file.
        path: PathBuf,
    },
    /// What is asked for cannot be.
    #[error("{message}")]
    Refused {
        /// What and why.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A system call failed.
    #[error("cannot {operation}")]
    Sys {
        /// What was tried.
        operation: String,
        /// Why.
        source: SysError,
    },
}

impl PrimitiveError {
    /// What the user may do about it.
    pub fn hint(&self) -> Option<&str> {
        let errno = match self {
            Self::NoProcess { .. } => return Some("ps -e lists processes, onggi ps lists containers"),
            Self::Read { path, source } if path.starts_with("/proc") && source.kind() == io::ErrorKind::NotFound => {
                return (!Path::new("/proc/self").exists())
                    .then_some("no proc is mounted here: mount -t proc proc /proc");
            }
            Self::Read { source, .. } => source.raw_os_error()?,
            Self::Sys { source, .. } => source.raw(),
            Self::NoNamespace { .. } => {
                return Some("files of /proc/PID/ns, and those that `ip netns add` and `unshare --net=FILE` make, are");
            }
            Self::Refused { hint, .. } => return Some(hint),
            Self::Format { .. } => return None,
        };
        let denied = [rustix::io::Errno::ACCESS, rustix::io::Errno::PERM].map(rustix::io::Errno::raw_os_error);
        denied.contains(&errno).then(|| match self {
            _ if rustix::process::geteuid().is_root() => {
                "you are root, but lack a capability for it here, or a security module forbids it: onggi caps show"
            }
            Self::Read { .. } => "another user's processes and files are shown to root only: try sudo",
            _ => "the kernel lets only root do that: try sudo, or a user namespace of your own: onggi ns run -r",
        })
    }
}

//! What an upper directory, or a layer, marks: overlayfs.rst, "whiteouts and opaque directories", "redirect_dir",
//! "Metadata only copy up".

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use onggi_sys::{
    Errno, SysError,
    fs::{self, FileType},
};
use serde::Serialize;

use crate::PrimitiveError;

/// Directories in each other that are followed: deeper ones cannot have a path either.
const MAX_DEPTH: usize = 2048;

/// A mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// A character device 0:0: the name is deleted.
    Whiteout,
    /// An empty file with `overlay.whiteout`: the same, without a device.
    WhiteoutFile,
    /// `overlay.opaque`: what is below the directory is hidden.
    Opaque,
    /// `overlay.redirect`: below, it has this name.
    Redirect(String),
    /// `overlay.metacopy`: only owner, mode and times are here; the content is below.
    MetadataOnly,
}

/// A path with its mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Marked {
    /// Without a leading slash.
    pub path: Vec<u8>,
    /// What it means.
    pub mark: Mark,
}

impl Mark {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::Whiteout => "whiteout: a character device 0:0 of this name hides what is below".to_owned(),
            Self::WhiteoutFile => "whiteout: an empty file with overlay.whiteout hides what is below".to_owned(),
            Self::Opaque => {
                "opaque directory (overlay.opaque=y): nothing of the directories below it is seen".to_owned()
            }
            Self::Redirect(from) => format!("renamed (overlay.redirect): below, it is {from}"),
            Self::MetadataOnly => "metadata only (overlay.metacopy): the content is still below".to_owned(),
        }
    }
}

/// Every mark below a directory, in byte order.
///
/// # Errors
/// The directory cannot be read.
pub fn marks(dir: &Path) -> Result<Vec<Marked>, PrimitiveError> {
    let failed = |source| PrimitiveError::Sys { operation: format!("read {}", dir.display()), source };
    let root = fs::open_dir(dir).map_err(failed)?;
    let mut found = Vec::new();
    walk(root.as_fd(), &mut Vec::new(), 0, &mut found).map_err(failed)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(dir: BorrowedFd<'_>, path: &mut Vec<u8>, depth: usize, found: &mut Vec<Marked>) -> Result<(), SysError> {
    for entry in fs::read_dir(dir)? {
        let (name, _) = entry?;
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        one(dir, &name, path, depth, found)?;
        path.truncate(length);
    }
    Ok(())
}

fn one(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &mut Vec<u8>,
    depth: usize,
    found: &mut Vec<Marked>,
) -> Result<(), SysError> {
    let handle = match fs::open_handle(dir, name) {
        // It has gone meanwhile.
        Err(e) if e.errno == Errno::NOENT => return Ok(()),
        other => other?,
    };
    let stat = fs::stat(handle.as_fd())?;
    let mut mark = |mark: Mark| found.push(Marked { path: path.clone(), mark });
    match fs::file_type(&stat) {
        FileType::CharacterDevice if stat.st_rdev == 0 => mark(Mark::Whiteout),
        FileType::RegularFile => {
            if stat.st_size == 0 && attribute(handle.as_fd(), "whiteout")?.is_some() {
                mark(Mark::WhiteoutFile);
            }
            if attribute(handle.as_fd(), "metacopy")?.is_some() {
                mark(Mark::MetadataOnly);
            }
            if let Some(from) = attribute(handle.as_fd(), "redirect")? {
                mark(Mark::Redirect(String::from_utf8_lossy(&from).into_owned()));
            }
        }
        FileType::Directory => {
            if attribute(handle.as_fd(), "opaque")?.is_some_and(|value| value == b"y") {
                mark(Mark::Opaque);
            }
            if let Some(from) = attribute(handle.as_fd(), "redirect")? {
                mark(Mark::Redirect(String::from_utf8_lossy(&from).into_owned()));
            }
            if depth < MAX_DEPTH {
                let inner = fs::open_dir_at(dir, name)?;
                walk(inner.as_fd(), path, depth + 1, found)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Of either namespace of attributes: mounts by root use one, those in user namespaces the other.
fn attribute(handle: BorrowedFd<'_>, name: &str) -> Result<Option<Vec<u8>>, SysError> {
    for space in ["trusted", "user"] {
        let value = fs::get_xattr_handle(handle, format!("{space}.overlay.{name}").as_bytes())?;
        if value.is_some() {
            return Ok(value);
        }
    }
    Ok(None)
}

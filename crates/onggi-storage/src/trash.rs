//! Atomic disappearance, and the collection of what is left in `tmp/`.
//!
//! Protocol for everything in `tmp/`: its owner holds a flock on it; whoever gets the lock of something may remove it.
//! An owner that has just created or waited for a thing checks after locking that the name still means it
//! ([`is_still`]) and starts again otherwise. Broken downloads (`blob-<digest>.part`) are nobody's for a while and stay: a later pull goes on
//! from them, and who keeps blobs removes those that are old.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use onggi_sys::fs::{self, FileType};
use onggi_sys::{Errno, SysError};

use crate::error::{Result, StoreContext};
use crate::rmtree;

/// Makes names in `tmp/` unique within this process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// True while `name` in `parent` is the very file that `fd` has open.
pub(crate) fn is_still(parent: BorrowedFd<'_>, name: &[u8], fd: BorrowedFd<'_>) -> std::result::Result<bool, SysError> {
    let ours = fs::stat(fd)?;
    match fs::stat_at(parent, name) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(e) if e.errno == Errno::NOENT => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes `root/dir/name`: first renames it into `tmp/`, so that it is gone at once, then deletes it there. On a full
/// disk the rename may fail; then it is deleted in place.
///
/// # Errors
/// The first call that failed.
pub(crate) fn discard(root: &Path, dir: &Path, name: &str) -> Result<()> {
    let from_path = root.join(dir);
    let from = match fs::open_dir(&from_path) {
        Err(e) if e.errno == Errno::NOENT => return Ok(()),
        other => other.store("open", &from_path)?,
    };
    let tmp_path = root.join("tmp");
    let tmp = fs::open_dir(&tmp_path).store("open", &tmp_path)?;
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let trash = format!("trash-{}-{number}-{}", std::process::id(), &name[..name.len().min(12)]);
        match fs::rename_new(from.as_fd(), name.as_bytes(), tmp.as_fd(), trash.as_bytes()) {
            Ok(()) => return rmtree::remove(tmp.as_fd(), trash.as_bytes()).store("remove", tmp_path.join(trash)),
            Err(e) if e.errno == Errno::NOENT => return Ok(()),
            Err(e) if e.errno == Errno::EXIST => {}
            Err(_) => return rmtree::remove(from.as_fd(), name.as_bytes()).store("remove", from_path.join(name)),
        }
    }
}

/// Removes everything in `tmp/` that nobody holds a lock on, but broken downloads.
///
/// # Errors
/// The first failure; the rest has been tried.
pub(crate) fn collect(root: &Path) -> Result<usize> {
    let path = root.join("tmp");
    let tmp = match fs::open_dir(&path) {
        Err(e) if e.errno == Errno::NOENT => return Ok(0),
        other => other.store("open", &path)?,
    };
    let mut removed = 0;
    let mut failure = None;
    for entry in fs::read_dir(tmp.as_fd()).store("read", &path)? {
        let (name, _) = entry.store("read", &path)?;
        if is_download(&name) {
            continue;
        }
        match collect_one(tmp.as_fd(), &name) {
            Ok(gone) => removed += usize::from(gone),
            Err(e) => {
                failure.get_or_insert((name, e));
            }
        }
    }
    match failure {
        None => Ok(removed),
        Some((name, e)) => Err(e).store("remove", path.join(String::from_utf8_lossy(&name).as_ref())),
    }
}

/// Half a blob whose digest is known. One without is nobody's when its writer is gone.
fn is_download(name: &[u8]) -> bool {
    let digest = name.strip_prefix(b"blob-").and_then(|rest| rest.strip_suffix(b".part"));
    digest.is_some_and(|hex| hex.len() == 64 && hex.iter().all(u8::is_ascii_hexdigit))
}

fn collect_one(tmp: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<bool, SysError> {
    let Some(lock) = open_unlocked(tmp, name)? else { return Ok(false) };
    rmtree::remove(tmp, name)?;
    drop(lock);
    Ok(true)
}

/// Opens and locks a thing in `tmp/`; `None` when someone has it or it is gone.
fn open_unlocked(tmp: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<Option<OwnedFd>, SysError> {
    let handle = match fs::open_handle(tmp, name) {
        Err(e) if e.errno == Errno::NOENT => return Ok(None),
        other => other?,
    };
    let stat = fs::stat(handle.as_fd())?;
    if !matches!(fs::file_type(&stat), FileType::Directory | FileType::RegularFile) {
        // Cannot be locked, so it is nobody's.
        return Ok(Some(handle));
    }
    let fd = fs::reopen_read(handle.as_fd())?;
    let ours = fs::try_lock(&fd)? && is_still(tmp, name, fd.as_fd())?;
    Ok(ours.then_some(fd))
}

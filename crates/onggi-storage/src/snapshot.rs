//! Root filesystems of containers, as descriptions: the overlay itself is mounted by the sandbox.
//!
//! The upper directory gets mode and owner of the topmost lower root, because overlayfs shows the upper's. Nothing here
//! mounts. `containers/<id>` is 0700: what a container writes may be setuid.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use onggi_spec::monitor::{OverlayMount, RootFs, SubOverlay};
use onggi_spec::{ContainerId, Digest};
use onggi_sys::{Errno, fs, trace};

use crate::driver::{self, Changes};
use crate::error::{Result, StorageError, StoreContext};
use crate::extract::Privilege;
use crate::host_view::{self, HostMounts};
use crate::layers::Layers;
use crate::limits::MAX_LOWER;
use crate::{make_dir, rmtree, trash};

/// What snapshots own inside `containers/<id>`.
const PARTS: [&str; 7] = ["upper", "work", "sub", "empty", "skeleton", "rootfs", "made"];

/// A writable root filesystem above an image's layers. `chain_ids`: bottom first, as the image's `diff_ids` are.
/// Idempotent: what exists is kept, so it serves `start` as well as `create`.
///
/// # Errors
/// A layer is missing, there are too many, or a directory cannot be made.
pub fn snapshot(layers: &Layers, id: &ContainerId, chain_ids: &[Digest]) -> Result<RootFs> {
    let what = || format!("make the writable layer of {} on {} layers", id.short(), chain_ids.len());
    trace::step("storage", what, || snapshot_on(layers, id, chain_ids))
}

fn snapshot_on(layers: &Layers, id: &ContainerId, chain_ids: &[Digest]) -> Result<RootFs> {
    let stack = stack(layers, chain_ids)?;
    layers.driver().snapshot(&container_dir(layers.root(), id)?, &stack)
}

/// What a container changed, as a tree with overlayfs's marks.
///
/// # Errors
/// A layer is missing, or the filesystem fails.
pub fn changes(layers: &Layers, id: &ContainerId, chain_ids: &[Digest]) -> Result<Changes> {
    let dir = layers.root().join("containers").join(id.as_str());
    match dir.join("upper").is_dir() {
        // Whatever the driver: views of this machine and of other directories are overlays.
        true => driver::overlaid(&dir),
        false => layers.driver().changes(&dir, &stack(layers, chain_ids)?),
    }
}

/// Bytes of the files that a container has written.
///
/// # Errors
/// A layer is missing, or the filesystem fails.
pub fn written(layers: &Layers, id: &ContainerId, chain_ids: &[Digest]) -> Result<u64> {
    let dir = layers.root().join("containers").join(id.as_str());
    match dir.join("upper").is_dir() {
        true => crate::usage::contents(&dir.join("upper")),
        false => layers.driver().usage(&dir, &stack(layers, chain_ids)?),
    }
}

/// The directories of layers, topmost first, down to one that hides the rest.
pub(crate) fn stack(layers: &Layers, chain_ids: &[Digest]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::with_capacity(chain_ids.len());
    for chain_id in chain_ids.iter().rev() {
        let missing = || StorageError::MissingLayer { chain_id: chain_id.clone() };
        let info = layers.get(chain_id)?.ok_or_else(missing)?;
        found.push(layers.dir(chain_id));
        // overlayfs merges roots whatever their attributes say.
        if info.opaque_root {
            break;
        }
    }
    Ok(found)
}

/// A copy-on-write view of this machine: `/` below, an upper directory of our own; the real submounts (outermost first)
/// get an overlay each, since overlayfs does not cross mounts; `hidden` directories are shown empty, and so is the data
/// root, which would otherwise contain itself. Without privilege the root is put together from pieces, see
/// `host_view.rs`.
///
/// # Errors
/// A directory cannot be made.
pub fn host_snapshot(
    root: &Path,
    id: &ContainerId,
    mounts: HostMounts<'_>,
    hidden: &[PathBuf],
) -> Result<OverlayMount> {
    let dir = container_dir(root, id)?;
    let (lower, submounts) = match Privilege::of_this_process() {
        Privilege::Full => (PathBuf::from("/"), mounts.real.to_vec()),
        Privilege::Limited => {
            let skeleton = dir.join("skeleton");
            make_dir(&skeleton, 0o755)?;
            let submounts = host_view::lay_out(&skeleton, mounts)?;
            (skeleton, submounts)
        }
    };
    let mut mount = overlay(&dir, vec![lower])?;
    make_dir(&dir.join("sub"), 0o700)?;
    for (number, path) in submounts.into_iter().enumerate() {
        let base = dir.join("sub").join(number.to_string());
        make_dir(&base, 0o700)?;
        match upper_and_work(&base, &path) {
            Ok((upper, work)) => mount.submounts.push(SubOverlay { path, upper, work }),
            // It went away since the host was looked at.
            Err(StorageError::Store { source, .. }) if source.errno == Errno::NOENT => {}
            Err(e) => return Err(e),
        }
    }
    let mut hidden: Vec<_> = hidden.iter().cloned().chain([root.to_path_buf()]).collect();
    hidden.sort();
    hidden.dedup();
    mount.hidden = hidden;
    Ok(mount)
}

/// A writable layer on top of a directory that somebody else keeps.
///
/// # Errors
/// The directory cannot be opened, or ours cannot be made.
pub fn rootfs_snapshot(root: &Path, id: &ContainerId, rootfs: &Path) -> Result<OverlayMount> {
    overlay(&container_dir(root, id)?, vec![rootfs.to_path_buf()])
}

fn container_dir(root: &Path, id: &ContainerId) -> Result<PathBuf> {
    make_dir(&root.join("containers"), 0o711)?;
    let dir = root.join("containers").join(id.as_str());
    make_dir(&dir, 0o700)?;
    Ok(dir)
}

pub(crate) fn overlay(dir: &Path, lower: Vec<PathBuf>) -> Result<OverlayMount> {
    if lower.len() > MAX_LOWER {
        return Err(StorageError::TooManyLayers { count: lower.len(), max: MAX_LOWER });
    }
    let (upper, work) = upper_and_work(dir, &lower[0])?;
    let userxattr = Privilege::of_this_process() == Privilege::Limited;
    Ok(OverlayMount { lower, upper, work, userxattr, volatile: false, submounts: Vec::new(), hidden: Vec::new() })
}

/// Makes `upper` with mode and owner of `like`, and `work`.
fn upper_and_work(dir: &Path, like: &Path) -> Result<(PathBuf, PathBuf)> {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    let base = fs::open_dir(dir).store("open", dir)?;
    make_dir(&work, 0o700)?;
    match fs::make_dir(base.as_fd(), b"upper", 0o700) {
        Err(e) if e.errno == Errno::EXIST => return Ok((upper, work)),
        other => other.store("create", &upper)?,
    }
    let made = fs::open_dir(&upper).store("open", &upper)?;
    let model = fs::open_dir(like).store("open", like)?;
    let stat = fs::stat(model.as_fd()).store("read", like)?;
    match fs::chown(made.as_fd(), stat.st_uid, stat.st_gid) {
        // Without privilege the host's `/` is somebody else's: inside the user namespace we are root anyway.
        Err(e)
            if matches!(e.errno, Errno::PERM | Errno::INVAL) && Privilege::of_this_process() == Privilege::Limited => {}
        other => other.store("change", &upper)?,
    }
    fs::chmod(made.as_fd(), stat.st_mode & 0o7777).store("change", &upper)?;
    Ok((upper, work))
}

/// Removes what a container has written. Idempotent.
///
/// # Errors
/// The filesystem fails; every part has been tried.
pub fn remove_snapshot(root: &Path, id: &ContainerId) -> Result<()> {
    let dir = Path::new("containers").join(id.as_str());
    let results = PARTS.map(|part| trash::discard(root, &dir, part));
    results.into_iter().collect()
}

/// Removes `containers/<id>` with everything in it: it disappears at once. Idempotent.
///
/// # Errors
/// The filesystem fails; what is left lies in `tmp/`.
pub fn remove_container_dir(root: &Path, id: &ContainerId) -> Result<()> {
    trace::step("storage", || format!("remove the directory of {}", id.short()), || discard_dir(root, id))
}

fn discard_dir(root: &Path, id: &ContainerId) -> Result<()> {
    let done = trash::discard(root, Path::new("containers"), id.as_str());
    // A second look, in case another process had moved it aside and died.
    let path = root.join("containers");
    match fs::open_dir(&path) {
        Ok(dir) if done.is_err() => rmtree::remove(dir.as_fd(), id.as_str().as_bytes()).store("remove", path),
        _ => done,
    }
}

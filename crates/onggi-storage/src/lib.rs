//! Layers and root filesystems.
//!
//! Blobs become layers ([`Layers`]), layers become a root filesystem ([`snapshot`]), and a root filesystem can be
//! read without mounting it ([`view`]). Nothing here downloads, mounts or knows of containers beyond their ids.
//!
//! On disk, below the data root (0711, or 0700 without root):
//!
//! ```text
//! layers/                    0700: nobody else reaches the images' setuid files
//!   <hex of ChainID>/
//!     diff/                  the unpacked layer, as overlayfs wants it
//!     tree/                  drivers btrfs and vfs: this layer above all below it (see [`driver`])
//!     layer.tree             what diff/ held when it was committed: damage is found by it
//!     layer.json             LayerInfo
//! driver                     name of the storage driver that made the store
//! tmp/                       0700
//!   layer-<hex>/             an unpack in flight; its directory is flocked by the one who does it
//!   trash-…/                 on its way out
//! containers/<id>/           0700
//!   upper/ work/             what the container writes
//!   rootfs/ made             drivers btrfs and vfs: its whole root filesystem, and when that was complete
//!   sub/<n>/{upper,work}/    the same for real submounts of a host: view
//! ```
//!
//! A layer appears by one rename, after everything in it has reached the disk: a directory below `layers/` is
//! complete, also after a power cut. A crash leaves unlocked things in `tmp/`, which [`Layers::gc`] removes.

mod apart;
mod chain;
pub mod compress;
pub mod decompress;
pub mod diff;
pub mod driver;
pub mod error;
pub mod extract;
mod flush;
mod host_view;
mod image_view;
mod inherit;
mod known;
mod layers;
pub mod limits;
mod pipeline;
mod record;
mod rmtree;
pub mod snapshot;
pub mod tar;
mod trash;
mod usage;
pub mod view;
mod whiteout_of;

use std::os::fd::AsFd;
use std::path::Path;

use onggi_sys::{Errno, fs};

pub use apart::{Passed, decompress_apart};
pub use chain::{chain_id, chain_ids};
pub use driver::{Changes, Driver, DriverKind};
pub use error::{EntryProblem, InRootProblem, Result, StorageError};
pub use extract::Privilege;
pub use flush::flushing_meanwhile;
pub use host_view::HostMounts;
pub use image_view::{ImageView, image_view};
pub use layers::{LayerInfo, Layers, Prepared, UnpackRequest};
pub use record::Verdict;
pub use snapshot::{changes, host_snapshot, remove_container_dir, remove_snapshot, rootfs_snapshot, snapshot, written};
pub use view::{
    Examination, Executable, ExecutableProblem, ExecutableQuery, examine_command, find_executable, read_in_root,
    resolve_user,
};

/// Makes a directory of the store with exactly this mode; one that exists keeps its own.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    use error::StoreContext;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let dir = fs::open_dir(parent).store("open", parent)?;
    match fs::make_dir(dir.as_fd(), name, mode) {
        Err(e) if e.errno == Errno::EXIST => return Ok(()),
        other => other.store("create", path)?,
    }
    let made = fs::open_dir(path).store("open", path)?;
    fs::chmod(made.as_fd(), mode).store("change", path)
}

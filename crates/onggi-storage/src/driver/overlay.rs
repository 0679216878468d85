//! The default driver: overlayfs with the layers' own trees as lower directories.
//!
//! The mount itself is made by the sandbox, inside the container's mount namespace. Its options, and why:
//!
//! | Option | Ours | Reason |
//! |---|---|---|
//! | `metacopy` | off | an upper file without its data would make `commit`, `diff` and a copy of `upper/` wrong, and attributes that lead to data are not to be trusted in content that others wrote |
//! | `redirect_dir` | off | renaming a directory of an image copies it (`EXDEV`, as on Docker); with redirects an upper directory cannot be read without resolving them |
//! | `index`, `nfs_export` | off | no hard-link identity across copy-up is promised by any engine; an index ties an upper to one mount of one lower |
//! | `volatile` | for containers of `--rm` | nothing of them is to outlive a crash. Otherwise each end of a container waits until everything that the whole filesystem of the store has in memory is on the disk (`ovl_sync_fs`). Off for all others: it drops `fsync` inside the container and makes the upper unusable after a crash |
//! | `userxattr` | without root | the only namespace of marks that a user namespace may write; layers carry both |
//! | `xino` | kernel's choice | constant inode numbers where the filesystems leave the bits |
//!
//! Debian's, Ubuntu's and the vanilla kernels' own defaults are these values.

use std::path::{Path, PathBuf};

use onggi_spec::monitor::RootFs;

use super::{Changes, Driver, DriverKind, LayerDir};
use crate::error::Result;
use crate::image_view::ImageView;
use crate::make_dir;
use crate::snapshot::overlay;

/// overlayfs.
#[derive(Debug)]
pub(super) struct Overlay;

impl Driver for Overlay {
    fn kind(&self) -> DriverKind {
        DriverKind::Overlay
    }

    fn complete_layer(&self, _layer: LayerDir<'_>, _below: Option<&Path>) -> Result<()> {
        Ok(())
    }

    fn snapshot(&self, dir: &Path, layers: &[PathBuf]) -> Result<RootFs> {
        let mut lower: Vec<PathBuf> = layers.iter().map(|layer| layer.join("diff")).collect();
        if lower.is_empty() {
            // An image without layers; overlayfs wants at least one.
            make_dir(&dir.join("empty"), 0o755)?;
            lower.push(dir.join("empty"));
        }
        overlay(dir, lower).map(RootFs::Overlay)
    }

    fn image(&self, layers: &[PathBuf]) -> ImageView {
        ImageView::Layers(layers.iter().map(|layer| layer.join("diff")).collect())
    }

    fn changes(&self, dir: &Path, _layers: &[PathBuf]) -> Result<Changes> {
        Ok(Changes { upper: dir.join("upper"), temporary: None })
    }

    fn usage(&self, dir: &Path, _layers: &[PathBuf]) -> Result<u64> {
        crate::usage::contents(&dir.join("upper"))
    }
}

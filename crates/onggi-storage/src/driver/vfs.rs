//! Plain directories, for filesystems that carry no overlay: every container has a full copy of its image.
//!
//! A layer's tree consists of hard links to files of the layers' `diff/`, so trees cost names and no data; they are never
//! written. A container's copy shares extents where the filesystem can (XFS, btrfs, bcachefs), else it is copied inside
//! the kernel with its holes.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use onggi_spec::monitor::RootFs;
use onggi_sys::fs;

use super::tree::{self, MADE, Marks, ROOTFS, Sharing, TREE};
use super::{Changes, Driver, DriverKind, LayerDir};
use crate::error::{Result, StoreContext};
use crate::image_view::ImageView;
use crate::{make_dir, rmtree};

/// Copies.
#[derive(Debug)]
pub(super) struct Vfs {
    root: PathBuf,
}

impl Vfs {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

impl Driver for Vfs {
    fn kind(&self) -> DriverKind {
        DriverKind::Vfs
    }

    fn complete_layer(&self, layer: LayerDir<'_>, below: Option<&Path>) -> Result<()> {
        let made = layer.path.join(TREE);
        make_dir(&made, 0o700)?;
        if let Some(below) = below.filter(|_| !layer.opaque_root) {
            tree::merge(&below.join(TREE), &made, Sharing::Link, Marks::Keep)?;
        }
        tree::merge(&layer.path.join("diff"), &made, Sharing::Link, Marks::Apply)
    }

    fn snapshot(&self, dir: &Path, layers: &[PathBuf]) -> Result<RootFs> {
        if dir.join(MADE).exists() {
            return Ok(RootFs::Path);
        }
        // What a copy that was cut short left.
        let parent = fs::open_dir(dir).store("open", dir)?;
        rmtree::remove(parent.as_fd(), ROOTFS.as_bytes()).store("clear", dir)?;
        let rootfs = dir.join(ROOTFS);
        make_dir(&rootfs, 0o755)?;
        if let Some(top) = layers.first() {
            tree::merge(&top.join(TREE), &rootfs, Sharing::Copy, Marks::Keep)?;
        }
        tree::mark_made(dir, &rootfs)?;
        Ok(RootFs::Path)
    }

    fn image(&self, layers: &[PathBuf]) -> ImageView {
        layers.first().map_or(ImageView::Layers(Vec::new()), |top| ImageView::Tree(top.join(TREE)))
    }

    fn changes(&self, dir: &Path, layers: &[PathBuf]) -> Result<Changes> {
        tree::changes(&self.root, dir, layers.first().map(PathBuf::as_path))
    }

    fn usage(&self, dir: &Path, layers: &[PathBuf]) -> Result<u64> {
        tree::usage(dir, layers.first().map(PathBuf::as_path))
    }
}

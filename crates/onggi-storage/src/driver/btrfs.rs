//! btrfs: one subvolume per layer that holds everything up to it, one snapshot per container.
//!
//! A layer's subvolume is a snapshot of the one below, changed by the layer; file contents are shared with `diff/` by
//! reflink, so both together cost the layer's data once. A container starts in constant time and its root is an
//! ordinary directory of the filesystem: no overlay, no copy-up of large files.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use onggi_spec::monitor::RootFs;
use onggi_sys::{Errno, clone_data, fs};

use super::tree::{self, Marks, ROOTFS, Sharing, TREE};
use super::{Changes, Driver, DriverKind, LayerDir};
use crate::error::{Result, StorageError, StoreContext};
use crate::image_view::ImageView;

/// btrfs.
#[derive(Debug)]
pub(super) struct Btrfs {
    root: PathBuf,
}

impl Btrfs {
    /// Refuses another filesystem.
    pub(super) fn new(root: &Path) -> Result<Self> {
        let dir = fs::open_dir(root).store("open", root)?;
        if !clone_data::is_btrfs(dir.as_fd()).store("read", root)? {
            return Err(StorageError::NotBtrfs { root: root.to_owned() });
        }
        Ok(Self { root: root.to_owned() })
    }

    /// `name` in `dir` as a snapshot of the tree of `layer`, or empty.
    fn subvolume(&self, dir: &Path, name: &str, layer: Option<&Path>) -> Result<PathBuf> {
        let path = dir.join(name);
        let parent = fs::open_dir(dir).store("open", dir)?;
        match layer {
            None => clone_data::make_subvolume(parent.as_fd(), name.as_bytes()).store("create", &path)?,
            Some(layer) => {
                let source_path = layer.join(TREE);
                let source = fs::open_dir(&source_path).store("open", &source_path)?;
                clone_data::snapshot_subvolume(source.as_fd(), parent.as_fd(), name.as_bytes())
                    .store("create", &path)?;
            }
        }
        Ok(path)
    }
}

impl Driver for Btrfs {
    fn kind(&self) -> DriverKind {
        DriverKind::Btrfs
    }

    fn complete_layer(&self, layer: LayerDir<'_>, below: Option<&Path>) -> Result<()> {
        let below = below.filter(|_| !layer.opaque_root);
        let made = self.subvolume(layer.path, TREE, below)?;
        tree::merge(&layer.path.join("diff"), &made, Sharing::Copy, Marks::Apply)
    }

    fn snapshot(&self, dir: &Path, layers: &[PathBuf]) -> Result<RootFs> {
        match self.subvolume(dir, ROOTFS, layers.first().map(PathBuf::as_path)) {
            Err(StorageError::Store { source, .. }) if source.errno == Errno::EXIST => {}
            other => tree::mark_made(dir, &other?)?,
        }
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

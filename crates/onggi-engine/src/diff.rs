//! `diff`: what a container has changed in its image, or how two images differ. And the trees that `commit` and `export`
//! read.

use std::path::PathBuf;

use onggi_spec::{
    Digest,
    monitor::{OverlayMount, RootFs},
    request::ImageSource,
};
use onggi_state::ContainerRecord;
use onggi_storage::{
    Changes,
    diff::{self, Change, DiffOptions, Tree},
};

use crate::{Engine, EngineError};

/// What a start makes in a container's root as targets of its own mounts. Docker makes the same in a layer of its own,
/// which is in no image either.
const STUBS: [&str; 17] = [
    ".dockerenv",
    "dev",
    "dev/console",
    "dev/mqueue",
    "dev/pts",
    "dev/shm",
    "etc",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "proc",
    "run",
    "run/.containerenv",
    "sys",
    "sys/fs",
    "sys/fs/cgroup",
];

/// A container's trees: with and without what it has written.
pub(crate) struct Trees {
    pub(crate) new: Tree,
    pub(crate) old: Tree,
    pub(crate) mount: OverlayMount,
    /// The tree of changes may exist for this answer only.
    _changes: Option<Changes>,
}

impl Engine {
    /// What a container has changed, or what differs from `other` (an image or a container); for an image alone, what
    /// its topmost layer changed.
    ///
    /// # Errors
    /// There is no such container or image, or a tree cannot be read.
    pub fn diff(&self, name: &str, other: Option<&str>) -> Result<Vec<Change>, EngineError> {
        self.recover()?;
        let container = self.find(name).ok();
        let against = other.is_some_and(|other| self.find(other).is_ok());
        let stubs: &[&str] = if container.is_some() || against { &STUBS } else { &[] };
        let options = DiffOptions { stubs, stubs_in_old: against };
        let mut kept = Vec::new();
        let (new, old) = match (container, other) {
            (Some(record), None) => return self.container_changes(&record, options),
            (Some(record), Some(other)) => (self.container_tree(&record, &mut kept)?, self.any_tree(other, &mut kept)?),
            (None, None) => {
                let ids = self.find_image(name).map_err(EngineError::or_container)?.chain_ids;
                let below = ids.len().saturating_sub(1);
                (self.image_tree(&ids)?, self.image_tree(&ids[..below])?)
            }
            (None, Some(other)) => {
                let image = self.find_image(name).map_err(EngineError::or_container)?;
                (self.image_tree(&image.chain_ids)?, self.any_tree(other, &mut kept)?)
            }
        };
        Ok(diff::changes(&new, &old, options)?)
    }

    fn container_changes(
        &self,
        record: &ContainerRecord,
        options: DiffOptions<'_>,
    ) -> Result<Vec<Change>, EngineError> {
        let trees = self.trees(record)?;
        let mut all = diff::changes(&trees.new, &trees.old, options)?;
        for sub in &trees.mount.submounts {
            let new = Tree::open([&sub.upper, &sub.path])?;
            let prefix = sub.path.as_os_str().as_encoded_bytes();
            let prefix = prefix.strip_prefix(b"/").unwrap_or(prefix);
            for change in diff::changes(&new, &new.below(1), DiffOptions::default())? {
                all.push(Change { path: [prefix, b"/", &change.path].concat(), ..change });
            }
        }
        all.sort();
        Ok(all)
    }

    /// What a container sees. Drivers that keep whole trees make its changes for the question: `kept` holds them.
    fn container_tree(&self, record: &ContainerRecord, kept: &mut Vec<Changes>) -> Result<Tree, EngineError> {
        let Trees { new, _changes, .. } = self.trees(record)?;
        kept.extend(_changes);
        Ok(new)
    }

    fn any_tree(&self, name: &str, kept: &mut Vec<Changes>) -> Result<Tree, EngineError> {
        match self.find(name) {
            Ok(record) => self.container_tree(&record, kept),
            Err(_) => self.image_tree(&self.find_image(name)?.chain_ids),
        }
    }

    /// The tree of an image's layers.
    pub(crate) fn image_tree(&self, chain_ids: &[Digest]) -> Result<Tree, EngineError> {
        Ok(Tree::open(self.layer_dirs(chain_ids)?)?)
    }

    /// The unpacked layers, topmost first, down to one that hides the rest.
    pub(crate) fn layer_dirs(&self, chain_ids: &[Digest]) -> Result<Vec<PathBuf>, EngineError> {
        let layers = self.layers()?;
        let mut dirs = Vec::new();
        for chain_id in chain_ids.iter().rev() {
            let missing = || onggi_storage::StorageError::MissingLayer { chain_id: chain_id.clone() };
            let info = layers.get(chain_id)?.ok_or_else(missing)?;
            dirs.push(layers.diff_dir(chain_id));
            if info.opaque_root {
                break;
            }
        }
        Ok(dirs)
    }

    /// A container's trees.
    pub(crate) fn trees(&self, record: &ContainerRecord) -> Result<Trees, EngineError> {
        let bundle = self.paths.bundle(&record.id);
        let rootfs = self.rootfs_of(record)?;
        let (mount, changes) = match rootfs {
            RootFs::Overlay(mount) => (mount, None),
            // A copy: its driver tells what in it is not the image's.
            RootFs::Path => {
                let changes = onggi_storage::snapshot::changes(&self.layers()?, &record.id, &record.chain_ids)?;
                let mut mount = onggi_storage::driver::lookup_view(&RootFs::Path, &bundle);
                mount.lower = self.layer_dirs(&record.chain_ids)?;
                mount.upper.clone_from(&changes.upper);
                (mount, Some(changes))
            }
        };
        let new = Tree::open(std::iter::once(&mount.upper).chain(&mount.lower))?;
        let old = new.below(1);
        Ok(Trees { new, old, mount, _changes: changes })
    }

    /// The trees of a container whose root is made of layers or of a directory, not a view of this machine.
    pub(crate) fn own_trees(&self, record: &ContainerRecord, verb: &'static str) -> Result<Trees, EngineError> {
        if record.request.image == ImageSource::Host {
            return Err(EngineError::Unsupported {
                what: format!("{verb} of a container on host:"),
                reason: "its root is this whole machine".to_owned(),
                hint: "make an image of the programs you need with `onggi image from-binary`".to_owned(),
            });
        }
        self.trees(record)
    }
}

/// Which new files of a container are not its own.
pub(crate) fn container_options() -> DiffOptions<'static> {
    DiffOptions { stubs: &STUBS, stubs_in_old: false }
}

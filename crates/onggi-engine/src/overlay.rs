//! Overlays that people made by hand, and those of containers and images: what changed, as a layer, and how the names of
//! layers come about.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use onggi_spec::{Digest, ImageSource};
use onggi_storage::{
    diff::{self, Change, DiffOptions, Tree},
    limits::MAX_LOWER,
};
use sha2::{Digest as _, Sha256};

use crate::{Engine, EngineError, status::Status};

/// One layer of an image, and how its names are computed (image-spec, "Layer ChainID").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerStep {
    /// SHA-256 of the layer's uncompressed tar.
    pub diff_id: Digest,
    /// What it is on top of.
    pub parent: Option<Digest>,
    /// SHA-256 of `PARENT DIFFID`; the DiffID itself at the bottom.
    pub chain_id: Digest,
    /// The directory of its files.
    pub dir: PathBuf,
}

/// The layers of an image or a container.
#[derive(Debug, Clone, Default)]
pub struct LayerSteps {
    /// Name of the image, where there is one.
    pub image: Option<String>,
    /// Bottom first.
    pub layers: Vec<LayerStep>,
    /// What a container has on top.
    pub container: Option<ContainerOverlay>,
}

/// The overlay of a container.
#[derive(Debug, Clone)]
pub struct ContainerOverlay {
    /// Its id.
    pub id: String,
    /// Topmost first, as the mount has them.
    pub lower: Vec<PathBuf>,
    /// What it writes.
    pub upper: PathBuf,
    /// The kernel's own directory.
    pub work: PathBuf,
    /// Where it is seen from outside, while it runs.
    pub merged: Option<PathBuf>,
}

/// A layer that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenLayer {
    /// SHA-256 of the tar.
    pub diff_id: Digest,
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Bytes of the tar.
    pub size: u64,
}

/// Whose overlay it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayOf {
    /// Somebody's.
    Mount,
    /// A container's: the empty mount points that its start made are not its changes.
    Container,
}

impl OverlayOf {
    fn options(self) -> DiffOptions<'static> {
        match self {
            Self::Mount => DiffOptions::default(),
            Self::Container => crate::diff::container_options(),
        }
    }
}

/// What an upper directory changes in the lower ones, which are topmost first.
///
/// # Errors
/// A directory cannot be read.
pub fn overlay_changes(of: OverlayOf, upper: &Path, lower: &[PathBuf]) -> Result<Vec<Change>, EngineError> {
    let (new, old) = trees(upper, lower)?;
    Ok(diff::changes(&new, &old, of.options())?)
}

/// Writes what an upper directory changes as an OCI layer, uncompressed: whiteouts become `.wh.` files.
///
/// # Errors
/// A directory cannot be read, or `out` not be written.
pub fn overlay_layer(
    of: OverlayOf,
    upper: &Path,
    lower: &[PathBuf],
    out: impl Write,
) -> Result<WrittenLayer, EngineError> {
    let (new, old) = trees(upper, lower)?;
    let hashing = Hashing { out, hash: Sha256::new(), size: 0 };
    let (hashing, written) = diff::write_layer(hashing, &new, &old, of.options())?;
    let diff_id = Digest::from_sha256(&hashing.hash.finalize().into());
    Ok(WrittenLayer { diff_id, entries: written.entries, size: hashing.size })
}

fn trees(upper: &Path, lower: &[PathBuf]) -> Result<(Tree, Tree), EngineError> {
    if lower.len() > MAX_LOWER {
        return Err(onggi_storage::StorageError::TooManyLayers { count: lower.len(), max: MAX_LOWER }.into());
    }
    let all: Vec<&Path> = std::iter::once(upper).chain(lower.iter().map(PathBuf::as_path)).collect();
    let new = Tree::open(all)?;
    let old = new.below(1);
    Ok((new, old))
}

/// A writer that knows the digest of what went through it.
struct Hashing<W> {
    out: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Engine {
    /// The layers of an image or a container, and a container's overlay.
    ///
    /// # Errors
    /// There is no such container or image, or a layer is missing.
    pub fn layer_steps(&self, name: &str) -> Result<LayerSteps, EngineError> {
        self.recover()?;
        if let Ok(record) = self.find(name) {
            let trees = self.trees(&record)?;
            let merged = match self.status(&record.id)? {
                Status::Running { pid, .. } => Some(PathBuf::from(format!("/proc/{pid}/root"))),
                _ => None,
            };
            let container = ContainerOverlay {
                id: record.id.to_string(),
                lower: trees.mount.lower.clone(),
                upper: trees.mount.upper.clone(),
                work: trees.mount.work.clone(),
                merged,
            };
            let image = matches!(record.request.image, ImageSource::Image(_)).then(|| record.image_name.clone());
            let layers = match &record.image_id {
                Some(id) => self.image_steps(id.as_str())?,
                None => Vec::new(),
            };
            return Ok(LayerSteps { image, layers, container: Some(container) });
        }
        Ok(LayerSteps {
            image: Some(name.to_owned()),
            layers: self.image_steps(name).map_err(EngineError::or_container)?,
            container: None,
        })
    }

    fn image_steps(&self, name: &str) -> Result<Vec<LayerStep>, EngineError> {
        let image = self.find_image(name)?;
        let config = self.stored_config(&image.config_digest)?;
        let layers = self.layers()?;
        let mut steps: Vec<LayerStep> = Vec::new();
        for diff_id in config.rootfs.diff_ids {
            let parent = steps.last().map(|below| below.chain_id.clone());
            let chain_id = onggi_storage::chain_id(parent.as_ref(), &diff_id);
            let dir = layers.diff_dir(&chain_id);
            steps.push(LayerStep { diff_id, parent, chain_id, dir });
        }
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_layer_is_that_of_its_bytes() {
        let dir = tempfile::tempdir().expect("a directory is made");
        let [upper, lower] = ["upper", "lower"].map(|name| dir.path().join(name));
        for made in [&upper, &lower] {
            std::fs::create_dir(made).expect("a directory is made");
        }
        std::fs::write(upper.join("new"), "x").expect("a file is made");
        std::fs::write(lower.join("old"), "x").expect("a file is made");
        let mut bytes = Vec::new();
        let written =
            overlay_layer(OverlayOf::Mount, &upper, std::slice::from_ref(&lower), &mut bytes).expect("it is written");
        assert_eq!((written.entries, written.size), (1, bytes.len() as u64));
        assert_eq!(written.diff_id, Digest::from_sha256(&Sha256::digest(&bytes).into()));
        let changes = overlay_changes(OverlayOf::Mount, &upper, &[lower]).expect("they are read");
        assert_eq!(changes, [Change { path: b"new".to_vec(), kind: diff::ChangeKind::Added }]);
    }
}

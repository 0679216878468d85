//! A store whose database was lost: moved away as damaged, or never copied with the rest. What is on the disk is neither garbage nor
//! visible then, so images are entered into the new database before anybody sees it, and files of containers stay.
//!
//! ```text
//! blobs: a manifest whose configuration is there, and whose layers are all unpacked     an image, recovered:<12 digits of its id>
//! containers/<id> that is older than state.db                                           kept; `upper` has what the container wrote
//! ```

use std::{collections::HashSet, fs, path::Path};

use onggi_image::BlobStore;
use onggi_spec::{
    Digest,
    image::{Document, ImageConfig, MAX_DOCUMENT, Manifest},
};
use onggi_state::{ImageRecord, State};
use onggi_storage::{LayerInfo, Layers};
use onggi_sys::jail;

use crate::{EngineError, create, pull, transfer::store::layer_record};

/// Enters the images of a store into a database that has just been made. What cannot be read is none.
pub(crate) fn find_again(root: &Path, state: &mut State) {
    if !root.join("blobs").is_dir() || !root.join("layers").is_dir() {
        return;
    }
    match images(root).and_then(|found| enter(state, &found)) {
        Ok(0) => {}
        Ok(count) => tracing::warn!(
            "{} has no database; {count} images were found there and are called recovered:ID now (`onggi images`, `onggi tag`)",
            root.display()
        ),
        Err(e) => tracing::warn!("the images of {} cannot be found again: {}", root.display(), crate::error_chain(&e)),
    }
    let left = fs::read_dir(root.join("containers")).map_or(0, Iterator::count);
    if left > 0 {
        tracing::warn!("what {left} containers wrote is in {}/containers/ID/upper", root.display());
    }
}

/// The directory was there before the database was made. Where that cannot be known, it is taken for so.
pub(crate) fn is_older_than_database(root: &Path, dir: &Path) -> bool {
    let made = |path: &Path| fs::metadata(path).and_then(|meta| meta.created());
    match (made(&root.join("state.db")), made(dir)) {
        (Ok(database), Ok(dir)) => dir < database,
        _ => true,
    }
}

struct Found {
    image: ImageRecord,
    layers: Vec<LayerInfo>,
}

fn images(root: &Path) -> Result<Vec<Found>, EngineError> {
    let blobs = BlobStore::open(root)?;
    let layers = Layers::open_with(root, None)?;
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for (digest, size) in blobs.list()? {
        if size > MAX_DOCUMENT as u64 {
            continue;
        }
        let Some(bytes) = blobs.read_small(&digest, MAX_DOCUMENT as u64)? else { continue };
        let Ok(Document::Manifest(manifest)) = jail::parse(|| Document::parse(&bytes, None)) else { continue };
        if let Some(image) = whole(&blobs, &layers, digest, &manifest)?
            && seen.insert(image.image.config_digest.clone())
        {
            found.push(image);
        }
    }
    Ok(found)
}

/// The image of a manifest, if all of it is there.
fn whole(
    blobs: &BlobStore,
    layers: &Layers,
    digest: Digest,
    manifest: &Manifest,
) -> Result<Option<Found>, EngineError> {
    let config = blobs.read_small(&manifest.config.digest, MAX_DOCUMENT as u64)?;
    let Some(config) = config.and_then(|bytes| serde_json::from_slice::<ImageConfig>(&bytes).ok()) else {
        return Ok(None);
    };
    let here = manifest.layers.iter().all(|layer| blobs.has(&layer.digest, Some(layer.size)));
    if !here || config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Ok(None);
    }
    let mut unpacked = Vec::new();
    for chain_id in onggi_storage::chain_ids(&config.rootfs.diff_ids) {
        match layers.get(&chain_id) {
            Ok(Some(info)) => unpacked.push(info),
            _ => return Ok(None),
        }
    }
    let id = manifest.config.digest.clone();
    let image = ImageRecord {
        name: format!("recovered:{}", id.short()).parse().ok(),
        manifest_digest: digest,
        config_digest: id,
        chain_ids: unpacked.iter().map(|layer| layer.chain_id.clone()).collect(),
        layer_digests: manifest.layers.iter().map(|layer| layer.digest.clone()).collect(),
        size: unpacked.iter().map(|layer| layer.size).sum(),
        created: pull::created(config.created.as_deref()),
        pulled_at: create::now(),
    };
    Ok(Some(Found { image, layers: unpacked }))
}

/// How many were entered.
fn enter(state: &mut State, found: &[Found]) -> Result<usize, EngineError> {
    for Found { image, layers } in found {
        for info in layers {
            state.put_layer(&layer_record(info))?;
        }
        state.put_image(image)?;
    }
    Ok(found.len())
}

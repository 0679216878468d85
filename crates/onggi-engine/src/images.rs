//! `images`, `tag`, `rmi`, and what other verbs need to know of a stored image.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use onggi_image::{BlobStore, closure};
use onggi_spec::{Digest, ImageReference, image::ImageConfig};
use onggi_state::{ImageRecord, RemovedImage, StateError, files::Lock};
use onggi_sys::trace;

use crate::{Engine, EngineError};

/// An image configuration larger than this is not one (I12); the registry client has the same bound.
const MAX_CONFIG: u64 = 4 * 1024 * 1024;

/// What a broken download left is kept so long for the next attempt.
const KEEP_PARTS: Duration = Duration::from_secs(24 * 3600);

/// One line of `images`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// What is stored.
    pub record: ImageRecord,
    /// Labels of its configuration.
    pub labels: BTreeMap<String, String>,
    /// Containers made from it.
    pub containers: usize,
}

/// What a removal takes away.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Goes {
    /// This name; the image keeps its others.
    Name(ImageReference),
    /// The image with all its names.
    Image,
}

impl Engine {
    /// When an image was built, unix time in nanoseconds.
    ///
    /// # Errors
    /// No such image.
    pub fn image_created(&self, name: &str) -> Result<i64, EngineError> {
        Ok(self.find_image(name)?.created)
    }

    /// Every image under every name, newest first.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn images(&self) -> Result<Vec<ImageSummary>, EngineError> {
        let mut summaries = self.images_without_labels()?;
        let blobs = self.blobs()?;
        let mut known: HashMap<Digest, BTreeMap<String, String>> = HashMap::new();
        for summary in &mut summaries {
            let id = &summary.record.config_digest;
            // One damaged image must not hide the others.
            let read = || config_in(&blobs, id).map(|c| c.config.labels).unwrap_or_default();
            summary.labels.clone_from(known.entry(id.clone()).or_insert_with(read));
        }
        Ok(summaries)
    }

    /// As [`Self::images`] for those who need no labels: no configuration is read.
    ///
    /// # Errors
    /// As [`Self::images`].
    pub fn images_without_labels(&self) -> Result<Vec<ImageSummary>, EngineError> {
        self.recover()?;
        let records = self.state()?.list_images()?;
        let users = self.state()?.containers_per_image()?;
        let summary = |record: ImageRecord| {
            let containers = users.get(record.config_digest.as_str()).map_or(0, |count| *count as usize);
            ImageSummary { record, labels: BTreeMap::new(), containers }
        };
        Ok(records.into_iter().map(summary).collect())
    }

    /// Gives a stored image a further name.
    ///
    /// # Errors
    /// No such image.
    pub fn tag(&self, source: &str, target: &ImageReference) -> Result<(), EngineError> {
        if target.familiar_name() == "sha256" {
            let (what, why) = ("image name", "with this name it would look like an id");
            return Err(onggi_spec::ParseError::new(what, &target.familiar(), why).into());
        }
        let image = self.find_image(source)?;
        let put = || Ok::<_, EngineError>(self.state()?.put_name(target, &image)?);
        trace::step("engine", || format!("name {} {}", image.config_digest.short(), target.familiar()), put)
    }

    /// Removes a name and, with the last one, the image and what only it used.
    ///
    /// # Errors
    /// No such image, or a container uses it and `force` is false.
    pub fn rmi(&self, name: &str, force: bool) -> Result<RemovedImage, EngineError> {
        self.recover()?;
        let image = self.find_image(name)?;
        let removed = match self.what_goes(name, &image, force)? {
            Goes::Name(reference) => self.state()?.remove_name(&reference)?,
            Goes::Image => {
                self.refuse_while_running(&image.config_digest)?;
                self.refuse_while_mounted(&image.config_digest, force)?;
                let remove = || Ok::<_, EngineError>(self.state()?.remove_image(&image.config_digest, force)?);
                trace::step("engine", || format!("forget image {}", image.config_digest.short()), remove)?
            }
        };
        if removed.deleted.is_some() {
            self.collect_garbage()?;
        }
        Ok(removed)
    }

    /// What `rmi NAME` takes away. Digests of the repository that an image has one tag in do not count as names, as with
    /// Docker: they came with the tag and go with it.
    pub(crate) fn what_goes(&self, name: &str, image: &ImageRecord, force: bool) -> Result<Goes, EngineError> {
        let all = self.state()?.list_images()?;
        let names: Vec<ImageReference> =
            all.into_iter().filter(|i| i.config_digest == image.config_digest).filter_map(|i| i.name).collect();
        let written = name.parse::<ImageReference>().ok().map(|r| r.exact()).filter(|r| names.contains(r));
        let first = written.as_ref().or_else(|| names.iter().find(|n| n.digest().is_none())).or(names.first());
        let came_along = |n: &ImageReference| {
            first.is_some_and(|first| n == first || (n.digest().is_some() && n.same_repository(first)))
        };
        let alone = names.iter().all(came_along) && written.as_ref().is_none_or(|w| w.digest().is_none());
        match written {
            Some(reference) if names.len() > 1 && !alone => Ok(Goes::Name(reference)),
            None if !alone && !force => {
                let names = names.iter().map(ImageReference::familiar).collect();
                Err(EngineError::SeveralNames { image: name.to_owned(), names })
            }
            _ => Ok(Goes::Image),
        }
    }

    /// Not even with `force`: a running container's layers are mounted.
    pub(crate) fn refuse_while_running(&self, id: &Digest) -> Result<(), EngineError> {
        let users = self.state()?.containers_of_image(id)?;
        for user in users {
            if self.status(&user.id)?.is_running() {
                return Err(EngineError::ImageRuns { image: id.short().to_owned(), container: user.name.to_string() });
            }
        }
        Ok(())
    }

    /// Called when a container is gone: an image that was removed from under it may have left its layers.
    pub(crate) fn collect_after(&self, image: &Digest) -> Result<(), EngineError> {
        if self.state()?.images_by_id_prefix(image.hex())?.is_empty() {
            self.collect_garbage()?;
        }
        Ok(())
    }

    /// Removes layers and blobs that no image and no container refers to. Does nothing while a pull is under
    /// way: what it has unpacked is not recorded yet, and the next removal takes what it leaves.
    pub(crate) fn collect_garbage(&self) -> Result<(), EngineError> {
        let Some(_alone) = Lock::try_exclusive(&self.images_lock()?)? else { return Ok(()) };
        let layers = self.layers()?;
        let mounted = self.mounted_layers()?;
        let unused = self.state()?.unreferenced_layers()?;
        for layer in unused.into_iter().filter(|layer| !mounted.contains(&layer.chain_id)) {
            trace::step("storage", || format!("remove layer {}", layer.chain_id), || layers.remove(&layer.chain_id))?;
            self.state()?.remove_layer(&layer.chain_id)?;
        }
        for chain_id in layers.list()? {
            if !mounted.contains(&chain_id) && self.state()?.layer(&chain_id)?.is_none() {
                layers.remove(&chain_id)?;
            }
        }
        layers.gc()?;
        let blobs = self.blobs()?;
        let on_disk: Vec<Digest> = blobs.list()?.into_iter().map(|(digest, _)| digest).collect();
        let (unneeded, reachable) = self.unneeded_blobs(&blobs, &on_disk)?;
        for digest in &unneeded {
            trace::step("storage", || format!("remove blob {digest}"), || blobs.delete(digest))?;
        }
        closure::forget_referrers(&blobs, &reachable)?;
        blobs.remove_parts(KEEP_PARTS)?;
        Ok(())
    }

    /// Those of `on_disk` that nothing refers to, and what can be reached from the images.
    pub(crate) fn unneeded_blobs(
        &self,
        blobs: &BlobStore,
        on_disk: &[Digest],
    ) -> Result<(Vec<Digest>, HashSet<Digest>), EngineError> {
        let mut unused = self.state()?.unreferenced_blobs(on_disk)?;
        // Manifests in an index, other platforms, attachments: the database knows the top of each image only.
        let tops: Vec<Digest> = self.state()?.list_images()?.into_iter().map(|i| i.manifest_digest).collect();
        let reachable = closure::reachable(blobs, &tops)?;
        unused.retain(|digest| !reachable.contains(digest));
        Ok((unused, reachable))
    }

    /// Held by pulls together and by a collection of garbage alone.
    pub(crate) fn images_lock(&self) -> Result<PathBuf, EngineError> {
        Ok(Lock::named(&self.paths.runroot, "images")?)
    }

    /// The image that a name, an id or a unique beginning of an id means.
    pub(crate) fn find_image(&self, name: &str) -> Result<ImageRecord, EngineError> {
        let not_found = || StateError::ImageNotFound { reference: name.to_owned() };
        if let Ok(reference) = name.parse::<ImageReference>()
            && let Some(image) = self.image_under(&reference)?
        {
            return Ok(image);
        }
        let mut found = self.state()?.images_by_id_prefix(name)?;
        found.dedup_by(|a, b| a.config_digest == b.config_digest);
        match found.len() {
            0 => Err(not_found().into()),
            1 => Ok(found.remove(0)),
            _ => Err(StateError::Ambiguous { reference: name.to_owned() }.into()),
        }
    }

    /// The image that is stored under a name, or whose manifest in this repository has the digest that is written.
    pub(crate) fn image_under(&self, reference: &ImageReference) -> Result<Option<ImageRecord>, EngineError> {
        let found = self.state()?.image_by_name(&reference.exact())?;
        let (None, Some(digest)) = (&found, reference.digest()) else { return Ok(found) };
        let here = |i: &ImageRecord| i.name.as_ref().is_some_and(|name| name.same_repository(reference));
        Ok(self.state()?.list_images()?.into_iter().find(|i| &i.manifest_digest == digest && here(i)))
    }

    pub(crate) fn names_of(&self, id: &Digest) -> Result<Vec<String>, EngineError> {
        let all = self.state()?.list_images()?;
        Ok(all
            .iter()
            .filter(|i| &i.config_digest == id)
            .filter_map(|i| i.name.as_ref())
            .map(ImageReference::familiar)
            .collect())
    }

    /// The stored configuration of an image.
    pub(crate) fn stored_config(&self, id: &Digest) -> Result<ImageConfig, EngineError> {
        config_in(&self.blobs()?, id)
    }

    pub(crate) fn blobs(&self) -> Result<BlobStore, EngineError> {
        Ok(BlobStore::open(&self.paths.root)?)
    }
}

pub(crate) fn config_in(blobs: &BlobStore, id: &Digest) -> Result<ImageConfig, EngineError> {
    let bytes = blobs.read_small(id, MAX_CONFIG)?;
    let bytes = bytes.ok_or_else(|| EngineError::MissingBlob { digest: id.clone() })?;
    Ok(ImageConfig::parse(&bytes)?)
}

//! `push`.

use std::collections::BTreeSet;

use onggi_image::{PushImage, PushOptions, Pushed};
use onggi_spec::{ImageReference, image::LayerCompression, progress::Progress};
use onggi_state::ImageRecord;
use onggi_sys::trace;

use super::{RegistryChoice, RegistryError};
use crate::{Engine, EngineError};

/// Repositories of the registry that are offered for mounting; each costs one request per missing blob.
const MOUNT_FROM: usize = 3;

/// What to push.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// Layers that are stored as plain tar are compressed so; sent as they are when absent.
    pub compression: Option<LayerCompression>,
    /// Every platform of a multi-platform image.
    pub all_platforms: bool,
    /// Also what refers to the image.
    pub referrers: bool,
    /// How registries are talked to.
    pub choice: RegistryChoice,
}

impl Default for PushRequest {
    fn default() -> Self {
        let choice = RegistryChoice::default();
        Self { compression: None, all_platforms: false, referrers: false, choice }
    }
}

impl Engine {
    /// Pushes the image of this name, to where the name says, or to `target`.
    ///
    /// # Errors
    /// There is no such image, the store lacks a part of it, or the registry refuses.
    pub fn push(
        &self,
        name: &str,
        target: Option<&ImageReference>,
        request: &PushRequest,
        progress: &dyn Progress,
    ) -> Result<Pushed, EngineError> {
        let image = self.find_image(name)?;
        let target = match target {
            Some(target) => target.clone(),
            None => self.own_place(name)?,
        };
        self.push_image(&image, &target, request, progress)
    }

    /// Where an image goes that was told by its name. The beginning of an id looks like a name too, and is nobody's repository.
    pub(crate) fn own_place(&self, name: &str) -> Result<ImageReference, EngineError> {
        let reference: ImageReference = name.parse()?;
        match self.image_under(&reference)? {
            Some(_) => Ok(reference),
            None => Err(RegistryError::NoPlace { image: name.to_owned() }.into()),
        }
    }

    /// The names of one repository, sorted: what `push --all-tags` pushes.
    ///
    /// # Errors
    /// There is none.
    pub fn tags_of(&self, repository: &str) -> Result<Vec<ImageReference>, EngineError> {
        let wanted: ImageReference = repository.parse()?;
        let same = |r: &ImageReference| {
            r.registry() == wanted.registry() && r.repository() == wanted.repository() && r.tag().is_some()
        };
        let images = self.state()?.list_images()?;
        let names: BTreeSet<String> =
            images.into_iter().filter_map(|i| i.name).filter(same).map(|n| n.to_string()).collect();
        if names.is_empty() {
            return Err(RegistryError::NothingToPush { name: repository.to_owned() }.into());
        }
        Ok(names.iter().map(|n| n.parse()).collect::<Result<_, _>>()?)
    }

    fn push_image(
        &self,
        image: &ImageRecord,
        target: &ImageReference,
        request: &PushRequest,
        progress: &dyn Progress,
    ) -> Result<Pushed, EngineError> {
        let (place, remote) = self.registries(&request.choice)?.target(target)?;
        let options = PushOptions {
            remote,
            compression: request.compression.unwrap_or(LayerCompression::Gzip),
            compress_plain: request.compression.is_some(),
            all_platforms: request.all_platforms,
            referrers: request.referrers,
            mount_from: self.neighbours(image, &place)?,
            ..PushOptions::default()
        };
        let blobs = self.blobs()?;
        let hold = blobs.hold()?;
        let what = PushImage { manifest: image.manifest_digest.clone(), config: image.config_digest.clone() };
        let push = || onggi_image::push(&blobs, &place, &what, &options, &|_| Ok(None), progress);
        let pushed = trace::step("engine", || format!("send what {} lacks of {}", target, what.manifest), push)?;
        drop(hold);
        Ok(pushed)
    }

    /// Other repositories of the same registry under which images are known here that share a layer with this one.
    fn neighbours(&self, image: &ImageRecord, target: &ImageReference) -> Result<Vec<String>, EngineError> {
        let mut found: Vec<String> = Vec::new();
        for other in self.state()?.list_images()? {
            let Some(name) = &other.name else { continue };
            let elsewhere = name.registry() == target.registry() && name.repository() != target.repository();
            let shares = other.layer_digests.iter().any(|d| image.layer_digests.contains(d));
            if elsewhere && shares && !found.iter().any(|f| f == name.repository()) {
                found.push(name.repository().to_owned());
            }
        }
        found.truncate(MOUNT_FROM);
        Ok(found)
    }
}

//! `system check`: is everything in the store what it should be, and with `--repair`, make it so.
//!
//! Every blob is hashed again, every layer compared with its record (`layer.tree`), and both compared with what the
//! database refers to. Repair removes what is damaged or belongs to nothing. Layers whose blobs are sound are unpacked again;
//! of the other images the damaged parts, and only these, are pulled by digest.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use onggi_image::{BlobStore, closure::OwnManifest};
use onggi_spec::{ContainerId, Digest, ImageReference, progress::Progress};
use onggi_state::{ImageRecord, files::Lock};
use onggi_storage::{Layers, Verdict};

use crate::{
    Engine, EngineError, PullOptions, PullPolicy, create,
    transfer::{
        Sink,
        store::{StoreSink, own_manifest},
    },
};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A blob whose bytes have another digest.
    BlobDamaged(Digest),
    /// A blob that an image refers to is not there.
    BlobMissing(Digest),
    /// A blob that no image refers to.
    BlobOrphan(Digest),
    /// Entries of a layer differ from its record.
    LayerDamaged(Digest, Vec<String>),
    /// A layer that an image or a container refers to is not there.
    LayerMissing(Digest),
    /// A layer that nothing refers to.
    LayerOrphan(Digest),
    /// A layer that cannot be verified for lack of a record.
    LayerUnrecorded(Digest),
    /// An image is written down as mounted there, and is not.
    MountLost(Digest, PathBuf),
    /// A container's directory, or a part of it that cannot be made again.
    ContainerLost(String),
    /// A directory of a container that is not recorded.
    ContainerOrphan(ContainerId),
    /// What nobody here gives such a name to; it is never removed.
    Stranger(PathBuf),
}

/// What a check found, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blobs and layers that were looked at.
    pub blobs: usize,
    /// As above.
    pub layers: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Names or ids of images that were repaired.
    pub repaired: Vec<String>,
    /// What could not be repaired, and why.
    pub left: Vec<String>,
    /// A repair was tried: what is not left is mended.
    pub tried: bool,
}

impl Finding {
    /// It says that content is lost or wrong; orphans only waste room.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::BlobDamaged(_)
            | Self::BlobMissing(_)
            | Self::LayerDamaged(..)
            | Self::LayerMissing(_)
            | Self::ContainerLost(_) => true,
            Self::BlobOrphan(_)
            | Self::LayerOrphan(_)
            | Self::ContainerOrphan(_)
            | Self::Stranger(_)
            | Self::LayerUnrecorded(_)
            | Self::MountLost(..) => false,
        }
    }

    fn damaged(&self) -> Option<&Digest> {
        match self {
            Self::BlobDamaged(id) | Self::BlobMissing(id) | Self::LayerDamaged(id, _) | Self::LayerMissing(id) => {
                Some(id)
            }
            _ => None,
        }
    }
}

impl CheckReport {
    /// Nothing that is referred to is lost or wrong, or all of it was repaired.
    pub fn is_sound(&self) -> bool {
        self.left.is_empty() && (self.tried || !self.findings.iter().any(Finding::is_damage))
    }
}

impl Engine {
    /// Verifies the whole store.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn check(&self) -> Result<CheckReport, EngineError> {
        // What pulls in progress have not recorded yet looks like orphans; what is collected meanwhile, like losses.
        let _still = Lock::exclusive(&self.images_lock()?)?;
        let mut report = CheckReport::default();
        self.check_blobs(&mut report)?;
        self.check_layers(&mut report)?;
        self.check_containers(&mut report)?;
        if self.image_mounts_dir().exists() {
            let lost = self.image_mount_records()?.lost;
            report.findings.extend(lost.into_iter().map(|record| Finding::MountLost(record.image, record.target)));
        }
        Ok(report)
    }

    fn check_blobs(&self, report: &mut CheckReport) -> Result<(), EngineError> {
        let blobs = self.blobs()?;
        let on_disk: Vec<Digest> = blobs.list()?.into_iter().map(|(digest, _)| digest).collect();
        let (orphans, _) = self.unneeded_blobs(&blobs, &on_disk)?;
        let unneeded: HashSet<&Digest> = orphans.iter().collect();
        for digest in &on_disk {
            report.blobs += 1;
            // What nobody needs is no loss, whatever it holds.
            if !unneeded.contains(digest) && !blobs.is_sound(digest)? {
                report.findings.push(Finding::BlobDamaged(digest.clone()));
            }
        }
        let present: HashSet<&Digest> = on_disk.iter().collect();
        let mut missing = HashSet::new();
        // Bound first: the borrow of the state must not last into the loops.
        let images = self.state()?.list_images()?;
        for image in images {
            let own = lost_manifest(&blobs, &image)?;
            let documents = [image.config_digest.clone(), image.manifest_digest.clone()];
            let all = documents.into_iter().chain(own).chain(image.layer_digests);
            missing.extend(all.filter(|digest| !present.contains(digest)));
        }
        let mut missing: Vec<Digest> = missing.into_iter().collect();
        missing.sort();
        report.findings.extend(missing.into_iter().map(Finding::BlobMissing));
        report.findings.extend(orphans.into_iter().map(Finding::BlobOrphan));
        report.findings.extend(blobs.strangers()?.into_iter().map(Finding::Stranger));
        Ok(())
    }

    fn check_layers(&self, report: &mut CheckReport) -> Result<(), EngineError> {
        let layers = self.layers()?;
        let on_disk = layers.list()?;
        let unreferenced: HashSet<Digest> =
            self.state()?.unreferenced_layers()?.into_iter().map(|layer| layer.chain_id).collect();
        for chain_id in &on_disk {
            report.layers += 1;
            let known = self.state()?.layer(chain_id)?.is_some();
            if !known || unreferenced.contains(chain_id) {
                report.findings.push(Finding::LayerOrphan(chain_id.clone()));
                continue;
            }
            match verify(&layers, chain_id) {
                Verdict::Sound => {}
                Verdict::NoRecord => report.findings.push(Finding::LayerUnrecorded(chain_id.clone())),
                Verdict::Damaged(names) => report.findings.push(Finding::LayerDamaged(chain_id.clone(), names)),
            }
        }
        let missing: Vec<Digest> = self
            .state()?
            .used_layers()?
            .into_iter()
            .filter(|chain_id| on_disk.binary_search(chain_id).is_err())
            .collect();
        report.findings.extend(missing.into_iter().map(Finding::LayerMissing));
        let named = |name: &str| format!("sha256:{name}").parse::<Digest>().is_ok();
        let (_, strangers) = entries(&self.paths.root.join("layers"), named)?;
        report.findings.extend(strangers.into_iter().map(Finding::Stranger));
        Ok(())
    }

    /// What a container has written is nowhere else, so that it can only be found missing.
    fn check_containers(&self, report: &mut CheckReport) -> Result<(), EngineError> {
        let known = self.state()?.list_containers()?;
        let (ids, strangers) =
            entries(&self.paths.root.join("containers"), |name| name.parse::<ContainerId>().is_ok())?;
        for container in &known {
            if let Err(EngineError::FilesGone { .. }) = self.rootfs_of(container)
                && self.is_at_rest(&container.id)?
            {
                report.findings.push(Finding::ContainerLost(container.name.to_string()));
            }
        }
        let ids = ids.iter().filter_map(|name| name.parse::<ContainerId>().ok());
        for id in ids.filter(|id| known.iter().all(|container| container.id != *id)) {
            if self.is_at_rest(&id)? && self.state()?.container_by_id(&id)?.is_none() {
                report.findings.push(Finding::ContainerOrphan(id));
            }
        }
        report.findings.extend(strangers.into_iter().map(Finding::Stranger));
        Ok(())
    }

    /// Nobody makes or removes it right now.
    fn is_at_rest(&self, id: &ContainerId) -> Result<bool, EngineError> {
        match self.intents()?.try_begin(id.as_str())? {
            Some(intent) => intent.complete().map(|()| true).map_err(EngineError::from),
            None => Ok(false),
        }
    }

    /// Verifies, then removes what is damaged or orphaned and fetches what is missing.
    ///
    /// # Errors
    /// The store cannot be read at all, or written. An image that cannot be fetched is part of the report.
    pub fn repair(&self, options: &PullOptions, progress: &dyn Progress) -> Result<CheckReport, EngineError> {
        let mut report = CheckReport { tried: true, ..self.check()? };
        let mut busy = HashSet::new();
        {
            let _alone = Lock::exclusive(&self.images_lock()?)?;
            let (blobs, layers) = (self.blobs()?, self.layers()?);
            for finding in &report.findings {
                match finding {
                    Finding::BlobDamaged(digest) => drop(blobs.delete(digest)?),
                    Finding::LayerDamaged(chain_id, _) if self.is_mounted(chain_id)? => {
                        busy.insert(chain_id.clone());
                        let short = chain_id.short();
                        report.left.push(format!(
                            "layer {short} is in use: stop the containers of its images and unmount them first"
                        ));
                    }
                    Finding::LayerDamaged(chain_id, _) => layers.remove(chain_id)?,
                    _ => {}
                }
            }
        }
        self.remove_unrecorded_containers()?;
        self.forget_lost_mounts()?;
        self.collect_garbage()?;
        let wrong: HashSet<Digest> =
            report.findings.iter().filter_map(Finding::damaged).filter(|id| !busy.contains(id)).cloned().collect();
        self.make_whole(&wrong, options, progress, &mut report)?;
        let gone = report.findings.iter().filter_map(|finding| match finding {
            Finding::ContainerLost(name) => {
                Some(format!("container {name}: its files are gone: remove it with `onggi rm {name}`"))
            }
            _ => None,
        });
        report.left.extend(gone.collect::<Vec<_>>());
        Ok(report)
    }

    /// Makes each image that has a wrong part whole: of its blobs where these are sound, else by the first of its names under which
    /// it is to be had.
    fn make_whole(
        &self,
        wrong: &HashSet<Digest>,
        options: &PullOptions,
        progress: &dyn Progress,
        report: &mut CheckReport,
    ) -> Result<(), EngineError> {
        // An index is the manifest of several images, one per platform.
        let mut names: BTreeMap<(Digest, Digest), Vec<ImageRecord>> = BTreeMap::new();
        let mut lost = wrong.clone();
        let blobs = self.blobs()?;
        let images = self.state()?.list_images()?;
        for image in images {
            let own = lost_manifest(&blobs, &image)?;
            let documents = [&image.config_digest, &image.manifest_digest];
            let parts = image.chain_ids.iter().chain(&image.layer_digests).chain(documents).chain(&own);
            let broken: Vec<Digest> = parts.filter(|id| wrong.contains(id)).cloned().collect();
            lost.retain(|id| !broken.contains(id));
            if !broken.is_empty() {
                names.entry((image.manifest_digest.clone(), image.config_digest.clone())).or_default().push(image);
            }
        }
        for images in names.values() {
            let mut failed = Vec::new();
            for image in images {
                let whole = self.unpack_again(image).unwrap_or_else(|e| {
                    tracing::info!("{} is to be fetched again: {}", shown(image), crate::error_chain(&e));
                    false
                });
                match if whole { Ok(shown(image)) } else { self.fetch_again(image, options, progress) } {
                    Ok(name) => {
                        report.repaired.push(name);
                        failed.clear();
                        break;
                    }
                    Err(why) => failed.push(format!("{}: {why}", shown(image))),
                }
            }
            if let Some(last) = failed.last_mut()
                && !self.was_pulled(images)?
            {
                last.push_str(NEVER_PULLED);
            }
            report.left.extend(failed);
        }
        report.left.extend(self.users_of_lost(&lost)?);
        let beyond = report.findings.iter().filter_map(|finding| match finding {
            Finding::BlobDamaged(id) if lost.contains(id) => Some(format!(
                "blob {id}, of another platform or an attachment of an image: pull that with --all-platforms or --referrers"
            )),
            _ => None,
        });
        report.left.extend(beyond.collect::<Vec<_>>());
        Ok(())
    }

    /// The store remembers of a name that a registry had it.
    fn was_pulled(&self, images: &[ImageRecord]) -> Result<bool, EngineError> {
        for name in images.iter().filter_map(|image| image.name.as_ref()) {
            let pulled = self.state()?.pulled(name, create::now())?;
            if pulled.is_some_and(|p| images.iter().any(|i| p.parts.documents.first() == Some(&i.manifest_digest))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Who needs what no image has any more: containers whose image was removed by force.
    fn users_of_lost(&self, lost: &HashSet<Digest>) -> Result<Vec<String>, EngineError> {
        let containers = self.state()?.list_containers()?;
        let users = containers.iter().filter(|c| c.chain_ids.iter().any(|id| lost.contains(id)));
        Ok(users
            .map(|c| format!("container {}: its image is gone, so are files of it: remove the container", c.name))
            .collect())
    }

    /// Unpacks what is missing of an image's layers from its own blobs. False when one of these is missing.
    fn unpack_again(&self, image: &ImageRecord) -> Result<bool, EngineError> {
        let mut sink = StoreSink::new(self)?;
        let whole = sink.unpack_again(image)?;
        sink.finish()?;
        Ok(whole)
    }

    /// A running container has the layer in its root filesystem.
    fn is_mounted(&self, chain_id: &Digest) -> Result<bool, EngineError> {
        if self.mounted_layers()?.contains(chain_id) {
            return Ok(true);
        }
        let containers = self.state()?.list_containers()?;
        for container in containers.iter().filter(|c| c.chain_ids.contains(chain_id)) {
            if self.status(&container.id)?.is_running() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Pulls exactly the image that is stored; a tag may mean another one by now.
    fn fetch_again(
        &self,
        image: &ImageRecord,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<String, String> {
        let Some(name) = &image.name else { return Err("it has no name to be fetched by".to_owned()) };
        let fetched = self.fetch_by_digest(image, name, options, progress);
        fetched.map(|()| shown(image)).map_err(|e| crate::error_chain(&e))
    }

    fn fetch_by_digest(
        &self,
        image: &ImageRecord,
        name: &ImageReference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<(), EngineError> {
        let exact = name.with_digest(image.manifest_digest.clone());
        let named_before = self.state()?.image_by_name(&exact)?.is_some();
        if named_before {
            self.state()?.remove_name(&exact)?;
        }
        let platform = self.stored_config(&image.config_digest).ok().map(|config| config.platform());
        let options = PullOptions {
            platform: options.platform.clone().or(platform),
            policy: PullPolicy::Always,
            ..options.clone()
        };
        let pulled = self.pull(&exact, &options, progress);
        match (named_before, &pulled) {
            (true, Err(_)) => self.state()?.put_name(&exact, image)?,
            (false, Ok(_)) => drop(self.state()?.remove_name(&exact)?),
            _ => {}
        }
        pulled.map(drop)
    }
}

/// Said where nothing tells that a registry ever had an image.
const NEVER_PULLED: &str = "; nothing here tells that it was pulled from a registry: one that was loaded, imported, committed \
                            or made here is loaded or made again, or removed with `onggi rmi`";

/// The names in a directory that are ours, and the paths of the others; nothing where it was never made.
fn entries(dir: &Path, ours: impl Fn(&str) -> bool) -> Result<(Vec<String>, Vec<PathBuf>), EngineError> {
    let failed = |source| EngineError::ReadFile { path: dir.to_owned(), source };
    let (mut names, mut strangers) = (Vec::new(), Vec::new());
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((names, strangers)),
        read => read.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        match entry.file_name().to_str().filter(|name| ours(name)) {
            Some(name) => names.push(name.to_owned()),
            None => strangers.push(entry.path()),
        }
    }
    names.sort();
    strangers.sort();
    Ok((names, strangers))
}

fn shown(image: &ImageRecord) -> String {
    image.name.as_ref().map_or_else(|| image.config_digest.short().to_owned(), |name| name.familiar())
}

/// The manifest of an image, or an index on the way to it, that is not here or not sound.
fn lost_manifest(blobs: &BlobStore, image: &ImageRecord) -> Result<Option<Digest>, EngineError> {
    match own_manifest(blobs, image)? {
        OwnManifest::Stored(..) => Ok(None),
        OwnManifest::Lost(digest) => Ok(Some(digest)),
    }
}

/// A tree that cannot be read is damaged: an I/O error of its disk, say.
fn verify(layers: &Layers, chain_id: &Digest) -> Verdict {
    layers.verify(chain_id).unwrap_or_else(|e| Verdict::Damaged(vec![e.to_string()]))
}

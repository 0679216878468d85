//! The store as a source and as a sink.

use std::{collections::HashMap, io::Read, path::PathBuf};

use onggi_image::{
    BlobStore, FinishError, ImagePlan, StoreHold,
    closure::{self, OwnManifest},
};
use onggi_spec::{
    Digest, ImageReference,
    image::{Descriptor, Document, ImageConfig, MAX_DOCUMENT},
};
use onggi_state::{
    ImageRecord, LayerRecord,
    files::{Intent, Lock},
};
use onggi_storage::{LayerInfo, UnpackRequest};

use super::{FormatError, Listed, Raw, Sink, Source, blob::read_error};
use crate::{Engine, EngineError, create, failpoint, names, pull::PULL_INTENT};

/// An image of the store.
pub(crate) struct StoreSource {
    blobs: BlobStore,
    _hold: StoreHold,
    image: ImageRecord,
    names: Vec<String>,
}

impl StoreSource {
    pub(crate) fn new(engine: &Engine, image: ImageRecord, names: Vec<String>) -> Result<Self, EngineError> {
        let blobs = engine.blobs()?;
        let _hold = blobs.hold()?;
        Ok(Self { blobs, _hold, image, names })
    }

    /// The image's own manifest, which may be one of those that an index names. None is made up where it is lost: its digest
    /// is what people know the image by.
    fn top(&self) -> Result<Raw, EngineError> {
        match own_manifest(&self.blobs, &self.image)? {
            OwnManifest::Stored(_, bytes) => Ok(Raw::parse(bytes, None)?.0),
            OwnManifest::Lost(digest) => Err(EngineError::MissingBlob { digest }),
        }
    }
}

/// What the database keeps of a layer.
pub(crate) fn layer_record(info: &LayerInfo) -> LayerRecord {
    let (chain_id, diff_id) = (info.chain_id.clone(), info.diff_id.clone());
    LayerRecord { chain_id, diff_id, parent: info.parent.clone(), size: info.size }
}

/// The manifest of a recorded image.
pub(crate) fn own_manifest(blobs: &BlobStore, image: &ImageRecord) -> Result<OwnManifest, EngineError> {
    let platform = crate::images::config_in(blobs, &image.config_digest).map(|config| config.platform());
    let platform = platform.unwrap_or_else(|_| onggi_image::native_platform());
    Ok(closure::own_manifest(blobs, &image.manifest_digest, &image.config_digest, &platform)?)
}

impl Source for StoreSource {
    fn images(&mut self) -> Result<Vec<Listed>, EngineError> {
        Ok(vec![Listed { names: self.names.clone(), top: self.top()? }])
    }

    fn document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError> {
        let stored = self.blobs.read_small(&descriptor.digest, MAX_DOCUMENT as u64)?;
        stored.ok_or_else(|| EngineError::MissingBlob { digest: descriptor.digest.clone() })
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>, EngineError> {
        let file = self.blobs.open_blob(&descriptor.digest)?;
        let file = file.ok_or_else(|| EngineError::MissingBlob { digest: descriptor.digest.clone() })?;
        Ok(Box::new(file))
    }
}

/// Images on their way into the store. Nothing of them is visible before they are whole and unpacked.
pub(crate) struct StoreSink<'e> {
    engine: &'e Engine,
    blobs: BlobStore,
    intent: Option<Intent>,
    /// Shared with pulls; a collection of garbage takes nothing meanwhile.
    _keep: Lock,
    _hold: StoreHold,
    documents: HashMap<Digest, Raw>,
    /// What has been recorded, in order.
    pub(crate) done: Vec<ImageRecord>,
}

impl<'e> StoreSink<'e> {
    pub(crate) fn new(engine: &'e Engine) -> Result<Self, EngineError> {
        // A database that is made after the content would take this for what another one has lost.
        drop(engine.state()?);
        let blobs = engine.blobs()?;
        let intent = engine.intents()?.wait(&format!("{PULL_INTENT}{}", names::random_id()?.short()))?;
        let _keep = Lock::shared(&engine.images_lock()?)?;
        let _hold = blobs.hold()?;
        Ok(Self { engine, blobs, intent: Some(intent), _keep, _hold, documents: HashMap::new(), done: Vec::new() })
    }

    /// Unpacks the layers of a planned image, lowest first.
    fn unpack(&self, plan: &ImagePlan) -> Result<Vec<LayerInfo>, EngineError> {
        let layers = self.engine.layers()?;
        let mut prepared = Vec::new();
        let mut parent: Option<Digest> = None;
        for layer in &plan.layers {
            let missing = || EngineError::MissingBlob { digest: layer.digest.clone() };
            let blob = self.blobs.open_blob(&layer.digest)?.ok_or_else(missing)?;
            let (media_type, diff_id) = (layer.media_type.clone(), layer.diff_id.clone());
            let chain_id =
                onggi_storage::chain_ids(&[parent.iter().cloned().collect(), vec![diff_id.clone()]].concat());
            prepared.push(layers.prepare(UnpackRequest { blob, media_type, diff_id, parent: parent.take() })?);
            parent = chain_id.last().cloned();
        }
        failpoint::hit("load.unpacked");
        Ok(layers.commit_all(prepared)?)
    }

    /// Unpacks and records a planned image.
    fn record(&mut self, plan: &ImagePlan, names: &[ImageReference]) -> Result<(), EngineError> {
        let base = plan.layers.first().map(|l| &l.diff_id);
        let turn = self.blobs.hold_base(base)?;
        let unpacked = self.unpack(plan)?;
        let mut record = self.engine.image_record(plan, &unpacked);
        record.name = names.first().cloned();
        self.engine.put_layers(&unpacked)?;
        self.engine.state()?.put_image(&record)?;
        for name in names.iter().skip(1) {
            self.engine.state()?.put_name(name, &record)?;
        }
        failpoint::hit("load.recorded");
        drop(turn);
        self.done.push(record);
        Ok(())
    }

    /// Unpacks those layers of a recorded image that are not there. False when one of its blobs is not there either.
    pub(crate) fn unpack_again(&mut self, image: &ImageRecord) -> Result<bool, EngineError> {
        if !self.blobs.has(&image.config_digest, None) || !self.blobs.has(&image.manifest_digest, None) {
            return Ok(false);
        }
        let config = self.engine.stored_config(&image.config_digest)?;
        let shown = image.name.clone().map_or_else(|| "loaded".parse(), Ok)?;
        let stored = onggi_image::stored_image(&self.blobs, &shown, &image.manifest_digest, &config.platform())?;
        let Some(plan) = stored.filter(|plan| plan.config_digest == image.config_digest) else { return Ok(false) };
        let turn = self.blobs.hold_base(plan.layers.first().map(|l| &l.diff_id))?;
        let unpacked = self.unpack(&plan)?;
        self.engine.put_layers(&unpacked)?;
        drop(turn);
        Ok(true)
    }

    fn put_known(&self, raw: &Raw) -> Result<(), EngineError> {
        self.blobs.put_bytes(&raw.bytes)?;
        Ok(())
    }
}

impl Sink for StoreSink<'_> {
    fn takes_index(&self) -> bool {
        false
    }

    fn takes_partial_index(&self) -> bool {
        true
    }

    fn has(&mut self, descriptor: &Descriptor) -> Result<bool, EngineError> {
        Ok(self.blobs.has(&descriptor.digest, Some(descriptor.size)))
    }

    fn put_blob(&mut self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<(), EngineError> {
        match self.blobs.put_verified(&descriptor.digest, content) {
            Ok(()) => Ok(()),
            Err(FinishError::WrongDigest { expected, actual }) => {
                Err(FormatError::WrongBlob { expected, actual, size: descriptor.size }.into())
            }
            // What the source said is inside the error of the read that it failed.
            Err(FinishError::Store(e)) if e.source.get_ref().is_some_and(|s| s.is::<FormatError>()) => {
                Err(read_error(e.source).into())
            }
            Err(FinishError::Store(e)) => Err(e.into()),
        }
    }

    fn put_document(&mut self, raw: &Raw) -> Result<(), EngineError> {
        self.documents.insert(raw.digest.clone(), raw.clone());
        self.put_known(raw)
    }

    fn image(&mut self, names: &[String], top: &Raw) -> Result<(), EngineError> {
        self.put_known(top)?;
        let names = names.iter().map(|n| n.parse()).collect::<Result<Vec<ImageReference>, _>>()?;
        let config = self.config_of(top)?;
        let shown = names.first().cloned().map_or_else(|| "loaded".parse(), Ok)?;
        let plan = onggi_image::stored_image(&self.blobs, &shown, &top.digest, &config.platform())?;
        let plan = plan.ok_or_else(|| EngineError::MissingBlob { digest: top.digest.clone() })?;
        self.record(&plan, &names)
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        Ok(self.intent.take().map_or(Ok(()), Intent::complete)?)
    }
}

impl StoreSink<'_> {
    fn config_of(&self, top: &Raw) -> Result<ImageConfig, EngineError> {
        let mut current = top.document()?;
        if let Document::Index(index) = &current {
            let child = index.manifests.iter().find_map(|entry| self.documents.get(&entry.digest));
            let child = child.ok_or_else(|| FormatError::Missing { member: top.digest.to_string() })?;
            current = child.document()?;
        }
        match current {
            Document::Manifest(manifest) => self.engine.stored_config(&manifest.config.digest),
            Document::Index(_) => Err(FormatError::Nested { max: 1 }.into()),
        }
    }
}

impl Engine {
    /// Where archives are unpacked to before they can be read at any place, and written before they are sent.
    pub(crate) fn spool_dir(&self) -> Result<PathBuf, EngineError> {
        drop(self.state()?);
        // The store's own directory for what is not committed yet; opening makes it.
        self.blobs()?;
        let dir = self.paths.root.join("tmp");
        let read_only = rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK) == Err(rustix::io::Errno::ROFS);
        Ok(if read_only { crate::copy::spool() } else { dir })
    }

    /// The record of a planned image whose layers are unpacked, without a name.
    pub(crate) fn image_record(&self, plan: &ImagePlan, layers: &[LayerInfo]) -> ImageRecord {
        ImageRecord {
            name: None,
            manifest_digest: plan.repo_digest.clone(),
            config_digest: plan.config_digest.clone(),
            chain_ids: layers.iter().map(|l| l.chain_id.clone()).collect(),
            layer_digests: plan.layers.iter().map(|l| l.digest.clone()).collect(),
            size: layers.iter().map(|l| l.size).sum(),
            created: crate::pull::created(plan.config.created.as_deref()),
            pulled_at: create::now(),
        }
    }

    pub(crate) fn put_layers(&self, layers: &[LayerInfo]) -> Result<(), EngineError> {
        for info in layers {
            self.state()?.put_layer(&layer_record(info))?;
        }
        Ok(())
    }
}

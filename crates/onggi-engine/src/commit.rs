//! `commit`: a container's changes as a new layer on its image.
//!
//! The layer goes from the container's own directory straight into a blob, hashed and compressed on the way; a running
//! container stands still meanwhile. Then the image is put into the store like one that was loaded.

use onggi_image::VerifiedBlob;
use onggi_spec::{
    Digest, ImageReference,
    change::apply_changes,
    env,
    image::{ContainerConfig, Descriptor, Document, Empty, History, ImageConfig, RootfsConfig},
};
use onggi_state::ContainerRecord;
use onggi_storage::{compress::LayerWriter, decompress::Codec, diff};
use onggi_sys::trace;

use crate::{
    Engine, EngineError, create, failpoint,
    transfer::{
        FormatError, ManifestFormat, Raw, Sink as _, Source as _, blob_descriptor as descriptor,
        build_manifest as build, layer_type,
        store::{StoreSink, StoreSource},
    },
};

/// How to commit.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// Who made it.
    pub author: Option<String>,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Why.
    pub message: Option<String>,
    /// Let a running container stand still meanwhile.
    pub pause: bool,
    /// The manifest's format.
    pub format: ManifestFormat,
}

/// A layer that has been made.
pub(crate) struct NewLayer {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
    /// What is yet to get its name; nothing when it was stored before.
    pub(crate) pending: Option<VerifiedBlob>,
    /// Nothing is in it.
    pub(crate) empty: bool,
}

/// An image that is to be put into the store.
pub(crate) struct MadeImage<'m> {
    pub(crate) config: &'m ImageConfig,
    /// All of its layers, lowest first.
    pub(crate) layers: &'m [Descriptor],
    /// The one of them that has no name yet.
    pub(crate) pending: Option<VerifiedBlob>,
}

impl Engine {
    /// Makes an image of a container as it is now; returns its id.
    ///
    /// # Errors
    /// No such container, a change is no instruction, a file cannot be read, or the disk is full.
    pub fn commit(
        &self,
        name: &str,
        reference: Option<&ImageReference>,
        options: &CommitOptions,
    ) -> Result<Digest, EngineError> {
        self.recover_containers()?;
        let record = self.find(name)?;
        let base = self.image_config(&record)?.unwrap_or_default();
        let mut config = container_config(&record, &base);
        apply_changes(&mut config, &options.changes)?;
        let mut sink = StoreSink::new(self)?;
        let mut layers = self.base_layers(&record, options.format)?;
        let layer = self.container_layer(&record, options)?;
        failpoint::hit("commit.layer-written");
        let image = self.committed(&record, base, config, &layer, options);
        let mut pending = None;
        if !layer.empty {
            layers.push(layer.blob);
            pending = layer.pending;
        }
        self.put_made(&mut sink, MadeImage { config: &image, layers: &layers, pending }, options.format, reference)
    }

    /// The changes of a container as a blob; everything when it is on no image.
    fn container_layer(&self, record: &ContainerRecord, options: &CommitOptions) -> Result<NewLayer, EngineError> {
        let trees = self.own_trees(record, "commit")?;
        let old = if record.image_id.is_some() { trees.old } else { diff::Tree::empty() };
        let frozen = if options.pause { self.freeze(record)? } else { None };
        let layer = self.make_layer(options.format, |out| {
            let (_, written) = diff::write_layer(out, &trees.new, &old, crate::diff::container_options())?;
            Ok(written.entries == 0)
        })?;
        if let Some(frozen) = frozen {
            frozen.thaw()?;
        }
        Ok(layer)
    }

    /// A blob of what `write` writes as a tar; it returns whether that is empty.
    pub(crate) fn make_layer(
        &self,
        format: ManifestFormat,
        write: impl FnOnce(&mut LayerWriter<onggi_image::Scratch>) -> Result<bool, EngineError>,
    ) -> Result<NewLayer, EngineError> {
        let mut writer = LayerWriter::new(self.blobs()?.scratch()?);
        let failed = |source| FormatError::File { action: "write a layer in", path: self.paths.root.clone(), source };
        let written = trace::step("storage", || "write a layer".to_owned(), || write(&mut writer));
        let empty = written.map_err(|e| match e {
            // What is written to is a nameless file of the store: a full disk is that of the store.
            EngineError::Storage(onggi_storage::StorageError::WriteArchive { source })
            | EngineError::Format(FormatError::Stream { action: "write the layer", source }) => failed(source).into(),
            other => other,
        })?;
        let (scratch, diff_id, _) = writer.finish().map_err(failed)?;
        let (digest, size, pending) = scratch.verified();
        Ok(NewLayer { blob: descriptor(layer_type(format, Codec::Gzip), digest, size), diff_id, pending, empty })
    }

    /// The layers of the container's image as its manifest describes them.
    fn base_layers(&self, record: &ContainerRecord, format: ManifestFormat) -> Result<Vec<Descriptor>, EngineError> {
        let Some(id) = &record.image_id else { return Ok(Vec::new()) };
        let image = self.find_image(id.as_str())?;
        let mut source = StoreSource::new(self, image, Vec::new())?;
        let Some(listed) = source.images()?.pop() else { return Ok(Vec::new()) };
        match listed.top.converted(format)?.document()? {
            Document::Manifest(manifest) => Ok(manifest.layers),
            Document::Index(_) => Ok(Vec::new()),
        }
    }

    fn committed(
        &self,
        record: &ContainerRecord,
        base: ImageConfig,
        config: ContainerConfig,
        layer: &NewLayer,
        options: &CommitOptions,
    ) -> ImageConfig {
        let created = create::timestamp(create::now());
        let native = onggi_image::native_platform();
        let or_native = |text: String, own: String| if text.is_empty() { own } else { text };
        let mut diff_ids = base.rootfs.diff_ids.clone();
        if !layer.empty {
            diff_ids.push(layer.diff_id.clone());
        }
        let mut history = base.history;
        // Readers match layers with steps by counting: a base that says nothing of its layers gets a line for each.
        let told = history.iter().filter(|h| h.empty_layer != Some(true)).count();
        let untold = base.rootfs.diff_ids.len().saturating_sub(told);
        history.extend(std::iter::repeat_n(History { created: base.created, ..History::default() }, untold));
        history.push(History {
            created: Some(created.clone()),
            created_by: Some(record.command.join(" ")),
            author: options.author.clone(),
            comment: options.message.clone(),
            empty_layer: layer.empty.then_some(true),
        });
        ImageConfig {
            architecture: or_native(base.architecture, native.architecture),
            os: or_native(base.os, native.os),
            variant: base.variant,
            created: Some(created),
            author: options.author.clone().or(base.author),
            config,
            rootfs: RootfsConfig { typ: "layers".to_owned(), diff_ids },
            history,
        }
    }

    /// Puts an image whose layers are written already.
    pub(crate) fn put_made(
        &self,
        sink: &mut StoreSink<'_>,
        made: MadeImage<'_>,
        format: ManifestFormat,
        reference: Option<&ImageReference>,
    ) -> Result<Digest, EngineError> {
        let json = |source| FormatError::Json { member: "configuration".to_owned(), source };
        let bytes = serde_json::to_vec(made.config).map_err(json)?;
        let mut batch = self.blobs()?.batch();
        made.pending.into_iter().for_each(|layer| batch.add(layer));
        let id = batch.put_bytes(&bytes)?;
        let config = descriptor(format.config(), id.clone(), bytes.len() as u64);
        let top = Raw::new(build(format, &config, made.layers).to_string().into_bytes(), format.manifest());
        batch.put_bytes(&top.bytes)?;
        batch.commit()?;
        let names: Vec<String> = reference.iter().map(ToString::to_string).collect();
        sink.image(&names, &top)?;
        sink.finish()?;
        Ok(id)
    }
}

/// What a container of the new image starts with: what this one was started with.
fn container_config(record: &ContainerRecord, base: &ImageConfig) -> ContainerConfig {
    let request = &record.request;
    let mut config = base.config.clone();
    for entry in &request.env {
        env::apply(&mut config.env, entry);
    }
    if let Some(entrypoint) = &request.entrypoint {
        config.entrypoint = Some(entrypoint.clone()).filter(|e| !e.is_empty());
        config.cmd = None;
    }
    if !request.command.is_empty() {
        config.cmd = Some(request.command.clone());
    }
    if let Some(user) = &request.user {
        config.user = user.to_string();
    }
    if let Some(dir) = &request.workdir {
        config.working_dir = dir.to_string();
    }
    config.labels.extend(request.labels.clone());
    for port in &request.ports {
        config.exposed_ports.insert(format!("{}/{}", port.container_port, port.protocol), Empty {});
    }
    config
}

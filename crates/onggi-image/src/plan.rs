//! From a reference to the exact list of blobs that make an image: every document verified, nothing ambiguous.
//!
//! Documents come from the store when it has them, else from the registry. They are kept in memory and stored
//! only by a pull that succeeds.

use onggi_spec::{
    Digest, ImageReference,
    image::{Descriptor, Document, ImageConfig, LayerCompression, MAX_DOCUMENT, Manifest, Platform, media_type},
};
use onggi_sys::jail;

use crate::{embedded, error::ImageError, platform, remote::Remote, store::BlobStore};

/// Indexes inside indexes that are followed.
const MAX_NESTING: usize = 3;
/// Largest plausible layer: keeps sums of sizes from overflowing.
const MAX_LAYER: u64 = 1 << 44;

/// A layer as the manifest and the configuration describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the blob (compressed).
    pub digest: Digest,
    /// Digest of the tar inside, as the image's configuration claims; verified by whoever unpacks.
    pub diff_id: Digest,
    /// Media type of the blob.
    pub media_type: String,
    /// What the media type means.
    pub compression: LayerCompression,
    /// Size of the blob in bytes.
    pub size: u64,
}

/// Everything known of an image before its layers arrive.
#[derive(Debug, Clone)]
pub struct ImagePlan {
    /// What was asked for.
    pub reference: ImageReference,
    /// What the reference stands for: the index of a multi-platform image, else the manifest. This is the
    /// digest that registries and people quote.
    pub repo_digest: Digest,
    /// The manifest for the wanted platform.
    pub manifest_digest: Digest,
    /// The image's configuration: the image id.
    pub config_digest: Digest,
    /// The configuration, parsed.
    pub config: ImageConfig,
    /// Layers, lowest first. A digest may occur more than once.
    pub layers: Vec<LayerBlob>,
    /// Manifests and configuration, to be stored with the layers.
    pub(crate) documents: Vec<(Digest, Vec<u8>)>,
    /// Layers that the manifest carries itself.
    pub(crate) carried: Vec<(Digest, Vec<u8>)>,
}

impl ImagePlan {
    /// Every blob of the image, each once: index, manifest, configuration, layers.
    pub fn blobs(&self) -> Vec<Digest> {
        let documents = self.documents.iter().map(|(digest, _)| digest);
        let mut all: Vec<Digest> = documents.chain(self.layers.iter().map(|l| &l.digest)).cloned().collect();
        let mut seen = std::collections::HashSet::new();
        all.retain(|d| seen.insert(d.clone()));
        all
    }

    /// Bytes of all distinct layers.
    pub fn layer_bytes(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        self.layers.iter().filter(|l| seen.insert(&l.digest)).map(|l| l.size).sum()
    }
}

/// Where documents come from: the store first, then the registry, if it may be asked.
pub(crate) struct Source<'s, 'r> {
    pub(crate) store: &'s BlobStore,
    pub(crate) registry: Option<&'s Remote<'r>>,
}

/// A verified document and the registry's name for its type.
struct Fetched {
    digest: Digest,
    bytes: Vec<u8>,
    content_type: Option<String>,
}

/// Builds the plan for a digest, or for a tag whose digest the registry did not tell. `Ok(None)` when there is
/// no registry to ask and a document is missing.
pub(crate) fn build(
    source: &Source<'_, '_>,
    reference: &ImageReference,
    digest: Option<&Digest>,
    wanted: &Platform,
) -> Result<Option<ImagePlan>, ImageError> {
    let first = match digest {
        Some(digest) => source.document(digest)?,
        None => source.by_tag(reference)?,
    };
    let Some(first) = first else { return Ok(None) };
    let repo_digest = first.digest.clone();
    let mut documents = Vec::new();
    let Some(manifest) = descend(source, reference, first, wanted, &mut documents)? else { return Ok(None) };
    let manifest_digest = documents.last().map_or_else(|| repo_digest.clone(), |(digest, _)| digest.clone());
    check_config_type(&manifest.config)?;
    let Some(config_bytes) = source.config(&manifest.config)? else { return Ok(None) };
    let judged = judge(reference, wanted, &manifest, &config_bytes);
    if judged.is_err() {
        // Nobody goes on with it.
        source.store.remove_part(&manifest.config.digest);
    }
    let (config, layers) = judged?;
    let config_digest = manifest.config.digest;
    documents.push((config_digest.clone(), config_bytes));
    let carried = manifest.layers.iter().filter_map(|layer| Some((layer.digest.clone(), embedded(layer)?))).collect();
    let reference = reference.clone();
    Ok(Some(ImagePlan { reference, repo_digest, manifest_digest, config_digest, config, layers, documents, carried }))
}

/// The configuration, when it fits to the manifest and to what was wanted, and the layers of both.
fn judge(
    reference: &ImageReference,
    wanted: &Platform,
    manifest: &Manifest,
    bytes: &[u8],
) -> Result<(ImageConfig, Vec<LayerBlob>), ImageError> {
    let what = format!("configuration {}", manifest.config.digest);
    let config = jail::parse(|| ImageConfig::parse(bytes));
    let config = config.map_err(|source| ImageError::Malformed { what, source })?;
    let platform = config.platform();
    if !platform::runs_on(&platform, wanted) {
        return Err(wrong_architecture(reference, wanted, vec![shown(&platform.to_string())]));
    }
    let layers = layers(manifest, &config)?;
    Ok((config, layers))
}

/// From an index down to the manifest for the wanted platform; every document on the way is added to `documents`.
fn descend(
    source: &Source<'_, '_>,
    reference: &ImageReference,
    first: Fetched,
    wanted: &Platform,
    documents: &mut Vec<(Digest, Vec<u8>)>,
) -> Result<Option<Manifest>, ImageError> {
    let mut current = first;
    loop {
        let what = format!("manifest {}", current.digest);
        let parsed = jail::parse(|| Document::parse(&current.bytes, current.content_type.as_deref()));
        documents.push((current.digest, current.bytes));
        let index = match parsed {
            Ok(Document::Manifest(manifest)) => return Ok(Some(manifest)),
            Ok(Document::Index(_)) if documents.len() > MAX_NESTING => {
                return Err(invalid(what, format!("more than {MAX_NESTING} indexes inside each other")));
            }
            Ok(Document::Index(index)) => index,
            Err(source) => return Err(ImageError::Malformed { what, source }),
        };
        let entry = platform::select(&index, wanted)
            .ok_or_else(|| wrong_architecture(reference, wanted, platform::available(&index)))?;
        match source.entry(entry)? {
            Some(next) => current = next,
            None => return Ok(None),
        }
    }
}

fn wrong_architecture(reference: &ImageReference, wanted: &Platform, available: Vec<String>) -> ImageError {
    ImageError::WrongArchitecture { reference: Box::new(reference.clone()), wanted: wanted.to_string(), available }
}

impl Source<'_, '_> {
    fn document(&self, digest: &Digest) -> Result<Option<Fetched>, ImageError> {
        if let Some(bytes) = self.store.read_small(digest, MAX_DOCUMENT as u64)? {
            return Ok(Some(Fetched { digest: digest.clone(), bytes, content_type: None }));
        }
        let Some(registry) = self.registry else { return Ok(None) };
        let raw = registry.manifest(digest.as_str())?;
        Ok(Some(Fetched { digest: raw.digest, bytes: raw.bytes, content_type: raw.media_type }))
    }

    fn by_tag(&self, reference: &ImageReference) -> Result<Option<Fetched>, ImageError> {
        let Some(registry) = self.registry else { return Ok(None) };
        let raw = registry.manifest(reference.selector())?;
        Ok(Some(Fetched { digest: raw.digest, bytes: raw.bytes, content_type: raw.media_type }))
    }

    /// A manifest that an index names: it must be of the length and type named there.
    fn entry(&self, entry: &Descriptor) -> Result<Option<Fetched>, ImageError> {
        if let Some(bytes) = embedded(entry) {
            let (digest, content_type) = (entry.digest.clone(), Some(entry.media_type.clone()));
            return Ok(Some(Fetched { digest, bytes, content_type }));
        }
        let Some(mut fetched) = self.document(&entry.digest)? else { return Ok(None) };
        check_length(entry, fetched.bytes.len() as u64)?;
        let header = fetched.content_type.as_deref().map(|h| h.split(';').next().unwrap_or_default().trim());
        if header.is_some_and(|h| media_type::ACCEPTED.contains(&h) && h != entry.media_type) {
            let reason =
                format!("the index calls it {:?}, the registry {:?}", entry.media_type, header.unwrap_or_default());
            return Err(invalid(format!("manifest {}", entry.digest), reason));
        }
        fetched.content_type = Some(entry.media_type.clone());
        Ok(Some(fetched))
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, ImageError> {
        let limit = MAX_DOCUMENT as u64;
        if descriptor.size > limit {
            return Err(ImageError::TooLarge { what: format!("configuration {}", descriptor.digest), limit });
        }
        if let Some(bytes) = self.store.read_small(&descriptor.digest, limit)?.or_else(|| embedded(descriptor)) {
            return Ok(Some(bytes));
        }
        let Some(registry) = self.registry else { return Ok(None) };
        let fetch = || {
            let bytes = registry.small_blob(&descriptor.digest)?;
            check_length(descriptor, bytes.len() as u64)?;
            Ok(bytes)
        };
        self.store.fetched_once(&descriptor.digest, descriptor.size, fetch).map(Some)
    }
}

fn check_length(descriptor: &Descriptor, length: u64) -> Result<(), ImageError> {
    if descriptor.size == length {
        return Ok(());
    }
    Err(invalid(
        format!("document {}", descriptor.digest),
        format!("it has {length} bytes and is said to have {}", descriptor.size),
    ))
}

fn check_config_type(config: &Descriptor) -> Result<(), ImageError> {
    if [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&config.media_type.as_str()) {
        return Ok(());
    }
    Err(ImageError::UnsupportedMediaType {
        what: "the image configuration".to_owned(),
        media_type: shown(&config.media_type),
    })
}

/// Pairs the manifest's layers with the configuration's diff ids.
fn layers(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<LayerBlob>, ImageError> {
    let diff_ids = &config.rootfs.diff_ids;
    let what = || format!("image {}", manifest.config.digest);
    if diff_ids.len() != manifest.layers.len() {
        return Err(invalid(
            what(),
            format!("its manifest has {} layers, its configuration {}", manifest.layers.len(), diff_ids.len()),
        ));
    }
    let layers: Vec<LayerBlob> = manifest
        .layers
        .iter()
        .zip(diff_ids)
        .map(|(layer, diff_id)| layer_blob(layer, diff_id))
        .collect::<Result<_, _>>()?;
    let mut known: std::collections::HashMap<&Digest, &LayerBlob> = std::collections::HashMap::new();
    for layer in &layers {
        let first = *known.entry(&layer.digest).or_insert(layer);
        if first.size != layer.size || first.compression != layer.compression {
            return Err(invalid(what(), format!("it describes layer {} in two ways", layer.digest)));
        }
    }
    Ok(layers)
}

fn layer_blob(layer: &Descriptor, diff_id: &Digest) -> Result<LayerBlob, ImageError> {
    let Descriptor { media_type, digest, size, urls, .. } = layer;
    // Such layers are meant to be fetched from `urls`, a stranger's server (CVE-2020-15157). The `urls` of an
    // ordinary layer are optional mirrors and are simply not used.
    let elsewhere = media_type.contains(".nondistributable.") && !urls.is_empty();
    if elsewhere || *media_type == media_type::DOCKER_FOREIGN_GZIP {
        return Err(ImageError::ForeignLayer { digest: digest.clone() });
    }
    let unsupported =
        || ImageError::UnsupportedMediaType { what: format!("layer {digest}"), media_type: shown(media_type) };
    let compression = LayerCompression::of(media_type).ok_or_else(unsupported)?;
    if *size > MAX_LAYER {
        return Err(ImageError::TooLarge { what: format!("layer {digest}"), limit: MAX_LAYER });
    }
    let (digest, diff_id, media_type) = (digest.clone(), diff_id.clone(), media_type.clone());
    Ok(LayerBlob { digest, diff_id, media_type, compression, size: *size })
}

fn invalid(what: String, reason: String) -> ImageError {
    ImageError::Invalid { what, reason }
}

/// Text of a stranger, cut for a message.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}

//! Push: an image of the store into a repository, byte for byte.
//!
//! A layer that was pulled is sent as the blob that came, so that its digest and the manifest's stay. A layer that is
//! not stored as a blob is made again and compressed on the way, to the same bytes each time; the manifest then is a
//! new one. Blobs go first, then manifests, then the index, so that the registry never has a document
//! that names what it has not.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek as _, Write},
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

use onggi_spec::{
    Digest, ImageReference,
    image::{Descriptor, Document, ImageConfig, Index, LayerCompression, MAX_DOCUMENT, Manifest, media_type},
    progress::{Progress, ProgressEvent},
};
use onggi_sys::jail;
use sha2::{Digest as _, Sha256};

use crate::{
    closure::{self, OwnManifest, each},
    error::{ImageError, StoreError},
    lists::{empty_index, referrers_tag},
    options::RemoteOptions,
    remote::{Access, Remote},
    store::{BlobStore, COPY_BUFFER, digest_of},
    upload::Uploaded,
};

/// Blobs that are uploaded at the same time, as Docker does.
const PARALLEL: usize = 5;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// How to push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// How the registry is talked to.
    pub remote: RemoteOptions,
    /// How layers are compressed that the store has no blob of.
    pub compression: LayerCompression,
    /// Compress layers that are stored as plain tar, too; the manifest is then another one.
    pub compress_plain: bool,
    /// Every platform of a multi-platform image, not only the one that is used here.
    pub all_platforms: bool,
    /// Also what refers to the image: signatures, attestations.
    pub referrers: bool,
    /// Other repositories of the same registry that may have the blobs.
    pub mount_from: Vec<String>,
    /// Blobs at the same time, at least 1.
    pub parallel: usize,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            remote: RemoteOptions::default(),
            compression: LayerCompression::Gzip,
            compress_plain: false,
            all_platforms: false,
            referrers: false,
            mount_from: Vec::new(),
            parallel: PARALLEL,
        }
    }
}

/// The image to be pushed.
#[derive(Debug, Clone)]
pub struct PushImage {
    /// The manifest or index that its name stands for.
    pub manifest: Digest,
    /// Its configuration: tells the right manifest of an index.
    pub config: Digest,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// What the tag stands for in the registry now.
    pub digest: Digest,
    /// Size of that document in bytes.
    pub size: u64,
}

/// Indexes in indexes that are followed: nobody makes more than one.
const MAX_NESTED: usize = 4;

/// Makes the tar of a layer that is not in the store as a blob, by its DiffID. `None` when that is not possible.
pub type Recreate<'a> = dyn Fn(&Digest) -> io::Result<Option<Box<dyn Read + Send + 'a>>> + Sync + 'a;

/// Pushes an image to `target`, whose tag (`latest` when it has none) stands for it afterwards. The caller holds the store.
///
/// # Errors
/// The registry refuses or cannot be reached, or the store lacks a part of the image.
pub fn push(
    store: &BlobStore,
    target: &ImageReference,
    image: &PushImage,
    options: &PushOptions,
    recreate: &Recreate<'_>,
    progress: &dyn Progress,
) -> Result<Pushed, ImageError> {
    let access = Access::Push { mount_from: options.mount_from.clone() };
    let remote = Remote::new(target, &access, &options.remote, progress)?;
    let push = Push { store, remote, options, recreate, progress, compressed: Mutex::default() };
    let (top, children) = push.documents(image)?;
    let mut manifests = Vec::new();
    for document in children {
        let sent = push.manifest(document)?;
        if !matches!(top, Top::Manifest) {
            push.remote.put_manifest(sent.digest.as_str(), &sent.media_type, &sent.bytes)?;
        }
        manifests.push(sent);
    }
    let last = match top {
        Top::Index { index, inner } => {
            for document in inner {
                push.remote.put_manifest(document.digest.as_str(), &document.media_type, &document.bytes)?;
            }
            index
        }
        // There is exactly one.
        Top::Manifest => manifests.pop().ok_or(ImageError::Stopped)?,
    };
    push.remote.put_manifest(target.selector(), &last.media_type, &last.bytes)?;
    if options.referrers {
        push.referrers(&last.digest)?;
    }
    Ok(Pushed { size: last.bytes.len() as u64, digest: last.digest })
}

/// A document of the store.
struct Stored {
    digest: Digest,
    media_type: String,
    bytes: Vec<u8>,
}

/// What an index leads to.
#[derive(Default)]
struct Found {
    children: Vec<Stored>,
    inner: Vec<Stored>,
    missing: Vec<String>,
    seen: std::collections::HashSet<Digest>,
}

/// What the tag will stand for.
enum Top {
    /// An index, sent after its manifests.
    Index {
        /// Itself.
        index: Stored,
        /// Indexes in it, the innermost first: a registry takes a document when it has what it names.
        inner: Vec<Stored>,
    },
    /// The one manifest.
    Manifest,
}

/// One blob to be sent.
struct Part {
    digest: Digest,
    size: u64,
    content: File,
}

struct Push<'p, 'r> {
    store: &'p BlobStore,
    remote: Remote<'p>,
    options: &'p PushOptions,
    recreate: &'p Recreate<'r>,
    progress: &'p dyn Progress,
    /// By DiffID.
    compressed: Mutex<HashMap<Digest, Descriptor>>,
}

impl Push<'_, '_> {
    /// The manifests to send, and what comes last.
    fn documents(&self, image: &PushImage) -> Result<(Top, Vec<Stored>), ImageError> {
        let top = self.stored(&image.manifest)?;
        let index = match parse(&top)? {
            Document::Manifest(_) => return Ok((Top::Manifest, vec![top])),
            Document::Index(index) => index,
        };
        if !self.options.all_platforms {
            return self.own(image).map(|own| (Top::Manifest, vec![own]));
        }
        let mut found = Found::default();
        self.collect(&index, &mut found, 0)?;
        let Found { children, inner, missing, .. } = found;
        if !missing.is_empty() {
            return Err(ImageError::Incomplete { digest: image.manifest.clone(), missing });
        }
        Ok((Top::Index { index: top, inner }, children))
    }

    /// The manifest of the image that is used here.
    fn own(&self, image: &PushImage) -> Result<Stored, ImageError> {
        let config = self.store.read_small(&image.config, MAX_DOCUMENT as u64)?;
        let platform = config.and_then(|bytes| jail::parse(|| ImageConfig::parse(&bytes)).ok()).map(|c| c.platform());
        let platform = platform.unwrap_or_else(crate::native_platform);
        match closure::own_manifest(self.store, &image.manifest, &image.config, &platform)? {
            OwnManifest::Stored(digest, bytes) => {
                let media_type = media_type_of(&bytes).to_owned();
                Ok(Stored { digest, media_type, bytes })
            }
            OwnManifest::Lost(digest) => Err(ImageError::Incomplete {
                digest: image.manifest.clone(),
                missing: vec![format!("its manifest {digest}")],
            }),
        }
    }

    /// The manifests of an index and of the indexes in it, each once.
    fn collect(&self, index: &Index, found: &mut Found, depth: usize) -> Result<(), ImageError> {
        for entry in &index.manifests {
            if !found.seen.insert(entry.digest.clone()) {
                continue;
            }
            if let Some((document, inner)) = self.inner_index(entry)? {
                if depth == MAX_NESTED {
                    let reason = format!("more than {MAX_NESTED} indexes in each other");
                    return Err(ImageError::Invalid { what: format!("index {}", entry.digest), reason });
                }
                self.collect(&inner, found, depth + 1)?;
                found.inner.push(document);
                continue;
            }
            match self.whole(entry)? {
                Some(child) => found.children.push(child),
                None => {
                    let name = entry.platform.as_ref().map_or_else(|| entry.digest.to_string(), ToString::to_string);
                    found.missing.push(name);
                }
            }
        }
        Ok(())
    }

    fn inner_index(&self, entry: &Descriptor) -> Result<Option<(Stored, Index)>, ImageError> {
        let Ok(child) = self.stored(&entry.digest) else { return Ok(None) };
        match parse(&child) {
            Ok(Document::Index(index)) => Ok(Some((child, index))),
            _ => Ok(None),
        }
    }

    /// A manifest whose blobs are all here.
    fn whole(&self, entry: &Descriptor) -> Result<Option<Stored>, ImageError> {
        let Ok(child) = self.stored(&entry.digest) else { return Ok(None) };
        let Document::Manifest(manifest) = parse(&child)? else { return Ok(None) };
        let here = |d: &Descriptor| self.store.has(&d.digest, Some(d.size));
        Ok((here(&manifest.config) && manifest.layers.iter().all(here)).then_some(child))
    }

    fn stored(&self, digest: &Digest) -> Result<Stored, ImageError> {
        let bytes = self.store.read_small(digest, MAX_DOCUMENT as u64)?;
        let bytes = bytes
            .ok_or_else(|| ImageError::Incomplete { digest: digest.clone(), missing: vec!["itself".to_owned()] })?;
        let media_type = media_type_of(&bytes).to_owned();
        Ok(Stored { digest: digest.clone(), media_type, bytes })
    }

    /// Sends the blobs of a manifest; returns it as it is to be sent.
    fn manifest(&self, stored: Stored) -> Result<Stored, ImageError> {
        let Document::Manifest(manifest) = parse(&stored)? else {
            let reason = "an index in an index is not pushed".to_owned();
            return Err(ImageError::Invalid { what: format!("index {}", stored.digest), reason });
        };
        let diff_ids = self.diff_ids(&manifest)?;
        let layers: Vec<(usize, &Descriptor)> = manifest.layers.iter().enumerate().collect();
        for (_, layer) in &layers {
            self.progress.event(ProgressEvent::Layer { digest: layer.digest.clone(), total: layer.size });
        }
        let sent: Mutex<Vec<Option<Descriptor>>> = Mutex::new(vec![None; layers.len()]);
        each(self.options.parallel, &layers, &AtomicBool::new(false), |&(at, layer)| {
            let descriptor = self.layer(layer, diff_ids.get(at))?;
            sent.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(descriptor);
            Ok(())
        })?;
        self.blob(&manifest.config)?;
        let sent: Vec<Descriptor> =
            sent.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect();
        if sent == manifest.layers {
            return Ok(stored);
        }
        let changed = Manifest { layers: sent, ..manifest };
        let bytes = serde_json::to_vec(&changed).map_err(|e| ImageError::Invalid {
            what: format!("manifest {}", stored.digest),
            reason: format!("it cannot be written: {e}"),
        })?;
        Ok(Stored { digest: digest_of(&bytes), media_type: stored.media_type, bytes })
    }

    /// DiffIDs in the order of the layers; empty when the configuration has none (artifacts).
    fn diff_ids(&self, manifest: &Manifest) -> Result<Vec<Digest>, ImageError> {
        let bytes = self.store.read_small(&manifest.config.digest, MAX_DOCUMENT as u64)?;
        Ok(bytes.and_then(|b| ImageConfig::parse(&b).ok()).map(|c| c.rootfs.diff_ids).unwrap_or_default())
    }

    /// Sends a layer; returns the descriptor under which it went.
    fn layer(&self, layer: &Descriptor, diff_id: Option<&Digest>) -> Result<Descriptor, ImageError> {
        let plain = LayerCompression::of(&layer.media_type) == Some(LayerCompression::None);
        let stored = self.store.open_blob(&layer.digest)?;
        if let (Some(tar), true) = (&stored, plain && self.options.compress_plain) {
            let tar = tar.try_clone().map_err(|source| self.spool_error("read the layer from", source))?;
            return self.send_compressed(layer, Box::new(tar));
        }
        if let Some(file) = stored {
            self.send(&Part { digest: layer.digest.clone(), size: layer.size, content: file })?;
            return Ok(layer.clone());
        }
        let lost = || ImageError::Incomplete { digest: layer.digest.clone(), missing: vec!["the layer".to_owned()] };
        let diff_id = diff_id.ok_or_else(lost)?;
        let known = self.compressed.lock().unwrap_or_else(PoisonError::into_inner).get(diff_id).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let tar = (self.recreate)(diff_id).map_err(|source| self.spool_error("read the layer for", source))?;
        let descriptor = self.send_compressed(layer, tar.ok_or_else(lost)?)?;
        self.compressed.lock().unwrap_or_else(PoisonError::into_inner).insert(diff_id.clone(), descriptor.clone());
        Ok(descriptor)
    }

    /// Sends a layer in another form than the manifest has it.
    fn send_compressed(&self, layer: &Descriptor, tar: Box<dyn Read + Send + '_>) -> Result<Descriptor, ImageError> {
        let part = self.compress(tar)?;
        self.send(&part)?;
        let media_type = with_compression(&layer.media_type, self.options.compression).to_owned();
        Ok(Descriptor { media_type, digest: part.digest, size: part.size, data: None, ..layer.clone() })
    }

    /// A tar, compressed into a nameless file.
    fn compress(&self, mut tar: Box<dyn Read + Send + '_>) -> Result<Part, ImageError> {
        let fail = |source| self.spool_error("write a compressed layer in", source);
        let spool = self.store.nameless()?;
        let mut out =
            Hashing { inner: io::BufWriter::with_capacity(COPY_BUFFER, spool), hasher: Sha256::new(), written: 0 };
        match self.options.compression {
            LayerCompression::None => drop(io::copy(&mut tar, &mut out).map_err(fail)?),
            // No name, no time: the same tar makes the same bytes.
            LayerCompression::Gzip => {
                let mut gzip = flate2::GzBuilder::new().write(&mut out, flate2::Compression::default());
                io::copy(&mut tar, &mut gzip).and_then(|_| gzip.finish()).map_err(fail)?;
            }
            LayerCompression::Zstd => {
                let mut zstd = zstd::Encoder::new(&mut out, ZSTD_LEVEL).map_err(fail)?;
                io::copy(&mut tar, &mut zstd).and_then(|_| zstd.finish()).map_err(fail)?;
            }
        }
        let Hashing { inner, hasher, written } = out;
        let mut content = inner.into_inner().map_err(|e| fail(e.into_error()))?;
        content.rewind().map_err(fail)?;
        Ok(Part { digest: Digest::from_sha256(&hasher.finalize().into()), size: written, content })
    }

    fn spool_error(&self, operation: &'static str, source: io::Error) -> StoreError {
        StoreError { operation, path: self.store.dir(), source }
    }

    /// Sends a blob of the store.
    fn blob(&self, blob: &Descriptor) -> Result<(), ImageError> {
        let lost =
            || ImageError::Incomplete { digest: blob.digest.clone(), missing: vec!["the configuration".to_owned()] };
        let content = self.store.open_blob(&blob.digest)?.ok_or_else(lost)?;
        self.remote.put_blob(&blob.digest, blob.size, &content, &self.options.mount_from).map(drop)
    }

    fn send(&self, part: &Part) -> Result<(), ImageError> {
        let digest = || part.digest.clone();
        let event = match self.remote.put_blob(&part.digest, part.size, &part.content, &self.options.mount_from)? {
            Uploaded::Exists => ProgressEvent::Exists { digest: digest() },
            Uploaded::Mounted(from) => ProgressEvent::Mounted { digest: digest(), from },
            Uploaded::Sent => ProgressEvent::Uploaded { digest: digest() },
        };
        self.progress.event(event);
        Ok(())
    }

    /// Sends what refers to the image; in registries without the API, lists it under the tag for that.
    fn referrers(&self, subject: &Digest) -> Result<(), ImageError> {
        let Some(index) = closure::referrers(self.store, subject)? else { return Ok(()) };
        let mut understood = true;
        for entry in &index.manifests {
            let stored = self.stored(&entry.digest)?;
            let sent = self.manifest(stored)?;
            let answer = self.remote.put_manifest(sent.digest.as_str(), &sent.media_type, &sent.bytes)?;
            understood &= answer.as_ref() == Some(subject);
        }
        if understood {
            return Ok(());
        }
        let mut list = match self.remote.manifest(&referrers_tag(subject)) {
            Ok(document) => match jail::parse(|| Document::parse(&document.bytes, None)) {
                Ok(Document::Index(index)) => index,
                _ => empty_index(),
            },
            Err(ImageError::UnknownTag { .. } | ImageError::UnknownImage { .. }) => empty_index(),
            Err(error) => return Err(error),
        };
        let new = index.manifests.into_iter().filter(|d| list.manifests.iter().all(|known| known.digest != d.digest));
        let new: Vec<Descriptor> = new.collect();
        list.manifests.extend(new);
        let bytes = serde_json::to_vec(&list).map_err(|e| ImageError::Invalid {
            what: format!("the list of referrers of {subject}"),
            reason: format!("it cannot be written: {e}"),
        })?;
        self.remote.put_manifest(&referrers_tag(subject), media_type::OCI_INDEX, &bytes).map(drop)
    }
}

fn parse(stored: &Stored) -> Result<Document, ImageError> {
    Document::parse(&stored.bytes, None)
        .map_err(|source| ImageError::Malformed { what: format!("manifest {}", stored.digest), source })
}

/// The type under which a document is sent: its own, else what its members say. OCI's are optional in documents.
fn media_type_of(bytes: &[u8]) -> &'static str {
    let known = |text: &str| media_type::ACCEPTED.into_iter().find(|m| *m == text);
    match Document::parse(bytes, None) {
        Ok(Document::Manifest(m)) => m.media_type.as_deref().and_then(known).unwrap_or(media_type::OCI_MANIFEST),
        Ok(Document::Index(i)) => i.media_type.as_deref().and_then(known).unwrap_or(media_type::OCI_INDEX),
        Err(_) => media_type::OCI_MANIFEST,
    }
}

/// The media type of the same family with another compression.
fn with_compression(media: &str, compression: LayerCompression) -> &'static str {
    use media_type as m;
    let docker = media.starts_with("application/vnd.docker.");
    match (docker, compression) {
        (true, LayerCompression::None) => m::DOCKER_LAYER,
        (true, LayerCompression::Gzip) => m::DOCKER_LAYER_GZIP,
        (true, LayerCompression::Zstd) => m::DOCKER_LAYER_ZSTD,
        (false, LayerCompression::None) => m::OCI_LAYER,
        (false, LayerCompression::Gzip) => m::OCI_LAYER_GZIP,
        (false, LayerCompression::Zstd) => m::OCI_LAYER_ZSTD,
    }
}

/// Counts and hashes what is written.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    written: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

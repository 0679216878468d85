//! What sources, sinks and the loop between them are. Nothing here knows a registry or a store, so that the fuzzer runs it on
//! archives as it is.

use std::io::Read;

use onggi_image::digest_of;
use onggi_spec::{
    Digest,
    image::{Descriptor, Document, Index, Manifest, Platform},
};
use onggi_sys::{jail, trace};

use super::{Checked, FormatError, ManifestFormat, blob, format};
use crate::EngineError;

/// Images of one source, or names of one image, beyond which it is no archive of images (I12).
pub(crate) const MAX_IMAGES: usize = 1000;

/// A manifest or index, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// One image of a source.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// As the source writes them: references, or tags.
    pub(crate) names: Vec<String>,
    /// Its manifest or index.
    pub(crate) top: Raw,
}

/// Where images come from.
pub(crate) trait Source {
    /// Its images, in its order.
    fn images(&mut self) -> Result<Vec<Listed>, EngineError>;
    /// A manifest or configuration, not yet verified.
    fn document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError>;
    /// A layer, not yet verified.
    fn blob(&mut self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>, EngineError>;
}

/// Where images go.
pub(crate) trait Sink {
    /// True when it can hold an index with all of its images.
    fn takes_index(&self) -> bool;
    /// True when it may hold an index without all of its images: people quote a multi-platform image by its index.
    fn takes_partial_index(&self) -> bool {
        false
    }
    /// The manifest format that it can only hold, if so.
    fn only_format(&self) -> Option<ManifestFormat> {
        None
    }
    /// False when it keeps no manifests, but another list of an image's parts.
    fn keeps_manifests(&self) -> bool {
        true
    }
    /// Fails when this may not be what stands at the top. Asked before anything is put.
    fn expect(&self, _top: &Digest) -> Result<(), EngineError> {
        Ok(())
    }
    /// True when it has the blob already.
    fn has(&mut self, descriptor: &Descriptor) -> Result<bool, EngineError>;
    /// Takes a blob; `content` fails at its end when it is not what the descriptor says.
    fn put_blob(&mut self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<(), EngineError>;
    /// Takes a manifest that an index names.
    fn put_document(&mut self, raw: &Raw) -> Result<(), EngineError>;
    /// All parts of this image have been put.
    fn image(&mut self, names: &[String], top: &Raw) -> Result<(), EngineError>;
    /// No further image comes.
    fn finish(&mut self) -> Result<(), EngineError>;
}

/// How to copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct CopyRule {
    /// Every image of an index, not only this machine's.
    pub(crate) all: bool,
    /// Which image of an index; this machine's when absent.
    pub(crate) platform: Option<Platform>,
    /// Write manifests in this format.
    pub(crate) format: Option<ManifestFormat>,
    /// Fail rather than change a manifest.
    pub(crate) preserve_digests: bool,
}

impl Raw {
    pub(crate) fn new(bytes: Vec<u8>, media_type: &str) -> Self {
        Self { digest: digest_of(&bytes), media_type: media_type.to_owned(), bytes }
    }

    /// From a document whose media type nobody told: it says so itself, or its kind does.
    pub(crate) fn parse(bytes: Vec<u8>, media_type: Option<&str>) -> Result<(Self, Document), EngineError> {
        let document = jail::parse(|| Document::parse(&bytes, media_type))?;
        let own = match &document {
            Document::Manifest(m) => m.media_type.clone(),
            Document::Index(i) => i.media_type.clone(),
        };
        let media_type = own.or_else(|| media_type.map(str::to_owned)).unwrap_or_else(|| kind_of(&document).to_owned());
        Ok((Self::new(bytes, &media_type), document))
    }

    pub(crate) fn document(&self) -> Result<Document, EngineError> {
        Ok(jail::parse(|| Document::parse(&self.bytes, Some(&self.media_type)))?)
    }

    /// The same manifest in this format.
    pub(crate) fn converted(&self, format: ManifestFormat) -> Result<Self, EngineError> {
        match self.document()? {
            Document::Manifest(manifest) => format::convert(self, manifest, format, false),
            Document::Index(_) => Ok(self.clone()),
        }
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        blob::descriptor(&self.media_type, self.digest.clone(), self.bytes.len() as u64)
    }
}

fn kind_of(document: &Document) -> &'static str {
    use onggi_spec::image::media_type::{DOCKER_CONFIG, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
    match document {
        Document::Manifest(m) if m.config.media_type == DOCKER_CONFIG => DOCKER_MANIFEST,
        Document::Manifest(_) => OCI_MANIFEST,
        Document::Index(_) => OCI_INDEX,
    }
}

/// Copies one image; returns the digest of what was put at the top.
pub(crate) fn copy(
    source: &mut dyn Source,
    sink: &mut dyn Sink,
    image: &Listed,
    names: &[String],
    rule: &CopyRule,
) -> Result<Digest, EngineError> {
    if rule.preserve_digests && !sink.keeps_manifests() {
        return Err(FormatError::NoManifests.into());
    }
    let top = match image.top.document()? {
        Document::Manifest(manifest) => copy_top(source, sink, &image.top, manifest, rule)?,
        Document::Index(_) if rule.all && !sink.takes_index() => return Err(FormatError::OnePlatformOnly.into()),
        Document::Index(index) if rule.all => copy_index(source, sink, &image.top, &index, rule)?,
        Document::Index(index) => {
            let (raw, manifest) = choose(source, &index, rule.platform.as_ref())?;
            let copied = copy_top(source, sink, &raw, manifest, rule)?;
            if sink.takes_partial_index() && copied.digest == raw.digest {
                sink.put_document(&copied)?;
                image.top.clone()
            } else {
                copied
            }
        }
    };
    sink.expect(&top.digest)?;
    trace::step("storage", || format!("write the manifest {}", top.digest), || sink.image(names, &top))?;
    Ok(top.digest)
}

/// The manifest for a platform, through nested indexes.
fn choose(source: &mut dyn Source, index: &Index, platform: Option<&Platform>) -> Result<(Raw, Manifest), EngineError> {
    /// Indexes inside indexes that are followed.
    const MAX_NESTING: usize = 3;
    let native = onggi_image::native_platform();
    let wanted = platform.unwrap_or(&native);
    let mut current = index.clone();
    for _ in 0..MAX_NESTING {
        let entry = onggi_image::select_platform(&current, wanted);
        let entry = entry.ok_or_else(|| FormatError::NoPlatform { wanted: wanted.to_string() })?.clone();
        let raw = fetch_document(source, &entry)?;
        match raw.document()? {
            Document::Manifest(manifest) => return Ok((raw, manifest)),
            Document::Index(next) => current = next,
        }
    }
    Err(FormatError::Nested { max: MAX_NESTING }.into())
}

/// A document of a descriptor, with the digest and length that it names.
pub(crate) fn fetch_document(source: &mut dyn Source, descriptor: &Descriptor) -> Result<Raw, EngineError> {
    let bytes = onggi_image::embedded(descriptor).map_or_else(|| source.document(descriptor), Ok)?;
    let actual = digest_of(&bytes);
    if actual == descriptor.digest && bytes.len() as u64 != descriptor.size {
        let (expected, found) = (descriptor.size, bytes.len().to_string());
        return Err(FormatError::WrongLength { digest: actual, expected, found }.into());
    }
    if actual != descriptor.digest {
        return Err(
            FormatError::WrongBlob { expected: descriptor.digest.clone(), actual, size: bytes.len() as u64 }.into()
        );
    }
    Ok(Raw { digest: actual, media_type: descriptor.media_type.clone(), bytes })
}

fn copy_index(
    source: &mut dyn Source,
    sink: &mut dyn Sink,
    top: &Raw,
    index: &Index,
    rule: &CopyRule,
) -> Result<Raw, EngineError> {
    let mut entries = Vec::new();
    for entry in &index.manifests {
        let raw = fetch_document(source, entry)?;
        let copied = match raw.document()? {
            Document::Manifest(manifest) => copy_manifest(source, sink, &raw, manifest, rule)?,
            Document::Index(inner) => copy_index(source, sink, &raw, &inner, rule)?,
        };
        sink.put_document(&copied)?;
        entries.push(Descriptor {
            digest: copied.digest.clone(),
            size: copied.bytes.len() as u64,
            media_type: copied.media_type,
            data: entry.data.clone().filter(|_| copied.digest == entry.digest),
            ..entry.clone()
        });
    }
    let as_wanted = rule.format.is_none_or(|format| format.index() == top.media_type);
    if entries == index.manifests && as_wanted {
        return Ok(top.clone());
    }
    format::rebuild_index(index, entries, rule)
}

/// A manifest that is to stand at the top, unless the sink expects another one.
fn copy_top(
    source: &mut dyn Source,
    sink: &mut dyn Sink,
    raw: &Raw,
    manifest: Manifest,
    rule: &CopyRule,
) -> Result<Raw, EngineError> {
    if !sink.takes_partial_index() {
        sink.expect(&as_wanted(sink, raw, &manifest, rule)?.digest)?;
    }
    copy_manifest(source, sink, raw, manifest, rule)
}

fn as_wanted(sink: &dyn Sink, raw: &Raw, manifest: &Manifest, rule: &CopyRule) -> Result<Raw, EngineError> {
    match sink.only_format().or(rule.format) {
        Some(format) => format::convert(raw, manifest.clone(), format, rule.preserve_digests),
        None => Ok(raw.clone()),
    }
}

/// Layers, configuration and the manifest itself, in the format that is wanted.
fn copy_manifest(
    source: &mut dyn Source,
    sink: &mut dyn Sink,
    raw: &Raw,
    manifest: Manifest,
    rule: &CopyRule,
) -> Result<Raw, EngineError> {
    let wanted = as_wanted(sink, raw, &manifest, rule)?;
    for descriptor in manifest.layers.iter().chain([&manifest.config]) {
        if sink.has(descriptor)? {
            continue;
        }
        let content = match onggi_image::embedded(descriptor) {
            Some(bytes) => Box::new(std::io::Cursor::new(bytes)) as Box<dyn Read + '_>,
            None if *descriptor == manifest.config => Box::new(std::io::Cursor::new(source.document(descriptor)?)),
            None => source.blob(descriptor)?,
        };
        let mut checked = Checked::new(content, descriptor);
        let put = || sink.put_blob(descriptor, &mut checked);
        trace::step("storage", || format!("copy blob {} ({} bytes)", descriptor.digest, descriptor.size), put)?;
        checked.complete()?;
    }
    Ok(wanted)
}

//! `docker save`'s format: `manifest.json`, configurations, one tar per layer.
//!
//! ```text
//! manifest.json          [{"Config": "<hex>.json", "RepoTags": ["busybox:latest"], "Layers": ["<hex>.tar", …]}]
//! <hex>.json             the configuration, named by its digest
//! <hex>.tar              a layer, uncompressed, named by its DiffID
//! ```
//!
//! Reading takes any names, links between members and compressed layers, as Docker does. There are no manifests in such an
//! archive, so one is made for each image: of the layers as they are, in Docker's format.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    sync::Arc,
};

use onggi_image::digest_of;
use onggi_spec::{
    Digest,
    image::{Descriptor, Document, ImageConfig, MAX_DOCUMENT, MAX_LAYERS},
};
use onggi_storage::{
    decompress::{Codec, Decoder},
    tar::{Entry, Kind, TarWriter},
};
use onggi_sys::jail;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    FormatError, Listed, MAX_IMAGES, ManifestFormat, Output, Raw, Sink, Source,
    archive::Archive,
    blob::descriptor,
    error::shown,
    format::{build, layer_type},
};
use crate::EngineError;

/// The document that makes an archive one of this format.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Bytes moved at once.
const PIECE: usize = 1 << 20;

/// One image of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// An archive as a source.
pub(crate) struct DockerArchive {
    archive: Arc<Archive>,
    /// Members by the digest of what they hold.
    members: HashMap<Digest, String>,
    /// Digests and types of layers that have been looked at, by member.
    layers: HashMap<String, Descriptor>,
}

impl DockerArchive {
    pub(crate) fn new(archive: Archive) -> Self {
        Self { archive: Arc::new(archive), members: HashMap::new(), layers: HashMap::new() }
    }

    fn image(&mut self, item: Item) -> Result<Listed, EngineError> {
        let config = self.archive.small(&item.config, MAX_DOCUMENT as u64)?;
        let parsed = jail::parse(|| ImageConfig::parse(&config))?;
        let members = item.layers.unwrap_or_default();
        let diff_ids = &parsed.rootfs.diff_ids;
        if members.len() != diff_ids.len() || members.len() > MAX_LAYERS {
            return Err(FormatError::LayerCount { layers: members.len(), diff_ids: diff_ids.len() }.into());
        }
        let mut layers = Vec::new();
        for (member, diff_id) in members.into_iter().zip(diff_ids) {
            layers.push(self.layer(member, diff_id)?);
        }
        let config_digest = digest_of(&config);
        let config_size = config.len() as u64;
        self.members.insert(config_digest.clone(), item.config);
        let config = descriptor(ManifestFormat::Docker.config(), config_digest, config_size);
        let document = build(ManifestFormat::Docker, &config, &layers);
        let top = Raw::new(document.to_string().into_bytes(), ManifestFormat::Docker.manifest());
        let names = item.repo_tags.unwrap_or_default();
        if names.len() > MAX_IMAGES {
            return Err(FormatError::TooLarge { what: "the list of names".to_owned(), limit: MAX_IMAGES as u64 }.into());
        }
        Ok(Listed { names, top })
    }

    /// A plain layer must have the digest that the configuration names; a compressed one has a digest of its own, and what
    /// is in it is checked when it is unpacked.
    fn layer(&mut self, member: String, diff_id: &Digest) -> Result<Descriptor, EngineError> {
        let mut reader = self.archive.reader(&member)?;
        let size = reader.len();
        let mut head = vec![0; usize::try_from(size.min(8)).unwrap_or(8)];
        let failed = |source| FormatError::Stream { action: "read the archive", source };
        reader.read_exact(&mut head).map_err(failed)?;
        let codec = Codec::detect(&head);
        let media_type = layer_type(ManifestFormat::Docker, codec);
        if codec == Codec::Plain {
            self.members.insert(diff_id.clone(), member);
            return Ok(descriptor(media_type, diff_id.clone(), size));
        }
        if let Some(known) = self.layers.get(&member) {
            return Ok(known.clone());
        }
        let mut hasher = Sha256::new();
        hasher.update(&head);
        let mut buffer = vec![0; PIECE];
        loop {
            match reader.read(&mut buffer).map_err(failed)? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        let digest = Digest::from_sha256(&hasher.finalize().into());
        self.members.insert(digest.clone(), member.clone());
        let found = descriptor(media_type, digest, size);
        self.layers.insert(member, found.clone());
        Ok(found)
    }

    fn member(&self, digest: &Digest) -> Result<&str, EngineError> {
        let missing = || FormatError::Missing { member: digest.to_string() };
        Ok(self.members.get(digest).ok_or_else(missing)?)
    }
}

impl Source for DockerArchive {
    fn images(&mut self) -> Result<Vec<Listed>, EngineError> {
        let bytes = self.archive.small(MANIFEST, MAX_DOCUMENT as u64)?;
        let items: Vec<Item> = jail::parse(|| serde_json::from_slice(&bytes))
            .map_err(|source| FormatError::Json { member: MANIFEST.to_owned(), source: short(source) })?;
        if items.len() > MAX_IMAGES {
            return Err(
                FormatError::TooLarge { what: "the list of images".to_owned(), limit: MAX_IMAGES as u64 }.into()
            );
        }
        items.into_iter().map(|item| self.image(item)).collect()
    }

    fn document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError> {
        self.archive.small(self.member(&descriptor.digest)?, MAX_DOCUMENT as u64)
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>, EngineError> {
        Ok(Box::new(self.archive.reader(self.member(&descriptor.digest)?)?))
    }
}

/// An error that quotes what was found instead, however long that is.
fn short(error: serde_json::Error) -> serde_json::Error {
    use serde::de::Error as _;
    const SHOWN: usize = 300;
    let text = error.to_string();
    if text.len() <= SHOWN { error } else { serde_json::Error::custom(text.chars().take(SHOWN).collect::<String>()) }
}

/// An archive being written.
pub(crate) struct DockerArchiveSink {
    output: Option<Output>,
    file: File,
    items: Vec<Item>,
    /// DiffID of each blob that has been put: its member is named after that.
    diff_ids: HashMap<Digest, Digest>,
    /// Members that are there.
    members: std::collections::HashSet<Digest>,
}

impl DockerArchiveSink {
    pub(crate) fn new(output: Output) -> Result<Self, EngineError> {
        let file = output.writer()?;
        let (diff_ids, members) = (HashMap::new(), std::collections::HashSet::new());
        Ok(Self { output: Some(output), file, items: Vec::new(), diff_ids, members })
    }

    /// A member whose length is known only at its end: its header is written last.
    fn layer(&mut self, content: &mut dyn Read) -> Result<Digest, EngineError> {
        let failed = |source| FormatError::Stream { action: "write the archive", source };
        let start = self.file.stream_position().map_err(failed)?;
        self.file.write_all(&[0; 512]).map_err(failed)?;
        let mut decoder = Decoder::new(content)?;
        let (mut hasher, mut buffer, mut size) = (Sha256::new(), vec![0; PIECE], 0_u64);
        loop {
            let n = decoder.fill(&mut buffer)?;
            hasher.update(&buffer[..n]);
            self.file.write_all(&buffer[..n]).map_err(failed)?;
            size += n as u64;
            if n < PIECE {
                break;
            }
        }
        let diff_id = Digest::from_sha256(&hasher.finalize().into());
        if !self.members.insert(diff_id.clone()) {
            // The same layer in another compression.
            self.file.seek(SeekFrom::Start(start)).map_err(failed)?;
            self.file.set_len(start).map_err(failed)?;
            return Ok(diff_id);
        }
        let padding = (size.next_multiple_of(512) - size) as usize;
        self.file.write_all(&[0; 512][..padding]).map_err(failed)?;
        let end = self.file.stream_position().map_err(failed)?;
        self.file.seek(SeekFrom::Start(start)).map_err(failed)?;
        self.file.write_all(&header(&layer_name(&diff_id), size)?).map_err(failed)?;
        self.file.seek(SeekFrom::Start(end)).map_err(failed)?;
        Ok(diff_id)
    }

    fn small(&mut self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        let failed = |source| FormatError::Stream { action: "write the archive", source };
        self.file.write_all(&header(name, bytes.len() as u64)?).map_err(failed)?;
        self.file.write_all(bytes).map_err(failed)?;
        let padding = bytes.len().next_multiple_of(512) - bytes.len();
        Ok(self.file.write_all(&[0; 512][..padding]).map_err(failed)?)
    }
}

fn layer_name(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

fn config_name(digest: &Digest) -> String {
    format!("{}.json", digest.hex())
}

/// The one block in front of a member. Lengths beyond ustar's eleven digits are written in base 256, which every reader of
/// such archives knows, so that the header is one block whatever the length.
fn header(name: &str, size: u64) -> Result<Vec<u8>, EngineError> {
    const OCTAL: u64 = 0o777_7777_7777;
    let (path, mtime) = (name.as_bytes().to_vec(), onggi_sys::fs::Time::default());
    let kind = Kind::File { size: if size > OCTAL { 0 } else { size } };
    let entry = Entry { offset: 0, path, kind, mode: 0o644, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
    let mut block = Vec::new();
    let written = TarWriter::new(&mut block).entry(&entry);
    written.map_err(|source| FormatError::Stream { action: "write the archive", source })?;
    if size > OCTAL {
        block[124] = 0x80;
        block[125..128].fill(0);
        block[128..136].copy_from_slice(&size.to_be_bytes());
        block[148..156].copy_from_slice(b"        ");
        let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    Ok(block)
}

impl Sink for DockerArchiveSink {
    fn takes_index(&self) -> bool {
        false
    }

    fn keeps_manifests(&self) -> bool {
        false
    }

    fn has(&mut self, descriptor: &Descriptor) -> Result<bool, EngineError> {
        Ok(self.diff_ids.contains_key(&descriptor.digest) || self.members.contains(&descriptor.digest))
    }

    fn put_blob(&mut self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<(), EngineError> {
        if descriptor.media_type.contains(".config.") || descriptor.media_type.contains(".container.image.") {
            let mut bytes = Vec::new();
            content.take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut bytes).map_err(super::blob::read_error)?;
            self.members.insert(descriptor.digest.clone());
            return self.small(&config_name(&descriptor.digest), &bytes);
        }
        let diff_id = self.layer(content)?;
        self.diff_ids.insert(descriptor.digest.clone(), diff_id);
        Ok(())
    }

    fn put_document(&mut self, _raw: &Raw) -> Result<(), EngineError> {
        Ok(())
    }

    fn image(&mut self, names: &[String], top: &Raw) -> Result<(), EngineError> {
        let Document::Manifest(manifest) = top.document()? else {
            return Err(FormatError::NoSuchImage {
                name: shown(top.digest.as_str().as_bytes()),
                what: "an index".to_owned(),
                known: Vec::new(),
            }
            .into());
        };
        let member = |layer: &Descriptor| {
            let missing = || FormatError::Missing { member: layer.digest.to_string() };
            self.diff_ids.get(&layer.digest).map(layer_name).ok_or_else(missing)
        };
        let layers = manifest.layers.iter().map(member).collect::<Result<Vec<_>, _>>()?;
        let config = config_name(&manifest.config.digest);
        let repo_tags = Some(names.to_vec()).filter(|n| !n.is_empty());
        match self.items.iter_mut().find(|i| i.config == config && i.layers.as_ref() == Some(&layers)) {
            Some(item) => item.repo_tags.get_or_insert_default().extend(repo_tags.unwrap_or_default()),
            None => self.items.push(Item { config, repo_tags, layers: Some(layers) }),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        let items = serde_json::to_vec(&self.items)
            .map_err(|source| FormatError::Json { member: MANIFEST.to_owned(), source: short(source) })?;
        self.small(MANIFEST, &items)?;
        let end = self.file.write_all(&[0; 1024]);
        end.map_err(|source| FormatError::Stream { action: "write the archive", source })?;
        self.output.take().map_or(Ok(()), Output::complete)
    }
}

//! OCI image layouts (image-layout.md): as a directory, or as a tar archive of one.
//!
//! ```text
//! oci-layout                 {"imageLayoutVersion": "1.0.0"}
//! index.json                 the images, each with its names as annotations
//! blobs/sha256/<hex>         manifests, configurations, layers
//! ```
//!
//! A name is the annotation `org.opencontainers.image.ref.name` (Podman, skopeo, umoci) and `io.containerd.image.name`
//! (containerd, BuildKit).

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use onggi_spec::{
    Digest,
    image::{Descriptor, Document, Index, MAX_DOCUMENT, media_type},
};
use onggi_storage::tar::{Entry, Kind, TarWriter};
use onggi_sys::jail;
use serde_json::json;

use super::{
    FormatError, Listed, MAX_IMAGES, Output, Raw, Sink, Source,
    archive::Archive,
    blob::read_error,
    error::{at, shown},
    part::Part,
};
use crate::EngineError;

/// The document that lists the images.
pub(crate) const INDEX: &str = "index.json";
const LAYOUT: &str = "oci-layout";
const LAYOUT_TEXT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";
/// Names, in the order in which they are believed.
pub(crate) const NAME: &str = "io.containerd.image.name";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Bytes moved at once.
const PIECE: usize = 1 << 20;

/// Where the files of a layout are.
pub(crate) enum Layout {
    /// Below a directory.
    Dir(PathBuf),
    /// In an archive.
    Archive(Archive),
}

impl Layout {
    fn small(&self, name: &str) -> Result<Vec<u8>, EngineError> {
        let limit = MAX_DOCUMENT as u64;
        match self {
            Self::Archive(archive) => archive.small(name, limit),
            Self::Dir(dir) => {
                let path = dir.join(name);
                let mut bytes = Vec::new();
                open_regular(&path)?.take(limit + 1).read_to_end(&mut bytes).map_err(at("read", &path))?;
                if bytes.len() as u64 > limit {
                    return Err(FormatError::TooLarge { what: path.display().to_string(), limit }.into());
                }
                Ok(bytes)
            }
        }
    }

    fn reader(&self, name: &str) -> Result<Box<dyn Read + '_>, EngineError> {
        Ok(match self {
            Self::Archive(archive) => Box::new(archive.reader(name)?),
            Self::Dir(dir) => Box::new(open_regular(&dir.join(name))?),
        })
    }
}

/// Opens a file that must be a regular one, without waiting for a FIFO and without following a link.
pub(crate) fn open_regular(path: &Path) -> Result<File, EngineError> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(at("open", path))?;
    if !file.metadata().map_err(at("read", path))?.is_file() {
        return Err(FormatError::NotAFile { member: shown(path.as_os_str().as_encoded_bytes()) }.into());
    }
    Ok(file)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A layout as a source.
pub(crate) struct OciLayout {
    layout: Layout,
}

impl OciLayout {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// A directory that must be a layout.
    pub(crate) fn dir(dir: &Path) -> Result<Self, EngineError> {
        if !dir.join(INDEX).exists() {
            return Err(FormatError::NotALayout { path: dir.to_owned(), what: "an OCI image layout" }.into());
        }
        Ok(Self::new(Layout::Dir(dir.to_owned())))
    }
}

/// The list of images. It may be an index without entries, which [`Document`] also takes.
fn read_index(bytes: &[u8]) -> Result<Index, EngineError> {
    match jail::parse(|| Document::parse(bytes, None))? {
        Document::Index(index) if index.manifests.len() <= MAX_IMAGES => Ok(index),
        Document::Index(_) => {
            Err(FormatError::TooLarge { what: "the list of images".to_owned(), limit: MAX_IMAGES as u64 }.into())
        }
        Document::Manifest(_) => Err(FormatError::NoImages { what: INDEX.to_owned() }.into()),
    }
}

impl Source for OciLayout {
    fn images(&mut self) -> Result<Vec<Listed>, EngineError> {
        let index = read_index(&self.layout.small(INDEX)?)?;
        let mut images: Vec<Listed> = Vec::new();
        for entry in &index.manifests {
            // Attestations and artifacts that are beside the images.
            if !media_type::ACCEPTED.contains(&entry.media_type.as_str()) {
                continue;
            }
            let mut names: Vec<String> =
                [NAME, REF_NAME].iter().filter_map(|k| entry.annotations.get(*k)).cloned().collect();
            names.dedup();
            if let Some(known) = images.iter_mut().find(|i| i.top.digest == entry.digest) {
                known.names.append(&mut names);
                continue;
            }
            let top = super::fetch_document(self, entry)?;
            images.push(Listed { names, top });
        }
        Ok(images)
    }

    fn document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError> {
        self.layout.small(&blob_name(&descriptor.digest))
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>, EngineError> {
        self.layout.reader(&blob_name(&descriptor.digest))
    }
}

/// Which annotation values a name becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// A reference: both annotations, as Podman and containerd look for them.
    Reference,
    /// What the user wrote behind the directory: only the layout's own annotation.
    Tag,
}

/// The new entries of an `index.json`.
fn entries(names: &[String], top: &Raw, naming: Naming) -> Vec<Descriptor> {
    let one = |name: Option<&String>| {
        let mut descriptor = top.descriptor();
        if let Some(name) = name {
            descriptor.annotations.insert(REF_NAME.to_owned(), name.clone());
            if naming == Naming::Reference {
                descriptor.annotations.insert(NAME.to_owned(), name.clone());
            }
        }
        descriptor
    };
    if names.is_empty() { vec![one(None)] } else { names.iter().map(|n| one(Some(n))).collect() }
}

fn index_text(manifests: &[Descriptor]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests }).to_string().into_bytes()
}

/// An archive being written: every length is known before, so it is a stream.
pub(crate) struct OciArchiveSink {
    output: Option<Output>,
    tar: Option<TarWriter<File>>,
    there: HashSet<Digest>,
    index: Vec<Descriptor>,
    naming: Naming,
}

impl OciArchiveSink {
    pub(crate) fn new(output: Output, naming: Naming) -> Result<Self, EngineError> {
        let tar = TarWriter::new(output.writer()?);
        let mut sink = Self { output: Some(output), tar: Some(tar), there: HashSet::new(), index: Vec::new(), naming };
        for dir in ["blobs", "blobs/sha256"] {
            sink.begin(dir, Kind::Directory, 0o755)?;
        }
        Ok(sink)
    }

    fn begin(&mut self, name: &str, kind: Kind, mode: u32) -> Result<(), EngineError> {
        let (path, mtime) = (name.as_bytes().to_vec(), onggi_sys::fs::Time::default());
        let entry = Entry { offset: 0, path, kind, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
        self.write(|tar| tar.entry(&entry))
    }

    fn write(&mut self, action: impl FnOnce(&mut TarWriter<File>) -> std::io::Result<()>) -> Result<(), EngineError> {
        let written = self.tar.as_mut().map_or(Ok(()), action);
        written.map_err(|source| FormatError::Stream { action: "write the archive", source }.into())
    }

    fn small(&mut self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        self.begin(name, Kind::File { size: bytes.len() as u64 }, 0o644)?;
        self.write(|tar| tar.content(bytes))
    }
}

impl Sink for OciArchiveSink {
    fn takes_index(&self) -> bool {
        true
    }

    fn has(&mut self, descriptor: &Descriptor) -> Result<bool, EngineError> {
        Ok(self.there.contains(&descriptor.digest))
    }

    fn put_blob(&mut self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<(), EngineError> {
        self.begin(&blob_name(&descriptor.digest), Kind::File { size: descriptor.size }, 0o644)?;
        let mut buffer = vec![0; PIECE];
        loop {
            let n = content.read(&mut buffer).map_err(read_error)?;
            if n == 0 {
                break;
            }
            self.write(|tar| tar.content(&buffer[..n]))?;
        }
        self.there.insert(descriptor.digest.clone());
        Ok(())
    }

    fn put_document(&mut self, raw: &Raw) -> Result<(), EngineError> {
        if self.there.insert(raw.digest.clone()) {
            self.small(&blob_name(&raw.digest), &raw.bytes)?;
        }
        Ok(())
    }

    fn image(&mut self, names: &[String], top: &Raw) -> Result<(), EngineError> {
        self.put_document(top)?;
        self.index.extend(entries(names, top, self.naming));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        self.small(LAYOUT, LAYOUT_TEXT.as_bytes())?;
        let index = index_text(&self.index);
        self.small(INDEX, &index)?;
        if let Some(tar) = self.tar.take() {
            tar.finish().map_err(|source| FormatError::Stream { action: "write the archive", source })?;
        }
        self.output.take().map_or(Ok(()), Output::complete)
    }
}

/// A directory being written, or added to.
pub(crate) struct OciDirSink {
    dir: TargetDir,
    index: Vec<Descriptor>,
    naming: Naming,
}

impl OciDirSink {
    pub(crate) fn new(dir: &Path, naming: Naming) -> Result<Self, EngineError> {
        let target = TargetDir::open(dir)?;
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(at("create", &blobs))?;
        let layout = dir.join(LAYOUT);
        if !layout.exists() {
            write_file(&layout, &mut LAYOUT_TEXT.as_bytes())?;
        }
        let index = match dir.join(INDEX).exists() {
            true => read_index(&Layout::Dir(dir.to_owned()).small(INDEX)?)?.manifests,
            false => Vec::new(),
        };
        Ok(Self { dir: target, index, naming })
    }
}

/// A directory that images are written to. One that was made for it goes again when it comes to nothing.
pub(crate) struct TargetDir {
    path: PathBuf,
    made: bool,
}

impl TargetDir {
    /// Makes a directory whose parent exists: a mistyped path becomes an error and no tree of directories.
    pub(crate) fn open(dir: &Path) -> Result<Self, EngineError> {
        let made = match fs::create_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => false,
            made => made.map(|()| true).map_err(at("create", dir))?,
        };
        Ok(Self { path: dir.to_owned(), made })
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// It holds an image.
    pub(crate) fn keep(&mut self) {
        self.made = false;
    }
}

impl Drop for TargetDir {
    fn drop(&mut self) {
        if self.made {
            // The copy has failed, and why is told; what stays is seen.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Writes a file that has its name only when it is complete.
pub(crate) fn write_file(path: &Path, content: &mut dyn Read) -> Result<(), EngineError> {
    let mut part = Part::beside(path).map_err(at("write", path))?;
    let mut buffer = vec![0; PIECE];
    loop {
        let n = content.read(&mut buffer).map_err(read_error)?;
        if n == 0 {
            break;
        }
        part.file().write_all(&buffer[..n]).map_err(at("write", path))?;
    }
    Ok(part.keep(path).map_err(at("write", path))?)
}

impl Sink for OciDirSink {
    fn takes_index(&self) -> bool {
        true
    }

    fn has(&mut self, descriptor: &Descriptor) -> Result<bool, EngineError> {
        let path = self.dir.join(blob_name(&descriptor.digest));
        Ok(fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() == descriptor.size))
    }

    fn put_blob(&mut self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<(), EngineError> {
        write_file(&self.dir.join(blob_name(&descriptor.digest)), content)
    }

    fn put_document(&mut self, raw: &Raw) -> Result<(), EngineError> {
        write_file(&self.dir.join(blob_name(&raw.digest)), &mut raw.bytes.as_slice())
    }

    fn image(&mut self, names: &[String], top: &Raw) -> Result<(), EngineError> {
        self.put_document(top)?;
        let new = entries(names, top, self.naming);
        // A name moves on; an image without a name is listed once.
        self.index.retain(|old| match old.annotations.get(REF_NAME) {
            Some(name) => !names.contains(name),
            None => !names.is_empty() || old.digest != top.digest,
        });
        self.index.extend(new);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        write_file(&self.dir.join(INDEX), &mut index_text(&self.index).as_slice())?;
        self.dir.keep();
        Ok(())
    }
}

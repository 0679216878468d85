//! Archives of images: what `load` reads of docker-archive and oci-archive, plain and compressed.
//!
//! An archive of random bytes is refused at its first checksum, so the input describes one:
//!
//! ```text
//! 0x00 BYTES                         the archive itself, at most 4 KiB
//! other  MEMBER 0x1e MEMBER 0x1e …   MEMBER = kind, name, 0x1f, content; kinds: s symbolic link, h hard link, d directory,
//!                                    p FIFO, anything else a file
//! ```
//! In names and contents `%3` is the digest (hexadecimal) of what member 3 holds, counted from 0, `#3` its length, and `%=` in a
//! name the digest of the member's own content; so mutations leave documents that fit each other.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Cursor, Read},
    path::Path,
};

use onggi_spec::{
    Digest,
    image::{Descriptor, MAX_DOCUMENT},
};
use onggi_storage::tar::{Entry, Kind, TarWriter};
use onggi_sys::fs::Time;
use sha2::{Digest as _, Sha256};

use crate::{
    digest_of,
    engine::EngineError,
    transfer::{
        CopyRule, Listed, MAX_IMAGES, Output, Raw, Sink, Source,
        archive::Archive,
        copy,
        docker_archive::{self, DockerArchive},
        oci::{self, Layout, Naming, OciArchiveSink, OciLayout},
    },
};

/// Bytes of an archive that is not described: a compressed one must not fill the disk.
const MAX_RAW: usize = 4096;
/// Members of one archive: more say nothing new.
const MAX_MEMBERS: usize = 24;

/// The input as an archive.
fn described(data: &[u8]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    let mut known: Vec<(String, usize)> = Vec::new();
    for member in data.split(|byte| *byte == 0x1e).take(MAX_MEMBERS) {
        let Some((kind, rest)) = member.split_first() else { continue };
        let at = rest.iter().position(|byte| *byte == 0x1f).unwrap_or(rest.len());
        let content = replaced(rest.get(at + 1..).unwrap_or_default(), &known, "");
        let own = hex(&content);
        let path = replaced(&rest[..at], &known, &own);
        if path.is_empty() || path.contains(&0) || content.len() > (1 << 20) {
            continue;
        }
        let kind = match kind {
            b's' => Kind::Symlink(content.clone()),
            b'h' => Kind::HardLink(content.clone()),
            b'd' => Kind::Directory,
            b'p' => Kind::Fifo,
            _ => Kind::File { size: content.len() as u64 },
        };
        let file = matches!(kind, Kind::File { .. });
        let entry =
            Entry { offset: 0, path, kind, mode: 0o644, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() };
        if tar.entry(&entry).is_ok() && file {
            tar.content(&content).expect("memory takes it");
        }
        known.push((own, content.len()));
    }
    tar.finish().expect("memory takes it")
}

fn hex(content: &[u8]) -> String {
    digest_of(content).hex().to_owned()
}

fn replaced(text: &[u8], known: &[(String, usize)], own: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let next = bytes.peek().copied();
        let number = next.and_then(|n| known.get(usize::from(n.wrapping_sub(b'0'))));
        match (byte, number) {
            (b'%', Some((digest, _))) => out.extend_from_slice(digest.as_bytes()),
            (b'#', Some((_, length))) => out.extend_from_slice(length.to_string().as_bytes()),
            (b'%', None) if next == Some(b'=') => out.extend_from_slice(own.as_bytes()),
            _ => {
                out.push(byte);
                continue;
            }
        }
        bytes.next();
    }
    out
}

/// Takes images and keeps what their documents said.
#[derive(Default)]
struct Witness {
    blobs: BTreeMap<Digest, u64>,
    tops: Vec<Digest>,
}

impl Sink for Witness {
    fn takes_index(&self) -> bool {
        true
    }

    fn has(&mut self, descriptor: &Descriptor) -> Result<bool, EngineError> {
        Ok(self.blobs.contains_key(&descriptor.digest))
    }

    fn put_blob(&mut self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<(), EngineError> {
        let (mut hasher, mut buffer, mut size) = (Sha256::new(), vec![0; 64 << 10], 0);
        loop {
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    size += n as u64;
                }
                // What the copy says of it is the error that counts.
                Err(_) => return Ok(()),
            }
        }
        assert_eq!(Digest::from_sha256(&hasher.finalize().into()), descriptor.digest);
        assert_eq!(size, descriptor.size);
        self.blobs.insert(descriptor.digest.clone(), size);
        Ok(())
    }

    fn put_document(&mut self, raw: &Raw) -> Result<(), EngineError> {
        assert_eq!(raw.digest, digest_of(&raw.bytes));
        assert!(raw.bytes.len() <= MAX_DOCUMENT);
        Ok(())
    }

    fn image(&mut self, _: &[String], top: &Raw) -> Result<(), EngineError> {
        self.put_document(top)?;
        self.tops.push(top.digest.clone());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// As the engine chooses.
fn source_of(archive: Archive) -> Option<Box<dyn Source>> {
    if archive.has(docker_archive::MANIFEST) {
        return Some(Box::new(DockerArchive::new(archive)));
    }
    archive.has(oci::INDEX).then(|| Box::new(OciLayout::new(Layout::Archive(archive))) as Box<dyn Source>)
}

/// The images that are whole, with what was seen of them.
fn taken(source: &mut dyn Source) -> Option<(Vec<Listed>, Witness)> {
    let images = source.images().ok()?;
    assert!(images.len() <= MAX_IMAGES);
    let mut witness = Witness::default();
    let rule = CopyRule { all: true, ..CopyRule::default() };
    let whole = |image: &Listed| {
        assert!(image.names.len() <= MAX_IMAGES);
        copy(source, &mut witness, image, &image.names, &rule).is_ok()
    };
    let images: Vec<Listed> = images.into_iter().filter(whole).collect();
    Some((images, witness))
}

/// Writes those images as an archive that must hold them again.
fn again(
    source: &mut dyn Source,
    images: &[Listed],
    path: &Path,
    spool: &Path,
) -> Result<Box<dyn Source>, EngineError> {
    let mut sink = OciArchiveSink::new(Output::file(path, spool)?, Naming::Reference)?;
    let rule = CopyRule { all: true, ..CopyRule::default() };
    for image in images {
        copy(source, &mut sink, image, &image.names, &rule)?;
    }
    sink.finish()?;
    let written = Archive::open_file(path, spool)?;
    Ok(source_of(written).expect("what is written is an archive of images"))
}

/// An archive of the input's making: each image is whole and what its documents say or is refused, and what was taken comes out
/// of an archive of ours again.
pub fn archives(data: &[u8]) {
    let bytes = match data.split_first() {
        None => return,
        Some((0, raw)) => raw[..raw.len().min(MAX_RAW)].to_vec(),
        Some((_, text)) => described(text),
    };
    let dir = tempfile::tempdir().expect("make a directory");
    let Ok(archive) = Archive::open(Box::new(Cursor::new(bytes)), "the input", dir.path()) else { return };
    let Some(mut source) = source_of(archive) else { return };
    let Some((images, witness)) = taken(&mut *source) else { return };
    let names: usize = images.iter().map(|image| image.names.len()).sum();
    // A list of more names than are read would be written, for they are the store's own elsewhere.
    if images.is_empty() || images.len() + names > MAX_IMAGES {
        return;
    }
    let path = dir.path().join("again.tar");
    let mut second = again(&mut *source, &images, &path, dir.path()).expect("what was taken can be written");
    let (_, seen) = taken(&mut *second).expect("what was written can be read");
    let sorted = |mut tops: Vec<Digest>| {
        tops.sort();
        tops.dedup();
        tops
    };
    assert_eq!(sorted(seen.tops), sorted(witness.tops));
    assert!(File::open(&path).is_ok());
}

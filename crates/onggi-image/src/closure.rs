//! What belongs to an image beyond one platform: everything that a manifest or index leads to, and what refers to it.
//!
//! ```text
//! <root>/blobs/referrers/<hex>   an index of what refers to the manifest of that digest; kept while that is kept
//! ```

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use onggi_spec::{
    Digest,
    image::{Descriptor, Document, Index, MAX_DOCUMENT, Platform, media_type},
};
use onggi_sys::jail;

use crate::{
    download::{self, Obtained, Wanted},
    embedded,
    error::{ImageError, StoreError},
    platform,
    remote::Remote,
    store::BlobStore,
};

/// Documents of one image that are followed: an index of the most entries, with its attestations.
const MAX_DOCUMENTS: usize = 4000;
/// Largest blob of a foreign platform or an attachment: keeps sums of sizes from overflowing.
const MAX_BLOB: u64 = 1 << 44;

/// A document and what it names.
struct Node {
    /// Configuration and layers of a manifest.
    blobs: Vec<Descriptor>,
    /// Manifests of an index.
    children: Vec<Descriptor>,
}

impl Node {
    fn read(digest: &Digest, bytes: &[u8], media_type: Option<&str>) -> Result<Self, ImageError> {
        let malformed = |source| ImageError::Malformed { what: format!("manifest {digest}"), source };
        Ok(match Document::parse(bytes, media_type).map_err(malformed)? {
            Document::Manifest(m) => {
                Self { blobs: std::iter::once(m.config).chain(m.layers).collect(), children: Vec::new() }
            }
            Document::Index(index) => Self { blobs: Vec::new(), children: index.manifests },
        })
    }
}

/// True for what can be followed: manifests and indexes.
pub(crate) fn is_document(descriptor: &Descriptor) -> bool {
    media_type::ACCEPTED.contains(&descriptor.media_type.as_str())
}

/// Everything in the store that these manifests and indexes lead to, themselves included, with what refers to them.
/// What is not stored, or is no document, leads nowhere.
///
/// # Errors
/// The store cannot be read.
pub fn reachable(store: &BlobStore, roots: &[Digest]) -> Result<HashSet<Digest>, StoreError> {
    let mut seen: HashSet<Digest> = HashSet::new();
    let mut next: Vec<Digest> = roots.to_vec();
    while let Some(digest) = next.pop() {
        if !seen.insert(digest.clone()) {
            continue;
        }
        let Some(bytes) = store.read_small(&digest, MAX_DOCUMENT as u64)? else { continue };
        let Ok(node) = Node::read(&digest, &bytes, None) else { continue };
        seen.extend(node.blobs.into_iter().map(|b| b.digest));
        next.extend(node.children.into_iter().map(|c| c.digest));
        next.extend(referrers(store, &digest)?.into_iter().flat_map(|i| i.manifests).map(|d| d.digest));
    }
    Ok(seen)
}

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnManifest {
    /// Its digest and bytes.
    Stored(Digest, Vec<u8>),
    /// It, or an index on the way to it, is not in the store or damaged there.
    Lost(Digest),
}

/// The manifest of the image with this configuration: `top` itself, or one that this index leads to.
///
/// # Errors
/// The store cannot be read.
pub fn own_manifest(
    store: &BlobStore,
    top: &Digest,
    config: &Digest,
    platform: &Platform,
) -> Result<OwnManifest, StoreError> {
    let mut seen: HashSet<Digest> = HashSet::new();
    let mut next: Vec<Digest> = vec![top.clone()];
    let (mut lost, mut indexes) = (Vec::new(), HashMap::new());
    while let Some(digest) = next.pop() {
        if !seen.insert(digest.clone()) || seen.len() > MAX_DOCUMENTS {
            continue;
        }
        let Some(bytes) = store.read_small(&digest, MAX_DOCUMENT as u64)? else {
            lost.push(digest);
            continue;
        };
        match Document::parse(&bytes, None) {
            Ok(Document::Manifest(m)) if m.config.digest == *config => return Ok(OwnManifest::Stored(digest, bytes)),
            Ok(Document::Index(index)) => {
                next.extend(index.manifests.iter().filter(|d| is_document(d)).map(|d| d.digest.clone()));
                indexes.insert(digest, index);
            }
            _ => {}
        }
    }
    // Other platforms are usually not stored either: the one that is missed is the one that a pull would have chosen.
    let mut chosen = top.clone();
    while let Some(index) = indexes.remove(&chosen) {
        let Some(entry) = platform::select(&index, platform) else { break };
        if lost.contains(&entry.digest) {
            return Ok(OwnManifest::Lost(entry.digest.clone()));
        }
        chosen = entry.digest.clone();
    }
    Ok(OwnManifest::Lost(lost.into_iter().next().unwrap_or_else(|| top.clone())))
}

/// What the store knows to refer to a manifest.
///
/// # Errors
/// The list cannot be read.
pub fn referrers(store: &BlobStore, digest: &Digest) -> Result<Option<Index>, StoreError> {
    let path = referrers_path(store, digest);
    match fs::read(&path) {
        Ok(bytes) => match Document::parse(&bytes, None) {
            Ok(Document::Index(index)) => Ok(Some(index)),
            // Written by a rename of ours, so damaged by something else; a pull writes it anew.
            _ => Ok(None),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError { operation: "read", path, source }),
    }
}

/// Forgets the lists of referrers of manifests that are not kept.
///
/// # Errors
/// The directory cannot be read.
pub fn forget_referrers(store: &BlobStore, keep: &HashSet<Digest>) -> Result<(), StoreError> {
    let dir = store.referrers_dir();
    let fail = |source| StoreError { operation: "list", path: dir.clone(), source };
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(fail(source)),
    };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let digest = format!("sha256:{}", entry.file_name().to_string_lossy()).parse::<Digest>();
        if digest.is_ok_and(|d| !keep.contains(&d)) {
            // Gone already is as good, and what stays is taken the next time.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Writes the list of referrers of a manifest, which are in the store.
fn put_referrers(store: &BlobStore, digest: &Digest, index: &Index) -> Result<(), ImageError> {
    let dir = store.referrers_dir();
    let path = referrers_path(store, digest);
    let part = dir.join(format!("{}.new", digest.hex()));
    let fail = |source| StoreError { operation: "write", path: part.clone(), source };
    let bytes = serde_json::to_vec(index).map_err(io::Error::from).map_err(fail)?;
    fs::create_dir_all(&dir).and_then(|()| fs::write(&part, bytes)).map_err(fail)?;
    fs::File::open(&part).and_then(|f| f.sync_all()).map_err(fail)?;
    fs::rename(&part, &path).map_err(|source| StoreError { operation: "rename", path: part.clone(), source })?;
    Ok(())
}

fn referrers_path(store: &BlobStore, digest: &Digest) -> PathBuf {
    store.referrers_dir().join(digest.hex())
}

/// Brings everything that a manifest or index of the store leads to into the store: other platforms and attestations.
/// The caller holds the store.
///
/// # Errors
/// The first failure; complete blobs stay.
pub fn fetch_whole(
    store: &BlobStore,
    remote: &Remote<'_>,
    top: &Digest,
    parallel: usize,
) -> Result<Vec<Digest>, ImageError> {
    let mut documents: Vec<(Digest, Vec<u8>)> = Vec::new();
    let mut blobs: Vec<Descriptor> = Vec::new();
    let mut seen = HashSet::new();
    let mut next: Vec<(Digest, Option<String>)> = vec![(top.clone(), None)];
    while let Some((digest, media_type)) = next.pop() {
        if !seen.insert(digest.clone()) {
            continue;
        }
        if documents.len() >= MAX_DOCUMENTS {
            let reason = format!("it leads to more than {MAX_DOCUMENTS} documents");
            return Err(ImageError::Invalid { what: format!("index {top}"), reason });
        }
        let bytes = match store.read_small(&digest, MAX_DOCUMENT as u64)? {
            Some(bytes) => bytes,
            None => remote.manifest(digest.as_str())?.bytes,
        };
        let node = jail::parse(|| Node::read(&digest, &bytes, media_type.as_deref()))?;
        blobs.extend(node.blobs.into_iter().filter(|b| seen.insert(b.digest.clone())));
        next.extend(node.children.into_iter().filter(is_document).map(|c| (c.digest, Some(c.media_type))));
        documents.push((digest, bytes));
    }
    fetch_blobs(store, remote, &blobs, parallel)?;
    for (digest, bytes) in &documents {
        store.put_known(digest, bytes)?;
    }
    store.sync_names()?;
    Ok(seen.into_iter().collect())
}

/// Brings what refers to a manifest into the store. Returns how many there are.
///
/// # Errors
/// The first failure.
pub fn fetch_referrers(
    store: &BlobStore,
    remote: &Remote<'_>,
    digest: &Digest,
    parallel: usize,
) -> Result<usize, ImageError> {
    let mut index = remote.referrers(digest)?;
    index.manifests.retain(is_document);
    for entry in &index.manifests {
        fetch_whole(store, remote, &entry.digest, parallel)?;
    }
    if !index.manifests.is_empty() {
        put_referrers(store, digest, &index)?;
    }
    Ok(index.manifests.len())
}

fn fetch_blobs(
    store: &BlobStore,
    remote: &Remote<'_>,
    blobs: &[Descriptor],
    parallel: usize,
) -> Result<(), ImageError> {
    let stop = AtomicBool::new(false);
    each(parallel, blobs, &stop, |blob| {
        if let Some(bytes) = embedded(blob) {
            return Ok(store.put_known(&blob.digest, &bytes)?);
        }
        if blob.size > MAX_BLOB {
            return Err(ImageError::TooLarge { what: format!("blob {}", blob.digest), limit: MAX_BLOB });
        }
        match download::obtain(store, remote, Wanted { digest: &blob.digest, size: blob.size }, &stop)? {
            Obtained::Present => Ok(()),
            Obtained::Fresh(verified) => Ok(verified.commit_content()?),
        }
    })
}

/// Does something to each item on a few threads; the first failure ends it and is returned. The calling thread works
/// too, so that a refused thread only costs speed.
pub(crate) fn each<T: Sync>(
    parallel: usize,
    items: &[T],
    stop: &AtomicBool,
    action: impl Fn(&T) -> Result<(), ImageError> + Sync,
) -> Result<(), ImageError> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<ImageError>> = Mutex::new(None);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(error) = action(item) {
                stop.store(true, Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                // The others then end with `Stopped`, which explains nothing.
                if failed.is_none() || matches!(*failed, Some(ImageError::Stopped)) {
                    *failed = Some(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..parallel.min(items.len()) {
            if thread::Builder::new().name("transfer".to_owned()).spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

//! Differences to a layer's archive.

use std::collections::HashMap;
use std::io::{self, Write};

use onggi_sys::fs::{FileType, Time};

use super::ChangeKind;
use super::content::{self, CopyError};
use super::dir::Found;
use super::node::{Node, NodeKind};
use super::walk::Sink;
use crate::error::{Result, StorageError, shown};
use crate::tar::{Entry, Kind, TarWriter};

/// What an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Bytes of file content, each hard link counted once.
    pub bytes: u64,
}

/// The sink that writes.
pub(super) struct Archive<W> {
    tar: TarWriter<W>,
    /// First name of each inode that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    written: Written,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(tar: TarWriter<W>) -> Self {
        Self { tar, links: HashMap::new(), written: Written::default() }
    }

    pub(super) fn finish(self) -> Result<(W, Written)> {
        Ok((self.tar.finish().map_err(write_failed)?, self.written))
    }

    fn begin(&mut self, entry: &Entry) -> Result<()> {
        self.written.entries += 1;
        self.tar.entry(entry).map_err(write_failed)
    }

    /// The name under which this inode is in the archive already.
    fn first_name(&mut self, path: &[u8], found: &Found) -> Option<Vec<u8>> {
        let linked = found.stat.st_nlink > 1 && found.dir.is_none();
        if !linked {
            return None;
        }
        let inode = (found.stat.st_dev, found.stat.st_ino);
        if let Some(first) = self.links.get(&inode) {
            return Some(first.clone());
        }
        self.links.insert(inode, path.to_vec());
        None
    }

    fn whiteout(&mut self, path: Vec<u8>) -> Result<()> {
        // No time of its own: the same deletion makes the same layer.
        let kind = Kind::File { size: 0 };
        let mtime = Time::default();
        self.begin(&Entry { offset: 0, path, kind, mode: 0o600, uid: 0, gid: 0, mtime, xattrs: Vec::new() })
    }
}

impl<W: Write> Sink for Archive<W> {
    fn put(&mut self, path: &[u8], _: ChangeKind, node: &Node, found: &Found) -> Result<()> {
        let first = self.first_name(path, found);
        let path = if path.is_empty() { &b"."[..] } else { path };
        let Some(entry) = node.entry(path, first.as_deref()) else { return Ok(()) };
        if reserved(path) {
            return Err(StorageError::ReservedName { path: shown(path) });
        }
        self.begin(&entry)?;
        let NodeKind::File { size } = node.kind else { return Ok(()) };
        if first.is_some() || onggi_sys::fs::file_type(&found.stat) != FileType::RegularFile {
            return Ok(());
        }
        self.written.bytes += size;
        let read_failed = |source| StorageError::ReadTree { path: shown(path), source };
        let mut file = content::open(found).map_err(read_failed)?;
        content::copy(&mut file, size, |piece| self.tar.content(piece)).map_err(|e| match e {
            CopyError::Read(source) => read_failed(source),
            CopyError::Write(source) => write_failed(source),
        })
    }

    fn delete(&mut self, path: &[u8]) -> Result<()> {
        let at = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        self.whiteout([&path[..at], b".wh.", &path[at..]].concat())
    }

    fn keeps_links(&self) -> bool {
        true
    }

    fn clear(&mut self, dir: &[u8]) -> Result<bool> {
        // Nobody agrees on an opaque root; and a container's is never cleared as a whole.
        if dir.is_empty() {
            return Ok(false);
        }
        self.whiteout([dir, b"/.wh..wh..opq"].concat())?;
        Ok(true)
    }
}

/// A file of that name would be read back as a deletion (image-spec, "Whiteouts").
fn reserved(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').next_back().is_some_and(|name| name.starts_with(b".wh."))
}

fn write_failed(source: io::Error) -> StorageError {
    StorageError::WriteArchive { source }
}

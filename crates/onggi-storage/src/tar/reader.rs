//! Headers and extensions to entries.

use onggi_sys::fs::Time;

use super::header::{self, BLOCK, Format, GnuSparse, Header};
use super::pax::{self, Pax};
use super::{TarError, TarErrorKind as E};
use crate::limits::{MAX_PATH, MAX_PAX, MAX_SPARSE_SEGMENTS, MAX_TRAILING};

/// Where the bytes come from.
pub trait Source {
    /// The bytes at hand; empty only at the end of the stream.
    fn fill(&mut self) -> &[u8];
    /// Drops the first `n` of them.
    fn consume(&mut self, n: usize);
    /// Drops `n` bytes, at hand or not, if they are there and that is cheaper than reading them; returns how many it
    /// dropped: `n` or none.
    fn skip(&mut self, _n: u64) -> u64 {
        0
    }
}

impl Source for &[u8] {
    fn fill(&mut self) -> &[u8] {
        self
    }
    fn consume(&mut self, n: usize) {
        *self = &self[n..];
    }
}

/// One entry, all extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Offset of its header in the stream.
    pub offset: u64,
    /// The name as written: may be absolute, may contain `..`. Never empty, no NUL, at most `MAX_PATH`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: 0..=0o7777.
    pub mode: u32,
    /// Owner, below 2^32-1.
    pub uid: u32,
    /// Group, below 2^32-1.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The kinds of entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with that many bytes.
    File {
        /// Bytes.
        size: u64,
    },
    /// A regular file with holes. The stored bytes are those of the segments, in order.
    Sparse {
        /// (offset, length), ordered, not overlapping, within `size`.
        segments: Vec<(u64, u64)>,
        /// Length of the file.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A hard link with the name of its target.
    HardLink(Vec<u8>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A FIFO.
    Fifo,
}

/// Extensions collected in front of one entry.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// The reader. Call [`Self::next_entry`], then [`Self::content`] until it is empty (or not at all).
pub struct TarReader<S> {
    source: S,
    position: u64,
    /// Stored bytes of the current entry that are still to come, and its padding.
    remaining: u64,
    padding: u64,
    header_at: u64,
    name: Vec<u8>,
    global_mtime: Option<Time>,
}

impl<S: Source> TarReader<S> {
    /// Starts at the first byte of an archive.
    pub fn new(source: S) -> Self {
        let name = Vec::new();
        Self { source, position: 0, remaining: 0, padding: 0, header_at: 0, name, global_mtime: None }
    }

    /// The next entry; `None` at the end of the archive, after the rest of the stream has been seen to hold
    /// nothing but zeros.
    ///
    /// # Errors
    /// The archive breaks the grammar or ends too early.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.name.clear();
        let entry = self.read_entry();
        entry.map_err(|kind| self.error(kind))
    }

    /// The next piece of the current entry's stored bytes; empty when there is no more. Drop what was used
    /// with [`Self::consume`].
    ///
    /// # Errors
    /// The stream ends inside the entry.
    pub fn content(&mut self) -> Result<&[u8], TarError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        if self.source.fill().is_empty() {
            return Err(self.error(E::Truncated));
        }
        let piece = self.source.fill();
        let n = piece.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        Ok(&piece[..n])
    }

    /// Offset in the stream of the next byte to be read: right after [`Self::next_entry`], of the entry's content.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Marks `n` bytes of the last [`Self::content`] as used.
    pub fn consume(&mut self, n: usize) {
        self.source.consume(n);
        self.position += n as u64;
        self.remaining -= n as u64;
    }

    /// An error at the current entry.
    pub fn error(&self, kind: E) -> TarError {
        let entry = String::from_utf8_lossy(&self.name).chars().take(128).collect();
        TarError { offset: self.header_at, entry, kind }
    }

    fn read_entry(&mut self) -> Result<Option<Entry>, E> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_content()?;
            self.header_at = self.position;
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? || block == [0; BLOCK] {
                return self.finish(&extensions);
            }
            let header = Header::parse(&block)?;
            match (header.flag(), header.format) {
                (b'L' | b'K' | b'x' | b'g', Format::V7) => return Err(E::Magic),
                (b'L', _) => self.long_name(&header, &mut extensions, true)?,
                (b'K', _) => self.long_name(&header, &mut extensions, false)?,
                (b'x', _) => {
                    let data = self.extension(&header, MAX_PAX)?;
                    let other = extensions.pax.is_some() || extensions.name.is_some() || extensions.link.is_some();
                    if other {
                        return Err(E::Extensions);
                    }
                    extensions.pax = Some(Pax::parse(&data)?);
                }
                (b'g', _) => {
                    let data = self.extension(&header, MAX_PAX)?;
                    self.global_mtime = pax::global_mtime(&data)?.or(self.global_mtime);
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    fn long_name(&mut self, header: &Header<'_>, extensions: &mut Extensions, is_name: bool) -> Result<(), E> {
        let data = self.extension(header, MAX_PATH as u64 + 1)?;
        let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
        let what = if is_name { "name" } else { "link target" };
        if data[end..].iter().any(|b| *b != 0) {
            return Err(E::Nul { what });
        }
        pax::check_name(what, &data[..end])?;
        let slot = if is_name { &mut extensions.name } else { &mut extensions.link };
        if extensions.pax.is_some() || slot.replace(data[..end].to_vec()).is_some() {
            return Err(E::Extensions);
        }
        Ok(())
    }

    /// The content of an extension header, whole.
    fn extension(&mut self, header: &Header<'_>, limit: u64) -> Result<Vec<u8>, E> {
        let size = header.size()?;
        if size > limit {
            return Err(E::TooLong { what: "extension header", limit });
        }
        self.set_content(size);
        let mut data = Vec::with_capacity(size as usize);
        while self.remaining > 0 {
            let piece = self.content().map_err(|e| e.kind)?;
            let n = piece.len();
            data.extend_from_slice(piece);
            self.consume(n);
        }
        Ok(data)
    }

    fn entry(&mut self, header: &Header<'_>, extensions: Extensions) -> Result<Entry, E> {
        let pax = extensions.pax.unwrap_or_default();
        let sparse_name = pax.sparse.name.clone();
        let path = sparse_name.or(pax.path.clone()).or(extensions.name).unwrap_or_else(|| header.name());
        self.name.clone_from(&path);
        if path.is_empty() {
            return Err(E::PaxKey { key: "name".to_owned() });
        }
        let link = pax.linkpath.clone().or(extensions.link).unwrap_or_else(|| header.link());
        let stored = stored_size(header.size()?, pax.size)?;
        let mtime = match pax.mtime.or(self.global_mtime) {
            Some(time) => time,
            None => Time { sec: header.mtime()?, nsec: 0 },
        };
        let mut entry = Entry {
            offset: self.header_at,
            path,
            kind: Kind::Directory,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime,
            xattrs: Vec::new(),
        };
        entry.kind = self.kind(header, &pax, stored, &entry.path, link)?;
        entry.xattrs = pax.xattrs;
        Ok(entry)
    }

    fn kind(&mut self, header: &Header<'_>, pax: &Pax, stored: u64, path: &[u8], link: Vec<u8>) -> Result<Kind, E> {
        let flag = header.flag();
        let slash = path.ends_with(b"/");
        let regular = matches!(flag, b'0' | 0 | b'S');
        if pax.sparse.present && !matches!(flag, b'0' | 0) {
            return Err(E::Sparse("sparse keys on something that is no regular file"));
        }
        if !regular && stored != 0 {
            return Err(E::UnexpectedContent { flag });
        }
        if matches!(flag, b'1' | b'2') && link.is_empty() {
            return Err(E::EmptyTarget);
        }
        self.set_content(stored);
        match flag {
            // V7 has no type for directories: a trailing slash says it, and every reader agrees.
            0 if slash && stored == 0 && !pax.sparse.present => Ok(Kind::Directory),
            _ if regular && slash => Err(E::FileWithSlash),
            b'0' | 0 if pax.sparse.present => self.pax_sparse(pax),
            b'0' | 0 => Ok(Kind::File { size: stored }),
            b'S' if header.format == Format::Gnu && pax.size.is_none() => self.gnu_sparse(header),
            b'1' => Ok(Kind::HardLink(link)),
            b'2' => Ok(Kind::Symlink(link)),
            b'3' => header.device().map(|(major, minor)| Kind::Char(major, minor)),
            b'4' => header.device().map(|(major, minor)| Kind::Block(major, minor)),
            b'5' => Ok(Kind::Directory),
            b'6' => Ok(Kind::Fifo),
            _ => Err(E::UnknownType { flag }),
        }
    }

    /// Old GNU sparse: segments in the header and in blocks right behind it, which the size does not count.
    fn gnu_sparse(&mut self, header: &Header<'_>) -> Result<Kind, E> {
        let GnuSparse { mut segments, mut more, real: size } = header.gnu_sparse()?;
        let stored = std::mem::take(&mut self.remaining);
        while more {
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? {
                return Err(E::Truncated);
            }
            let (further, again) = header::sparse_block(&block)?;
            if segments.len() + further.len() > MAX_SPARSE_SEGMENTS {
                return Err(E::Sparse("too many segments"));
            }
            segments.extend(further);
            more = again;
        }
        self.set_content(stored);
        self.sparse(segments, size)
    }

    fn pax_sparse(&mut self, pax: &Pax) -> Result<Kind, E> {
        let size = pax.sparse.real_size.ok_or(E::Sparse("no length"))?;
        match pax.sparse.version {
            (None, None) | (Some(0), Some(0 | 1)) => self.sparse(pax.sparse.map.clone(), size),
            (Some(1), Some(0)) if pax.sparse.map.is_empty() => {
                let segments = self.sparse_map()?;
                self.sparse(segments, size)
            }
            _ => Err(E::Sparse("unknown version")),
        }
    }

    /// Format 1.0: the map is decimal lines at the front of the content, padded to a block.
    fn sparse_map(&mut self) -> Result<Vec<(u64, u64)>, E> {
        let start = self.remaining;
        let count = self.map_number()?;
        if count > MAX_SPARSE_SEGMENTS as u64 {
            return Err(E::Sparse("too many segments"));
        }
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push((self.map_number()?, self.map_number()?));
        }
        let used = start - self.remaining;
        let rest = used.next_multiple_of(BLOCK as u64) - used;
        for _ in 0..rest {
            self.map_byte()?;
        }
        Ok(segments)
    }

    fn map_number(&mut self) -> Result<u64, E> {
        let mut digits = Vec::new();
        loop {
            match self.map_byte()? {
                b'\n' => return pax::decimal(&digits).ok_or(E::Sparse("malformed number")),
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(E::Sparse("malformed number")),
            }
        }
    }

    fn map_byte(&mut self) -> Result<u8, E> {
        let byte = *self.content().map_err(|e| e.kind)?.first().ok_or(E::Sparse("map longer than the file"))?;
        self.consume(1);
        Ok(byte)
    }

    fn sparse(&self, segments: Vec<(u64, u64)>, size: u64) -> Result<Kind, E> {
        let mut end = 0u64;
        let mut total = 0u64;
        for (offset, length) in &segments {
            if *offset < end {
                return Err(E::Sparse("unordered or overlapping"));
            }
            end = offset.checked_add(*length).ok_or(E::Sparse("beyond the end of the file"))?;
            total += length;
        }
        if end > size {
            return Err(E::Sparse("beyond the end of the file"));
        }
        if total != self.remaining {
            return Err(E::Sparse("does not match the stored bytes"));
        }
        Ok(Kind::Sparse { segments, size })
    }

    /// A zero block, or the end of the stream at an entry boundary: nothing but zeros may follow.
    fn finish(&mut self, extensions: &Extensions) -> Result<Option<Entry>, E> {
        if extensions.pax.is_some() || extensions.name.is_some() || extensions.link.is_some() {
            return Err(E::Orphan);
        }
        loop {
            let piece = self.source.fill();
            if piece.is_empty() {
                return Ok(None);
            }
            if piece.iter().any(|b| *b != 0) {
                return Err(E::TrailingData);
            }
            let n = piece.len();
            self.source.consume(n);
            self.position += n as u64;
            if self.position - self.header_at > MAX_TRAILING {
                return Err(E::EndlessZeros { limit: MAX_TRAILING });
            }
        }
    }

    fn set_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip_content(&mut self) -> Result<(), E> {
        self.remaining += std::mem::take(&mut self.padding);
        while self.remaining > 0 {
            let skipped = self.source.skip(self.remaining);
            self.position += skipped;
            self.remaining -= skipped;
            let n = self.content().map_err(|e| e.kind)?.len();
            self.consume(n);
        }
        Ok(())
    }

    /// Fills a block; false at the end of the stream.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, E> {
        let mut have = 0;
        while have < BLOCK {
            let piece = self.source.fill();
            if piece.is_empty() {
                return if have == 0 { Ok(false) } else { Err(E::Truncated) };
            }
            let n = piece.len().min(BLOCK - have);
            block[have..have + n].copy_from_slice(&piece[..n]);
            self.source.consume(n);
            self.position += n as u64;
            have += n;
        }
        Ok(true)
    }
}

/// The header's size field, overridden by PAX only where the header could not say it: a writer leaves 0 there
/// or cannot fit the number. Everything else is an attempt to make two readers disagree.
fn stored_size(header: u64, pax: Option<u64>) -> Result<u64, E> {
    const LARGEST_OCTAL: u64 = 0o77_777_777_777;
    match pax {
        None => Ok(header),
        Some(pax) if pax == header || header == 0 || pax > LARGEST_OCTAL => Ok(pax),
        Some(pax) => Err(E::SizeDisagrees { pax, header }),
    }
}

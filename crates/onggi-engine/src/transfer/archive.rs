//! The members of an image archive: a list of names, offsets and lengths in a file. Nothing is unpacked.
//!
//! In: a file or a stream, plain or compressed. What cannot be read at any place is first written, decompressed, to a
//! nameless file: long runs of zeros take no room there, and a crash leaves nothing. A name is looked up in the list and
//! never on the disk, links between members (the layers of old `docker save`) are followed in the list too.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use onggi_storage::{
    StorageError,
    decompress::{Codec, HEAD},
    decompress_apart,
    tar::{Kind, Source as TarSource, TarErrorKind, TarReader},
};
use onggi_sys::jail;

use super::{
    FormatError,
    error::{at, shown},
};
use crate::EngineError;

/// Members of one archive: 1000 images of 500 layers would be half of it.
const MAX_MEMBERS: usize = 1_000_000;
/// Bytes of names of all members, for they are in memory.
const MAX_NAMES: usize = 256 << 20;
/// Bytes of an archive when decompressed. As for a layer: more is an attack or an accident.
const MAX_ARCHIVE: u64 = 1 << 40;
/// Links from member to member that are followed.
const MAX_LINKS: usize = 5;
/// Bytes moved at once.
const PIECE: usize = 1 << 20;

/// An archive that can be read at any place.
#[derive(Debug)]
pub(crate) struct Archive {
    what: String,
    file: File,
    members: HashMap<Vec<u8>, Member>,
}

#[derive(Debug, Clone)]
enum Member {
    File {
        offset: u64,
        size: u64,
    },
    Link(Vec<u8>),
    Other,
    /// Named twice; an error only when somebody asks for it.
    Twice,
}

impl Archive {
    /// Reads the list of members. `spool` is the directory for what must be decompressed first.
    pub(crate) fn open(input: Box<dyn Read + Send>, what: &str, spool: &Path) -> Result<Self, EngineError> {
        let file = spooled(input, what, spool)?;
        Self::index(file, what)
    }

    /// As [`Self::open`]; a plain archive in a regular file is read where it is.
    pub(crate) fn open_file(path: &Path, spool: &Path) -> Result<Self, EngineError> {
        let what = path.display().to_string();
        let mut file = File::open(path).map_err(at("open", path))?;
        let meta = file.metadata().map_err(at("read", path))?;
        if meta.is_file() {
            let mut head = [0; HEAD];
            let n = read_some(&mut file, &mut head).map_err(at("read", path))?;
            file.rewind().map_err(at("read", path))?;
            if Codec::detect_archive(&head[..n]) == Codec::Plain {
                return Self::index(file, &what);
            }
        }
        Self::open(Box::new(file), &what, spool)
    }

    fn index(file: File, what: &str) -> Result<Self, EngineError> {
        let read_failed = |source| FormatError::Stream { action: "read the archive", source };
        let length = file.metadata().map_err(read_failed)?.len();
        if length == 0 {
            return Err(FormatError::NoBytes { what: what.to_owned() }.into());
        }
        let reader = TarReader::new(FileSource::new(file.try_clone().map_err(read_failed)?, length));
        let members = jail::parse(move || list(reader, what))?;
        Ok(Self { what: what.to_owned(), file, members })
    }

    /// What it is called in messages.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// True when there is such a member.
    pub(crate) fn has(&self, name: &str) -> bool {
        clean(name.as_bytes()).is_some_and(|n| self.members.contains_key(&n))
    }

    /// A small member as a whole.
    pub(crate) fn small(&self, name: &str, limit: u64) -> Result<Vec<u8>, EngineError> {
        let mut reader = self.reader(name)?;
        if reader.left > limit {
            return Err(
                FormatError::TooLarge { what: format!("{:?} in the archive", shown(name.as_bytes())), limit }.into()
            );
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|source| FormatError::Stream { action: "read the archive", source })?;
        Ok(bytes)
    }

    /// A member, to be read from its beginning.
    pub(crate) fn reader(&self, name: &str) -> Result<MemberReader, EngineError> {
        let member = shown(name.as_bytes());
        let mut at = clean(name.as_bytes()).ok_or_else(|| FormatError::Outside { member: member.clone() })?;
        for _ in 0..MAX_LINKS {
            match self.members.get(&at) {
                Some(Member::File { offset, size }) => {
                    let file = self.file.try_clone();
                    let file = file.map_err(|source| FormatError::Stream { action: "read the archive", source })?;
                    return Ok(MemberReader { file, at: *offset, left: *size });
                }
                Some(Member::Link(target)) => {
                    at = clean(target).ok_or_else(|| FormatError::Outside { member: member.clone() })?;
                }
                Some(Member::Twice) => return Err(FormatError::Twice { member }.into()),
                Some(Member::Other) => return Err(FormatError::NotAFile { member }.into()),
                None => return Err(FormatError::Missing { member }.into()),
            }
        }
        Err(FormatError::NotAFile { member }.into())
    }
}

/// The members by their cleaned names.
fn list(mut reader: TarReader<FileSource>, what: &str) -> Result<HashMap<Vec<u8>, Member>, FormatError> {
    let mut members: HashMap<Vec<u8>, Member> = HashMap::new();
    let mut names = 0;
    let bad = |source| FormatError::NotAnArchive { what: what.to_owned(), source };
    while let Some(entry) = reader.next_entry().map_err(bad)? {
        let member = match entry.kind {
            Kind::File { size } => Member::File { offset: reader.position(), size },
            Kind::Symlink(target) => Member::Link(beside(&entry.path, &target)),
            Kind::HardLink(target) => Member::Link(target),
            Kind::Directory => continue,
            _ => Member::Other,
        };
        // A name that leads out cannot be asked for: documents' names are cleaned the same way.
        let Some(name) = clean(&entry.path) else { continue };
        names += name.len();
        if members.len() >= MAX_MEMBERS || names > MAX_NAMES {
            let what = "the archive's list of members".to_owned();
            return Err(FormatError::TooLarge { what, limit: MAX_MEMBERS as u64 });
        }
        members.entry(name).and_modify(|m| *m = Member::Twice).or_insert(member);
    }
    Ok(members)
}

/// The content of one member.
#[derive(Debug)]
pub(crate) struct MemberReader {
    file: File,
    at: u64,
    left: u64,
}

impl MemberReader {
    /// Bytes that are left.
    pub(crate) fn len(&self) -> u64 {
        self.left
    }
}

impl Read for MemberReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if n == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// A relative name without `.` and empty parts; `None` when it is absolute, has `..` that leads out, or is empty.
fn clean(name: &[u8]) -> Option<Vec<u8>> {
    if name.starts_with(b"/") {
        return None;
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join(&b'/'))
}

/// A symbolic link's target, as seen from the top of the archive.
fn beside(link: &[u8], target: &[u8]) -> Vec<u8> {
    if target.starts_with(b"/") {
        return target.to_vec();
    }
    match link.iter().rposition(|b| *b == b'/') {
        Some(at) => [&link[..at], b"/", target].concat(),
        None => target.to_vec(),
    }
}

/// A file as the tar reader wants it.
struct FileSource {
    inner: BufReader<File>,
    /// Bytes up to the end of the file.
    left: u64,
    failed: bool,
}

impl FileSource {
    fn new(file: File, length: u64) -> Self {
        Self { inner: BufReader::with_capacity(PIECE, file), left: length, failed: false }
    }
}

impl TarSource for FileSource {
    /// A read error ends the stream: the archive is then reported as truncated.
    fn fill(&mut self) -> &[u8] {
        use io::BufRead as _;
        match self.inner.fill_buf() {
            Ok(piece) if !self.failed => piece,
            _ => {
                self.failed = true;
                &[]
            }
        }
    }

    fn consume(&mut self, n: usize) {
        use io::BufRead as _;
        self.left = self.left.saturating_sub(n as u64);
        self.inner.consume(n);
    }

    fn skip(&mut self, n: u64) -> u64 {
        let buffered = self.inner.buffer().len() as u64;
        let offset = i64::try_from(n).unwrap_or(i64::MAX);
        if n <= buffered || n > self.left || self.inner.seek_relative(offset).is_err() {
            return 0;
        }
        self.left -= n;
        n
    }
}

/// Decompresses into a nameless file.
fn spooled(input: Box<dyn Read + Send>, what: &str, dir: &Path) -> Result<File, EngineError> {
    let mut spool = tempfile::tempfile_in(dir).map_err(at("write a temporary file in", dir))?;
    let mut total = 0_u64;
    let passed = decompress_apart::<EngineError>(input, dir, |piece| {
        total += piece.len() as u64;
        if total > MAX_ARCHIVE {
            return Err(FormatError::TooLarge { what: "the archive".to_owned(), limit: MAX_ARCHIVE }.into());
        }
        Ok(write_sparse(&mut spool, piece).map_err(at("write a temporary file in", dir))?)
    });
    passed.map_err(|e| match e {
        EngineError::Storage(StorageError::Archive { source }) if source.kind != TarErrorKind::Truncated => {
            FormatError::NotAnArchive { what: what.to_owned(), source }.into()
        }
        other => other,
    })?;
    spool.set_len(total).and_then(|()| spool.rewind()).map_err(at("write a temporary file in", dir))?;
    Ok(spool)
}

/// Zeros become holes: a small archive that unpacks to very many of them must not fill the disk.
fn write_sparse(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    const PAGE: usize = 64 << 10;
    for page in bytes.chunks(PAGE) {
        if page.len() == PAGE && page.iter().all(|b| *b == 0) {
            file.seek(SeekFrom::Current(PAGE as i64))?;
        } else {
            file.write_all(page)?;
        }
    }
    Ok(())
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read(&mut buffer[have..])? {
            0 => break,
            n => have += n,
        }
    }
    Ok(have)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_no_names() {
        for (name, want) in [
            ("a/b", Some("a/b")),
            ("./a//b/", Some("a/b")),
            ("a/../b", Some("b")),
            ("../a", None),
            ("a/../../b", None),
            ("/a", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(clean(name.as_bytes()), want.map(|w| w.as_bytes().to_vec()), "{name}");
        }
        assert_eq!(beside(b"a/layer.tar", b"../b/layer.tar"), b"a/../b/layer.tar");
        assert_eq!(beside(b"l", b"/etc/shadow"), b"/etc/shadow");
    }
}

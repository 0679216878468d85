//! A deterministic tar writer: the same entries make the same bytes, on every machine.
//!
//! In: [`Entry`] after entry, as [`TarReader`](super::TarReader) returns them, and the content in pieces. Out: POSIX ustar
//! headers, preceded by a PAX header only where ustar has no room (long or non-ASCII names, large numbers, fractions
//! of a second, extended attributes). User and group names, access times and device numbers of the archive's own
//! filesystem are never written, so nothing of this machine gets into a layer. A sparse file is written whole: the
//! readers of image layers in the field do not agree on the sparse formats. Memory does not depend on the content.

use std::io::{self, Write};

use onggi_sys::fs::Time;

use super::header::BLOCK;
use super::reader::{Entry, Kind};

/// Largest number in a field of seven octal digits.
const OCTAL7: u64 = 0o777_7777;
/// Largest number in a field of eleven octal digits.
const OCTAL11: u64 = 0o777_7777_7777;
/// GNU tar's unit of output, to which an archive is not padded here: two blocks of zeros end it.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The writer. Call [`Self::entry`], then [`Self::content`] until as many bytes are written as the entry has.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    /// Bytes of the current entry that are still to come.
    remaining: u64,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out, remaining: 0, padding: 0 }
    }

    /// Begins an entry. `offset` is not looked at; a directory's name gets its slash here.
    ///
    /// # Errors
    /// Writing failed, or the entry before is not complete.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.complete()?;
        let mut path = entry.path.clone();
        if entry.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let fields = Fields::of(entry, &path);
        let records = fields.pax_records(entry, &path);
        if !records.is_empty() {
            self.out.write_all(&pax_header(&path, records.len() as u64))?;
            self.out.write_all(&records)?;
            self.out.write_all(&END[..padding(records.len() as u64)])?;
        }
        self.out.write_all(&fields.block(entry))?;
        self.remaining = fields.size;
        self.padding = padding(fields.size);
        Ok(())
    }

    /// Appends to the content of the current entry.
    ///
    /// # Errors
    /// Writing failed, or there is more than the entry has.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.remaining.checked_sub(bytes.len() as u64);
        self.remaining = left.ok_or_else(|| invalid("more content than the entry's size"))?;
        self.out.write_all(bytes)
    }

    /// Bytes of the current entry that are still to come.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Writing failed, or the last entry is not complete.
    pub fn finish(mut self) -> io::Result<W> {
        self.complete()?;
        self.out.write_all(&END)?;
        Ok(self.out)
    }

    fn complete(&mut self) -> io::Result<()> {
        if self.remaining > 0 {
            return Err(invalid("less content than the entry's size"));
        }
        self.out.write_all(&END[..std::mem::take(&mut self.padding)])
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

/// What goes into the header of one entry.
struct Fields<'a> {
    flag: u8,
    link: &'a [u8],
    device: Option<(u32, u32)>,
    size: u64,
    /// Name and prefix; `None` when they do not fit.
    name: Option<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Fields<'a> {
    fn of(entry: &'a Entry, path: &[u8]) -> Self {
        let mut fields = Self { flag: b'0', link: b"", device: None, size: 0, name: split(path) };
        match &entry.kind {
            Kind::File { size } | Kind::Sparse { size, .. } => fields.size = *size,
            Kind::Directory => fields.flag = b'5',
            Kind::Symlink(target) => (fields.flag, fields.link) = (b'2', target),
            Kind::HardLink(target) => (fields.flag, fields.link) = (b'1', target),
            Kind::Char(major, minor) => (fields.flag, fields.device) = (b'3', Some((*major, *minor))),
            Kind::Block(major, minor) => (fields.flag, fields.device) = (b'4', Some((*major, *minor))),
            Kind::Fifo => fields.flag = b'6',
        }
        fields
    }

    /// Records for what the header has no room for, sorted by key.
    fn pax_records(&self, entry: &Entry, path: &[u8]) -> Vec<u8> {
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut add = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));
        if self.name.is_none() {
            add("path", path.to_vec());
        }
        if self.link.len() > 100 || !self.link.is_ascii() {
            add("linkpath", self.link.to_vec());
        }
        for (key, value, max) in
            [("uid", entry.uid.into(), OCTAL7), ("gid", entry.gid.into(), OCTAL7), ("size", self.size, OCTAL11)]
        {
            if value > max {
                add(key, value.to_string().into_bytes());
            }
        }
        if entry.mtime.nsec != 0 || !u64::try_from(entry.mtime.sec).is_ok_and(|s| s <= OCTAL11) {
            add("mtime", decimal(entry.mtime).into_bytes());
        }
        for (name, value) in &entry.xattrs {
            records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone()));
        }
        records.sort();
        records.iter().flat_map(|(key, value)| record(key, value)).collect()
    }

    fn block(&self, entry: &Entry) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let (name, prefix) = self.name.clone().unwrap_or_else(|| (b"long-name".to_vec(), Vec::new()));
        put(&mut block, 0, &name);
        put(&mut block, 345, &prefix);
        octal(&mut block, 100, 7, u64::from(entry.mode & 0o7777));
        octal(&mut block, 108, 7, within(entry.uid.into(), OCTAL7));
        octal(&mut block, 116, 7, within(entry.gid.into(), OCTAL7));
        octal(&mut block, 124, 11, within(self.size, OCTAL11));
        octal(&mut block, 136, 11, within(u64::try_from(entry.mtime.sec).unwrap_or(0), OCTAL11));
        block[156] = self.flag;
        put(&mut block, 157, if self.link.len() <= 100 && self.link.is_ascii() { self.link } else { b"long-link" });
        put(&mut block, 257, b"ustar\x0000");
        if let Some((major, minor)) = self.device {
            octal(&mut block, 329, 7, major.into());
            octal(&mut block, 337, 7, minor.into());
        }
        checksum(&mut block);
        block
    }
}

fn within(value: u64, max: u64) -> u64 {
    if value <= max { value } else { 0 }
}

/// The name as ustar splits it: up to 100 bytes, or up to 155 before a slash and 100 behind it.
fn split(path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((path.to_vec(), Vec::new()));
    }
    let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    let at = slashes.filter(|at| *at <= 155 && *at > 0).rfind(|at| (1..=100).contains(&(path.len() - at - 1)))?;
    Some((path[at + 1..].to_vec(), path[..at].to_vec()))
}

/// The header in front of the records. Its name only matters to readers that do not know PAX.
fn pax_header(path: &[u8], size: u64) -> [u8; BLOCK] {
    let last = path.split(|b| *b == b'/').rfind(|c| !c.is_empty()).unwrap_or_default();
    let shown: Vec<u8> = last.iter().take(80).map(|b| if b.is_ascii_graphic() { *b } else { b'_' }).collect();
    let mut block = [0; BLOCK];
    put(&mut block, 0, &[b"PaxHeaders.0/", shown.as_slice()].concat());
    octal(&mut block, 100, 7, 0o644);
    for (at, digits) in [(108, 7), (116, 7), (136, 11)] {
        octal(&mut block, at, digits, 0);
    }
    octal(&mut block, 124, 11, size);
    block[156] = b'x';
    put(&mut block, 257, b"ustar\x0000");
    checksum(&mut block);
    block
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Seconds with as many digits of a fraction as are needed. The fraction counts forward, also before 1970.
fn decimal(time: Time) -> String {
    let total = i128::from(time.sec) * 1_000_000_000 + i128::from(time.nsec);
    let (sign, total) = if total < 0 { ("-", -total) } else { ("", total) };
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

fn octal(block: &mut [u8; BLOCK], at: usize, digits: usize, value: u64) {
    put(block, at, format!("{value:0digits$o}").as_bytes());
}

fn checksum(block: &mut [u8; BLOCK]) {
    put(block, 148, b"        ");
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    put(block, 148, format!("{sum:06o}\0 ").as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::TarReader;
    use super::*;

    fn read_all(bytes: &[u8]) -> Vec<(Entry, Vec<u8>)> {
        let mut reader = TarReader::new(bytes);
        let mut out = Vec::new();
        while let Some(entry) = reader.next_entry().expect("our own archive is well formed") {
            let mut content = Vec::new();
            loop {
                let piece = reader.content().expect("content").to_vec();
                if piece.is_empty() {
                    break;
                }
                reader.consume(piece.len());
                content.extend(piece);
            }
            out.push((entry, content));
        }
        out
    }

    fn write_all(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        for (entry, content) in entries {
            writer.entry(entry).expect("write");
            writer.content(content).expect("write");
        }
        writer.finish().expect("finish")
    }

    prop_compose! {
        fn a_name()(parts in prop::collection::vec("[a-z]{1,80}|é[ -.0-~]{1,60}|[!-.0-~]{1,200}", 1..6)) -> Vec<u8> {
            parts.join("/").into_bytes()
        }
    }

    fn kind() -> impl Strategy<Value = (Kind, Vec<u8>)> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..1200).prop_map(|c| (Kind::File { size: c.len() as u64 }, c)),
            Just((Kind::Directory, Vec::new())),
            a_name().prop_map(|t| (Kind::Symlink(t), Vec::new())),
            a_name().prop_map(|t| (Kind::HardLink(t), Vec::new())),
            (0..0xfff_u32, 0..0xf_ffff_u32).prop_map(|(a, b)| (Kind::Char(a, b), Vec::new())),
            (0..0xfff_u32, 0..0xf_ffff_u32).prop_map(|(a, b)| (Kind::Block(a, b), Vec::new())),
            Just((Kind::Fifo, Vec::new())),
        ]
    }

    prop_compose! {
        fn entry()(
            mut path in a_name(),
            (kind, content) in kind(),
            mode in 0..0o10000_u32,
            (uid, gid) in (0..u32::MAX - 1, 0..u32::MAX - 1),
            (sec, nsec) in (-10_000_000_000_i64..100_000_000_000, prop_oneof![Just(0), 0..1_000_000_000_u32]),
            xattrs in prop::collection::btree_map("user\\.[a-z=]{1,9}".prop_filter("a key ends at '='", |n| !n.contains('=')), prop::collection::vec(any::<u8>(), 0..300), 0..3),
        ) -> (Entry, Vec<u8>) {
            if kind == Kind::Directory {
                path.push(b'/');
            }
            let xattrs = xattrs.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
            (Entry { offset: 0, path, kind, mode, uid, gid, mtime: Time { sec, nsec }, xattrs }, content)
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(entries in prop::collection::vec(entry(), 0..5)) {
            let mut back = read_all(&write_all(&entries));
            back.iter_mut().for_each(|(entry, _)| entry.offset = 0);
            prop_assert_eq!(back, entries);
        }
    }

    #[test]
    fn a_plain_entry_needs_one_header() {
        let entry = Entry {
            offset: 0,
            path: b"etc/motd".to_vec(),
            kind: Kind::File { size: 2 },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time { sec: 5, nsec: 0 },
            xattrs: Vec::new(),
        };
        assert_eq!(write_all(&[(entry, b"hi".to_vec())]).len(), 4 * BLOCK);
    }

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(record(b"path", b"a"), b"9 path=a\n");
        for length in 1..1200 {
            let record = record(b"path", &vec![b'a'; length]);
            assert!(record.starts_with(format!("{} ", record.len()).as_bytes()), "{length}");
        }
    }

    #[test]
    fn content_must_have_the_length_that_was_promised() {
        let mut writer = TarWriter::new(Vec::new());
        let mut one = read_all(&[0; 1024]);
        assert!(one.pop().is_none());
        let entry = Entry {
            offset: 0,
            path: b"a".to_vec(),
            kind: Kind::File { size: 1 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        };
        writer.entry(&entry).expect("begin");
        assert!(writer.content(b"ab").is_err());
        assert!(writer.finish().is_err());
    }
}

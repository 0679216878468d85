//! `layer.tree`: what a layer's tree held when it was committed, one line per entry, so that later damage is found
//! even where the blob that it came from is gone.
//!
//! ```text
//! f 644 0 0 1000000000.000000000 13 9c3a61ae 00000000 etc/hostname
//! │ │   │ │ │                    │  │        │        └ name: bytes outside of printable ASCII, and %, as %XX
//! │ │   │ │ │                    │  │        └ CRC-32 of the extended attributes, names and values in order
//! │ │   │ │ │                    │  └ CRC-32 of the content, or of a link's target
//! │ │   │ │ │                    └ length; for devices their number
//! │ │   │ │ └ modification time
//! │ └ mode └ owner and group
//! └ f file, d directory, l link, c and b devices, p FIFO, w whiteout
//! ```
//! A user's own file that nobody may read, not even the user, has `????????` for its content, and agrees with any; what is in a
//! directory of this kind is not told.
//! A CRC is for accidents: whoever can write to the store needs no collision. The last line is `end <number of lines>`.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use onggi_sys::fs::{self, DirEntry, FileType, Stat};
use onggi_sys::{Errno, SysError};

use crate::error::{Result, StoreContext, shown};
use crate::known::{Facts, Known};
use crate::whiteout_of::is_whiteout;

/// The file's name in a layer's directory.
pub(crate) const NAME: &str = "layer.tree";

/// A checksum that cannot be known.
const UNKNOWN: &str = "????????";
/// How many names of damaged entries are told.
const TOLD: usize = 20;
/// Bytes that are written at once.
const BUFFER: usize = 64 << 10;
/// Largest record that is read: 2^24 entries of the longest name would be more, real images stay below 200 MB.
const MAX_RECORD: u64 = 1 << 30;

type Sys<T> = std::result::Result<T, SysError>;

/// A record that lacks the lines of some directories and its end. It is not kept open: an image may have a hundred.
#[derive(Debug)]
pub(crate) struct Unfinished {
    lines: u64,
    /// Directories whose lines are still to come.
    later: Vec<Vec<u8>>,
}

impl Unfinished {
    /// Writes the record of `diff` beside it, but for the directories of `inherited`, whose attributes are not theirs yet.
    ///
    /// # Errors
    /// The tree cannot be read, or the record not be written.
    pub(crate) fn begin(dir: BorrowedFd<'_>, path: &Path, known: &Known, inherited: &[Vec<u8>]) -> Result<Self> {
        let diff = fs::open_dir_at(dir, b"diff").store("open", path.join("diff"))?;
        let file = fs::create_file(dir, NAME.as_bytes(), 0o600).store("create", path.join(NAME))?;
        let inherited: HashSet<&[u8]> = inherited.iter().map(Vec::as_slice).collect();
        let mut out = BufWriter::with_capacity(BUFFER, File::from(file));
        let (mut lines, mut later, mut written) = (0, Vec::new(), Ok(()));
        walk(diff, known, &|directory| inherited.contains(directory), &mut |found| match found {
            Found::Line(line) => {
                lines += 1;
                if written.is_ok() {
                    written = out.write_all(line.as_bytes());
                }
            }
            Found::Skipped(directory) => later.push(directory),
        })
        .store("read", path.join("diff"))?;
        written.and_then(|()| out.flush()).map_err(|e| unwritable(&e)).store("write", path.join(NAME))?;
        Ok(Self { lines, later })
    }

    /// Adds what was left out, as it is now, and the end.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(crate) fn end(mut self, dir: BorrowedFd<'_>, path: &Path) -> Result<()> {
        let diff = fs::open_dir_at(dir, b"diff").store("open", path.join("diff"))?;
        let mut text = String::new();
        for directory in &self.later {
            text += &directory_line(diff.as_fd(), directory).store("read", path.join("diff"))?;
            self.lines += 1;
        }
        text += &format!("end {}\n", self.lines);
        let file = path.join(NAME);
        let mut out = File::options().append(true).open(&file).map_err(|e| unwritable(&e)).store("open", &file)?;
        out.write_all(text.as_bytes()).map_err(|e| unwritable(&e)).store("write", file)
    }
}

fn unwritable(e: &std::io::Error) -> SysError {
    SysError::new("write", NAME, Errno::from_raw_os_error(e.raw_os_error().unwrap_or(5)))
}

/// What a look at a layer found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every entry is as it was.
    Sound,
    /// The record is missing, as in layers that an older version unpacked, or is itself damaged.
    NoRecord,
    /// Entries differ: their names, the first of them only.
    Damaged(Vec<String>),
}

/// Compares a layer's tree with its record, contents included.
///
/// # Errors
/// The tree cannot be read.
pub(crate) fn verify(path: &Path) -> Result<Verdict> {
    let Some(recorded) = read(&path.join(NAME)) else { return Ok(Verdict::NoRecord) };
    let diff_path = path.join("diff");
    let diff = match fs::open_dir(&diff_path) {
        Err(e) if e.errno == Errno::NOENT => return Ok(Verdict::Damaged(vec!["/".to_owned()])),
        other => other.store("open", &diff_path)?,
    };
    let mut wanted: HashMap<&str, &str> = recorded.lines().filter_map(|line| Some((name_of(line)?, line))).collect();
    let mut damaged = Vec::new();
    walk(diff, &Known::default(), &|_| false, &mut |found| {
        let Found::Line(line) = found else { return };
        let line = line.trim_end_matches('\n');
        let name = name_of(line).unwrap_or_default();
        if !wanted.remove(name).is_some_and(|recorded| agree(recorded, line)) {
            damaged.push(name.to_owned());
        }
    })
    .store("read", &diff_path)?;
    damaged.extend(wanted.into_keys().map(str::to_owned));
    damaged.sort();
    damaged.truncate(TOLD);
    Ok(if damaged.is_empty() { Verdict::Sound } else { Verdict::Damaged(damaged) })
}

/// The entries' lines, when the record is whole.
fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_RECORD).read_to_string(&mut text).ok()?;
    let (body, last) = text.trim_end_matches('\n').rsplit_once('\n').unwrap_or(("", text.trim_end()));
    let count: usize = last.strip_prefix("end ")?.parse().ok()?;
    let found = if body.is_empty() { 0 } else { body.lines().count() };
    (found == count).then(|| body.to_owned())
}

/// The same, but for a content that one of them does not know.
fn agree(recorded: &str, found: &str) -> bool {
    let fields = |line| str::splitn(line, 9, ' ').enumerate();
    recorded == found
        || fields(recorded)
            .zip(fields(found))
            .all(|((at, a), (_, b))| a == b || at == 6 && (a == UNKNOWN || b == UNKNOWN))
            && fields(recorded).count() == fields(found).count()
}

fn name_of(line: &str) -> Option<&str> {
    line.splitn(9, ' ').nth(8)
}

/// What a walk tells.
enum Found {
    Line(String),
    /// The path of a directory that was to be left out; what is in it is told.
    Skipped(Vec<u8>),
}

/// Every entry below `top`, the root itself first, in an order that depends on names alone; for directories that `skip` names only
/// that they are there.
fn walk(top: OwnedFd, known: &Known, skip: &dyn Fn(&[u8]) -> bool, tell: &mut dyn FnMut(Found)) -> Sys<()> {
    tell(if skip(b"") { Found::Skipped(Vec::new()) } else { Found::Line(directory_line(top.as_fd(), b"")?) });
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let at: &[u8] = if path.is_empty() { b"." } else { &path };
        let dir = match fs::open_dir_same_mount(top.as_fd(), at) {
            // A user's own directory that is closed to the user.
            Err(e) if e.errno == Errno::ACCESS && !path.is_empty() => continue,
            other => other?,
        };
        let mut entries: Vec<DirEntry> = fs::read_dir_inodes(dir.as_fd())?.collect::<Sys<_>>()?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut trusted = Trust::Unknown;
        for found in entries {
            let full = if path.is_empty() { found.name.clone() } else { [&path[..], b"/", &found.name].concat() };
            if let Some(facts) = known.get(found.ino, found.kind)
                && trusted.check(dir.as_fd(), &found)?
            {
                tell(Found::Line(known_line(&full, facts)));
                continue;
            }
            let stat = fs::stat_at(dir.as_fd(), &found.name)?;
            let directory = fs::file_type(&stat) == FileType::Directory;
            if directory && skip(&full) {
                tell(Found::Skipped(full.clone()));
            } else {
                tell(Found::Line(entry(dir.as_fd(), &found.name, &full, &stat)?));
            }
            if directory {
                todo.push(full);
            }
        }
    }
    Ok(())
}

/// The line of a directory by its path from `top`; the root is called `.`.
fn directory_line(top: BorrowedFd<'_>, path: &[u8]) -> Sys<String> {
    let name = if path.is_empty() { b"." } else { path };
    let dir = fs::open_dir_same_mount(top, name)?;
    let stat = fs::stat(dir.as_fd())?;
    Ok(line(name, 'd', &stat, 0, Some(0), attributes(dir.as_fd())?))
}

/// Are the inode numbers in a directory those of the files? Stacked filesystems have others.
enum Trust {
    Unknown,
    Yes,
    No,
}

impl Trust {
    /// Looks once per directory.
    fn check(&mut self, dir: BorrowedFd<'_>, found: &DirEntry) -> Sys<bool> {
        if matches!(self, Self::Unknown) {
            let same = fs::stat_at(dir, &found.name)?.st_ino == found.ino;
            *self = if same { Self::Yes } else { Self::No };
        }
        Ok(matches!(self, Self::Yes))
    }
}

fn known_line(path: &[u8], facts: &Facts) -> String {
    let Facts { link, mode, uid, gid, mtime: (sec, nsec), length, content } = facts;
    let kind = if *link { 'l' } else { 'f' };
    format!("{kind} {mode:o} {uid} {gid} {sec}.{nsec:09} {length} {content:08x} 00000000 {}\n", escaped(path))
}

fn entry(dir: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Sys<String> {
    let kind = fs::file_type(stat);
    let (letter, length, content) = match kind {
        FileType::RegularFile => ('f', stat.st_size.max(0).cast_unsigned(), content(dir, name)?),
        FileType::Directory => ('d', 0, Some(0)),
        FileType::Symlink => ('l', 0, Some(crc32fast::hash(&fs::read_link(dir, name)?))),
        FileType::CharacterDevice if is_whiteout(stat) => ('w', 0, Some(0)),
        FileType::CharacterDevice => ('c', stat.st_rdev, Some(0)),
        FileType::BlockDevice => ('b', stat.st_rdev, Some(0)),
        _ => ('p', 0, Some(0)),
    };
    // Links, devices and whiteouts of a layer have no attributes.
    let attributes = match kind {
        FileType::RegularFile | FileType::Directory => attributes(fs::open_handle(dir, name)?.as_fd())?,
        _ => 0,
    };
    Ok(line(path, letter, stat, length, content, attributes))
}

fn line(path: &[u8], kind: char, stat: &Stat, length: u64, content: Option<u32>, attributes: u32) -> String {
    let content = content.map_or_else(|| UNKNOWN.to_owned(), |content| format!("{content:08x}"));
    let (mode, uid, gid) = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
    let (sec, nsec) = (stat.st_mtime, stat.st_mtime_nsec);
    format!("{kind} {mode:o} {uid} {gid} {sec}.{nsec:09} {length} {content} {attributes:08x} {}\n", escaped(path))
}

/// Printable ASCII but `%` stays, the rest becomes `%XX`.
fn escaped(name: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(name.len());
    for byte in name {
        match byte {
            b'!'..=b'~' if *byte != b'%' => out.push(*byte as char),
            // Writing to a string cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// The CRC-32 of a file's content; `None` where the file may not be read.
fn content(dir: BorrowedFd<'_>, name: &[u8]) -> Sys<Option<u32>> {
    let file = match fs::reopen_read(fs::open_handle(dir, name)?.as_fd()) {
        Err(e) if e.errno == Errno::ACCESS => return Ok(None),
        other => other?,
    };
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    let mut at = 0;
    loop {
        let n = fs::read_at(file.as_fd(), &mut buffer, at)
            .map_err(|e| SysError::new(e.call, format!("{}: {}", shown(name), e.object), e.errno))?;
        if n == 0 {
            return Ok(Some(hasher.finalize()));
        }
        hasher.update(&buffer[..n]);
        at += n as u64;
    }
}

fn attributes(of: BorrowedFd<'_>) -> Sys<u32> {
    let mut names = fs::list_xattr_handle(of)?;
    // Labels are the host's and may come and go.
    names.retain(|name| name == b"security.capability" || !name.starts_with(b"security."));
    if names.is_empty() {
        return Ok(0);
    }
    names.sort();
    let mut hasher = crc32fast::Hasher::new();
    for name in names {
        hasher.update(&name);
        hasher.update(&fs::get_xattr_handle(of, &name)?.unwrap_or_default());
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_word() {
        assert_eq!(escaped(b"a b%\n\xff/c"), "a%20b%25%0A%FF/c");
        assert_eq!(name_of("f 644 0 0 1.000000000 1 00000000 00000000 a%20b"), Some("a%20b"));
    }

    #[test]
    fn a_content_that_cannot_be_known_agrees_with_any_and_nothing_else_does() {
        let line = |content: &str| format!("f 0 0 0 1.000000000 13 {content} 00000000 etc/shadow");
        assert!(agree(&line("9c3a61ae"), &line("9c3a61ae")) && agree(&line("9c3a61ae"), &line(UNKNOWN)));
        assert!(!agree(&line("9c3a61ae"), &line("00000000")));
        assert!(!agree(&line(UNKNOWN), &line(UNKNOWN).replace("13", "14")));
        assert!(!agree(&line(UNKNOWN), &line(UNKNOWN).replace(" etc/shadow", "")));
    }

    #[test]
    fn a_record_that_was_cut_is_none() {
        let path = std::env::temp_dir().join(format!("onggi-record-{}", std::process::id()));
        for (text, whole) in
            [("end 0\n", true), ("x\nend 1\n", true), ("x\n", false), ("", false), ("x\nend 2\n", false)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path).is_some(), whole, "{text:?}");
        }
        std::fs::remove_file(path).unwrap();
    }
}

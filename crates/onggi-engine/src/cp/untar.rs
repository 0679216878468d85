//! A tar archive from outside into a directory of a container.
//!
//! Names are below that directory, `..` is refused. Directories on the way to a name are resolved by the kernel with the
//! container's root as root, so that links in the container work and none leads out; the name itself is never followed.

use std::{
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use onggi_storage::{
    decompress::Decoder,
    tar::{Entry, Kind, Source, TarReader},
};
use onggi_sys::{
    fs,
    path::{self, Node, OFlags},
};
use rustix::fs::{FileType, makedev};

use super::{
    put::{self, Meta, Owner, PutError},
    tree::Report,
};
use crate::EngineError;

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 17;

/// A stream, decompressed, as the reader of archives takes it.
struct Input<'a> {
    decoder: Decoder<'a>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
    failed: Option<onggi_storage::StorageError>,
}

impl Source for &mut Input<'_> {
    fn fill(&mut self) -> &[u8] {
        if self.at == self.piece.len() && !self.ended {
            self.piece.resize(CHUNK, 0);
            self.at = 0;
            let filled = self.decoder.fill(&mut self.piece);
            let n = *filled.as_ref().unwrap_or(&0);
            self.failed = filled.err();
            self.piece.truncate(n);
            self.ended = n < CHUNK;
        }
        &self.piece[self.at..]
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

/// Unpacks `stream` into the directory `base` below `root`.
pub(super) fn unpack(root: BorrowedFd<'_>, base: &Path, stream: impl Read) -> Result<Report, EngineError> {
    let decoder = Decoder::of_archive(stream)?;
    let mut input = Input { decoder, piece: Vec::new(), at: 0, ended: false, failed: None };
    let done = Unpacker { root, base, report: Report::default(), directories: Vec::new() }.run(&mut input);
    match input.failed {
        // The stream's error is why the archive seems to end.
        Some(e) => Err(e.into()),
        None => done,
    }
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    base: &'a Path,
    report: Report,
    /// Directories that were made, which get what they have when everything is in them.
    directories: Vec<(PathBuf, Meta)>,
}

impl Unpacker<'_> {
    fn run(mut self, input: &mut Input<'_>) -> Result<Report, EngineError> {
        let mut tar = TarReader::new(input);
        while let Some(entry) = tar.next_entry().map_err(onggi_storage::StorageError::from)? {
            let Some(name) = below(&entry.path)? else { continue };
            self.entry(&entry, &name, &mut tar)?;
        }
        for (at, meta) in self.directories.iter().rev() {
            // Another entry may have put something else there.
            if let Ok((dir, name)) = self.place(at)
                && let Ok(made) = fs::open_dir_at(dir.as_fd(), &name)
            {
                put::finish_directory(made.as_fd(), *meta, Owner::Kept).map_err(failed(at))?;
            }
        }
        Ok(self.report)
    }

    /// The directory that a name is in, made where it is missing, and the last component.
    fn place(&self, name: &Path) -> Result<(OwnedFd, Vec<u8>), EngineError> {
        let parent = self.base.join(name.parent().unwrap_or(Path::new("")));
        let dir = path::ensure(self.root, &parent, Node::Directory(0o755)).map_err(sys(name))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = path::open_in_root(dir.as_fd(), Path::new("."), flags).map_err(sys(name))?;
        Ok((dir, name.file_name().unwrap_or_default().as_bytes().to_vec()))
    }

    fn entry(&mut self, entry: &Entry, name: &Path, tar: &mut TarReader<&mut Input<'_>>) -> Result<(), EngineError> {
        let (dir, last) = self.place(name)?;
        let (dir, owner) = (dir.as_fd(), Owner::Kept);
        let meta = Meta { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime };
        match &entry.kind {
            Kind::Directory => {
                let (_, new) = put::directory(dir, &last).map_err(failed(name))?;
                if new {
                    self.directories.push((name.to_owned(), meta));
                }
                Ok(())
            }
            Kind::File { size } => self.file((dir, &last), meta, &[(0, *size)], *size, name, tar),
            Kind::Sparse { segments, size } => self.file((dir, &last), meta, segments, *size, name, tar),
            Kind::Symlink(target) => put::link(dir, &last, target, meta, owner).map_err(failed(name)),
            Kind::HardLink(target) => {
                let Some(target) = below(target)? else { return Ok(()) };
                let (from, from_name) = self.place(&target)?;
                put::hard_link(from.as_fd(), &from_name, dir, &last).map_err(failed(name))
            }
            Kind::Fifo => put::node(dir, &last, FileType::Fifo, 0, meta, owner).map_err(failed(name)),
            Kind::Char(major, minor) => {
                let device = makedev(*major, *minor);
                put::node(dir, &last, FileType::CharacterDevice, device, meta, owner).map_err(failed(name))
            }
            Kind::Block(major, minor) => {
                let device = makedev(*major, *minor);
                put::node(dir, &last, FileType::BlockDevice, device, meta, owner).map_err(failed(name))
            }
        }
    }

    fn file(
        &mut self,
        (dir, last): (BorrowedFd<'_>, &[u8]),
        meta: Meta,
        segments: &[(u64, u64)],
        size: u64,
        name: &Path,
        tar: &mut TarReader<&mut Input<'_>>,
    ) -> Result<(), EngineError> {
        let mut broken = None;
        let fill = |file: BorrowedFd<'_>| {
            for (offset, length) in segments {
                let (mut offset, end) = (*offset, offset + length);
                while offset < end {
                    let piece = match tar.content() {
                        Ok(piece) => piece,
                        Err(e) => {
                            broken = Some(e);
                            return Ok(());
                        }
                    };
                    let n = piece.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
                    if n == 0 {
                        break;
                    }
                    fs::write_all_at(file, &piece[..n], offset)?;
                    tar.consume(n);
                    offset += n as u64;
                }
            }
            Ok(fs::set_length(file, size)?)
        };
        put::file(dir, last, meta, Owner::Kept, fill).map_err(failed(name))?;
        self.report.bytes += size;
        broken.map_or(Ok(()), |e| Err(onggi_storage::StorageError::from(e).into()))
    }
}

/// A name of the archive, below the directory that it is unpacked into. `None` for that directory itself.
fn below(raw: &[u8]) -> Result<Option<PathBuf>, EngineError> {
    let mut path = PathBuf::new();
    for component in raw.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                return Err(EngineError::Unsupported {
                    what: "unpacking the archive".into(),
                    reason: format!("the name {:?} leads out of it", String::from_utf8_lossy(raw)),
                    hint: "make the archive of names below one directory".into(),
                });
            }
            name => path.push(std::ffi::OsStr::from_bytes(name)),
        }
    }
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

fn failed(name: &Path) -> impl Fn(PutError) -> EngineError {
    let shown = name.display().to_string();
    move |e| match e {
        PutError::Sys(source) => EngineError::Sys { op: format!("unpack {shown}"), source },
        PutError::Kind(reason) => EngineError::Unsupported {
            what: format!("unpacking {shown}"),
            reason: reason.to_owned(),
            hint: "choose another destination, or remove what is there".to_owned(),
        },
    }
}

fn sys(name: &Path) -> impl Fn(onggi_sys::SysError) -> EngineError {
    let failed = failed(name);
    move |e| failed(e.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_directory() {
        let of = |raw: &str| below(raw.as_bytes()).map(|path| path.map(|p| p.display().to_string()));
        assert_eq!(of("./a//b/").ok().flatten().as_deref(), Some("a/b"));
        assert_eq!(of("/etc/x").ok().flatten().as_deref(), Some("etc/x"));
        assert!(of("./").is_ok_and(|path| path.is_none()));
        for bad in ["..", "a/../b", "/../x"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}

//! A tree of files, walked by open directories: copied into another directory, or written as a tar archive.
//!
//! The source may change while it is read, on purpose too: whatever a name means, it is opened without following a link, and
//! only a regular file is ever opened for reading.

use std::{
    collections::BTreeMap,
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use onggi_storage::tar::{Entry, Kind, TarWriter};
use onggi_sys::fs;
use rustix::fs::{FileType, Stat, major, minor};

use super::put::{self, Meta, Owner, PutError};
use crate::EngineError;

/// Directories below directories: each keeps descriptors open (I12).
const MAX_DEPTH: usize = 400;
/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 18;
/// Filesystems whose files are no data of a container (statfs(2)): proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs,
/// tracefs, securityfs, bpf.
const KERNEL: [i64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
];

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Bytes of content.
    pub(super) bytes: u64,
    /// Names that were left out, and why.
    pub(super) notes: Vec<String>,
}

/// Longest list of what was left out.
const MAX_NOTES: usize = 10;

impl Report {
    fn left_out(&mut self, path: &[u8], why: &str) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(format!("{} was left out: {why}", String::from_utf8_lossy(path)));
        }
    }
}

/// One thing at the source, by its name in an open directory.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) dir: BorrowedFd<'a>,
    pub(super) name: &'a [u8],
}

/// Copies trees.
pub(super) struct Copier {
    pub(super) owner: Owner,
    pub(super) report: Report,
    buffer: Vec<u8>,
}

fn failed(path: &[u8]) -> impl Fn(PutError) -> EngineError {
    let shown = String::from_utf8_lossy(path).into_owned();
    move |e| match e {
        PutError::Sys(source) => EngineError::Sys { op: format!("copy {shown}"), source },
        PutError::Kind(reason) => EngineError::Unsupported {
            what: format!("copying {shown}"),
            reason: reason.to_owned(),
            hint: "choose another destination, or remove what is there".to_owned(),
        },
    }
}

fn sys(path: &[u8]) -> impl Fn(onggi_sys::SysError) -> EngineError {
    let failed = failed(path);
    move |e| failed(e.into())
}

fn too_deep(path: &[u8]) -> EngineError {
    EngineError::Unsupported {
        what: format!("copying {}", String::from_utf8_lossy(&path[..path.len().min(200)])),
        reason: format!("it is more than {MAX_DEPTH} directories deep"),
        hint: "copy a part of it".into(),
    }
}

impl Copier {
    pub(super) fn new(owner: Owner) -> Self {
        Self { owner, report: Report::default(), buffer: vec![0; CHUNK] }
    }

    /// Copies a thing into `to`, under the name there. `path` is what messages call it.
    pub(super) fn copy(&mut self, from: Named<'_>, to: Named<'_>, path: &[u8]) -> Result<(), EngineError> {
        self.copy_at(from, to, path, 0)
    }

    /// Copies what is in a directory into another one.
    pub(super) fn copy_content(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &[u8],
    ) -> Result<(), EngineError> {
        self.content_at(from, to, path, 0)
    }

    fn copy_at(&mut self, from: Named<'_>, to: Named<'_>, path: &[u8], depth: usize) -> Result<(), EngineError> {
        let handle = fs::open_handle(from.dir, from.name).map_err(sys(path))?;
        let stat = fs::stat(handle.as_fd()).map_err(sys(path))?;
        let (meta, owner) = (Meta::of(&stat), self.owner);
        match fs::file_type(&stat) {
            FileType::RegularFile => {
                let source = fs::reopen_read(handle.as_fd()).map_err(sys(path))?;
                let fill = |file: BorrowedFd<'_>| self.pump(source.as_fd(), |bytes| Ok(fs::write_all(file, bytes)?));
                put::file(to.dir, to.name, meta, owner, fill).map_err(failed(path))
            }
            FileType::Directory => self.directory_at(from, to, path, &stat, depth),
            FileType::Symlink => {
                let target = fs::read_link(handle.as_fd(), b"").map_err(sys(path))?;
                put::link(to.dir, to.name, &target, meta, owner).map_err(failed(path))
            }
            FileType::Fifo => put::node(to.dir, to.name, FileType::Fifo, 0, meta, owner).map_err(failed(path)),
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) if owner == Owner::Kept => {
                put::node(to.dir, to.name, kind, stat.st_rdev, meta, owner).map_err(failed(path))
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.report.left_out(path, "it is a device; -a copies devices too");
                Ok(())
            }
            _ => {
                self.report.left_out(path, "a socket cannot be copied");
                Ok(())
            }
        }
    }

    fn directory_at(
        &mut self,
        from: Named<'_>,
        to: Named<'_>,
        path: &[u8],
        stat: &Stat,
        depth: usize,
    ) -> Result<(), EngineError> {
        let source = fs::open_dir_at(from.dir, from.name).map_err(sys(path))?;
        let (made, new) = put::directory(to.dir, to.name).map_err(failed(path))?;
        self.content_at(source.as_fd(), made.as_fd(), path, depth)?;
        if new {
            put::finish_directory(made.as_fd(), Meta::of(stat), self.owner).map_err(failed(path))?;
        }
        Ok(())
    }

    fn content_at(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &[u8],
        depth: usize,
    ) -> Result<(), EngineError> {
        if depth >= MAX_DEPTH {
            return Err(too_deep(path));
        }
        for name in names(from, path)? {
            let path = joined(path, &name);
            if self.is_kernels(from, &name, &path) {
                continue;
            }
            self.copy_at(Named { dir: from, name: &name }, Named { dir: to, name: &name }, &path, depth + 1)?;
        }
        Ok(())
    }

    /// A mount of /proc, /sys or the like below what is copied.
    fn is_kernels(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> bool {
        let is = is_kernels(dir, name);
        if is {
            self.report.left_out(path, "it is a filesystem of the kernel's");
        }
        is
    }

    fn pump(
        &mut self,
        source: BorrowedFd<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), PutError>,
    ) -> Result<(), PutError> {
        let mut offset = 0;
        loop {
            match fs::read_at(source, &mut self.buffer, offset)? {
                0 => break,
                n => {
                    take(&self.buffer[..n])?;
                    offset += n as u64;
                }
            }
        }
        self.report.bytes += offset;
        Ok(())
    }
}

/// Its names, sorted: two copies are made in the same order.
fn names(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>, EngineError> {
    let entries = fs::read_dir(dir).map_err(sys(path))?;
    let mut names = entries.map(|e| e.map(|(name, _)| name)).collect::<Result<Vec<_>, _>>().map_err(sys(path))?;
    names.sort_unstable();
    Ok(names)
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() || path.ends_with(b"/") { [path, name].concat() } else { [path, b"/", name].concat() }
}

fn is_kernels(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let Ok(handle) = fs::open_handle(dir, name) else { return false };
    rustix::fs::fstatfs(&handle).is_ok_and(|found| KERNEL.contains(&found.f_type))
        && !rustix::fs::fstatfs(dir).is_ok_and(|found| KERNEL.contains(&found.f_type))
}

/// Writes trees as a tar archive.
pub(super) struct Archiver<W> {
    out: TarWriter<W>,
    copier: Copier,
    /// Names of files with several, by device and inode.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Archiver<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out: TarWriter::new(out), copier: Copier::new(Owner::Kept), links: BTreeMap::new() }
    }

    /// Writes a thing under a name of the archive.
    pub(super) fn write(&mut self, from: Named<'_>, name: &[u8]) -> Result<(), EngineError> {
        self.write_at(from, name, 0)
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> Result<Report, EngineError> {
        let mut out = self.out.finish().map_err(write_failed)?;
        out.flush().map_err(write_failed)?;
        Ok(self.copier.report)
    }

    fn write_at(&mut self, from: Named<'_>, name: &[u8], depth: usize) -> Result<(), EngineError> {
        let handle = fs::open_handle(from.dir, from.name).map_err(sys(name))?;
        let stat = fs::stat(handle.as_fd()).map_err(sys(name))?;
        let device = (major(stat.st_rdev), minor(stat.st_rdev));
        let kind = match fs::file_type(&stat) {
            FileType::RegularFile => return self.file(&handle, &stat, name),
            FileType::Directory => {
                let dir = fs::open_dir_at(from.dir, from.name).map_err(sys(name))?;
                return self.directory_at(dir.as_fd(), &stat, name, depth);
            }
            FileType::Symlink => Kind::Symlink(fs::read_link(handle.as_fd(), b"").map_err(sys(name))?),
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::Char(device.0, device.1),
            FileType::BlockDevice => Kind::Block(device.0, device.1),
            _ => {
                self.copier.report.left_out(name, "an archive has no sockets");
                return Ok(());
            }
        };
        self.out.entry(&entry(name, kind, &stat)).map_err(write_failed)
    }

    fn directory_at(&mut self, dir: BorrowedFd<'_>, stat: &Stat, name: &[u8], depth: usize) -> Result<(), EngineError> {
        if depth >= MAX_DEPTH {
            return Err(too_deep(name));
        }
        self.out.entry(&entry(name, Kind::Directory, stat)).map_err(write_failed)?;
        for inner in names(dir, name)? {
            let path = joined(name, &inner);
            if !self.copier.is_kernels(dir, &inner, &path) {
                self.write_at(Named { dir, name: &inner }, &path, depth + 1)?;
            }
        }
        Ok(())
    }

    /// A file has as many bytes in the archive as it had in the beginning, whatever is done to it meanwhile.
    fn file(&mut self, handle: &OwnedFd, stat: &Stat, name: &[u8]) -> Result<(), EngineError> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let kind = Kind::HardLink(first.clone());
                return self.out.entry(&entry(name, kind, stat)).map_err(write_failed);
            }
            self.links.insert((stat.st_dev, stat.st_ino), name.to_vec());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.out.entry(&entry(name, Kind::File { size }, stat)).map_err(write_failed)?;
        let source = fs::reopen_read(handle.as_fd()).map_err(sys(name))?;
        let mut offset = 0;
        while self.out.remaining() > 0 {
            let want = usize::try_from(self.out.remaining()).unwrap_or(CHUNK).min(CHUNK);
            let n = fs::read_at(source.as_fd(), &mut self.copier.buffer[..want], offset).map_err(sys(name))?;
            let n = if n == 0 {
                self.copier.buffer[..want].fill(0);
                want
            } else {
                n
            };
            self.out.content(&self.copier.buffer[..n]).map_err(write_failed)?;
            offset += n as u64;
        }
        self.copier.report.bytes += size;
        Ok(())
    }
}

fn write_failed(source: std::io::Error) -> EngineError {
    crate::transfer::FormatError::Stream { action: "write the archive", source }.into()
}

fn entry(name: &[u8], kind: Kind, stat: &Stat) -> Entry {
    let meta = Meta::of(stat);
    Entry {
        offset: 0,
        path: name.to_vec(),
        kind,
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime: meta.mtime,
        xattrs: Vec::new(),
    }
}

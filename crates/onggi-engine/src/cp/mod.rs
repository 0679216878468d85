//! `cp`: files between this machine and a container, running or not.
//!
//! Both sides are open directories. On the container's side every path is resolved by the kernel with its root as root, so
//! that links in it mean what they mean there; below the things that were named, no link is followed on either side. Nothing
//! of the container is executed, loaded, or asked: names of its users are numbers here.

mod arrange;
mod put;
mod root;
mod tree;
mod untar;

use std::{
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use onggi_spec::ParseError;
use onggi_sys::{
    Errno, fs,
    path::{self, OFlags},
    trace,
};
use rustix::fs::FileType;

use crate::{Engine, EngineError, VerbOp, VerbPlan};
use arrange::{Arrangement, From, There, Written, arrange};
use put::Owner;
use root::Access;
use tree::{Archiver, Copier, Named, Report};

/// Links at the end of a destination that are followed; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// One side of a copy as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyPlace {
    /// `-`: a tar archive on standard input or output.
    Stream,
    /// A path of this machine.
    Local(String),
    /// `CONTAINER:PATH`.
    Container {
        /// Name or id.
        container: String,
        /// As written; what is not absolute is below the root.
        path: String,
    },
}

impl FromStr for CopyPlace {
    type Err = ParseError;

    /// As Docker: what begins with a slash or a dot is a path of this machine, whatever colons it has.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = |why: &str| ParseError::new("path to copy", text, why).hint("write PATH, CONTAINER:PATH, or -");
        match text.split_once(':') {
            _ if text.is_empty() => Err(wrong("it is empty")),
            _ if text == "-" => Ok(Self::Stream),
            Some((container, path)) if !text.starts_with(['/', '.']) => match (container, path) {
                ("", _) => Err(wrong("there is no container before the colon")),
                (_, "") => Err(wrong("there is no path behind the colon")),
                _ => Ok(Self::Container { container: container.to_owned(), path: path.to_owned() }),
            },
            _ => Ok(Self::Local(text.to_owned())),
        }
    }
}

/// How to copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpOptions {
    /// Owners are kept.
    pub archive: bool,
    /// What the source's last link leads to is copied, rather than the link.
    pub follow_link: bool,
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpReport {
    /// Bytes of content.
    pub bytes: u64,
    /// What was left out.
    pub notes: Vec<String>,
}

impl std::convert::From<Report> for CpReport {
    fn from(Report { bytes, notes }: Report) -> Self {
        Self { bytes, notes }
    }
}

/// The source, found.
struct Found {
    /// The directory that it is in; if it is a directory, itself.
    dir: OwnedFd,
    name: Vec<u8>,
    is_directory: bool,
}

impl Engine {
    /// Copies from a container to this machine. `base` is what a local path is relative to.
    ///
    /// # Errors
    /// No such container or file, a destination against the rules, or the kernel's word.
    pub fn cp_out(
        &self,
        (container, source): (&str, &str),
        to: &str,
        base: &Path,
        options: CpOptions,
    ) -> Result<CpReport, EngineError> {
        self.recover()?;
        let record = self.find(container)?;
        let (source, to) = (Written::parse(source, Path::new("/")), (Written::parse(to, base), to));
        let access = if options.archive { Access::Full } else { Access::Read };
        let what = || format!("copy {} of container {} to {}", source.path.display(), record.id.short(), to.1);
        let copied = trace::step("engine", what, || {
            self.with_root(&record, access, |root| {
                let host = host_root()?;
                copy(root, &source, host.as_fd(), &to.0, options)
            })
        });
        copied.map(CpReport::from)
    }

    /// Copies from this machine to a container.
    ///
    /// # Errors
    /// As [`Engine::cp_out`].
    pub fn cp_in(
        &self,
        source: &str,
        base: &Path,
        (container, to): (&str, &str),
        options: CpOptions,
    ) -> Result<CpReport, EngineError> {
        self.recover()?;
        let record = self.find(container)?;
        let (source, to) = (Written::parse(source, base), Written::parse(to, Path::new("/")));
        let what =
            || format!("copy {} to {} of container {}", source.path.display(), to.path.display(), record.id.short());
        let copied = trace::step("engine", what, || {
            self.with_root(&record, Access::Full, |root| {
                let host = host_root()?;
                copy(host.as_fd(), &source, root, &to, options)
            })
        });
        copied.map(CpReport::from)
    }

    /// Writes a file or a directory of a container as a tar archive.
    ///
    /// # Errors
    /// As [`Engine::cp_out`].
    pub fn cp_archive(
        &self,
        (container, source): (&str, &str),
        out: impl Write + Send,
        options: CpOptions,
    ) -> Result<CpReport, EngineError> {
        self.recover()?;
        let record = self.find(container)?;
        let source = Written::parse(source, Path::new("/"));
        let report = self.with_root(&record, Access::Full, |root| {
            let found = find(root, &source, options)?;
            let mut archive = Archiver::new(std::io::BufWriter::with_capacity(1 << 18, out));
            archive.write(found.named(), if source.content { b"." } else { source.name() })?;
            archive.finish()
        })?;
        Ok(report.into())
    }

    /// Unpacks a tar archive, compressed or not, into a directory of a container.
    ///
    /// # Errors
    /// As [`Engine::cp_out`]; the destination is no directory, the archive is damaged.
    pub fn cp_unpack(&self, stream: impl Read + Send, (container, to): (&str, &str)) -> Result<CpReport, EngineError> {
        self.recover()?;
        let record = self.find(container)?;
        let to = Written::parse(to, Path::new("/"));
        let report = self.with_root(&record, Access::Full, |root| {
            let dir = path::open_in_root(root, &to.path, OFlags::PATH);
            let dir = dir.map_err(|e| missing(e, &to.path))?;
            if !is_directory(&dir)? {
                return Err(refused(&to.path, "it is no directory", "an archive is unpacked into a directory"));
            }
            untar::unpack(root, &to.path, stream)
        })?;
        Ok(report.into())
    }

    /// What a copy would do.
    ///
    /// # Errors
    /// No such container.
    pub fn explain_cp(&self, from: &CopyPlace, to: &CopyPlace) -> Result<VerbPlan, EngineError> {
        let mut plan = VerbPlan { title: format!("copy {} to {}", from.shown(), to.shown()), ..VerbPlan::default() };
        for place in [from, to] {
            let CopyPlace::Container { container, .. } = place else { continue };
            let record = self.find(container)?;
            let root = match self.living(&record)? {
                Some((_, state)) => format!("open /proc/{}/root, the root of its first process", state.pid),
                None => format!(
                    "mount the layers and the volumes of container {} in a mount namespace of its own",
                    record.id.short()
                ),
            };
            plan.operations.push(VerbOp::Note { what: root });
        }
        plan.operations.push(VerbOp::Note {
            what: "resolve the path with openat2(2), with that directory as root: no link leads out of it".to_owned(),
        });
        plan.operations.push(VerbOp::Note { what: format!("copy {} to {}", from.shown(), to.shown()) });
        Ok(plan)
    }
}

impl CopyPlace {
    fn shown(&self) -> String {
        match self {
            Self::Stream => "-".to_owned(),
            Self::Local(path) => path.clone(),
            Self::Container { container, path } => format!("{container}:{path}"),
        }
    }
}

impl Found {
    fn named(&self) -> Named<'_> {
        Named { dir: self.dir.as_fd(), name: &self.name }
    }
}

fn host_root() -> Result<OwnedFd, EngineError> {
    fs::open_dir(Path::new("/")).map_err(|source| EngineError::Sys { op: "open /".into(), source })
}

fn refused(path: &Path, reason: &str, hint: &str) -> EngineError {
    let what = format!("copying from or to {}", path.display());
    EngineError::Unsupported { what, reason: reason.to_owned(), hint: hint.to_owned() }
}

fn missing(e: onggi_sys::SysError, path: &Path) -> EngineError {
    match e.errno {
        Errno::NOENT => refused(
            path,
            "there is no such file or directory",
            "check the path, of this machine or of the container (`onggi exec NAME ls -l /`)",
        ),
        Errno::NOTDIR => refused(
            path,
            "a part of the path is no directory",
            "check the path, of this machine or of the container (`onggi exec NAME ls -l /`)",
        ),
        _ => EngineError::Sys { op: format!("open {}", path.display()), source: e },
    }
}

fn kind(fd: &OwnedFd) -> Result<FileType, EngineError> {
    let stat = fs::stat(fd.as_fd());
    stat.map(|s| fs::file_type(&s)).map_err(|source| EngineError::Sys { op: "look at a file".into(), source })
}

fn is_directory(fd: &OwnedFd) -> Result<bool, EngineError> {
    Ok(kind(fd)?.is_dir())
}

/// Opens the source: links on the way are followed in `root`, the last one only when that was asked for.
fn find(root: BorrowedFd<'_>, source: &Written, options: CpOptions) -> Result<Found, EngineError> {
    let failed = |e| missing(e, &source.path);
    let follow = options.follow_link || source.slash;
    let mut at = source.path.clone();
    if follow {
        at = end_of_links(root, at)?;
    }
    let flags = OFlags::PATH | if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let handle = path::open_in_root(root, &at, flags).map_err(failed)?;
    let is_directory = is_directory(&handle)?;
    if source.slash && !is_directory {
        return Err(refused(&source.path, "it is no directory", "leave the slash at its end out"));
    }
    let (dir, name) = match at.file_name().filter(|_| !is_directory) {
        Some(name) => (at.parent().unwrap_or(Path::new("/")), name.as_bytes()),
        None => (&*at, &b"."[..]),
    };
    let name = name.to_vec();
    let dir = path::open_in_root(root, dir, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    Ok(Found { dir, name, is_directory })
}

/// Where a path ends whose last component is a link to a link. In the container the next one is looked up by the kernel again.
fn end_of_links(root: BorrowedFd<'_>, mut at: PathBuf) -> Result<PathBuf, EngineError> {
    for _ in 0..MAX_LINKS {
        let handle = match path::open_in_root(root, &at, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(handle) => handle,
            Err(e) if e.errno == Errno::NOENT => return Ok(at),
            Err(e) => return Err(missing(e, &at)),
        };
        if kind(&handle)? != FileType::Symlink {
            return Ok(at);
        }
        let target = fs::read_link(handle.as_fd(), b"");
        let target = target.map_err(|source| EngineError::Sys { op: format!("read {}", at.display()), source })?;
        // `..` behind a link is not what it seems: the kernel resolves the whole path.
        at = at.parent().unwrap_or(Path::new("/")).join(Path::new(std::ffi::OsStr::from_bytes(&target)));
    }
    Err(refused(&at, "too many links lead to one another", "name the file itself"))
}

fn copy(
    from_root: BorrowedFd<'_>,
    source: &Written,
    to_root: BorrowedFd<'_>,
    to: &Written,
    options: CpOptions,
) -> Result<Report, EngineError> {
    let found = find(from_root, source, options)?;
    let shown = source.path.display().to_string();
    let at = end_of_links(to_root, to.path.clone())?;
    let there = match path::open_in_root(to_root, &at, OFlags::PATH) {
        Ok(handle) => match kind(&handle)? {
            FileType::Directory => There::Directory,
            FileType::RegularFile => There::File,
            _ => There::Special,
        },
        Err(e) if e.errno == Errno::NOENT => There::Nothing,
        Err(e) => return Err(missing(e, &to.path)),
    };
    let from = From { shown: &shown, directory: found.is_directory, content: source.content };
    let arrangement = arrange(from, there, to.slash).map_err(|(reason, hint)| refused(&to.path, &reason, hint))?;
    let open = |at: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        path::open_in_root(to_root, at, flags).map_err(|e| match e.errno {
            Errno::NOENT => refused(at, "there is no such directory", "make it first; only its last part is made"),
            _ => missing(e, at),
        })
    };
    let mut copier = Copier::new(if options.archive { Owner::Kept } else { Owner::Ours });
    let path = shown.as_bytes();
    match arrangement {
        Arrangement::Content => copier.copy_content(found.dir.as_fd(), open(&at)?.as_fd(), path)?,
        Arrangement::Into => {
            let dir = open(&at)?;
            copier.copy(found.named(), Named { dir: dir.as_fd(), name: source.name() }, path)?;
        }
        Arrangement::As => {
            let dir = open(at.parent().unwrap_or(Path::new("/")))?;
            let name = at.file_name().map_or(&b"."[..], |name| name.as_bytes());
            copier.copy(found.named(), Named { dir: dir.as_fd(), name }, path)?;
        }
    }
    Ok(copier.report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_as_docker_does() {
        let container = |container: &str, path: &str| CopyPlace::Container {
            container: container.to_owned(),
            path: path.to_owned(),
        };
        let local = |path: &str| CopyPlace::Local(path.to_owned());
        for (text, want) in [
            ("-", CopyPlace::Stream),
            ("web:/etc/x", container("web", "/etc/x")),
            ("web:x:y", container("web", "x:y")),
            ("/a:b", local("/a:b")),
            ("./a:b", local("./a:b")),
            ("a", local("a")),
        ] {
            assert_eq!(text.parse::<CopyPlace>().ok(), Some(want), "{text}");
        }
        for bad in ["", ":x", "web:"] {
            assert!(bad.parse::<CopyPlace>().is_err(), "{bad}");
        }
    }
}

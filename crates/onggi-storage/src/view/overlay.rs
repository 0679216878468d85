//! Path lookup over the directories of an overlay.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use onggi_spec::monitor::OverlayMount;
use onggi_sys::fs::{self, FileType, Stat};
use onggi_sys::{Errno, SysError};

use crate::error::{InRootProblem, Result, StorageError, StoreContext, shown};
use crate::limits::{MAX_LINKS, MAX_PATH};
use crate::whiteout_of::{is_opaque, is_whiteout};

/// The directories that together are one directory of the container, topmost first.
type Merged = Vec<Rc<OwnedFd>>;

/// An opened root filesystem.
pub struct View {
    root: Merged,
    /// Mount points with their own directories.
    submounts: Vec<(Vec<u8>, Merged)>,
    hidden: Vec<Vec<u8>>,
}

/// What a path leads to.
pub(super) struct Found {
    /// `O_PATH` handle.
    pub handle: OwnedFd,
    /// Its attributes.
    pub stat: Stat,
}

/// Why a lookup ended: not there, refused, or failed.
enum Stop {
    Problem(InRootProblem),
    System(SysError),
}

impl From<SysError> for Stop {
    fn from(e: SysError) -> Self {
        Self::System(e)
    }
}

impl View {
    /// Opens the directories of a root filesystem.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub fn open(mount: &OverlayMount) -> Result<Self> {
        let open = |path: &PathBuf| fs::open_dir(path).map(Rc::new).store("open", path);
        let mut root = vec![open(&mount.upper)?];
        for lower in &mount.lower {
            root.push(open(lower)?);
        }
        let mut submounts = Vec::new();
        for sub in &mount.submounts {
            let upper = open(&sub.upper)?;
            match open(&sub.path) {
                Ok(lower) => submounts.push((canonical(&sub.path), vec![upper, lower])),
                // A directory of the host went away since the container was made; nothing is mounted there either.
                Err(StorageError::Store { source, .. }) if source.errno == Errno::NOENT => {}
                Err(e) => return Err(e),
            }
        }
        let hidden = mount.hidden.iter().map(|path| canonical(path)).collect();
        Ok(Self { root, submounts, hidden })
    }

    /// Reads a regular file of at most `max` bytes; `None` when it does not exist.
    ///
    /// # Errors
    /// It is no regular file, longer, or cannot be read.
    pub fn read(&self, path: &[u8], max: u64) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.lookup(path)? else { return Ok(None) };
        let data = found.read(path, max.saturating_add(1))?;
        if data.len() as u64 > max {
            return Err(in_root(path, InRootProblem::TooLarge));
        }
        Ok(Some(data))
    }

    /// Follows `path` to the end; `None` when it does not exist.
    ///
    /// # Errors
    /// A loop, an invalid path, or a directory that cannot be searched.
    pub(super) fn lookup(&self, path: &[u8]) -> Result<Option<Found>> {
        match self.walk(path) {
            Ok(found) => Ok(Some(found)),
            Err(Stop::Problem(InRootProblem::NotFound | InRootProblem::NotDirectory)) => Ok(None),
            Err(Stop::Problem(problem)) => Err(in_root(path, problem)),
            Err(Stop::System(source)) => Err(StorageError::Lookup { path: shown(path), source }),
        }
    }

    fn walk(&self, path: &[u8]) -> std::result::Result<Found, Stop> {
        let mut at = Place { stack: vec![self.root.clone()], real: Vec::new() };
        let mut todo = VecDeque::new();
        push(&mut todo, path)?;
        let mut links = 0;
        let mut last = at.directory()?;
        while let Some(name) = todo.pop_front() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at.leave();
                    last = at.directory()?;
                    continue;
                }
                _ => {}
            }
            let entry = at.entry(&name)?;
            match fs::file_type(&entry.found.stat) {
                FileType::Directory => {
                    at.enter(&name, entry.merged);
                    self.mounts(&mut at)?;
                    last = at.directory()?;
                }
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Stop::Problem(InRootProblem::LinkLoop));
                    }
                    let target = fs::read_link(entry.parent.as_fd(), &name)?;
                    if target.starts_with(b"/") {
                        at = Place { stack: vec![self.root.clone()], real: Vec::new() };
                        last = at.directory()?;
                    }
                    push(&mut todo, &target)?;
                }
                _ if todo.iter().all(|c| c.is_empty()) => return Ok(entry.found),
                _ => return Err(Stop::Problem(InRootProblem::NotDirectory)),
            }
        }
        Ok(last)
    }

    /// A mount point shows what is mounted there.
    fn mounts(&self, at: &mut Place) -> std::result::Result<(), Stop> {
        if self.hidden.contains(&at.real) {
            return Err(Stop::Problem(InRootProblem::NotFound));
        }
        if let Some((_, merged)) = self.submounts.iter().find(|(path, _)| *path == at.real) {
            at.stack.pop();
            at.stack.push(merged.clone());
        }
        Ok(())
    }
}

/// Where a walk stands: the directories from the root down, and their path.
struct Place {
    stack: Vec<Merged>,
    real: Vec<u8>,
}

/// One name in a merged directory.
struct Hit {
    found: Found,
    /// The directory that holds it.
    parent: Rc<OwnedFd>,
    /// For a directory: everything that is merged under its name.
    merged: Merged,
}

impl Place {
    fn current(&self) -> &Merged {
        // The stack starts with the root and `leave` never pops that.
        &self.stack[self.stack.len() - 1]
    }

    fn directory(&self) -> std::result::Result<Found, Stop> {
        let top = self.current().first().ok_or(Stop::Problem(InRootProblem::NotFound))?;
        let handle = fs::open_handle(top.as_fd(), b".")?;
        let stat = fs::stat(handle.as_fd())?;
        Ok(Found { handle, stat })
    }

    fn enter(&mut self, name: &[u8], merged: Merged) {
        self.real.push(b'/');
        self.real.extend_from_slice(name);
        self.stack.push(merged);
    }

    fn leave(&mut self) {
        if self.stack.len() > 1 {
            self.stack.pop();
            let end = self.real.iter().rposition(|b| *b == b'/').unwrap_or(0);
            self.real.truncate(end);
        }
    }

    fn entry(&self, name: &[u8]) -> std::result::Result<Hit, Stop> {
        let mut hit: Option<Hit> = None;
        for dir in self.current() {
            let handle = match fs::open_handle(dir.as_fd(), name) {
                Ok(handle) => handle,
                Err(e) if e.errno == Errno::NOENT => continue,
                Err(e) if e.errno == Errno::NAMETOOLONG => return Err(Stop::Problem(InRootProblem::BadPath)),
                Err(e) => return Err(e.into()),
            };
            let stat = fs::stat(handle.as_fd())?;
            let directory = fs::file_type(&stat) == FileType::Directory;
            if is_whiteout(&stat) || (!directory && hit.is_some()) {
                break;
            }
            let opaque = directory && is_opaque(handle.as_fd())?;
            let merged = if directory { vec![Rc::new(fs::open_handle(handle.as_fd(), b".")?)] } else { Vec::new() };
            match &mut hit {
                None => hit = Some(Hit { found: Found { handle, stat }, parent: Rc::clone(dir), merged }),
                Some(upper) => upper.merged.extend(merged),
            }
            if !directory || opaque {
                break;
            }
        }
        hit.ok_or(Stop::Problem(InRootProblem::NotFound))
    }
}

impl Found {
    pub(super) fn is_file(&self) -> bool {
        fs::file_type(&self.stat) == FileType::RegularFile
    }

    /// At most `limit` bytes from its beginning. The type was seen on the handle that is opened, so a FIFO or a device
    /// is never touched.
    pub(super) fn read(&self, path: &[u8], limit: u64) -> Result<Vec<u8>> {
        if !self.is_file() {
            return Err(in_root(path, InRootProblem::NotRegular));
        }
        let failed = |source| StorageError::Lookup { path: shown(path), source };
        let file = File::from(fs::reopen_read(self.handle.as_fd()).map_err(failed)?);
        let mut data = Vec::new();
        file.take(limit).read_to_end(&mut data).map_err(|e| {
            let errno = Errno::from_raw_os_error(e.raw_os_error().unwrap_or(5));
            failed(SysError::new("read", shown(path), errno))
        })?;
        Ok(data)
    }
}

pub(super) fn in_root(path: &[u8], problem: InRootProblem) -> StorageError {
    StorageError::InRoot { path: shown(path), problem }
}

/// Puts the components of `path` in front. A trailing slash stays visible as an empty component.
fn push(todo: &mut VecDeque<Vec<u8>>, path: &[u8]) -> std::result::Result<(), Stop> {
    if path.is_empty() || path.contains(&0) || path.len() > MAX_PATH {
        return Err(Stop::Problem(InRootProblem::BadPath));
    }
    for component in path.split(|b| *b == b'/').rev() {
        todo.push_front(component.to_vec());
    }
    Ok(())
}

/// `/a/b` for `/a/b/`; empty for `/`: how [`Place::real`] is written.
fn canonical(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for component in path.as_os_str().as_encoded_bytes().split(|b| *b == b'/').filter(|c| !c.is_empty()) {
        out.push(b'/');
        out.extend_from_slice(component);
    }
    out
}

//! Paths below a root that somebody else writes to: opened and created without ever leaving it (I1).
//!
//! `openat2` with `RESOLVE_IN_ROOT` gives one-syscall resolution; what is missing is created component by
//! component with descriptor-relative calls, expanding symbolic links here, inside the root. A rename race
//! can only lead to another place below the same root. openat2(2).

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::{Mode, ResolveFlags};

pub use rustix::fs::OFlags;

use crate::{Errno, Result, SysContext, SysError};

/// Symbolic links expanded in one path before ELOOP; the kernel's own limit.
const MAX_LINKS: usize = 40;
/// openat2 returns EAGAIN when a rename or mount happens during `..`; a rename loop must not hang us.
const MAX_RETRIES: usize = 64;
/// Components in one path; PATH_MAX / 2.
const MAX_COMPONENTS: usize = 2048;

/// What [`ensure`] creates when nothing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A directory with this mode.
    Directory(u32),
    /// An empty regular file with this mode, its missing parents 0755.
    File(u32),
}

/// Opens `path` with `root` as `/`; symbolic links are followed inside `root`, magic links never.
///
/// # Errors
/// ENOENT, ELOOP, EACCES, and EAGAIN when the path is renamed all the time.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// As [`open_in_root`], but no component may be a symbolic link.
///
/// # Errors
/// ELOOP when one is.
pub fn open_in_root_no_links(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS)
}

/// Opens `path` below `dir` on the same mount, without any link: for procfs and cgroupfs files (I2).
///
/// # Errors
/// EXDEV when something is mounted over it, ELOOP for a link.
pub fn open_same_mount(dir: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    resolve(dir, path, flags, how)
}

fn resolve(dir: BorrowedFd<'_>, path: &Path, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    for _ in 0..MAX_RETRIES {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            r => return r.sys("openat2", || format!("{path:?}")),
        }
    }
    Err(SysError::new("openat2", format!("{path:?}"), Errno::AGAIN))
}

/// Opens `path` in `root` as O_PATH, creating it and its missing parents; a dangling symbolic link leads to
/// the creation of its target, inside the root. An existing object is returned whatever its kind.
///
/// # Errors
/// What mkdirat(2), openat(2) fail with; ELOOP after 40 links; ENAMETOOLONG for absurd paths.
pub fn ensure(root: BorrowedFd<'_>, path: &Path, node: Node) -> Result<OwnedFd> {
    match open_in_root(root, path, OFlags::PATH) {
        Err(e) if e.errno == Errno::NOENT => {}
        r => return r,
    }
    create(root, path, node)
}

/// [`ensure`] for what was not there a moment ago.
fn create(root: BorrowedFd<'_>, path: &Path, node: Node) -> Result<OwnedFd> {
    match create_last(root, path, node)? {
        Some(fd) => Ok(fd),
        None => Walk::new(root, path)?.run(node),
    }
}

/// As [`ensure`], but a symbolic link in the last component is taken as what is there.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_no_follow(root: BorrowedFd<'_>, path: &Path, node: Node) -> Result<OwnedFd> {
    match open_in_root(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
        // A link that leads nowhere would have been opened.
        Err(e) if e.errno == Errno::NOENT => create(root, path, node),
        r => r,
    }
}

/// The usual case, in few calls: everything but the last component exists. `None` when it is another case.
fn create_last(root: BorrowedFd<'_>, path: &Path, node: Node) -> Result<Option<OwnedFd>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let Ok(dir) = open_in_root(root, parent, OFlags::PATH | OFlags::DIRECTORY) else { return Ok(None) };
    let walk = Walk { root, done: parent.to_path_buf(), left: VecDeque::new(), links: 0 };
    match rustix::fs::statat(&dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => walk.create(dir.as_fd(), name, node).map(Some),
        _ => Ok(None),
    }
}

/// The state of one creating walk: what is resolved (free of links when it was looked at) and what is left.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    done: PathBuf,
    left: VecDeque<OsString>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn new(root: BorrowedFd<'a>, path: &Path) -> Result<Self> {
        let mut walk = Self { root, done: PathBuf::new(), left: VecDeque::new(), links: 0 };
        walk.push_front(path)?;
        Ok(walk)
    }

    fn push_front(&mut self, path: &Path) -> Result<()> {
        if path.components().count() + self.left.len() > MAX_COMPONENTS {
            return Err(SysError::new("openat2", format!("{path:?}"), Errno::NAMETOOLONG));
        }
        for c in path.components().rev() {
            match c {
                Component::RootDir => self.done = PathBuf::new(),
                Component::Normal(n) => self.left.push_front(n.to_owned()),
                Component::ParentDir => self.left.push_front(OsString::from("..")),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(())
    }

    fn run(mut self, node: Node) -> Result<OwnedFd> {
        let mut fd = self.open_done()?;
        while let Some(name) = self.left.pop_front() {
            if name == ".." {
                self.done.pop();
                fd = self.open_done()?;
                continue;
            }
            fd = match self.step(fd.as_fd(), &name, node)? {
                Some(next) => {
                    self.done.push(&name);
                    next
                }
                None => self.open_done()?,
            };
        }
        Ok(fd)
    }

    /// One component: opened, or created, or `None` after a link was expanded.
    fn step(&mut self, dir: BorrowedFd<'_>, name: &OsStr, node: Node) -> Result<Option<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let what = || format!("{:?}", self.done.join(name));
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).sys("fstat", what)?;
                if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Symlink {
                    return Ok(Some(fd));
                }
                let target = rustix::fs::readlinkat(&fd, c"", Vec::new()).sys("readlinkat", what)?;
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(SysError::new("openat2", what(), Errno::LOOP));
                }
                let target = OsString::from_vec(target.into_bytes());
                self.push_front(Path::new(&target))?;
                Ok(None)
            }
            Err(Errno::NOENT) => self.create(dir, name, node).map(Some),
            Err(e) => Err(SysError::new("openat", what(), e)),
        }
    }

    fn create(&self, dir: BorrowedFd<'_>, name: &OsStr, node: Node) -> Result<OwnedFd> {
        let what = || format!("{:?}", self.done.join(name));
        let last = self.left.is_empty();
        let open = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match node {
            Node::File(mode) if last => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
                match rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode)) {
                    Ok(_) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(SysError::new("openat", what(), e)),
                }
                rustix::fs::openat(dir, name, open, Mode::empty()).sys("openat", what)
            }
            _ => {
                let mode = if let (Node::Directory(m), true) = (node, last) { m } else { 0o755 };
                match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(SysError::new("mkdirat", what(), e)),
                }
                rustix::fs::openat(dir, name, open | OFlags::DIRECTORY, Mode::empty()).sys("openat", what)
            }
        }
    }

    fn open_done(&self) -> Result<OwnedFd> {
        let done = if self.done.as_os_str().is_empty() { Path::new(".") } else { &self.done };
        open_in_root_no_links(self.root, done, OFlags::PATH | OFlags::DIRECTORY)
    }
}

/// Reads at most `limit` bytes of an open file; more is an error (I12).
///
/// # Errors
/// EFBIG beyond the limit.
pub fn read_bounded(fd: BorrowedFd<'_>, limit: usize, name: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut buf = [0u8; 8192];
    loop {
        let n = match rustix::io::read(fd, &mut buf) {
            Err(Errno::INTR) => continue,
            r => r.sys("read", || format!("{name:?}"))?,
        };
        if n == 0 {
            return Ok(out);
        }
        if out.len() + n > limit {
            return Err(SysError::new("read", format!("{name:?}, more than {limit} bytes"), Errno::FBIG));
        }
        out.extend_from_slice(&buf[..n]);
    }
}

/// Writes a whole buffer with one write(2), as procfs and cgroupfs demand.
///
/// # Errors
/// What the file refuses the value with; EIO for a short write.
pub fn write_once(fd: BorrowedFd<'_>, data: &[u8], name: &str) -> Result<()> {
    let what = || format!("{name:?}, {:?}", String::from_utf8_lossy(data).trim_end());
    loop {
        match rustix::io::write(fd, data) {
            Err(Errno::INTR) => {}
            Ok(n) if n == data.len() => return Ok(()),
            Ok(_) => return Err(SysError::new("write", what(), Errno::IO)),
            Err(e) => return Err(SysError::new("write", what(), e)),
        }
    }
}

/// The bytes of a path, for C interfaces.
pub fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (PathBuf, OwnedFd) {
        let dir =
            std::env::temp_dir().join(format!("onggi-path-{}-{:?}", std::process::id(), std::thread::current().id()));
        std::fs::create_dir_all(dir.join("root")).unwrap();
        let fd = rustix::fs::open(dir.join("root"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn dangling_absolute_link_is_created_inside_the_root() {
        let (dir, fd) = root();
        symlink("/run/stub/resolv.conf", dir.join("root/link")).unwrap();
        ensure(fd.as_fd(), Path::new("/link"), Node::File(0o644)).unwrap();
        assert!(dir.join("root/run/stub/resolv.conf").is_file());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn parent_links_cannot_leave_the_root() {
        let (dir, fd) = root();
        symlink("../../../outside", dir.join("root/up")).unwrap();
        ensure(fd.as_fd(), Path::new("/up/a/b"), Node::Directory(0o755)).unwrap();
        assert!(dir.join("root/outside/a/b").is_dir());
        assert!(!dir.join("outside").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// The moments of a race, one by one: between the look at a name and its creation, and between two looks.
    #[test]
    fn what_becomes_a_link_in_the_middle_of_a_walk_is_not_followed() {
        let (dir, fd) = root();
        std::fs::create_dir_all(dir.join("outside/sub")).unwrap();
        symlink("../outside", dir.join("root/link")).unwrap();
        let walk = |done: &str| Walk { root: fd.as_fd(), done: done.into(), left: VecDeque::new(), links: 0 };
        let made = walk("").create(fd.as_fd(), OsStr::new("link"), Node::Directory(0o755));
        assert_eq!(made.unwrap_err().errno, Errno::NOTDIR, "it was to be a new directory");
        let made = walk("").create(fd.as_fd(), OsStr::new("link"), Node::File(0o644)).unwrap();
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&made).unwrap().st_mode);
        assert_eq!(kind, rustix::fs::FileType::Symlink, "the link itself, on which nothing can be mounted");
        for done in ["link", "link/sub"] {
            assert_eq!(walk(done).open_done().unwrap_err().errno, Errno::LOOP, "{done} was free of links before");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn link_loops_end_with_eloop() {
        let (dir, fd) = root();
        symlink("b", dir.join("root/a")).unwrap();
        symlink("a", dir.join("root/b")).unwrap();
        let e = ensure(fd.as_fd(), Path::new("/a/x"), Node::Directory(0o755)).unwrap_err();
        assert_eq!(e.errno, Errno::LOOP);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

//! Carries the operations out. Everything below the new root is opened inside of it: whoever writes to the directory
//! cannot lead a mount or a copy out of it by a link.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use onggi_sys::{
    Errno, Result, SysContext as _, SysError, fs,
    mount::{self, AttributeChange, Depth, FsContext, MountPropagationFlags, attr},
    path::{self, Node, OFlags},
};
use rustix::fs::{CWD, Mode};

use super::{RootOp, words};
use crate::PrimitiveError;

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Bytes that /dev and /dev/shm may hold, as containers have it.
const MEMORY: &[u8] = b"65536k";
/// Bytes that are compared and copied at a time.
const PIECE: usize = 1 << 16;
/// The attribute that holds a file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// Does one operation.
pub(crate) fn apply(op: &RootOp) -> std::result::Result<(), PrimitiveError> {
    let done = match op {
        RootOp::Directory { root, path, mode } => directory(root, path, *mode),
        RootOp::Link { root, path, target } => link(root, path, target),
        RootOp::Copy { root, from, path } => copy(root, from, path),
        RootOp::Base { root } => base(root),
        RootOp::Proc { root } => proc(root),
        RootOp::Dev { root } => dev(root),
        RootOp::Sys { root, new } => sys(root, *new),
        RootOp::Bind { root, source, target, read_only } => bind(root, source, target, *read_only),
        RootOp::ReadOnly { root } => open(root).and_then(|root| read_only(root.as_fd(), Depth::One)),
        RootOp::Enter { root } => enter(root),
    };
    done.map_err(|source| PrimitiveError::Sys { operation: words(op), source })
}

fn open(root: &Path) -> Result<OwnedFd> {
    fs::open_dir(root)
}

fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn directory(root: &Path, at: &Path, mode: u32) -> Result<()> {
    let root = open(root)?;
    if path::open_in_root(root.as_fd(), inside(at), OFlags::PATH | OFlags::DIRECTORY).is_ok() {
        return Ok(());
    }
    let made = path::ensure(root.as_fd(), inside(at), Node::Directory(mode))?;
    fs::chmod_handle(made.as_fd(), mode)
}

fn link(root: &Path, at: &Path, target: &Path) -> Result<()> {
    let root = open(root)?;
    let name = at.file_name().unwrap_or_default().as_encoded_bytes();
    let parent = at.parent().map(inside).unwrap_or(Path::new("."));
    let parent = path::ensure(root.as_fd(), parent, Node::Directory(0o755))?;
    match fs::make_symlink(target.as_os_str().as_encoded_bytes(), parent.as_fd(), name) {
        Err(e) if e.errno == Errno::EXIST => Ok(()),
        other => other,
    }
}

fn copy(root: &Path, from: &Path, to: &Path) -> Result<()> {
    let what = || format!("{from:?}");
    let mut source = File::open(from).map_err(|e| io_error("open", what(), &e))?;
    let stat = rustix::fs::fstat(&source).sys("fstat", what)?;
    let root = open(root)?;
    let handle = path::ensure(root.as_fd(), inside(to), Node::File(0o600))?;
    let mode = stat.st_mode & 0o7777;
    // One that cannot be read is written anew: then at least that can be said.
    if let Ok(there) = fs::reopen_read(handle.as_fd()) {
        let there_stat = rustix::fs::fstat(&there).sys("fstat", what)?;
        let same = (there_stat.st_size, there_stat.st_mode & 0o7777) == (stat.st_size, mode);
        if (there_stat.st_dev, there_stat.st_ino) == (stat.st_dev, stat.st_ino) {
            return Ok(());
        }
        if same && equal(&mut source, File::from(there)).map_err(|e| io_error("read", what(), &e))? {
            return Ok(());
        }
    }
    source.rewind().map_err(|e| io_error("lseek", what(), &e))?;
    replace(&source, root.as_fd(), to, mode)
}

/// A new file beside the old one, then a rename: a program that runs is not changed under it.
fn replace(source: &File, root: BorrowedFd<'_>, to: &Path, mode: u32) -> Result<()> {
    let handle = path::open_in_root(root, inside(to), OFlags::PATH)?;
    let at = rustix::fs::readlinkat(CWD, format!("/proc/self/fd/{}", raw(&handle)), Vec::new());
    let at = at.sys("readlink", || "a descriptor")?;
    let at = Path::new(std::ffi::OsStr::new(at.to_str().unwrap_or_default()));
    let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else {
        return Err(SysError::new("openat", format!("{to:?}"), Errno::INVAL));
    };
    let dir = fs::open_dir(parent)?;
    let temporary = [b".onggi-", name.as_encoded_bytes()].concat();
    match fs::unlink(dir.as_fd(), &temporary) {
        Err(e) if e.errno != Errno::NOENT => return Err(e),
        _ => {}
    }
    let made = fs::create_file(dir.as_fd(), &temporary, 0o600)?;
    let mut out = File::from(made);
    io::copy(&mut &*source, &mut out).map_err(|e| io_error("write", format!("{to:?}"), &e))?;
    fs::chmod(out.as_fd(), mode)?;
    if let Some(value) = fs::get_xattr_handle(source.as_fd(), CAPABILITY)? {
        match fs::set_xattr(out.as_fd(), CAPABILITY, &value) {
            // Without privilege a copy has none, as cp(1)'s.
            Err(e) if e.errno != Errno::PERM => return Err(e),
            _ => {}
        }
    }
    rustix::fs::renameat(&dir, temporary.as_slice(), &dir, name).sys("renameat", || format!("{to:?}"))
}

fn raw(fd: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd as _;
    fd.as_raw_fd()
}

fn io_error(call: &'static str, what: String, e: &io::Error) -> SysError {
    SysError::new(call, what, Errno::from_raw_os_error(e.raw_os_error().unwrap_or(Errno::IO.raw_os_error())))
}

fn equal(a: &mut File, mut b: File) -> io::Result<bool> {
    let (mut x, mut y) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let n = a.read(&mut x)?;
        if n == 0 {
            return Ok(b.read(&mut y)? == 0);
        }
        if b.read_exact(&mut y[..n]).is_err() || x[..n] != y[..n] {
            return Ok(false);
        }
    }
}

fn base(root: &Path) -> Result<()> {
    let tree = mount::clone_tree(root, Depth::Recursive)?;
    let private = u64::from(MountPropagationFlags::PRIVATE.bits());
    mount::set_attributes(
        tree.as_fd(),
        Depth::Recursive,
        AttributeChange { propagation: private, ..AttributeChange::default() },
    )?;
    let target = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    mount::attach(tree.as_fd(), target.sys("open", || format!("{root:?}"))?.as_fd())
}

/// Makes a mount point and mounts a new filesystem there.
fn new_mount(root: BorrowedFd<'_>, at: &str, context: &FsContext, attributes: u64) -> Result<()> {
    let target = path::ensure(root, Path::new(at), Node::Directory(0o755))?;
    mount::attach(context.mount(attributes)?.as_fd(), target.as_fd())
}

fn proc(root: &Path) -> Result<()> {
    let context = FsContext::open("proc")?;
    new_mount(open(root)?.as_fd(), "proc", &context, attr::NOSUID | attr::NODEV | attr::NOEXEC)
}

fn memory(mode: &[u8]) -> Result<FsContext> {
    let context = FsContext::open("tmpfs")?;
    context.set("mode", mode)?;
    context.set("size", MEMORY)?;
    Ok(context)
}

fn dev(root: &Path) -> Result<()> {
    let root = open(root)?;
    new_mount(root.as_fd(), "dev", &memory(b"755")?, attr::NOSUID | attr::NOEXEC)?;
    for name in DEVICES {
        let at = format!("dev/{name}");
        let target = path::ensure(root.as_fd(), Path::new(&at), Node::File(0o666))?;
        let device = mount::clone_tree(Path::new(&format!("/dev/{name}")), Depth::One)?;
        mount::attach(device.as_fd(), target.as_fd())?;
    }
    let pts = FsContext::open("devpts")?;
    for (key, value) in [("ptmxmode", &b"0666"[..]), ("mode", b"620")] {
        pts.set(key, value)?;
    }
    new_mount(root.as_fd(), "dev/pts", &pts, attr::NOSUID | attr::NOEXEC)?;
    new_mount(root.as_fd(), "dev/shm", &memory(b"1777")?, attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    let dev = path::open_in_root(root.as_fd(), Path::new("dev"), OFlags::PATH | OFlags::DIRECTORY)?;
    LINKS.iter().try_for_each(|(name, target)| fs::make_symlink(target.as_bytes(), dev.as_fd(), name.as_bytes()))
}

fn sys(root: &Path, new: bool) -> Result<()> {
    if !new {
        return bind(root, Path::new("/sys"), Path::new("/sys"), true);
    }
    let context = FsContext::open("sysfs")?;
    let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    new_mount(open(root)?.as_fd(), "sys", &context, attributes)
}

fn bind(root: &Path, source: &Path, at: &Path, only_read: bool) -> Result<()> {
    let root = open(root)?;
    let tree = mount::clone_tree(source, Depth::Recursive)?;
    let directory = rustix::fs::fstat(&tree)
        .map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
        .sys("fstat", || format!("{source:?}"))?;
    let node = if directory { Node::Directory(0o755) } else { Node::File(0o644) };
    let target = path::ensure(root.as_fd(), inside(at), node)?;
    if only_read {
        read_only(tree.as_fd(), Depth::Recursive)?;
    }
    mount::attach(tree.as_fd(), target.as_fd())
}

fn read_only(mount: BorrowedFd<'_>, depth: Depth) -> Result<()> {
    mount::set_attributes(mount, depth, AttributeChange { set: attr::RDONLY, ..AttributeChange::default() })
}

fn enter(root: &Path) -> Result<()> {
    rustix::process::chdir(root).sys("chdir", || format!("{root:?}"))?;
    match mount::pivot_to_cwd() {
        // The host's own root is an initramfs.
        Err(e) if e.errno == Errno::INVAL => mount::move_cwd_to_root(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_copy_is_made_once_and_stays_inside() {
        let dir = tempfile::tempdir().expect("a directory is made");
        let root = dir.path().join("root");
        std::fs::create_dir(&root).expect("a directory is made");
        symlink("/outside", root.join("escape")).expect("a link is made");
        let from = dir.path().join("program");
        std::fs::write(&from, "x").expect("a file is made");
        std::fs::set_permissions(&from, PermissionsExt::from_mode(0o755)).expect("it is ours");
        for _ in 0..2 {
            copy(&root, &from, Path::new("/escape/bin/program")).expect("it is copied");
        }
        let copied = root.join("outside/bin/program");
        assert_eq!(std::fs::read_to_string(&copied).expect("it is there"), "x");
        assert_eq!(copied.metadata().expect("it is there").permissions().mode() & 0o7777, 0o755);
        assert!(!Path::new("/outside").exists());
        std::fs::write(&from, "other").expect("a file is made");
        copy(&root, &from, Path::new("/escape/bin/program")).expect("it is copied");
        assert_eq!(std::fs::read_to_string(&copied).expect("it is there"), "other");
        assert_eq!(
            std::fs::read_dir(root.join("outside/bin")).expect("it is there").count(),
            1,
            "nothing else is left"
        );
    }
}

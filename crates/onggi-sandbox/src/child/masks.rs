//! Masked and read-only paths: what the container must not read, or not write.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use onggi_sys::{
    Errno, SysContext,
    mount::{self, Depth, FsContext, attr},
    path::{self, OFlags},
};

use super::{
    Child,
    mounts::{change, propagation_bits},
    nodes,
};
use crate::plan::Propagation;

impl Child {
    /// One shared empty directory, one verified /dev/null (I5).
    pub(super) fn mask(&mut self, target: &Path, label: Option<&str>) -> onggi_sys::Result<()> {
        let Some(target) = self.existing(target)? else { return Ok(()) };
        let stat = rustix::fs::fstat(&target).sys("fstat", || "target")?;
        match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::Directory => self.mask_directory(&target, label),
            _ => self.mask_file(&target),
        }
    }

    fn existing(&self, target: &Path) -> onggi_sys::Result<Option<OwnedFd>> {
        let Some(root) = &self.root else { return Ok(None) };
        match path::open_in_root(root.as_fd(), target, OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn mask_directory(&mut self, target: &OwnedFd, label: Option<&str>) -> onggi_sys::Result<()> {
        if let Some(empty) = &self.empty {
            let copy = mount::clone_tree_at(empty.as_fd(), Depth::One)?;
            return mount::attach(copy.as_fd(), target.as_fd());
        }
        let fs = FsContext::open("tmpfs")?;
        fs.set("mode", b"0555")?;
        fs.set("nr_inodes", b"1")?;
        if let Some(label) = label {
            fs.set("context", label.as_bytes())?;
        }
        let fd = fs.mount(attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
        mount::attach(fd.as_fd(), target.as_fd())?;
        // Kept: a copy can only be made of an attached mount (before Linux 6.15).
        self.empty = Some(fd);
        Ok(())
    }

    fn mask_file(&mut self, target: &OwnedFd) -> onggi_sys::Result<()> {
        if self.null.is_none() {
            self.null = Some(nodes::host_device(Path::new("/dev/null"), 1, 3)?);
        }
        let Some(null) = &self.null else { return Ok(()) };
        let copy = mount::clone_tree_at(null.as_fd(), Depth::One)?;
        let mut change = change(attr::RDONLY | attr::NOSUID | attr::NOEXEC, 0);
        change.propagation = propagation_bits(Propagation::Private);
        mount::set_attributes(copy.as_fd(), Depth::One, change)?;
        mount::attach(copy.as_fd(), target.as_fd())
    }

    pub(super) fn read_only(&self, target: &Path) -> onggi_sys::Result<()> {
        let Some(target) = self.existing(target)? else { return Ok(()) };
        let copy = mount::clone_tree_at(target.as_fd(), Depth::Recursive)?;
        mount::set_attributes(copy.as_fd(), Depth::Recursive, change(attr::RDONLY, 0))?;
        mount::attach(copy.as_fd(), target.as_fd())
    }
}

//! Writes to /proc, through a procfs of the container's pid namespace that nothing can have covered (I2).

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use onggi_sys::{
    Errno,
    mount::FsContext,
    path::{self, OFlags},
};

use super::{Child, View, mounts::PROC_SUPER_MAGIC};
use crate::error::{Result, StartFailureError, Step};

/// Number of procfs's root directory (proc_fs.h).
const ROOT_INODE: u64 = 1;

impl Child {
    /// The fresh mount that became the container's /proc, else a private detached one. In a user namespace over the host's
    /// pids none can be made: there it is the one that was bound, if it counts processes as this one does.
    fn procfs(&mut self) -> Result<BorrowedFd<'_>> {
        let step = || "mount a private procfs".to_string();
        let slot = &mut self.proc;
        let fd = match slot.take() {
            Some(fd) => fd,
            None => match FsContext::open("proc").and_then(|fs| fs.mount(0)) {
                Err(e) if e.errno == Errno::PERM => {
                    self.bound_proc.take().filter(shows_this_process).ok_or(e).step(step)?
                }
                made => made.step(step)?,
            },
        };
        Ok((*slot.insert(fd)).as_fd())
    }

    pub(super) fn sysctl(&mut self, key: &Path, value: &str) -> Result<()> {
        let step = || format!("set sysctl {} to {value}", key.display());
        let file = Path::new("sys").join(key);
        let fd = path::open_same_mount(self.procfs()?, &file, OFlags::WRONLY | OFlags::NOFOLLOW).map_err(|e| {
            let failure = StartFailureError::from_sys(step(), &e);
            if e.errno == Errno::NOENT { failure.hint("this kernel has no such sysctl") } else { failure }
        })?;
        path::write_once(fd.as_fd(), value.as_bytes(), &file.to_string_lossy()).step(step)
    }

    /// Writes a file of this process's own directory.
    pub(super) fn write_own(&mut self, file: &str, value: &[u8]) -> Result<()> {
        let fd = self.open_own(file)?;
        path::write_once(fd.as_fd(), value, file).step(|| format!("write /proc/self/{file}"))
    }

    /// Opens a file of this process's own directory for writing.
    pub(super) fn open_own(&mut self, file: &str) -> Result<OwnedFd> {
        let step = || format!("write /proc/self/{file}");
        match self.view {
            // The host's /proc is trusted, and so is its `self`.
            View::Host => {
                let at = Path::new("/proc/self").join(file);
                rustix::fs::open(&at, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, 0.into())
                    .map_err(|e| onggi_sys::SysError::new("open", format!("{at:?}"), e))
                    .step(step)
            }
            View::Container => {
                let pid = rustix::process::getpid().as_raw_nonzero().to_string();
                let at = Path::new(&pid).join(file);
                let proc = self.procfs()?;
                // The files of a process that is not dumpable belong to the host's root, who may be nobody here.
                // By now there is nothing of the host in this process that a tracer could reach.
                let dumpable = |on| onggi_sys::process::set_dumpable(on).step(step);
                dumpable(true)?;
                let opened = path::open_same_mount(proc, &at, OFlags::WRONLY | OFlags::NOFOLLOW).step(step);
                dumpable(false)?;
                opened
            }
        }
    }

    /// Reads back what was written: a label that did not take must not run (CVE-2023-28642).
    pub(super) fn read_own(&mut self, file: &str) -> Result<String> {
        let step = || format!("read /proc/self/{file}");
        let pid = rustix::process::getpid().as_raw_nonzero().to_string();
        let at = Path::new(&pid).join(file);
        let fd = path::open_same_mount(self.procfs()?, &at, OFlags::RDONLY | OFlags::NOFOLLOW).step(step)?;
        let bytes = path::read_bounded(fd.as_fd(), 4096, file).step(step)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\0']).to_owned())
    }
}

/// Whether this is the top of a procfs, in which this process has the number that it has for itself.
fn shows_this_process(proc: &OwnedFd) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    rustix::fs::fstat(proc).is_ok_and(|stat| stat.st_ino == ROOT_INODE)
        && rustix::fs::fstatfs(proc).is_ok_and(|fs| fs.f_type == PROC_SUPER_MAGIC)
        && rustix::fs::readlinkat(proc, "self", Vec::new()).is_ok_and(|to| to.to_bytes() == own.as_bytes())
}

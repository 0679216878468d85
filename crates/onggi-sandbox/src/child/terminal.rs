//! The container's terminal: opened in its own devpts, checked, never looked up by a path of the image
//! twice (I5, CVE-2025-52565).

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use onggi_spec::oci::runtime::ConsoleSize;
use onggi_sys::{
    Errno, SysContext, SysError,
    mount::{self, Depth},
    path::{self, Node, OFlags},
    pty, spawn,
};
use rustix::fs::{Gid, Uid};

use super::Child;
use crate::{
    channel::Message,
    error::{Result, StartFailureError, Step},
};

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// ptmx is 5:2, slaves are 136:*.
const PTMX: (u32, u32) = (5, 2);
const SLAVE_MAJOR: u32 = 136;

fn check(fd: &OwnedFd, what: &'static str, right: impl Fn(u32, u32) -> bool) -> onggi_sys::Result<()> {
    let fs = rustix::fs::fstatfs(fd).sys("fstatfs", || what)?;
    let stat = rustix::fs::fstat(fd).sys("fstat", || what)?;
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if fs.f_type as i64 == DEVPTS_SUPER_MAGIC && right(major, minor) {
        return Ok(());
    }
    Err(SysError::new("fstat", format!("{what} is not of a devpts"), Errno::NODEV))
}

impl Child {
    pub(super) fn open_terminal(&mut self, size: Option<ConsoleSize>, console: bool, uid: u32) -> Result<()> {
        let step = || "open a terminal".to_string();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = path::open_in_root_no_links(self.root()?, Path::new("/dev/pts/ptmx"), flags).map_err(|e| {
            StartFailureError::from_sys(step(), &e).hint("a terminal needs a devpts mounted on /dev/pts")
        })?;
        check(&master, "/dev/pts/ptmx", |major, minor| (major, minor) == PTMX).step(step)?;
        let slave = pty::open_peer(master.as_fd()).step(step)?;
        check(&slave, "terminal", |major, _| major == SLAVE_MAJOR).step(step)?;
        if uid != 0 {
            rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>)
                .sys("fchown", || format!("terminal, {uid}"))
                .step(step)?;
        }
        if self.prepared.bare_line_feeds {
            pty::leave_line_feeds(slave.as_fd()).step(step)?;
        }
        if let Some(size) = size {
            let clamp = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
            pty::set_size(slave.as_fd(), clamp(size.width), clamp(size.height)).step(step)?;
        }
        if console {
            self.bind_console(&slave)?;
        }
        self.channel.send(&Message::Terminal(master))?;
        self.terminal = Some(slave);
        Ok(())
    }

    fn bind_console(&self, slave: &OwnedFd) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let step = || "bind the terminal to /dev/console".to_string();
        let at = Path::new("/dev/console");
        let target = path::ensure(root.as_fd(), at, Node::File(0o600)).step(step)?;
        self.check_target(&target, at)?;
        let copy = mount::clone_tree_at(slave.as_fd(), Depth::One).step(step)?;
        mount::attach(copy.as_fd(), target.as_fd()).step(step)
    }

    /// Standard streams and controlling terminal. A session of its own: the caller may be PID 1's child.
    pub(super) fn attach_terminal(&mut self) -> Result<()> {
        let step = || "attach the terminal".to_string();
        let Some(slave) = self.terminal.take() else {
            return Err(StartFailureError::new("the plan attaches a terminal that it did not open"));
        };
        match onggi_sys::process::setsid() {
            // Already a session leader without a terminal, which is as good.
            Err(e) if e.errno == Errno::PERM => {}
            r => r.step(step)?,
        }
        pty::set_controlling(slave.as_fd()).step(step)?;
        for number in 0..3 {
            spawn::install_stdio(slave.as_fd(), number).step(step)?;
        }
        Ok(())
    }
}

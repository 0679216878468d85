//! sd_notify(3) for containers, as runc has it: below a `NOTIFY_SOCKET` the container gets a socket of its own
//! in `/run/notify`, and its readiness is passed on with its pid as MAINPID. Nothing else is passed on.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use onggi_sandbox::StartFailureError;
use onggi_spec::oci::runtime::{Mount, Spec};
use onggi_sys::{Result as SysResult, SysContext, process};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType},
};

use super::{CliError, log::Log};

/// Where the container finds the socket.
const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";
/// Longest notification; systemd's own limit is a page.
const MAX_MESSAGE: usize = 4096;
/// How long the manager may take to answer the barrier (runc's).
const BARRIER: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The manager's socket: a path, or `@name` of the abstract namespace.
pub(super) fn host() -> Option<SocketAddrUnix> {
    let value = std::env::var_os("NOTIFY_SOCKET").filter(|v| !v.is_empty())?;
    match value.as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name).ok(),
        path if path.starts_with(b"/") => SocketAddrUnix::new(OsStr::from_bytes(path)).ok(),
        _ => None,
    }
}

/// The mount and the variable that let the program find its socket.
pub(super) fn add_to(config: &mut Spec, state_root: &Path, id: &str) {
    let source = onggi_sandbox::notify_directory(state_root, id).display().to_string();
    config.mounts.push(Mount {
        destination: INSIDE.into(),
        source: Some(source),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(String::from).to_vec(),
        ..Mount::default()
    });
    if let Some(process) = &mut config.process {
        process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
    }
}

/// The container's socket, until it has said that it is ready.
pub(super) struct Notify {
    socket: OwnedFd,
    manager: SocketAddrUnix,
    pid: i32,
}

impl Notify {
    /// Makes the socket of a created container.
    pub(super) fn bind(state_root: &Path, id: &str, pid: i32) -> Result<Self, CliError> {
        let failed = |e| StartFailureError::from_sys("make the container's notify socket", &e);
        let manager = host().ok_or_else(|| StartFailureError::new("NOTIFY_SOCKET is not an address"))?;
        let dir = onggi_sandbox::notify_directory(state_root, id);
        Ok(Self { socket: bind(&dir).map_err(failed)?, manager, pid })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads a message; true once there is nothing more to pass on.
    pub(super) fn pass_on(&mut self) -> bool {
        let mut buffer = [0u8; MAX_MESSAGE];
        let Ok((n, _)) = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty()) else { return false };
        let ready = buffer[..n].split(|b| *b == b'\n').find(|line| line.starts_with(b"READY="));
        let Some(ready) = ready else { return false };
        // A manager that does not listen any more does not keep the container from working.
        let _ = self.tell_manager(ready);
        true
    }

    fn tell_manager(&self, ready: &[u8]) -> SysResult<()> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
            .sys("socket", || "AF_UNIX, SOCK_DGRAM")?;
        rustix::net::connect(&socket, &self.manager).sys("connect", || "NOTIFY_SOCKET")?;
        let send = |message: &[u8]| {
            rustix::net::send(&socket, message, SendFlags::NOSIGNAL).map(drop).sys("send", || "NOTIFY_SOCKET")
        };
        send(&[ready, b"\n"].concat())?;
        send(format!("MAINPID={}\n", self.pid).as_bytes())?;
        // sd_notify_barrier(3): the manager closes our pipe when it has read all of that.
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).sys("pipe2", || "notify barrier")?;
        onggi_sys::unix::send_with_fds(socket.as_fd(), b"BARRIER=1", &[write.as_fd()])?;
        drop(write);
        let mut fds = [PollFd::new(&read, PollFlags::IN)];
        poll(&mut fds, Some(&BARRIER)).map(drop).sys("poll", || "notify barrier")
    }

    /// Waits until the container is ready, or gone.
    pub(super) fn wait(mut self, log: &Log) -> Result<i32, CliError> {
        let failed = |e| StartFailureError::from_sys("wait for the container's readiness", &e);
        let pidfd = match process::pidfd_open(self.pid) {
            Err(e) if e.errno == onggi_sys::Errno::SRCH => return Ok(0),
            r => r.map_err(failed)?,
        };
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(onggi_sys::Errno::INTR) => continue,
                r => r.map(drop).sys("poll", || "notify socket").map_err(failed)?,
            }
            let [message, ended] = fds.map(|fd| !fd.revents().is_empty());
            if message && self.pass_on() {
                return Ok(0);
            }
            if ended && !message {
                log.debug("the container has ended before it was ready");
                return Ok(0);
            }
        }
    }
}

/// Its path may be longer than an address, so it is named through the descriptor of its directory. Any user of
/// the container may write to it.
fn bind(dir: &Path) -> SysResult<OwnedFd> {
    let at = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .sys("open", || format!("{dir:?}"))?;
    let name = format!("/proc/self/fd/{}/{NAME}", at.as_raw_fd());
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .sys("socket", || "AF_UNIX, SOCK_DGRAM")?;
    let address = SocketAddrUnix::new(name.as_str()).sys("bind", || NAME)?;
    rustix::net::bind(&socket, &address).sys("bind", || NAME)?;
    rustix::fs::chmod(name.as_str(), Mode::from_raw_mode(0o777)).sys("chmod", || NAME)?;
    Ok(socket)
}

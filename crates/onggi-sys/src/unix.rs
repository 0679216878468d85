//! Unix sockets: listening and connecting below directories with long names, the peer's identity, and
//! passing descriptors.
//!
//! Only path-based sockets (I13): an abstract name can be reached by every process that shares the
//! network namespace. `sun_path` holds 107 bytes, which a data root under a long directory exceeds;
//! sockets are therefore named through `/proc/self/fd/N/<name>`.

use std::{
    ffi::OsStr,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    },
};

use crate::{Errno, Result, SysContext, SysError};

/// Most descriptors in one message; the kernel's own limit is 253 (SCM_MAX_FD).
pub const MAX_FDS: usize = 16;

/// Who is at the other end of a connection, as the kernel recorded it at connect(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id in our pid namespace; 0 when it has none there.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Listens on the stream socket `name` in `dir`, mode 0600. An old socket of that name is replaced: the
/// caller holds whatever lock makes it the only owner. Changes the umask for an instant, so only for
/// single-threaded callers.
pub fn listen_at(dir: BorrowedFd<'_>, name: &str, backlog: i32) -> Result<OwnedFd> {
    let shown = || format!("{name:?}");
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(SysError::new("unlinkat", shown(), errno)),
    }
    let address = address_below(dir, OsStr::new(name))?;
    let socket = stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let old = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(old);
    bound.sys("bind", shown)?;
    rustix::net::listen(&socket, backlog).sys("listen", shown)?;
    Ok(socket)
}

/// Connects to the stream socket at `path`, however long the path is. Blocking, close-on-exec.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let shown = || format!("{path:?}");
    let socket = stream_socket(SocketFlags::CLOEXEC)?;
    if let Ok(address) = SocketAddrUnix::new(path) {
        rustix::net::connect(&socket, &address).sys("connect", shown)?;
        return Ok(socket);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(SysError::new("connect", shown(), Errno::INVAL));
    };
    let dir = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .sys("open", || format!("{parent:?}"))?;
    let address = address_below(dir.as_fd(), name)?;
    rustix::net::connect(&socket, &address).sys("connect", shown)?;
    Ok(socket)
}

fn stream_socket(flags: SocketFlags) -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .sys("socket", || "AF_UNIX, SOCK_STREAM")
}

fn address_below(dir: BorrowedFd<'_>, name: &OsStr) -> Result<SocketAddrUnix> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    SocketAddrUnix::new(&path[..]).sys("bind", || format!("{name:?}"))
}

/// A connected pair of stream sockets, close-on-exec.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .sys("socketpair", || "AF_UNIX, SOCK_STREAM")
}

/// The next connection, non-blocking and close-on-exec; `None` when there is none (any more).
pub fn accept(listener: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(errno) => Err(SysError::new("accept4", "", errno)),
    }
}

/// `SO_PEERCRED` (unix(7)). Read here and not through rustix, whose type cannot hold the pid 0 of a peer
/// in a foreign pid namespace.
pub fn peer_credentials(socket: BorrowedFd<'_>) -> Result<PeerCredentials> {
    let mut cred = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `cred` and `len` are live writable variables of the types SO_PEERCRED asks for, `len` is the
    // size of `cred`, and the descriptor is borrowed for the whole call.
    let r = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut cred).cast(), &raw mut len)
    };
    if r != 0 || len as usize != size_of::<libc::ucred>() {
        return Err(SysError::last("getsockopt", "SO_PEERCRED"));
    }
    Ok(PeerCredentials { pid: cred.pid, uid: cred.uid, gid: cred.gid })
}

/// Sends all of `data` with `fds` attached to its first byte. Blocks; at most [`MAX_FDS`] descriptors.
pub fn send_with_fds(socket: BorrowedFd<'_>, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(SysError::new("sendmsg", format!("{} descriptors", fds.len()), Errno::TOOMANYREFS));
    }
    let mut rest = data;
    while !rest.is_empty() {
        let sent = rustix::net::sendmsg(socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL);
        match sent {
            Ok(n) => {
                rest = &rest[n..];
                control.clear();
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("sendmsg", format!("{} bytes", rest.len()), errno)),
        }
    }
    Ok(())
}

/// Receives some bytes and the descriptors that came with them (close-on-exec), which are appended to
/// `fds`. Returns 0 at the end of the stream. Blocks when the socket does.
pub fn recv_with_fds(socket: BorrowedFd<'_>, data: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(data)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other.sys("recvmsg", String::new)?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = message {
            fds.extend(list);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::unix::fs::PermissionsExt, path::PathBuf};

    use super::*;

    fn long_dir() -> PathBuf {
        let base = std::env::temp_dir().join(format!("onggi-unix-{}", std::process::id()));
        let dir = base.join("d".repeat(120)).join("e".repeat(60));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_socket_below_a_path_longer_than_sun_path_is_private_and_reachable() {
        let dir = long_dir();
        let fd = File::open(&dir).unwrap();
        let listener = listen_at(fd.as_fd(), "attach.sock", 4).unwrap();
        let again = listen_at(fd.as_fd(), "attach.sock", 4).unwrap();
        drop(listener);
        let mode = std::fs::metadata(dir.join("attach.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(accept(again.as_fd()).unwrap().is_none());
        let client = connect(&dir.join("attach.sock")).unwrap();
        let server = accept(again.as_fd()).unwrap().unwrap();
        for end in [&client, &server] {
            let peer = peer_credentials(end.as_fd()).unwrap();
            assert_eq!(peer.pid, std::process::id().cast_signed());
            assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        }
        std::fs::remove_dir_all(dir.ancestors().nth(2).unwrap()).unwrap();
    }

    #[test]
    fn descriptors_arrive_with_the_first_byte_and_the_end_is_zero() {
        let (a, b) = pair().unwrap();
        let (r, w) = std::io::pipe().unwrap();
        send_with_fds(a.as_fd(), b"hello", &[w.as_fd()]).unwrap();
        drop((a, w));
        let (mut fds, mut buffer) = (Vec::new(), [0; 16]);
        assert_eq!(recv_with_fds(b.as_fd(), &mut buffer, &mut fds).unwrap(), 5);
        assert_eq!(fds.len(), 1);
        let passed = fds.pop().unwrap();
        rustix::io::write(&passed, b"through").unwrap();
        drop(passed);
        let mut text = String::new();
        (&r).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(recv_with_fds(b.as_fd(), &mut buffer, &mut fds).unwrap(), 0);
    }
}

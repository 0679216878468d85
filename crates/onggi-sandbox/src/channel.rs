//! The sync channel between the runtime and the child: SOCK_SEQPACKET, one message per packet.
//!
//! A container that waits for `start` answers through a FIFO, with framed messages.
//! The child's end is close-on-exec, so end of file after [`Message::Executing`] means that exec succeeded.
//! Every packet is bounded; a child cannot make its parent allocate more.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use onggi_spec::monitor::StartFailure;
use onggi_sys::{Errno, SysContext, SysError};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use crate::error::{Result, StartFailureError, Step};

/// Longest packet; a step, a call and a hint fit easily.
const MAX_PACKET: usize = 8 * 1024;
/// Most descriptors of one message: version 1 of cgroups has half as many hierarchies.
pub(crate) const MAX_FDS: usize = 32;

/// What crosses the channel.
#[derive(Debug)]
pub(crate) enum Message {
    /// To the child: go on. To the runtime: run the hooks, then let me go on.
    Go,
    /// From the child: the runtime's hooks are due.
    RuntimeHooks,
    /// From the child: network devices are due; it waits.
    NetDevices,
    /// From the child: its limits are due; it waits.
    Limits,
    /// From the child: the terminal's master.
    Terminal(OwnedFd),
    /// From the child: the descriptor on which an agent is asked about system calls; the child waits.
    Listener(OwnedFd),
    /// The same by its number in the child, for pidfd_getfd(2): write(2) has to be allowed, not sendmsg(2).
    ListenerNumber(RawFd),
    /// From the child: make the mount of this operation of the plan.
    MountWanted(usize),
    /// To the child: the mount.
    Mount(OwnedFd),
    /// From a process in between: the child's pid and pidfd.
    Cloned(i32, OwnedFd),
    /// From the child: something was kept as it was.
    Note(String),
    /// From the child: everything is made, it now waits for `start`.
    Created,
    /// From the child: exec is next.
    Executing,
    /// From the child: a step failed.
    Failed(StartFailure),
}

/// One end. Either a socket, where a packet is a message, or a FIFO, where its length stands before it.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
    framed: bool,
}

impl Channel {
    /// Both ends.
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .sys("socketpair", || "AF_UNIX, SOCK_SEQPACKET")
            .step(|| "make the sync channel".into())?;
        Ok((Self { fd: a, framed: false }, Self { fd: b, framed: false }))
    }

    /// A descriptor in which one write is one message.
    pub(crate) fn from_socket(fd: OwnedFd) -> Self {
        Self { fd, framed: false }
    }

    /// An end of a FIFO.
    pub(crate) fn from_fifo(fd: OwnedFd) -> Self {
        Self { fd, framed: true }
    }

    /// The socket.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Its descriptor's number.
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sends one message. Without a descriptor in it this is one write(2): a seccomp filter may be in force
    /// that allows little more.
    pub(crate) fn send(&self, message: &Message) -> Result<()> {
        let mut packet = encode(message);
        let fd = match message {
            Message::Terminal(fd) | Message::Listener(fd) | Message::Mount(fd) | Message::Cloned(_, fd) => {
                Some(fd.as_fd())
            }
            _ => None,
        };
        let step = || "report to the runtime".to_string();
        if fd.is_some() {
            return send_packet(self.fd.as_fd(), &packet, fd).step(step);
        }
        if self.framed {
            let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
            packet.splice(0..0, length.to_le_bytes());
        }
        loop {
            match rustix::io::write(&self.fd, &packet) {
                Err(Errno::INTR) => {}
                r => return r.map(drop).sys("write", || format!("{} bytes", packet.len())).step(step),
            }
        }
    }

    /// Waits for a message; `None` when the other end is closed.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        let step = || "listen on the sync channel".to_string();
        let (packet, fd) = match self.framed {
            true => (receive_frame(self.fd.as_fd()).step(step)?, None),
            // It has died before it read what it was sent.
            false => match receive_packet(self.fd.as_fd()) {
                Err(e) if e.errno == Errno::CONNRESET => return Ok(None),
                r => r.step(step)?,
            },
        };
        if packet.is_empty() {
            return Ok(None);
        }
        let bad = || StartFailureError::new("the sync channel carried an unknown message");
        decode(&packet, fd).map(Some).ok_or_else(bad)
    }

    /// Sends [`Message::Go`] and what to go on with, at most [`MAX_FDS`].
    pub(crate) fn send_go_with(&self, fds: &[OwnedFd]) -> Result<()> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        send_fds(self.fd.as_fd(), &encode(&Message::Go), &fds).map(drop).step(|| "let the child go on".into())
    }

    /// Waits for [`Channel::send_go_with`].
    pub(crate) fn await_go_with(&self) -> Result<Vec<OwnedFd>> {
        let received = receive_fds(self.fd.as_fd(), 16).and_then(|(packet, fds)| check_go(&packet).map(|()| fds));
        received.step(|| "wait for the runtime".into())
    }

    /// Waits for permission to go on: one read(2).
    pub(crate) fn await_go(&self) -> Result<()> {
        await_go(self.fd.as_fd()).step(|| "wait for the runtime".into())
    }
}

/// Waits until the byte of [`Message::Go`] can be read.
pub(crate) fn await_go(fd: BorrowedFd<'_>) -> onggi_sys::Result<()> {
    let mut buf = [0u8; 16];
    let read = loop {
        match rustix::io::read(fd, &mut buf) {
            Err(Errno::INTR) => {}
            r => break r.sys("read", || "sync channel")?,
        }
    };
    check_go(&buf[..read])
}

fn check_go(packet: &[u8]) -> onggi_sys::Result<()> {
    match packet == encode(&Message::Go) {
        true => Ok(()),
        false => Err(SysError::new("read", "the runtime gave up", Errno::CONNRESET)),
    }
}

/// One message of a FIFO; empty at its end.
fn receive_frame(fd: BorrowedFd<'_>) -> onggi_sys::Result<Vec<u8>> {
    let mut length = [0u8; 4];
    if !read_exactly(fd, &mut length)? {
        return Ok(Vec::new());
    }
    let length = u32::from_le_bytes(length) as usize;
    let mut packet = vec![0u8; length.min(MAX_PACKET)];
    match length <= MAX_PACKET && read_exactly(fd, &mut packet)? {
        true => Ok(packet),
        false => Err(SysError::new("read", "a message of the start FIFO is cut", Errno::IO)),
    }
}

/// False at the end of the stream.
fn read_exactly(fd: BorrowedFd<'_>, mut buf: &mut [u8]) -> onggi_sys::Result<bool> {
    while !buf.is_empty() {
        match rustix::io::read(fd, &mut *buf) {
            Err(Errno::INTR) => {}
            Ok(0) => return Ok(false),
            Ok(n) => buf = &mut buf[n..],
            Err(e) => return Err(SysError::new("read", "start FIFO", e)),
        }
    }
    Ok(true)
}

/// Sends bytes and at most one descriptor over any unix socket.
pub(crate) fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> onggi_sys::Result<()> {
    send_part(socket, bytes, fd).map(drop)
}

/// The same; returns how many bytes a stream socket took.
pub(crate) fn send_part(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> onggi_sys::Result<usize> {
    send_fds(socket, bytes, fd.as_slice())
}

fn send_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> onggi_sys::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(SysError::new("sendmsg", format!("{} descriptors", fds.len()), Errno::TOOBIG));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            r => return r.sys("sendmsg", || format!("{} bytes", bytes.len())),
        }
    }
}

fn receive_packet(socket: BorrowedFd<'_>) -> onggi_sys::Result<(Vec<u8>, Option<OwnedFd>)> {
    receive_fds(socket, MAX_PACKET).map(|(packet, fds)| (packet, fds.into_iter().next()))
}

fn receive_fds(socket: BorrowedFd<'_>, longest: usize) -> onggi_sys::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buf = vec![0u8; longest];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let n = loop {
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buf)], &mut control, flags) {
            Err(Errno::INTR) => {}
            // The child was killed with data of ours unread: the same as a closed channel.
            Err(Errno::CONNRESET) => break 0,
            r => break r.sys("recvmsg", || "sync channel")?.bytes,
        }
    };
    buf.truncate(n);
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok((buf, fds))
}

fn encode(message: &Message) -> Vec<u8> {
    match message {
        Message::Go => b"g".to_vec(),
        Message::RuntimeHooks => b"h".to_vec(),
        Message::NetDevices => b"d".to_vec(),
        Message::Limits => b"r".to_vec(),
        Message::Terminal(_) => b"t".to_vec(),
        Message::Listener(_) => b"l".to_vec(),
        Message::ListenerNumber(n) => format!("m{n}").into_bytes(),
        Message::MountWanted(index) => format!("w{index}").into_bytes(),
        Message::Mount(_) => b"b".to_vec(),
        Message::Cloned(pid, _) => format!("p{pid}").into_bytes(),
        Message::Created => b"c".to_vec(),
        Message::Executing => b"x".to_vec(),
        Message::Note(text) => [b"n", clip(text)].concat(),
        Message::Failed(f) => {
            let head = format!("f{}\0{}\0", f.errno, f.exit_code);
            [head.as_bytes(), clip(&f.step), b"\0", clip(&f.call), b"\0", clip(&f.hint)].concat()
        }
    }
}

/// A text of at most a quarter of a packet, without the separator.
fn clip(text: &str) -> &[u8] {
    let bytes = text.as_bytes();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end.min(MAX_PACKET / 4)]
}

fn decode(packet: &[u8], fd: Option<OwnedFd>) -> Option<Message> {
    let (kind, rest) = packet.split_first()?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Some(match kind {
        b'g' => Message::Go,
        b'h' => Message::RuntimeHooks,
        b'd' => Message::NetDevices,
        b'r' => Message::Limits,
        b't' => Message::Terminal(fd?),
        b'l' => Message::Listener(fd?),
        b'm' => Message::ListenerNumber(text(rest).parse().ok()?),
        b'w' => Message::MountWanted(text(rest).parse().ok()?),
        b'b' => Message::Mount(fd?),
        b'p' => Message::Cloned(text(rest).parse().ok()?, fd?),
        b'c' => Message::Created,
        b'x' => Message::Executing,
        b'n' => Message::Note(text(rest)),
        b'f' => {
            let mut parts = rest.splitn(5, |b| *b == 0).map(text);
            Message::Failed(StartFailure {
                errno: parts.next()?.parse().ok()?,
                exit_code: parts.next()?.parse().ok()?,
                step: parts.next()?,
                call: parts.next()?,
                hint: parts.next()?,
                in_container: true,
            })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_channel() {
        let (a, b) = Channel::pair().unwrap();
        let failure = StartFailure {
            step: "mount proc on /proc".into(),
            call: "fsmount(\"proc\")".into(),
            errno: 1,
            exit_code: 125,
            hint: "x".repeat(100_000),
            in_container: false,
        };
        a.send(&Message::Failed(failure.clone())).unwrap();
        drop(a);
        let Some(Message::Failed(got)) = b.receive().unwrap() else { panic!() };
        assert_eq!((got.step, got.call, got.errno), (failure.step, failure.call, 1));
        assert!(b.receive().unwrap().is_none());
    }

    #[test]
    fn messages_keep_their_bounds_in_a_fifo() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (a, b) = (Channel::from_fifo(write), Channel::from_fifo(read));
        a.send(&Message::Note("x".repeat(10_000))).unwrap();
        a.send(&Message::Executing).unwrap();
        drop(a);
        assert!(matches!(b.receive().unwrap(), Some(Message::Note(text)) if text.len() == MAX_PACKET / 4));
        assert!(matches!(b.receive().unwrap(), Some(Message::Executing)));
        assert!(b.receive().unwrap().is_none());
    }

    #[test]
    fn only_the_word_go_lets_a_child_go_on() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Message::Go).unwrap();
        b.await_go().unwrap();
        a.send(&Message::Created).unwrap();
        assert!(b.await_go().is_err());
        drop(a);
        assert!(b.await_go().is_err());
    }
}

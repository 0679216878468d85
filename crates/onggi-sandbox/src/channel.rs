//! The sync channel between the runtime and the child: SOCK_SEQPACKET, one message per packet.
//!
//! The child's end is close-on-exec, so end of file after [`Message::Executing`] means that exec succeeded.
//! Every packet is bounded; a child cannot make its parent allocate more.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use onggi_spec::monitor::StartFailure;
use onggi_sys::{Errno, SysContext};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use crate::error::{Result, StartFailureError, Step};

/// Longest packet; a step, a call and a hint fit easily.
const MAX_PACKET: usize = 8 * 1024;

/// What crosses the channel.
#[derive(Debug)]
pub(crate) enum Message {
    /// To the child: go on. To the runtime: run the hooks, then let me go on.
    Go,
    /// From the child: the runtime's hooks are due.
    RuntimeHooks,
    /// From the child: the terminal's master.
    Terminal(OwnedFd),
    /// From the child: something was kept as it was.
    Note(String),
    /// From the child: everything is made, it now waits for `start`.
    Created,
    /// From the child: exec is next.
    Executing,
    /// From the child: a step failed.
    Failed(StartFailure),
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .sys("socketpair", || "AF_UNIX, SOCK_SEQPACKET")
            .step(|| "make the sync channel".into())?;
        Ok((Self(a), Self(b)))
    }

    /// An accepted or connected socket.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Its descriptor's number.
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sends one message.
    pub(crate) fn send(&self, message: &Message) -> Result<()> {
        let packet = encode(message);
        let fd = match message {
            Message::Terminal(fd) => Some(fd.as_fd()),
            _ => None,
        };
        send_packet(self.0.as_fd(), &packet, fd).step(|| "talk to the other side of the sync channel".into())
    }

    /// Receives one message; `None` at end of file.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        let (packet, fd) = receive_packet(self.0.as_fd()).step(|| "listen on the sync channel".into())?;
        if packet.is_empty() {
            return Ok(None);
        }
        let bad = || StartFailureError::new("the sync channel carried an unknown message");
        decode(&packet, fd).map(Some).ok_or_else(bad)
    }

    /// Waits for permission to go on.
    pub(crate) fn await_go(&self) -> Result<()> {
        match self.receive()? {
            Some(Message::Go) => Ok(()),
            _ => Err(StartFailureError::new("the runtime gave up")),
        }
    }
}

/// Sends bytes and at most one descriptor over any unix socket.
pub(crate) fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> onggi_sys::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            r => return r.map(drop).sys("sendmsg", || format!("{} bytes", bytes.len())),
        }
    }
}

fn receive_packet(socket: BorrowedFd<'_>) -> onggi_sys::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut buf = vec![0u8; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
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
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fd = fds.next();
        }
    }
    Ok((buf, fd))
}

fn encode(message: &Message) -> Vec<u8> {
    match message {
        Message::Go => b"g".to_vec(),
        Message::RuntimeHooks => b"h".to_vec(),
        Message::Terminal(_) => b"t".to_vec(),
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
        b't' => Message::Terminal(fd?),
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
        };
        a.send(&Message::Failed(failure.clone())).unwrap();
        drop(a);
        let Some(Message::Failed(got)) = b.receive().unwrap() else { panic!() };
        assert_eq!((got.step, got.call, got.errno), (failure.step, failure.call, 1));
        assert!(b.receive().unwrap().is_none());
    }
}

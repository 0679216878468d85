//! A raw, synchronous netlink socket (netlink(7)): one buffer of messages out, the kernel's answers in.
//!
//! It exists so that network and firewall changes are one system call per batch. It knows message headers
//! and acknowledgements; what the messages mean is the caller's. The kernel answers rtnetlink and
//! nfnetlink requests while `sendmsg` runs, so nothing here ever blocks: an answer that is not there when
//! the send returns will never come, and is reported as such.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recvfrom, sendto, socket_with, sockopt,
};

use crate::{Errno, Result, SysContext, SysError};

/// Length of `struct nlmsghdr`.
pub const HEADER_LEN: usize = 16;
/// `NLM_F_MULTI`: part of a dump that `NLMSG_DONE` ends.
const F_MULTI: u16 = 2;
/// `NLM_F_DUMP_INTR`: the dumped table changed meanwhile.
const F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_CAPPED`: the echoed request was cut (netlink(7)).
const F_CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow the echoed request.
const F_ACK_TLVS: u16 = 0x200;
const NOOP: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG`.
const ATTR_MSG: u16 = 1;
/// One datagram of answers: the kernel never makes a dump datagram larger than this.
const DATAGRAM: usize = 32 * 1024;
/// All answers to one send. A dump of a million routes stays below it; a runaway one does not eat memory.
const MAX_ANSWERS: usize = 256 * 1024 * 1024;
/// The default send buffer holds batches up to about this size.
const DEFAULT_SEND: usize = 128 * 1024;

/// Which kernel subsystem a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes (rtnetlink(7)).
    Route,
    /// nftables and conntrack.
    Netfilter,
}

/// One answer, tied to the request by its sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Sequence number of the request.
    pub seq: u32,
    /// What the kernel said.
    pub body: Body,
}

/// Content of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The request succeeded.
    Ack,
    /// The dump is complete.
    Done,
    /// The request failed.
    Refused {
        /// Why.
        errno: Errno,
        /// The kernel's own words (extended acknowledgement); often empty.
        message: String,
    },
    /// An object: the type of the message and what follows its header.
    Data {
        /// `nlmsg_type`.
        kind: u16,
        /// After the header.
        payload: Vec<u8>,
    },
}

/// An open socket, bound to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct NetlinkSocket {
    fd: OwnedFd,
}

impl NetlinkSocket {
    /// Opens and binds a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` when the kernel lacks the subsystem; the usual descriptor limits.
    pub fn open(protocol: Protocol) -> Result<Self> {
        let (number, name) = match protocol {
            Protocol::Route => (None, "NETLINK_ROUTE"),
            Protocol::Netfilter => (Some(netlink::NETFILTER), "NETLINK_NETFILTER"),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, number)
            .sys("socket", || format!("AF_NETLINK, SOCK_RAW, {name}"))?;
        bind(&fd, &netlink::SocketAddrNetlink::new(0, 0)).sys("bind", || name.to_owned())?;
        // Both only improve messages (linux 4.3, 4.12); an old kernel simply does without.
        let _ = enable(&fd, libc::NETLINK_CAP_ACK);
        let _ = enable(&fd, libc::NETLINK_EXT_ACK);
        Ok(Self { fd })
    }

    /// Sends `messages` in one call and returns every answer up to the one that ends request `last`
    /// (an acknowledgement, an error or the end of a dump), in the order the kernel gave them.
    ///
    /// # Errors
    /// `ENOBUFS` when answers were lost, `EINTR` when a dump was overtaken by changes (ask again),
    /// `EOVERFLOW` beyond the bound, `EPROTO` for an answer that is not netlink, else `sendto`'s own.
    pub fn transact(&self, messages: &[u8], last: u32) -> Result<Vec<Answer>> {
        self.send(messages)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0u8; DATAGRAM];
        let mut total = 0;
        loop {
            let length = match self.receive(&mut buffer) {
                Ok(length) => length,
                Err(e) if e.errno == Errno::AGAIN => return Ok(answers),
                Err(e) => return Err(e),
            };
            total += length;
            if total > MAX_ANSWERS {
                return Err(SysError::new("recvfrom", "AF_NETLINK", Errno::OVERFLOW));
            }
            if parse(&buffer[..length], last, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    fn send(&self, messages: &[u8]) -> Result<()> {
        if messages.len() > DEFAULT_SEND {
            // Needs CAP_NET_ADMIN; without it the send itself fails with EMSGSIZE, which says enough.
            let _ = sockopt::set_socket_send_buffer_size_force(&self.fd, messages.len() * 2);
        }
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        let sent = sendto(&self.fd, messages, SendFlags::empty(), &kernel)
            .sys("sendto", || format!("AF_NETLINK, {} bytes", messages.len()))?;
        if sent != messages.len() {
            return Err(SysError::new("sendto", "AF_NETLINK, cut short", Errno::MSGSIZE));
        }
        Ok(())
    }

    /// One datagram from the kernel; those of other senders are dropped.
    fn receive(&self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let (_, length, from) = recvfrom(self.fd.as_fd(), &mut *buffer, flags).sys("recvfrom", || "AF_NETLINK")?;
            let from = from.and_then(|a| netlink::SocketAddrNetlink::try_from(a).ok());
            if from.is_none_or(|a| a.pid() != 0) {
                continue;
            }
            if length > buffer.len() {
                return Err(SysError::new("recvfrom", "AF_NETLINK, cut short", Errno::MSGSIZE));
            }
            return Ok(length);
        }
    }
}

fn enable(fd: &OwnedFd, option: libc::c_int) -> Result<()> {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, because `fd` is borrowed; the value pointer is to a live c_int on
    // this stack frame, and the length is exactly its size; the kernel only reads it.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size) };
    if done == 0 { Ok(()) } else { Err(SysError::last("setsockopt", "SOL_NETLINK")) }
}

/// Splits one datagram into answers. True when request `last` has ended.
fn parse(mut bytes: &[u8], last: u32, answers: &mut Vec<Answer>) -> Result<bool> {
    let mut ended = false;
    while bytes.len() >= HEADER_LEN {
        let length = u32_at(bytes, 0) as usize;
        if length < HEADER_LEN || length > bytes.len() {
            return Err(SysError::new("recvfrom", "AF_NETLINK, wrong length", Errno::PROTO));
        }
        let (kind, flags, seq) = (u16_at(bytes, 4), u16_at(bytes, 6), u32_at(bytes, 8));
        if flags & F_MULTI != 0 && flags & F_DUMP_INTR != 0 {
            return Err(SysError::new("recvfrom", "AF_NETLINK, dump overtaken", Errno::INTR));
        }
        let payload = &bytes[HEADER_LEN..length];
        let body = match kind {
            NOOP => None,
            ERROR => Some(verdict(payload, flags, Body::Ack)?),
            DONE => Some(verdict(payload, flags, Body::Done)?),
            _ => Some(Body::Data { kind, payload: payload.to_vec() }),
        };
        if let Some(body) = body {
            ended |= seq == last && !matches!(body, Body::Data { .. });
            answers.push(Answer { seq, body });
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(ended)
}

/// Reads the error number that opens `NLMSG_ERROR` and `NLMSG_DONE`; zero means `success`.
fn verdict(payload: &[u8], flags: u16, success: Body) -> Result<Body> {
    let Some(raw) = payload.first_chunk::<4>() else {
        // An old-style NLMSG_DONE carries nothing.
        return Ok(success);
    };
    let raw = i32::from_ne_bytes(*raw);
    if raw == 0 {
        return Ok(success);
    }
    let errno = Errno::from_raw_os_error(raw.checked_neg().unwrap_or(libc::EPROTO));
    let message = if success == Body::Ack { ext_ack(payload, flags) } else { String::new() };
    Ok(Body::Refused { errno, message })
}

/// The text attribute of an extended acknowledgement (netlink(7), NETLINK_EXT_ACK).
fn ext_ack(payload: &[u8], flags: u16) -> String {
    if flags & F_ACK_TLVS == 0 || payload.len() < 4 + HEADER_LEN {
        return String::new();
    }
    let echoed = if flags & F_CAPPED != 0 { HEADER_LEN } else { u32_at(payload, 4) as usize };
    let mut rest = payload.get(4 + echoed.next_multiple_of(4)..).unwrap_or_default();
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 0));
        let Some(value) = rest.get(4..length) else { break };
        if u16_at(rest, 2) & 0x3fff == ATTR_MSG {
            return String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    String::new()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u32, kind: u16, flags: u16, seq: u32) -> Vec<u8> {
        let mut out = length.to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        out.extend(seq.to_ne_bytes());
        out.extend([0; 4]);
        out
    }

    #[test]
    fn an_acknowledgement_ends_its_request() {
        let mut bytes = header(36, ERROR, F_CAPPED, 7);
        bytes.extend([0; 20]);
        let mut answers = Vec::new();
        assert!(parse(&bytes, 7, &mut answers).unwrap());
        assert_eq!(answers, [Answer { seq: 7, body: Body::Ack }]);
    }

    #[test]
    fn the_kernels_words_are_kept() {
        let text = b"Device exists\0";
        let mut bytes = header(36 + 4 + 16, ERROR, F_CAPPED | F_ACK_TLVS, 1);
        bytes.extend((-17i32).to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend((4 + text.len() as u16).to_ne_bytes());
        bytes.extend(ATTR_MSG.to_ne_bytes());
        bytes.extend(text);
        bytes.extend([0, 0]);
        let mut answers = Vec::new();
        parse(&bytes, 1, &mut answers).unwrap();
        let expected = Body::Refused { errno: Errno::EXIST, message: "Device exists".into() };
        assert_eq!(answers[0].body, expected);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for length in [0, 15, 17, u32::MAX] {
            let bytes = header(length, 16, 0, 1);
            assert!(parse(&bytes, 1, &mut Vec::new()).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_cut_extended_acknowledgement_is_no_panic() {
        for cut in 0..60 {
            let mut payload = vec![0xff; cut];
            if cut >= 8 {
                payload[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
            }
            ext_ack(&payload, F_ACK_TLVS);
            ext_ack(&payload, F_ACK_TLVS | F_CAPPED);
        }
    }
}

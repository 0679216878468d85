//! Network devices that change their namespace: rtnetlink(7) messages for one link and its addresses.
//!
//! Lengths are checked when messages are built and when answers are read (CVE-2021-43784). A handle talks to the
//! network namespace that it was opened in, wherever the caller is later.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::{
    Errno, Result, SysContext, SysError,
    netlink::{Answer, Body, HEADER_LEN, NetlinkSocket, Protocol},
    ns,
};

const NEWLINK: u16 = 16;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const ACKNOWLEDGED: u16 = 1 | 4;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const NEW: u16 = 0x400 | 0x200;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 1 | 0x300;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFF_UP: u32 = 1;
/// `struct ifinfomsg`, `struct ifaddrmsg`.
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const IFA_FLAGS: u16 = 8;
/// `IFA_F_PERMANENT`: not leased, not autoconfigured.
const PERMANENT: u32 = 0x80;
/// `RT_SCOPE_UNIVERSE`.
const GLOBAL: u8 = 0;
/// `IFA_ADDRESS`, `IFA_LOCAL`, `IFA_BROADCAST`, `IFA_ANYCAST`, `IFA_FLAGS`, `IFA_RT_PRIORITY`: what an address is;
/// its label and lifetime belong to the old place.
const KEPT: [u16; 6] = [1, 2, 4, 5, IFA_FLAGS, 9];
/// A dump that is overtaken by changes is asked for again.
const RETRIES: usize = 16;

/// A network device as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Interface index, of its present namespace.
    pub index: u32,
    /// Administratively up.
    pub up: bool,
    /// Its addresses of global scope that are there to stay, as RTM_NEWADDR has them without the index.
    pub addresses: Vec<Address>,
}

/// One address: family and prefix length, then attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// rtnetlink of one network namespace.
#[derive(Debug)]
pub struct Links(NetlinkSocket);

impl Links {
    /// Of the calling thread's namespace.
    ///
    /// # Errors
    /// socket(2), bind(2).
    pub fn own() -> Result<Self> {
        NetlinkSocket::open(Protocol::Route).map(Self)
    }

    /// Of another namespace; the caller has one thread and is back in `own` afterwards.
    ///
    /// # Errors
    /// setns(2) without CAP_SYS_ADMIN there; socket(2).
    pub fn of(namespace: BorrowedFd<'_>, own: BorrowedFd<'_>) -> Result<Self> {
        ns::join(namespace, ns::flag::NETWORK)?;
        let links = Self::own();
        ns::join(own, ns::flag::NETWORK)?;
        links
    }

    /// The device `name` and its addresses.
    ///
    /// # Errors
    /// ENODEV when there is none.
    pub fn find(&self, name: &str) -> Result<Device> {
        let what = || format!("RTM_GETLINK {name}");
        let request = message(GETLINK, ACKNOWLEDGED, &[0; IFINFO], &[(IFLA_IFNAME, &zero_terminated(name))])?;
        let answers = self.ask(&request, what)?;
        let link = answers.iter().find_map(|a| match &a.body {
            Body::Data { kind: NEWLINK, payload } if payload.len() >= IFINFO => Some(payload),
            _ => None,
        });
        let link = link.ok_or_else(|| SysError::new("sendto", what(), Errno::NODEV))?;
        let index = number(&link[4..]);
        let up = number(&link[8..]) & IFF_UP != 0;
        Ok(Device { index, up, addresses: self.addresses(index)? })
    }

    fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let request = message(GETADDR, DUMP, &[0; IFADDR], &[])?;
        for _ in 0..RETRIES {
            match self.ask(&request, || "RTM_GETADDR".into()) {
                Err(e) if e.errno == Errno::INTR => {}
                Err(e) => return Err(e),
                Ok(answers) => return Ok(answers.iter().filter_map(|a| address(a, index)).collect()),
            }
        }
        Err(SysError::new("recvfrom", "RTM_GETADDR, overtaken again and again", Errno::INTR))
    }

    /// Moves a device to another namespace and names it there, in one step.
    ///
    /// # Errors
    /// EEXIST when the name is taken there; EINVAL for a device that cannot move; EPERM.
    pub fn move_device(&self, device: &Device, to: BorrowedFd<'_>, name: &str) -> Result<()> {
        let mut header = [0; IFINFO];
        header[4..8].copy_from_slice(&device.index.to_ne_bytes());
        let fd = to.as_raw_fd().to_ne_bytes();
        let attributes = [(IFLA_NET_NS_FD, &fd[..]), (IFLA_IFNAME, &zero_terminated(name))];
        let request = message(NEWLINK, ACKNOWLEDGED, &header, &attributes)?;
        self.ask(&request, || format!("RTM_NEWLINK {name}, IFLA_NET_NS_FD")).map(drop)
    }

    /// Gives the device `name` the addresses of `device` and, unless `down`, sets it up.
    ///
    /// # Errors
    /// ENODEV; EPERM.
    pub fn configure(&self, name: &str, device: &Device, up: bool) -> Result<()> {
        let index = self.find(name)?.index;
        for address in &device.addresses {
            let mut header = [0; IFADDR];
            (header[0], header[1]) = (address.family, address.prefix);
            header[4..8].copy_from_slice(&index.to_ne_bytes());
            let attributes: Vec<(u16, &[u8])> = address.attributes.iter().map(|(k, v)| (*k, v.as_slice())).collect();
            let request = message(NEWADDR, ACKNOWLEDGED | NEW, &header, &attributes)?;
            match self.ask(&request, || format!("RTM_NEWADDR {name}")) {
                Err(e) if e.errno == Errno::EXIST => {}
                r => r.map(drop)?,
            }
        }
        if !up {
            return Ok(());
        }
        let mut header = [0; IFINFO];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
        let request = message(NEWLINK, ACKNOWLEDGED, &header, &[])?;
        self.ask(&request, || format!("RTM_NEWLINK {name}, IFF_UP")).map(drop)
    }

    fn ask(&self, request: &[u8], what: impl Fn() -> String) -> Result<Vec<Answer>> {
        let answers = self.0.transact(request, 1)?;
        for answer in &answers {
            if let Body::Refused { errno, message } = &answer.body {
                let why = if message.is_empty() { what() } else { format!("{}: {message}", what()) };
                return Err(SysError::new("sendto", why, *errno));
            }
        }
        Ok(answers)
    }
}

/// The calling thread's network namespace.
///
/// # Errors
/// open(2) of /proc/self/ns/net.
pub fn own_namespace() -> Result<OwnedFd> {
    std::fs::File::open("/proc/self/ns/net").map(Into::into).sys("open", || "\"/proc/self/ns/net\"")
}

/// Two descriptors are of one namespace.
///
/// # Errors
/// fstat(2).
pub fn same(a: impl AsFd, b: impl AsFd) -> Result<bool> {
    let identity =
        |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|s| (s.st_dev, s.st_ino)).sys("fstat", || "namespace");
    Ok(identity(a.as_fd())? == identity(b.as_fd())?)
}

fn zero_terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// A whole request with sequence number 1.
fn message(kind: u16, flags: u16, header: &[u8], attributes: &[(u16, &[u8])]) -> Result<Vec<u8>> {
    let too_long = || SysError::new("sendto", "AF_NETLINK, attribute too long", Errno::MSGSIZE);
    let mut out = vec![0; HEADER_LEN];
    out[4..6].copy_from_slice(&kind.to_ne_bytes());
    out[6..8].copy_from_slice(&flags.to_ne_bytes());
    out[8..12].copy_from_slice(&1u32.to_ne_bytes());
    out.extend(header);
    for (kind, value) in attributes {
        let length = u16::try_from(value.len() + 4).map_err(|_| too_long())?;
        out.extend(length.to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(*value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(out.len()).map_err(|_| too_long())?;
    out[..4].copy_from_slice(&length.to_ne_bytes());
    Ok(out)
}

/// An address that goes along with its device.
fn address(answer: &Answer, index: u32) -> Option<Address> {
    let Body::Data { kind: NEWADDR, payload } = &answer.body else { return None };
    let (header, rest) = payload.split_at_checked(IFADDR)?;
    let mut attributes: Vec<(u16, Vec<u8>)> = Vec::new();
    let mut rest = rest;
    while rest.len() >= 4 {
        let (length, kind) = (usize::from(u16_at(rest, 0)), u16_at(rest, 2) & 0x3fff);
        let value = rest.get(4..length)?;
        if KEPT.contains(&kind) {
            attributes.push((kind, value.to_vec()));
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    let long_flags = attributes.iter().find(|(kind, value)| *kind == IFA_FLAGS && value.len() >= 4);
    let flags = long_flags.map_or(u32::from(header[2]), |(_, value)| number(value));
    let wanted = number(&header[4..]) == index && header[3] == GLOBAL && flags & PERMANENT != 0;
    wanted.then(|| Address { family: header[0], prefix: header[1], attributes })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// The first four bytes; 0 when there are fewer.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(scope: u8, flags: u8, index: u32, attributes: &[(u16, &[u8])]) -> Answer {
        let mut header = vec![2, 24, flags, scope];
        header.extend(index.to_ne_bytes());
        let payload = message(NEWADDR, 0, &header, attributes).unwrap().split_off(HEADER_LEN);
        Answer { seq: 1, body: Body::Data { kind: NEWADDR, payload } }
    }

    #[test]
    fn only_permanent_addresses_of_global_scope_go_along() {
        let local: &[(u16, &[u8])] = &[(2, &[10, 0, 0, 1]), (3, b"eth0\0")];
        let kept = address(&answer(0, 0x80, 7, local), 7).unwrap();
        assert_eq!(kept.attributes, [(2, vec![10, 0, 0, 1])]);
        for (scope, flags, index) in [(254, 0x80, 7), (0, 0, 7), (0, 0x80, 8)] {
            assert_eq!(address(&answer(scope, flags, index, local), 7), None);
        }
    }

    #[test]
    fn attributes_that_lie_about_their_length_are_no_address() {
        let mut lie = answer(0, 0x80, 7, &[(2, &[10, 0, 0, 1])]);
        let Body::Data { payload, .. } = &mut lie.body else { panic!() };
        payload[IFADDR] = 200;
        assert_eq!(address(&lie, 7), None);
        assert!(message(1, 1, &[], &[(1, &vec![0; 65_536])]).is_err());
    }
}

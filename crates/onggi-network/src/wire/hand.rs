//! rtnetlink messages of networks by hand: all families, both ends of a veth pair anywhere, and the numbers by which one
//! namespace knows another (linux/net_namespace.h).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{Batch, CREATE, DUMP, EXCL, attribute, number, route};
use crate::hand::Cidr;

const NEWLINK: u16 = 16;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const NEWNSID: u16 = 88;
const GETNSID: u16 = 90;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_LINK_NETNSID: u16 = 37;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
/// NETNSA_NSID, NETNSA_FD.
const NSID: u16 = 1;
const NS_FD: u16 = 3;
/// RT_TABLE_MAIN, RTN_UNICAST.
const MAIN: u32 = 254;
const UNICAST: u8 = 1;

/// What `route::link` leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) link: route::Link,
    pub(crate) mac: Option<String>,
    pub(crate) master: Option<u32>,
    /// Index of the other end of a pair.
    pub(crate) peer: Option<u32>,
    /// The number of the namespace that the other end is in; none when it is this one.
    pub(crate) peer_namespace: Option<i32>,
    /// IF_OPER_*.
    pub(crate) state: u8,
}

/// Reads `RTM_NEWLINK`.
pub(crate) fn details(kind: u16, payload: &[u8]) -> Option<Details> {
    let link = route::link(kind, payload)?;
    let attrs = payload.get(16..)?;
    let get = |kind| attribute(attrs, kind);
    let mac = get(IFLA_ADDRESS).filter(|mac| mac.len() == 6);
    Some(Details {
        mac: mac.map(|mac| mac.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")),
        master: get(IFLA_MASTER).and_then(number),
        peer: get(IFLA_LINK).and_then(number).filter(|peer| *peer != 0),
        peer_namespace: get(IFLA_LINK_NETNSID).and_then(number).map(u32::cast_signed),
        state: get(IFLA_OPERSTATE).and_then(|value| value.first()).copied().unwrap_or(0),
        link,
    })
}

/// Asks for every address of every family.
pub(crate) fn dump_addresses(batch: &mut Batch) {
    batch.push("RTM_GETADDR", (GETADDR, DUMP), &[0; 8], |_| {});
}

/// Reads `RTM_NEWADDR`: interface index and address.
pub(crate) fn address(kind: u16, payload: &[u8]) -> Option<(u32, Cidr)> {
    if kind != NEWADDR || payload.len() < 8 {
        return None;
    }
    let attrs = &payload[8..];
    let value = attribute(attrs, 2).or_else(|| attribute(attrs, 1))?;
    Some((number(&payload[4..])?, Cidr::new(ip(payload[0], value)?, payload[1])?))
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => value.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into()),
        AF_INET6 => value.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into()),
        _ => None,
    }
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MainRoute {
    /// None: the default route.
    pub(crate) to: Option<Cidr>,
    pub(crate) ipv6: bool,
    pub(crate) via: Option<IpAddr>,
    pub(crate) out: Option<u32>,
    pub(crate) metric: Option<u32>,
}

/// Asks for every route of a family.
pub(crate) fn dump_routes(batch: &mut Batch, ipv6: bool) {
    let mut header = [0; 12];
    header[0] = if ipv6 { AF_INET6 } else { AF_INET };
    batch.push("RTM_GETROUTE", (GETROUTE, DUMP), &header, |_| {});
}

/// Reads `RTM_NEWROUTE`.
pub(crate) fn main_route(kind: u16, payload: &[u8]) -> Option<MainRoute> {
    if kind != NEWROUTE || payload.len() < 12 {
        return None;
    }
    let (family, attrs) = (payload[0], &payload[12..]);
    let table = attribute(attrs, 15).and_then(number).unwrap_or(u32::from(payload[4]));
    if table != MAIN || payload[7] != UNICAST {
        return None;
    }
    let to = attribute(attrs, 1).and_then(|value| Cidr::new(ip(family, value)?, payload[1]));
    Some(MainRoute {
        to: to.filter(|to| to.prefix() != 0),
        ipv6: family == AF_INET6,
        via: attribute(attrs, 5).and_then(|value| ip(family, value)),
        out: attribute(attrs, 4).and_then(number),
        metric: attribute(attrs, 6).and_then(number),
    })
}

/// Asks by which number this namespace knows another.
pub(crate) fn get_namespace_number(batch: &mut Batch, namespace: BorrowedFd<'_>) -> u32 {
    batch.push("RTM_GETNSID", (GETNSID, 0), &[0; 4], |a| a.u32(NS_FD, namespace.as_raw_fd() as u32))
}

/// Reads `RTM_NEWNSID`; none where no number was given yet.
pub(crate) fn namespace_number(kind: u16, payload: &[u8]) -> Option<i32> {
    let attrs = payload.get(4..).filter(|_| kind == NEWNSID)?;
    attribute(attrs, NSID).and_then(number).map(u32::cast_signed).filter(|n| *n >= 0)
}

/// `struct ifinfomsg` of a new link.
const NEW: [u8; 16] = [0; 16];

/// Creates a veth pair; the other end directly in another namespace.
pub(crate) fn create_pair(batch: &mut Batch, name: &str, peer: &str, namespace: Option<BorrowedFd<'_>>) {
    batch.push(format!("create veth {name}"), (NEWLINK, CREATE | EXCL), &NEW, |a| {
        a.string(IFLA_IFNAME, name);
        a.nest(IFLA_LINKINFO, |info| {
            info.string(INFO_KIND, "veth");
            info.nest(INFO_DATA, |data| {
                data.nest(VETH_PEER, |far| {
                    far.raw(&NEW);
                    far.string(IFLA_IFNAME, peer);
                    if let Some(namespace) = namespace {
                        far.u32(IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
                    }
                });
            });
        });
    });
}

/// Sets a link's alias.
pub(crate) fn set_alias(batch: &mut Batch, name: &str, alias: &str) {
    batch.push(format!("set alias of {name}"), (NEWLINK, 0), &NEW, |a| {
        a.string(IFLA_IFNAME, name);
        a.string(IFLA_IFALIAS, alias);
    });
}

/// Creates a bridge, down, without address.
pub(crate) fn create_bridge(batch: &mut Batch, name: &str) {
    batch.push(format!("create bridge {name}"), (NEWLINK, CREATE | EXCL), &NEW, |a| {
        a.string(IFLA_IFNAME, name);
        a.nest(IFLA_LINKINFO, |info| info.string(INFO_KIND, "bridge"));
    });
}

/// Makes a link a port of a bridge.
pub(crate) fn set_master(batch: &mut Batch, name: &str, bridge: u32) {
    batch.push(format!("make {name} a port of the bridge"), (NEWLINK, 0), &NEW, |a| {
        a.string(IFLA_IFNAME, name);
        a.u32(IFLA_MASTER, bridge);
    });
}

/// Adds an address, with its broadcast address where it has one.
pub(crate) fn add_address(batch: &mut Batch, index: u32, address: Cidr) {
    let (family, octets) = match address.ip() {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let mut header = [family, address.prefix(), 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.push(format!("add address {address}"), (NEWADDR, CREATE | EXCL), &header, |a| {
        a.bytes(2, &octets);
        a.bytes(1, &octets);
    });
}

/// Adds the default route through a router.
pub(crate) fn add_default_route(batch: &mut Batch, via: IpAddr) {
    let (family, octets) = match via {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    // rtmsg: family, dst_len, src_len, tos, table main, protocol boot (3), scope universe, unicast.
    let header = [family, 0, 0, 0, 254, 3, 0, UNICAST, 0, 0, 0, 0];
    batch.push(format!("add default route via {via}"), (NEWROUTE, CREATE | EXCL), &header, |a| a.bytes(5, &octets));
}

/// The words of IF_OPER_*.
pub(crate) fn state(number: u8) -> &'static str {
    match number {
        1 => "notpresent",
        2 => "down",
        3 => "lowerlayerdown",
        4 => "testing",
        5 => "dormant",
        6 => "up",
        _ => "unknown",
    }
}

/// Text of an attribute, for tests of what was built.
#[cfg(test)]
fn name_of(message: &[u8]) -> String {
    attribute(&message[32..], IFLA_IFNAME).map(super::text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_names_both_ends() {
        let mut batch = Batch::default();
        create_pair(&mut batch, "a", "b", None);
        let (bytes, _) = batch.finish().expect("it fits");
        assert_eq!(name_of(bytes), "a");
        assert!(bytes.windows(2).any(|w| w == b"b\0"));
    }

    #[test]
    fn short_or_foreign_answers_are_ignored() {
        for length in 0..48 {
            let bytes = vec![0xff; length];
            for kind in [NEWLINK, NEWADDR, NEWROUTE, NEWNSID, 0] {
                let _ = (details(kind, &bytes), address(kind, &bytes));
                let _ = (main_route(kind, &bytes), namespace_number(kind, &bytes));
            }
        }
    }
}

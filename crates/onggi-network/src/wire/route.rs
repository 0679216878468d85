//! rtnetlink messages (rtnetlink(7), linux/if_link.h): links, addresses, routes.
//!
//! One function per message; each appends to a batch. Readers turn answers into plain structs.

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{Batch, CREATE, DUMP, EXCL, attribute, number, text};
use crate::types::{Ipv4Subnet, Mac};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;
/// `IFF_UP`.
const UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
/// `VETH_INFO_PEER`.
const VETH_PEER: u16 = 1;
/// `IFLA_BRPORT_MODE`: hairpin.
const BRPORT_HAIRPIN: u16 = 4;
/// `IFLA_INET6_ADDR_GEN_MODE` and its value `IN6_ADDR_GEN_MODE_NONE`.
const ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;

/// `struct ifinfomsg`.
fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut out = [0; 16];
    out[4..8].copy_from_slice(&index.to_ne_bytes());
    out[8..12].copy_from_slice(&flags.to_ne_bytes());
    out[12..16].copy_from_slice(&change.to_ne_bytes());
    out
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Interface index.
    pub(crate) index: u32,
    /// Name.
    pub(crate) name: String,
    /// MTU in bytes.
    pub(crate) mtu: u32,
    /// Administratively up.
    pub(crate) up: bool,
    /// `bridge`, `veth`, …; empty for hardware.
    pub(crate) kind: String,
    /// `ip link set … alias`; our veths carry the container id there.
    pub(crate) alias: String,
}

/// Asks for one link by name (`ENODEV` when absent).
pub(crate) fn get_link(batch: &mut Batch, name: &str) {
    batch.push(format!("RTM_GETLINK {name}"), (GETLINK, 0), &ifinfo(0, 0, 0), |a| a.string(IFLA_IFNAME, name));
}

/// Asks for one link by index.
pub(crate) fn get_link_by_index(batch: &mut Batch, index: u32) {
    batch.push(format!("RTM_GETLINK {index}"), (GETLINK, 0), &ifinfo(index, 0, 0), |_| {});
}

/// Asks for every link.
pub(crate) fn dump_links(batch: &mut Batch) {
    batch.push("RTM_GETLINK", (GETLINK, DUMP), &ifinfo(0, 0, 0), |_| {});
}

/// Asks for every IPv4 address.
pub(crate) fn dump_addresses(batch: &mut Batch) {
    batch.push("RTM_GETADDR", (GETADDR, DUMP), &[AF_INET, 0, 0, 0, 0, 0, 0, 0], |_| {});
}

/// Asks for every IPv4 route.
pub(crate) fn dump_routes(batch: &mut Batch) {
    let mut header = [0; 12];
    header[0] = AF_INET;
    batch.push("RTM_GETROUTE", (GETROUTE, DUMP), &header, |_| {});
}

/// Reads `RTM_NEWLINK`.
pub(crate) fn link(kind: u16, payload: &[u8]) -> Option<Link> {
    if kind != NEWLINK || payload.len() < 16 {
        return None;
    }
    let attrs = &payload[16..];
    let get = |k| attribute(attrs, k);
    let info = get(IFLA_LINKINFO).and_then(|i| attribute(i, INFO_KIND));
    Some(Link {
        index: number(&payload[4..])?,
        up: number(&payload[8..])? & UP != 0,
        name: text(get(IFLA_IFNAME)?),
        mtu: get(IFLA_MTU).and_then(number).unwrap_or(0),
        kind: info.map(text).unwrap_or_default(),
        alias: get(IFLA_IFALIAS).map(text).unwrap_or_default(),
    })
}

/// Reads `RTM_NEWADDR`: interface index, address, prefix length.
pub(crate) fn address(kind: u16, payload: &[u8]) -> Option<(u32, Ipv4Addr, u8)> {
    if kind != NEWADDR || payload.len() < 8 || payload[0] != AF_INET {
        return None;
    }
    let attrs = &payload[8..];
    // IFA_LOCAL (2) is the own address of a point-to-point link, where IFA_ADDRESS (1) is the peer's.
    let value = attribute(attrs, 2).or_else(|| attribute(attrs, 1))?;
    Some((number(&payload[4..])?, ipv4(value)?, payload[1]))
}

/// A route's destination and outgoing interface; destination 0.0.0.0/0 is the default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// Destination.
    pub(crate) to: Ipv4Subnet,
    /// Interface index, when the route has one.
    pub(crate) out: Option<u32>,
    /// Priority; the lowest wins.
    pub(crate) metric: u32,
}

/// Reads `RTM_NEWROUTE` of type unicast, local, blackhole and so on alike: each makes a subnet taken.
pub(crate) fn route(kind: u16, payload: &[u8]) -> Option<Route> {
    if kind != NEWROUTE || payload.len() < 12 || payload[0] != AF_INET {
        return None;
    }
    let attrs = &payload[12..];
    let to = attribute(attrs, 1).and_then(ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED);
    Some(Route {
        to: Ipv4Subnet::new(to, payload[1])?,
        out: attribute(attrs, 4).and_then(number),
        metric: attribute(attrs, 6).and_then(number).unwrap_or(0),
    })
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    value.first_chunk().map(|b| Ipv4Addr::from(*b))
}

/// Creates a bridge, down, without address.
pub(crate) fn create_bridge(batch: &mut Batch, name: &str, mac: Mac, mtu: u32) {
    let flags = CREATE | EXCL;
    batch.push(format!("create bridge {name}"), (NEWLINK, flags), &ifinfo(0, 0, 0), |a| {
        a.string(IFLA_IFNAME, name);
        a.bytes(IFLA_ADDRESS, &mac.0);
        a.u32(IFLA_MTU, mtu);
        a.nest(IFLA_LINKINFO, |info| info.string(INFO_KIND, "bridge"));
    });
}

/// One end of a veth pair on a bridge, the other made directly inside another network namespace.
pub(crate) struct Veth<'a> {
    /// Name of the end that stays.
    pub(crate) name: &'a str,
    /// Index of the bridge that it joins.
    pub(crate) bridge: u32,
    /// Bytes, both ends.
    pub(crate) mtu: u32,
    /// Name of the far end.
    pub(crate) peer: &'a str,
    /// Address of the far end.
    pub(crate) peer_mac: Mac,
    /// Namespace of the far end.
    pub(crate) netns: BorrowedFd<'a>,
    /// Alias of the near end.
    pub(crate) alias: &'a str,
}

/// Creates the pair; then, in messages of the same send, sets the near end's alias, hairpin mode and
/// "no IPv6 link-local address" (IFLA_AF_SPEC is ignored at creation, so it cannot be one message).
pub(crate) fn create_veth(batch: &mut Batch, veth: &Veth<'_>) {
    let (name, flags) = (veth.name, CREATE | EXCL);
    batch.push(format!("create veth {name}"), (NEWLINK, flags), &ifinfo(0, 0, 0), |a| {
        a.string(IFLA_IFNAME, name);
        a.u32(IFLA_MTU, veth.mtu);
        a.u32(IFLA_MASTER, veth.bridge);
        a.nest(IFLA_LINKINFO, |info| {
            info.string(INFO_KIND, "veth");
            info.nest(INFO_DATA, |data| {
                data.nest(VETH_PEER, |peer| {
                    peer.raw(&ifinfo(0, 0, 0));
                    peer.string(IFLA_IFNAME, veth.peer);
                    peer.bytes(IFLA_ADDRESS, &veth.peer_mac.0);
                    peer.u32(IFLA_MTU, veth.mtu);
                    peer.u32(IFLA_NET_NS_FD, veth.netns.as_raw_fd() as u32);
                });
            });
        });
    });
    batch.push(format!("configure veth {name}"), (NEWLINK, 0), &ifinfo(0, 0, 0), |a| {
        a.string(IFLA_IFNAME, name);
        a.string(IFLA_IFALIAS, veth.alias);
        a.nest(IFLA_LINKINFO, |info| {
            info.string(INFO_KIND, "veth");
            info.string(INFO_SLAVE_KIND, "bridge");
            info.nest(INFO_SLAVE_DATA, |port| port.u8(BRPORT_HAIRPIN, 1));
        });
    });
}

/// Keeps the kernel from making an IPv6 link-local address when the link comes up.
pub(crate) fn no_link_local(batch: &mut Batch, name: &str) {
    batch.push(format!("no IPv6 address on {name}"), (NEWLINK, 0), &ifinfo(0, 0, 0), |a| {
        a.string(IFLA_IFNAME, name);
        a.nest(IFLA_AF_SPEC, |families| {
            families.nest(AF_INET6, |v6| v6.u8(ADDR_GEN_MODE, ADDR_GEN_NONE));
        });
    });
}

/// Brings a link up.
pub(crate) fn link_up(batch: &mut Batch, name: &str) {
    batch.push(format!("set {name} up"), (NEWLINK, 0), &ifinfo(0, UP, UP), |a| a.string(IFLA_IFNAME, name));
}

/// Deletes a link.
pub(crate) fn delete_link(batch: &mut Batch, name: &str) {
    batch.push(format!("delete link {name}"), (DELLINK, 0), &ifinfo(0, 0, 0), |a| a.string(IFLA_IFNAME, name));
}

/// Adds an address with its broadcast address.
pub(crate) fn add_address(batch: &mut Batch, index: u32, ip: Ipv4Addr, subnet: Ipv4Subnet) {
    let mut header = [AF_INET, subnet.prefix(), 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let label = format!("add address {ip}/{}", subnet.prefix());
    batch.push(label, (NEWADDR, CREATE | EXCL), &header, |a| {
        a.bytes(2, &ip.octets());
        a.bytes(1, &ip.octets());
        a.bytes(4, &subnet.broadcast().octets());
    });
}

/// Adds the default route through `gateway`.
pub(crate) fn add_default_route(batch: &mut Batch, gateway: Ipv4Addr) {
    // rtmsg: family, dst_len, src_len, tos, table main (254), protocol boot (3), scope universe, unicast.
    let header = [AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    batch.push(format!("add default route via {gateway}"), (NEWROUTE, CREATE | EXCL), &header, |a| {
        a.bytes(5, &gateway.octets());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_or_foreign_answers_are_ignored() {
        for length in 0..40 {
            let bytes = vec![0xff; length];
            for kind in [NEWLINK, NEWADDR, NEWROUTE, 0] {
                let _ = link(kind, &bytes);
                assert_eq!(address(kind, &bytes), None);
                assert_eq!(route(kind, &bytes), None);
            }
        }
    }

    #[test]
    fn a_link_up_names_its_link() {
        let mut batch = Batch::default();
        link_up(&mut batch, "onggi0");
        let (bytes, _) = batch.finish().unwrap();
        assert_eq!(attribute(&bytes[32..], IFLA_IFNAME).map(text), Some("onggi0".to_owned()));
        assert_eq!(number(&bytes[24..]), Some(UP));
    }
}

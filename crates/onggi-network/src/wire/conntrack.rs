//! ctnetlink messages (linux/netfilter/nfnetlink_conntrack.h): UDP flows that the kernel tracks.

use std::net::Ipv4Addr;

use super::{Batch, DUMP, attribute};

/// NFNL_SUBSYS_CTNETLINK << 8.
const CONNTRACK: u16 = 1 << 8;
const NEW: u16 = CONNTRACK;
const GET: u16 = CONNTRACK | 1;
const DELETE: u16 = CONNTRACK | 2;
/// AF_INET, version, resource id.
const HEADER: [u8; 4] = [2, 0, 0, 0];
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const UDP: u8 = 17;
/// Bits of CTA_FILTER_ORIG_FLAGS: compare the protocol, compare the destination port.
const BY_PROTOCOL_AND_PORT: u32 = 1 << 3 | 1 << 5;

/// A tracked UDP flow, with what the kernel needs to find it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Where its first packet was sent to.
    pub(crate) destination: Ipv4Addr,
    /// Port it was sent to.
    pub(crate) port: u16,
    /// Who answers: differs from `destination` when that was translated.
    pub(crate) answerer: Ipv4Addr,
    tuple: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Asks for UDP flows to `port`. Kernels before 5.8 ignore the filter and answer with every flow.
pub(crate) fn dump_udp(batch: &mut Batch, port: u16) {
    batch.push("list tracked flows", (GET, DUMP), &HEADER, |a| {
        a.nest(TUPLE_ORIG, |tuple| {
            tuple.nest(2, |proto| {
                proto.u8(1, UDP);
                proto.bytes(3, &port.to_be_bytes());
            });
        });
        a.nest(FILTER, |filter| {
            filter.u32(1, BY_PROTOCOL_AND_PORT);
            filter.u32(2, 0);
        });
    });
}

/// Forgets a flow.
pub(crate) fn delete(batch: &mut Batch, flow: &Flow) {
    batch.push("forget a tracked flow", (DELETE, 0), &HEADER, |a| {
        a.bytes(0x8000 | TUPLE_ORIG, &flow.tuple);
        a.bytes(ID, &flow.id);
        if let Some(zone) = &flow.zone {
            a.bytes(ZONE, zone);
        }
    });
}

/// Reads one flow; `None` unless it is UDP over IPv4.
pub(crate) fn flow(kind: u16, payload: &[u8]) -> Option<Flow> {
    let attrs = payload.get(4..).filter(|_| kind == NEW && payload[0] == HEADER[0])?;
    let tuple = attribute(attrs, TUPLE_ORIG)?;
    let proto = attribute(tuple, 2)?;
    if attribute(proto, 1)? != [UDP] {
        return None;
    }
    Some(Flow {
        destination: address(tuple, 2)?,
        port: u16::from_be_bytes(*attribute(proto, 3)?.first_chunk()?),
        answerer: address(attribute(attrs, TUPLE_REPLY)?, 1)?,
        tuple: tuple.to_vec(),
        id: attribute(attrs, ID)?.to_vec(),
        zone: attribute(attrs, ZONE).map(<[u8]>::to_vec),
    })
}

/// CTA_IP_V4_SRC (1) or CTA_IP_V4_DST (2) of a tuple.
fn address(tuple: &[u8], which: u16) -> Option<Ipv4Addr> {
    attribute(attribute(tuple, 1)?, which)?.first_chunk().map(|b| Ipv4Addr::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_answers_are_no_panic() {
        for length in 0..80 {
            for fill in [0u8, 2, 4, 0xff] {
                let mut bytes = vec![fill; length];
                assert_eq!(flow(NEW, &bytes), None);
                if let Some(first) = bytes.first_mut() {
                    *first = HEADER[0];
                }
                assert_eq!(flow(NEW, &bytes), None);
            }
        }
    }
}

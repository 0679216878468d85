//! Address translation in any nftables table, in words; and the table of a bridge that was made by hand.
//!
//! What iptables-nft makes shows by the name of its target; iptables-legacy keeps its rules where nf_tables does not see
//! them. Expressions that are not known here are left out of the words, which end in `…` then.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::Serialize;

use super::{APPEND, Attrs, Batch, CREATE, DUMP, EXCL, attribute, attributes, be_number, nft, text};
use crate::types::Ipv4Subnet;

const NFT: u16 = 10 << 8;
const NEWTABLE: u16 = NFT;
const DELTABLE: u16 = NFT | 2;
const NEWCHAIN: u16 = NFT | 3;
const NEWRULE: u16 = NFT | 6;
const GETRULE: u16 = NFT | 7;
/// NFPROTO_IPV4.
const IPV4: [u8; 4] = [2, 0, 0, 0];
/// NF_INET_POST_ROUTING, and nft's `srcnat`.
const POSTROUTING: u32 = 4;
const SOURCE_NAT: i32 = 100;
/// NFT_META_*.
const IIFNAME: u32 = 6;
const OIFNAME: u32 = 7;
const L4PROTO: u32 = 16;

/// A rule that translates addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NatRule {
    /// `ip`, `ip6`, `inet`.
    pub family: String,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// In the words of nft(8).
    pub rule: String,
}

/// Asks for every rule of every table.
pub(crate) fn dump_rules(batch: &mut Batch) {
    batch.push("list rules", (GETRULE, DUMP), &[0; 4], |_| {});
}

/// Reads a rule, if it translates.
pub(crate) fn nat_rule(kind: u16, payload: &[u8]) -> Option<NatRule> {
    let attrs = payload.get(4..).filter(|_| kind == NEWRULE)?;
    let family = match payload[0] {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    let rule = words(attribute(attrs, 4)?)?;
    Some(NatRule {
        family: family.to_owned(),
        table: text(attribute(attrs, 1)?),
        chain: text(attribute(attrs, 2)?),
        rule,
    })
}

/// What a register holds.
#[derive(Clone)]
enum Held {
    Field(String),
    Value(Vec<u8>),
}

/// None for rules that translate nothing.
fn words(expressions: &[u8]) -> Option<String> {
    let mut out: Vec<String> = Vec::new();
    let mut registers: BTreeMap<u32, Held> = BTreeMap::new();
    let mut prefix = None;
    let (mut translates, mut partial) = (false, false);
    for (_, expression) in attributes(expressions) {
        let name = text(attribute(expression, 1)?);
        let data = attribute(expression, 2).unwrap_or_default();
        let field = |kind| attribute(data, kind).and_then(be_number);
        let value = |kind| attribute(data, kind).and_then(|v| attribute(v, 1)).map(<[u8]>::to_vec);
        match name.as_str() {
            "meta" => hold(&mut registers, field(1), meta(field(2))),
            "payload" => {
                prefix = field(4).map(|length| length * 8);
                hold(&mut registers, field(1), payload(field(2), field(3)));
            }
            "bitwise" => prefix = value(4).map(|mask| mask.iter().map(|b| b.count_ones()).sum()),
            "cmp" => match (field(1).and_then(|r| registers.get(&r)), value(3)) {
                (Some(Held::Field(what)), Some(against)) => {
                    let not = if field(2) == Some(1) { "!= " } else { "" };
                    out.push(format!("{what} {not}{}", shown(what, &against, prefix)));
                    prefix = None;
                }
                _ => partial = true,
            },
            "lookup" => match (field(2).and_then(|r| registers.get(&r)), attribute(data, 1)) {
                (Some(Held::Field(what)), Some(set)) => out.push(format!("{what} @{}", text(set))),
                _ => partial = true,
            },
            "immediate" => {
                if let (Some(register), Some(value)) = (field(1), value(2)) {
                    registers.insert(register, Held::Value(value));
                }
            }
            "masq" => (translates, _) = (true, out.push("masquerade".to_owned())),
            "redir" => (translates, _) = (true, out.push("redirect".to_owned())),
            "nat" => {
                translates = true;
                let how = if field(1) == Some(0) { "snat" } else { "dnat" };
                out.push(format!("{how} to {}", destination(&registers, field(3), field(5))));
            }
            "target" => {
                let target = text(attribute(data, 1)?);
                translates |= ["MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP"].contains(&target.as_str());
                out.push(format!("{target} (of iptables)"));
            }
            "counter" => {}
            _ => partial = true,
        }
    }
    out.extend(partial.then(|| "…".to_owned()));
    translates.then(|| out.join(" "))
}

fn hold(registers: &mut BTreeMap<u32, Held>, register: Option<u32>, what: Option<String>) {
    if let Some(register) = register {
        match what {
            Some(what) => registers.insert(register, Held::Field(what)),
            None => registers.remove(&register),
        };
    }
}

fn meta(key: Option<u32>) -> Option<String> {
    let name = match key? {
        IIFNAME => "iifname",
        OIFNAME => "oifname",
        L4PROTO => "meta l4proto",
        _ => return None,
    };
    Some(name.to_owned())
}

fn payload(base: Option<u32>, offset: Option<u32>) -> Option<String> {
    let name = match (base?, offset?) {
        (1, 12) => "ip saddr",
        (1, 16) => "ip daddr",
        (1, 9) => "ip protocol",
        (2, 0) => "sport",
        (2, 2) => "dport",
        _ => return None,
    };
    Some(name.to_owned())
}

fn shown(what: &str, value: &[u8], prefix: Option<u32>) -> String {
    match (what, value) {
        ("oifname" | "iifname", name) => format!("\"{}\"", text(name)),
        ("ip saddr" | "ip daddr", [..]) if value.len() <= 4 => {
            let mut octets = [0; 4];
            octets[..value.len()].copy_from_slice(value);
            let ip = Ipv4Addr::from(octets);
            match prefix.filter(|p| *p < 32) {
                Some(prefix) => format!("{ip}/{prefix}"),
                None => ip.to_string(),
            }
        }
        ("sport" | "dport", [high, low]) => u16::from_be_bytes([*high, *low]).to_string(),
        ("meta l4proto" | "ip protocol", [6]) => "tcp".to_owned(),
        ("meta l4proto" | "ip protocol", [17]) => "udp".to_owned(),
        _ => value.iter().map(|b| format!("{b:02x}")).collect(),
    }
}

fn destination(registers: &BTreeMap<u32, Held>, address: Option<u32>, port: Option<u32>) -> String {
    let held = |register: Option<u32>| register.and_then(|r| registers.get(&r));
    let ip = match held(address) {
        Some(Held::Value(v)) => v.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).to_string()),
        Some(Held::Field(_)) => Some("what the map says".to_owned()),
        None => None,
    };
    let port = match held(port) {
        Some(Held::Value(v)) => v.first_chunk::<2>().map(|b| format!(":{}", u16::from_be_bytes(*b))),
        _ => None,
    };
    format!("{}{}", ip.unwrap_or_else(|| "…".to_owned()), port.unwrap_or_default())
}

/// A table with the one rule of a bridge, in place of whatever has its name.
pub(crate) fn install(batch: &mut Batch, table: &str, subnet: Ipv4Subnet, bridge: &str) {
    let named = |a: &mut Attrs<'_>| a.string(1, table);
    batch.push("add table", (NEWTABLE, CREATE), &IPV4, named);
    batch.push("delete table", (DELTABLE, 0), &IPV4, named);
    batch.push("add table", (NEWTABLE, CREATE | EXCL), &IPV4, named);
    batch.push("add chain postrouting", (NEWCHAIN, CREATE), &IPV4, |a| {
        a.string(1, table);
        a.string(3, "postrouting");
        a.nest(4, |hook| {
            hook.be32(1, POSTROUTING);
            hook.bytes(2, &SOURCE_NAT.to_be_bytes());
        });
        a.be32(5, 1);
        a.string(7, "nat");
    });
    batch.push("add rule masquerade", (NEWRULE, CREATE | APPEND), &IPV4, |a| {
        a.string(1, table);
        a.string(2, "postrouting");
        a.nest(4, |list| masquerade(list, subnet, bridge));
    });
}

fn masquerade(list: &mut Attrs<'_>, subnet: Ipv4Subnet, bridge: &str) {
    let octets = subnet.address().octets();
    let whole = usize::from(subnet.prefix() / 8);
    // A prefix of whole bytes needs no mask: fewer bytes are loaded. A /0 is every address.
    let bytes = if subnet.prefix().is_multiple_of(8) && whole > 0 { whole } else { 4 };
    nft::named(list, "payload", |d| nft::words(d, &[(1, 1), (2, 1), (3, 12), (4, bytes as u32)]));
    if bytes == 4 && subnet.prefix() < 32 {
        let mask = u32::MAX.checked_shl(32 - u32::from(subnet.prefix())).unwrap_or(0);
        nft::named(list, "bitwise", |d| {
            nft::words(d, &[(1, 1), (2, 1), (3, 4)]);
            d.nest(4, |m| m.bytes(1, &mask.to_be_bytes()));
            d.nest(5, |x| x.bytes(1, &[0; 4]));
        });
    }
    nft::compare(list, 1, 0, &octets[..bytes]);
    nft::named(list, "meta", |d| nft::words(d, &[(1, 1), (2, OIFNAME)]));
    let mut name = [0; 16];
    let length = bridge.len().min(15);
    name[..length].copy_from_slice(&bridge.as_bytes()[..length]);
    nft::compare(list, 1, 1, &name);
    nft::named(list, "masq", |_| {});
}

/// The table goes, if it is there.
pub(crate) fn remove(batch: &mut Batch, table: &str) {
    batch.push("add table", (NEWTABLE, CREATE), &IPV4, |a| a.string(1, table));
    batch.push("delete table", (DELTABLE, 0), &IPV4, |a| a.string(1, table));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_rule_is_read_back_in_words() {
        for (address, prefix) in [([10, 10, 0, 0], 24), ([172, 16, 0, 0], 12), ([10, 0, 0, 0], 8)] {
            let mut batch = Batch::default();
            let subnet = Ipv4Subnet::new(address.into(), prefix).expect("a network");
            install(&mut batch, "onggi_br0", subnet, "br0");
            let (bytes, _) = batch.finish().expect("it fits");
            let mut rest = bytes;
            let mut found = None;
            while let Some(length) = rest.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b) as usize) {
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                found = found.or_else(|| nat_rule(kind, &rest[16..length]));
                rest = &rest[length..];
            }
            let rule = found.expect("there is a rule").rule;
            assert_eq!(rule, format!("ip saddr {subnet} oifname != \"br0\" masquerade"));
        }
    }

    #[test]
    fn hostile_answers_are_no_panic() {
        for length in 0..64 {
            for fill in [0u8, 1, 4, 8, 0xff] {
                let _ = nat_rule(NEWRULE, &vec![fill; length]);
            }
        }
    }
}

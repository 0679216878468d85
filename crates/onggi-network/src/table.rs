//! The nftables table `ip onggi`: a constant number of rules over maps and sets, as data.
//!
//! Every rule exists twice here: as nft(8) text (what `--explain=sh` prints) and as kernel expressions (what
//! is sent). A test installs both and compares what `nft list` says. Containers only ever add elements, so
//! the cost of a packet and of a start does not grow with the number of published ports.
//!
//! ```text
//! map published      host address . protocol . port -> container address . port   (-p 127.0.0.1:80:80)
//! map published_any  protocol . port -> container address . port                  (-p 80:80)
//! set subnets        networks that are masqueraded on their way out
//! set bridges        our bridge devices
//! set peers          in . out pairs of bridges that may talk (each with itself)
//! ```
//! The rules never accept on behalf of another table: a drop elsewhere stays a drop.

/// Name of the table (family ip).
pub(crate) const TABLE: &str = "onggi";

/// An nftables expression of linux/netfilter/nf_tables.h; register numbers are the kernel's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expr {
    /// `meta KEY` → register.
    Meta(u32, u32),
    /// Bytes of the packet → register: base (1 network, 2 transport header), offset, length.
    Payload(u32, u32, u32, u32),
    /// Register equals.
    Equals(u32, &'static [u8]),
    /// Register & mask is not zero.
    AnyBit(u32, u32),
    /// Register is a key of the set, or is not.
    InSet(u32, &'static str, bool),
    /// Map lookup: register → register 1.
    Map(u32, &'static str),
    /// `fib daddr type` → register.
    DestinationType(u32),
    /// `ct KEY` → register.
    Conntrack(u32, u32),
    /// `dnat` to the address in register 1 and the port in register 9.
    Dnat,
    /// `masquerade`.
    Masquerade,
    /// Verdict code.
    Verdict(i32),
}

use Expr::{AnyBit, Conntrack, DestinationType, Dnat, Equals, InSet, Map, Masquerade, Meta, Payload, Verdict};

/// NFT_META_IIFNAME.
const IIFNAME: u32 = 6;
/// NFT_META_OIFNAME.
const OIFNAME: u32 = 7;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const DROP: Expr = Verdict(0);
const ACCEPT: Expr = Verdict(1);
const RETURN: Expr = Verdict(-5);
/// RTN_LOCAL.
const LOCAL: &[u8] = &2u32.to_ne_bytes();
const LOOPBACK: &[u8] = &[127];
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// IPS_DST_NAT.
const DST_NAT: u32 = 0x20;
/// `established,related` of `ct state`.
const KNOWN: u32 = 0x6;

/// A base chain.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Name.
    pub(crate) name: &'static str,
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    /// NF_INET_* number and its word.
    pub(crate) hook: (u32, &'static str),
    /// Priority.
    pub(crate) priority: i32,
    /// Its rules.
    pub(crate) rules: &'static [Rule],
}

/// A rule, in words, as nft(8) text, as expressions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// Why it exists; stored as the rule's comment. With `VERSION` it identifies the rule.
    pub(crate) why: &'static str,
    /// nft(8) syntax, without the comment.
    pub(crate) text: &'static str,
    /// What the kernel gets.
    pub(crate) exprs: &'static [Expr],
}

/// Goes into each comment; changes whenever a rule, set or chain changes, so that an upgrade reinstalls.
const VERSION: &str = "onggi 1";

impl Rule {
    /// The comment on the installed rule (at most 127 bytes for nft(8)).
    pub(crate) fn comment(&self) -> String {
        format!("{VERSION}: {}", self.why)
    }
}

/// A set or map.
#[derive(Debug)]
pub(crate) struct Set {
    /// Name.
    pub(crate) name: &'static str,
    /// nft(8) text of the type.
    pub(crate) text: &'static str,
    /// NFT_SET_* flags.
    pub(crate) flags: u32,
    /// nft(8)'s data type number and the length in bytes.
    pub(crate) key: (u32, u32),
    /// The same of a map's values.
    pub(crate) data: Option<(u32, u32)>,
    /// Byte order of keys, for nft(8)'s listing: 0 none, 1 host, 2 network.
    pub(crate) byte_order: u32,
}

/// nft(8)'s type numbers; concatenations are shifted by 6 bits per part.
const IPV4: u32 = 7;
const PROTO: u32 = 12;
const SERVICE: u32 = 13;
const IFNAME: u32 = 41;
/// NFT_SET_INTERVAL, NFT_SET_MAP.
const INTERVAL: u32 = 4;
const MAP: u32 = 8;
const TARGET: Option<(u32, u32)> = Some((IPV4 << 6 | SERVICE, 8));

/// Map of ports published on one host address.
pub(crate) const PUBLISHED: &str = "published";
/// Map of ports published on every host address.
pub(crate) const PUBLISHED_ANY: &str = "published_any";
/// Masqueraded networks.
pub(crate) const SUBNETS: &str = "subnets";
/// Our bridges.
pub(crate) const BRIDGES: &str = "bridges";
/// Allowed pairs of bridges.
pub(crate) const PEERS: &str = "peers";

/// Every set and map.
pub(crate) const SETS: &[Set] = &[
    Set {
        name: PUBLISHED,
        text: "map published { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }",
        flags: MAP,
        key: (IPV4 << 12 | PROTO << 6 | SERVICE, 12),
        data: TARGET,
        byte_order: 0,
    },
    Set {
        name: PUBLISHED_ANY,
        text: "map published_any { type inet_proto . inet_service : ipv4_addr . inet_service; }",
        flags: MAP,
        key: (PROTO << 6 | SERVICE, 8),
        data: TARGET,
        byte_order: 0,
    },
    Set {
        name: SUBNETS,
        text: "set subnets { type ipv4_addr; flags interval; }",
        flags: INTERVAL,
        key: (IPV4, 4),
        data: None,
        byte_order: 2,
    },
    Set { name: BRIDGES, text: "set bridges { type ifname; }", flags: 0, key: (IFNAME, 16), data: None, byte_order: 1 },
    Set {
        name: PEERS,
        text: "set peers { type ifname . ifname; }",
        flags: 0,
        key: (IFNAME << 6 | IFNAME, 32),
        data: None,
        byte_order: 0,
    },
];

const PUBLISH_RULES: [Rule; 2] = [
    Rule {
        why: "ports published on one address of this host",
        text: "fib daddr type local dnat ip to ip daddr . ip protocol . th dport map @published",
        exprs: &[
            DestinationType(1),
            Equals(1, LOCAL),
            Payload(NETWORK, DESTINATION, 4, 1),
            Payload(NETWORK, 9, 1, 9),
            Payload(TRANSPORT, 2, 2, 10),
            Map(1, PUBLISHED),
            Dnat,
        ],
    },
    Rule {
        why: "ports published on every address of this host",
        text: "fib daddr type local dnat ip to ip protocol . th dport map @published_any",
        exprs: &[
            DestinationType(1),
            Equals(1, LOCAL),
            Payload(NETWORK, 9, 1, 1),
            Payload(TRANSPORT, 2, 2, 9),
            Map(1, PUBLISHED_ANY),
            Dnat,
        ],
    },
];

const FROM_BRIDGE: [Expr; 2] = [Meta(IIFNAME, 1), InSet(1, BRIDGES, true)];
const TO_BRIDGE: [Expr; 2] = [Meta(OIFNAME, 1), InSet(1, BRIDGES, true)];
const TRANSLATED: [Expr; 2] = [Conntrack(2, 1), AnyBit(1, DST_NAT)];
const FROM_CONTAINER: [Expr; 2] = [Payload(NETWORK, SOURCE, 4, 1), InSet(1, SUBNETS, true)];

/// Every chain, in the order a packet meets them.
pub(crate) const CHAINS: &[Chain] = &[
    Chain {
        name: "spoofing",
        kind: "filter",
        hook: (0, "prerouting"),
        priority: -300,
        rules: &[
            Rule {
                why: "route_localnet is on for the bridge: nobody may claim to be loopback",
                text: "iifname @bridges ip saddr 127.0.0.0/8 drop",
                exprs: &[FROM_BRIDGE[0], FROM_BRIDGE[1], Payload(NETWORK, SOURCE, 1, 1), Equals(1, LOOPBACK), DROP],
            },
            Rule {
                why: "route_localnet is on for the bridge: the host's loopback services stay unreachable",
                text: "iifname @bridges ip daddr 127.0.0.0/8 drop",
                exprs: &[
                    FROM_BRIDGE[0],
                    FROM_BRIDGE[1],
                    Payload(NETWORK, DESTINATION, 1, 1),
                    Equals(1, LOOPBACK),
                    DROP,
                ],
            },
        ],
    },
    Chain {
        name: "publish_in",
        kind: "nat",
        hook: (0, "prerouting"),
        priority: -100,
        rules: &[
            Rule {
                why: "ports published on loopback are for this host alone, whatever a neighbour sends",
                text: "ip daddr 127.0.0.0/8 return",
                exprs: &[Payload(NETWORK, DESTINATION, 1, 1), Equals(1, LOOPBACK), RETURN],
            },
            PUBLISH_RULES[0],
            PUBLISH_RULES[1],
        ],
    },
    Chain { name: "publish_out", kind: "nat", hook: (3, "output"), priority: -100, rules: &PUBLISH_RULES },
    Chain {
        name: "isolation",
        kind: "filter",
        hook: (2, "forward"),
        priority: 0,
        rules: &[
            Rule {
                why: "answers",
                text: "ct state established,related accept",
                exprs: &[Conntrack(0, 1), AnyBit(1, KNOWN), ACCEPT],
            },
            Rule {
                why: "traffic to published ports",
                text: "ct status dnat accept",
                exprs: &[TRANSLATED[0], TRANSLATED[1], ACCEPT],
            },
            Rule {
                why: "containers of one network talk to each other",
                text: "iifname . oifname @peers accept",
                exprs: &[Meta(IIFNAME, 1), Meta(OIFNAME, 2), InSet(1, PEERS, true), ACCEPT],
            },
            Rule {
                why: "nothing else enters a container network: no route around published ports",
                text: "oifname @bridges drop",
                exprs: &[TO_BRIDGE[0], TO_BRIDGE[1], DROP],
            },
        ],
    },
    Chain {
        name: "masquerading",
        kind: "nat",
        hook: (4, "postrouting"),
        priority: 100,
        rules: &[
            Rule {
                why: "containers leave with the host's address",
                text: "ip saddr @subnets oifname != @bridges masquerade",
                exprs: &[FROM_CONTAINER[0], FROM_CONTAINER[1], Meta(OIFNAME, 1), InSet(1, BRIDGES, false), Masquerade],
            },
            Rule {
                why: "hairpin: a container that uses a published port gets its answer through the host",
                text: "ip saddr @subnets oifname @bridges ct status dnat masquerade",
                exprs: &[
                    FROM_CONTAINER[0],
                    FROM_CONTAINER[1],
                    TO_BRIDGE[0],
                    TO_BRIDGE[1],
                    TRANSLATED[0],
                    TRANSLATED[1],
                    Masquerade,
                ],
            },
            Rule {
                why: "127.0.0.1:PORT on the host: the container must be able to answer",
                text: "ip saddr 127.0.0.0/8 oifname @bridges masquerade",
                exprs: &[Payload(NETWORK, SOURCE, 1, 1), Equals(1, LOOPBACK), TO_BRIDGE[0], TO_BRIDGE[1], Masquerade],
            },
        ],
    },
];

/// (chain, comment) of every rule in order: what a complete table looks like in a dump.
pub(crate) fn fingerprint() -> Vec<(String, String)> {
    let rules = |c: &'static Chain| c.rules.iter().map(|r| (c.name.to_owned(), r.comment()));
    CHAINS.iter().flat_map(rules).collect()
}

/// The table as nft(8) text that replaces an older one, without elements.
pub(crate) fn text() -> String {
    let mut out = format!("add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n");
    for set in SETS {
        out += &format!("  {}\n", set.text);
    }
    for Chain { name, kind, hook, priority, rules } in CHAINS {
        out += &format!("  chain {name} {{\n    type {kind} hook {} priority {priority}; policy accept;\n", hook.1);
        for rule in *rules {
            out += &format!("    {} comment \"{}\"\n", rule.text, rule.comment());
        }
        out += "  }\n";
    }
    out + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_fit_the_kernel_and_nft_and_are_unique_per_chain() {
        let prints = fingerprint();
        for (chain, comment) in &prints {
            assert!(comment.len() < 128 && !comment.contains('"'), "{chain}: {comment}");
        }
        let mut unique = prints.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), prints.len());
    }

    #[test]
    fn the_number_of_rules_is_constant_and_small() {
        assert_eq!(fingerprint().len(), 14);
    }
}

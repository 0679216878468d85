//! The planners: a request and facts in, every kernel operation in order out. Pure.

use std::{
    collections::{BTreeSet, HashSet},
    net::Ipv4Addr,
};

use onggi_spec::{ContainerId, port::Protocol};
use serde::{Deserialize, Serialize};

use crate::{
    element::Element,
    error::PlanError,
    facts::{BridgeFacts, NetFacts, PortFact, TableFacts},
    types::{BRIDGE, BridgeRequest, CONTAINER_LINK, Ipv4Subnet, Mac, NETWORK, NetworkRecord, PublishedPort},
};

/// Every operation that connects one container, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// What the container will own; stored before `apply`. Absent for `none`.
    pub record: Option<NetworkRecord>,
    /// The operations.
    pub ops: Vec<NetOp>,
    /// What the user should know: settings of the host that change, firewalls that may interfere.
    pub warnings: Vec<String>,
}

/// Where an operation acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The engine's network namespace.
    Host,
    /// The container's, made by `CreateNetns`.
    Container,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum NetOp {
    /// Takes an address for the container: a file named by it, made exclusively.
    TakeLease {
        /// Network.
        network: String,
        /// Address.
        ip: Ipv4Addr,
        /// Owner.
        id: ContainerId,
    },
    /// Binds a host port, so that no other program takes it.
    ReservePort {
        /// The port.
        port: PublishedPort,
    },
    /// Writes a kernel setting of the host.
    Sysctl {
        /// `net.ipv4.ip_forward`.
        key: String,
        /// New value.
        value: String,
    },
    /// Makes the container's network namespace and writes these settings in it.
    CreateNetns {
        /// Key and value; they must be in place before a device appears.
        sysctls: Vec<(String, String)>,
    },
    /// Makes a bridge.
    CreateBridge {
        /// Device.
        name: String,
        /// Its address; fixed, so that it does not change with its ports.
        mac: Mac,
        /// Bytes.
        mtu: u32,
    },
    /// Makes a veth pair: one end on the bridge, the other inside the container's namespace from the start.
    CreateVeth {
        /// The host's end.
        name: String,
        /// The bridge.
        bridge: String,
        /// The container's end.
        peer: String,
        /// Address of the container's end.
        peer_mac: Mac,
        /// Bytes.
        mtu: u32,
        /// Alias of the host's end: the container id.
        alias: String,
    },
    /// Keeps the kernel from giving a device an IPv6 link-local address.
    NoLinkLocal {
        /// Device on the host.
        name: String,
    },
    /// Adds an address to a device.
    AddAddress {
        /// Where.
        side: Side,
        /// Device.
        link: String,
        /// Address.
        ip: Ipv4Addr,
        /// Its network.
        subnet: Ipv4Subnet,
    },
    /// Brings a device up.
    LinkUp {
        /// Where.
        side: Side,
        /// Device.
        link: String,
    },
    /// Adds the container's default route.
    AddDefaultRoute {
        /// Gateway.
        via: Ipv4Addr,
    },
    /// Installs the constant table in place of whatever has its name, with elements that must survive.
    InstallTable {
        /// Refuse if the ruleset changed since this generation.
        generation: Option<u32>,
        /// Elements of containers that run already.
        restore: Vec<Element>,
    },
    /// Writes the record from which a flushed table is rebuilt.
    SaveRecord,
    /// Adds elements to the table.
    AddElements {
        /// The elements.
        elements: Vec<Element>,
    },
    /// Forgets tracked UDP flows to ports that are published from now on: their clients would stay with the host.
    ForgetFlows {
        /// The UDP ports.
        ports: Vec<PublishedPort>,
    },
}

/// Settings of a container's namespace on an IPv4 network. Without an IPv6 address nothing listens to router
/// advertisements (CVE-2020-13401); loopback keeps ::1.
const NO_IPV6: [(&str, &str); 2] =
    [("net.ipv6.conf.default.disable_ipv6", "1"), ("net.ipv6.conf.default.accept_ra", "0")];

/// The plan for `--network none`: a namespace with loopback.
pub fn plan_none() -> NetworkPlan {
    let lo = NetOp::LinkUp { side: Side::Container, link: "lo".to_owned() };
    NetworkPlan { record: None, ops: vec![NetOp::CreateNetns { sysctls: Vec::new() }, lo], warnings: Vec::new() }
}

/// The plan for the default bridge network.
///
/// # Errors
/// A port that is taken, no free address or network, a device in the way.
pub fn plan_bridge(request: &BridgeRequest, facts: &NetFacts) -> Result<NetworkPlan, PlanError> {
    let ports = resolve_ports(&facts.ports)?;
    let subnet = choose_subnet(facts)?;
    let gateway = bridge_address(facts).map_or(subnet.gateway(), |(ip, _)| ip);
    let ip = choose_address(&request.id, subnet, gateway, &facts.leased)?;
    let record = NetworkRecord {
        id: request.id.clone(),
        network: NETWORK.to_owned(),
        bridge: BRIDGE.to_owned(),
        ip,
        subnet,
        gateway,
        mac: Mac::of(ip),
        veth: choose_veth(&request.id, &facts.links)?,
        ports,
    };
    let mut ops = vec![NetOp::TakeLease { network: NETWORK.to_owned(), ip, id: request.id.clone() }];
    ops.extend(record.ports.iter().map(|port| NetOp::ReservePort { port: *port }));
    let sysctls = [container_sysctls(facts.ipv6), request.sysctls.clone()].concat();
    ops.push(NetOp::CreateNetns { sysctls });
    ops.extend(bridge_ops(facts, &record));
    ops.extend(link_ops(facts, &record));
    ops.extend(firewall_ops(facts, &record));
    Ok(NetworkPlan { warnings: warnings(facts), record: Some(record), ops })
}

fn resolve_ports(facts: &[PortFact]) -> Result<Vec<PublishedPort>, PlanError> {
    let mut seen = HashSet::new();
    let mut ports = Vec::with_capacity(facts.len());
    for PortFact { wanted, found } in facts {
        let port = found.clone().map_err(|obstacle| PlanError::Port {
            ip: wanted.host_ip,
            port: wanted.host_port.map_or(0, |p| p.get()),
            protocol: wanted.protocol.to_string(),
            obstacle,
        })?;
        if !seen.insert((port.host_ip, port.host_port, port.protocol)) {
            return Err(PlanError::PortTwice { port: port.host_port.get(), protocol: port.protocol.to_string() });
        }
        ports.push(port);
    }
    Ok(ports)
}

fn bridge_address(facts: &NetFacts) -> Option<(Ipv4Addr, Ipv4Subnet)> {
    facts.bridge.as_ref().and_then(|b| b.address)
}

/// The bridge's network, else the first candidate that no route of the host leads into.
fn choose_subnet(facts: &NetFacts) -> Result<Ipv4Subnet, PlanError> {
    if let Some(BridgeFacts { kind, .. }) = facts.bridge.as_ref().filter(|b| b.kind != "bridge") {
        return Err(PlanError::NotABridge { name: BRIDGE.to_owned(), kind: kind.clone() });
    }
    if let Some((_, subnet)) = bridge_address(facts) {
        return Ok(subnet);
    }
    let free = |candidate: &Ipv4Subnet| !facts.routes.iter().any(|r| r.overlaps(*candidate));
    candidates().find(free).ok_or(PlanError::NoSubnet)
}

/// 4093 addresses each, well beyond the 1023 ports of one bridge; the last ones are smaller.
fn candidates() -> impl Iterator<Item = Ipv4Subnet> {
    let ten = (89..=99).map(|b| (Ipv4Addr::new(10, b, 0, 0), 20));
    let seventeen = (20..=31).map(|b| (Ipv4Addr::new(172, b, 0, 0), 20));
    let nineteen = (160..=252).step_by(4).map(|c| (Ipv4Addr::new(192, 168, c, 0), 22));
    ten.chain(seventeen).chain(nineteen).filter_map(|(address, prefix)| Ipv4Subnet::new(address, prefix))
}

/// A free address, looked for from a place that the id determines: a restarted container usually gets its old
/// address back, and containers that start at the same time rarely want the same one.
fn choose_address(
    id: &ContainerId,
    subnet: Ipv4Subnet,
    gateway: Ipv4Addr,
    leased: &BTreeSet<Ipv4Addr>,
) -> Result<Ipv4Addr, PlanError> {
    let (first, last) = (subnet.address().to_bits(), subnet.broadcast().to_bits());
    let count = (last - first).saturating_sub(1);
    let start = fnv(id.as_str());
    (0..count)
        .map(|step| Ipv4Addr::from_bits(first + 1 + (start.wrapping_add(u64::from(step)) % u64::from(count)) as u32))
        .find(|ip| *ip != gateway && !leased.contains(ip))
        .ok_or(PlanError::NoAddress { subnet })
}

/// FNV-1a: spreads ids evenly and stays the same in every version.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Names for the host's end, at most 15 bytes (IFNAMSIZ): a device of a container that has just stopped may
/// linger for a moment, hence more than one.
pub(crate) fn veth_names(id: &ContainerId) -> impl Iterator<Item = String> {
    ["0", "1", "2", "3"].into_iter().map(|suffix| format!("og{}{suffix}", id.short()))
}

fn choose_veth(id: &ContainerId, taken: &BTreeSet<String>) -> Result<String, PlanError> {
    let free = veth_names(id).find(|name| !taken.contains(name));
    free.ok_or_else(|| PlanError::NoVethName { id: id.clone() })
}

/// What is set in a container's namespace before it has a device.
pub(crate) fn container_sysctls(ipv6: bool) -> Vec<(String, String)> {
    let settings = NO_IPV6.iter().filter(|_| ipv6);
    settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Whatever the bridge still lacks; nothing in the usual case.
fn bridge_ops(facts: &NetFacts, record: &NetworkRecord) -> Vec<NetOp> {
    let bridge = facts.bridge.as_ref();
    let (name, side) = (&record.bridge, Side::Host);
    let sysctl = |key: String, value: &str| NetOp::Sysctl { key, value: value.to_owned() };
    let mut ops = Vec::new();
    if bridge.is_none() {
        ops.push(NetOp::CreateBridge { name: name.clone(), mac: Mac::of(record.gateway), mtu: facts.mtu });
    }
    if facts.ipv6 && !bridge.is_some_and(|b| b.ipv6_off) {
        ops.push(sysctl(format!("net.ipv6.conf.{name}.disable_ipv6"), "1"));
    }
    if !bridge.is_some_and(|b| b.route_localnet) {
        ops.push(sysctl(format!("net.ipv4.conf.{name}.route_localnet"), "1"));
    }
    if bridge.is_none_or(|b| b.address.is_none()) {
        ops.push(NetOp::AddAddress { side, link: name.clone(), ip: record.gateway, subnet: record.subnet });
    }
    if !bridge.is_some_and(|b| b.up) {
        ops.push(NetOp::LinkUp { side, link: name.clone() });
    }
    if !facts.ip_forward {
        ops.push(sysctl("net.ipv4.ip_forward".to_owned(), "1"));
    }
    ops
}

fn link_ops(facts: &NetFacts, record: &NetworkRecord) -> Vec<NetOp> {
    let (veth, eth0) = (&record.veth, CONTAINER_LINK.to_owned());
    let inside = Side::Container;
    let mut ops = vec![NetOp::CreateVeth {
        name: veth.clone(),
        bridge: record.bridge.clone(),
        peer: eth0.clone(),
        peer_mac: record.mac,
        mtu: facts.bridge.as_ref().map_or(facts.mtu, |b| b.mtu),
        alias: record.id.to_string(),
    }];
    if facts.ipv6 {
        ops.push(NetOp::NoLinkLocal { name: veth.clone() });
    }
    ops.extend([
        NetOp::LinkUp { side: Side::Host, link: veth.clone() },
        NetOp::LinkUp { side: inside, link: "lo".to_owned() },
        NetOp::AddAddress { side: inside, link: eth0.clone(), ip: record.ip, subnet: record.subnet },
        NetOp::LinkUp { side: inside, link: eth0 },
        NetOp::AddDefaultRoute { via: record.gateway },
    ]);
    ops
}

fn firewall_ops(facts: &NetFacts, record: &NetworkRecord) -> Vec<NetOp> {
    let mut ops = Vec::new();
    if !record.ports.is_empty() {
        ops.push(NetOp::SaveRecord);
    }
    ops.extend(install_op(&facts.table, Some(record)));
    let mut elements = network_elements(&record.bridge, record.subnet);
    elements.extend(published_elements(record));
    ops.push(NetOp::AddElements { elements });
    let udp: Vec<_> = record.ports.iter().filter(|p| p.protocol == Protocol::Udp).copied().collect();
    if !udp.is_empty() {
        ops.push(NetOp::ForgetFlows { ports: udp });
    }
    ops
}

/// Installing the table where it is not complete, with what other containers publish. Of two records with the
/// same key (one must be of a dead container) the first is restored; the container's own ports win over both.
pub(crate) fn install_op(table: &TableFacts, record: Option<&NetworkRecord>) -> Option<NetOp> {
    let TableFacts::Incomplete { generation, restore } = table else { return None };
    let key = |e: &Element| (e.set(), e.key());
    let mut seen: HashSet<_> = record.iter().flat_map(|r| published_elements(r)).map(|e| key(&e)).collect();
    let others = restore.iter().filter(|r| record.is_none_or(|own| own.id != r.id));
    let mut elements: Vec<Element> = others.flat_map(published_elements).filter(|e| seen.insert(key(e))).collect();
    elements.sort_by_key(Element::set);
    Some(NetOp::InstallTable { generation: *generation, restore: elements })
}

/// Rebuilding the table of a bridge without attaching anything; nothing when it is complete.
pub(crate) fn heal_ops(table: &TableFacts, subnet: Ipv4Subnet) -> Vec<NetOp> {
    let Some(install) = install_op(table, None) else { return Vec::new() };
    vec![install, NetOp::AddElements { elements: network_elements(BRIDGE, subnet) }]
}

/// What the table must know of a network.
fn network_elements(bridge: &str, subnet: Ipv4Subnet) -> Vec<Element> {
    let name = || bridge.to_owned();
    vec![Element::Subnet { subnet }, Element::Bridge { name: name() }, Element::Peers { name: name() }]
}

/// The map elements of a container's ports, grouped by map.
pub(crate) fn published_elements(record: &NetworkRecord) -> impl Iterator<Item = Element> + use<> {
    let mut ports = record.ports.clone();
    ports.sort_by_key(|p| p.host_ip.is_unspecified());
    let (to, owner) = (record.ip, record.id.clone());
    ports.into_iter().map(move |port| Element::Published { port, to, owner: owner.clone() })
}

fn warnings(facts: &NetFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    if !facts.ip_forward {
        warnings.push("IPv4 forwarding is turned on for this host (net.ipv4.ip_forward was 0)".to_owned());
    }
    for policy in &facts.forward_policies {
        let (family, table, chain) = (&policy.family, &policy.table, &policy.chain);
        warnings.push(format!(
            "the firewall chain `{family} {table} {chain}` drops forwarded packets by default, which we leave in \
             force: unless it has rules for {BRIDGE}, containers reach nothing outside. Allow it there: \
             nft insert rule {family} {table} {chain} iifname \"{BRIDGE}\" accept; \
             nft insert rule {family} {table} {chain} oifname \"{BRIDGE}\" accept"
        ));
    }
    warnings
}

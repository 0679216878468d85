//! `NetFacts`: what a network plan may know, read once from the kernel and our own files.
//!
//! Reading needs no privilege except for nftables; without it the table counts as absent and the plan can still
//! be explained. Nothing is changed here.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet},
    net::Ipv4Addr,
    num::NonZeroU16,
    path::Path,
};

use onggi_spec::{ContainerId, port::PortMapping};
use serde::{Deserialize, Serialize};

use crate::{
    element::{published_key, published_set},
    error::{NetworkError, Obstacle},
    plan::veth_names,
    ports,
    record::{self, leased},
    socket::Socket,
    sysctl,
    table::{PUBLISHED, PUBLISHED_ANY, fingerprint},
    types::{BRIDGE, BridgeRequest, Ipv4Subnet, NetworkRecord, PublishedPort},
    wire::{Batch, nft, route},
};

/// Questions per send: their answers must fit the socket's receive buffer (212 KiB by default).
const QUESTIONS: usize = 64;
/// A free port is looked for this often before giving up.
const PORT_TRIES: u32 = 64;
/// Ethernet's MTU, when no default route tells.
const DEFAULT_MTU: u32 = 1500;

/// What the planner may know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetFacts {
    /// The bridge, when it exists.
    pub bridge: Option<BridgeFacts>,
    /// Networks that routes of this host lead to, without default-like ones; only gathered while a network
    /// must still be chosen.
    pub routes: Vec<Ipv4Subnet>,
    /// MTU of the default route's device, else 1500.
    pub mtu: u32,
    /// `net.ipv4.ip_forward` is on.
    pub ip_forward: bool,
    /// The kernel has IPv6.
    pub ipv6: bool,
    /// State of our nftables table.
    pub table: TableFacts,
    /// Leased addresses of the network.
    pub leased: BTreeSet<Ipv4Addr>,
    /// One per requested port, in order.
    pub ports: Vec<PortFact>,
    /// Which of the names that the container's veth could have exist already.
    pub links: BTreeSet<String>,
    /// Chains of other tables that drop forwarded packets by default.
    pub forward_policies: Vec<ForwardPolicy>,
}

/// The existing bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeFacts {
    /// `bridge`, unless something else has the name.
    pub kind: String,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Its address and network.
    pub address: Option<(Ipv4Addr, Ipv4Subnet)>,
    /// `route_localnet` is on.
    pub route_localnet: bool,
    /// IPv6 is off on it (or absent from the kernel).
    pub ipv6_off: bool,
}

/// The table `ip onggi`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableFacts {
    /// Every rule is there.
    Complete,
    /// Missing, or not what this version installs.
    Incomplete {
        /// Generation of the ruleset when it was read; absent without privilege.
        generation: Option<u32>,
        /// Containers whose ports must be published again.
        restore: Vec<NetworkRecord>,
    },
}

/// One requested port on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFact {
    /// What was asked.
    pub wanted: PortMapping,
    /// The port it gets, or what is in the way.
    pub found: Result<PublishedPort, Obstacle>,
}

/// A base chain of somebody else whose policy is to drop what is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardPolicy {
    /// nftables family.
    pub family: String,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
}

/// Gathers the facts for one container.
///
/// # Errors
/// When the kernel refuses to list links, addresses, routes or rules.
pub fn facts(runroot: &Path, request: &BridgeRequest) -> Result<NetFacts, NetworkError> {
    let socket = Socket::route()?;
    let links = named_links(&socket, &request.id)?;
    let addresses = addresses(&socket)?;
    let bridge = bridge_facts(&links, &addresses)?;
    let settled = bridge.as_ref().filter(|b| b.address.is_some());
    let (routes, mtu) = match settled {
        Some(bridge) => (Vec::new(), bridge.mtu),
        None => routes(&socket)?,
    };
    let firewall = Socket::netfilter()?;
    Ok(NetFacts {
        routes,
        mtu,
        ip_forward: sysctl::read("net.ipv4.ip_forward")?.as_deref() == Some("1"),
        ipv6: ipv6()?,
        table: privileged(table(&firewall, runroot), TableFacts::Incomplete { generation: None, restore: Vec::new() })?,
        leased: leased(runroot),
        ports: port_facts(&firewall, request, &addresses)?,
        links: links.into_iter().map(|l| l.name).collect(),
        forward_policies: privileged(forward_policies(&firewall), Vec::new())?,
        bridge,
    })
}

/// This kernel has IPv6.
pub(crate) fn ipv6() -> Result<bool, NetworkError> {
    Ok(sysctl::read("net.ipv6.conf.all.disable_ipv6")?.is_some())
}

/// Without CAP_NET_ADMIN nftables answers EPERM: then `fallback` is all that can be known.
fn privileged<T>(result: Result<T, NetworkError>, fallback: T) -> Result<T, NetworkError> {
    match result {
        Err(NetworkError::Request { source, .. }) if source.errno == onggi_sys::Errno::PERM => Ok(fallback),
        other => other,
    }
}

/// The bridge and the container's possible veths, as far as they exist.
fn named_links(socket: &Socket, id: &ContainerId) -> Result<Vec<route::Link>, NetworkError> {
    let mut batch = Batch::default();
    route::get_link(&mut batch, BRIDGE);
    for name in veth_names(id) {
        route::get_link(&mut batch, &name);
    }
    socket.ask(&mut batch, route::link)
}

type Address = (u32, Ipv4Addr, u8);

fn addresses(socket: &Socket) -> Result<Vec<Address>, NetworkError> {
    let mut batch = Batch::default();
    route::dump_addresses(&mut batch);
    socket.ask(&mut batch, route::address)
}

/// The network of the bridge, when there is one.
pub(crate) fn bridge_subnet(socket: &Socket) -> Result<Option<Ipv4Subnet>, NetworkError> {
    let mut batch = Batch::default();
    route::get_link(&mut batch, BRIDGE);
    let links = socket.ask(&mut batch, route::link)?;
    let bridge = bridge_facts(&links, &addresses(socket)?)?;
    Ok(bridge.and_then(|b| b.address).map(|(_, subnet)| subnet))
}

fn bridge_facts(links: &[route::Link], addresses: &[Address]) -> Result<Option<BridgeFacts>, NetworkError> {
    let Some(link) = links.iter().find(|l| l.name == BRIDGE) else { return Ok(None) };
    let own = addresses.iter().find(|(index, ..)| *index == link.index);
    let setting = |key: &str| sysctl::read(&key.replace("BRIDGE", BRIDGE));
    Ok(Some(BridgeFacts {
        kind: link.kind.clone(),
        mtu: link.mtu,
        up: link.up,
        address: own.and_then(|(_, ip, prefix)| Some((*ip, Ipv4Subnet::new(*ip, *prefix)?))),
        route_localnet: setting("net.ipv4.conf.BRIDGE.route_localnet")?.as_deref() == Some("1"),
        ipv6_off: setting("net.ipv6.conf.BRIDGE.disable_ipv6")?.is_none_or(|v| v == "1"),
    }))
}

/// Destinations that a new network must avoid, and the MTU towards the default route.
fn routes(socket: &Socket) -> Result<(Vec<Ipv4Subnet>, u32), NetworkError> {
    let mut batch = Batch::default();
    route::dump_routes(&mut batch);
    let all = socket.ask(&mut batch, route::route)?;
    let default = all.iter().filter(|r| r.to.prefix() == 0).min_by_key(|r| r.metric).and_then(|r| r.out);
    let mtu = match default {
        Some(index) => link_mtu(socket, index)?,
        None => DEFAULT_MTU,
    };
    // A VPN splits the default route in two halves of /1; such a route is everywhere and avoids nothing.
    let unique: BTreeSet<_> = all.iter().map(|r| r.to).filter(|to| to.prefix() >= 4).collect();
    Ok((unique.into_iter().collect(), mtu))
}

fn link_mtu(socket: &Socket, index: u32) -> Result<u32, NetworkError> {
    let mut batch = Batch::default();
    route::get_link_by_index(&mut batch, index);
    let link = socket.ask(&mut batch, route::link)?;
    Ok(link.first().map(|l| l.mtu).filter(|mtu| *mtu >= 68).unwrap_or(DEFAULT_MTU))
}

/// What the kernel holds of our table, and what would have to come back.
pub(crate) fn table(firewall: &Socket, runroot: &Path) -> Result<TableFacts, NetworkError> {
    let mut generation = Batch::default();
    nft::get_generation(&mut generation);
    let generation = firewall.ask(&mut generation, nft::generation)?.first().copied();
    let mut rules = Batch::default();
    nft::dump_rules(&mut rules);
    if firewall.ask(&mut rules, nft::rule)? == fingerprint() {
        return Ok(TableFacts::Complete);
    }
    Ok(TableFacts::Incomplete { generation, restore: record::all(runroot) })
}

fn forward_policies(firewall: &Socket) -> Result<Vec<ForwardPolicy>, NetworkError> {
    let mut batch = Batch::default();
    nft::dump_chains(&mut batch);
    let chains = firewall.ask(&mut batch, nft::refusing_forward_chain)?;
    Ok(chains.into_iter().map(|(family, table, chain)| ForwardPolicy { family, table, chain }).collect())
}

fn port_facts(
    firewall: &Socket,
    request: &BridgeRequest,
    addresses: &[Address],
) -> Result<Vec<PortFact>, NetworkError> {
    let finder = Finder { firewall, id: &request.id, addresses, held: RefCell::default() };
    let named =
        request.ports.iter().filter_map(|wanted| Some(published(wanted, wanted.host_port?))).collect::<Vec<_>>();
    let mut holders = finder.holders(&named)?.into_iter();
    let mut facts = Vec::with_capacity(request.ports.len());
    for wanted in &request.ports {
        let found = match wanted.host_port.map(|port| published(wanted, port)) {
            Some(port) => match holders.next().flatten() {
                Some(holder) => Err(Obstacle::Container(holder)),
                None => finder.probe(&port).map(|()| port),
            },
            None => finder.free(wanted)?,
        };
        facts.push(PortFact { wanted: *wanted, found });
    }
    Ok(facts)
}

fn published(wanted: &PortMapping, host_port: NonZeroU16) -> PublishedPort {
    let PortMapping { host_ip, container_port, protocol, .. } = *wanted;
    PublishedPort { host_ip, host_port, container_port, protocol }
}

struct Finder<'a> {
    firewall: &'a Socket,
    id: &'a ContainerId,
    addresses: &'a [Address],
    /// Probes stay bound until all ports are found, so that no port is found twice.
    held: RefCell<Vec<std::os::fd::OwnedFd>>,
}

impl Finder<'_> {
    fn probe(&self, port: &PublishedPort) -> Result<(), Obstacle> {
        let (fd, _) = ports::reserve(port.host_ip, port.host_port.get(), port.protocol)?;
        drop(fd);
        Ok(())
    }

    /// A free port of the kernel's ephemeral range that no container publishes.
    fn free(&self, wanted: &PortMapping) -> Result<Result<PublishedPort, Obstacle>, NetworkError> {
        for _ in 0..PORT_TRIES {
            let (fd, number) = match ports::reserve(wanted.host_ip, 0, wanted.protocol) {
                Ok(reserved) => reserved,
                Err(obstacle) => return Ok(Err(obstacle)),
            };
            self.held.borrow_mut().push(fd);
            let port = published(wanted, number);
            if self.holders(&[port])?.iter().all(Option::is_none) {
                return Ok(Ok(port));
            }
        }
        Ok(Err(Obstacle::Exhausted))
    }

    /// For each port, the other container that publishes it on an address in common.
    fn holders(&self, wanted: &[PublishedPort]) -> Result<Vec<Option<ContainerId>>, NetworkError> {
        let mut holders = vec![None; wanted.len()];
        let questions: Vec<_> =
            wanted.iter().enumerate().flat_map(|(i, p)| self.rivals(p).into_iter().map(move |key| (i, key))).collect();
        for chunk in questions.chunks(QUESTIONS) {
            let mut batch = Batch::default();
            for (_, (set, key)) in chunk {
                nft::get_element(&mut batch, set, key);
            }
            let read = |seq: u32, kind, payload: &[u8]| {
                let owner = nft::elements(kind, payload).into_iter().next()?.comment.parse().ok()?;
                Some((seq, owner))
            };
            let answers: Vec<(u32, ContainerId)> = privileged(self.firewall.ask_each(&mut batch, read), Vec::new())?;
            for (seq, owner) in answers.into_iter().filter(|(_, owner)| owner != self.id) {
                if let Some((index, _)) = (seq as usize).checked_sub(1).and_then(|s| chunk.get(s)) {
                    holders[*index] = Some(owner);
                }
            }
        }
        Ok(holders)
    }

    /// Map keys that would collide with this port: itself, the wildcard, and for a wildcard each address.
    fn rivals(&self, port: &PublishedPort) -> Vec<(&'static str, Vec<u8>)> {
        let at = |host_ip| PublishedPort { host_ip, ..*port };
        let any = at(Ipv4Addr::UNSPECIFIED);
        let mut keys = vec![(PUBLISHED_ANY, published_key(&any))];
        if port.host_ip.is_unspecified() {
            let unique: HashSet<_> = self.addresses.iter().map(|(_, ip, _)| *ip).collect();
            keys.extend(unique.into_iter().map(|ip| (PUBLISHED, published_key(&at(ip)))));
        } else {
            keys.push((published_set(port.host_ip), published_key(port)));
        }
        keys
    }
}

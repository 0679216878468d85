//! What there is: links, addresses, routes and translations of several namespaces, and which ends belong together.

use std::{
    collections::BTreeMap,
    fs::File,
    net::Ipv4Addr,
    os::fd::{AsFd as _, OwnedFd},
};

use onggi_sys::{Errno, SysError, netns};
use serde::Serialize;

use super::{Cidr, NatRule, Place};
use crate::{
    error::NetworkError,
    socket::Socket,
    sysctl,
    table::{PUBLISHED, PUBLISHED_ANY},
    wire::{Batch, hand, nft, route, rules},
};

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NamespaceView {
    /// What it is called.
    pub place: Place,
    /// Its inode number: two places with one are the same.
    pub inode: u64,
    /// Its devices, by index.
    pub links: Vec<LinkView>,
    /// Routes of its main table.
    pub routes: Vec<RouteView>,
    /// Rules that translate addresses.
    pub nat: Vec<NatRule>,
    /// Ports that containers publish.
    pub ports: Vec<PortView>,
    /// It hands packets on between its devices (IPv4).
    pub forwards: bool,
    /// Where this namespace's numbers of others lead to: the place in the list.
    #[serde(skip)]
    known: BTreeMap<i32, usize>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LinkView {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name there.
    pub name: String,
    /// `bridge`, `veth`, …; empty for hardware.
    pub kind: String,
    /// It is brought up.
    pub up: bool,
    /// What the driver says: `up`, `down`, `lowerlayerdown`, `unknown`, …
    pub state: &'static str,
    /// Bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Option<String>,
    /// Alias.
    pub alias: String,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Index of the other end of a pair, in its namespace.
    pub peer: Option<u32>,
    /// The number of that namespace here; none when it is this one.
    pub peer_namespace: Option<i32>,
    /// Addresses.
    pub addresses: Vec<Cidr>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RouteView {
    /// Destination; `default`.
    pub to: String,
    /// The router.
    pub via: Option<String>,
    /// Name of the device.
    pub link: Option<String>,
    /// The lowest wins.
    pub metric: Option<u32>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortView {
    /// `tcp`, `udp`.
    pub protocol: String,
    /// Address of this machine; `0.0.0.0` for each.
    pub host_ip: Ipv4Addr,
    /// Port of this machine.
    pub host_port: u16,
    /// Where it leads.
    pub to: Ipv4Addr,
    /// And to which port.
    pub port: u16,
    /// Id of the container.
    pub container: String,
}

impl NamespaceView {
    /// A namespace that does not exist yet.
    pub fn empty(place: Place) -> Self {
        let lo = LinkView {
            index: 1,
            name: "lo".to_owned(),
            kind: String::new(),
            up: false,
            state: "down",
            mtu: 65_536,
            mac: None,
            alias: String::new(),
            master: None,
            peer: None,
            peer_namespace: None,
            addresses: Vec::new(),
        };
        Self {
            place,
            inode: 0,
            links: vec![lo],
            routes: Vec::new(),
            nat: Vec::new(),
            ports: Vec::new(),
            forwards: false,
            known: BTreeMap::new(),
        }
    }
}

/// Looks at each place. One that cannot be entered, or has gone meanwhile, is left out.
///
/// # Errors
/// The kernel refuses to list what is in one that was entered.
pub fn look(places: &[Place]) -> Result<Vec<NamespaceView>, NetworkError> {
    let mut opened: Vec<(Place, OwnedFd)> = Vec::new();
    for place in places {
        if let Ok(fd) = open(place) {
            opened.push((place.clone(), fd));
        }
    }
    let mut views = Vec::new();
    let mut kept: Vec<&OwnedFd> = Vec::new();
    for (place, fd) in &opened {
        match inside(place, fd, || view(place, fd)) {
            Ok(view) => {
                views.push(view?);
                kept.push(fd);
            }
            // Somebody else's, or none that may be entered without privilege.
            Err(e) if matches!(e.errno, Errno::PERM | Errno::ACCESS | Errno::INVAL) => {}
            Err(source) => return Err(NetworkError::Call { operation: "enter a network namespace", source }),
        }
    }
    for (at, (view, fd)) in views.iter_mut().zip(&kept).enumerate() {
        let place = view.place.clone();
        let numbers = inside(&place, fd, || numbers(&kept, at));
        view.known =
            numbers.map_err(|source| NetworkError::Call { operation: "enter a network namespace", source })??;
    }
    Ok(views)
}

/// The other end of a link: the place of its namespace in the list, and itself. None when that is not in the list.
pub fn peer<'a>(views: &'a [NamespaceView], at: usize, link: &LinkView) -> Option<(usize, &'a LinkView)> {
    let index = link.peer.filter(|_| link.kind == "veth")?;
    let there = match link.peer_namespace {
        None => at,
        Some(number) => *views.get(at)?.known.get(&number)?,
    };
    views.get(there)?.links.iter().find(|other| other.index == index).map(|other| (there, other))
}

/// Opens a place.
pub(super) fn open(place: &Place) -> Result<OwnedFd, NetworkError> {
    let failed = |source| NetworkError::Call { operation: "open a network namespace", source };
    match &place.path {
        None => netns::current().map_err(failed),
        Some(path) => File::open(path).map(OwnedFd::from).map_err(|e| {
            let errno = Errno::from_raw_os_error(e.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
            failed(SysError::new("open", format!("{path:?}"), errno))
        }),
    }
}

/// Without privilege one's own namespace cannot be entered again, and need not be.
pub(super) fn inside<T: Send>(place: &Place, fd: &OwnedFd, work: impl FnOnce() -> T + Send) -> Result<T, SysError> {
    match place.path {
        None => Ok(work()),
        Some(_) => netns::enter(fd.as_fd(), work),
    }
}

fn view(place: &Place, fd: &OwnedFd) -> Result<NamespaceView, NetworkError> {
    let socket = Socket::route()?;
    let mut batch = Batch::default();
    route::dump_links(&mut batch);
    let mut links: Vec<LinkView> = socket.ask(&mut batch, hand::details)?.into_iter().map(link).collect();
    let mut batch = Batch::default();
    hand::dump_addresses(&mut batch);
    for (index, address) in socket.ask(&mut batch, hand::address)? {
        if let Some(link) = links.iter_mut().find(|link| link.index == index) {
            link.addresses.push(address);
        }
    }
    links.sort_by_key(|link| link.index);
    let routes = routes(&socket, &links)?;
    let inode = rustix::fs::fstat(fd).map(|stat| stat.st_ino).unwrap_or_default();
    Ok(NamespaceView {
        place: place.clone(),
        inode,
        links,
        routes,
        nat: privileged(nat())?,
        ports: privileged(ports())?,
        forwards: sysctl::read("net.ipv4.ip_forward")?.as_deref() == Some("1"),
        known: BTreeMap::new(),
    })
}

fn link(found: hand::Details) -> LinkView {
    let hand::Details { link, mac, master, peer, peer_namespace, state } = found;
    LinkView {
        index: link.index,
        name: link.name,
        kind: link.kind,
        up: link.up,
        state: hand::state(state),
        mtu: link.mtu,
        mac,
        alias: link.alias,
        master,
        peer,
        peer_namespace,
        addresses: Vec::new(),
    }
}

fn routes(socket: &Socket, links: &[LinkView]) -> Result<Vec<RouteView>, NetworkError> {
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        let mut batch = Batch::default();
        hand::dump_routes(&mut batch, ipv6);
        match socket.ask(&mut batch, hand::main_route) {
            Ok(routes) => found.extend(routes),
            // A kernel without IPv6.
            Err(NetworkError::Request { .. }) if ipv6 => {}
            Err(e) => return Err(e),
        }
    }
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let shown = |route: hand::MainRoute| RouteView {
        to: route.to.map_or_else(|| "default".to_owned(), |to| to.to_string()),
        via: route.via.map(|via| via.to_string()),
        link: route.out.and_then(name),
        metric: route.metric,
    };
    Ok(found.into_iter().map(shown).collect())
}

fn nat() -> Result<Vec<NatRule>, NetworkError> {
    let mut batch = Batch::default();
    rules::dump_rules(&mut batch);
    Socket::netfilter()?.ask(&mut batch, rules::nat_rule)
}

fn ports() -> Result<Vec<PortView>, NetworkError> {
    let socket = Socket::netfilter()?;
    let mut found = Vec::new();
    for set in [PUBLISHED_ANY, PUBLISHED] {
        let mut batch = Batch::default();
        nft::dump_elements(&mut batch, set);
        let elements = socket.ask(&mut batch, |kind, payload| Some(nft::elements(kind, payload)))?;
        found.extend(elements.into_iter().flatten().filter_map(|element| port(set, &element)));
    }
    found.sort();
    Ok(found)
}

/// `[address] protocol port` → `address port`, each part padded to four bytes; see `element.rs`.
fn port(set: &str, element: &nft::RawElement) -> Option<PortView> {
    let (host_ip, key) = match set {
        PUBLISHED => (Ipv4Addr::from(*element.key.first_chunk::<4>()?), element.key.get(4..)?),
        _ => (Ipv4Addr::UNSPECIFIED, element.key.as_slice()),
    };
    let number = |bytes: &[u8]| bytes.first_chunk::<2>().map(|b| u16::from_be_bytes(*b));
    Some(PortView {
        protocol: if key.first()? == &17 { "udp" } else { "tcp" }.to_owned(),
        host_ip,
        host_port: number(key.get(4..)?)?,
        to: Ipv4Addr::from(*element.data.first_chunk::<4>()?),
        port: number(element.data.get(4..)?)?,
        container: element.comment.clone(),
    })
}

/// Without privilege, or without nf_tables in the kernel, nothing of it can be known.
fn privileged<T: Default>(result: Result<T, NetworkError>) -> Result<T, NetworkError> {
    match result {
        Err(NetworkError::Request { source, .. } | NetworkError::Call { source, .. })
            if matches!(
                source.errno,
                Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::NOENT
            ) =>
        {
            Ok(T::default())
        }
        other => other,
    }
}

/// By which numbers this namespace knows the others; only the kernel gives them, to links that cross.
fn numbers(all: &[&OwnedFd], own: usize) -> Result<BTreeMap<i32, usize>, NetworkError> {
    let socket = Socket::route()?;
    let mut known = BTreeMap::new();
    for (at, fd) in all.iter().enumerate().filter(|(at, _)| *at != own) {
        let mut batch = Batch::default();
        hand::get_namespace_number(&mut batch, fd.as_fd());
        let answer = socket.ask(&mut batch, hand::namespace_number)?;
        known.extend(answer.first().map(|number| (*number, at)));
    }
    Ok(known)
}

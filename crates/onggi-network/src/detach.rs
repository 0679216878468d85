//! Taking back what containers own on the network. Idempotent: what is gone already is success, and a failure
//! does not keep the rest from being cleaned.
//!
//! The veth pair disappears with the container's namespace, without anybody waiting. Where others stay in there it is
//! deleted: they would answer at an address that is somebody else's by then.

use std::{collections::BTreeSet, net::Ipv4Addr, num::NonZeroU16, path::Path};

use onggi_spec::{ContainerId, port::Protocol};
use onggi_state::files::Lease;
use onggi_sys::{Errno, trace};
use serde::{Deserialize, Serialize};

use crate::{
    element::{Element, published_key, published_set},
    error::NetworkError,
    flows,
    plan::published_elements,
    record,
    socket::Socket,
    table::{PUBLISHED, PUBLISHED_ANY},
    types::{NetworkRecord, PublishedPort},
    wire::{Batch, nft, route},
};

/// Questions per send; see `facts`.
const QUESTIONS: usize = 64;
/// Deletions that race with another clean-up are looked at again, this many times.
const TRIES: u32 = 8;
/// How our veths' names begin.
const VETH_PREFIX: &str = "og";

/// Gives back everything in `record`: published ports, the record file, the address. With `shared`, where other containers
/// may be in the namespace, its link goes too.
///
/// # Errors
/// Everything that failed; the rest has been done.
pub fn detach(runroot: &Path, record: &NetworkRecord, shared: bool) -> Result<(), Vec<NetworkError>> {
    trace::point("network", || format!("give back address {} and {} ports", record.ip, record.ports.len()));
    let steps = [
        // First the file, so that nobody restores the ports; last the address, so that nobody gets it early.
        record::remove(runroot, &record.id),
        remove_published(record),
        if shared { delete_link(&record.veth) } else { Ok(()) },
        flows::forget_container(record),
        release(runroot, record.ip, &record.id),
    ];
    all(steps)
}

/// Gives back everything of a container whose record is lost: found by the lease files, the elements' comments
/// and the devices' aliases. Slower than `detach`; returns what was removed, in words.
///
/// # Errors
/// Everything that failed; the rest has been done.
pub fn detach_unrecorded(runroot: &Path, id: &ContainerId) -> Result<Vec<String>, Vec<NetworkError>> {
    sweep(runroot, |owner| owner == id)
}

/// Cleans up after containers that are not in `live`; returns what was removed, in words.
///
/// # Errors
/// Everything that failed; the rest has been done.
pub fn reconcile(runroot: &Path, live: &BTreeSet<ContainerId>) -> Result<Vec<String>, Vec<NetworkError>> {
    sweep(runroot, |owner| !live.contains(owner))
}

fn sweep(runroot: &Path, dead: impl Fn(&ContainerId) -> bool) -> Result<Vec<String>, Vec<NetworkError>> {
    let used = used(runroot).map_err(|e| vec![e])?;
    let mut done = Vec::new();
    let mut steps = Vec::new();
    for id in used.records.iter().filter(|id| dead(id)) {
        steps.push(record::remove(runroot, id));
    }
    let gone: Vec<_> = used.published.into_iter().filter(|e| e.owner().is_some_and(&dead)).collect();
    done.extend(gone.iter().map(|e| format!("published port {}", e.text())));
    steps.push(Socket::netfilter().and_then(|socket| delete(&socket, &gone)));
    for (ip, id) in used.leases.iter().filter(|(_, id)| dead(id)) {
        steps.push(release(runroot, *ip, id));
        done.push(format!("address {ip}"));
    }
    for (name, _) in used.links.iter().filter(|(_, id)| dead(id)) {
        steps.push(delete_link(name));
        done.push(format!("device {name}"));
    }
    all(steps).map(|()| done)
}

/// What containers hold on the network of the calling thread: the basis of leak checks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Used {
    /// Leased addresses and their owners.
    pub leases: Vec<(Ipv4Addr, ContainerId)>,
    /// Elements of the published maps.
    pub published: Vec<Element>,
    /// Veths on the host's side and the containers in their alias.
    pub links: Vec<(String, ContainerId)>,
    /// Containers with a record of published ports.
    pub records: Vec<ContainerId>,
}

impl Used {
    /// True when no container holds anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Lists what containers hold.
///
/// # Errors
/// When files or the kernel's tables cannot be read.
pub fn used(runroot: &Path) -> Result<Used, NetworkError> {
    let leases = record::leases(runroot)?.list().map_err(NetworkError::File)?;
    let owned = |Lease { ip, owner }: Lease| Some((ip, owner.parse().ok()?));
    Ok(Used {
        leases: leases.into_iter().filter_map(owned).collect(),
        published: published(&Socket::netfilter()?)?,
        links: links(&Socket::route()?)?,
        records: record::all(runroot).into_iter().map(|r| r.id).collect(),
    })
}

fn published(socket: &Socket) -> Result<Vec<Element>, NetworkError> {
    let mut found = Vec::new();
    for set in [PUBLISHED, PUBLISHED_ANY] {
        let mut batch = Batch::default();
        nft::dump_elements(&mut batch, set);
        let elements = socket.ask(&mut batch, |kind, payload| Some(nft::elements(kind, payload)))?;
        found.extend(elements.iter().flatten().filter_map(parse));
    }
    Ok(found)
}

/// The inverse of `Element::{key, data}`; `None` for elements that somebody else put there.
fn parse(raw: &nft::RawElement) -> Option<Element> {
    let (host_ip, rest) = match raw.key.len() {
        12 => (raw.key.first_chunk::<4>().map(|b| Ipv4Addr::from(*b))?, &raw.key[4..]),
        8 => (Ipv4Addr::UNSPECIFIED, &raw.key[..]),
        _ => return None,
    };
    let protocol = match rest[0] {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    let number = |bytes: &[u8]| NonZeroU16::new(u16::from_be_bytes(*bytes.first_chunk()?));
    let to = raw.data.first_chunk::<4>().map(|b| Ipv4Addr::from(*b))?;
    let port =
        PublishedPort { host_ip, host_port: number(&rest[4..])?, container_port: number(&raw.data[4..])?, protocol };
    Some(Element::Published { port, to, owner: raw.comment.parse().ok()? })
}

fn links(socket: &Socket) -> Result<Vec<(String, ContainerId)>, NetworkError> {
    let mut batch = Batch::default();
    route::dump_links(&mut batch);
    let ours = |link: route::Link| {
        let named = link.kind == "veth" && link.name.starts_with(VETH_PREFIX);
        named.then(|| Some((link.name, link.alias.parse().ok()?))).flatten()
    };
    socket.ask(&mut batch, |kind, payload| ours(route::link(kind, payload)?))
}

/// Who holds each of the record's map keys right now.
pub(crate) fn holders(
    socket: &Socket,
    record: &NetworkRecord,
) -> Result<Vec<(PublishedPort, ContainerId)>, NetworkError> {
    let mut found = Vec::new();
    for chunk in record.ports.chunks(QUESTIONS) {
        let mut batch = Batch::default();
        for port in chunk {
            nft::get_element(&mut batch, published_set(port.host_ip), &published_key(port));
        }
        found.extend(socket.ask_each(&mut batch, |seq, kind, payload| {
            let port = chunk.get((seq as usize).checked_sub(1)?)?;
            let owner = nft::elements(kind, payload).into_iter().next()?.comment.parse().ok()?;
            Some((*port, owner))
        })?);
    }
    Ok(found)
}

/// Only what is still the container's own is deleted: after a crash its port may be somebody else's by now.
fn remove_published(record: &NetworkRecord) -> Result<(), NetworkError> {
    if record.ports.is_empty() {
        return Ok(());
    }
    let socket = Socket::netfilter()?;
    let mut tries = 0;
    loop {
        let held = holders(&socket, record)?;
        let own =
            |e: &Element| matches!(e, Element::Published { port, owner, .. } if held.contains(&(*port, owner.clone())));
        let elements: Vec<_> = published_elements(record).filter(own).collect();
        tries += 1;
        match delete(&socket, &elements) {
            Err(NetworkError::Request { source, .. }) if source.errno == Errno::NOENT && tries < TRIES => {}
            result => return result,
        }
    }
}

/// Deletes elements by key, all or none.
pub(crate) fn delete(socket: &Socket, elements: &[Element]) -> Result<(), NetworkError> {
    if elements.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::default();
    nft::begin(&mut batch, None);
    nft::delete_elements(&mut batch, elements);
    nft::end(&mut batch);
    socket.change(&mut batch, |_, _| false)
}

fn release(runroot: &Path, ip: Ipv4Addr, id: &ContainerId) -> Result<(), NetworkError> {
    record::leases(runroot)?.release(ip, id.as_str()).map(|_| ()).map_err(NetworkError::File)
}

fn delete_link(name: &str) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    route::delete_link(&mut batch, name);
    Socket::route()?.change(&mut batch, |_, errno| errno == Errno::NODEV)
}

fn all(steps: impl IntoIterator<Item = Result<(), NetworkError>>) -> Result<(), Vec<NetworkError>> {
    let failures: Vec<_> = steps.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

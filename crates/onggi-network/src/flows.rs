//! Forgetting tracked UDP flows. A UDP client that keeps sending stays on the path its first packet found: past a
//! port that is published since, or to a container that is gone. Only such flows are forgotten; those that pass
//! through this host to somebody else's port stay.

use std::net::Ipv4Addr;

use onggi_spec::port::Protocol;
use onggi_sys::Errno;

use crate::{
    error::NetworkError,
    socket::Socket,
    types::{NetworkRecord, PublishedPort},
    wire::{Batch, conntrack, conntrack::Flow, route},
};

/// Flows deleted per send.
const PER_SEND: usize = 64;

/// Flows to the container's published ports that still end on the host itself.
pub(crate) fn forget_before_publishing(ports: &[PublishedPort]) -> Result<(), NetworkError> {
    if udp(ports).next().is_none() {
        return Ok(());
    }
    let own = own_addresses()?;
    forget(ports, |flow| flow.destination == flow.answerer && own.contains(&flow.destination))
}

/// Flows that are translated to a container that is going away.
pub(crate) fn forget_container(record: &NetworkRecord) -> Result<(), NetworkError> {
    forget(&record.ports, |flow| flow.answerer == record.ip && flow.destination != record.ip)
}

fn udp(ports: &[PublishedPort]) -> impl Iterator<Item = &PublishedPort> {
    ports.iter().filter(|p| p.protocol == Protocol::Udp)
}

fn forget(ports: &[PublishedPort], stale: impl Fn(&Flow) -> bool) -> Result<(), NetworkError> {
    let mut ports = udp(ports).peekable();
    if ports.peek().is_none() {
        return Ok(());
    }
    let socket = Socket::netfilter()?;
    for port in ports {
        let number = port.host_port.get();
        let here = |flow: &Flow| port.host_ip.is_unspecified() || flow.destination == port.host_ip;
        let mut batch = Batch::default();
        conntrack::dump_udp(&mut batch, number);
        let flows = socket.ask(&mut batch, conntrack::flow)?;
        let stale: Vec<_> = flows.into_iter().filter(|f| f.port == number && here(f) && stale(f)).collect();
        for chunk in stale.chunks(PER_SEND) {
            let mut batch = Batch::default();
            chunk.iter().for_each(|flow| conntrack::delete(&mut batch, flow));
            // One that has expired meanwhile is forgotten already.
            socket.change(&mut batch, |_, errno| errno == Errno::NOENT)?;
        }
    }
    Ok(())
}

fn own_addresses() -> Result<Vec<Ipv4Addr>, NetworkError> {
    let mut batch = Batch::default();
    route::dump_addresses(&mut batch);
    let addresses = Socket::route()?.ask(&mut batch, route::address)?;
    Ok(addresses.into_iter().map(|(_, ip, _)| ip).collect())
}

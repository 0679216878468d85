//! Elements of the table's sets and maps: the only thing that a container adds to the firewall.

use std::net::Ipv4Addr;

use onggi_spec::ContainerId;
use serde::{Deserialize, Serialize};

use crate::{
    table::{BRIDGES, PEERS, PUBLISHED, PUBLISHED_ANY, SUBNETS},
    types::{Ipv4Subnet, PublishedPort, protocol_number},
};

/// Longest interface name including NUL (IFNAMSIZ).
const IFNAMSIZ: usize = 16;

/// One element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "set", rename_all = "snake_case")]
pub enum Element {
    /// A published port leads to a container.
    Published {
        /// What is published.
        port: PublishedPort,
        /// The container's address.
        to: Ipv4Addr,
        /// The container; kept as the element's comment.
        owner: ContainerId,
    },
    /// A network is masqueraded.
    Subnet {
        /// The network.
        subnet: Ipv4Subnet,
    },
    /// A device is one of our bridges.
    Bridge {
        /// The device.
        name: String,
    },
    /// Containers on a bridge may talk to each other.
    Peers {
        /// The device.
        name: String,
    },
}

impl Element {
    /// The set or map that it belongs to.
    pub(crate) fn set(&self) -> &'static str {
        match self {
            Self::Published { port, .. } => published_set(port.host_ip),
            Self::Subnet { .. } => SUBNETS,
            Self::Bridge { .. } => BRIDGES,
            Self::Peers { .. } => PEERS,
        }
    }

    /// The key as the kernel stores it: each part padded to four bytes.
    pub(crate) fn key(&self) -> Vec<u8> {
        match self {
            Self::Published { port, .. } => published_key(port),
            Self::Subnet { subnet } => subnet.address().octets().to_vec(),
            Self::Bridge { name } => ifname(name).to_vec(),
            Self::Peers { name } => [ifname(name), ifname(name)].concat(),
        }
    }

    /// End of an interval (exclusive); `None` for other elements.
    pub(crate) fn key_end(&self) -> Option<Vec<u8>> {
        let Self::Subnet { subnet } = self else { return None };
        subnet.broadcast().to_bits().checked_add(1).map(|end| end.to_be_bytes().to_vec())
    }

    /// A map's value.
    pub(crate) fn data(&self) -> Option<Vec<u8>> {
        let Self::Published { port, to, .. } = self else { return None };
        let mut out = to.octets().to_vec();
        out.extend(port.container_port.get().to_be_bytes());
        out.extend([0; 2]);
        Some(out)
    }

    /// Whose element it is.
    pub(crate) fn owner(&self) -> Option<&ContainerId> {
        let Self::Published { owner, .. } = self else { return None };
        Some(owner)
    }

    /// nft(8) text between the braces of `add element`.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Published { port, to, owner } => {
                let address = match port.host_ip {
                    Ipv4Addr::UNSPECIFIED => String::new(),
                    ip => format!("{ip} . "),
                };
                let (proto, host) = (port.protocol, port.host_port);
                format!("{address}{proto} . {host} comment \"{owner}\" : {to} . {}", port.container_port)
            }
            Self::Subnet { subnet } => subnet.to_string(),
            Self::Bridge { name } => format!("\"{name}\""),
            Self::Peers { name } => format!("\"{name}\" . \"{name}\""),
        }
    }
}

/// The map for ports on `host_ip`.
pub(crate) fn published_set(host_ip: Ipv4Addr) -> &'static str {
    if host_ip.is_unspecified() { PUBLISHED_ANY } else { PUBLISHED }
}

/// The map's key for a published port.
pub(crate) fn published_key(port: &PublishedPort) -> Vec<u8> {
    let mut out = Vec::with_capacity(12);
    if !port.host_ip.is_unspecified() {
        out.extend(port.host_ip.octets());
    }
    out.extend([protocol_number(port.protocol), 0, 0, 0]);
    out.extend(port.host_port.get().to_be_bytes());
    out.extend([0; 2]);
    out
}

fn ifname(name: &str) -> [u8; IFNAMSIZ] {
    let mut out = [0; IFNAMSIZ];
    let length = name.len().min(IFNAMSIZ - 1);
    out[..length].copy_from_slice(&name.as_bytes()[..length]);
    out
}

//! What the network part is asked, what it remembers, and its small value types.

use std::{fmt, net::Ipv4Addr, num::NonZeroU16};

use onggi_spec::{
    ContainerId, ContainerName,
    port::{PortMapping, Protocol},
};
use serde::{Deserialize, Serialize};

/// The bridge of the default network.
pub const BRIDGE: &str = "onggi0";
/// The default network's name; its leases are in `<runroot>/leases/bridge/`.
pub const NETWORK: &str = "bridge";
/// The container's interface.
pub const CONTAINER_LINK: &str = "eth0";

/// One container's wish to be on the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeRequest {
    /// The container.
    pub id: ContainerId,
    /// Its name, for messages.
    pub name: Option<ContainerName>,
    /// Its host name, for messages.
    pub hostname: Option<String>,
    /// Ports to publish; `host_port: None` asks for a free one.
    pub ports: Vec<PortMapping>,
    /// Settings of its namespace beyond our own, set before it has a device.
    pub sysctls: Vec<(String, String)>,
}

/// What one container owns on the network. The engine stores it *before* `apply`; `detach` needs nothing
/// else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// The container.
    pub id: ContainerId,
    /// The network (`bridge`).
    pub network: String,
    /// The bridge device.
    pub bridge: String,
    /// The container's address.
    pub ip: Ipv4Addr,
    /// Its subnet.
    pub subnet: Ipv4Subnet,
    /// The bridge's own address, the container's default route.
    pub gateway: Ipv4Addr,
    /// Hardware address of `eth0`.
    pub mac: Mac,
    /// The host's end of the veth pair.
    pub veth: String,
    /// Published ports, resolved.
    pub ports: Vec<PublishedPort>,
}

impl NetworkRecord {
    /// The published ports in the shared vocabulary, each with its host port.
    pub fn port_mappings(&self) -> Vec<PortMapping> {
        self.ports.iter().map(|p| PortMapping::from(*p)).collect()
    }
}

/// A published port whose host port is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Host address; 0.0.0.0 for every address.
    pub host_ip: Ipv4Addr,
    /// Host port.
    pub host_port: NonZeroU16,
    /// Container port.
    pub container_port: NonZeroU16,
    /// Protocol.
    pub protocol: Protocol,
}

impl From<PublishedPort> for PortMapping {
    fn from(p: PublishedPort) -> Self {
        Self {
            host_ip: p.host_ip,
            host_port: Some(p.host_port),
            container_port: p.container_port,
            protocol: p.protocol,
        }
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host_ip, host_port, container_port, protocol } = self;
        write!(f, "{host_ip}:{host_port}->{container_port}/{protocol}")
    }
}

/// IPPROTO_* of a protocol.
pub(crate) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address that belongs to an IPv4 address: locally administered, `02:6f:` and the four octets.
    /// Neighbour caches stay right when an address is leased again.
    pub fn of(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x6f, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let hex = |p: &&str| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(hex).unwrap_or_default();
            *octet = u8::from_str_radix(part, 16).map_err(|_| format!("not a hardware address: {text:?}"))?;
        }
        if parts.next().is_some() {
            return Err(format!("not a hardware address: {text:?}"));
        }
        Ok(Self(octets))
    }
}

/// An IPv4 network: an address without host bits and a prefix length of 0 to 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

impl Ipv4Subnet {
    /// The network that `address` is in; `None` for a prefix beyond 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = mask(prefix)?;
        Some(Self { address: Ipv4Addr::from_bits(address.to_bits() & mask), prefix })
    }

    /// The lowest address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Prefix length.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The highest address.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    /// The first usable address: the bridge's own.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | 1)
    }

    /// True when `ip` is inside.
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        ip.to_bits() & self.mask() == self.address.to_bits()
    }

    /// True when the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    fn mask(self) -> u32 {
        mask(self.prefix).unwrap_or(u32::MAX)
    }
}

fn mask(prefix: u8) -> Option<u32> {
    let host_bits = 32u8.checked_sub(prefix)?;
    Some(u32::MAX.checked_shl(u32::from(host_bits)).unwrap_or(0))
}

impl fmt::Display for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Ipv4Subnet> for String {
    fn from(subnet: Ipv4Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Ipv4Subnet {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("not an IPv4 network without host bits: {text:?}");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let subnet = prefix.parse().ok().and_then(|p| Self::new(address, p)).ok_or_else(wrong)?;
        if subnet.address == address { Ok(subnet) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Subnet {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn subnets_know_their_bounds() {
        let subnet = net("10.89.0.0/20");
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(10, 89, 15, 255));
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 89, 0, 1));
        assert!(subnet.contains(Ipv4Addr::new(10, 89, 15, 1)));
        assert!(!subnet.contains(Ipv4Addr::new(10, 89, 16, 1)));
        assert!(net("0.0.0.0/0").contains(Ipv4Addr::BROADCAST));
        assert!(net("10.0.0.0/8").overlaps(subnet) && subnet.overlaps(net("10.0.0.0/8")));
        assert!(!subnet.overlaps(net("10.89.16.0/20")));
    }

    #[test]
    fn texts_that_are_no_network_are_refused() {
        for text in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/-1", "::/0", "10.0.0.0/"] {
            assert!(Ipv4Subnet::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn hardware_addresses_survive_text() {
        let mac = Mac::of(Ipv4Addr::new(10, 89, 0, 7));
        assert_eq!(mac.to_string(), "02:6f:0a:59:00:07");
        assert_eq!(Mac::try_from(mac.to_string()), Ok(mac));
        for text in ["", "02:6f:0a:59:00", "02:6f:0a:59:00:07:08", "02:6f:0a:59:00:+7", "2:6f:0a:59:00:07"] {
            assert!(Mac::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}

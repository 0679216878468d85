//! `-p`: `[ip:][hostPort:]containerPort[/tcp|udp]` with ranges, as `docker run`.

use std::{net::Ipv4Addr, num::NonZeroU16};

use serde::{Deserialize, Serialize};

/// One published port. A range on the command line becomes several of these (`parse_publish`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// Host address; 0.0.0.0 for every address.
    pub host_ip: Ipv4Addr,
    /// Host port; `None` asks for a free one of the host's ephemeral range.
    pub host_port: Option<NonZeroU16>,
    /// Container port.
    pub container_port: NonZeroU16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

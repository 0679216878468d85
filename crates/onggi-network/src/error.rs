//! What can go wrong, as operations with their objects; each has a hint where there is something to do.

use std::{io, net::Ipv4Addr};

use onggi_spec::ContainerId;
use onggi_state::files::FileError;
use onggi_sys::{Errno, SysError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::{Ipv4Subnet, PublishedPort};

/// Why a request has no plan on this host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The host port cannot be had.
    #[error("cannot publish {protocol} port {port} on {ip}: {obstacle}")]
    Port {
        /// Host address.
        ip: Ipv4Addr,
        /// Host port, 0 for "any free one".
        port: u16,
        /// `tcp` or `udp`.
        protocol: String,
        /// What is in the way.
        obstacle: Obstacle,
    },
    /// The request publishes the same host port twice.
    #[error("{protocol} port {port} is published twice")]
    PortTwice {
        /// Host port.
        port: u16,
        /// `tcp` or `udp`.
        protocol: String,
    },
    /// Every address of the network is leased.
    #[error("no free address in {subnet}")]
    NoAddress {
        /// The network.
        subnet: Ipv4Subnet,
    },
    /// Every candidate network overlaps a route of this host.
    #[error("no free IPv4 network for the bridge: every candidate overlaps a route of this host")]
    NoSubnet,
    /// A device has the bridge's name but is none.
    #[error("{name} exists and is a {kind} device, not a bridge")]
    NotABridge {
        /// The device.
        name: String,
        /// What it is.
        kind: String,
    },
    /// Every name that this container's veth could have is taken.
    #[error("no free device name for container {id}")]
    NoVethName {
        /// The container.
        id: ContainerId,
    },
}

/// What keeps a host port from being published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// Another container has it.
    #[error("it is already used by container {0}")]
    Container(ContainerId),
    /// Something else has it.
    #[error("it is already used by another program on this host")]
    OtherProgram,
    /// The address is not this host's.
    #[error("the address does not belong to this host")]
    ForeignAddress,
    /// Port below `net.ipv4.ip_unprivileged_port_start`, without the capability.
    #[error("permission denied")]
    NotAllowed,
    /// No ephemeral port is left.
    #[error("no free port is left")]
    Exhausted,
    /// The probe failed otherwise.
    #[error("bind: {0}")]
    Bind(String),
}

impl PlanError {
    /// What to do about it; empty when the message says it all.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::Port { obstacle, port, .. } => return obstacle.hint(*port),
            Self::PortTwice { .. } => "remove one of the two -p options",
            Self::NoAddress { .. } => "remove containers that are no longer needed: `onggi ps -a`",
            Self::NoSubnet => "free one of 10.89.0.0/20 … 10.99.0.0/20, 172.20.0.0/20 … or 192.168.160.0/22 …",
            Self::NotABridge { .. } => "rename or remove that device: `ip link show`",
            Self::NoVethName { .. } => "remove stale devices: `ip link show type veth`",
        };
        hint.to_owned()
    }
}

impl Obstacle {
    fn hint(&self, port: u16) -> String {
        match self {
            Self::Container(_) => "choose another host port, or stop that container".to_owned(),
            Self::OtherProgram => format!("choose another host port, or see who has it: `ss -lntup 'sport = {port}'`"),
            Self::ForeignAddress => {
                "publish on one of the addresses that `ip addr` lists, or on all: -p HOST:CONTAINER".to_owned()
            }
            Self::NotAllowed => "choose a host port of 1024 or higher, or run as root".to_owned(),
            Self::Exhausted => "name a host port: -p HOST:CONTAINER".to_owned(),
            Self::Bind(_) => String::new(),
        }
    }
}

/// A failed operation of the network part.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// There is no plan.
    #[error("cannot plan the network")]
    Plan(#[source] PlanError),
    /// What is asked for by hand cannot be.
    #[error("{message}")]
    Refused {
        /// What and why.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A netlink request was refused; `operation` names it: "create veth og1234".
    #[error("{operation}{}", words(.message))]
    Request {
        /// The request.
        operation: String,
        /// The kernel's own words; may be empty.
        message: String,
        /// Why.
        #[source]
        source: SysError,
    },
    /// A socket or namespace call failed.
    #[error("{operation}")]
    Call {
        /// The operation.
        operation: &'static str,
        /// Why.
        #[source]
        source: SysError,
    },
    /// A message would overflow its length field; nothing was sent.
    #[error("{operation}: a netlink message would exceed its length field; nothing was sent")]
    TooLong {
        /// The operation.
        operation: String,
    },
    /// A kernel setting could not be read or written.
    #[error("{operation} {path}")]
    Setting {
        /// `read` or `write`.
        operation: &'static str,
        /// The file below /proc/sys.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A lease or record file failed.
    #[error("keep the network record")]
    File(#[source] FileError),
    /// A record is not what we write.
    #[error("read the network record {path}")]
    Record {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Somebody else took the planned address.
    #[error("address {ip} was taken by another container")]
    LeaseTaken {
        /// The address.
        ip: Ipv4Addr,
    },
    /// Facts changed too often while a plan was applied.
    #[error("the firewall kept changing under us")]
    Busy,
}

fn words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

impl NetworkError {
    /// The refusal of a published port.
    pub(crate) fn port(port: &PublishedPort, obstacle: Obstacle) -> Self {
        Self::Plan(PlanError::Port {
            ip: port.host_ip,
            port: port.host_port.get(),
            protocol: port.protocol.to_string(),
            obstacle,
        })
    }

    /// What to do about it; empty when the message says it all.
    pub fn hint(&self) -> String {
        match self {
            Self::Plan(e) => e.hint(),
            Self::Refused { hint, .. } => hint.clone(),
            Self::Request { operation, source, .. } => request_hint(operation, source.errno).to_owned(),
            Self::Call { source, .. } => errno_hint(source.errno).to_owned(),
            Self::Setting { .. } => "is /proc/sys read-only here?".to_owned(),
            Self::LeaseTaken { .. } | Self::Busy => "try again".to_owned(),
            Self::TooLong { .. } => "publish fewer ports".to_owned(),
            Self::File(_) | Self::Record { .. } => String::new(),
        }
    }

    /// The same request would succeed if facts were gathered again.
    pub fn is_stale(&self) -> bool {
        match self {
            Self::LeaseTaken { .. } | Self::Busy => true,
            // The ruleset's generation moved on (ERESTART), or the table or an element vanished
            // (ENOENT).
            Self::Request { source, operation, .. } => {
                let about_elements = operation.contains(" elements to ") || operation.contains(" elements from ");
                source.errno == RESTART || (source.errno == Errno::NOENT && about_elements)
            }
            _ => false,
        }
    }
}

/// ERESTART, which rustix does not name.
pub(crate) const RESTART: Errno = Errno::from_raw_os_error(85);

const NO_FIREWALL: &str = "the kernel lacks nf_tables or one of nft_chain_nat, nft_fib_ipv4, nft_masq, nft_ct: \
                           load these modules, or use --network host or none";

/// A kernel without nf_tables says EINVAL or EOPNOTSUPP, one without an expression says ENOENT.
fn request_hint(operation: &str, errno: Errno) -> &'static str {
    let firewall = ["get generation", "list ", "add rule", "add chain", "add set", "add table", "begin"];
    let about_firewall = firewall.iter().any(|start| operation.starts_with(start));
    match errno {
        Errno::INVAL | Errno::OPNOTSUPP | Errno::NOENT if about_firewall => NO_FIREWALL,
        // br_add_if: port numbers have ten bits.
        FULL if operation.starts_with("create veth") => "a bridge has at most 1023 ports: stop some containers",
        _ => errno_hint(errno),
    }
}

/// EXFULL.
const FULL: Errno = Errno::from_raw_os_error(54);

fn errno_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM | Errno::ACCESS => "a bridge network needs root; try --network none or --network host",
        Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => {
            "the kernel lacks bridge or veth devices: load these modules, or use --network host or none"
        }
        Errno::NOSPC => "user.max_net_namespaces or a device limit is reached",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use onggi_sys::SysError;

    use super::*;

    #[test]
    fn a_kernel_that_lacks_something_is_explained() {
        let error = |operation: &str, errno| NetworkError::Request {
            operation: operation.to_owned(),
            message: String::new(),
            source: SysError::new("netlink", operation, errno),
        };
        assert!(error("get generation", Errno::INVAL).hint().contains("nf_tables"));
        assert!(error("add rule masquerading: masquerade", Errno::NOENT).hint().contains("nft_masq"));
        assert!(error("create bridge onggi0", Errno::OPNOTSUPP).hint().contains("bridge"));
        assert!(error("create veth og0", FULL).hint().contains("1023"));
        assert!(error("create veth og0", Errno::PERM).hint().contains("root"));
        assert_eq!(error("create veth og0", Errno::EXIST).hint(), "");
    }
}

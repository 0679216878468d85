//! Networks by hand: what links, addresses, routes and translations there are in several namespaces at once, veth pairs
//! between any two of them, and a bridge with or without NAT.
//!
//! Nothing here belongs to a container: what is made lasts until it is removed by hand, or its namespace goes. Facts →
//! plan → apply, as for containers; every plan can be done again, and does nothing then.
//!
//! ```text
//! table ip onggi_<bridge>    chain postrouting: ip saddr <network> oifname != "<bridge>" masquerade
//! alias of a bridge's veth   "onggi net bridge <bridge>": what --remove takes away with it
//! ```

mod address;
mod apply;
mod fit;
mod look;
mod plan;
mod show;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::wire::rules::NatRule;
pub use address::Cidr;
pub use look::{LinkView, NamespaceView, PortView, RouteView, look, peer};
pub use plan::{
    Attach, BridgeWish, ConnectRequest, plan_bridge_by_hand, plan_connect, plan_disconnect, plan_remove_bridge,
};

/// A network namespace as people name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// What it is called.
    pub name: String,
    /// A file that leads to it; none for the caller's own.
    pub path: Option<PathBuf>,
}

impl Place {
    /// The caller's own.
    pub fn host() -> Self {
        Self { name: "host".to_owned(), path: None }
    }
}

/// One end of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Where it is.
    pub place: Place,
    /// Its name there.
    pub link: String,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum HandOp {
    /// A new network namespace with a name for ip-netns(8).
    CreateNamespace {
        /// The file that keeps it.
        path: PathBuf,
    },
    /// A veth pair, each end made where it belongs.
    CreateVeth {
        /// One end.
        a: End,
        /// The other.
        b: End,
        /// Alias of the first end.
        alias: Option<String>,
    },
    /// A bridge.
    CreateBridge {
        /// Device of the caller's namespace.
        link: String,
    },
    /// A device becomes a port of a bridge.
    SetMaster {
        /// The device.
        link: String,
        /// The bridge.
        bridge: String,
    },
    /// An address.
    AddAddress {
        /// Where.
        end: End,
        /// With the length of its network's prefix.
        address: Cidr,
    },
    /// A device is brought up.
    LinkUp {
        /// Which.
        end: End,
    },
    /// The default route.
    AddDefaultRoute {
        /// Where.
        place: Place,
        /// The router.
        via: std::net::IpAddr,
    },
    /// A kernel setting of the caller's namespace.
    Sysctl {
        /// `net.ipv4.ip_forward`.
        key: String,
        /// New value.
        value: String,
    },
    /// Sources of a network are translated when they leave by another device than the bridge.
    InstallNat {
        /// The table.
        table: String,
        /// The network.
        subnet: crate::Ipv4Subnet,
        /// The bridge.
        bridge: String,
    },
    /// The table goes.
    RemoveNat {
        /// The table.
        table: String,
    },
    /// A device goes, a veth with its other end.
    DeleteLink {
        /// Which.
        end: End,
    },
}

/// Operations in order, and what the user should know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandPlan {
    /// The operations; none when it is so already.
    pub ops: Vec<HandOp>,
    /// Settings that change, firewalls that may interfere.
    pub warnings: Vec<String>,
}

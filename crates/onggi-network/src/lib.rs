//! The network of a container: facts → plan → apply, for the bridge `onggi0` and for `none`.
//!
//! [`facts`] reads the kernel's and our own state, [`plan_bridge`] and [`plan_none`] are pure, [`apply`] is one
//! `match`, [`detach`] is the idempotent clean-up that failure, removal and crash recovery share.
//! Everything is netlink that this crate encodes; nothing external is executed. All calls act in the network
//! namespace of the calling thread.
//!
//! Packets: nat(7)-like rules of the table `ip onggi` (see `table.rs`), constant in number; a container adds
//! elements only. IPv4; IPv6 is off on the container's side, so a router advertisement finds nobody.
//!
//! ```text
//! <runroot>/leases/bridge/<ip>     container id; link(2) makes it exclusive; detach and reconcile remove it
//! <runroot>/published/<id>.json    NetworkRecord of a container with ports, written before its elements:
//!                                  from these a flushed table is rebuilt by the next attach
//! ```

mod apply;
mod detach;
mod element;
mod error;
mod facts;
mod firewall;
mod flows;
pub mod hand;
mod plan;
mod ports;
mod record;
mod render;
mod socket;
mod sysctl;
mod table;
mod types;
mod wire;

pub use apply::{Applied, PendingNetns, apply, apply_with, prepare};
pub use detach::{Used, detach, detach_unrecorded, reconcile, used};
pub use element::Element;
pub use error::{NetworkError, Obstacle, PlanError};
pub use facts::{BridgeFacts, ForwardPolicy, NetFacts, PortFact, TableFacts, facts};
pub use firewall::{heal, heal_plan};
pub use plan::{NetOp, NetworkPlan, Side, plan_bridge, plan_none};
pub use render::NAMED_NAMESPACES;
pub use types::{BRIDGE, BridgeRequest, CONTAINER_LINK, Ipv4Subnet, Mac, NETWORK, NetworkRecord, PublishedPort};

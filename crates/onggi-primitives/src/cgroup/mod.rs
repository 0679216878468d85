//! Control groups by hand, as libcgroup's tools: request and facts → plan → apply, over version 1, hybrid and version 2.
//!
//! One vocabulary ([`KEYS`]) is translated by the code that the engine's own containers are limited with
//! (`onggi-cgroup`); raw names of control files of either version are taken too. Planners are pure: what they may know
//! of the machine is gathered beforehand ([`GroupFacts`]). Nothing here touches a group that was not named.

mod apply;
mod control;
mod enter;
mod error;
mod facts;
mod group;
mod keys;
mod members;
mod op;
mod persist;
mod pressure;
mod raw;
mod read;
mod set;
mod snapshot;
mod tree;

pub use apply::apply;
pub use control::{covering, freezer_plan, freezes, plan_kill};
pub use error::GroupError;
pub use facts::{Devices, GroupFacts, Offer, Offers, device_numbers, layout, offered};
pub use group::{Group, Place, Version, existing, places};
pub(crate) use keys::known;
pub use keys::{KEYS, Key, is_key};
pub use members::{Leftover, RemovePlanFacts, plan_join, plan_move, plan_remove, remove_facts};
pub use op::{GroupPlan, Op};
pub use persist::{Persist, persist_plan};
pub use pressure::{Pressure, Stall, machine_pressure, pressure};
pub use read::{Reading, reading, readings};
pub use set::{Translation, create_plan, merged_resources, owner_ops, plan_set};
pub use snapshot::{MAX_SNAPSHOT, Saved, Snapshot, saved};
pub use tree::{Node, oom_kills, tree};

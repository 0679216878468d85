//! What Onggi remembers: the part that must outlive a reboot in SQLite, the rest in small files.
//!
//! - [`State`] is `<root>/state.db`: images, layers, containers. Many processes use it at once; every
//!   write is one `IMMEDIATE` transaction. Whether a container *runs* is never stored: it is derived
//!   from the kernel.
//! - [`files`] holds what lives on tmpfs or guards it: locks, intents, leases, atomic writes and the
//!   identity of a process.
//! - [`memo`] spares the commonest question to the database.
//!
//! This crate never decides policy, never talks to the kernel about containers and never reads the
//! clock: times come from the caller. A [`State`] must not be carried across `fork`.

mod containers;
mod db;
mod error;
pub mod files;
mod images;
mod layers;
pub mod memo;
mod pulls;

pub use containers::ContainerRecord;
pub use db::State;
pub use error::StateError;
pub use images::{ImageRecord, RemovedImage};
pub use layers::LayerRecord;
pub use pulls::{Pulled, PulledParts};

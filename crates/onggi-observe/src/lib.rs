//! What the kernel tells about processes that run: their namespaces and their capabilities.
//!
//! Reads /proc and asks nsfs (ioctl_ns(2)); changes nothing but the calling process, which [`enter`] moves into
//! namespaces of another one. Processes come and go while they are read: one that has gone is left out, what the
//! caller may not see is left out of what is shown, and neither is an error.

mod capabilities;
mod enter;
mod error;
mod kind;
mod namespaces;
mod process;

pub use capabilities::{CapabilitySets, FileCapabilities, file_capabilities, process_capabilities};
pub use enter::{Target, enter};
pub use error::ObserveError;
pub use kind::Kind;
pub use namespaces::{Namespace, NamespaceId, Relations, namespaces, relations};
pub use process::{ProcessFacts, process, processes};

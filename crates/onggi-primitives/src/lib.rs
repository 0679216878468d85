//! The kernel's primitives, one by one: namespaces and capabilities of processes that run, and a command in others.
//!
//! Looking reads /proc and asks nsfs (ioctl_ns(2)). [`enter`] and [`apply`] change the calling process alone, and an
//! [`UnsharePlan`] says beforehand how. Never a container: those are the sandbox's. Processes come and go while they are read: one that has gone is left out, what the
//! caller may not see is left out of what is shown, and neither is an error.

mod audit;
mod cap_probe;
mod capabilities;
pub mod cgroup;
mod chroot;
mod confinement;
mod credentials;
mod enter;
mod error;
mod file_capabilities;
pub mod kernel;
mod kind;
pub mod limit;
mod namespaces;
pub mod observe;
mod overlay;
mod process;
pub mod shell;
mod tracefs;
mod unshare;

pub use audit::{Audit, AuditOp, AuditPlan, SCRIPT_HEAD, Seen, Teller, Uses, teller};
pub use capabilities::{CapabilitySets, FileCapabilities, file_capabilities, process_capabilities};
pub use chroot::{Bind, ChrootFacts, ChrootRequest, RootOp, Source, SourceKind, User};
pub use confinement::{Confinement, Threads, confinement, members};
pub use credentials::{CapsRequest, CredentialOp};
pub use enter::{EnterFacts, EnterOp, EnterPlan, EnterRequest, Entered, Place, Which, enter};
pub use error::PrimitiveError;
pub use file_capabilities::{CapabilityText, FileCapsOp, FileCapsPlan, text as capability_text};
pub use kind::Kind;
pub use namespaces::{Namespace, NamespaceId, Relations, namespaces, relations};
pub use overlay::{
    DirFacts, Mark, Marked, Overlay, OverlayFacts, OverlayOp, OverlayPlan, OverlayRequest, marks, overlays,
};
pub use process::{ProcessFacts, process, processes};
pub use tracefs::{LeftTraces, clear_left_traces, left_traces};
pub use unshare::{
    Caller, Clock, ForgetPlan, IdRange, Identity, Kept, Op, Outside, Propagation, Setgroups, Stage, UnsharePlan,
    UnshareRequest, apply,
};

//! What each fuzz target does with its input: hand it to a parser or planner and check what must hold of every
//! answer. A panic is a finding; so is memory or time without bound, which libFuzzer watches.
//!
//! Inputs that once failed stay in `corpus/TARGET/` and are run first by every later run.

mod bpf;
mod images;
mod layers;
#[path = "../../crates/onggi-sandbox/src/seccomp/tests/machine.rs"]
mod machine;
mod plans;
mod texts;

pub use bpf::seccomp;
pub use images::{challenges, digests, manifests, references};
pub use layers::{layer_apply, tar_entries};
pub use plans::{config, mappings, mount_options, process};
pub use texts::{cgroup_files, mountinfo, state, users};

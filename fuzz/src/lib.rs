//! What each fuzz target does with its input: hand it to a parser or planner and check what must hold of every
//! answer. A panic is a finding; so is memory or time without bound, which libFuzzer watches.
//!
//! Inputs that once failed stay in `corpus/TARGET/` and are run first by every later run.

// The engine's files name the crate that has these; here they come from its files without TLS.
extern crate self as onggi_image;

mod archives;
mod bpf;
#[path = "../../crates/onggi-image/src/embedded.rs"]
#[allow(missing_docs, reason = "it is documented where it belongs")]
mod embedded;
mod engine;
mod images;
mod layers;
#[path = "../../crates/onggi-sandbox/src/seccomp/tests/machine.rs"]
#[allow(dead_code, reason = "the tests of filters use more of it")]
mod machine;
mod plans;
#[path = "../../crates/onggi-image/src/platform.rs"]
#[allow(dead_code, reason = "the client of registries uses more of it")]
mod platform;
mod texts;
mod transfer;

use engine::{EngineError, error, names};

pub use archives::archives;
pub use bpf::seccomp;
pub use embedded::embedded;
pub use images::{challenges, digests, manifests, references};
pub use layers::{layer_apply, tar_entries};
pub use plans::{config, mappings, mount_options, process};
pub use platform::{native_platform, select as select_platform};
pub use texts::{cgroup_files, mountinfo, state, users};

/// The digest of bytes in memory.
pub fn digest_of(bytes: &[u8]) -> onggi_spec::Digest {
    use sha2::Digest as _;
    onggi_spec::Digest::from_sha256(&sha2::Sha256::digest(bytes).into())
}

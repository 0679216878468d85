//! Differential conformance: the same bundle under runc, crun and onggi-oci, compared field by field.
//!
//! The rule: where runc and crun agree, we agree with them; where they differ, we equal one of them; every
//! exception is named in the test that meets it and explained in docs/conformance.md.
//!
//! They need root, and Debian's runc, crun and busybox-static. Run them with `cargo xtask test`.

mod commands;
mod compare;
mod config;
mod events;
mod features;
mod hooks;
mod libseccomp;
mod lifecycle;
mod linux;
#[path = "../../../crates/onggi-sandbox/src/seccomp/tests/machine.rs"]
mod machine;
mod memory;
mod mounts;
mod probe;
mod process;
mod resources;
mod streams;
mod terminal;
mod tools;
mod users;

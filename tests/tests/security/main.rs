//! Attacks on `onggi-oci` and on pulls that have worked on other programs, each with a benign twin that must keep working.
//!
//! `onggi_tests::cve` says which test belongs to which advisory; `cargo xtask test --cve` runs them by it. The
//! tests need root and the installed programs (`cargo xtask test` builds them).

mod archives;
mod capabilities;
mod cp;
mod descriptors;
mod devices;
mod documents;
mod engine;
mod executable;
mod helpers;
mod hooks;
mod jar;
mod limits;
mod mounts;
mod procfs;
mod races;
mod registries;
mod sources;
mod table;
mod users;

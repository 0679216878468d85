//! The engine's reading and writing of image archives: its own files, without registry, store and database, which would bring
//! a TLS library and SQLite into the instrumented build.
#![allow(dead_code, unused_imports, reason = "the engine uses more of these files than the fuzzer")]

#[path = "../../../crates/onggi-engine/src/transfer/archive.rs"]
pub(crate) mod archive;
#[path = "../../../crates/onggi-engine/src/transfer/blob.rs"]
mod blob;
#[path = "../../../crates/onggi-engine/src/transfer/copying.rs"]
mod copying;
#[path = "../../../crates/onggi-engine/src/transfer/docker_archive.rs"]
pub(crate) mod docker_archive;
#[path = "../../../crates/onggi-engine/src/transfer/error.rs"]
mod error;
#[path = "../../../crates/onggi-engine/src/transfer/format.rs"]
mod format;
#[path = "../../../crates/onggi-engine/src/transfer/oci.rs"]
pub(crate) mod oci;
#[path = "../../../crates/onggi-engine/src/transfer/output.rs"]
mod output;
#[path = "../../../crates/onggi-engine/src/transfer/part.rs"]
mod part;

pub(crate) use blob::{Checked, descriptor as blob_descriptor};
pub(crate) use copying::{CopyRule, Listed, MAX_IMAGES, Raw, Sink, Source, copy, fetch_document};
pub(crate) use error::FormatError;
pub(crate) use format::{ManifestFormat, build as build_manifest, layer_type};
pub(crate) use output::Output;

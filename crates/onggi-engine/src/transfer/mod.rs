//! Images from one place to another: the store, a registry, archives, directories.
//!
//! A [`Source`] lists images and hands out their documents and blobs; a [`Sink`] takes them. [`copy`] is the one loop
//! between them, used by `save`, `load` and `copy`. A source is not trusted: every document and every blob is counted
//! and hashed on its way, and a sink shows nothing before it was found right. No file of a source is ever opened by a name
//! that a document in it chose: members of an archive are looked up in a list, files of a directory by a digest.
//! Documents and lists are parsed where nothing else can be done (`onggi_sys::jail`).

pub(crate) mod archive;
mod blob;
mod copying;
pub(crate) mod dir;
pub(crate) mod docker_archive;
mod error;
mod format;
pub(crate) mod location;
pub(crate) mod oci;
mod output;
mod part;
pub(crate) mod registry;
pub(crate) mod store;

pub(crate) use blob::{Checked, descriptor as blob_descriptor};
pub(crate) use copying::{CopyRule, Listed, MAX_IMAGES, Raw, Sink, Source, copy, fetch_document};
pub use error::FormatError;
pub(crate) use error::{of_archive, shown};
pub use format::ManifestFormat;
pub(crate) use format::{build as build_manifest, layer_type};
pub(crate) use output::Output;

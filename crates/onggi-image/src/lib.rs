//! Images from registries: resolve a reference, verify every byte, keep it in the content store.
//!
//! Input is an [`ImageReference`](onggi_spec::ImageReference) and [`PullOptions`]; output is a [`PulledImage`]
//! whose blobs are on disk under their digests, and every layer handed over as soon as it is complete.
//! Specifications: distribution-spec 1.1 (pull), image-spec 1.1, Docker image manifest version 2 schema 2.
//!
//! This crate never unpacks a layer, never runs a program but getent(1), which knows what names of hosts stand for, never reads
//! the environment, and never sends credentials to anyone but the registry they belong to and its token service.

mod auth;
pub mod certificates;
pub mod challenge;
pub mod closure;
mod content;
pub mod credential_file;
pub mod credentials;
mod download;
pub mod embedded;
mod error;
mod exchange;
mod fetch;
mod http;
pub mod lists;
mod lookup;
mod options;
mod plan;
mod platform;
mod pull;
mod push;
mod question;
pub mod registries;
mod remote;
mod retry;
pub mod store;
mod tls;
mod upload;
mod url;
mod verify;

pub use content::Content;
pub use credentials::{Credentials, CredentialsError, Lookup};
pub use embedded::embedded;
pub use error::{FailureKind, ImageError, StoreError, TransportError};
pub use fetch::open_url;
pub use http::{ProxySettings, Timeouts};
pub use lists::{Found, Host};
pub use options::{ClientIdentity, RemoteOptions};
pub use plan::{ImagePlan, LayerBlob};
pub use platform::{native_platform, select as select_platform};
pub use pull::{LayerReady, Mirror, OnLayer, PullOptions, PulledImage, Puller, pull, stored_image};
pub use push::{PushImage, PushOptions, Pushed, Recreate, push};
pub use question::Question;
pub use remote::{Access, BlobReader, Remote, RemoteDocument};
pub use retry::RetryPolicy;
pub use store::{
    Batch, Begin, BlobStore, BlobWriter, Deletion, FinishError, Scratch, StoreHold, VerifiedBlob, digest_of,
};
pub use upload::Uploaded;

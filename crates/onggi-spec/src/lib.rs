//! The vocabulary of Onggi and its pure rules.
//!
//! Every crate meets the others through these types. Nothing here touches a filesystem, a clock, the
//! environment or a random source: parsers take `&str`, builders take structs.

pub mod attach;
pub mod capability;
pub mod change;
pub mod device;
pub mod elf;
pub mod env;
pub mod error;
pub mod facts;
pub mod id;
pub mod id_block;
pub mod image;
pub mod monitor;
pub mod mount;
pub mod names;
pub mod oci;
pub mod overlay;
pub mod path;
pub mod port;
pub mod quantity;
pub mod reference;
pub mod request;
pub mod resolver;
pub mod resources;
pub mod seccomp_profile;
pub mod security;
pub mod shell;
pub mod signal;
pub mod syscalls;
pub mod sysctl;
pub mod tmpfs;
pub mod ulimit;
pub mod user;

pub use error::ParseError;
pub use facts::HostFacts;
pub use id::{ContainerId, ContainerName};
pub use id_block::IdBlock;
pub use reference::{Digest, ImageReference};
pub use request::{ContainerRequest, ImageSource, NetworkMode, UserNamespace};

/// Progress of a pull or push, one event at a time. Libraries emit, the command line draws.
pub mod progress {
    use crate::Digest;

    /// What happened to one blob or layer.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum ProgressEvent {
        /// The manifest was resolved.
        Resolved {
            /// Its digest.
            digest: Digest,
        },
        /// A layer of the image, before anything is done about it.
        Layer {
            /// Its blob.
            digest: Digest,
            /// The blob's size in bytes.
            total: u64,
        },
        /// Another process is fetching the blob, or an image on the same base layer; this one waits for it.
        Waiting {
            /// The blob.
            digest: Digest,
        },
        /// Already in the store, or in the registry that is pushed to.
        Exists {
            /// The blob.
            digest: Digest,
        },
        /// A download begins.
        Download {
            /// The blob.
            digest: Digest,
            /// Its size in bytes.
            total: u64,
        },
        /// Bytes received or sent so far.
        Advanced {
            /// The blob.
            digest: Digest,
            /// Bytes so far.
            done: u64,
        },
        /// Downloaded and verified.
        Downloaded {
            /// The blob.
            digest: Digest,
        },
        /// Being unpacked.
        Unpacking {
            /// The blob.
            digest: Digest,
        },
        /// An upload begins.
        Upload {
            /// The blob.
            digest: Digest,
            /// Its size in bytes.
            total: u64,
        },
        /// The registry has it.
        Uploaded {
            /// The blob.
            digest: Digest,
        },
        /// The registry took it over from another of its repositories.
        Mounted {
            /// The blob.
            digest: Digest,
            /// That repository.
            from: String,
        },
        /// Unpacked to a layer.
        Unpacked {
            /// The blob.
            digest: Digest,
        },
        /// A request is repeated after a failure.
        Retry {
            /// Why.
            reason: String,
        },
        /// Something to know that stops nothing.
        Warning {
            /// In words.
            text: String,
        },
    }

    /// Receives events, from several threads.
    pub trait Progress: Sync {
        /// Called for each event; must not block for long.
        fn event(&self, event: ProgressEvent);
    }

    /// Ignores every event.
    #[derive(Debug, Clone, Copy, Default)]
    pub struct Silent;

    impl Progress for Silent {
        fn event(&self, _event: ProgressEvent) {}
    }
}

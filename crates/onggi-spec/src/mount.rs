//! `-v`: `source:target[:ro,rw,z,...]`.

use serde::{Deserialize, Serialize};

/// A mount that the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute host path of a bind mount.
    pub source: String,
    /// Absolute path in the container, normalised, without `..`.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// Mount propagation of the bind.
    pub propagation: Propagation,
}

/// Propagation of a bind mount (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// `rprivate`, the default.
    #[default]
    Rprivate,
    /// `rslave`.
    Rslave,
    /// `rshared`.
    Rshared,
}

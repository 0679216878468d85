//! `-u`: `user[:group]`, by name or by number. A number never falls back to a name (CVE-2026-30892 class).

use serde::{Deserialize, Serialize};

/// A parsed `user[:group]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    /// The user.
    pub user: NameOrId,
    /// The group; the user's own primary group when absent.
    pub group: Option<NameOrId>,
}

/// A user or group, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameOrId {
    /// A number below 2^32 - 1.
    Id(u32),
    /// A name.
    Name(String),
}

/// What a `UserSpec` means inside a root filesystem (result of reading its passwd and group files).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, sorted, without the primary one unless the file lists it.
    pub additional_gids: Vec<u32>,
    /// Home directory for HOME; `/` when unknown.
    pub home: String,
}

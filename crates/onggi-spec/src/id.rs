//! Container ids and names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ParseError;

/// 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// An id from 32 random bytes (the caller has the random source).
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, as shown by `ps`.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if s.len() == 64 && s.bytes().all(hex) {
            return Ok(Self(s.to_owned()));
        }
        Err(ParseError::new("container id", s, "expected 64 hexadecimal digits"))
    }
}

impl TryFrom<String> for ContainerId {
    type Error = ParseError;
    fn try_from(s: String) -> Result<Self, ParseError> {
        s.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 128 characters, as Docker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name such as `calm_heron` from a random number (see [`crate::names`]).
pub fn name_from_random(random: u64) -> ContainerName {
    crate::names::generate(random, 0)
}

impl ContainerName {
    /// `first_second<suffix>`, from the generator's own words, which follow the grammar.
    pub(crate) fn from_parts(first: &str, second: &str, suffix: &str) -> Self {
        Self(format!("{first}_{second}{suffix}"))
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerName {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        // As Docker writes and takes names; it is no part of ours.
        let s = s.strip_prefix('/').unwrap_or(s);
        let tail = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let ok = (2..=128).contains(&s.len()) && s.as_bytes()[0].is_ascii_alphanumeric() && s.bytes().skip(1).all(tail);
        // Whoever named a container like another one's id could never mean it.
        if ok && s.parse::<ContainerId>().is_ok() {
            return Err(ParseError::new("container name", s, "it has the form of an id"));
        }
        if ok {
            return Ok(Self(s.to_owned()));
        }
        Err(ParseError::new("container name", s, "only [a-zA-Z0-9][a-zA-Z0-9_.-]+ of 2 to 128 characters is allowed")
            .hint("start with a letter or digit and use letters, digits, '_', '.', '-'"))
    }
}

impl TryFrom<String> for ContainerName {
    type Error = ParseError;
    fn try_from(s: String) -> Result<Self, ParseError> {
        s.parse()
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_an_id() {
        let id = "0123456789abcdef".repeat(4);
        assert!(id.parse::<ContainerId>().is_ok() && id.parse::<ContainerName>().is_err());
        for name in [&id[..12], &id[..63], "web", "/web"] {
            assert!(name.parse::<ContainerName>().is_ok(), "{name}");
        }
    }
}

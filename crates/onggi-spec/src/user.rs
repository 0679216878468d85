//! `-u`: `user[:group]`, by name or by number. A number never falls back to a name (CVE-2026-30892 class).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ParseError;

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
    /// Supplementary groups, sorted, the primary one always among them, so that it cannot be shed (CVE-2022-36109).
    pub additional_gids: Vec<u32>,
    /// Home directory for HOME; `/` when unknown.
    pub home: String,
}

/// Longest name: more than any login name (LOGIN_NAME_MAX is 256 with the terminator).
const MAX_NAME: usize = 255;

impl FromStr for UserSpec {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let err = |reason: String| {
            ParseError::new("user", s, reason)
                .hint("write user[:group], by name or by number: 1000, 1000:1000, www-data")
        };
        let (user, group) = match s.split_once(':') {
            Some((u, g)) => (u, Some(g)),
            None => (s, None),
        };
        let user = parse_name_or_id(user).map_err(|r| err(format!("the user {r}")))?;
        let group = group.map(parse_name_or_id).transpose().map_err(|r| err(format!("the group {r}")))?;
        Ok(Self { user, group })
    }
}

impl FromStr for NameOrId {
    type Err = ParseError;

    /// A group of `--group-add`.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let hint = "write a group by name or by number: 1000, audio";
        parse_name_or_id(s).map_err(|reason| ParseError::new("group", s, format!("it {reason}")).hint(hint))
    }
}

impl fmt::Display for NameOrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(n) => write!(f, "{n}"),
            Self::Name(s) => f.write_str(s),
        }
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.user)?;
        self.group.as_ref().map_or(Ok(()), |g| write!(f, ":{g}"))
    }
}

/// A text of digits is a number or an error, never a name; anything that starts with a digit or a sign is
/// not a name either.
fn parse_name_or_id(text: &str) -> Result<NameOrId, String> {
    let Some(first) = text.bytes().next() else { return Err("is empty".to_owned()) };
    if text.bytes().all(|b| b.is_ascii_digit()) {
        // 2^32 - 1 is (uid_t)-1: "unchanged" to setresuid(2), so it is no id.
        let id = text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
        return id.map(NameOrId::Id).ok_or_else(|| "has an id above 4294967294".to_owned());
    }
    let tail = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'$');
    let name = text.len() <= MAX_NAME && (first.is_ascii_alphabetic() || first == b'_') && text.bytes().all(tail);
    if name {
        return Ok(NameOrId::Name(text.to_owned()));
    }
    Err("is neither a number nor a name".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_numbers_and_names_stay_names() {
        for (text, user, group) in [
            ("1", NameOrId::Id(1), None),
            ("0", NameOrId::Id(0), None),
            ("4294967294", NameOrId::Id(u32::MAX - 1), None),
            ("1:2", NameOrId::Id(1), Some(NameOrId::Id(2))),
            ("www-data", NameOrId::Name("www-data".into()), None),
            ("_apt:staff", NameOrId::Name("_apt".into()), Some(NameOrId::Name("staff".into()))),
            ("root:0", NameOrId::Name("root".into()), Some(NameOrId::Id(0))),
        ] {
            assert_eq!(text.parse(), Ok(UserSpec { user, group }), "{text}");
        }
    }

    #[test]
    fn everything_doubtful_is_refused_cve_2024_40635_cve_2026_46680_cve_2026_30892() {
        for text in [
            "",
            ":",
            "1:",
            ":1",
            "::",
            "1:2:3",
            "-1",
            "+0",
            "0x0",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "1 ",
            " 1",
            "1e3",
            "1000abc",
            "-",
            "a b",
            "a:b c",
            "root\n",
            "\0",
            "é",
            "a/b",
            "1:-1",
            "1:4294967295",
            "0o7",
            "1_000",
        ] {
            assert!(text.parse::<UserSpec>().is_err(), "{text:?}");
        }
    }
}

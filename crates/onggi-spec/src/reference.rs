//! Image references (the distribution project's grammar) and digests.
//!
//! A reference is normalised once, here: `nginx` means `docker.io/library/nginx:latest` everywhere. Only
//! sha256 digests are accepted: every content check rests on them (I9).

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ParseError;

const WHAT: &str = "image reference";
/// The registry meant by a reference that names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// Longest repository path, as in the distribution grammar.
const MAX_REPOSITORY: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;

/// `sha256:<64 hex>`: the only algorithm accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// From the 32 bytes of a SHA-256.
    pub fn from_sha256(bytes: &[u8; 32]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for b in bytes {
            text.push(char::from_digit(u32::from(b >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(b & 15), 16).unwrap_or('0'));
        }
        Self(text)
    }

    /// `sha256:<64 hex>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// The first 12 digits, as shown by `images`.
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match s.strip_prefix("sha256:") {
            Some(h) if h.len() == 64 && h.bytes().all(hex) => Ok(Self(s.to_owned())),
            _ => Err(ParseError::new("digest", s, "expected sha256: and 64 lower-case hexadecimal digits")),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseError;
    fn try_from(s: String) -> Result<Self, ParseError> {
        s.parse()
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> Self {
        d.0
    }
}

/// A normalised image reference: `nginx` is `docker.io/library/nginx:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// Registry host, with its port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository inside the registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` was filled in when neither tag nor digest was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest when there is one, else the tag.
    pub fn selector(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(d), _) => d.as_str(),
            (None, Some(t)) => t,
            (None, None) => "latest",
        }
    }

    /// The same repository with a tag instead.
    ///
    /// # Errors
    /// The tag does not follow the grammar.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseError> {
        check_tag(tag, tag)?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with a digest instead of a tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// A name that an image is given: whatever has a digest in it is content's own name, and nothing to give.
    ///
    /// # Errors
    /// It is no reference, or has a digest.
    pub fn given(text: &str) -> Result<Self, ParseError> {
        let name: Self = text.parse()?;
        match &name.digest {
            None => Ok(name),
            Some(_) => Err(ParseError::new(WHAT, text, "a digest cannot be given to an image")
                .hint(format!("give it a tag: {}", name.with_tag("latest")?.familiar()))),
        }
    }

    /// What is stored under it: a digest says all, a tag beside it nothing more.
    pub fn exact(&self) -> Self {
        let tag = if self.digest.is_some() { None } else { self.tag.clone() };
        Self { tag, ..self.clone() }
    }

    /// True for the same repository of the same registry.
    pub fn same_repository(&self, other: &Self) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }

    /// The repository as people write it: `nginx`, `user/app`, `127.0.0.1:5000/nginx`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned()
    }

    /// The whole reference as people write it: `nginx:latest`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(format!("{}/{}", self.registry, self.repository)))
    }
}

impl FromStr for ImageReference {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let (rest, digest) = match s.split_once('@') {
            Some((rest, d)) => (rest, Some(d.parse::<Digest>().map_err(|e| ParseError::new(WHAT, s, e.reason))?)),
            None => (s, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag {
            check_tag(tag, s)?;
        }
        let (registry, repository) = split_registry(name);
        check_registry(&registry, s)?;
        check_repository(&repository, s)?;
        let tag = match (tag, &digest) {
            (Some(t), _) => Some(t.to_owned()),
            (None, None) => Some("latest".to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

impl TryFrom<String> for ImageReference {
    type Error = ParseError;
    fn try_from(s: String) -> Result<Self, ParseError> {
        s.parse()
    }
}

impl From<ImageReference> for String {
    fn from(r: ImageReference) -> Self {
        r.to_string()
    }
}

/// The tag is after the last colon, unless that colon belongs to a registry's port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// The first component is a registry when it has a dot or a port, or is `localhost`.
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') && !repository.is_empty() {
        return (registry.to_owned(), format!("library/{repository}"));
    }
    (registry.to_owned(), repository.to_owned())
}

fn check_tag(tag: &str, whole: &str) -> Result<(), ParseError> {
    let head = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let tail = |b: u8| head(b) || matches!(b, b'.' | b'-');
    let ok = !tag.is_empty() && tag.len() <= MAX_TAG && head(tag.as_bytes()[0]) && tag.bytes().all(tail);
    if ok {
        return Ok(());
    }
    Err(ParseError::new(
        WHAT,
        whole,
        "a tag is 1 to 128 of letters, digits, '_', '.', '-' and starts with none of '.', '-'",
    ))
}

/// `host[:port]`; an IPv6 address is in brackets: `[::1]:5000`.
fn check_registry(registry: &str, whole: &str) -> Result<(), ParseError> {
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let (host_ok, port) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (is_ipv6(address), None),
        // Without a colon it is no port either.
        Some((address, rest)) => (is_ipv6(address), Some(rest.strip_prefix(':').unwrap_or_default())),
        None => {
            let (host, port) = registry.rsplit_once(':').map_or((registry, None), |(host, port)| (host, Some(port)));
            (host.len() <= 255 && host.split('.').all(label), port)
        }
    };
    let port_ok = port.is_none_or(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|n| n > 0));
    if host_ok && port_ok {
        return Ok(());
    }
    Err(ParseError::new(WHAT, whole, format!("{registry:?} is not a registry host")))
}

/// As the distribution grammar has it: without a zone, and without a part in dotted decimals.
fn is_ipv6(address: &str) -> bool {
    !address.contains('.') && address.parse::<Ipv6Addr>().is_ok()
}

fn check_repository(repository: &str, whole: &str) -> Result<(), ParseError> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        let e = ParseError::new(WHAT, whole, "the repository name must be lower case");
        // Only what would do.
        return Err(match repository.to_ascii_lowercase().split('/').all(is_path_component) {
            true => e.hint(format!("try {:?}", whole.to_ascii_lowercase())),
            false => e.hint("write it as [registry/]name[:tag], of lower-case letters, digits and '.', '_', '-'"),
        });
    }
    if repository.len() <= MAX_REPOSITORY && repository.split('/').all(is_path_component) {
        return Ok(());
    }
    Err(ParseError::new(
        WHAT,
        whole,
        "a repository is made of lower-case letters and digits, separated by '/', '.', '_', '__' or '-'",
    )
    .hint("write it as [registry/]name[:tag] or [registry/]name@sha256:<digest>"))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(first) || !alnum(last) {
        return false;
    }
    bytes.split(|&b| alnum(b)).all(|sep| matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|&b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn references_are_normalised() {
        let table = [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25", "nginx:1.25"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("127.0.0.1:5000/nginx", "127.0.0.1:5000/nginx:latest", "127.0.0.1:5000/nginx:latest"),
            ("localhost/a/b__c-d.e:t", "localhost/a/b__c-d.e:t", "localhost/a/b__c-d.e:t"),
            ("[::1]:5000/a/b", "[::1]:5000/a/b:latest", "[::1]:5000/a/b:latest"),
            ("[2001:db8::5]/nginx:1", "[2001:db8::5]/nginx:1", "[2001:db8::5]/nginx:1"),
            ("index.docker.io/library/x", "docker.io/library/x:latest", "x:latest"),
        ];
        for (text, full, familiar) in table {
            let r: ImageReference = text.parse().unwrap();
            assert_eq!(r.to_string(), full);
            assert_eq!(r.familiar(), familiar);
            assert_eq!(full.parse::<ImageReference>().unwrap(), r);
        }
    }

    #[test]
    fn a_digest_reference_has_no_default_tag() {
        let r: ImageReference = format!("nginx@sha256:{HEX}").parse().unwrap();
        assert_eq!((r.tag(), r.selector()), (None, &*format!("sha256:{HEX}")));
    }

    #[test]
    fn a_digest_says_all_and_is_not_given() {
        let both: ImageReference = format!("nginx:1@sha256:{HEX}").parse().unwrap();
        let exact = both.exact();
        assert_eq!((exact.tag(), exact.digest()), (None, both.digest()));
        assert!(exact.same_repository(&both) && !exact.same_repository(&"user/nginx".parse().unwrap()));
        let plain = ImageReference::given("nginx:1").unwrap();
        assert_eq!(plain.exact(), plain);
        let refused = ImageReference::given(&both.familiar()).unwrap_err();
        assert!(refused.hint.contains("nginx:latest"), "{refused:?}");
    }

    #[test]
    fn texts_outside_the_grammar_are_refused() {
        let long = "a".repeat(300);
        for text in [
            "",
            "Nginx",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:.x",
            "a@sha256:12",
            "a@md5:00",
            "..",
            "a/../b",
            "-a",
            "a_",
            "a___b",
            "h:0/x",
            "[::1]:0/x",
            "[::1]5000/x",
            "[::1]:/x",
            "[::1/x",
            "[]/x",
            "[::1%lo]/x",
            "[127.0.0.1]:5000/x",
            "[::127.0.0.1]/x",
            "::1/x",
            "[::1]",
            "h.x:70000/x",
            "a b",
            "a\n",
            &long,
            "a:b:c",
            "é",
        ] {
            assert!(text.parse::<ImageReference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn digests_are_strict_cve_2024_3727() {
        assert!(format!("sha256:{HEX}").parse::<Digest>().is_ok());
        for text in [
            "sha256:../..",
            "sha256:",
            "",
            "sha512:00",
            &format!("sha256:{}", HEX.to_uppercase()),
            &format!("sha256:{HEX}0"),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }
}

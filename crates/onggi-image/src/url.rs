//! URLs as a registry client needs them: origins, loopback, redirect targets. Pure.
//!
//! Only `http` and `https` exist here, and never with user information in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::http::Uri;

/// Longest URL that a registry may send (redirect or realm); signed CDN links stay well below.
pub(crate) const MAX_URL: usize = 8 << 10;

/// Scheme, host and port: the unit to which credentials belong (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    /// `https`, else `http`.
    pub(crate) tls: bool,
    /// Lower-case host without brackets.
    pub(crate) host: String,
    /// Port, the scheme's default filled in.
    pub(crate) port: u16,
}

impl Origin {
    /// The origin of an absolute URL; `None` for other schemes, no host, or user information.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host();
        if authority.as_str().contains('@') || host.is_empty() {
            return None;
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str() != host => return None,
            None => default_port(tls),
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Some(Self { tls, host: bare.to_ascii_lowercase(), port })
    }

    /// The peer is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// The host of `host[:port]`, an IPv6 address without its brackets.
pub(crate) fn bare_host(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// `localhost`, 127.0.0.0/8 or ::1, as written (nothing is resolved).
pub(crate) fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// The address that a host is written as, an IPv6 one with its brackets; `None` for a name.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Parses an absolute URL that a peer sent.
pub(crate) fn parse_absolute(text: &str) -> Option<Uri> {
    let uri = (text.len() <= MAX_URL).then(|| text.parse::<Uri>().ok())??;
    Origin::of(&uri).map(|_| uri)
}

/// The target of a redirect (RFC 9110, Location): absolute, scheme-relative, or an absolute or relative path.
pub(crate) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    if location.len() > MAX_URL || location.is_empty() {
        return None;
    }
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    if has_scheme(location) {
        return parse_absolute(location);
    }
    if let Some(rest) = location.strip_prefix("//") {
        return parse_absolute(&format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return parse_absolute(&format!("{scheme}://{authority}{location}"));
    }
    let dir = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
    parse_absolute(&format!("{scheme}://{authority}{dir}/{location}"))
}

/// `scheme:` in front, before any `/` or `?` (RFC 3986, 3.1).
fn has_scheme(text: &str) -> bool {
    let head = text.split(['/', '?']).next().unwrap_or_default();
    head.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// The URL without its query, which may hold a signature or token; cut for display.
pub(crate) fn display(uri: &Uri) -> String {
    let text = uri.to_string();
    text.split('?').next().unwrap_or_default().chars().take(256).collect()
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3) for use in a query.
pub(crate) fn encode_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn an_origin_has_its_default_port_and_no_case() {
        let of = |t: &str| Origin::of(&uri(t)).map(|o| (o.tls, o.host, o.port));
        assert_eq!(of("https://Example.COM/x"), Some((true, "example.com".into(), 443)));
        assert_eq!(of("http://[::1]:5000/"), Some((false, "::1".into(), 5000)));
        assert_eq!(of("ftp://a/"), None);
        assert_eq!(of("http://user@a/"), None);
        assert_eq!(of("/v2/"), None);
    }

    #[test]
    fn a_host_has_neither_port_nor_brackets() {
        for (authority, host) in
            [("h.example", "h.example"), ("h:5000", "h"), ("[::1]", "::1"), ("[2001:db8::1]:5000", "2001:db8::1")]
        {
            assert_eq!(bare_host(authority), host);
        }
    }

    #[test]
    fn only_written_loopback_addresses_are_loopback() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.255.0.9", "::1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["128.0.0.1", "localhost.example.com", "127.0.0.1.example.com", "127.1", "::2", "0.0.0.0", ""] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn redirect_targets_are_resolved_against_the_request() {
        let base = uri("https://r.example:5000/v2/a/blobs/x?q=1");
        let table = [
            ("https://cdn.example/y?s=1#f", Some("https://cdn.example/y?s=1")),
            ("//cdn.example/y", Some("https://cdn.example/y")),
            ("/y", Some("https://r.example:5000/y")),
            ("z", Some("https://r.example:5000/v2/a/blobs/z")),
            ("file:///etc/passwd", None),
            ("javascript:alert(1)", None),
            ("https://user:pw@evil/", None),
            ("", None),
        ];
        for (location, expected) in table {
            assert_eq!(resolve(&base, location).map(|u| u.to_string()).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn a_shown_url_has_no_query() {
        assert_eq!(display(&uri("https://a/b?X-Amz-Signature=secret")), "https://a/b");
    }

    proptest! {
        #[test]
        fn a_resolved_redirect_has_always_an_origin(location in ".{0,80}") {
            if let Some(target) = resolve(&uri("https://r.example/v2/"), &location) {
                prop_assert!(Origin::of(&target).is_some());
            }
        }

        #[test]
        fn encoded_text_cannot_leave_its_query_value(text in ".{0,80}") {
            prop_assert!(encode_query(&text).bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
        }
    }
}

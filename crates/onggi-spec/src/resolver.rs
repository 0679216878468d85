//! Names: `--add-host`, `--dns`, `--dns-search`, `--dns-option`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ParseError;

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address; `None` is this machine as the container reaches it (`host-gateway`).
    pub address: Option<IpAddr>,
}

/// What replaces the host's resolv.conf(5), line by line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dns {
    /// `nameserver`.
    pub servers: Vec<IpAddr>,
    /// `search`; a single `.` is none at all.
    pub search: Vec<String>,
    /// `options`.
    pub options: Vec<String>,
}

/// Reads one `--add-host`: `NAME:ADDRESS` or `NAME=ADDRESS`; an IPv6 address may have brackets.
///
/// # Errors
/// Outside the grammar.
pub fn parse_extra_host(text: &str) -> Result<ExtraHost, ParseError> {
    let err = |reason: &str| ParseError::new("host", text, reason).hint("write NAME:ADDRESS, as in db:10.0.0.2");
    let (name, address) = text.split_once(['=', ':']).ok_or_else(|| err("the address is missing"))?;
    if name.is_empty() || name.len() > 255 || !name.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(err("it is no host name"));
    }
    let address = match address {
        "host-gateway" => None,
        _ => {
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            Some(bare.parse().map_err(|_| err("it is no IP address"))?)
        }
    };
    Ok(ExtraHost { name: name.to_owned(), address })
}

/// Reads one `--dns`.
///
/// # Errors
/// It is no address.
pub fn parse_dns(text: &str) -> Result<IpAddr, ParseError> {
    text.parse().map_err(|_| ParseError::new("name server", text, "it is no IP address"))
}

/// Reads one word of `--dns-search` or `--dns-option`: it becomes part of a line.
///
/// # Errors
/// It has blanks, or is empty.
pub fn parse_dns_word(what: &'static str, text: &str) -> Result<String, ParseError> {
    let word = !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic());
    if word { Ok(text.to_owned()) } else { Err(ParseError::new(what, text, "it is no word")) }
}

impl Dns {
    /// `host`, with the lines replaced that were asked for.
    pub fn apply(&self, host: &str) -> String {
        let Self { servers, search, options } = self;
        let replaced = |line: &&str| {
            let key = line.split_whitespace().next().unwrap_or_default();
            match key {
                "nameserver" => servers.is_empty(),
                "search" | "domain" => search.is_empty(),
                "options" => options.is_empty(),
                _ => true,
            }
        };
        let mut lines: Vec<String> = host.lines().filter(replaced).map(str::to_owned).collect();
        lines.extend(servers.iter().map(|server| format!("nameserver {server}")));
        if !search.is_empty() && search.as_slice() != ["."] {
            lines.push(format!("search {}", search.join(" ")));
        }
        if !options.is_empty() {
            lines.push(format!("options {}", options.join(" ")));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_name_and_an_address() {
        let read = |text| parse_extra_host(text).map(|h| (h.name, h.address.map(|a| a.to_string()))).expect(text);
        let own = |name: &str, address: Option<&str>| (name.to_owned(), address.map(str::to_owned));
        assert_eq!(read("db:10.0.0.2"), own("db", Some("10.0.0.2")));
        assert_eq!(read("db=::1"), own("db", Some("::1")));
        assert_eq!(read("db:[fe80::1]"), own("db", Some("fe80::1")));
        assert_eq!(read("me:host-gateway"), own("me", None));
        for bad in ["", "db", ":1.2.3.4", "db:", "db:1.2.3", "d b:1.2.3.4", "d\nb:1.2.3.4"] {
            assert!(parse_extra_host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lines_are_replaced_that_were_asked_for() {
        let host = "# own\nnameserver 10.0.0.1\nsearch a b\noptions ndots:1\n";
        assert_eq!(Dns::default().apply(host), host);
        let dns = Dns { servers: vec!["1.1.1.1".parse().expect("address")], search: vec![".".into()], options: vec![] };
        assert_eq!(dns.apply(host), "# own\noptions ndots:1\nnameserver 1.1.1.1\n");
        let dns = Dns { servers: vec![], search: vec!["x".into(), "y".into()], options: vec!["rotate".into()] };
        assert_eq!(dns.apply(host), "# own\nnameserver 10.0.0.1\nsearch x y\noptions rotate\n");
        assert!(parse_dns("x").is_err() && parse_dns_word("search domain", "a\nb").is_err());
    }
}

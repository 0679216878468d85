//! `-p`: `[ip:][hostPort:]containerPort[/tcp|udp]` with ranges, as `docker run`.

use std::{fmt, net::Ipv4Addr, num::NonZeroU16};

use serde::{Deserialize, Serialize};

use crate::ParseError;

const WHAT: &str = "port mapping";
const USAGE: &str = "write [ip:][hostPort:]containerPort[/tcp|/udp], as in 8080:80 or 127.0.0.1:53:53/udp";

/// One published port. A range on the command line becomes several of these (`parse_publish`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// Host address; 0.0.0.0 for every address.
    pub host_ip: Ipv4Addr,
    /// Host port; `None` asks for a free one of the host's ephemeral range.
    pub host_port: Option<NonZeroU16>,
    /// Container port.
    pub container_port: NonZeroU16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for PortMapping {
    /// As in the PORTS column of `ps`: `0.0.0.0:8080->80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host_port.map_or(0, NonZeroU16::get);
        write!(f, "{}:{host}->{}/{}", self.host_ip, self.container_port, self.protocol)
    }
}

/// Reads one `-p` value; a range gives one mapping per port, in order.
///
/// # Errors
/// Outside the grammar, for IPv6 host addresses, SCTP, port 0 in the container, and ranges of unequal length.
pub fn parse_publish(text: &str) -> Result<Vec<PortMapping>, ParseError> {
    let err = |reason: String| ParseError::new(WHAT, text, reason).hint(USAGE);
    if text.contains('[') || text.matches(':').count() > 2 {
        return Err(ParseError::new(WHAT, text, "publishing on an IPv6 address is not supported yet")
            .hint("publish on an IPv4 address, or leave the address out"));
    }
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = parse_protocol(protocol).map_err(err)?;
    let parts: Vec<&str> = ports.split(':').collect();
    let (ip, host, container) = match parts.as_slice() {
        [c] => ("", "", *c),
        [h, c] => ("", *h, *c),
        [ip, h, c] => (*ip, *h, *c),
        _ => return Err(err("too many colons".to_owned())),
    };
    let host_ip = match ip {
        "" => Ipv4Addr::UNSPECIFIED,
        ip => ip.parse().map_err(|_| err(format!("{ip:?} is not an IPv4 address")))?,
    };
    let container = parse_range(container).map_err(err)?;
    if container.0 == 0 {
        return Err(err("the container port is missing or 0".to_owned()));
    }
    let host = if host.is_empty() { (0, 0) } else { parse_range(host).map_err(err)? };
    expand(host_ip, host, container, protocol).map_err(err)
}

/// Reads a container port of an image's ExposedPorts: `80`, `80/tcp`, `53/udp`.
///
/// # Errors
/// Outside that grammar.
pub fn parse_exposed(text: &str) -> Result<(NonZeroU16, Protocol), ParseError> {
    let err = |reason: String| ParseError::new("exposed port", text, reason);
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port =
        NonZeroU16::new(parse_number(port).map_err(err)?).ok_or_else(|| err("port 0 does not exist".to_owned()))?;
    Ok((port, parse_protocol(protocol).map_err(err)?))
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Err("SCTP is not supported yet".to_owned()),
        _ => Err(format!("unknown protocol {text:?}")),
    }
}

/// `n` or `n-m`, inclusive.
fn parse_range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = match text.split_once('-') {
        Some(("", _) | (_, "")) => return Err(format!("{text:?} is not a port (1 to 65535) or a range of them")),
        Some((a, b)) => (parse_number(a)?, parse_number(b)?),
        None => parse_number(text).map(|n| (n, n))?,
    };
    match first <= last && (first > 0 || last == 0) {
        true => Ok((first, last)),
        false => Err(format!("the range {text:?} is empty or starts at 0")),
    }
}

fn parse_number(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| format!("{text:?} is not a port (1 to 65535)"))
}

fn expand(
    host_ip: Ipv4Addr,
    host: (u16, u16),
    container: (u16, u16),
    protocol: Protocol,
) -> Result<Vec<PortMapping>, String> {
    let any_host = host == (0, 0);
    if !any_host && host.1 - host.0 != container.1 - container.0 {
        return Err("the host range and the container range differ in length".to_owned());
    }
    let mapping = |container_port: NonZeroU16| {
        let host_port = if any_host { None } else { NonZeroU16::new(host.0 + (container_port.get() - container.0)) };
        PortMapping { host_ip, host_port, container_port, protocol }
    };
    Ok((container.0..=container.1).filter_map(NonZeroU16::new).map(mapping).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match parse_publish(text) {
            Ok(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(e) => format!("error: {}", e.reason),
        }
    }

    #[test]
    fn docker_forms_are_understood() {
        for (text, want) in [
            ("80", "0.0.0.0:0->80/tcp"),
            ("8080:80", "0.0.0.0:8080->80/tcp"),
            ("0:80", "0.0.0.0:0->80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:0->80/tcp"),
            ("53:53/udp", "0.0.0.0:53->53/udp"),
            ("53:53/UDP", "0.0.0.0:53->53/udp"),
            ("8000-8001:80-81", "0.0.0.0:8000->80/tcp 0.0.0.0:8001->81/tcp"),
            ("80-81", "0.0.0.0:0->80/tcp 0.0.0.0:0->81/tcp"),
            ("65535:65535", "0.0.0.0:65535->65535/tcp"),
        ] {
            assert_eq!(show(text), want, "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        for text in [
            "",
            ":",
            "::",
            "0",
            "80:0",
            "65536",
            "80:65536",
            "-1",
            "+80",
            " 80",
            "80 ",
            "a:80",
            "80:a",
            "80/sctp",
            "80/",
            "81-80",
            "0-5:1-6",
            "8000-8002:80-81",
            "8000-8001:80",
            "256.0.0.1:80:80",
            "[::1]:80:80",
            "::1:80:80",
            "1.2.3.4:80:80:80",
            "example.org:80:80",
        ] {
            let e = parse_publish(text).expect_err(text);
            assert!(!e.reason.is_empty() && !e.hint.is_empty(), "{text}");
        }
    }

    #[test]
    fn exposed_ports_of_images() {
        assert_eq!(parse_exposed("80").map(|(p, _)| p.get()), Ok(80));
        assert_eq!(parse_exposed("53/udp").map(|(_, p)| p), Ok(Protocol::Udp));
        for bad in ["", "0", "80/x", "http", "1-2"] {
            assert!(parse_exposed(bad).is_err(), "{bad}");
        }
    }
}

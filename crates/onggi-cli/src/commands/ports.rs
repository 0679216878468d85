//! Ports as `ps` shows and filters them.

use std::num::NonZeroU16;

use onggi_engine::PortRange;
use onggi_spec::{ParseError, port::PortMapping};

/// The column PORTS as Docker writes it: neighbours that are published under their own numbers are one entry.
pub(super) fn shown(ports: &[PortMapping]) -> String {
    let same = |p: &PortMapping| p.host_port == Some(p.container_port);
    let mut sorted = ports.to_vec();
    sorted.sort_by_key(|p| (p.protocol, p.host_ip, p.container_port, p.host_port));
    let mut runs: Vec<(PortMapping, NonZeroU16)> = Vec::new();
    for port in sorted {
        let next = |(first, last): &&mut (PortMapping, NonZeroU16)| {
            same(first)
                && same(&port)
                && (first.protocol, first.host_ip) == (port.protocol, port.host_ip)
                && last.checked_add(1) == Some(port.container_port)
        };
        match runs.last_mut().filter(next) {
            Some((_, last)) => *last = port.container_port,
            None => runs.push((port, port.container_port)),
        }
    }
    let text = |(first, last): &(PortMapping, NonZeroU16)| match *last == first.container_port {
        true => first.to_string(),
        false => {
            let range = format!("{}-{last}", first.container_port);
            format!("{}:{range}->{range}/{}", first.host_ip, first.protocol)
        }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// `80`, `80/udp`, `8000-8010/tcp`, as `--filter publish=` and `expose=` have it.
pub(super) fn range(text: &str) -> Result<PortRange, ParseError> {
    let wrong = || ParseError::new("filter", text, "no port").hint("write PORT[-PORT][/tcp|/udp], as in 8000-8010/tcp");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if first > last || !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(wrong());
    }
    Ok(PortRange { first, last, protocol: protocol.to_owned() })
}

#[cfg(test)]
mod tests {
    use onggi_spec::port::parse_publish;

    use super::*;

    fn of(values: &[&str]) -> String {
        let ports: Vec<PortMapping> = values.iter().flat_map(|v| parse_publish(v).expect("a port")).collect();
        shown(&ports)
    }

    #[test]
    fn neighbours_under_their_own_numbers_are_one_entry() {
        assert_eq!(of(&["8080:80"]), "0.0.0.0:8080->80/tcp");
        assert_eq!(of(&["8000-8002:8000-8002"]), "0.0.0.0:8000-8002->8000-8002/tcp");
        assert_eq!(
            of(&["8001:8001", "8000:8000", "8003:8003"]),
            "0.0.0.0:8000-8001->8000-8001/tcp, 0.0.0.0:8003->8003/tcp"
        );
        assert_eq!(of(&["90-91:80-81"]), "0.0.0.0:90->80/tcp, 0.0.0.0:91->81/tcp");
        assert_eq!(of(&["80:80", "81:81/udp"]), "0.0.0.0:80->80/tcp, 0.0.0.0:81->81/udp");
        assert_eq!(of(&[]), "");
    }

    #[test]
    fn ranges_are_read() {
        let range = |text: &str| super::range(text).map(|r| (r.first, r.last, r.protocol)).ok();
        assert_eq!(range("80"), Some((80, 80, "tcp".to_owned())));
        assert_eq!(range("80-90/udp"), Some((80, 90, "udp".to_owned())));
        for bad in ["", "x", "90-80", "80/icmp", "70000"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }
}

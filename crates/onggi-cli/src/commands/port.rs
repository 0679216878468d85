//! `onggi port`.

use clap::Args;
use onggi_spec::{
    ParseError,
    port::{PortMapping, Protocol},
};
use serde_json::{Value, json};

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
};

const COLUMNS: Columns = Columns {
    headers: &[
        ("ContainerPort", "CONTAINER PORT"),
        ("Protocol", "PROTOCOL"),
        ("HostIP", "HOST IP"),
        ("HostPort", "HOST PORT"),
    ],
    default: "{{.ContainerPort}}/{{.Protocol}}\t{{.HostIP}}\t{{.HostPort}}",
};

/// Arguments of `port`.
#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
    /// Container
    container: String,
    /// Only where this port of the container is published; of TCP unless said otherwise
    #[arg(value_name = "PORT[/PROTO]")]
    port: Option<String>,
}

impl PortArgs {
    /// Prints `80/tcp -> 0.0.0.0:8080` for each port, and of one port only where it is.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let of = self.port.as_deref().map(parse).transpose()?;
        let ports = global.engine()?.ports(&self.container, of)?;
        let text = match &self.format {
            Some(format) => format::rows(Some(format), &COLUMNS, &ports.iter().map(row).collect::<Vec<_>>())?,
            None => ports.iter().map(|port| line(port, of.is_some()) + "\n").collect(),
        };
        render::stdout(&text)?;
        Ok(0)
    }
}

fn host_port(p: &PortMapping) -> String {
    p.host_port.map_or_else(String::new, |port| port.to_string())
}

fn row(p: &PortMapping) -> Value {
    json!({
        "ContainerPort": p.container_port.get(),
        "Protocol": p.protocol.to_string(),
        "HostIP": p.host_ip.to_string(),
        "HostPort": host_port(p),
    })
}

fn line(p: &PortMapping, bare: bool) -> String {
    let host = format!("{}:{}", p.host_ip, host_port(p));
    if bare { host } else { format!("{}/{} -> {host}", p.container_port, p.protocol) }
}

/// `80`, `80/tcp`, `53/udp`.
fn parse(text: &str) -> Result<(u16, Protocol), ParseError> {
    let wrong = |reason: &str| ParseError::new("port", text, reason).hint("write PORT or PORT/PROTO, as 80 or 53/udp");
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(wrong("the protocol is tcp or udp")),
    };
    match number.parse::<u16>() {
        Ok(port) if port > 0 && number.bytes().all(|b| b.is_ascii_digit()) => Ok((port, protocol)),
        _ => Err(wrong("a port is a number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use onggi_spec::port::parse_publish;

    use super::*;

    #[test]
    fn ports_are_read_with_and_without_their_protocol() {
        assert_eq!(parse("80").ok(), Some((80, Protocol::Tcp)));
        assert_eq!(parse("53/udp").ok(), Some((53, Protocol::Udp)));
        assert_eq!(parse("53/UDP").ok(), Some((53, Protocol::Udp)));
        for bad in ["", "0", "/tcp", "80/", "80/icmp", "70000", "+80", "8080:80", "80/tcp/udp"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_are_dockers() {
        let port = parse_publish("127.0.0.1:8080:80").expect("a port").remove(0);
        assert_eq!(line(&port, false), "80/tcp -> 127.0.0.1:8080");
        assert_eq!(line(&port, true), "127.0.0.1:8080");
    }
}

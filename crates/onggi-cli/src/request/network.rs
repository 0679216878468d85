//! Network, names and ports: whose network it is, /etc/hosts, resolv.conf, and ports that are published by their being named.

use clap::Args;
use onggi_spec::{
    ContainerRequest, NetworkMode, ParseError,
    port::{parse_exposed, parse_publish},
    resolver::{Dns, parse_dns, parse_dns_word, parse_extra_host},
};

/// Options of network, names and ports.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// Network: bridge, none, host, or container:NAME for that of another container
    #[arg(long, visible_alias = "net", default_value = "bridge", value_name = "MODE", allow_hyphen_values = true)]
    network: String,
    /// Add a line to /etc/hosts; the address host-gateway is this machine
    #[arg(long, value_name = "NAME:ADDRESS", allow_hyphen_values = true)]
    add_host: Vec<String>,
    /// Name server, instead of the host's
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    dns: Vec<String>,
    /// Domain in which names are searched, instead of the host's; . is none
    #[arg(long, value_name = "DOMAIN", allow_hyphen_values = true)]
    dns_search: Vec<String>,
    /// Option of the resolver (resolv.conf(5)), instead of the host's
    #[arg(long, alias = "dns-opt", value_name = "OPTION", allow_hyphen_values = true)]
    dns_option: Vec<String>,
    /// Name a port, or a range of them
    #[arg(long, value_name = "PORT[/udp]", allow_hyphen_values = true)]
    expose: Vec<String>,
    /// Publish every port that the image or --expose names, each on a free port of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
}

impl NetworkArgs {
    /// Puts what was asked for into `request`.
    pub(super) fn fill(self, request: &mut ContainerRequest) -> Result<(), ParseError> {
        let Self { network, add_host, dns, dns_search, dns_option, expose, publish_all } = self;
        request.network = parse_network(&network)?;
        request.network_of = network.strip_prefix("container:").map(str::to_owned);
        request.extra_hosts = add_host.iter().map(|text| parse_extra_host(text)).collect::<Result<_, _>>()?;
        request.dns = Dns {
            servers: dns.iter().map(|text| parse_dns(text)).collect::<Result<_, _>>()?,
            search: dns_search.iter().map(|t| parse_dns_word("search domain", t)).collect::<Result<_, _>>()?,
            options: dns_option.iter().map(|t| parse_dns_word("resolver option", t)).collect::<Result<_, _>>()?,
        };
        for text in &expose {
            request.expose.extend(exposed(text)?);
        }
        request.publish_all = publish_all;
        Ok(())
    }
}

fn parse_network(text: &str) -> Result<NetworkMode, ParseError> {
    match text {
        "bridge" | "default" => Ok(NetworkMode::Bridge),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => match text.strip_prefix("container:") {
            Some("") => Err(ParseError::new("network", text, "the container is missing").hint("write container:NAME")),
            Some(_) => Ok(NetworkMode::Container),
            None => {
                Err(ParseError::new("network", text, "no such network")
                    .hint("use bridge, none, host or container:NAME"))
            }
        },
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`, each as `80/tcp`.
fn exposed(text: &str) -> Result<Vec<String>, ParseError> {
    if text.contains(':') {
        return Err(ParseError::new("exposed port", text, "it has a port of the host").hint("use -p HOST:CONTAINER"));
    }
    if !text.contains('-') {
        let (port, protocol) = parse_exposed(text)?;
        return Ok(vec![format!("{port}/{protocol}")]);
    }
    let range = parse_publish(text)?;
    Ok(range.iter().map(|p| format!("{}/{}", p.container_port, p.protocol)).collect())
}

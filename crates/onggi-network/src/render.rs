//! A plan in words, and as shell commands of ip(8), nft(8) and sysctl(8) that build the same by hand.
//!
//! The script expects the variable `NETNS`: the name of the namespace that `ip netns add` makes for the
//! container. It sets `NETNS_DIR` where that mounts [`NAMED_NAMESPACES`], which whoever cleans up unmounts.
//! Every value in it comes from a typed field (addresses, numbers, hexadecimal ids, our own device names), so
//! nothing needs quoting beyond what is here.

use crate::{
    element::Element,
    plan::{NetOp, NetworkPlan, Side},
    table::{self, TABLE},
};

/// Where ip-netns(8) keeps named network namespaces; its first `add` on a machine mounts this directory on itself.
pub const NAMED_NAMESPACES: &str = "/run/netns";

impl NetworkPlan {
    /// One line per operation, then the warnings.
    pub fn words(&self) -> String {
        let mut out = String::new();
        for op in &self.ops {
            out += &op.words();
            out.push('\n');
        }
        for warning in &self.warnings {
            out += &format!("warning: {warning}\n");
        }
        out
    }

    /// Commands for sh(1), to be run as root with `NETNS` set.
    pub fn shell(&self) -> String {
        let mut out = String::new();
        let mut firewall = String::new();
        for warning in &self.warnings {
            out += &format!("# warning: {warning}\n");
        }
        for op in &self.ops {
            match op {
                NetOp::InstallTable { restore, .. } => firewall += &(table::text() + &elements_text(restore)),
                NetOp::AddElements { elements } => firewall += &elements_text(elements),
                other => out += &other.shell(),
            }
        }
        if !firewall.is_empty() {
            out += &format!("nft -f - <<'NFT'\n{firewall}NFT\n");
        }
        out
    }
}

impl NetOp {
    /// The operation as a sentence.
    pub fn words(&self) -> String {
        match self {
            Self::TakeLease { network, ip, .. } => format!("lease address {ip} of network {network}"),
            Self::ReservePort { port } => {
                format!(
                    "bind {} port {} on {}, so that no other program takes it",
                    port.protocol, port.host_port, port.host_ip
                )
            }
            Self::Sysctl { key, value } => format!("set {key} to {value}"),
            Self::CreateNetns { sysctls } if sysctls.is_empty() => "create a network namespace".to_owned(),
            Self::CreateNetns { sysctls } => format!("create a network namespace with {}", pairs(sysctls)),
            Self::CreateBridge { name, mac, mtu } => format!("create bridge {name} ({mac}, MTU {mtu})"),
            Self::CreateVeth { name, bridge, peer, peer_mac, mtu, .. } => {
                format!(
                    "create a veth pair (MTU {mtu}): {name} on {bridge}, hairpin on; {peer} ({peer_mac}) inside the namespace"
                )
            }
            Self::NoLinkLocal { name } => format!("give {name} no IPv6 link-local address"),
            Self::AddAddress { side, link, ip, subnet } => {
                format!("add address {ip}/{} to {link}{}", subnet.prefix(), place(*side))
            }
            Self::LinkUp { side, link } => format!("bring {link} up{}", place(*side)),
            Self::AddDefaultRoute { via } => format!("add the default route via {via} inside the namespace"),
            Self::InstallTable { restore, .. } => {
                let (rules, kept) = (table::fingerprint().len(), restore.len());
                format!("install the nftables table ip {TABLE} ({rules} rules), restoring {kept} published ports")
            }
            Self::SaveRecord => "write the record of published ports, for rebuilding a flushed table".to_owned(),
            Self::ForgetFlows { ports } => {
                let numbers: Vec<_> = ports.iter().map(|p| p.host_port.to_string()).collect();
                format!("forget tracked UDP flows of this host to port {}", numbers.join(", "))
            }
            Self::AddElements { elements } => {
                let texts: Vec<_> = elements.iter().map(element_words).collect();
                format!("in one nftables transaction: {}", texts.join("; "))
            }
        }
    }

    /// The operation as commands; firewall operations are collected by the plan.
    fn shell(&self) -> String {
        match self {
            Self::TakeLease { .. } | Self::ReservePort { .. } | Self::SaveRecord | Self::ForgetFlows { .. } => {
                format!("# onggi: {}\n", self.words())
            }
            Self::Sysctl { key, value } => format!("sysctl -qw {key}={value}\n"),
            Self::CreateNetns { sysctls } => {
                let mut out = format!("mountpoint -q {NAMED_NAMESPACES} || NETNS_DIR=made\nip netns add \"$NETNS\"\n");
                for (key, value) in sysctls {
                    out += &format!("ip netns exec \"$NETNS\" sysctl -qw {key}={value}\n");
                }
                out
            }
            Self::CreateBridge { name, mac, mtu } => format!(
                "ip link show dev {name} >/dev/null 2>&1 || ip link add name {name} address {mac} mtu {mtu} type bridge\n"
            ),
            Self::CreateVeth { name, bridge, peer, peer_mac, mtu, alias } => format!(
                "ip link add name {name} mtu {mtu} master {bridge} type veth \
                 peer name {peer} address {peer_mac} mtu {mtu} netns \"$NETNS\"\n\
                 ip link set dev {name} alias {alias}\n\
                 ip link set dev {name} type bridge_slave hairpin on\n"
            ),
            Self::NoLinkLocal { name } => format!("ip link set dev {name} addrgenmode none\n"),
            Self::AddAddress { side, link, ip, subnet } => {
                let (prefix, broadcast) = (subnet.prefix(), subnet.broadcast());
                format!("ip{} addr replace {ip}/{prefix} broadcast {broadcast} dev {link}\n", option(*side))
            }
            Self::LinkUp { side, link } => format!("ip{} link set dev {link} up\n", option(*side)),
            Self::AddDefaultRoute { via } => format!("ip{} route add default via {via}\n", option(Side::Container)),
            Self::InstallTable { .. } | Self::AddElements { .. } => String::new(),
        }
    }
}

fn option(side: Side) -> &'static str {
    match side {
        Side::Host => "",
        Side::Container => " -n \"$NETNS\"",
    }
}

fn place(side: Side) -> &'static str {
    match side {
        Side::Host => "",
        Side::Container => " inside the namespace",
    }
}

fn pairs(settings: &[(String, String)]) -> String {
    settings.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn elements_text(elements: &[Element]) -> String {
    elements.iter().map(|e| format!("add element ip {TABLE} {} {{ {} }}\n", e.set(), e.text())).collect()
}

fn element_words(element: &Element) -> String {
    match element {
        Element::Published { port, to, .. } => {
            format!("publish {}:{} as {to}:{} ({})", port.host_ip, port.host_port, port.container_port, port.protocol)
        }
        Element::Subnet { subnet } => format!("masquerade {subnet}"),
        Element::Bridge { name } => format!("{name} is a container bridge"),
        Element::Peers { name } => format!("containers on {name} may talk to each other"),
    }
}

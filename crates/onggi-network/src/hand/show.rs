//! A plan in words, and as commands of ip(8), nft(8) and sysctl(8).

use onggi_spec::shell::quote;

use super::{End, HandOp, HandPlan, Place};

impl HandPlan {
    /// One line per operation, then the warnings.
    pub fn words(&self) -> String {
        let mut out: String = self.ops.iter().map(|op| op.words() + "\n").collect();
        if self.ops.is_empty() {
            out += "nothing is to be done: it is so already\n";
        }
        out + &self.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect::<String>()
    }

    /// A script for sh(1), to be run as root.
    pub fn shell(&self) -> String {
        let warnings: String = self.warnings.iter().map(|warning| format!("# warning: {warning}\n")).collect();
        format!("set -eu\n{warnings}{}", self.ops.iter().map(|op| op.shell() + "\n").collect::<String>())
    }
}

impl HandOp {
    /// As a sentence.
    pub fn words(&self) -> String {
        match self {
            Self::CreateNamespace { path } => format!("create a network namespace, kept by {}", path.display()),
            Self::CreateVeth { a, b, .. } => {
                format!("create a veth pair: {} in {}, {} in {}", a.link, a.place.name, b.link, b.place.name)
            }
            Self::CreateBridge { link } => format!("create bridge {link}"),
            Self::SetMaster { link, bridge } => format!("make {link} a port of {bridge}"),
            Self::AddAddress { end, address } => format!("add address {address} to {} in {}", end.link, end.place.name),
            Self::LinkUp { end } => format!("bring {} up in {}", end.link, end.place.name),
            Self::AddDefaultRoute { place, via } => format!("add the default route via {via} in {}", place.name),
            Self::Sysctl { key, value } => format!("set {key} to {value}"),
            Self::InstallNat { table, subnet, bridge } => {
                format!(
                    "install the nftables table ip {table}: masquerade {subnet} when it leaves by another device than {bridge}"
                )
            }
            Self::RemoveNat { table } => format!("delete the nftables table ip {table}"),
            Self::DeleteLink { end } => format!("delete {} in {}", end.link, end.place.name),
        }
    }

    fn shell(&self) -> String {
        match self {
            Self::CreateNamespace { path } => {
                format!("ip netns add {}", quote(&path.file_name().unwrap_or_default().to_string_lossy()))
            }
            Self::CreateVeth { a, b, alias } => {
                let to = b.place.path.as_ref().map(|path| format!(" netns {}", quote(&path.display().to_string())));
                // Seen from inside of another one, the caller's own has no name but this.
                let to =
                    to.unwrap_or_else(|| if a.place.path.is_none() { String::new() } else { " netns $$".to_owned() });
                let mut out = format!("{} link add name {} type veth peer name {}{to}", ip(&a.place), a.link, b.link);
                if let Some(alias) = alias {
                    out += &format!("\n{} link set dev {} alias {}", ip(&a.place), a.link, quote(alias));
                }
                out
            }
            Self::CreateBridge { link } => format!("ip link add name {link} type bridge"),
            Self::SetMaster { link, bridge } => format!("ip link set dev {link} master {bridge}"),
            Self::AddAddress { end: End { place, link }, address } => {
                format!("{} addr replace {address} dev {link}", ip(place))
            }
            Self::LinkUp { end: End { place, link } } => format!("{} link set dev {link} up", ip(place)),
            Self::AddDefaultRoute { place, via } => format!("{} route add default via {via}", ip(place)),
            Self::Sysctl { key, value } => format!("sysctl -qw {key}={value}"),
            Self::InstallNat { table, subnet, bridge } => format!(
                "nft -f - <<'NFT'\ntable ip {table}\ndelete table ip {table}\ntable ip {table} {{\n  chain postrouting {{\n    \
                 type nat hook postrouting priority srcnat; policy accept;\n    \
                 ip saddr {subnet} oifname != \"{bridge}\" masquerade\n  }}\n}}\nNFT"
            ),
            Self::RemoveNat { table } => format!("nft delete table ip {table}"),
            Self::DeleteLink { end: End { place, link } } => format!("{} link del dev {link}", ip(place)),
        }
    }
}

/// ip(8) in a place.
fn ip(place: &Place) -> String {
    match &place.path {
        None => "ip".to_owned(),
        Some(path) => format!("nsenter --net={} ip", quote(&path.display().to_string())),
    }
}

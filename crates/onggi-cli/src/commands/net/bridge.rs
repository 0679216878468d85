//! `onggi net bridge`.

use std::net::IpAddr;

use clap::Args;
use onggi_network::hand::{Attach, BridgeWish, Cidr, Place, look, plan_bridge_by_hand, plan_remove_bridge};
use onggi_spec::ParseError;

use super::{
    carry_out,
    connect::with_missing,
    failed,
    place::{Found, place, views},
};
use crate::{cli::GlobalArgs, commands::explain::ExplainArg, error::CliError};

/// Arguments of `net bridge`.
#[derive(Debug, Args)]
pub(crate) struct BridgeArgs {
    /// The bridge's own address, as in 10.10.0.1/24
    #[arg(short, long, value_name = "ADDRESS/LENGTH")]
    address: Option<Cidr>,
    /// Translate what leaves the bridge's network for elsewhere, so that answers come back
    #[arg(long)]
    nat: bool,
    /// Attach a namespace, with an address, and a device name that is not eth0; may be repeated
    #[arg(long, value_name = "NS[=ADDRESS[/LENGTH]][,NAME]")]
    attach: Vec<AttachArg>,
    /// Make a namespace in /run/netns for a name that is nothing yet
    #[arg(short, long)]
    create: bool,
    /// Take the bridge away, with its NAT and with what --attach made
    #[arg(long, conflicts_with_all = ["address", "nat", "attach", "create"])]
    remove: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Name of the device
    name: String,
}

/// `--attach`.
#[derive(Debug, Clone)]
struct AttachArg {
    namespace: String,
    attach: Attach,
}

impl std::str::FromStr for AttachArg {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("attachment", text, "expected NS=ADDRESS").hint("as in blue=10.10.0.2/24");
        let (rest, link) = text.split_once(',').unwrap_or((text, "eth0"));
        let (namespace, address) = match rest.split_once('=') {
            None => (rest, None),
            Some((namespace, address)) => (namespace, Some(address)),
        };
        let (ip, prefix) = match address.map(|a| a.split_once('/').map_or((a, None), |(ip, p)| (ip, Some(p)))) {
            None => (None, None),
            Some((ip, prefix)) => {
                let prefix = prefix.map(str::parse::<u8>).transpose().map_err(|_| wrong())?;
                (Some(ip.parse::<IpAddr>().map_err(|_| wrong())?), prefix)
            }
        };
        if namespace.is_empty() {
            return Err(wrong());
        }
        Ok(Self { namespace: namespace.to_owned(), attach: Attach { link: link.to_owned(), address: ip, prefix } })
    }
}

impl BridgeArgs {
    /// Makes it; what is so already stays.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        if self.remove {
            let views = look(&[Place::host()]).map_err(failed)?;
            let plan = plan_remove_bridge(&self.name, &views[0]).map_err(failed)?;
            return carry_out(&plan, self.explain);
        }
        let mut found = vec![Found { place: Place::host(), missing: None }];
        for one in &self.attach {
            found.push(place(&one.namespace, self.create, global)?);
        }
        let wish = BridgeWish {
            name: self.name,
            address: self.address,
            nat: self.nat,
            attach: self.attach.into_iter().map(|one| one.attach).collect(),
        };
        let plan = plan_bridge_by_hand(&wish, &views(&found)?).map_err(failed)?;
        carry_out(&with_missing(&found, plan), self.explain)
    }
}

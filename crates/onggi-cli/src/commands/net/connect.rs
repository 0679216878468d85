//! `onggi net connect`.

use clap::Args;
use onggi_network::hand::{Cidr, ConnectRequest, HandPlan, plan_connect, plan_disconnect};

use super::{
    carry_out, failed,
    place::{Found, place, views},
};
use crate::{cli::GlobalArgs, commands::explain::ExplainArg, error::CliError};

/// Arguments of `net connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// An address, as in 10.0.123.1/24: the first is the first end's, the second the second's
    #[arg(short, long, value_name = "ADDRESS/LENGTH", value_delimiter = ',')]
    address: Vec<Cidr>,
    /// A device name: the first is the first end's, the second the second's [default: to-OTHER]
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    name: Vec<String>,
    /// Make a namespace in /run/netns for a name that is nothing yet
    #[arg(short, long)]
    create: bool,
    /// Take the pair away
    #[arg(long, conflicts_with_all = ["address", "create"])]
    remove: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// `host`, a process, a running container, a file, or a name in /run/netns
    #[arg(value_name = "NS")]
    a: String,
    /// The other one
    #[arg(value_name = "NS")]
    b: String,
}

impl ConnectArgs {
    /// Connects them; what is so already stays.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        for (what, count) in [("addresses", self.address.len()), ("names", self.name.len())] {
            if count > 2 {
                return Err(CliError::usage(format!("{count} {what} for two ends"), "give one or two"));
            }
        }
        let found = [place(&self.a, self.create, global)?, place(&self.b, self.create, global)?];
        let views: [_; 2] = match views(&found)?.try_into() {
            Ok(pair) => pair,
            Err(_) => return Err(CliError::usage("two namespaces are to be connected", "name both")),
        };
        let request = ConnectRequest { names: self.name, addresses: self.address };
        let plan = match self.remove {
            true => plan_disconnect(&request, &views).map_err(failed)?,
            false => plan_connect(&request, &views).map_err(failed)?,
        };
        carry_out(&with_missing(&found, plan), self.explain)
    }
}

/// New namespaces first.
pub(super) fn with_missing(found: &[Found], plan: HandPlan) -> HandPlan {
    let mut ops: Vec<_> = found.iter().filter_map(|f| f.missing.clone()).collect();
    ops.extend(plan.ops);
    HandPlan { ops, ..plan }
}

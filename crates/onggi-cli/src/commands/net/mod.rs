//! `onggi net …`: what there is on the network, in every namespace, and veth pairs and bridges by hand.

mod bridge;
mod connect;
mod ls;
mod place;
mod repair;

use clap::Subcommand;
use onggi_network::{NetworkError, hand::HandPlan};

use crate::{cli::GlobalArgs, commands::explain::ExplainArg, error::CliError, render};

/// `onggi net …`.
#[derive(Debug, Subcommand)]
pub(crate) enum NetCommand {
    /// Show devices, addresses, routes, translations and published ports of every network namespace
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    /// Connect two network namespaces by a veth pair
    Connect(connect::ConnectArgs),
    /// Make a bridge, with what is attached to it and NAT on request
    Bridge(bridge::BridgeArgs),
    /// Put back what is missing of the firewall table of the bridge network
    Repair(repair::RepairArgs),
}

impl NetCommand {
    /// Carries out the command.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Ls(args) => args.run(global),
            Self::Connect(args) => args.run(global),
            Self::Bridge(args) => args.run(global),
            Self::Repair(args) => args.run(global),
        }
    }
}

/// Shows the plan, or does it.
fn carry_out(plan: &HandPlan, explain: ExplainArg) -> Result<u8, CliError> {
    if !explain.shown(plan)? {
        plan.apply().map_err(failed)?;
        render::notes(&plan.warnings)?;
    }
    Ok(0)
}

fn failed(e: NetworkError) -> CliError {
    CliError::ByHand(e)
}

//! `onggi ns …`: namespaces that exist, what is in them, and how to get into them.

pub(super) mod child;
mod diff;
mod enter;
mod inspect;
mod kinds;
pub(super) mod ls;
mod run;

use clap::Subcommand;

use crate::{cli::GlobalArgs, error::CliError};

/// `onggi ns …`.
#[derive(Debug, Subcommand)]
pub(crate) enum NsCommand {
    /// List namespaces, the processes in them and the containers that they belong to
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    /// Show the namespaces of a process or container
    Inspect(inspect::InspectArgs),
    /// Show which namespaces two processes or containers share
    Diff(diff::DiffArgs),
    /// Run a command in new namespaces
    Run(Box<run::RunArgs>),
    /// The child of `ns run`
    #[command(name = "__inside", hide = true)]
    Inside(run::InsideArgs),
    /// The helper of `ns run`
    #[command(name = "__outside", hide = true)]
    Outside(run::OutsideArgs),
    /// Release namespaces that files keep
    #[command(visible_alias = "remove")]
    Rm(run::RmArgs),
    /// Run a command in namespaces of a process or container, or of a file that keeps one
    Enter(Box<enter::EnterArgs>),
}

impl NsCommand {
    /// Carries out the command.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Ls(args) => args.run(global),
            Self::Inspect(args) => args.run(global),
            Self::Diff(args) => args.run(global),
            Self::Enter(args) => args.run(global),
            Self::Run(args) => args.run(global),
            Self::Inside(args) => args.run(),
            Self::Outside(args) => args.run(),
            Self::Rm(args) => args.run(),
        }
    }
}

//! `onggi cgroup rm`, as cgdelete(1).

use clap::Args;
use onggi_primitives::cgroup::{Group, GroupPlan, Leftover, plan_remove, remove_facts};

use super::{found, paths};
use crate::{commands::explain::ExplainArg, error::CliError};

/// Arguments of `cgroup rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// A group in the hierarchies of these controllers, as for cgdelete
    #[arg(short = 'g', value_name = "CONTROLLERS:PATH")]
    named: Vec<Group>,
    /// Groups below it too
    #[arg(short, long)]
    recursive: bool,
    /// Processes go to the parent, as with cgdelete
    #[arg(short = 'p', long, conflicts_with = "kill")]
    to_parent: bool,
    /// Processes are killed
    #[arg(short, long)]
    kill: bool,
    /// A group that is not there is no error
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Paths from the root of the hierarchy
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
}

impl RmArgs {
    /// Removes the groups.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let leftover = match (self.to_parent, self.kill) {
            (true, _) => Leftover::ToParent,
            (_, true) => Leftover::Kill,
            _ => Leftover::Refuse,
        };
        let mut plan = GroupPlan::default();
        for group in paths(&self.named, &self.groups)? {
            let places = match found(&group) {
                Ok((_, places)) => places,
                Err(CliError::Group(onggi_primitives::cgroup::GroupError::NoGroup { .. })) if self.force => continue,
                Err(e) => return Err(e),
            };
            let facts = remove_facts(&places)?;
            plan.ops.extend(plan_remove(&group, &places, &facts, self.recursive, leftover)?.ops);
        }
        self.explain.show_or_apply(&plan)?;
        Ok(0)
    }
}

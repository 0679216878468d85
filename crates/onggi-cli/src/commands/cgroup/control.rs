//! `onggi cgroup freeze`, `thaw` and `kill`.

use clap::Args;
use onggi_primitives::cgroup::{GroupPlan, covering, freezer_plan, freezes, plan_kill};
use onggi_spec::signal::parse_signal;

use super::{found, subject::groups};
use crate::{cli::GlobalArgs, commands::explain::ExplainArg, error::CliError};

/// What a freezer is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Processes stand still.
    Frozen,
    /// They run.
    Thawed,
}

/// Arguments of `cgroup freeze` and `thaw`.
#[derive(Debug, Args)]
pub(crate) struct FreezeArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Paths from the root of the hierarchy, or running containers
    #[arg(value_name = "GROUP", required = true)]
    groups: Vec<String>,
}

impl FreezeArgs {
    /// Freezes or thaws, and returns when it is so.
    pub(crate) fn run(self, state: State, global: &GlobalArgs) -> Result<u8, CliError> {
        let mut plan = GroupPlan::default();
        for group in groups(&[], &self.groups, global)? {
            let mut places = found(&group)?.1;
            if state == State::Frozen {
                places.retain(freezes);
                places = covering(places)?;
            }
            plan.ops.extend(freezer_plan(&group, &places, state == State::Frozen)?.ops);
        }
        self.explain.show_or_apply(&plan)?;
        Ok(0)
    }
}

/// Arguments of `cgroup kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The signal
    #[arg(short, long, default_value = "KILL", value_name = "SIGNAL")]
    signal: String,
    #[command(flatten)]
    explain: ExplainArg,
    /// Paths from the root of the hierarchy, or running containers
    #[arg(value_name = "GROUP", required = true)]
    groups: Vec<String>,
}

impl KillArgs {
    /// Sends the signal to every process of the groups and of those below them.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let signal = parse_signal(&self.signal)?;
        let mut plan = GroupPlan::default();
        for group in groups(&[], &self.groups, global)? {
            plan.ops.extend(plan_kill(&group, &covering(found(&group)?.1)?, signal)?.ops);
        }
        self.explain.show_or_apply(&plan)?;
        Ok(0)
    }
}

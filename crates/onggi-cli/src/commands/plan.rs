//! Plans that are shown instead of carried out, and plans that end in a command.

use std::ffi::OsString;

use clap::Args;
use onggi_primitives::{Stage, UnsharePlan, apply};
use serde::Serialize;

use super::{
    ns::child::{self, Become},
    run::ExplainFormat,
};
use crate::{
    error::CliError,
    render::{self, format},
};

/// `--explain`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ExplainArgs {
    /// Print what would be done, without doing it: in words, as JSON, or as a shell script
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "words")]
    explain: Option<ExplainFormat>,
}

/// A plan that can be read.
pub(crate) trait Plan: Serialize {
    /// One line per operation.
    fn words(&self) -> String;
    /// A script for sh(1) that does the same.
    fn shell(&self) -> String;
}

impl Plan for UnsharePlan {
    fn words(&self) -> String {
        self.words()
    }

    fn shell(&self) -> String {
        self.shell()
    }
}

impl ExplainArgs {
    /// Shows the plan; false when it is to be carried out.
    pub(crate) fn show(self, plan: &impl Plan) -> Result<bool, CliError> {
        let Some(wanted) = self.explain else { return Ok(false) };
        render::stdout(&match wanted {
            ExplainFormat::Words => plan.words(),
            ExplainFormat::Json => format::pretty(&serde_json::to_value(plan)?)? + "\n",
            ExplainFormat::Sh => plan.shell(),
        })?;
        Ok(true)
    }
}

/// Becomes the plan's command, or its parent. Without a command there is nothing more to do.
pub(crate) fn carry_out(plan: &UnsharePlan) -> Result<u8, CliError> {
    match apply(plan)? {
        Stage::Execute(command) if command.is_empty() => Ok(0),
        Stage::Execute(command) => child::run(&command, Become::Command),
        // This program again: what a forked copy of it could do without a thread of its own is little.
        Stage::Fork(rest) => {
            let own = ["/proc/self/exe", "ns", "__inside"].map(OsString::from);
            let words = [&own[..], &[serde_json::to_string(&rest)?.into()]].concat();
            child::run(&words, Become::Child)
        }
    }
}

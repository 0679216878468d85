//! Plans that are shown instead of carried out, and plans that end in a command.

use std::{
    ffi::OsString,
    process::{Child, Command, Stdio},
};

use clap::Args;
use onggi_primitives::{Outside, Stage, UnsharePlan, apply};
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
    let mut helper = plan.outside().map(Helper::start).transpose()?;
    let mut stage = apply(plan)?;
    loop {
        match stage {
            Stage::Execute(command) if command.is_empty() => return Ok(0),
            Stage::Execute(command) => return child::run(&command, Become::Command),
            Stage::Outside(rest) => {
                if let Some(helper) = &mut helper {
                    helper.begin()?;
                }
                stage = apply(&rest)?;
            }
            // This program again: what a forked copy of it could do without a thread of its own is little.
            Stage::Fork(rest) => {
                let own = ["/proc/self/exe", "ns", "__inside"].map(OsString::from);
                let words = [&own[..], &[serde_json::to_string(&rest)?.into()]].concat();
                let code = child::run(&words, Become::Child)?;
                return helper.map_or(Ok(code), |helper| helper.finish(code));
            }
        }
    }
}

/// This program again, outside of the namespaces that this process is about to enter.
struct Helper {
    child: Child,
    waits: bool,
}

impl Helper {
    fn start(outside: &Outside) -> Result<Self, CliError> {
        let failed = |source| CliError::Execute { program: "the helper outside".to_owned(), source };
        let mut command = Command::new("/proc/self/exe");
        command.args(["ns", "__outside"]).arg(serde_json::to_string(outside)?).stdin(Stdio::piped());
        Ok(Self { child: command.spawn().map_err(failed)?, waits: outside.waits_for_child() })
    }

    /// The namespaces are there. What needs no child of theirs is done when this returns.
    fn begin(&mut self) -> Result<(), CliError> {
        drop(self.child.stdin.take());
        if self.waits { Ok(()) } else { self.wait() }
    }

    fn wait(&mut self) -> Result<(), CliError> {
        let failed = |source| CliError::Execute { program: "the helper outside".to_owned(), source };
        match self.child.wait().map_err(failed)?.success() {
            true => Ok(()),
            false => Err(CliError::usage("the helper outside failed, as it says", "nothing was run")),
        }
    }

    fn finish(mut self, code: u8) -> Result<u8, CliError> {
        if self.waits {
            self.wait()?;
        }
        Ok(code)
    }
}

//! `--explain` of every command that changes something: one argument, one way of printing.

use clap::{Args, ValueEnum};
use onggi_engine::VerbPlan;
use serde_json::Value;

use crate::{
    error::CliError,
    render::{self, format},
};

/// How a plan is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainFormat {
    /// One sentence per kernel operation.
    Words,
    /// The plan's own structure.
    Json,
    /// A script of util-linux, iproute2 and nft commands.
    Sh,
}

/// `--explain[=words|json|sh]`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ExplainArg {
    /// Print what would be done, without doing it: in words, as JSON, or as a shell script
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "words")]
    pub(crate) explain: Option<ExplainFormat>,
}

impl ExplainArg {
    /// When it is given: prints the plans and returns the exit code. The verb is then not carried out.
    pub(crate) fn show(self, plans: impl FnOnce() -> Result<Vec<VerbPlan>, CliError>) -> Result<Option<u8>, CliError> {
        let Some(wanted) = self.explain else { return Ok(None) };
        let plans = plans()?;
        render::stdout(&text(wanted, &plans)?)?;
        Ok(Some(0))
    }

    /// One plan for each name.
    pub(crate) fn each<E>(
        self,
        names: &[String],
        plan: impl FnMut(&String) -> Result<VerbPlan, E>,
    ) -> Result<Option<u8>, CliError>
    where
        CliError: From<E>,
    {
        self.show(|| Ok(names.iter().map(plan).collect::<Result<Vec<_>, E>>()?))
    }
}

fn text(wanted: ExplainFormat, plans: &[VerbPlan]) -> Result<String, CliError> {
    let joined = |one: fn(&VerbPlan) -> String| plans.iter().map(one).collect::<Vec<_>>().join("\n");
    Ok(match (wanted, plans) {
        (ExplainFormat::Words, _) => joined(VerbPlan::words),
        (ExplainFormat::Sh, _) => joined(VerbPlan::shell),
        (ExplainFormat::Json, [one]) => format::pretty(&one.json())? + "\n",
        (ExplainFormat::Json, all) => format::pretty(&Value::Array(all.iter().map(VerbPlan::json).collect()))? + "\n",
    })
}

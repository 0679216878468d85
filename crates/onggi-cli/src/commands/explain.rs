//! `--explain` of every command that changes something: one argument, one way of printing.

use clap::{Args, ValueEnum};
use onggi_engine::{BootstrapPlan, Explanation, MountPlan, VerbPlan};
use onggi_network::{NetworkPlan, hand::HandPlan};
use onggi_primitives::{
    AuditPlan, EnterPlan, FileCapsPlan, ForgetPlan, OverlayPlan, UnsharePlan,
    cgroup::{GroupPlan, Persist},
    limit::LimitPlan,
};
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

/// A plan that can be read.
pub(crate) trait Plan {
    /// One line per operation.
    fn words(&self) -> String;
    /// A script for sh(1) that does the same.
    fn shell(&self) -> String;
    /// Its own structure.
    fn json(&self) -> Result<Value, CliError>;
}

/// Plans that have these forms of their own; their structure is that of the type.
macro_rules! plans {
    ($($plan:ty),+ $(,)?) => {
        $(impl Plan for $plan {
            fn words(&self) -> String {
                <$plan>::words(self)
            }

            fn shell(&self) -> String {
                <$plan>::shell(self)
            }

            fn json(&self) -> Result<Value, CliError> {
                Ok(serde_json::to_value(self)?)
            }
        })+
    };
}

plans!(
    AuditPlan,
    BootstrapPlan,
    EnterPlan,
    FileCapsPlan,
    ForgetPlan,
    GroupPlan,
    HandPlan,
    LimitPlan,
    MountPlan,
    NetworkPlan,
    OverlayPlan,
    Persist,
    UnsharePlan,
);

impl Plan for Explanation {
    fn words(&self) -> String {
        Self::words(self)
    }

    fn shell(&self) -> String {
        Self::shell(self)
    }

    fn json(&self) -> Result<Value, CliError> {
        Ok(Self::json(self))
    }
}

/// One after the other; a single one is not in a list.
impl Plan for [VerbPlan] {
    fn words(&self) -> String {
        self.iter().map(VerbPlan::words).collect::<Vec<_>>().join("\n")
    }

    fn shell(&self) -> String {
        self.iter().map(VerbPlan::shell).collect::<Vec<_>>().join("\n")
    }

    fn json(&self) -> Result<Value, CliError> {
        Ok(match self {
            [one] => one.json(),
            all => Value::Array(all.iter().map(VerbPlan::json).collect()),
        })
    }
}

impl ExplainArg {
    /// Shows a plan; false when it is to be carried out.
    pub(crate) fn shown(self, plan: &(impl Plan + ?Sized)) -> Result<bool, CliError> {
        let Some(wanted) = self.explain else { return Ok(false) };
        render::stdout(&match wanted {
            ExplainFormat::Words => plan.words(),
            ExplainFormat::Json => format::pretty(&plan.json()?)? + "\n",
            ExplainFormat::Sh => plan.shell(),
        })?;
        Ok(true)
    }

    /// When it is given: makes and shows the plans of a verb, and returns the exit code. The verb is then not carried out.
    pub(crate) fn show(self, plans: impl FnOnce() -> Result<Vec<VerbPlan>, CliError>) -> Result<Option<u8>, CliError> {
        if self.explain.is_none() {
            return Ok(None);
        }
        self.shown(plans()?.as_slice())?;
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

//! `onggi cgroup set`, as cgset(1), in one vocabulary.

use clap::Args;
use onggi_primitives::cgroup::{Group, GroupPlan, KEYS, device_numbers, plan_set};

use super::{Done, facts, subject::groups};
use crate::{cli::GlobalArgs, commands::explain::ExplainArg, error::CliError, render};

/// Arguments of `cgroup set`.
#[derive(Debug, Args)]
#[command(after_help = vocabulary())]
pub(crate) struct SetArgs {
    /// A group in the hierarchies of these controllers
    #[arg(short = 'g', value_name = "CONTROLLERS:PATH")]
    named: Vec<Group>,
    /// A setting, as for cgset; then all other arguments are groups
    #[arg(short = 'r', long = "variable", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Do not tell how settings were translated
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Group or container, then settings
    #[arg(value_name = "GROUP KEY=VALUE")]
    words: Vec<String>,
}

fn vocabulary() -> String {
    let mut text = String::from("Settings (names of control files of either version are settings too):\n");
    for key in KEYS {
        text += &format!("  {:<14} {}\n", key.name, key.meaning);
    }
    text
}

impl SetArgs {
    /// Changes all limits, or none where one is refused.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let (named, settings) = self.split(global)?;
        let pairs = settings.iter().map(|text| pair(text)).collect::<Result<Vec<_>, _>>()?;
        if pairs.is_empty() {
            return Err(CliError::usage("there is no setting", "write KEY=VALUE, as cpus=0.5 memory=100M"));
        }
        let devices = device_numbers(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
        let (mut all, mut told) = (GroupPlan::default(), Vec::new());
        for group in &named {
            let (layout, facts) = facts(group)?;
            let (plan, translations) = plan_set(&layout, group, &facts, &pairs, &devices)?;
            all.ops.extend(plan.ops);
            all.notes.extend(plan.notes);
            told.extend(translations);
        }
        if self.explain.show_or_apply(&all)? == Done::Applied && !self.quiet {
            told.iter().try_for_each(|translation| render::line(&translation.to_string()))?;
        }
        Ok(0)
    }

    /// With `-g` or `-r` the words are only settings or only groups.
    fn split(&self, global: &GlobalArgs) -> Result<(Vec<Group>, Vec<String>), CliError> {
        match (self.named.is_empty(), self.settings.is_empty()) {
            (true, true) => {
                let (group, settings) = self.words.split_at(self.words.len().min(1));
                Ok((groups(&[], group, global)?, settings.to_vec()))
            }
            (false, true) => Ok((self.named.clone(), self.words.clone())),
            (_, false) => Ok((groups(&self.named, &self.words, global)?, self.settings.clone())),
        }
    }
}

fn pair(text: &str) -> Result<(String, String), CliError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(CliError::usage(
            format!("{text:?} is no setting"),
            "write GROUP first, then KEY=VALUE, as cpus=0.5 memory=100M",
        )),
    }
}

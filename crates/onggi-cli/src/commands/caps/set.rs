//! `onggi caps set`, as setcap(8).

use std::path::PathBuf;

use clap::Args;
use onggi_primitives::{CapabilityText, FileCapsPlan, capability_text, file_capabilities};

use crate::{cli::GlobalArgs, commands::explain::ExplainArg, error::CliError, render};

/// Arguments of `caps set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Take the capabilities away
    #[arg(short, long)]
    remove: bool,
    /// Only compare: exit code 1 when the file has others
    #[arg(short, long, conflicts_with_all = ["remove", "explain"])]
    verify: bool,
    /// They count in the user namespace whose root is this uid of the machine
    #[arg(short = 'n', long, visible_alias = "root-uid", value_name = "UID", conflicts_with = "remove")]
    rootid: Option<u32>,
    #[command(flatten)]
    explain: ExplainArg,
    /// The file, then capabilities as in cap_net_raw+ep (either may come first, as setcap has it); with --remove files alone
    #[arg(required = true, value_name = "FILE|CAPS", allow_hyphen_values = true)]
    words: Vec<String>,
}

impl SetArgs {
    /// Changes the files.
    pub(crate) fn run(self, _global: &GlobalArgs) -> Result<u8, CliError> {
        if self.remove {
            let files: Vec<PathBuf> = self.words.iter().map(PathBuf::from).collect();
            return carry_out(&FileCapsPlan::new(&files, None), self.explain);
        }
        let [a, b] = self.words.as_slice() else {
            return Err(CliError::usage(
                "expected a file and its capabilities",
                "as in: onggi caps set FILE cap_net_raw+ep",
            ));
        };
        // setcap(8) has the text first; a file that is called like one can be written with a slash.
        let is_text = |word: &str| !word.contains('/') && word.parse::<CapabilityText>().is_ok();
        let (file, text) = if is_text(a) && !is_text(b) { (b, a) } else { (a, b) };
        if text.trim().is_empty() {
            return Err(CliError::usage(
                "the capabilities are an empty text",
                "name them, as in cap_net_raw+ep; --remove takes all away, and = leaves a file with none",
            ));
        }
        let caps = text.parse::<CapabilityText>()?.for_file(self.rootid)?;
        let file = PathBuf::from(file);
        if !self.verify {
            return carry_out(&FileCapsPlan::new(&[file], Some(caps)), self.explain);
        }
        let found = file_capabilities(&file)?;
        if found == Some(caps) || (found.is_none() && caps.permitted | caps.inheritable == 0) {
            render::line(&format!("{}: OK", file.display()))?;
            return Ok(0);
        }
        let found = found.map_or_else(|| "none".to_owned(), |found| capability_text(&found));
        render::line(&format!("{} differs: it has {found}", file.display()))?;
        Ok(1)
    }
}

fn carry_out(plan: &FileCapsPlan, explain: ExplainArg) -> Result<u8, CliError> {
    if !explain.shown(plan)? {
        plan.apply()?;
    }
    Ok(0)
}

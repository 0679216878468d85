//! `onggi why`.

use clap::Args;
use onggi_engine::{EngineError, Why};

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{self, format, table::printable},
};

/// Arguments of `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// `json`, or a Go template over its fields, as in {{.Cause}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Container
    container: String,
}

impl WhyArgs {
    /// Explains how a container ended, or why it did not start.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let why = global.engine()?.why(&self.container).map_err(|e| gone(&self.container, e))?;
        let text = match &self.format {
            None => words(&why),
            Some(_) => format::one(self.format.as_deref(), &serde_json::to_value(&why)?)?,
        };
        render::stdout(&text)?;
        Ok(0)
    }
}

/// A container that removed itself has taken its records along.
fn gone(name: &str, e: EngineError) -> CliError {
    match e.is_no_such_container() {
        true => CliError::usage(
            format!("there is no container {name}, so there are no records of it"),
            "one made with --rm is gone with them when it ends: run it without --rm and ask again",
        ),
        false => e.into(),
    }
}

fn words(why: &Why) -> String {
    let code = why.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
    let mut text = format!("{} ({}) of {}: {}{code}\n", why.name, short(&why.id), why.image, why.state);
    text.push_str(&format!("command: {}\n", printable(&why.command.join(" "))));
    text.push_str(&format!("because: {}\n", printable(&why.summary)));
    let mut section = |title: &str, lines: &[String], mark: &str| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}\n"));
            text.extend(lines.iter().map(|line| format!("  {mark} {}\n", printable(line))));
        }
    };
    section("what shows it", &why.evidence, "-");
    section("the last that it wrote", &why.log, "|");
    section("what to do", &why.next, "-");
    text
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

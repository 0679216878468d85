//! `onggi cgroup get`, as cgget(1), in words or by control file.

use clap::Args;
use onggi_primitives::cgroup::{Group, GroupError, GroupFacts, Reading, reading, readings};
use serde_json::json;

use super::{facts, subject::groups};
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
};

const COLUMNS: Columns = Columns {
    headers: &[("Key", "SETTING"), ("Value", "VALUE"), ("From", "FROM"), ("Group", "GROUP")],
    default: "{{.Key}}\t{{.Value}}\t{{.From}}",
};

/// Arguments of `cgroup get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// A group in the hierarchies of these controllers
    #[arg(short = 'g', value_name = "CONTROLLERS:PATH")]
    named: Vec<Group>,
    /// A setting, as for cgget; then all other arguments are groups
    #[arg(short = 'r', long = "variable", value_name = "KEY")]
    keys: Vec<String>,
    /// Every control file, as cgget -a
    #[arg(short, long)]
    all: bool,
    /// Only values
    #[arg(short = 'v', long = "values-only", conflicts_with = "format")]
    values: bool,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(short, long)]
    format: Option<String>,
    /// Group or container, then settings or names of control files; every limit otherwise
    #[arg(value_name = "GROUP KEY")]
    words: Vec<String>,
}

impl GetArgs {
    /// Prints the limits.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let (named, keys) = self.split(global)?;
        let mut rows = Vec::new();
        for group in &named {
            let (_, facts) = facts(group)?;
            let found = if self.all { files(&facts)? } else { wanted(&keys, &facts)? };
            rows.extend(
                found
                    .into_iter()
                    .map(|r| json!({ "Key": r.key, "Value": r.value, "From": r.from, "Group": group.to_string() })),
            );
        }
        let format = if self.values { Some("{{.Value}}") } else { self.format.as_deref() };
        render::stdout(&format::rows(format, &COLUMNS, &rows)?)?;
        Ok(0)
    }

    fn split(&self, global: &GlobalArgs) -> Result<(Vec<Group>, Vec<String>), CliError> {
        match (self.named.is_empty(), self.keys.is_empty()) {
            (true, true) => {
                let (group, keys) = self.words.split_at(self.words.len().min(1));
                Ok((groups(&[], group, global)?, keys.to_vec()))
            }
            (false, true) => Ok((self.named.clone(), self.words.clone())),
            (_, false) => Ok((groups(&self.named, &self.words, global)?, self.keys.clone())),
        }
    }
}

fn wanted(keys: &[String], facts: &GroupFacts) -> Result<Vec<Reading>, CliError> {
    if keys.is_empty() {
        return Ok(readings(facts));
    }
    let mut found = Vec::new();
    for key in keys {
        if facts.files.contains_key(key) {
            found.push(file(key, facts.read(key)?));
            continue;
        }
        let of_key = reading(key, facts);
        if of_key.is_empty() && !onggi_primitives::cgroup::is_key(key) {
            let near = facts.near(key);
            return Err(GroupError::UnknownKey { key: key.chars().take(128).collect(), near }.into());
        }
        found.extend(of_key);
    }
    Ok(found)
}

fn file(name: &str, value: String) -> Reading {
    Reading { key: name.to_owned(), value, from: String::new() }
}

/// Every file that can be read, as it is; of the others it is said why.
fn files(facts: &GroupFacts) -> Result<Vec<Reading>, CliError> {
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    for name in facts.files.iter().filter(|(_, f)| f.readable).map(|(name, _)| name) {
        match facts.read(name) {
            Ok(text) => found.push(file(name, text)),
            Err(e) => notes.push(format!("{name} is left out: {}", CliError::from(e).line())),
        }
    }
    render::notes(&notes)?;
    Ok(found)
}

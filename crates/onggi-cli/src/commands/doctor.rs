//! `onggi doctor`.

use clap::Args;
use onggi_engine::doctor::{Finding, Level};
use serde_json::Value;

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// As an ordinary user would find it, also when root asks
    #[arg(long)]
    rootless: bool,
    /// Only what is to be mended
    #[arg(short, long)]
    quiet: bool,
    /// `table`, `json` (one object a line), or a Go template over its fields, as in {{.Name}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

const COLUMNS: Columns = Columns {
    headers: &[
        ("Group", "GROUP"),
        ("Name", "NAME"),
        ("Level", "LEVEL"),
        ("Found", "FOUND"),
        ("Why", "WHY"),
        ("Fix", "FIX"),
    ],
    default: "{{.Level}}\t{{.Group}}\t{{.Name}}\t{{.Found}}",
};

impl DoctorArgs {
    /// Checks the host; 1 when something keeps containers from starting.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let mut findings = global.engine()?.doctor(self.rootless);
        let failed = findings.iter().any(|f| f.level == Level::Fail);
        if self.quiet {
            findings.retain(|f| f.level != Level::Ok);
        }
        let text = match self.format.as_deref() {
            None => words(&findings),
            format => {
                let rows = findings.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>()?;
                format::rows(format, &COLUMNS, &rows)?
            }
        };
        render::stdout(&text)?;
        Ok(u8::from(failed))
    }
}

/// One line per thing; why and fix below what is not as it should be.
fn words(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut group = "";
    for f in findings {
        if f.group != group {
            let gap = if group.is_empty() { "" } else { "\n" };
            group = f.group;
            text.push_str(&format!("{gap}{group}\n"));
        }
        text.push_str(&format!("  {:<5} {:<18} {}\n", f.level.name(), f.name, f.found));
        if f.level != Level::Ok {
            text.push_str(&format!("        why: {}\n        fix: {}\n", f.why, f.fix));
        }
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    text.push_str(&format!(
        "\n{} ok, {} to look at, {} that keep containers from starting\n",
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Fail)
    ));
    text
}

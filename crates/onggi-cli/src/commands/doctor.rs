//! `onggi doctor`.

use clap::Args;
use onggi_engine::doctor::{Finding, Level};
use onggi_primitives::LeftTraces;
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
        // Who may not look at traces made none.
        findings.extend(onggi_primitives::left_traces().ok().filter(|_| !self.rootless).map(traces));
        let counts = counts(&findings);
        let failed = findings.iter().any(|f| f.level == Level::Fail);
        if self.quiet {
            findings.retain(|f| f.level != Level::Ok);
        }
        let text = match self.format.as_deref() {
            None => words(&findings) + &counts,
            format => {
                let rows = findings.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>()?;
                format::rows(format, &COLUMNS, &rows)?
            }
        };
        render::stdout(&text)?;
        Ok(u8::from(failed))
    }
}

/// Traces of `learn run` and `caps audit` that were killed.
fn traces(left: LeftTraces) -> Finding {
    let (level, found) = match (left.names.is_empty(), left.certain) {
        (true, _) => (Level::Ok, "none is left".to_owned()),
        (false, true) => (Level::Warn, format!("left by killed programs: {}", left.names.join(" "))),
        (false, false) => (Level::Ok, format!("of programs that are not seen from here: {}", left.names.join(" "))),
    };
    let fix = if level == Level::Ok { "" } else { "onggi system prune -f" };
    let why =
        "a trace that nobody reads goes on recording; learn run and caps audit make one, and remove it at their end";
    Finding { group: "observation", name: "traces", level, found, why, fix: fix.to_owned() }
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
    text
}

/// Of all that was looked at, whether it is shown or not.
fn counts(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    format!(
        "\n{} ok, {} to look at, {} that keep containers from starting\n",
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Fail)
    )
}

//! `onggi caps …`: capabilities of processes, containers and files, in words.

mod audit;
mod run;
mod set;
mod show;

use clap::{Args, Subcommand};
use onggi_spec::{ParseError, capability};
use serde_json::{Value, json};

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
};

const COLUMNS: Columns = Columns {
    headers: &[("Number", "BIT"), ("Name", "CAPABILITY"), ("Sets", "SETS"), ("Meaning", "PERMITS TO")],
    default: "{{.Number}}\t{{.Name}}\t{{.Sets}}\t{{.Meaning}}",
};

/// `onggi caps …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CapsCommand {
    /// Show the capabilities of a process, a container or a file
    Show(show::ShowArgs),
    /// Name the capabilities of a mask, such as those of /proc/PID/status
    Decode(DecodeArgs),
    /// Give capabilities to a file, or take them away
    Set(set::SetArgs),
    /// Run a command with fewer or other capabilities
    Run(run::RunArgs),
    /// Show which of a container's capabilities it uses, and which it could do without
    Audit(audit::AuditArgs),
}

impl CapsCommand {
    /// Carries out the command.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Show(args) => args.run(global),
            Self::Decode(args) => args.run(),
            Self::Set(args) => args.run(global),
            Self::Run(args) => args.run(global),
            Self::Audit(args) => args.run(global),
        }
    }
}

/// Arguments of `caps decode`.
#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// In hexadecimal, with or without 0x
    mask: String,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(short, long)]
    format: Option<String>,
}

impl DecodeArgs {
    fn run(self) -> Result<u8, CliError> {
        let digits = self.mask.strip_prefix("0x").or_else(|| self.mask.strip_prefix("0X")).unwrap_or(&self.mask);
        let digits = Some(digits).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let mask = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(|| {
            ParseError::new("mask", &self.mask, "expected up to 16 hexadecimal digits, as in 00000000a80425fb")
        })?;
        let rows = rows(&[("", mask)]);
        let format = self.format.as_deref().or(Some("table {{.Number}}\t{{.Name}}\t{{.Meaning}}"));
        render::stdout(&format::rows(format, &COLUMNS, &rows)?)?;
        Ok(0)
    }
}

/// One row for each capability that is in any set.
fn rows(sets: &[(&'static str, u64)]) -> Vec<Value> {
    let any = sets.iter().fold(0, |any, (_, mask)| any | mask);
    let row = |number: u32| {
        let names: Vec<&str> = sets.iter().filter(|(_, mask)| mask >> number & 1 == 1).map(|(name, _)| *name).collect();
        json!({
            "Number": number,
            "Name": capability::lower_name(number),
            "Sets": names.join(","),
            "Meaning": capability::meaning(number).unwrap_or("nothing that this version of the program knows"),
        })
    };
    capability::numbers(any).map(row).collect()
}

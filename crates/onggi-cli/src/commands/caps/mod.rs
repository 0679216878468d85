//! `onggi caps …`: capabilities of processes, containers and files, in words.

mod audit;
mod run;
mod set;

use std::path::Path;

use clap::{Args, Subcommand};
use onggi_primitives::{CapabilitySets, FileCapabilities, capability_text, file_capabilities, process_capabilities};
use onggi_spec::{ParseError, capability};
use serde_json::{Value, json};

use crate::{
    cli::GlobalArgs,
    commands::subject,
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
    Show(ShowArgs),
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

/// Arguments of `caps show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A process, `self`, a running container, or a path with a slash
    #[arg(value_name = "PID|CONTAINER|FILE", default_value = "self")]
    subject: String,
    /// Template, `json`, or `table TEMPLATE`, over the capabilities
    #[arg(short, long)]
    format: Option<String>,
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

impl ShowArgs {
    fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let (summary, sets) = if self.subject.contains('/') {
            let path = Path::new(&self.subject);
            match file_capabilities(path)? {
                Some(found) => (file_summary(&self.subject, &found), file_sets(&found)),
                None => (format!("{}: no capabilities\n", path.display()), Vec::new()),
            }
        } else {
            let pid = subject::pid(&self.subject, global)?;
            let found = process_capabilities(pid)?;
            (process_summary(pid, &found), process_sets(&found))
        };
        let rows = rows(&sets);
        let table = match (&self.format, rows.is_empty()) {
            (None, true) => String::new(),
            (format, _) => format::rows(format.as_deref(), &COLUMNS, &rows)?,
        };
        let summary = if self.format.is_none() { summary } else { String::new() };
        render::stdout(&(summary + &table))?;
        Ok(0)
    }
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

type Sets = Vec<(&'static str, u64)>;

fn process_sets(found: &CapabilitySets) -> Sets {
    let CapabilitySets { inheritable, permitted, effective, bounding, ambient, no_new_privileges: _ } = *found;
    vec![
        ("effective", effective),
        ("permitted", permitted),
        ("inheritable", inheritable),
        ("ambient", ambient),
        ("bounding", bounding),
    ]
}

fn file_sets(found: &FileCapabilities) -> Sets {
    let effective = if found.effective { found.permitted | found.inheritable } else { 0 };
    vec![("effective", effective), ("permitted", found.permitted), ("inheritable", found.inheritable)]
}

fn process_summary(pid: i32, found: &CapabilitySets) -> String {
    let mut out = format!("process {pid}\n");
    for (name, mask) in process_sets(found) {
        out += &format!("{name:<12} {mask:016x}\n");
    }
    let gains =
        if found.no_new_privileges { "it can gain none by exec(2) (no_new_privs)" } else { "exec(2) may add some" };
    out + gains + "\n\n"
}

fn file_summary(path: &str, found: &FileCapabilities) -> String {
    let mut out = format!("{path} {}\n", capability_text(found));
    for (name, mask) in file_sets(found).iter().skip(1) {
        out += &format!("{name:<12} {mask:016x}\n");
    }
    out +=
        if found.effective { "effective as soon as it is executed\n" } else { "to be raised by the program itself\n" };
    if let Some(root) = found.root {
        out += &format!("for the user namespace whose root is uid {root} here\n");
    }
    out + "\n"
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

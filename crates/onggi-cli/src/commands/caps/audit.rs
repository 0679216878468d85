//! `onggi caps audit`.

use std::{
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Args;
use onggi_primitives::{Audit, Seen, process_capabilities, processes};
use onggi_spec::capability;
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

/// Between two looks at what the kernel has told.
const PAUSE: Duration = Duration::from_millis(50);
/// What prepares a process that enters a container: its checks are not the container's.
const OWN: [&str; 2] = ["onggi", "onggi-oci"];

const COLUMNS: Columns = Columns {
    headers: &[
        ("Number", "BIT"),
        ("Name", "CAPABILITY"),
        ("Granted", "GRANTED"),
        ("Used", "USED"),
        ("Refused", "REFUSED"),
        ("Programs", "BY"),
        ("Meaning", "PERMITS TO"),
    ],
    default: "{{.Name}}\t{{.Granted}}\t{{.Used}}\t{{.Refused}}\t{{.Programs}}\t{{.Meaning}}",
};

/// Arguments of `caps audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// How long to watch what runs already [default: 10, or until the command ends]
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(short, long)]
    format: Option<String>,
    /// A running container, or a process and what it starts
    #[arg(value_name = "CONTAINER|PID")]
    subject: String,
    /// A command that is executed in the container meanwhile
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl AuditArgs {
    /// Watches, then prints what was used and what could be dropped.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let first = subject::pid(&self.subject, global)?;
        let granted = process_capabilities(first)?;
        let mut pids = family(first)?;
        if !self.command.is_empty() {
            // What enters the container is a child of ours.
            pids.push(std::process::id().cast_signed());
        }
        let mut audit = Audit::start(&pids, &OWN)?;
        let code = match self.command.is_empty() {
            true => {
                watch(&mut audit, Duration::from_secs(self.seconds.unwrap_or(10)))?;
                0
            }
            false => self.execute(&mut audit, global)?,
        };
        let seen = audit.finish()?;
        let held = granted.permitted | granted.bounding;
        let rows = rows(&seen, held);
        render::stdout(&format::rows(self.format.as_deref(), &COLUMNS, &rows)?)?;
        if self.format.is_none() {
            render::stdout(&advice(&seen, held))?;
        }
        Ok(code)
    }

    /// The command in the container, by this program's own `exec`; its exit code.
    fn execute(&self, audit: &mut Audit, global: &GlobalArgs) -> Result<u8, CliError> {
        let failed = |source| CliError::Execute { program: "onggi exec".to_owned(), source };
        let mut exec = Command::new("/proc/self/exe");
        exec.args(global.as_arguments()).arg("exec").arg(&self.subject).args(&self.command).stdin(Stdio::inherit());
        let mut child = exec.spawn().map_err(failed)?;
        let deadline = self.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        loop {
            audit.look()?;
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                return Ok(0);
            }
            sleep(PAUSE);
        }
    }
}

fn watch(audit: &mut Audit, time: Duration) -> Result<(), CliError> {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        audit.look()?;
        sleep(PAUSE);
    }
    Ok(())
}

/// A process and its descendants: for a container's first one, all of the container.
fn family(first: i32) -> Result<Vec<i32>, CliError> {
    let all = processes()?;
    let mut found = vec![first];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(all.iter().filter(|p| p.parent == parent).map(|p| p.pid));
        at += 1;
    }
    Ok(found)
}

fn rows(seen: &Seen, held: u64) -> Vec<Value> {
    let asked = seen.capabilities.keys().fold(0u64, |mask, number| mask | 1u64.checked_shl(*number).unwrap_or(0));
    let row = |number: u32| {
        let uses = seen.capabilities.get(&number).cloned().unwrap_or_default();
        json!({
            "Number": number,
            "Name": capability::lower_name(number),
            "Granted": if held >> number & 1 == 1 { "yes" } else { "no" },
            "Used": uses.granted,
            "Refused": uses.refused,
            "Programs": uses.programs.join(","),
            "Meaning": capability::meaning(number).unwrap_or("nothing that this version of the program knows"),
        })
    };
    capability::numbers(held | asked).map(row).collect()
}

/// What was granted and not used, as flags of `run`.
fn advice(seen: &Seen, held: u64) -> String {
    let used = |number: &u32| seen.capabilities.get(number).is_some_and(|uses| uses.granted > 0);
    let flag =
        |flag: &str, number: u32| format!(" --cap-{flag} {}", capability::lower_name(number)[4..].to_ascii_uppercase());
    let (kept, unused): (Vec<u32>, Vec<u32>) = capability::numbers(held).partition(used);
    let mut out = String::from("\n");
    out += &match unused.is_empty() {
        true => "every capability that it has was used\n".to_owned(),
        false => {
            let drops: String = unused.iter().map(|number| flag("drop", *number)).collect();
            let adds: String = kept.iter().map(|number| flag("add", *number)).collect();
            format!("not used in this time:{drops}\nonly what was used:    --cap-drop ALL{adds}\n")
        }
    };
    if seen.lost > 0 {
        out += &format!("{} checks were lost, the machine was busy: what seems unused may have been used\n", seen.lost);
    }
    out + "a longer watch sees more; a check that is refused was tried, not always needed\n"
}

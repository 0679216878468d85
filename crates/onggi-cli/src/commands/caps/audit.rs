//! `onggi caps audit`.

use std::{
    ffi::OsString,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Args;
use onggi_primitives::{Audit, AuditOp, AuditPlan, Seen, members, process_capabilities, processes, teller};
use onggi_spec::capability;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{
    cli::GlobalArgs,
    commands::{explain::ExplainArg, subject},
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
};

/// Between two looks at what the kernel has told.
const PAUSE: Duration = Duration::from_millis(50);
/// How long is watched without a command.
const DEFAULT_SECONDS: u64 = 10;
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
    #[command(flatten)]
    explain: ExplainArg,
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
        let pids = members(first, &processes()?).iter().map(|p| p.pid).collect();
        let plan = AuditPlan::new(teller(), pids, self.meanwhile(global));
        if self.explain.shown(&plan)? {
            return Ok(0);
        }
        let granted = process_capabilities(first)?;
        // Before the trace is there: what was seen until then is told, and the trace goes.
        let end = asked_to_end()?;
        let mut audit = Audit::start(&plan, &OWN)?;
        let code = match self.command.is_empty() {
            true => {
                watch(&mut audit, Duration::from_secs(self.time()), &end)?;
                0
            }
            false => self.execute(&mut audit, global, &end)?,
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

    fn time(&self) -> u64 {
        self.seconds.unwrap_or(DEFAULT_SECONDS)
    }

    fn meanwhile(&self, global: &GlobalArgs) -> AuditOp {
        if self.command.is_empty() {
            return AuditOp::Watch { seconds: self.time() };
        }
        let words = self.exec_words(global).into_iter().map(|word| word.to_string_lossy().into_owned());
        AuditOp::Execute { command: ["onggi".to_owned()].into_iter().chain(words).collect(), seconds: self.seconds }
    }

    /// Arguments of this program's own `exec`.
    fn exec_words(&self, global: &GlobalArgs) -> Vec<OsString> {
        let words = ["exec", &self.subject].into_iter().chain(self.command.iter().map(String::as_str));
        global.as_arguments().into_iter().chain(words.map(OsString::from)).collect()
    }

    /// The command in the container; its exit code.
    fn execute(&self, audit: &mut Audit, global: &GlobalArgs, end: &AtomicBool) -> Result<u8, CliError> {
        let failed = |source| CliError::Execute { program: "onggi exec".to_owned(), source };
        let mut exec = Command::new("/proc/self/exe");
        exec.args(self.exec_words(global)).stdin(Stdio::inherit());
        let mut child = exec.spawn().map_err(failed)?;
        let deadline = self.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        loop {
            audit.look()?;
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            if end.load(Ordering::Relaxed) || deadline.is_some_and(|deadline| Instant::now() > deadline) {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                return Ok(0);
            }
            sleep(PAUSE);
        }
    }
}

/// Becomes true when a signal asks this program to end.
fn asked_to_end() -> Result<Arc<AtomicBool>, CliError> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&asked)).map_err(CliError::Signals)?;
    }
    Ok(asked)
}

fn watch(audit: &mut Audit, time: Duration, end: &AtomicBool) -> Result<(), CliError> {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline && !end.load(Ordering::Relaxed) {
        audit.look()?;
        sleep(PAUSE);
    }
    Ok(())
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

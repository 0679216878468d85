//! `onggi caps show`, as getpcaps(8) and getcap(8), with what else confines each process of a container.

use std::path::Path;

use clap::Args;
use onggi_primitives::{
    CapabilitySets, Confinement, FileCapabilities, PrimitiveError, ProcessFacts, Threads, capability_text, confinement,
    file_capabilities, members, processes,
};
use onggi_spec::capability;
use serde_json::{Value, json};

use super::{COLUMNS, rows};
use crate::{
    cli::GlobalArgs,
    commands::subject,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
        table::{ellipsis, printable},
    },
};

/// Characters of a command that are shown.
const COMMAND_WIDTH: usize = 30;

const PROCESS_COLUMNS: Columns = Columns {
    headers: &[
        ("Pid", "PID"),
        ("Threads", "THREADS"),
        ("Effective", "EFFECTIVE"),
        ("Permitted", "PERMITTED"),
        ("Inheritable", "INHERITABLE"),
        ("Ambient", "AMBIENT"),
        ("Bounding", "BOUNDING"),
        ("NoNewPrivs", "NNP"),
        ("Seccomp", "SECCOMP"),
        ("Filters", "FILTERS"),
        ("Securebits", "SECUREBITS"),
        ("Command", "COMMAND"),
    ],
    default: "{{.Pid}}\t{{.Threads}}\t{{.Effective}}\t{{.Permitted}}\t{{.Inheritable}}\t{{.Ambient}}\t{{.Bounding}}\t\
              {{.NoNewPrivs}}\t{{.Seccomp}}\t{{.Command}}",
};

/// Arguments of `caps show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A process, `self`, a running container, or a path with a slash
    #[arg(value_name = "PID|CONTAINER|FILE", default_value = "self")]
    subject: String,
    /// List the processes of a container, or those that a process has started, instead of capabilities
    #[arg(short, long)]
    processes: bool,
    /// Template, `json`, or `table TEMPLATE`, over the capabilities, or over the processes
    #[arg(short, long)]
    format: Option<String>,
}

impl ShowArgs {
    pub(super) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        if self.subject.contains('/') {
            return self.file();
        }
        let pid = subject::pid_not_file(&self.subject, global)?;
        let own = pid == std::process::id().cast_signed();
        let threads = confinement(pid)?;
        let all = processes()?;
        // A process that asks about itself has started nothing that matters.
        let family = if own { Vec::new() } else { members(pid, &all) };
        if self.processes {
            let rows = process_rows(&family)?;
            render::stdout(&format::rows(self.format.as_deref(), &PROCESS_COLUMNS, &rows)?)?;
            return Ok(0);
        }
        let Some(first) = threads.first() else { return Err(PrimitiveError::NoProcess { pid }.into()) };
        let mut summary = summary(pid, &first.confinement, own) + &others(&threads);
        if self.format.is_none() && family.len() > 1 {
            summary += &format::rows(None, &PROCESS_COLUMNS, &process_rows(&family)?)?;
            summary += "\n";
        }
        self.print(&summary, &process_sets(&first.confinement.sets))
    }

    fn file(&self) -> Result<u8, CliError> {
        if self.processes {
            return Err(CliError::usage("a file has no processes", "name a process or a container"));
        }
        let path = Path::new(&self.subject);
        match file_capabilities(path)? {
            Some(found) => self.print(&file_summary(&self.subject, &found), &file_sets(&found)),
            None => self.print(&format!("{}: no capabilities\n", path.display()), &[]),
        }
    }

    fn print(&self, summary: &str, sets: &[(&'static str, u64)]) -> Result<u8, CliError> {
        let rows = rows(sets);
        let table = match (&self.format, rows.is_empty()) {
            (None, true) => String::new(),
            (format, _) => format::rows(format.as_deref(), &COLUMNS, &rows)?,
        };
        let summary = if self.format.is_none() { summary } else { "" };
        render::stdout(&format!("{summary}{table}"))?;
        Ok(0)
    }
}

fn process_sets(found: &CapabilitySets) -> [(&'static str, u64); 5] {
    let CapabilitySets { inheritable, permitted, effective, bounding, ambient, no_new_privileges: _ } = *found;
    [
        ("effective", effective),
        ("permitted", permitted),
        ("inheritable", inheritable),
        ("ambient", ambient),
        ("bounding", bounding),
    ]
}

fn file_sets(found: &FileCapabilities) -> [(&'static str, u64); 3] {
    let effective = if found.effective { found.permitted | found.inheritable } else { 0 };
    [("effective", effective), ("permitted", found.permitted), ("inheritable", found.inheritable)]
}

fn summary(pid: i32, found: &Confinement, own: bool) -> String {
    let mut out = format!("process {pid}\n");
    for (name, mask) in process_sets(&found.sets) {
        out += &format!("{name:<12} {mask:016x}\n");
    }
    let filters = match found.filters {
        0 => String::new(),
        1 => ", 1 filter".to_owned(),
        n => format!(", {n} filters"),
    };
    out += &format!("{:<12} {}{filters}\n", "seccomp", found.seccomp);
    let bits = if own { securebits() } else { "unknown: the kernel tells them only to the process itself".to_owned() };
    out += &format!("{:<12} {bits}\n", "securebits");
    let gains = match found.sets.no_new_privileges {
        true => "it can gain none by exec(2) (no_new_privs)",
        false => "exec(2) may add some",
    };
    out + gains + "\n\n"
}

/// In capsh(1)'s words.
fn securebits() -> String {
    use rustix::thread::CapabilitiesSecureBits as Bits;
    let Ok(bits) = rustix::thread::capabilities_secure_bits() else { return "unknown".to_owned() };
    let known = [
        (Bits::NO_ROOT, "noroot"),
        (Bits::NO_ROOT_LOCKED, "noroot-locked"),
        (Bits::NO_SETUID_FIXUP, "no-suid-fixup"),
        (Bits::NO_SETUID_FIXUP_LOCKED, "no-suid-fixup-locked"),
        (Bits::KEEP_CAPS, "keep-caps"),
        (Bits::KEEP_CAPS_LOCKED, "keep-caps-locked"),
        (Bits::NO_CAP_AMBIENT_RAISE, "no-ambient-raise"),
        (Bits::NO_CAP_AMBIENT_RAISE_LOCKED, "no-ambient-raise-locked"),
    ];
    let names: Vec<&str> = known.into_iter().filter(|(bit, _)| bits.contains(*bit)).map(|(_, name)| name).collect();
    format!("{:#04x} {}", bits.bits(), names.join(" ")).trim_end().to_owned()
}

/// Threads that are confined in another way than the first one.
fn others(threads: &[Threads]) -> String {
    let mut out = String::new();
    for group in threads.iter().skip(1) {
        let tids = group.tids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
        out += &format!("threads {tids} differ:\n");
        for (name, mask) in process_sets(&group.confinement.sets) {
            out += &format!("  {name:<12} {mask:016x}\n");
        }
        let Confinement { sets, seccomp, filters } = &group.confinement;
        out += &format!("  {:<12} {seccomp}, {filters} filters\n", "seccomp");
        out += &format!("  {:<12} {}\n\n", "no_new_privs", u8::from(sets.no_new_privileges));
    }
    out
}

/// One row for each group of threads of each process. What has gone meanwhile is left out.
fn process_rows(family: &[&ProcessFacts]) -> Result<Vec<Value>, CliError> {
    let mut rows = Vec::new();
    for process in family {
        match confinement(process.pid) {
            Ok(groups) => rows.extend(groups.iter().enumerate().map(|(at, group)| row(process, at, group))),
            Err(PrimitiveError::NoProcess { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(rows)
}

fn row(process: &ProcessFacts, at: usize, group: &Threads) -> Value {
    let Confinement { sets, seccomp, filters } = &group.confinement;
    let mask = |mask: u64| format!("{mask:016x}");
    // The first group is the process; another one is named by its threads.
    let threads = match at {
        0 => group.tids.len().to_string(),
        _ => group.tids.iter().map(i32::to_string).collect::<Vec<_>>().join(","),
    };
    json!({
        "Pid": process.pid,
        "Threads": threads,
        "Effective": mask(sets.effective),
        "Permitted": mask(sets.permitted),
        "Inheritable": mask(sets.inheritable),
        "Ambient": mask(sets.ambient),
        "Bounding": mask(sets.bounding),
        "NoNewPrivs": u8::from(sets.no_new_privileges),
        "Seccomp": seccomp,
        "Filters": filters,
        "Securebits": "?",
        "Names": capability::names(sets.effective),
        "Command": ellipsis(&printable(&process.command), COMMAND_WIDTH),
    })
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

//! `onggi learn run`: runs a workload under observation and proposes what it needs and no more.

mod plan;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::{Args, Subcommand};
use onggi_engine::{Change, ChangeKind, Engine, RunOptions, Started};
use onggi_primitives::{
    observe::{ObservePlan, Observed, Observer},
    teller,
};
use onggi_spec::{ContainerRequest, capability, syscalls};
use serde_json::{Value, json};
use signal_hook::consts::SIGKILL;

use plan::LearnPlan;

use crate::{
    cli::GlobalArgs,
    commands::explain::ExplainArg,
    error::CliError,
    render::{self, format, progress::Draw},
    request::{Caller, ContainerArgs, qualify},
    session::{self, detach::DetachKeys},
};

/// What ends a process, or is made by the kernel for it, at a moment that no observation can choose.
const ALWAYS: [&str; 5] = ["execve", "exit", "exit_group", "restart_syscall", "rt_sigreturn"];
/// Directories of a root filesystem that are proposed read-only when nothing was written below them.
const DIRECTORIES: [&str; 13] =
    ["/bin", "/boot", "/etc", "/home", "/lib", "/lib64", "/media", "/opt", "/root", "/sbin", "/srv", "/usr", "/var"];
/// Entries of a volume that are looked at.
const MAX_ENTRIES: usize = 100_000;
/// Paths that are shown.
const SHOWN: usize = 20;

/// `onggi learn …`.
#[derive(Debug, Subcommand)]
pub(crate) enum LearnCommand {
    /// Run a workload under observation and propose its smallest confinement
    Run(Box<RunArgs>),
}

impl LearnCommand {
    /// Carries out the command.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Run(args) => args.run(global),
        }
    }
}

/// Arguments of `learn run`: those of `run`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Directory for seccomp.json, profile.json (OCI), report.json and flags; made if need be
    #[arg(long, value_name = "DIR", default_value = "onggi-learned")]
    output: PathBuf,
    #[command(flatten)]
    container: ContainerArgs,
}

impl RunArgs {
    /// Runs the workload, writes the proposal, and returns the workload's exit code.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let options = RunOptions {
            id_file: None,
            detach: false,
            terminal_size: session::terminal::size(),
            pull: self.container.pull.options()?,
            remove_failed: true,
        };
        let name = self.container.image_and_command.first().cloned().unwrap_or_default();
        let mut request = self.container.request(&Caller::of_process()?)?;
        // Its changes are looked at before it is removed.
        request.remove = false;
        let engine = global.engine()?;
        qualify(&engine, &name, &mut request, &options.pull)?;
        if self.explain.explain.is_some() {
            let (observe, run) = (ObservePlan::new(teller()), engine.explain(&request)?);
            self.explain.shown(&LearnPlan { observe, run, output: &self.output })?;
            return Ok(0);
        }
        fs::create_dir_all(&self.output).map_err(|e| write_failed(&self.output, e))?;
        let begun = SystemTime::now();
        let observer = Observer::start()?;
        let started = engine.run(&request, &options, &Draw::new())?;
        let id = started.record.id.to_string();
        let learned = observe(&engine, started, observer, &request, begun);
        engine.rm(&id, true)?;
        let (code, learned) = learned?;
        if matches!(code, 126 | 127) {
            // A profile of it would stop the real workload; one of an earlier run may be in use.
            let said = format!("nothing is written to {}: the workload did not run ({code})", self.output.display());
            render::notes(&[said])?;
            return Ok(code);
        }
        learned.write(&self.output)?;
        render::notes(&learned.report(&self.output))?;
        Ok(code)
    }
}

fn write_failed(path: &Path, source: std::io::Error) -> CliError {
    CliError::WriteFile { path: path.display().to_string(), source }
}

/// The exit code, and what was learned.
fn observe(
    engine: &Engine,
    started: Started,
    observer: Observer,
    request: &ContainerRequest,
    begun: SystemTime,
) -> Result<(u8, Learned), CliError> {
    let id = started.record.id.to_string();
    render::notes(&started.notes)?;
    let code = match session::container::run(engine, started, DetachKeys::default()) {
        // Asked to end three times: what was seen is worth more than the workload.
        Err(CliError::LeftRunning { .. }) => {
            render::notes(&["the workload has not ended when it was asked to: it is killed".to_owned()])?;
            engine.kill(&id, SIGKILL)?;
            u8::try_from(engine.wait(&id)?.exit_code).unwrap_or(125)
        }
        ended => ended?,
    };
    let observed = observer.finish()?;
    let changes = engine.diff(&id, None)?;
    let targets: Vec<&str> = request.mounts.iter().map(|m| m.target.as_str()).collect();
    let possible = engine.possible_capabilities(&id)?;
    let volumes = request.mounts.iter().filter(|m| !m.read_only).map(|m| (m.source.clone(), m.target.clone()));
    let unwritten = volumes.filter(|(source, _)| !written_since(Path::new(source), begun)).collect();
    Ok((code, Learned::new(&observed, possible, &changes, &targets, unwritten)))
}

/// Any file below was changed since then.
fn written_since(root: &Path, begun: SystemTime) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let begun = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut todo = vec![root.to_owned()];
    let mut left = MAX_ENTRIES;
    while let Some(path) = todo.pop() {
        left = left.saturating_sub(1);
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let changed = (meta.ctime(), meta.ctime_nsec());
        // The kernel's clock of files is a tick behind.
        if left == 0 || changed.0 + 1 >= i64::try_from(begun.as_secs()).unwrap_or(0) {
            return true;
        }
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()));
        }
    }
    false
}

/// What a workload needs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Learned {
    syscalls: BTreeSet<String>,
    /// `None`: this kernel does not tell.
    capabilities: Option<Vec<String>>,
    refused: Vec<String>,
    written: Vec<String>,
    read_only_paths: Vec<&'static str>,
    /// Volumes that could be read-only: source, target.
    unwritten: Vec<(String, String)>,
    lost: u64,
}

impl Learned {
    /// `possible` are the capabilities that it can have; at `targets` volumes were mounted.
    fn new(
        observed: &Observed,
        possible: u64,
        changes: &[Change],
        targets: &[&str],
        unwritten: Vec<(String, String)>,
    ) -> Self {
        let mut calls: BTreeSet<String> = ALWAYS.map(str::to_owned).into();
        calls.extend(observed.syscalls.iter().filter_map(|n| syscalls::name(*n)).map(str::to_owned));
        let names =
            |mask: u64| capability::numbers(mask).map(capability::lower_name).map(|n| n.to_uppercase()).collect();
        let path = |c: &Change| format!("/{}", String::from_utf8_lossy(&c.path));
        // A directory is changed whenever something in it is.
        let inner = |p: &str| changes.iter().any(|c| path(c).strip_prefix(p).is_some_and(|rest| rest.starts_with('/')));
        let written: Vec<String> =
            changes.iter().filter(|c| c.kind != ChangeKind::Changed || !inner(&path(c))).map(path).collect();
        // The start of a container makes the places where volumes are mounted.
        let written: Vec<String> = written.into_iter().filter(|p| !targets.contains(&p.as_str())).collect();
        let below =
            |dir: &str| written.iter().any(|p| p == dir || p.strip_prefix(dir).is_some_and(|r| r.starts_with('/')));
        Self {
            syscalls: calls,
            capabilities: observed.knows_capabilities.then(|| names(observed.used(possible))),
            refused: names(observed.refused),
            read_only_paths: DIRECTORIES.into_iter().filter(|dir| !below(dir)).collect(),
            written,
            unwritten,
            lost: observed.lost,
        }
    }

    /// Options of `run`.
    fn flags(&self, dir: &Path) -> Vec<String> {
        let mut flags = Vec::new();
        if let Some(capabilities) = &self.capabilities {
            flags.push("--cap-drop=ALL".to_owned());
            flags.extend(capabilities.iter().map(|name| format!("--cap-add={name}")));
        }
        flags.push(format!("--security-opt=seccomp={}", dir.join("seccomp.json").display()));
        if self.written.is_empty() {
            flags.push("--read-only".to_owned());
        }
        flags.extend(self.unwritten.iter().map(|(source, target)| format!("--volume={source}:{target}:ro")));
        flags
    }

    /// linux.seccomp of an OCI configuration, which is also what --security-opt seccomp=FILE takes.
    fn seccomp(&self) -> Value {
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": self.syscalls, "action": "SCMP_ACT_ALLOW" }],
        })
    }

    /// The parts of an OCI configuration that this replaces.
    fn profile(&self) -> Value {
        let mut profile = json!({
            "root": { "readonly": self.written.is_empty() },
            "linux": { "seccomp": self.seccomp(), "readonlyPaths": self.read_only_paths },
        });
        if let Some(capabilities) = &self.capabilities {
            let sets = json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
            profile["process"] = json!({ "capabilities": sets });
        }
        profile
    }

    fn write(&self, dir: &Path) -> Result<(), CliError> {
        let report = json!({
            "Capabilities": self.capabilities, "Refused": self.refused, "Syscalls": self.syscalls,
            "Written": self.written, "ReadonlyPaths": self.read_only_paths, "LostEvents": self.lost,
            "Flags": self.flags(dir),
        });
        let files = [
            ("seccomp.json", format::pretty(&self.seccomp())? + "\n"),
            ("profile.json", format::pretty(&self.profile())? + "\n"),
            ("report.json", format::pretty(&report)? + "\n"),
            ("flags", self.flags(dir).join("\n") + "\n"),
        ];
        for (name, text) in files {
            let path = dir.join(name);
            fs::write(&path, text).map_err(|e| write_failed(&path, e))?;
        }
        Ok(())
    }

    /// A few lines for a person.
    fn report(&self, dir: &Path) -> Vec<String> {
        let list = |names: &[String]| match names {
            [] => "none".to_owned(),
            some => some.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(" "),
        };
        let mut lines = vec![
            format!("{} system calls were made; all others would be refused", self.syscalls.len()),
            match &self.capabilities {
                Some(names) => format!("capabilities that were used: {}", list(names)),
                None => "capabilities are not told by this kernel (Linux 6.14, or probes of functions): the default ones are kept"
                    .to_owned(),
            },
            format!("paths that were written: {}", list(&self.written)),
            format!("try it: onggi run {} …", self.flags(dir).join(" ")),
            format!("written: seccomp.json, profile.json (OCI), report.json, flags in {}", dir.display()),
        ];
        if self.lost > 0 {
            lines.push(format!("{} events were lost: the list may lack calls; run it again with less load", self.lost));
        }
        lines.push("only what ran was seen: run every part of the workload, errors and signals too".to_owned());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX;

    fn change(path: &str, kind: ChangeKind) -> Change {
        Change { path: path.as_bytes().to_vec(), kind }
    }

    fn observed() -> Observed {
        Observed {
            syscalls: BTreeSet::from([0, 41, 9999]),
            granted: std::collections::BTreeMap::from([("sh".to_owned(), 1 << 13)]),
            knows_capabilities: true,
            ..Observed::default()
        }
    }

    #[test]
    fn a_workload_that_writes_nothing_is_proposed_read_only() {
        let learned = Learned::new(&observed(), ALL, &[], &[], vec![("/data".into(), "/d".into())]);
        let flags = learned.flags(Path::new("out"));
        assert_eq!(
            flags,
            [
                "--cap-drop=ALL",
                "--cap-add=CAP_NET_RAW",
                "--security-opt=seccomp=out/seccomp.json",
                "--read-only",
                "--volume=/data:/d:ro"
            ]
        );
        let names = learned.seccomp()["syscalls"][0]["names"].to_string();
        assert!(
            names.contains("\"socket\"") && names.contains("\"exit_group\"") && !names.contains("mount"),
            "{names}"
        );
        assert_eq!(learned.profile()["linux"]["readonlyPaths"].as_array().map(Vec::len), Some(DIRECTORIES.len()));
    }

    #[test]
    fn what_was_written_stays_writable() {
        let changes =
            [change("var", ChangeKind::Changed), change("var/x", ChangeKind::Added), change("data", ChangeKind::Added)];
        let learned = Learned::new(&observed(), ALL, &changes, &["/data"], Vec::new());
        assert_eq!(learned.written, ["/var/x"], "the directory only has a new entry");
        assert!(!learned.read_only_paths.contains(&"/var") && learned.read_only_paths.contains(&"/usr"));
        assert!(!learned.flags(Path::new("o")).contains(&"--read-only".to_owned()));
    }

    #[test]
    fn a_kernel_that_does_not_tell_of_capabilities_leaves_them_as_they_are() {
        let learned = Learned::new(&Observed { knows_capabilities: false, ..observed() }, ALL, &[], &[], Vec::new());
        assert!(!learned.flags(Path::new("o")).iter().any(|f| f.starts_with("--cap")));
        assert!(learned.profile().get("process").is_none());
    }
}

//! The plan in words, and as a script of the tools that people know.

use super::{Inside, LimitPlan};
use crate::shell::quote;

impl LimitPlan {
    /// One line per operation.
    pub fn words(&self) -> String {
        let mut out: String = self.notes.iter().map(|note| format!("note: {note}\n")).collect();
        out += &self.setup.words();
        if let Some(unit) = &self.service {
            out += &format!("ask systemd to start {}: {}\n", unit.name, properties(unit));
        }
        if let Some(inside) = &self.inside {
            out += &words(inside).into_iter().map(|line| format!("in a child: {line}\n")).collect::<String>();
        }
        if let Some(told) = &self.told {
            let pids = pids(&self.processes);
            out += &words(told).into_iter().map(|line| format!("for {pids}: {line}\n")).collect::<String>();
        }
        if let Some(nano) = self.duty {
            let share = nano as f64 / 1e9;
            out += &format!(
                "as long as it runs: kill(2) SIGSTOP when it has used more than {share} CPUs, SIGCONT later\n"
            );
        }
        out += &self.cleanup.words().lines().map(|line| format!("when it has ended: {line}\n")).collect::<String>();
        out += &self.undo.iter().map(|line| format!("to undo it: {line}\n")).collect::<String>();
        out
    }

    /// A script that does the same.
    pub fn shell(&self) -> String {
        if !self.systemd_run.is_empty() {
            let words: Vec<String> = self.systemd_run.iter().map(|w| quote(w)).collect();
            return format!("systemd-run {}\n", words.join(" "));
        }
        let mut out = self.setup.shell();
        if let Some(inside) = &self.inside {
            let run = match self.duty {
                Some(nano) => format!("cpulimit -l {} -i -f -- {}", nano / 10_000_000, child(inside)),
                None => child(inside),
            };
            out += &format!("code=0\n{run} || code=$?\n");
            out += self.cleanup.shell().strip_prefix("set -e\n").unwrap_or_default();
            out += "exit $code\n";
            return out;
        }
        let all = self.processes.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
        if let Some(told) = &self.told {
            out += &told.nice.map(|n| format!("renice -n {n} -p {all}\n")).unwrap_or_default();
            for pid in &self.processes {
                out += &told.affinity.as_ref().map(|c| format!("taskset -apc {c} {pid}\n")).unwrap_or_default();
                out += &told.rlimits.iter().map(|l| format!("prlimit --pid {pid} {}\n", option(l))).collect::<String>();
            }
        }
        if let (Some(nano), Some(pid)) = (self.duty, self.processes.first()) {
            out += &format!("cpulimit -l {} -i -p {pid}\n", nano / 10_000_000);
        }
        out
    }
}

fn properties(unit: &onggi_cgroup::systemd::UnitPlan) -> String {
    unit.properties.iter().map(onggi_cgroup::systemd::Property::words).collect::<Vec<_>>().join(" ")
}

fn pids(pids: &[i32]) -> String {
    let all = pids.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    if pids.len() == 1 { format!("process {all}") } else { format!("processes {all}") }
}

fn words(inside: &Inside) -> Vec<String> {
    let mut out: Vec<String> = inside.join.iter().map(|file| format!("write 0 to {}", file.display())).collect();
    if let Some(unit) = &inside.scope {
        out.push(format!("ask systemd to make {} around this process: {}", unit.name, properties(unit)));
    }
    out.extend(inside.rlimits.iter().map(|l| format!("prlimit(2): {} {}", l.name, value(l))));
    out.extend(inside.nice.map(|n| format!("setpriority(2): {n}")));
    out.extend(inside.affinity.as_ref().map(|cpus| format!("sched_setaffinity(2): CPUs {cpus}")));
    if inside.wake_at_death {
        out.push("prctl(2): SIGCONT when this program ends".into());
    }
    if !inside.command.is_empty() {
        let words: Vec<String> = inside.command.iter().map(|w| quote(w)).collect();
        out.push(format!("execve(2): {}", words.join(" ")));
    }
    out
}

fn value(limit: &super::Rlimit) -> String {
    let one = |n: u64| if n == u64::MAX { "unlimited".to_owned() } else { n.to_string() };
    format!("{}:{}", one(limit.soft), one(limit.hard))
}

/// `--nofile=10:20` of prlimit(1).
pub(super) fn option(limit: &super::Rlimit) -> String {
    format!("--{}={}", limit.name.trim_start_matches("RLIMIT_").to_lowercase(), value(limit))
}

/// A child that enters the groups and becomes the command.
fn child(inside: &Inside) -> String {
    let mut command = String::new();
    if let Some(n) = inside.nice {
        command += &format!("nice -n {n} ");
    }
    if let Some(cpus) = &inside.affinity {
        command += &format!("taskset -c {cpus} ");
    }
    for limit in &inside.rlimits {
        command += &format!("prlimit {} ", option(limit));
    }
    command += &inside.command.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ");
    if inside.join.is_empty() {
        return command;
    }
    let enter: String =
        inside.join.iter().map(|f| format!("echo $$ > {}; ", quote(&f.display().to_string()))).collect();
    format!("sh -c {} sh {command}", quote(&format!("{enter}exec \"$@\"")))
}

//! From recorded facts to one cause. Pure: no clock, no files.

use onggi_spec::{
    monitor::{ExitDetail, ExitRecord, LimitEvents},
    quantity::human_memory,
    signal::signal_name,
};
use onggi_storage::ExecutableProblem;

use super::{Cause, Why, WhyFacts};
use crate::{Status, asked::Asked, status::UNRECORDED};

const SIGKILL: i32 = 9;
const SIGSYS: i32 = 31;

/// A cause with its sentence, evidence and advice.
struct Verdict {
    cause: Cause,
    summary: String,
    evidence: Vec<String>,
    next: Vec<String>,
}

impl Verdict {
    fn new(cause: Cause, summary: impl Into<String>) -> Self {
        Self { cause, summary: summary.into(), evidence: Vec::new(), next: Vec::new() }
    }

    fn because(mut self, fact: impl Into<String>) -> Self {
        self.evidence.push(fact.into());
        self
    }

    fn next(mut self, advice: impl Into<String>) -> Self {
        self.next.push(advice.into());
        self
    }
}

/// Explains the facts.
pub(super) fn diagnose(facts: &WhyFacts) -> Why {
    let exit = match &facts.status {
        Status::Exited(exit) => Some(exit),
        _ => None,
    };
    let mut verdict = match (&facts.status, &facts.failed) {
        (Status::Running { pid, .. }, _) => running(facts, *pid),
        (_, Some(_)) => failed_start(facts),
        (Status::Exited(exit), None) => ended(facts, exit),
        (Status::Created, None) => Verdict::new(Cause::NeverStarted, "it was made and never started")
            .next(format!("start it: onggi start {}", facts.name)),
    };
    verdict.evidence.extend(facts.kernel_log.iter().map(|line| format!("the kernel's log: {line}")));
    if exit.is_some() && verdict.cause != Cause::Success {
        verdict.evidence.push("restart policy: none, so it stays as it is until it is started again".to_owned());
    }
    Why {
        id: facts.id.clone(),
        name: facts.name.clone(),
        image: facts.image.clone(),
        command: facts.command.clone(),
        state: facts.status.name().to_owned(),
        exit_code: exit.map(|e| e.exit_code).or(facts.failed.as_ref().map(|f| f.exit_code)),
        cause: verdict.cause,
        summary: verdict.summary,
        evidence: verdict.evidence,
        log: facts.log.clone(),
        next: verdict.next,
    }
}

fn running(facts: &WhyFacts, pid: i32) -> Verdict {
    Verdict::new(Cause::Running, "it runs")
        .because(format!("its first process is {pid}"))
        .next(format!("look into it: onggi inspect --kernel {0}, onggi logs {0}", facts.name))
}

fn ended(facts: &WhyFacts, exit: &ExitRecord) -> Verdict {
    let detail = exit.detail.clone().unwrap_or_default();
    let limits = detail.limits.clone().unwrap_or_default();
    if exit.error.contains("monitor was killed") {
        return Verdict::new(Cause::MonitorLost, exit.error.clone())
            .because("exit.json was written by the next command, not by the monitor")
            .next("look for who killed onggi-oci: the OOM killer of the whole machine (dmesg), or a person");
    }
    if exit.error.contains("machine went down") {
        return Verdict::new(Cause::MachineDown, exit.error.clone())
            .because("started.json is there and exit.json is not")
            .next(format!("start it again: onggi start {}", facts.name));
    }
    if exit.error.contains(UNRECORDED) {
        return Verdict::new(Cause::Unrecorded, exit.error.clone())
            .because("started.json is there and exit.json is not, and the machine has not been down since")
            .next("look whether the disk of the data root is full: onggi system df, df -h");
    }
    match detail.signal {
        _ if limits.oom_kills > 0 || exit.oom_killed => out_of_memory(facts, exit, &detail, &limits),
        Some(signal) => signalled(facts, &detail, signal),
        None => by_itself(facts, exit, &limits),
    }
}

fn out_of_memory(facts: &WhyFacts, exit: &ExitRecord, detail: &ExitDetail, limits: &LimitEvents) -> Verdict {
    let own = limits.memory_limit.is_some() && limits.memory_hits > 0;
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), human_memory);
    let whose = match (own, limits.memory_limit) {
        (true, limit) => format!("its memory limit of {} was reached", size(limit)),
        (false, Some(limit)) => format!(
            "not its own limit ({}) but memory outside ran out: a parent group's limit, or the whole machine's",
            human_memory(limit)
        ),
        (false, None) => "it has no limit of its own: a parent group's limit, or the whole machine's memory".to_owned(),
    };
    let who = match detail.signal {
        Some(SIGKILL) => "the OOM killer ended its first process".to_owned(),
        _ => format!(
            "the OOM killer ended a process in it, and its first process then ended with code {}",
            exit.exit_code
        ),
    };
    let verdict = Verdict::new(Cause::OutOfMemory, format!("{who}: {whose}"))
        .because(format!("oom_kill counted {} in its cgroup (memory.oom_control or memory.events)", limits.oom_kills))
        .because(format!(
            "memory: limit {}, highest usage {}, limit hit {} times",
            limits.memory_limit.map_or_else(|| "none".to_owned(), human_memory),
            size(limits.memory_peak),
            limits.memory_hits
        ));
    if own {
        let more = limits.memory_limit.map_or(0, |limit| limit.saturating_mul(2));
        verdict
            .next(format!("give it more: run it with -m {}", more))
            .next(format!("or make it use less; watch it with onggi inspect --kernel {}", facts.name))
    } else {
        verdict.next("find who used the memory: dmesg | grep -A20 oom-kill, free -h").next("limit the others with -m")
    }
}

fn signalled(facts: &WhyFacts, detail: &ExitDetail, signal: i32) -> Verdict {
    let name = signal_name(signal);
    let mut verdict = match (asked_for(&facts.asked, signal), signal) {
        (Some(asked), _) => by_command(facts, asked, signal),
        (None, SIGSYS) => {
            Verdict::new(Cause::Seccomp, "a system call that its seccomp filter forbids by killing ended it (SIGSYS)")
                .next(format!(
                    "see which: dmesg | grep 'type=1326.*pid={}', or onggi learn run with the same image and command",
                    detail.pid
                ))
                .next("allow it with a profile of its own: --security-opt seccomp=FILE")
        }
        (None, 4 | 6 | 7 | 8 | 11) => {
            Verdict::new(Cause::Signal, format!("its own fault ended it: {name} ({})", fault(signal)))
                .next("the program is broken, or was built for another processor or C library than this image has")
        }
        (None, SIGKILL) => {
            Verdict::new(Cause::Signal, "somebody sent SIGKILL to its first process, and it was no command of onggi")
                .because("no OOM kill was counted in its cgroup")
                .next("look for a process outside that kills: an administrator, a supervisor, systemd-oomd")
        }
        (None, _) => Verdict::new(
            Cause::Signal,
            format!("the signal {name} ended its first process, and it was no command of onggi that sent it"),
        )
        .next("look for who sent it: the process itself, its children, or an administrator"),
    };
    verdict.evidence.insert(0, format!("wait(2) told of signal {signal} ({name}), so the code is 128 + {signal}"));
    if detail.core_dumped {
        verdict.evidence.push("it left a core dump (see /proc/sys/kernel/core_pattern)".to_owned());
    }
    verdict
}

fn fault(signal: i32) -> &'static str {
    match signal {
        4 => "an instruction that this processor does not have",
        6 => "it called abort(3)",
        7 => "a bad memory access: a truncated file that is mapped, or broken alignment",
        8 => "an arithmetic error",
        _ => "an invalid memory access",
    }
}

fn asked_for(asked: &[Asked], signal: i32) -> Option<&Asked> {
    asked.iter().rev().find(|a| a.signal == signal)
}

fn by_command(facts: &WhyFacts, asked: &Asked, signal: i32) -> Verdict {
    let name = signal_name(signal);
    let stopping = matches!(asked.verb.as_str(), "stop" | "restart");
    let gentle = facts.asked.iter().find(|a| a.verb == asked.verb && a.signal != SIGKILL);
    let verdict = match (stopping, signal, gentle) {
        (true, SIGKILL, Some(gentle)) => {
            let seconds = (asked.at - gentle.at) / 1_000_000_000;
            Verdict::new(
                Cause::Stopped,
                format!(
                    "onggi {} asked it to end with {} and killed it after {seconds} s, because it had not",
                    asked.verb,
                    signal_name(gentle.signal)
                ),
            )
            .next("as first process it gets no default action of signals: handle the signal, or run it with --init")
            .next("or give it more time: onggi stop -t SECONDS")
        }
        (true, ..) => Verdict::new(Cause::Stopped, format!("onggi {} ended it with {name}", asked.verb)),
        (false, ..) => Verdict::new(Cause::Killed, format!("onggi {} ended it with {name}", asked.verb)),
    };
    verdict
        .because(format!("asked.json: onggi {} sent {name}", asked.verb))
        .next(format!("start it again: onggi start {}", facts.name))
}

/// The first process ended of its own accord, whatever its code says.
fn by_itself(facts: &WhyFacts, exit: &ExitRecord, limits: &LimitEvents) -> Verdict {
    let code = exit.exit_code;
    let stop = facts.asked.iter().rev().find(|a| matches!(a.verb.as_str(), "stop" | "restart" | "kill"));
    if let Some(asked) = stop.filter(|_| limits.pids_hits == 0) {
        let name = signal_name(asked.signal);
        return Verdict::new(
            Cause::Stopped,
            format!("onggi {} sent {name}, which it handled and ended with code {code}", asked.verb),
        )
        .because(format!("asked.json: onggi {} sent {name}", asked.verb));
    }
    if code == 0 {
        return Verdict::new(Cause::Success, "its first process ended by itself, with success")
            .because("a container lives as long as its first process: a command that goes to the background ends it")
            .next("to keep it running, run the program in the foreground");
    }
    if limits.pids_hits > 0 {
        let limit = limits.pids_limit.map_or_else(|| "none".to_owned(), |n| n.to_string());
        return Verdict::new(
            Cause::PidsLimit,
            format!("it could not make more processes (its limit is {limit}), and ended with code {code}"),
        )
        .because(format!("pids.events counted {} refused forks; pids.max is {limit}", limits.pids_hits))
        .next("give it more: run it with --pids-limit, or look for what forks without end");
    }
    let mut verdict = library_missing(facts).unwrap_or_else(|| by_code(facts, code));
    verdict.evidence.insert(0, format!("its first process ended by itself with code {code}; no signal ended it"));
    if limits.memory_hits > 0 {
        verdict.evidence.push(format!("its memory limit was hit {} times, without a kill", limits.memory_hits));
    }
    for advice in advice_of_log(facts) {
        verdict.next.insert(0, advice);
    }
    verdict
}

/// The loader ends a program that lacks a library with 127, and says so.
fn library_missing(facts: &WhyFacts) -> Option<Verdict> {
    let said = facts.log.iter().find(|line| {
        line.contains("error while loading shared libraries") || line.contains("Error loading shared library")
    })?;
    let program = facts.program.as_ref();
    let mut missing = program.into_iter().flat_map(|p| p.missing_libraries());
    let what = match missing.next() {
        Some(library) => format!("{} (needed by {}) is not in the image", library.name, library.of),
        None => "its loader did not find one".to_owned(),
    };
    let mut verdict = Verdict::new(Cause::LibraryMissing, format!("a shared library is missing: {what}"))
        .because(format!("the loader wrote: {said}"));
    if let Some(program) = program {
        let missing: Vec<&str> = program.missing_libraries().map(|l| l.name.as_str()).collect();
        if !missing.is_empty() {
            verdict = verdict.because(format!("read from ELF headers, not in the image: {}", missing.join(", ")));
        }
    }
    Some(verdict.next("install the package that has it, or make the image with onggi image from-binary"))
}

fn by_code(facts: &WhyFacts, code: i32) -> Verdict {
    let command = facts.command.first().cloned().unwrap_or_default();
    let plain = |text: &str| Verdict::new(Cause::ExitCode, format!("{command} ended with code {code}: {text}"));
    match code {
        125 => plain("the code of a container engine's own failure, but here the command itself returned it"),
        126 => plain("a shell says so when it found a command that it may not execute")
            .next("see the log for which; chmod +x it in the image"),
        127 => plain("a shell says so when it does not find a command").next("see the log for which; check PATH"),
        129..=192 => {
            let signal = signal_name(code - 128);
            plain(&format!("a shell says so when its last command was ended by {signal}"))
                .next("the first process was not ended by it: one of its children was; see the log")
        }
        1 => plain("its general failure").next(format!("see its log: onggi logs {}", facts.name)),
        2 => plain("usually wrong arguments, or a misuse of the shell").next("check the command line"),
        _ => plain("what that means only the program's own documentation says")
            .next(format!("see its log: onggi logs {}", facts.name)),
    }
}

/// What lines of a log that everybody has seen mean in a container.
fn advice_of_log(facts: &WhyFacts) -> Vec<String> {
    let said = |text: &str| facts.log.iter().any(|line| line.to_ascii_lowercase().contains(text));
    let mut advice = Vec::new();
    if said("read-only file system") {
        advice.push(match facts.read_only {
            true => "it was run with --read-only: give it what it writes to with -v or --tmpfs".to_owned(),
            false => "it wrote to what is read-only in a container (/proc, /sys, a volume with ro)".to_owned(),
        });
    }
    if said("operation not permitted") {
        advice.push("it may lack a capability or a system call: onggi learn run finds out which".to_owned());
    }
    if said("no space left on device") {
        advice.push("the disk is full: onggi system df, onggi system prune".to_owned());
    }
    if said("address already in use") {
        advice.push(
            "something in the same network namespace has the port: onggi inspect --kernel shows sockets".to_owned(),
        );
    }
    if said("temporary failure in name resolution") || said("could not resolve host") {
        advice.push("names are not resolved: see resolv.conf in the container and onggi doctor".to_owned());
    }
    advice
}

fn failed_start(facts: &WhyFacts) -> Verdict {
    let Some(failed) = &facts.failed else { return Verdict::new(Cause::StartFailed, "it could not be started") };
    let command = facts.command.first().cloned().unwrap_or_default();
    let invoked = matches!(failed.exit_code, 126 | 127);
    let mut verdict = match (invoked, &facts.program) {
        (true, Some(program)) => match &program.problem {
            Some(problem) => exec_problem(&command, problem, &program.searched),
            None if facts.noexec.is_some() => Verdict::new(
                Cause::NoExec,
                format!("{command:?} is on {:?}, which is mounted noexec", facts.noexec.as_deref().unwrap_or_default()),
            )
            .next("mount it without noexec, or put the program elsewhere"),
            None => Verdict::new(Cause::NotExecutable, format!("the kernel refused to execute {command:?}"))
                .next("its user may lack the right to it or to a directory above it: ls -l, namei -l"),
        },
        _ => Verdict::new(Cause::StartFailed, "it could not be started: a step before its command failed"),
    };
    verdict.evidence.insert(0, format!("the start said: {}", failed.error));
    if let Some(failure) = failed.failure.as_ref().filter(|f| f.errno != 0) {
        verdict.evidence.push(format!(
            "the system call: {} = {}",
            failure.call,
            onggi_sys::error::describe(failure.errno)
        ));
    }
    if let Some(program) = &facts.program {
        for step in &program.interpreters {
            let state = if step.present { "there" } else { "missing" };
            verdict.evidence.push(format!("{} is run through {:?}: {state}", step.of, step.path));
            if step.path.ends_with('\r') {
                verdict.next.insert(0, format!("{} has DOS line ends: dos2unix it in the image", step.of));
            }
        }
        let missing: Vec<&str> = program.missing_libraries().map(|l| l.name.as_str()).collect();
        if !missing.is_empty() {
            verdict.evidence.push(format!("libraries that are not in the image either: {}", missing.join(", ")));
        }
    }
    if !failed.hint.is_empty() && !verdict.next.contains(&failed.hint) {
        verdict.next.push(failed.hint.clone());
    }
    verdict.next(format!("then start it again: onggi start {}", facts.name))
}

fn exec_problem(command: &str, problem: &ExecutableProblem, searched: &[String]) -> Verdict {
    let verdict = match problem {
        ExecutableProblem::NotFound { in_path: true, .. } => {
            Verdict::new(Cause::CommandNotFound, format!("there is no {command:?} in the PATH of the container"))
                .because(format!("searched: {}", searched.join(", ")))
        }
        ExecutableProblem::NotFound { .. } => {
            Verdict::new(Cause::CommandNotFound, format!("there is no file {command:?} in the container"))
        }
        ExecutableProblem::MissingInterpreter { path, interpreter } => Verdict::new(
            Cause::InterpreterMissing,
            format!("{path:?} is there, but {interpreter:?}, which it is run through, is not"),
        ),
        ExecutableProblem::WrongArchitecture { path, architecture } => Verdict::new(
            Cause::WrongArchitecture,
            format!("{path:?} is a program for {architecture}, and this machine is {}", std::env::consts::ARCH),
        ),
        ExecutableProblem::NotExecutable { path, reason } => {
            Verdict::new(Cause::NotExecutable, format!("{path:?} {reason}"))
        }
    };
    verdict.next(problem.hint())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! What listening to capability checks takes: the operations, in words, and as a script that listens by hand.

use serde::Serialize;

use crate::{cap_probe, shell};

/// The tracepoint.
pub(super) const EVENT: &str = "events/capability/cap_capable";
/// Kilobytes of trace buffer for each processor: some ten thousand checks between two looks.
const BUFFER: u32 = 4096;

/// What tells of capability checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Teller {
    /// The tracepoint `capability:cap_capable` (Linux 6.14).
    Tracepoint,
    /// Probes of the kernel function that checks (kprobe events), before.
    Probes,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum AuditOp {
    /// An instance of tracefs of our own.
    Instance,
    /// A value is written to a file of the instance.
    Set {
        /// The file.
        file: String,
        /// The value.
        value: String,
    },
    /// Probes of the function that checks are defined, for the whole machine, and switched on in the instance.
    Probe {
        /// Lines of `kprobe_events`.
        definitions: Vec<String>,
        /// Directories of their events in the instance.
        events: Vec<String>,
    },
    /// The definitions are taken back, when nobody else listens.
    Unprobe {
        /// Lines of `kprobe_events`.
        definitions: Vec<String>,
    },
    /// Only these processes, and what they start, are listened to.
    Only {
        /// By their numbers in our pid namespace; the trace has those of the first one.
        pids: Vec<i32>,
    },
    /// Only the thread that asks, and what it starts, is listened to.
    Own,
    /// Listens for a time.
    Watch {
        /// How long.
        seconds: u64,
    },
    /// Listens while a command runs.
    Execute {
        /// Program and arguments.
        command: Vec<String>,
        /// At most so long, where that was asked for.
        seconds: Option<u64>,
    },
    /// The instance is removed.
    Remove,
}

/// What will be done, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditPlan {
    /// The operations.
    pub ops: Vec<AuditOp>,
}

impl AuditOp {
    /// As a sentence.
    pub fn words(&self) -> String {
        words(self)
    }

    /// As lines of a script that begins with [`SCRIPT_HEAD`].
    pub fn shell(&self) -> String {
        line(self)
    }
}

/// The places that the lines of a script name: `$T`, where tracefs is, and `$I`, the instance.
pub const SCRIPT_HEAD: &str = "#!/bin/sh\nset -e\nT=/sys/kernel/tracing\n[ -d $T/instances ] || mount -t tracefs tracefs $T\n\
                               I=$T/instances/onggi-by-hand-$$\n";

impl AuditPlan {
    /// Listens to processes, for a time or while a command runs.
    pub fn new(teller: Teller, pids: Vec<i32>, meanwhile: AuditOp) -> Self {
        let set = |file: &str, value: String| AuditOp::Set { file: file.to_owned(), value };
        let all = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let events = match teller {
            Teller::Tracepoint => vec![EVENT],
            Teller::Probes => cap_probe::EVENTS.to_vec(),
        };
        let enable = |value: &str| events.iter().map(|event| set(&format!("{event}/enable"), value.into())).collect();
        let (mut begin, mut end): (Vec<_>, Vec<_>) = (enable("1"), enable("0"));
        end.push(AuditOp::Remove);
        if teller == Teller::Probes {
            begin = vec![AuditOp::Probe { definitions: all(&cap_probe::MAKE), events: all(&events) }];
            end.push(AuditOp::Unprobe { definitions: all(&cap_probe::REMOVE) });
        }
        let prepare = [
            AuditOp::Instance,
            set("buffer_size_kb", BUFFER.to_string()),
            set("options/event-fork", "1".into()),
            set("options/stacktrace", "1".into()),
            AuditOp::Only { pids },
        ];
        Self { ops: prepare.into_iter().chain(begin).chain([meanwhile]).chain(end).collect() }
    }

    /// This process starts something that is listened to as well.
    pub(super) fn executes(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, AuditOp::Execute { .. }))
    }

    /// One line per operation.
    pub fn words(&self) -> String {
        self.ops.iter().map(|op| words(op) + "\n").collect()
    }

    /// A script that listens by hand; what it prints has to be counted.
    pub fn shell(&self) -> String {
        SCRIPT_HEAD.to_owned() + &self.ops.iter().map(line).collect::<String>()
    }
}

fn numbers(pids: &[i32]) -> String {
    pids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ")
}

pub(super) fn words(op: &AuditOp) -> String {
    match op {
        AuditOp::Instance => {
            "mkdir(2) in instances of tracefs: a trace of our own, which touches nobody else's".to_owned()
        }
        AuditOp::Set { file, value } => {
            let why = match (file.as_str(), value.as_str()) {
                ("options/event-fork", _) => ": children are listened to as well",
                ("tracing_on", "0") => ": nothing more is recorded",
                ("options/stacktrace", _) => ": who asked, by which a check that is only a look is known",
                ("events/raw_syscalls/sys_enter/enable", "1") => ": each system call is told",
                (file, "1") if file.starts_with("events/sched/") => ": which process started which, and executed what",
                (file, "1") if file.ends_with("/enable") => ": from now on the kernel tells each check",
                (file, _) if file.ends_with("/enable") => ": it tells no more",
                _ => "",
            };
            format!("write {value} to {file}{why}")
        }
        AuditOp::Probe { definitions, events } => format!(
            "add {} to kprobe_events: this kernel has no tracepoint for capability checks, so the function that makes them is \
             probed; write 1 to {}: from now on the kernel tells each check and its answer",
            definitions.iter().map(|line| format!("{line:?}")).collect::<Vec<_>>().join(" and "),
            events.iter().map(|event| format!("{event}/enable")).collect::<Vec<_>>().join(" and ")
        ),
        AuditOp::Unprobe { definitions } => {
            format!("add {} to kprobe_events: the probes go, unless somebody else listens", definitions.join(" and "))
        }
        AuditOp::Only { pids } => format!("write {} to set_event_pid: only these processes", numbers(pids)),
        AuditOp::Own => "write the number of this thread to set_event_pid: only what it starts".to_owned(),
        AuditOp::Watch { seconds } => format!("read trace_pipe for {seconds} s, and count"),
        AuditOp::Execute { command, seconds } => {
            let most = seconds.map(|seconds| format!(", {seconds} s at most")).unwrap_or_default();
            format!(
                "write this process's number to set_event_pid too; run {}; meanwhile read trace_pipe, and count{most}",
                shell::words(command)
            )
        }
        AuditOp::Remove => "rmdir(2) of the trace".to_owned(),
    }
}

fn line(op: &AuditOp) -> String {
    match op {
        AuditOp::Instance => {
            "mkdir $I\nundo=:\ntrap 'echo 0 > $I/events/enable; rmdir $I; eval \"$undo\"' EXIT\n".to_owned()
        }
        // One that is there already is somebody else's, and the same.
        AuditOp::Probe { definitions, events } => {
            let tell = |line: &String| format!("echo {} >> $T/kprobe_events || true\n", shell::quote(line));
            let enable = |event: &String| format!("echo 1 > $I/{}/enable\n", shell::quote(event));
            let undo = cap_probe::REMOVE.map(|line| format!("echo {line} >> $T/kprobe_events || true")).join("; ");
            let undo = format!("undo={}\n", shell::quote(&undo));
            definitions.iter().map(tell).chain([undo]).chain(events.iter().map(enable)).collect()
        }
        AuditOp::Set { file, value } => format!("echo {} > $I/{}\n", shell::quote(value), shell::quote(file)),
        AuditOp::Only { pids } => {
            let all = numbers(pids);
            format!(
                "# numbers are those of the first pid namespace\nfor p in {all}; do echo $p >> $I/set_event_pid; done\n"
            )
        }
        AuditOp::Own => "echo ${own:-$$} > $I/set_event_pid\n".to_owned(),
        AuditOp::Watch { seconds } => format!("timeout {seconds} cat $I/trace_pipe || true\n"),
        AuditOp::Execute { command, seconds } => {
            let limit = seconds.map(|seconds| format!("timeout {seconds} ")).unwrap_or_default();
            let command = shell::words(command);
            format!(
                "cat $I/trace_pipe & reader=$!\necho $$ >> $I/set_event_pid\n{limit}{command} || true\nsleep 1\nkill $reader\nwait $reader || true\n"
            )
        }
        // The trap does it, also when the script fails.
        AuditOp::Remove | AuditOp::Unprobe { .. } => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_told_in_words_and_as_a_script_that_cleans_up() {
        let plan = AuditPlan::new(Teller::Tracepoint, vec![4, 5], AuditOp::Watch { seconds: 10 });
        let words = plan.words();
        for part in ["mkdir(2)", "write 4 5 to set_event_pid", "for 10 s", "rmdir(2)"] {
            assert!(words.contains(part), "{part:?} is missing in\n{words}");
        }
        let script = plan.shell();
        for part in ["trap ", "for p in 4 5;", "timeout 10 cat $I/trace_pipe"] {
            assert!(script.contains(part), "{part:?} is missing in\n{script}");
        }
        let run = AuditOp::Execute { command: vec!["id".into(), "a b".into()], seconds: Some(3) };
        let plan = AuditPlan::new(Teller::Tracepoint, vec![4], run);
        assert!(plan.shell().contains("timeout 3 id 'a b' || true"));
        assert!(!plan.words().contains("kprobe_events"));
    }

    #[test]
    fn a_kernel_without_the_tracepoint_is_told_what_is_probed_and_that_the_probes_go() {
        let plan = AuditPlan::new(Teller::Probes, vec![4], AuditOp::Watch { seconds: 10 });
        let (words, script) = (plan.words(), plan.shell());
        for part in ["p:onggi/cap_asked cap_capable", "no tracepoint", "-:onggi/cap_asked and -:onggi/cap_answered"] {
            assert!(words.contains(part), "{part:?} is missing in\n{words}");
        }
        assert!(!words.contains("capability/cap_capable"), "{words}");
        for part in ["kprobe_events || true", "$I/events/onggi/cap_answered/enable", "undo='echo -:onggi/cap_asked"] {
            assert!(script.contains(part), "{part:?} is missing in\n{script}");
        }
    }
}

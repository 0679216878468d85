//! What listening to capability checks takes: the operations, in words, and as a script that listens by hand.

use serde::Serialize;

use crate::shell;

/// The tracepoint.
pub(super) const EVENT: &str = "events/capability/cap_capable";
/// Kilobytes of trace buffer for each processor: some ten thousand checks between two looks.
const BUFFER: u32 = 4096;

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
    /// Only these processes, and what they start, are listened to.
    Only {
        /// By their numbers in our pid namespace; the trace has those of the first one.
        pids: Vec<i32>,
    },
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

impl AuditPlan {
    /// Listens to processes, for a time or while a command runs.
    pub fn new(pids: Vec<i32>, meanwhile: AuditOp) -> Self {
        let set = |file: &str, value: String| AuditOp::Set { file: file.to_owned(), value };
        let enable = format!("{EVENT}/enable");
        let ops = vec![
            AuditOp::Instance,
            set("buffer_size_kb", BUFFER.to_string()),
            set("options/event-fork", "1".into()),
            set("options/stacktrace", "1".into()),
            AuditOp::Only { pids },
            set(&enable, "1".into()),
            meanwhile,
            set(&enable, "0".into()),
            AuditOp::Remove,
        ];
        Self { ops }
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
        let head = "#!/bin/sh\nset -e\nT=/sys/kernel/tracing\n[ -d $T/instances ] || mount -t tracefs tracefs $T\n\
                    I=$T/instances/onggi-by-hand-$$\n";
        head.to_owned() + &self.ops.iter().map(line).collect::<String>()
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
                ("options/stacktrace", _) => ": who asked, by which a check that is only a look is known",
                (file, "1") if file.starts_with(EVENT) => ": from now on the kernel tells each check",
                (file, _) if file.starts_with(EVENT) => ": it tells no more",
                _ => "",
            };
            format!("write {value} to {file}{why}")
        }
        AuditOp::Only { pids } => format!("write {} to set_event_pid: only these processes", numbers(pids)),
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
        AuditOp::Instance => "mkdir $I\ntrap 'echo 0 > $I/events/enable; rmdir $I' EXIT\n".to_owned(),
        AuditOp::Set { file, value } => format!("echo {} > $I/{}\n", shell::quote(value), shell::quote(file)),
        AuditOp::Only { pids } => {
            let all = numbers(pids);
            format!(
                "# numbers are those of the first pid namespace\nfor p in {all}; do echo $p >> $I/set_event_pid; done\n"
            )
        }
        AuditOp::Watch { seconds } => format!("timeout {seconds} cat $I/trace_pipe || true\n"),
        AuditOp::Execute { command, seconds } => {
            let limit = seconds.map(|seconds| format!("timeout {seconds} ")).unwrap_or_default();
            let command = shell::words(command);
            format!(
                "cat $I/trace_pipe & reader=$!\necho $$ >> $I/set_event_pid\n{limit}{command} || true\nsleep 1\nkill $reader\nwait $reader || true\n"
            )
        }
        // The trap does it, also when the script fails.
        AuditOp::Remove => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_told_in_words_and_as_a_script_that_cleans_up() {
        let plan = AuditPlan::new(vec![4, 5], AuditOp::Watch { seconds: 10 });
        let words = plan.words();
        for part in ["mkdir(2)", "write 4 5 to set_event_pid", "for 10 s", "rmdir(2)"] {
            assert!(words.contains(part), "{part:?} is missing in\n{words}");
        }
        let script = plan.shell();
        for part in ["trap ", "for p in 4 5;", "timeout 10 cat $I/trace_pipe"] {
            assert!(script.contains(part), "{part:?} is missing in\n{script}");
        }
        let run = AuditOp::Execute { command: vec!["id".into(), "a b".into()], seconds: Some(3) };
        assert!(AuditPlan::new(vec![4], run).shell().contains("timeout 3 id 'a b' || true"));
    }
}

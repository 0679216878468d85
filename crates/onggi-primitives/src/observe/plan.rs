//! What observing takes, as operations: those that [`super::Observer`] carries out, in this order.

use super::BUFFER;
use crate::{
    AuditOp, Teller,
    cap_probe::{EVENTS, MAKE, REMOVE},
};

/// The tracepoint of capability checks.
pub(super) const CAPABILITY: &str = "events/capability/cap_capable/enable";

/// Before the workload, and after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservePlan {
    /// The trace is made, and everything that counts is switched on.
    pub before: Vec<AuditOp>,
    /// Everything goes.
    pub after: Vec<AuditOp>,
}

impl ObservePlan {
    /// Observes what the calling thread starts.
    pub fn new(teller: Teller) -> Self {
        let set = |file: &str, value: &str| AuditOp::Set { file: file.to_owned(), value: value.to_owned() };
        let all = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let mut before = vec![
            AuditOp::Instance,
            set("buffer_size_kb", BUFFER),
            set("options/event-fork", "1"),
            AuditOp::Own,
            set("events/sched/sched_process_fork/enable", "1"),
            set("events/sched/sched_process_exec/enable", "1"),
            set("events/raw_syscalls/sys_enter/enable", "1"),
        ];
        let mut after = vec![set("tracing_on", "0"), AuditOp::Remove];
        match teller {
            Teller::Tracepoint => before.push(set(CAPABILITY, "1")),
            Teller::Probes => {
                before.push(AuditOp::Probe { definitions: all(&MAKE), events: all(&EVENTS) });
                after.push(AuditOp::Unprobe { definitions: all(&REMOVE) });
            }
        }
        Self { before, after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_listens_before_the_workload_and_leaves_nothing() {
        for teller in [Teller::Tracepoint, Teller::Probes] {
            let plan = ObservePlan::new(teller);
            let own = plan.before.iter().position(|op| *op == AuditOp::Own).expect("it observes itself");
            let calls = plan.before.iter().position(|op| op.words().contains("sys_enter")).expect("system calls");
            assert!(own < calls, "what others do is not recorded");
            assert!(plan.before.last().is_some_and(|op| op.words().contains("cap_")), "{plan:?}");
            assert!(plan.after.contains(&AuditOp::Remove));
            assert_eq!(plan.after.len(), if teller == Teller::Probes { 3 } else { 2 });
        }
    }
}

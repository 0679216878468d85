//! `learn run --explain`: the observation around the plan of `run`, and what is made of it.

use std::path::Path;

use onggi_engine::Explanation;
use onggi_primitives::{AuditOp, SCRIPT_HEAD, observe::ObservePlan, shell};
use serde_json::{Value, json};

use crate::{commands::explain::Plan, error::CliError};

/// Events have numbers of the first pid namespace: a mark of the shell's own shows its one.
const OWN_NUMBER: &str = "echo onggi-mark > $I/trace_marker\n\
                          own=$(sed -n 's/^.*-\\([0-9]*\\) *\\[.*onggi-mark.*/\\1/p' $I/trace)\n";

/// What will be done, in order.
pub(super) struct LearnPlan<'l> {
    pub(super) observe: ObservePlan,
    pub(super) run: Explanation,
    /// Where the proposal goes.
    pub(super) output: &'l Path,
}

impl LearnPlan<'_> {
    fn afterwards(&self) -> [String; 3] {
        [
            "read the upper directory of the container's overlay: which paths were written".to_owned(),
            "remove the container, as `onggi rm -f` does".to_owned(),
            format!("write seccomp.json, profile.json, report.json and flags into {}", self.output.display()),
        ]
    }
}

impl Plan for LearnPlan<'_> {
    fn words(&self) -> String {
        let lines = |ops: &[AuditOp]| ops.iter().map(|op| op.words() + "\n").collect::<String>();
        let meanwhile = "meanwhile read trace_pipe, and keep each system call and capability of the container once\n";
        let afterwards: String = self.afterwards().iter().map(|line| format!("{line}\n")).collect();
        [&lines(&self.observe.before), &*self.run.words(), meanwhile, &lines(&self.observe.after), &afterwards].concat()
    }

    /// Prints numbers; those of the tools that build the container by hand are among them.
    fn shell(&self) -> String {
        let lines = |ops: &[AuditOp]| ops.iter().map(AuditOp::shell).collect::<String>();
        let (make, rest) = self.observe.before.split_at(1);
        let directory = shell::path(self.output);
        // The reader is started before anything is listened to: it would tell of itself without end.
        format!(
            "{SCRIPT_HEAD}{}{OWN_NUMBER}mkdir -p {directory}\ncat $I/trace_pipe > {directory}/trace & reader=$!\n{}\
             bash -e -c {} || true\nsleep 1\n{}kill $reader 2>/dev/null || true\nwait $reader || true\n\
             # also the calls of the tools that have built the container: onggi counts from its seccomp filter on\n\
             echo system calls:\nsed -n 's/.*sys_enter: NR \\([0-9]*\\) .*/\\1/p' {directory}/trace | sort -nu\n\
             echo capabilities:\nsed -n 's/.*cap_capable: .* cap \\([0-9]*\\), ret 0$/\\1/p; \
             s/.*cap_asked: .*cap=\\([0-9]*\\)$/\\1/p' {directory}/trace | sort -nu\n",
            lines(make),
            lines(rest),
            shell::quote(&self.run.shell()),
            lines(&self.observe.after),
        )
    }

    fn json(&self) -> Result<Value, CliError> {
        Ok(json!({
            "before": serde_json::to_value(&self.observe.before)?,
            "run": self.run.json(),
            "after": serde_json::to_value(&self.observe.after)?,
            "afterwards": self.afterwards(),
        }))
    }
}

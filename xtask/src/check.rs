//! `cargo xtask check`: what must hold before a change is shown to anyone, without root.
//!
//! Every step runs even when an earlier one failed: one run shows everything that is wrong.

use std::time::{Duration, Instant};

use crate::{
    Outcome,
    process::{cargo, run},
    setup, test, tidy,
};

/// One step that was run.
pub(crate) struct Step {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Runs all steps and the tests that need no root.
pub(crate) fn main(_args: &[String]) -> Outcome {
    let mut steps = static_steps();
    let mut counts = test::Counts::default();
    steps.push(step("tests without root", || {
        counts = test::run_tests(test::Tier::NoRoot, &[])?;
        counts.outcome()
    }));
    let outcome = summary(&steps);
    println!("{counts}");
    outcome
}

/// Formatting, lints, dependency policy, tidy.
pub(crate) fn static_steps() -> Vec<Step> {
    vec![
        step("fmt", || run(cargo().args(["fmt", "--all", "--check"]))),
        step("clippy", clippy),
        step("deny", deny),
        step("tidy", || tidy::main(&[])),
    ]
}

fn clippy() -> Outcome {
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"]))
}

fn deny() -> Outcome {
    if !setup::find_cargo_tool("cargo-deny") {
        println!("NOT CHECKED: cargo-deny is missing; `cargo xtask setup` installs it");
        return Ok(());
    }
    // The advisory database would need the network.
    run(cargo().args(["deny", "--offline", "--log-level", "error", "check", "licenses", "bans", "sources"]))
}

/// Runs one step and keeps its outcome.
pub(crate) fn step(name: &'static str, work: impl FnOnce() -> Outcome) -> Step {
    println!("== {name}");
    let start = Instant::now();
    let outcome = work();
    if let Err(message) = &outcome {
        println!("FAILED {name}: {message}");
    }
    Step { name, outcome, took: start.elapsed() }
}

/// Prints a line per step; an error names those that failed.
pub(crate) fn summary(steps: &[Step]) -> Outcome {
    println!("== summary");
    for step in steps {
        let word = if step.outcome.is_ok() { "ok" } else { "FAILED" };
        println!("{word:<7} {:<20} {:>6.1} s", step.name, step.took.as_secs_f64());
    }
    let failed: Vec<&str> = steps.iter().filter(|step| step.outcome.is_err()).map(|step| step.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

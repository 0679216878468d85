//! `cargo xtask test`: every tier of tests that this machine can run, and a check that it is left as found.
//!
//! The tests run with nextest, one process each; without nextest they run with `cargo test`. Programs are
//! built once and tested in their installed layout (`target/dist`).

use std::{
    fmt,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::{
    Outcome, build, check, cve, fuzz, leaks,
    process::{cargo, command, is_root, line},
    setup, vm,
};

/// Turns on the named points at which tests kill the engine.
pub(crate) const FEATURES: &str = "onggi-cli/failpoints";

/// Tests that need root, in any crate, have names that begin with `root_`; those of `onggi-tests` drive the
/// installed programs and make network namespaces and containers.
const NEEDS_ROOT: &str = "test(/(^|::)root_/) + (package(onggi-tests) & kind(test))";

/// Tests that run in the virtual machine only (`cargo xtask vm`).
const ONLY_IN_VM: &str = "test(/(^|::)vm_/)";

/// Which tests to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Those that an ordinary user can run.
    NoRoot,
    /// All.
    All,
}

/// How many tests ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Counts {
    /// Of a run that skips nothing.
    pub(crate) fn of(passed: u32, failed: u32) -> Counts {
        Counts { passed, failed, skipped: 0 }
    }

    fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// An error when a test failed or when there was none.
    pub(crate) fn outcome(self) -> Outcome {
        match (self.passed, self.failed) {
            (0, 0) => Err("no test ran".to_owned()),
            (_, 0) => Ok(()),
            (_, failed) => Err(format!("{failed} tests failed")),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} not run here", self.skipped) } else { Ok(()) }
    }
}

/// Runs everything.
pub(crate) fn main(args: &[String]) -> Outcome {
    let (flags, filter): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| arg.starts_with("--"));
    if let Some(unknown) =
        flags.iter().find(|flag| !["--long", "--no-setup", "--no-vm", "--cve", "--debug"].contains(&flag.as_str()))
    {
        let usage = "usage: cargo xtask test [--long] [--no-setup] [--no-vm] [FILTER] | test --cve [--debug]";
        return Err(format!("unknown option {unknown}; {usage}"));
    }
    let has = |flag: &str| flags.iter().any(|given| *given == flag);
    match (has("--cve"), has("--debug")) {
        (true, false) => return cve::main(cve::Built::AsInstalled),
        (true, true) => return cve::main(cve::Built::Debug),
        (false, true) => return Err("--debug belongs to --cve: everything else tests what is installed".to_owned()),
        (false, false) => {}
    }
    let mut steps = Vec::new();
    if !has("--no-setup") {
        steps.push(check::step("setup", setup::packages));
    }
    let before = leaks::Snapshot::take();
    if filter.is_empty() {
        steps.extend(check::static_steps());
    }
    let mut counts = Counts::default();
    let mut built = false;
    let vm_follows = !has("--no-vm") && vm::unavailable().is_none();
    steps.push(check::step("build programs", || {
        beside(vm_follows.then_some(vm::prepare), || programs(filter.is_empty())).inspect(|()| built = true)
    }));
    let tier = if is_root() && built { Tier::All } else { Tier::NoRoot };
    if tier == Tier::NoRoot {
        println!("NOT RUN HERE: tests that need root (run as root for the whole suite)");
    }
    steps.push(check::step("tests", || {
        let mut extra: Vec<&str> = filter.iter().map(|word| word.as_str()).collect();
        if has("--long") {
            extra.push("--run-ignored=all");
        }
        counts = run_tests(tier, &extra)?;
        counts.outcome()
    }));
    if filter.is_empty() {
        steps.push(check::step("fuzz", fuzz::smoke));
    }
    if !has("--no-vm") {
        steps.push(check::step("vm", || {
            let in_vm = in_vm(&filter)?;
            counts.add(in_vm);
            if in_vm.failed == 0 { Ok(()) } else { in_vm.outcome() }
        }));
    }
    steps.push(check::step("leaks", || leaks::nothing_added_since(&before)));
    let outcome = check::summary(&steps);
    println!("{counts}");
    outcome
}

/// The tests of the virtual machine, where there can be one.
fn in_vm(filter: &[&String]) -> Outcome<Counts> {
    if let Some(reason) = vm::unavailable() {
        println!("NOT RUN HERE: tests in a virtual machine (cgroup v2, systemd, AppArmor): {reason}");
        return Ok(Counts::default());
    }
    let words: Vec<String> = filter.iter().map(|word| (*word).clone()).collect();
    vm::tests(&vm::installed(), &[], &words)
}

/// Does `work` while `other` runs in a thread: downloads and links wait for different things.
fn beside(other: Option<fn()>, work: impl FnOnce() -> Outcome) -> Outcome {
    std::thread::scope(|threads| {
        if let Some(other) = other {
            threads.spawn(other);
        }
        work()
    })
}

/// Builds everything that the tests start, and the tests: side by side, because linking the installed program is
/// one thread's work for minutes.
fn programs(fuzz_too: bool) -> Outcome {
    let (installed, tests) = std::thread::scope(|threads| {
        let tests = threads.spawn(|| {
            let onggi = build::tests();
            if fuzz_too {
                // A failure shows again, and counts, when they are to run.
                let _ = fuzz::build_targets();
            }
            onggi
        });
        (build::dist(), tests.join().unwrap_or_else(|_| Err("building the tests panicked".to_owned())))
    });
    let failpoints = build::Programs { onggi: tests?, onggi_oci: installed?.onggi_oci };
    build::lay_out(&failpoints, &build::target_dir().join("dist-failpoints")).map(|_| ())
}

/// Runs the tests of a tier and counts them. An error means that they could not be run at all.
pub(crate) fn run_tests(tier: Tier, extra: &[&str]) -> Outcome<Counts> {
    let mut test = if setup::find_cargo_tool("cargo-nextest") { nextest(tier) } else { cargo_test(tier) };
    test.args(extra);
    test.env("ONGGI_TEST_PREFIX", build::target_dir().join("dist"));
    test.env("ONGGI_TEST_FAILPOINTS_PREFIX", build::target_dir().join("dist-failpoints"));
    count(&mut test)
}

fn nextest(tier: Tier) -> Command {
    let mut test = cargo();
    test.args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast", "--features", FEATURES]);
    test.args(["--status-level", "fail", "--final-status-level", "fail", "--color", "never"]);
    let not_here = if tier == Tier::NoRoot { format!("{NEEDS_ROOT} + {ONLY_IN_VM}") } else { ONLY_IN_VM.to_owned() };
    test.args(["-E", &format!("not ({not_here})")]);
    test
}

/// The stand-in: slower and with less isolation, but part of every toolchain.
fn cargo_test(tier: Tier) -> Command {
    println!("cargo-nextest is missing (`cargo xtask setup` installs it); using cargo test");
    let mut test = cargo();
    test.args(["test", "--workspace", "--locked", "--no-fail-fast", "--features", FEATURES]);
    if tier == Tier::NoRoot {
        test.args(["--exclude", "onggi-tests", "--", "--skip", "root_", "--skip", "vm_"]);
    } else {
        test.args(["--", "--test-threads", "1", "--skip", "vm_"]);
    }
    test
}

/// Runs with both streams shown line by line, and adds up the summaries that pass by.
fn count(test: &mut Command) -> Outcome<Counts> {
    println!("$ {}", line(test));
    // The shell joins the two streams in the order in which they were written.
    let mut joined = command("sh");
    joined.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(test.get_program()).args(test.get_args());
    for (key, value) in test.get_envs() {
        if let Some(value) = value {
            joined.env(key, value);
        }
    }
    let mut child = joined.stdout(Stdio::piped()).spawn().map_err(|e| format!("start {}: {e}", line(test)))?;
    let mut counts = Counts::default();
    let stdout = child.stdout.take().ok_or("the tests' output is not a pipe")?;
    for text in BufReader::new(stdout).lines() {
        let text = text.map_err(|e| format!("read the tests' output: {e}"))?;
        println!("{text}");
        counts.add(parse_summary(&text).unwrap_or_default());
    }
    let status = child.wait().map_err(|e| format!("wait for the tests: {e}"))?;
    if !status.success() && counts.failed == 0 {
        return Err(format!("`{}` ended with {status}", line(test)));
    }
    Ok(counts)
}

/// Reads nextest's `Summary [ 1.2s] 4 tests run: 3 passed (1 slow), 1 failed, 2 skipped` and libtest's
/// `test result: ok. 3 passed; 0 failed; …`.
fn parse_summary(text: &str) -> Option<Counts> {
    let list = match text.trim_start().strip_prefix("Summary [") {
        Some(rest) => rest.split_once("run:")?.1,
        // Indented, it is part of what a failed test has printed, which nextest shows.
        None => text.strip_prefix("test result:")?.split_once(". ")?.1,
    };
    let mut counts = Counts::default();
    for part in list.split([',', ';']) {
        let mut words = part.split_whitespace();
        let Some(number) = words.next().and_then(|word| word.parse::<u32>().ok()) else { continue };
        match words.next() {
            Some("passed") => counts.passed += number,
            Some("failed" | "timed" | "exec") => counts.failed += number,
            Some("skipped" | "ignored" | "filtered") => counts.skipped += number,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners_are_counted() {
        let nextest = "     Summary [   0.03s] 7 tests run: 4 passed (1 slow), 2 failed, 1 timed out, 3 skipped";
        assert_eq!(parse_summary(nextest), Some(Counts { passed: 4, failed: 3, skipped: 3 }));
        let libtest =
            "test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured; 4 filtered out; finished in 0.1s";
        assert_eq!(parse_summary(libtest), Some(Counts { passed: 5, failed: 1, skipped: 6 }));
        assert_eq!(parse_summary("        PASS [   0.003s] xtask test::tests::x"), None);
    }

    #[test]
    fn a_run_without_any_test_is_a_failure() {
        assert!(Counts::default().outcome().is_err());
        assert!(Counts { passed: 1, failed: 0, skipped: 0 }.outcome().is_ok());
        assert!(Counts { passed: 1, failed: 1, skipped: 0 }.outcome().is_err());
    }
}

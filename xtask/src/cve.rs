//! `cargo xtask test --cve`: the attacks of known advisories, each by its id.
//!
//! The table is that of the test suite itself (`tests/src/cve.rs`). An id is covered when at least one hostile test
//! and one benign twin ran and passed; anything else is a failure.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::{
    Outcome, build,
    process::{cargo, command, is_root, line},
};

#[path = "../../tests/src/cve.rs"]
mod table;

use table::{ADVISORIES, Advisory, REQUIRED};

/// True for a test that passed, by its name without its module.
type Results = BTreeMap<String, bool>;

/// Builds the runtime, runs exactly the tests of the table, and prints a line per id.
pub(crate) fn main() -> Outcome {
    if !is_root() {
        return Err("the attacks need root: they make containers as root and as an ordinary user".to_owned());
    }
    build::dist()?;
    report(&run_tests()?)
}

fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = ADVISORIES.iter().flat_map(|a| a.hostile.iter().chain(a.benign)).copied().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The harness of the standard library, so that names come one per line whatever runner is installed; one process
/// per test, because each replaces itself by a private machine.
fn run_tests() -> Outcome<Results> {
    let program = test_program()?;
    let listed = crate::process::read(command(&program).args(["--list", "--format", "terse"]))?;
    let names = names();
    let mut results = Results::new();
    let known = listed.lines().filter_map(|l| l.strip_suffix(": test"));
    for full in known.filter(|full| full.rsplit("::").next().is_some_and(|n| names.contains(&n))) {
        let mut test = command(&program);
        test.args(["--exact", full, "--quiet"]).env("ONGGI_TEST_PREFIX", build::target_dir().join("dist"));
        let output = test.stdin(Stdio::null()).output().map_err(|e| format!("start {}: {e}", line(&test)))?;
        println!("{} {full}", if output.status.success() { "ok    " } else { "FAILED" });
        if !output.status.success() {
            println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        let short = full.rsplit("::").next().unwrap_or(full);
        results.insert(short.to_owned(), output.status.success());
    }
    Ok(results)
}

/// Builds the suite and asks cargo where it is.
fn test_program() -> Outcome<String> {
    let mut build = cargo();
    build.args(["test", "--locked", "--no-run", "-p", "onggi-tests", "--test", "security"]);
    build.args(["--message-format", "json-render-diagnostics"]).stdout(Stdio::piped());
    println!("$ {}", line(&build));
    let mut child = build.spawn().map_err(|e| format!("start cargo: {e}"))?;
    let stdout = child.stdout.take().ok_or("cargo's output is not a pipe")?;
    let mut found = None;
    for text in BufReader::new(stdout).lines() {
        let text = text.map_err(|e| format!("read cargo's output: {e}"))?;
        let message: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if message["target"]["name"] == "security" {
            found = message["executable"].as_str().map(str::to_owned).or(found);
        }
    }
    let status = child.wait().map_err(|e| format!("wait for cargo: {e}"))?;
    if !status.success() {
        return Err(format!("building the suite ended with {status}"));
    }
    found.ok_or_else(|| "cargo did not name the suite's program".to_owned())
}

fn report(results: &Results) -> Outcome {
    println!("\n{:<22} {:<9} {:<40} hostile  benign", "advisory", "invariant", "component");
    let mut uncovered = Vec::new();
    for id in REQUIRED.split_whitespace() {
        let rows: Vec<&Advisory> = ADVISORIES.iter().filter(|a| a.ids.contains(&id)).collect();
        let count = |tests: fn(&Advisory) -> &'static [&'static str]| {
            let all: Vec<_> = rows.iter().flat_map(|a| tests(a)).collect();
            let passed = all.iter().filter(|name| results.get(**name as &str) == Some(&true)).count();
            (passed, all.len())
        };
        let (hostile, benign) = (count(|a| a.hostile), count(|a| a.benign));
        let covered = |(passed, all): (usize, usize)| all > 0 && passed == all;
        let word = if covered(hostile) && covered(benign) { "covered" } else { "NOT COVERED" };
        if word != "covered" {
            uncovered.push(full_id(id));
        }
        let row = rows.first();
        let invariants = row.map_or("", |a| a.invariants);
        let component = row.map_or("", |a| a.component);
        println!(
            "{:<22} {invariants:<9} {component:<40} {:>3}/{:<3}  {:>2}/{:<2}  {word}",
            full_id(id),
            hostile.0,
            hostile.1,
            benign.0,
            benign.1
        );
    }
    for advisory in ADVISORIES {
        let ids: Vec<String> = advisory.ids.iter().map(|id| full_id(id)).collect();
        println!("{}: {}", ids.join(", "), advisory.mechanism);
    }
    if uncovered.is_empty() { Ok(()) } else { Err(format!("not covered: {}", uncovered.join(", "))) }
}

fn full_id(id: &str) -> String {
    if id.starts_with("GHSA") { id.to_owned() } else { format!("CVE-{id}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_without_results_is_not_covered() {
        let error = report(&Results::new()).expect_err("nothing ran");
        assert!(error.contains("CVE-2019-5736") && error.contains("GHSA-g54h-m393-cpwq"), "{error}");
    }

    #[test]
    fn all_ids_are_covered_when_every_test_passed() {
        let all = names().into_iter().map(|name| (name.to_owned(), true)).collect();
        report(&all).expect("every id has a hostile test and a benign twin");
    }
}

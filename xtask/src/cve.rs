//! `cargo xtask test --cve`: the attacks of known advisories, each by its id.
//!
//! The table is that of the test suite itself (`tests/src/cve.rs`); tests of archives are in other programs. An id is covered when at least one hostile test
//! and one benign twin ran and passed; anything else is a failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use crate::{
    Outcome, build,
    process::{cargo, command, is_root, line},
};

#[path = "../../tests/src/cve.rs"]
mod table;

use table::{ADVISORIES, Advisory, PROGRAMS, REQUIRED};

/// True for a test that passed, by its name in the table.
type Results = BTreeMap<String, bool>;

/// Which programs are attacked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Built {
    /// As users get them.
    AsInstalled,
    /// Unoptimised: they are built in a fraction of the time.
    Debug,
}

/// The suite whose tests the table names without a program.
const SUITE: &str = "security";

/// Builds the programs, runs exactly the tests of the table, and prints a line per test and per id.
pub(crate) fn main(programs: Built) -> Outcome {
    if !is_root() {
        return Err("the attacks need root: they make containers as root and as an ordinary user".to_owned());
    }
    let prefix = match programs {
        Built::AsInstalled => build::dist().map(|_| build::target_dir().join("dist"))?,
        Built::Debug => build::debug_dist()?,
    };
    let mut results = Results::new();
    run_suite(&prefix, &mut results)?;
    run_others(&prefix, &mut results)?;
    report(&results)
}

fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = ADVISORIES.iter().flat_map(|a| a.hostile.iter().chain(a.benign)).copied().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// One process per test, because each replaces itself by a private machine.
fn run_suite(prefix: &Path, results: &mut Results) -> Outcome {
    let programs = test_programs("onggi-tests", &["--test", SUITE])?;
    let program = programs.get(SUITE).ok_or("cargo did not name the suite's program")?;
    let names = names();
    let short = |full: &str| full.rsplit("::").next().unwrap_or(full).to_owned();
    for full in listed(program, "")?.into_iter().filter(|full| names.contains(&short(full).as_str())) {
        let passed = run_test(prefix, program, &["--exact", &full], &full)?;
        results.insert(short(&full), passed);
    }
    Ok(())
}

/// Tests of other programs, by parts of their names.
fn run_others(prefix: &Path, results: &mut Results) -> Outcome {
    let packages: BTreeSet<&str> = PROGRAMS.iter().map(|p| p.1).collect();
    let mut built = BTreeMap::new();
    for package in packages {
        built.extend(test_programs(package, &["--lib", "--tests"])?);
    }
    for name in names() {
        let Some((program, part)) = name.split_once('/') else { continue };
        let path = built.get(program).ok_or_else(|| format!("cargo did not name the program {program}"))?;
        let count = listed(path, part)?.len();
        let passed = count > 0 && run_test(prefix, path, &[part], &format!("{name} ({count})"))?;
        results.insert(name.to_owned(), passed);
    }
    Ok(())
}

/// Names of a program's tests that contain `part`.
fn listed(program: &str, part: &str) -> Outcome<Vec<String>> {
    let text = crate::process::read(command(program).args(["--list", "--format", "terse", part]))?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

fn run_test(prefix: &Path, program: &str, which: &[&str], shown: &str) -> Outcome<bool> {
    let mut test = command(program);
    test.args(which).arg("--quiet").env("ONGGI_TEST_PREFIX", prefix);
    let output = test.stdin(Stdio::null()).output().map_err(|e| format!("start {}: {e}", line(&test)))?;
    let passed = output.status.success();
    println!("{} {shown}", if passed { "ok    " } else { "FAILED" });
    if !passed {
        println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(passed)
}

/// Builds a package's tests and asks cargo where they are. The harness of the standard library, so that names come one
/// per line whatever runner is installed.
fn test_programs(package: &str, which: &[&str]) -> Outcome<BTreeMap<String, String>> {
    let mut build = cargo();
    build.args(["test", "--locked", "--no-run", "-p", package]).args(which);
    build.args(["--message-format", "json-render-diagnostics"]).stdout(Stdio::piped());
    println!("$ {}", line(&build));
    let mut child = build.spawn().map_err(|e| format!("start cargo: {e}"))?;
    let stdout = child.stdout.take().ok_or("cargo's output is not a pipe")?;
    let mut found = BTreeMap::new();
    for text in BufReader::new(stdout).lines() {
        let text = text.map_err(|e| format!("read cargo's output: {e}"))?;
        let message: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if let (true, Some(name), Some(program)) =
            (message["profile"]["test"] == true, message["target"]["name"].as_str(), message["executable"].as_str())
        {
            found.insert(name.to_owned(), program.to_owned());
        }
    }
    let status = child.wait().map_err(|e| format!("wait for cargo: {e}"))?;
    if !status.success() {
        return Err(format!("building the tests of {package} ended with {status}"));
    }
    Ok(found)
}

fn report(results: &Results) -> Outcome {
    for advisory in ADVISORIES {
        print_row(advisory, results);
    }
    println!("\n{:<22} {:<9} {:<40} hostile  benign", "advisory", "invariant", "component");
    let uncovered: Vec<String> = REQUIRED.split_whitespace().filter(|id| !print_id(id, results)).map(full_id).collect();
    if uncovered.is_empty() { Ok(()) } else { Err(format!("not covered: {}", uncovered.join(", "))) }
}

/// A row of the table and each of its tests with its result.
fn print_row(advisory: &Advisory, results: &Results) {
    let ids: Vec<String> = advisory.ids.iter().map(|id| full_id(id)).collect();
    println!("\n{}: {}", ids.join(", "), advisory.mechanism);
    let hostile = advisory.hostile.iter().map(|name| ("hostile", *name));
    for (kind, name) in hostile.chain(advisory.benign.iter().map(|name| ("benign", *name))) {
        let word = match results.get(name) {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "NOT RUN",
        };
        println!("  {word:<8} {kind:<8} {name}");
    }
}

/// One id; true when it is covered.
fn print_id(id: &str, results: &Results) -> bool {
    let rows: Vec<&Advisory> = ADVISORIES.iter().filter(|a| a.ids.contains(&id)).collect();
    let count = |tests: fn(&Advisory) -> &'static [&'static str]| {
        let all: Vec<_> = rows.iter().flat_map(|a| tests(a)).collect();
        let passed = all.iter().filter(|name| results.get(**name as &str) == Some(&true)).count();
        (passed, all.len())
    };
    let (hostile, benign) = (count(|a| a.hostile), count(|a| a.benign));
    let complete = |(passed, all): (usize, usize)| all > 0 && passed == all;
    let covered = complete(hostile) && complete(benign);
    let (invariants, component) = rows.first().map_or(("", ""), |row| (row.invariants, row.component));
    let word = if covered { "covered" } else { "NOT COVERED" };
    let (of_hostile, of_benign) = (format!("{}/{}", hostile.0, hostile.1), format!("{}/{}", benign.0, benign.1));
    println!("{:<22} {invariants:<9} {component:<40} {of_hostile:>7} {of_benign:>7}  {word}", full_id(id));
    covered
}

fn full_id(id: &str) -> String {
    if id.starts_with("GHSA") || id.starts_with("RUSTSEC") { id.to_owned() } else { format!("CVE-{id}") }
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

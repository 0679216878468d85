//! The table of advisories is complete and names tests that exist.

use std::{collections::BTreeSet, process::Command};

use onggi_tests::cve::{ADVISORIES, PROGRAMS, REQUIRED};

/// Names of this binary's tests without their modules.
fn tests() -> BTreeSet<String> {
    let me = std::env::current_exe().expect("find this program");
    let listed = Command::new(me).args(["--list", "--format", "terse"]).output().expect("start this program");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    names.filter_map(|name| name.rsplit("::").next()).map(str::to_owned).collect()
}

#[test]
fn every_advisory_has_a_hostile_test_and_a_benign_twin() {
    let covered: BTreeSet<&str> = ADVISORIES.iter().flat_map(|a| a.ids).copied().collect();
    let required: BTreeSet<&str> = REQUIRED.split_whitespace().collect();
    assert_eq!(covered, required);
    let tests = tests();
    let here = |name: &&&str| !name.contains('/');
    for advisory in ADVISORIES {
        assert!(!advisory.hostile.is_empty() && !advisory.benign.is_empty(), "{:?}", advisory.ids);
        for name in advisory.hostile.iter().chain(advisory.benign) {
            let found = name.split_once('/').map_or_else(|| tests.contains(*name), |(at, part)| is_written(at, part));
            assert!(found, "{:?}: there is no test {name}", advisory.ids);
        }
        assert!(advisory.benign.iter().filter(here).all(|name| name.contains("_benign_")), "{:?}", advisory.ids);
        assert!(advisory.hostile.iter().filter(here).all(|name| !name.contains("_benign_")), "{:?}", advisory.ids);
    }
}

/// The source of another program of tests has that part of a name. That it is a test shows when it is run.
fn is_written(program: &str, part: &str) -> bool {
    let (_, _, source) = PROGRAMS.iter().find(|p| p.0 == program).expect("a program of the list");
    let source = format!("{}/../{source}", env!("CARGO_MANIFEST_DIR"));
    let found = Command::new("grep").args(["-rqF", "--", part, &source]).status().expect("start grep");
    found.success()
}

#[test]
fn every_test_with_an_advisory_in_its_name_belongs_to_one() {
    let used: BTreeSet<&str> = ADVISORIES.iter().flat_map(|a| a.hostile.iter().chain(a.benign)).copied().collect();
    let stray: Vec<_> =
        tests().into_iter().filter(|t| t.starts_with("root_cve_") && !used.contains(t.as_str())).collect();
    assert!(stray.is_empty(), "in no row of the table: {stray:?}");
}

//! The table of advisories is complete and names tests that exist.

use std::{collections::BTreeSet, process::Command};

use onggi_tests::cve::ADVISORIES;

/// Every id that must be covered, written down a second time on purpose: a row cannot get lost unnoticed.
const REQUIRED: &str = "2015-1331 2015-1334 2015-1335 2016-3697 2016-9962 2017-5985 2018-6556 2022-47952 2026-39402 \
    2019-5736 2019-16884 2019-19921 2023-27561 2021-30465 2021-43784 GHSA-g54h-m393-cpwq 2022-29162 2022-27650 \
    2022-24769 2022-27649 2022-27651 2022-27652 2025-27612 2023-25809 2023-28642 2024-21626 2024-45310 2025-31133 \
    2025-52565 2025-52881 2025-62161 2025-62596 2025-24965 2026-30892 2026-41579 2026-47766 2024-0132 2025-23266";

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
    for advisory in ADVISORIES {
        assert!(!advisory.hostile.is_empty() && !advisory.benign.is_empty(), "{:?}", advisory.ids);
        for name in advisory.hostile.iter().chain(advisory.benign) {
            assert!(tests.contains(*name), "{:?}: there is no test {name}", advisory.ids);
        }
        assert!(advisory.benign.iter().all(|name| name.contains("_benign_")), "{:?}", advisory.ids);
        assert!(advisory.hostile.iter().all(|name| !name.contains("_benign_")), "{:?}", advisory.ids);
    }
}

#[test]
fn every_test_with_an_advisory_in_its_name_belongs_to_one() {
    let used: BTreeSet<&str> = ADVISORIES.iter().flat_map(|a| a.hostile.iter().chain(a.benign)).copied().collect();
    let stray: Vec<_> =
        tests().into_iter().filter(|t| t.starts_with("root_cve_") && !used.contains(t.as_str())).collect();
    assert!(stray.is_empty(), "in no row of the table: {stray:?}");
}

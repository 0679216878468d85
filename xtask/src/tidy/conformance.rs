//! docs/conformance.md stays true: every test that it cites exists, every conformance test is cited, every
//! row of a field has a test, and every known difference that a test expects is explained there.

use std::collections::BTreeSet;

use super::Source;

const TABLE: &str = "docs/conformance.md";

/// Tests are cited by names that begin so.
const PREFIXES: [&str; 5] = ["conformance_", "root_", "e2e_", "vm_", "features_"];

/// One complaint per citation without a test, test without a citation, row without a test, and difference
/// without an explanation or the other way round.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let Some(table) = sources.iter().find(|source| source.path == TABLE) else {
        return vec![format!("{TABLE} is missing")];
    };
    let tests: BTreeSet<&str> = sources.iter().filter(|s| s.is_rust()).flat_map(|s| functions(&s.text)).collect();
    let cited: BTreeSet<&str> = spans(&table.text).filter(|span| is_test(span)).collect();
    let mut complaints = Vec::new();
    for name in cited.iter().filter(|name| !tests.contains(*name)) {
        complaints.push(format!("{TABLE}: there is no test {name}"));
    }
    for name in tests.iter().filter(|name| name.starts_with(PREFIXES[0]) && !cited.contains(*name)) {
        complaints.push(format!("{TABLE}: the test {name} is in no row"));
    }
    complaints.extend(rows_without_test(&table.text).map(|row| format!("{TABLE}: no test proves the row {row}")));
    complaints.extend(differences(sources, &table.text));
    complaints
}

fn is_test(span: &str) -> bool {
    let plain = span.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    plain && PREFIXES.iter().any(|prefix| span.starts_with(prefix))
}

fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Names of functions that begin at the start of a line: tests are not nested deeper than one module.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn "));
    names.filter_map(|rest| rest.split('(').next())
}

/// First cells of rows whose status is `yes` and that cite no test; rows of the table of differences have none.
fn rows_without_test(text: &str) -> impl Iterator<Item = &str> {
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains(" | yes | "));
    rows.filter(|row| !spans(row).any(is_test)).filter_map(|row| row.split('|').nth(1)).map(str::trim)
}

/// `D-…` words in the tests against the headings of the explanations.
fn differences(sources: &[Source], table: &str) -> Vec<String> {
    let expected: BTreeSet<&str> = sources
        .iter()
        .filter(|source| source.path.starts_with("tests/tests/conformance/"))
        .flat_map(|source| source.text.split('"').filter(|word| is_difference(word)))
        .filter(|word| *word != "D-example")
        .collect();
    let explained: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|id| is_difference(id))
        .collect();
    let missing = expected.difference(&explained).map(|id| format!("{TABLE}: the difference {id} is not explained"));
    let stale = explained.difference(&expected).map(|id| format!("{TABLE}: no test expects the difference {id}"));
    missing.chain(stale).collect()
}

fn is_difference(word: &str) -> bool {
    let plain = word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'D');
    plain && word.len() > 2 && word.starts_with("D-")
}

#[cfg(test)]
mod tests {
    use super::{super::source, *};

    fn complaints(table: &str, test: &str) -> Vec<String> {
        check(&[source(TABLE, table), source("tests/tests/conformance/x.rs", test)])
    }

    #[test]
    fn a_row_with_its_test_and_a_difference_with_its_reason_are_in_order() {
        let table = "| `hostname` | yes | `conformance_hostname` |  |\n| `D-x` | reason |\n";
        let test = "#[test]\nfn conformance_hostname() {\n    known(\"key\", \"ours\", \"D-x\");\n}\n";
        assert_eq!(complaints(table, test), Vec::<String>::new());
    }

    #[test]
    fn what_is_cited_exists_and_what_exists_is_cited() {
        let found = complaints("| a | yes | `root_gone` |  |\n", "fn conformance_new() {\n}\n");
        let wanted = [
            "docs/conformance.md: there is no test root_gone",
            "docs/conformance.md: the test conformance_new is in no row",
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn rows_need_tests_and_differences_explanations_both_ways() {
        let found = complaints("| a | yes |  |  |\n| `D-old` | reason |\n", "const K: &str = \"D-new\";\n");
        let wanted = [
            "docs/conformance.md: no test proves the row a",
            "docs/conformance.md: the difference D-new is not explained",
            "docs/conformance.md: no test expects the difference D-old",
        ];
        assert_eq!(found, wanted);
    }
}

//! Every module says what it is for, and every path that a document cites exists.

use super::Source;

/// Where Rust files must open with `//!`.
const DOCUMENTED: &[&str] = &["crates/", "xtask/", "tests/", "bench/"];

/// A word in backquotes is taken for a path when it begins with one of these.
const TOP: &[&str] = &["crates/", "xtask/", "tests/", "bench/", "docs/", "fuzz/", ".ci/", ".config/"];

/// One complaint per Rust file without a module comment.
pub(crate) fn module_docs(sources: &[Source]) -> Vec<String> {
    let wanted = |s: &&Source| s.is_rust() && DOCUMENTED.iter().any(|dir| s.path.starts_with(dir));
    let bare = sources.iter().filter(wanted).filter(|source| !has_module_doc(&source.text));
    bare.map(|source| format!("{}: no module comment (`//!` what, why, never)", source.path)).collect()
}

fn has_module_doc(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
    first.is_some_and(|line| line.starts_with("//! "))
}

/// One complaint per path that a Markdown file cites and that does not exist.
pub(crate) fn cited_paths(sources: &[Source], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".md")) {
        for (at, line) in source.text.lines().enumerate() {
            let missing = paths(&source.path, line).into_iter().filter(|path| !exists(path));
            complaints.extend(missing.map(|path| format!("{}:{}: {path} does not exist", source.path, at + 1)));
        }
    }
    complaints
}

/// Paths from the workspace's root that a line cites: words in backquotes and targets of links.
fn paths(file: &str, line: &str) -> Vec<String> {
    let spans = line.split('`').skip(1).step_by(2);
    let spans = spans.filter(|span| TOP.iter().any(|top| span.starts_with(top))).map(str::to_owned);
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.filter_map(|target| local_target(file, target));
    let is_plain = |path: &String| !path.contains(['*', '<', '$', ' ', '…']);
    spans.chain(targets).filter(is_plain).flat_map(|path| braces(&path)).collect()
}

fn local_target(file: &str, target: &str) -> Option<String> {
    let path = target.split('#').next().filter(|path| !path.is_empty() && !path.contains("://"))?;
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// `a/{b,c}.rs` as the shell expands it, for one pair of braces.
fn braces(path: &str) -> Vec<String> {
    let Some((head, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let Some((middle, tail)) = rest.split_once('}') else { return vec![path.to_owned()] };
    middle.split(',').map(|part| format!("{head}{part}{tail}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source;

    #[test]
    fn a_module_without_a_comment_is_reported() {
        let bare = source("crates/a/src/b.rs", "use std::fs;\n");
        let good = source("crates/a/src/c.rs", "//! Reads.\n");
        assert_eq!(module_docs(&[bare, good]).len(), 1);
    }

    #[test]
    fn cited_paths_must_exist() {
        let text = "See `crates/x/src/{a,b}.rs`, `onggi run`, [notes](../design/1.md#top) and [web](https://a.b/c).\n";
        let found = cited_paths(&[source("docs/guide/a.md", text)], |path| path == "crates/x/src/a.rs");
        assert_eq!(
            found,
            [
                "docs/guide/a.md:1: crates/x/src/b.rs does not exist",
                "docs/guide/a.md:1: docs/design/1.md does not exist"
            ]
        );
    }

    #[test]
    fn patterns_are_not_paths() {
        assert!(
            cited_paths(&[source("a.md", "`docs/design/NNN-*.md` `bench/results/<date>.json`\n")], |_| false)
                .is_empty()
        );
    }
}

//! `unsafe` lives in `onggi-sys` alone, so that one crate can be reviewed line by line.

use super::Source;

/// Directories where the word may appear, each with a reason.
const ALLOWED: &[(&str, &str)] = &[
    ("crates/onggi-sys/", "the one crate that talks to the kernel"),
    ("bench/floor/", "the floor measures bare system calls, without our code around them"),
];

/// One complaint per line that uses the word.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let outside = |source: &&Source| !ALLOWED.iter().any(|(dir, _)| source.path.starts_with(dir));
    sources.iter().filter(outside).flat_map(uses).collect()
}

fn uses(source: &Source) -> Vec<String> {
    let is_use = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let lines = source.code.lines().enumerate().filter(|(_, line)| is_use(line));
    lines.map(|(at, _)| format!("{}:{}: `unsafe` outside onggi-sys", source.path, at + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source;

    #[test]
    fn a_use_outside_onggi_sys_is_reported_with_its_line() {
        let found = check(&[source("crates/onggi-state/src/a.rs", "fn a() {\n    unsafe { b() }\n}\n")]);
        assert_eq!(found, ["crates/onggi-state/src/a.rs:2: `unsafe` outside onggi-sys"]);
    }

    #[test]
    fn onggi_sys_comments_strings_and_longer_words_are_fine() {
        let sys = source("crates/onggi-sys/src/a.rs", "unsafe fn a() {}\n");
        let other =
            source("xtask/src/a.rs", "// unsafe\nconst A: &str = \"unsafe\"; // unsafe_code\nfn unsafe_code() {}\n");
        assert!(check(&[sys, other]).is_empty());
    }
}

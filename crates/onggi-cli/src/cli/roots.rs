//! `--root` behind `ns run` and `ns enter` is unshare's and nsenter's: the new root directory. Everywhere else it is where
//! data is kept, which these two commands have no use for; taken for that, the command would silently run in the old root.

use std::ffi::OsString;

use super::quick::WITH_VALUE;

/// Options of `ns run` that are followed by a value.
const RUN: &[&str] = &[
    "--map-users",
    "--map-groups",
    "--map-user",
    "--map-group",
    "--setgroups",
    "-S",
    "--setuid",
    "-G",
    "--setgid",
    "--propagation",
    "-R",
    "--new-root",
    "-w",
    "--workdir",
    "--wd",
    "--hostname",
    "--monotonic",
    "--boottime",
];
/// Options of `ns enter` that are followed by a value.
const ENTER: &[&str] =
    &["-t", "--type", "--target", "-w", "-W", "--workdir", "--wdns", "-S", "--setuid", "-G", "--setgid"];

/// The line with `--root` as `--new-root` where that is meant.
pub(super) fn meant(mut line: Vec<OsString>) -> Vec<OsString> {
    let root = |word: &OsString| word.to_str().is_some_and(|word| word == "--root" || word.starts_with("--root="));
    if !line.iter().any(root) {
        return line;
    }
    let Some((from, enter)) = begin(&line) else { return line };
    let with_value = if enter { ENTER } else { RUN };
    // The process that is entered comes before the command.
    let mut names = usize::from(enter);
    let mut at = from;
    while let Some(word) = line.get(at).and_then(|word| word.to_str()).map(str::to_owned) {
        if word == "--" || (!word.starts_with('-') && names == 0) {
            break;
        }
        if let Some(rest) = word.strip_prefix("--root").filter(|rest| rest.is_empty() || rest.starts_with('=')) {
            line[at] = format!("--new-root{rest}").into();
            // unshare's has a value of its own, nsenter's only behind `=`.
            at += usize::from(rest.is_empty() && !enter);
        } else if !word.starts_with('-') {
            names -= 1;
        } else if with_value.contains(&word.as_str()) || WITH_VALUE.contains(&word.as_str()) {
            if word == "--target" {
                names = 0;
            }
            at += 1;
        }
        at += 1;
    }
    line
}

/// Where the options of `ns run` or `ns enter` begin, and whether it is `enter`.
fn begin(line: &[OsString]) -> Option<(usize, bool)> {
    let mut verbs = Vec::new();
    let mut at = 1;
    while verbs.len() < 2 {
        let word = line.get(at)?.to_str()?;
        if !word.starts_with('-') {
            verbs.push(word);
        } else if WITH_VALUE.contains(&word) {
            at += 1;
        }
        at += 1;
    }
    match verbs.as_slice() {
        ["ns", "run"] => Some((at, false)),
        ["ns", "enter"] => Some((at, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn only_the_options_of_the_two_commands_are_meant() {
        for (line, want) in [
            ("onggi --root d ns run --root /r id", "onggi --root d ns run --new-root /r id"),
            (
                "onggi --root=d --runroot e ns run -m --root=/r -- id",
                "onggi --root=d --runroot e ns run -m --new-root=/r -- id",
            ),
            ("onggi ns run --hostname --root --root /r", "onggi ns run --hostname --root --new-root /r"),
            ("onggi ns run --root /r unshare --root /x", "onggi ns run --new-root /r unshare --root /x"),
            ("onggi ns run unshare --root /x", "onggi ns run unshare --root /x"),
            ("onggi ns run -- --root /x", "onggi ns run -- --root /x"),
            ("onggi ns enter web --root id", "onggi ns enter web --new-root id"),
            ("onggi ns enter --target web --root=/r ls --root", "onggi ns enter --target web --new-root=/r ls --root"),
            ("onggi ns enter -t net web ls --root", "onggi ns enter -t net web ls --root"),
            ("onggi --root d ns ls", "onggi --root d ns ls"),
            ("onggi ns ls --root d", "onggi ns ls --root d"),
            ("onggi run --root d x", "onggi run --root d x"),
        ] {
            assert_eq!(meant(words(line)), words(want), "{line}");
        }
    }

    #[test]
    fn the_lists_are_those_of_the_commands() {
        let tree = cli::command();
        let ns = tree.find_subcommand("ns").expect("it is there");
        for (name, list) in [("run", RUN), ("enter", ENTER)] {
            let command = ns.find_subcommand(name).expect("it is there");
            let follows =
                |a: &&clap::Arg| a.get_action().takes_values() && !a.is_require_equals_set() && !a.is_positional();
            let mut found = Vec::new();
            for arg in command.get_arguments().filter(follows) {
                found.extend(arg.get_long_and_visible_aliases().unwrap_or_default().iter().map(|l| format!("--{l}")));
                found.extend(arg.get_short_and_visible_aliases().unwrap_or_default().iter().map(|s| format!("-{s}")));
                // Hidden aliases.
                found.extend(arg.get_all_short_aliases().unwrap_or_default().iter().map(|s| format!("-{s}")));
            }
            found.sort();
            found.dedup();
            let mut listed: Vec<String> = list.iter().map(|option| (*option).to_owned()).collect();
            listed.sort();
            assert_eq!(listed, found, "ns {name}");
        }
    }
}

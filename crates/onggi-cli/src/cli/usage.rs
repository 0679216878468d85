//! What is said to a command line that asks for help or cannot be read.

use std::io::{self, Write as _};

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use super::{Codes, docker};
use crate::{error::CliError, render};

/// Docker's exit code for a wrong command line.
const USAGE_ERROR: u8 = 125;

/// How many letters a word may be away from the one that is meant.
const MISTYPED: usize = 2;

/// Help and version succeed where they can be written; anything else about the arguments is Docker's 125.
pub(super) fn answer(e: &Error) -> u8 {
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match render::readable().and_then(|()| e.print()).and_then(|()| io::stdout().flush()) {
            Ok(()) => 0,
            Err(e) => {
                let e = CliError::Output(e);
                e.print();
                e.exit_code(Codes::Plain)
            }
        };
    }
    // Without a terminal or pipe there is nobody to tell.
    let _ = match e.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => e.print(),
        // clap would list the commands that are none of a person's too.
        ErrorKind::MissingSubcommand if is_of_program(e) => {
            io::stderr().write_all(super::command().render_help().to_string().as_bytes())
        }
        _ => io::stderr().write_all(text(e).as_bytes()),
    };
    USAGE_ERROR
}

/// No verb at all, where options of every command were given.
fn is_of_program(e: &Error) -> bool {
    matches!(e.get(ContextKind::InvalidSubcommand), Some(ContextValue::String(name)) if !name.contains(' '))
}

/// clap's message in the form of our own errors.
fn text(e: &Error) -> String {
    if let Some((what, hint)) = docker::known(e) {
        return format!("onggi: {what}\nhint: {hint}\n");
    }
    let rendered = e.render().to_string();
    let body = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    let body = body.split("\nFor more information").next().unwrap_or(body);
    let far = e.kind() == ErrorKind::InvalidSubcommand && !has_near(e);
    // Nobody who mistypes an option means it as a value.
    let useless = |line: &str| {
        let line = line.trim_start();
        line.starts_with("tip: to pass '") || (far && (line.starts_with("tip: ")))
    };
    let mut lines: Vec<&str> = Vec::new();
    for line in body.lines().filter(|line| !useless(line)) {
        // Where a tip was, one empty line is left.
        if !(line.is_empty() && lines.last().is_some_and(|last| last.is_empty())) {
            lines.push(line);
        }
    }
    let body = lines.join("\n");
    format!("onggi: {}\nhint: `onggi --help` and `onggi COMMAND --help` show what there is\n", body.trim_end())
}

fn has_near(e: &Error) -> bool {
    let Some(ContextValue::String(written)) = e.get(ContextKind::InvalidSubcommand) else { return true };
    match e.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::String(one)) => distance(written, one) <= MISTYPED,
        Some(ContextValue::Strings(all)) => all.iter().any(|one| distance(written, one) <= MISTYPED),
        _ => true,
    }
}

/// Letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = replaced.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    fn said(line: &str) -> String {
        Cli::try_parse_from(line.split(' ')).err().map(|e| text(&e)).unwrap_or_default()
    }

    #[test]
    fn tips_are_only_those_that_help() {
        assert_eq!(distance("compose", "caps"), 4);
        assert_eq!(distance("rmu", "run"), 2);
        assert!(said("onggi run --nothing x").contains("unexpected argument '--nothing'"));
        assert!(!said("onggi run --nothing x").contains("-- --nothing"));
        assert!(said("onggi run --nme x y").contains("'--name'"));
        assert!(said("onggi imags").contains("'images'"));
        assert!(!said("onggi compose up").contains("caps"));
    }

    #[test]
    fn a_command_that_begins_as_an_option_is_an_unknown_option() {
        for line in [
            "onggi ns run --bogus",
            "onggi caps run --bogus",
            "onggi limit --bogus true",
            "onggi chroot / --bogus",
            "onggi cgroup exec --bogus lab true",
        ] {
            assert!(said(line).contains("'--bogus'"), "{line}: {}", said(line));
        }
        for line in [
            "onggi ns run -- --bogus",
            "onggi ns run --pid ls --bogus -l",
            "onggi caps run -- -x",
            "onggi limit --nice -5 nice -n 3 ls",
            "onggi chroot --read-only / ls --bogus",
            "onggi cgroup exec lab ls --bogus",
            "onggi cgroup exec -g cpu:lab ls -l",
        ] {
            assert_eq!(said(line), "", "{line}");
        }
    }
}

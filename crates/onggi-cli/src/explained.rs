//! The rule that every command which changes something explains itself, checked on the command tree.

use clap::Command;

/// Commands that change nothing, or nothing but the process that they become.
const LOOKING: &[&str] = &[
    "ps",
    "port",
    "stats",
    "logs",
    "attach",
    "wait",
    "inspect",
    "search",
    "images",
    "history",
    "diff",
    "version",
    "info",
    "why",
    "doctor",
    "completion",
    "container ls",
    "container port",
    "container stats",
    "container top",
    "container logs",
    "container attach",
    "container wait",
    "container inspect",
    "container diff",
    "image ls",
    "image referrers",
    "image search",
    "image inspect",
    "image history",
    "image diff",
    "image tree",
    "container exists",
    "image exists",
    "image mounts",
    "ns ls",
    "ns inspect",
    "ns diff",
    "caps show",
    "caps decode",
    "system df",
    "system info",
    "cgroup snapshot",
    "cgroup ls",
    "cgroup get",
    "cgroup stat",
    "cgroup top",
    "top",
    "overlay diff",
    "overlay layers",
    "net ls",
    // Writes its pages where it is told, and nothing else.
    "man",
];

fn leaves(command: &Command, path: &str, out: &mut Vec<(String, Command)>) {
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = format!("{path} {}", sub.get_name()).trim().to_owned();
        if sub.has_subcommands() {
            leaves(sub, &name, out);
        } else {
            out.push((name, sub.clone()));
        }
    }
}

#[test]
fn every_command_that_changes_something_explains_itself() {
    let mut all = Vec::new();
    leaves(&crate::cli::command(), "", &mut all);
    assert!(all.len() > 60, "{} commands", all.len());
    let explains = |c: &Command| c.get_arguments().any(|a| a.get_long() == Some("explain"));
    let silent: Vec<&str> = all
        .iter()
        .filter(|(name, command)| !explains(command) && !LOOKING.contains(&name.as_str()))
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(silent.is_empty(), "these change something and lack --explain: {silent:?}");
}

#[test]
fn explain_takes_the_same_three_forms_everywhere() {
    let mut all = Vec::new();
    leaves(&crate::cli::command(), "", &mut all);
    for (name, command) in all {
        let Some(arg) = command.get_arguments().find(|a| a.get_long() == Some("explain")) else { continue };
        let values: Vec<String> = arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
        assert_eq!(values, ["words", "json", "sh"], "{name}");
    }
}

/// Commands that show something which has no rows: a text as it is, an exit code, a file of another format, a script, a
/// drawing of what `image inspect` has as data.
const TEXT: &[&str] = &[
    "logs",
    "container logs",
    "attach",
    "container attach",
    "wait",
    "container wait",
    "completion",
    "man",
    "container exists",
    "image exists",
    "image tree",
    "cgroup snapshot",
];

#[test]
fn every_command_that_shows_something_shows_it_as_json_too() {
    let mut all = Vec::new();
    leaves(&crate::cli::command(), "", &mut all);
    let formats = |c: &Command| c.get_arguments().any(|a| a.get_long() == Some("format"));
    let plain: Vec<&str> = all
        .iter()
        .filter(|(name, command)| {
            LOOKING.contains(&name.as_str()) && !TEXT.contains(&name.as_str()) && !formats(command)
        })
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(plain.is_empty(), "these show something and lack --format: {plain:?}");
}

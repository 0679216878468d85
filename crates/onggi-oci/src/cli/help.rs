//! The texts of `--help` and `--version`, in runc's form: engines and scripts read them.

use std::{ffi::OsString, fmt::Write, path::Path};

use super::{
    GLOBAL_FLAGS,
    args::Flag,
    verbs::{VERBS, Verb},
};

const NAME: &str = "onggi-oci";

/// The name that the program was called by: some hosts install it as `runc`.
pub(super) fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().map(|n| n.to_string_lossy().into_owned());
    name.filter(|n| !n.is_empty()).unwrap_or_else(|| NAME.to_owned())
}

/// `NAME version N`, `commit: …`, `spec: …`: what dockerd and Podman parse.
pub(super) fn version() -> String {
    let name = program();
    let mut text = format!(
        "{name} version {}\ncommit: {}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        option_env!("ONGGI_COMMIT").unwrap_or("unknown"),
        onggi_spec::oci::runtime::OCI_VERSION
    );
    if name != NAME {
        let _ = writeln!(text, "program: {NAME}");
    }
    text
}

/// `-h` or `--help` among a verb's own words.
pub(super) fn is_asked(words: &[OsString], verb: &Verb) -> bool {
    let own = words.iter().take_while(|w| *w != "--");
    let asked = |w: &&OsString| matches!(w.to_str(), Some("-h" | "--help" | "-help"));
    match verb.order {
        super::args::Order::Anywhere => own.into_iter().any(|w| asked(&w)),
        // Behind the id they are another program's.
        super::args::Order::First => own.into_iter().next().is_some_and(|w| asked(&w)),
    }
}

fn options(flags: &[Flag]) -> String {
    let lines: Vec<_> = flags.iter().filter_map(Flag::describe).collect();
    let width = lines.iter().map(|(names, _)| names.len()).max().unwrap_or(0) + 2;
    lines.iter().fold(String::new(), |mut text, (names, help)| {
        let _ = writeln!(text, "   {names:<width$}{help}");
        text
    })
}

pub(super) fn verb_help(verb: &Verb) -> String {
    let name = program();
    let mut text = format!("NAME:\n   {name} {} - {}\n\nUSAGE:\n   {name} {}", verb.name, verb.about, verb.name);
    if !verb.flags.is_empty() {
        text += " [command options]";
    }
    let _ = writeln!(text, " {}", verb.arguments);
    if !verb.flags.is_empty() {
        let _ = write!(text, "\nOPTIONS:\n{}", options(verb.flags));
    }
    text
}

pub(super) fn program_help() -> String {
    let name = program();
    let mut text = format!(
        "NAME:\n   {name} - Open Container Initiative runtime\n\n\
         Containers are configured using bundles. A bundle for a container is a directory\n\
         that includes a specification file named \"config.json\" and a root filesystem.\n\n\
         To start a new instance of a container:\n\n    # {name} run [ -b bundle ] <container-id>\n\n\
         USAGE:\n   {name} [global options] command [command options] [arguments...]\n\nCOMMANDS:\n"
    );
    let width = VERBS.iter().map(|v| v.name.len()).max().unwrap_or(0) + 2;
    for verb in VERBS {
        let _ = writeln!(text, "   {:<width$}{}", verb.name, verb.about);
    }
    let _ = writeln!(text, "   {:<width$}Shows a list of commands or help for one command", "help, h");
    let _ = write!(text, "\nGLOBAL OPTIONS:\n{}", options(GLOBAL_FLAGS));
    text
}

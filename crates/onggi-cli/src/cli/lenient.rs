//! Command lines as Go's flag packages read them, which Docker's and Podman's users and their scripts are used to: `--tty=false`, an
//! option given twice (the last one counts), a value that begins with a dash, `help VERB`, `-v` alone.
//!
//! The plain parser reads a line first and writes all help; this one reads what that one refuses, so what a line means does
//! not depend on which of them has read it.

use std::ffi::OsString;

use clap::{
    Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser,
    builder::{TypedValueParser, ValueParser},
    error::{Error, ErrorKind},
};

use super::{Cli, quick};

/// Reads a line, `args[0]` being the program.
pub(super) fn parse(args: Vec<OsString>) -> Result<Cli, Error> {
    let args = help_as_option(args);
    let refused = match Cli::try_parse_from(&args) {
        Ok(cli) => return Ok(cli),
        Err(e) => e,
    };
    match refused.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::InvalidSubcommand => Err(refused),
        missing => match lenient(Cli::command()).try_get_matches_from(args) {
            Ok(mut matches) => Cli::from_arg_matches_mut(&mut matches),
            // The same in plain words.
            Err(e) if e.kind() == ErrorKind::MissingRequiredArgument && missing == e.kind() => Err(refused),
            Err(e) => Err(e),
        },
    }
}

/// `help run` is `run --help`; `-v` is `--version`.
fn help_as_option(mut args: Vec<OsString>) -> Vec<OsString> {
    if args.len() == 2 && args[1] == "-v" {
        args[1] = "--version".into();
    }
    let Some(at) =
        quick::verb_and_rest(&args).filter(|(verb, _)| *verb == "help").map(|(_, rest)| args.len() - rest.len() - 1)
    else {
        return args;
    };
    args.remove(at);
    args.push("--help".into());
    args
}

fn lenient(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = command.args_override_self(true).mut_args(as_go_reads);
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, lenient))
}

fn as_go_reads(arg: Arg) -> Arg {
    if arg.is_positional() {
        return arg;
    }
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .value_parser(ValueParser::new(clap::builder::OsStringValueParser::new().try_map(truth)))
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true"),
        // One whose value may be left out would take the next option for it.
        ArgAction::Set | ArgAction::Append if arg.get_num_args().is_none_or(|range| range.min_values() > 0) => {
            arg.allow_hyphen_values(true)
        }
        _ => arg,
    }
}

/// What `strconv.ParseBool` of Go takes.
fn truth(text: OsString) -> Result<bool, &'static str> {
    match text.to_str() {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        _ => Err("say true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn read(line: &str) -> String {
        format!("{:?}", parse(words(line)).unwrap_or_else(|e| panic!("{line}: {e}")))
    }

    #[test]
    fn a_line_for_gos_flags_is_the_plain_line_that_means_the_same() {
        for (line, plain) in [
            ("onggi run -t=false --rm=true -i=false x", "onggi run --rm x"),
            ("onggi run -dt=false --read-only=1 x", "onggi run -d --read-only x"),
            ("onggi run -it=true x sh -t=false --rm=false", "onggi run -it x sh -t=false --rm=false"),
            ("onggi run --name a --name b -w / -w /tmp --rm --rm x", "onggi run --name b -w /tmp --rm x"),
            ("onggi run --rm=true --rm=false x", "onggi run x"),
            ("onggi run -e A=1 -e B=2 -l -x=1 -it -it x", "onggi run -e A=1 -e B=2 --label=-x=1 -it x"),
            ("onggi --root /a --root /b ps -a -a --no-trunc=false", "onggi --root /b ps -a"),
            ("onggi ps --format --{{.Image}}-- -q=false", "onggi ps --format=--{{.Image}}--"),
            ("onggi kill -s -1 x", "onggi kill --signal=-1 x"),
            ("onggi logs --since -1s --follow=false x", "onggi logs --since=-1s x"),
            ("onggi stop -t 1 -t 2 x", "onggi stop -t 2 x"),
            ("onggi image prune --all=true -f=true", "onggi image prune --all -f"),
        ] {
            let plain = Cli::try_parse_from(words(plain)).unwrap_or_else(|e| panic!("{plain}: {e}"));
            assert_eq!(read(line), format!("{plain:?}"), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_stays_wrong() {
        for line in
            ["onggi run --rm=maybe x", "onggi run --nme=x y", "onggi run --name", "onggi imags", "onggi run --rm true"]
        {
            // The last one runs an image called `true`.
            assert_eq!(parse(words(line)).is_err(), !line.ends_with(" true"), "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_told_in_plain_words() {
        let told = parse(words("onggi run -it --rm")).expect_err("no image").to_string();
        assert!(told.contains("run --interactive --tty --rm <IMAGE>"), "{told}");
    }

    #[test]
    fn help_of_a_verb_may_be_asked_for_first() {
        for (line, plain) in [
            ("onggi help", "onggi --help"),
            ("onggi -v", "onggi --version"),
            ("onggi help image ls", "onggi image ls --help"),
        ] {
            let text = |line| parse(words(line)).expect_err(line).to_string();
            assert_eq!(text(line), text(plain));
        }
    }
}

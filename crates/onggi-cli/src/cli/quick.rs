//! The commands that are called most are read without describing the other hundred first, which takes longer than opening the
//! database. Whatever this does not understand at once, help and errors included, is read by the whole parser, so it only
//! says yes: what it makes of a line is what the whole parser makes of it.

use std::ffi::OsString;

use clap::{ArgMatches, Args, FromArgMatches, error::Error};

use super::{Cli, Command, GlobalArgs};
use crate::commands as c;

/// Options of every command that are followed by a value.
pub(super) const WITH_VALUE: [&str; 4] = ["--root", "--runroot", "--storage-driver", "--log-level"];

/// How a command's arguments are described and read.
struct Verb {
    name: &'static str,
    describe: fn(clap::Command) -> clap::Command,
    read: fn(&mut ArgMatches) -> Result<Command, Error>,
}

macro_rules! verb {
    ($name:literal, $args:ty, $variant:ident) => {
        Verb {
            name: $name,
            describe: <$args>::augment_args,
            read: |matches| <$args>::from_arg_matches_mut(matches).map(Command::$variant),
        }
    };
}

fn verb(name: &str) -> Option<Verb> {
    Some(match name {
        "run" => verb!("run", Box<c::run::RunArgs>, Run),
        "create" => verb!("create", Box<c::create::CreateArgs>, Create),
        "ps" => verb!("ps", c::ps::PsArgs, Ps),
        "ls" => verb!("ls", c::ps::PsArgs, Ps),
        "logs" => verb!("logs", c::logs::LogsArgs, Logs),
        "exec" => verb!("exec", c::exec::ExecArgs, Exec),
        "stop" => verb!("stop", c::stop::StopArgs, Stop),
        "kill" => verb!("kill", c::kill::KillArgs, Kill),
        "start" => verb!("start", c::start::StartArgs, Start),
        "restart" => verb!("restart", c::restart::RestartArgs, Restart),
        "rm" => verb!("rm", c::rm::RmArgs, Rm),
        "wait" => verb!("wait", c::wait::WaitArgs, Wait),
        "inspect" => verb!("inspect", c::inspect::InspectArgs, Inspect),
        "pull" => verb!("pull", c::pull::PullArgs, Pull),
        "push" => verb!("push", c::push::PushArgs, Push),
        "images" => verb!("images", c::images::ImagesArgs, Images),
        "rmi" => verb!("rmi", c::rmi::RmiArgs, Rmi),
        "tag" => verb!("tag", c::tag::TagArgs, Tag),
        "commit" => verb!("commit", c::commit::CommitArgs, Commit),
        "diff" => verb!("diff", c::diff::DiffArgs, Diff),
        "version" => verb!("version", c::version::VersionArgs, Version),
        "__cleanup" => verb!("__cleanup", c::cleanup::CleanupArgs, Cleanup),
        _ => return None,
    })
}

/// The command line, `args[0]` being the program, if it is one of those and nothing is odd about it.
pub(super) fn parse(args: &[OsString]) -> Option<Cli> {
    let Verb { name, describe, read } = verb(verb_and_rest(args)?.0)?;
    let sub = describe(clap::Command::new(name));
    let whole = GlobalArgs::augment_args(clap::Command::new("onggi")).subcommand(sub);
    let mut matches = whole.try_get_matches_from(args).ok()?;
    let global = GlobalArgs::from_arg_matches_mut(&mut matches).ok()?;
    let (_, mut own) = matches.remove_subcommand()?;
    Some(Cli { global, command: read(&mut own).ok()? })
}

/// The first word that is no option of every command, and what follows it.
pub(super) fn verb_and_rest(args: &[OsString]) -> Option<(&str, &[OsString])> {
    let mut words = args.get(1..)?;
    loop {
        let (word, rest) = words.split_first()?;
        let word = word.to_str()?;
        if !word.starts_with('-') {
            return Some((word, rest));
        }
        let (option, value) = word.split_once('=').map_or((word, None), |(option, value)| (option, Some(value)));
        if !WITH_VALUE.contains(&option) {
            return None;
        }
        words = if value.is_none() { rest.get(1..)? } else { rest };
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_is_read_quickly_is_what_the_whole_parser_reads() {
        for line in [
            "onggi run --rm -it --name web -p 8080:80 -v /a:/b:ro -e A=B --memory 1g busybox sh -c --rm",
            "onggi --root /r --runroot=/rr run -d --root /other busybox",
            "onggi run -h host busybox --help",
            "onggi create --name x busybox",
            "onggi ps -a --format json",
            "onggi ls -q",
            "onggi logs -f --tail 3 web",
            "onggi exec -it web sh -c exit",
            "onggi stop -t 0 a b",
            "onggi kill -s HUP a",
            "onggi start -a a",
            "onggi restart a",
            "onggi rm -f a b",
            "onggi wait a",
            "onggi inspect -f {{.Id}} a",
            "onggi pull -q --platform linux/arm64 busybox",
            "onggi push busybox --storage-driver vfs",
            "onggi --log-level debug images --filter dangling=true",
            "onggi rmi -f a",
            "onggi tag a b:1",
            "onggi commit -m why -c CMD=x a b:2",
            "onggi diff a",
            "onggi version --format json",
        ] {
            let quick = parse(&words(line)).unwrap_or_else(|| panic!("not read quickly: {line}"));
            let whole = Cli::try_parse_from(words(line)).unwrap();
            assert_eq!(format!("{quick:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn everything_else_is_left_to_the_whole_parser() {
        for line in [
            "onggi",
            "onggi --help",
            "onggi --version",
            "onggi run --help",
            "onggi pull",
            "onggi pull --no-such busybox",
            "onggi images --version",
            "onggi --root",
            "onggi --frob pull x",
            "onggi system df",
            "onggi nothing",
        ] {
            assert!(parse(&words(line)).is_none(), "{line}");
        }
    }

    #[test]
    fn the_names_are_those_of_the_whole_parser() {
        let whole = super::super::command();
        for name in ["run", "ps", "ls", "pull", "commit", "__cleanup"] {
            let known =
                |sub: &clap::Command| sub.get_name() == name || sub.get_all_aliases().any(|alias| alias == name);
            assert!(verb(name).is_some() && whole.get_subcommands().any(known), "{name}");
        }
    }
}

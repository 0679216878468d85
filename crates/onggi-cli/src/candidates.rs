//! What the shell offers when a user presses TAB: names of containers and images, beside what the command tree knows.
//!
//! The completion script asks the program itself ([`answer`]), so it never lags behind the commands. A question
//! must be quick and silent: no store is made for it, and whatever fails offers nothing.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{Arg, Command};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter},
};
use onggi_engine::{Engine, EngineOptions, ListFilter};

use onggi_spec::reference::ImageReference;

use crate::cli;

/// Set by the completion script, to the name of the shell.
pub(crate) const VARIABLE: &str = "_ONGGI_COMPLETE";

/// Database of a store; without it there are no names.
const DATABASE: &str = "state.db";

/// Answers the completion script; true when it was the script that called.
pub(crate) fn answer() -> bool {
    let asked = CompleteEnv::with_factory(|| with_names(cli::command())).var(VARIABLE);
    // An error counts as an answer: its message would end in the middle of the user's command line.
    asked.try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref()).unwrap_or(true)
}

/// The command tree with a source of names on each argument that takes one.
fn with_names(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| match Names::of(&arg) {
        Some(names) => arg.add(ArgValueCompleter::new(names)),
        None => arg,
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_names))
}

/// Which names an argument takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Names {
    containers: bool,
    images: bool,
    /// Later values are a command's arguments.
    only_first: bool,
    /// A path in a container follows the name and a colon, or it is one of this machine.
    places: bool,
}

impl Names {
    fn of(arg: &Arg) -> Option<Names> {
        let shown = |word: &str| {
            let values = arg.get_value_names().unwrap_or_default();
            values.iter().any(|value| value.as_str().split('|').any(|part| part == word))
        };
        let id = arg.get_id().as_str();
        let containers = shown("CONTAINER") || matches!(id, "container" | "containers" | "container_and_command");
        let images = shown("IMAGE")
            || shown("REPOSITORY[:TAG]")
            || matches!(id, "image" | "images" | "image_and_command" | "source");
        let both = arg.is_positional() && id == "names" && shown("NAME");
        let only_first = arg.is_trailing_var_arg_set();
        let places = shown("SRC") || shown("DEST");
        (containers || images || both || places).then_some(Names {
            containers: containers || both || places,
            images: images || both,
            only_first,
            places,
        })
    }

    fn list(self) -> Vec<String> {
        let Some(engine) = store() else { return Vec::new() };
        let mut names = Vec::new();
        if self.containers {
            let all = ListFilter { all: true, ..ListFilter::default() };
            names.extend(engine.list(&all).unwrap_or_default().iter().map(|c| c.record.name.as_str().to_owned()));
        }
        if self.images {
            let images = engine.images().unwrap_or_default();
            names.extend(images.iter().filter_map(|i| i.record.name.as_ref()).map(as_typed));
        }
        names
    }
}

/// `nginx:1.27`, as one would type it.
fn as_typed(name: &ImageReference) -> String {
    name.tag().map_or_else(|| name.familiar_name(), |tag| format!("{}:{tag}", name.familiar_name()))
}

impl ValueCompleter for Names {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let current = current.to_string_lossy();
        let names = self.list();
        // What follows the image or container is its command's business.
        let given = |name: &String| std::env::args_os().any(|word| word == **name);
        if self.only_first && names.iter().any(|name| *name != current && given(name)) {
            return Vec::new();
        }
        let named = names.into_iter().filter(|name| name.starts_with(&*current));
        if self.places {
            let paths = PathCompleter::any().complete(OsStr::new(&*current));
            return named.map(|name| CompletionCandidate::new(name + ":")).chain(paths).collect();
        }
        named.map(CompletionCandidate::new).collect()
    }
}

/// The store that the unfinished command line means, when there is one.
fn store() -> Option<Engine> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let options = EngineOptions { root: given(&words, "--root"), runroot: given(&words, "--runroot"), driver: None };
    let engine = Engine::open(options).ok()?;
    engine.paths().root.join(DATABASE).exists().then_some(engine)
}

/// The value of a global option among the words.
fn given(words: &[OsString], option: &str) -> Option<PathBuf> {
    let joined = format!("{option}=");
    let value = words.iter().enumerate().find_map(|(i, word)| {
        if word == option {
            return words.get(i + 1).cloned();
        }
        word.to_str()?.strip_prefix(&joined).map(OsString::from)
    })?;
    std::path::absolute(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &[&str], id: &str) -> Option<Names> {
        let tree = cli::command();
        let command = path.iter().fold(&tree, |c, name| c.find_subcommand(name).expect("a command"));
        Names::of(command.get_arguments().find(|a| a.get_id() == id).expect("an argument"))
    }

    #[test]
    fn arguments_offer_what_they_take() {
        let containers = Names { containers: true, images: false, only_first: false, places: false };
        let images = Names { containers: false, images: true, ..containers };
        assert_eq!(names(&["stop"], "containers"), Some(containers));
        assert_eq!(names(&["ns", "inspect"], "subject"), Some(containers));
        assert_eq!(names(&["save"], "images"), Some(images));
        assert_eq!(names(&["tag"], "source"), Some(images));
        assert_eq!(names(&["exec"], "container_and_command"), Some(Names { only_first: true, ..containers }));
        assert_eq!(names(&["run"], "image_and_command"), Some(Names { only_first: true, ..images }));
        assert_eq!(names(&["inspect"], "names"), Some(Names { images: true, ..containers }));
        assert_eq!(names(&["cp"], "from"), Some(Names { places: true, ..containers }));
        assert_eq!(names(&["top"], "container_and_columns"), Some(Names { only_first: true, ..containers }));
        assert_eq!(names(&["stop"], "time"), None);
    }

    #[test]
    fn directories_of_the_unfinished_line_are_used() {
        let words = ["onggi", "--", "onggi", "--root", "/a", "--runroot=/b", "stop", ""].map(OsString::from);
        assert_eq!(given(&words, "--root"), Some("/a".into()));
        assert_eq!(given(&words, "--runroot"), Some("/b".into()));
        assert_eq!(given(&words[..4], "--root"), None);
    }
}

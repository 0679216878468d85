//! The table of verbs: what each is called, takes and does. Parsing, help and dispatch all read it.

use std::ffi::OsStr;

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag, Order},
    checkpoint, create, events, exec, features, help, inspect, list, plan, ps, spec, update,
};

/// One verb.
pub(super) struct Verb {
    /// Its name.
    pub(super) name: &'static str,
    /// What it does, in a line.
    pub(super) about: &'static str,
    /// Its arguments, as help shows them.
    pub(super) arguments: &'static str,
    /// Fewest arguments.
    pub(super) least: usize,
    /// Most arguments.
    pub(super) most: usize,
    /// Where flags may stand.
    pub(super) order: Order,
    /// Its flags.
    pub(super) flags: &'static [Flag],
    /// Does it.
    pub(super) run: fn(&Global, &Args) -> Outcome,
}

const ID: &str = "<container-id>";

/// A verb whose only argument is the container.
const fn on_container(name: &'static str, about: &'static str, run: fn(&Global, &Args) -> Outcome) -> Verb {
    Verb { name, about, arguments: ID, least: 1, most: 1, order: Order::Anywhere, flags: &[], run }
}

/// A verb without arguments.
const fn plain(name: &'static str, about: &'static str, run: fn(&Global, &Args) -> Outcome) -> Verb {
    Verb { name, about, arguments: "", least: 0, most: 0, order: Order::Anywhere, flags: &[], run }
}

/// All of them, in the order of the help.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        flags: checkpoint::CHECKPOINT_FLAGS,
        ..on_container(
            "checkpoint",
            "checkpoint a running container (needs CRIU, which is not supported)",
            checkpoint::checkpoint,
        )
    },
    Verb { flags: create::CREATE_FLAGS, ..on_container("create", "create a container", create::create) },
    Verb {
        flags: inspect::DELETE_FLAGS,
        ..on_container(
            "delete",
            "delete any resources held by the container often used with detached container",
            inspect::delete,
        )
    },
    Verb {
        flags: events::FLAGS,
        ..on_container(
            "events",
            "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
            events::events,
        )
    },
    Verb {
        arguments: "<container-id> <command> [command options]  || -p process.json <container-id>",
        most: usize::MAX,
        order: Order::First,
        flags: exec::FLAGS,
        ..on_container("exec", "execute new process inside the container", exec::exec)
    },
    plain("features", "show the enabled features", |_, _| features::features()),
    Verb {
        arguments: "<container-id> [signal]",
        most: 2,
        flags: inspect::KILL_FLAGS,
        ..on_container(
            "kill",
            "kill sends the specified signal (default: SIGTERM) to the container's init process",
            inspect::kill,
        )
    },
    Verb {
        flags: list::FLAGS,
        ..plain("list", "lists containers started by this runtime with the given root", list::list)
    },
    on_container("pause", "pause suspends all processes inside the container", inspect::pause),
    Verb { flags: plan::FLAGS, ..plain("plan", "shows what a configuration leads to, doing nothing", plan::plan) },
    Verb {
        arguments: "<container-id> [ps options]",
        most: usize::MAX,
        order: Order::First,
        flags: ps::FLAGS,
        ..on_container("ps", "ps displays the processes running inside a container", ps::ps)
    },
    Verb {
        flags: checkpoint::RESTORE_FLAGS,
        ..on_container(
            "restore",
            "restore a container from a checkpoint (needs CRIU, which is not supported)",
            checkpoint::restore,
        )
    },
    on_container("resume", "resumes all processes that have been previously paused", inspect::resume),
    Verb { flags: create::RUN_FLAGS, ..on_container("run", "create and run a container", create::run) },
    Verb { flags: spec::FLAGS, ..plain("spec", "create a new specification file", spec::spec) },
    on_container("start", "executes the user defined process in a created container", create::start),
    on_container("state", "output the state of a container", inspect::state),
    Verb { flags: update::FLAGS, ..on_container("update", "update container resource constraints", update::update) },
];

impl Verb {
    pub(super) fn find(name: &OsStr) -> Option<&'static Self> {
        VERBS.iter().find(|v| name == v.name)
    }

    /// The number of arguments is right.
    pub(super) fn check(&self, args: Args) -> Result<Args, CliError> {
        let (program, name, count) = (help::program(), self.name, args.rest().len());
        let wrong = |text: String| Err(CliError::Flags(format!("{program}: {name:?} {text} argument(s)")));
        match (self.least, self.most) {
            (least, most) if (least..=most).contains(&count) => Ok(args),
            (least, most) if least == most => wrong(format!("requires exactly {least}")),
            (least, usize::MAX) => wrong(format!("requires a minimum of {least}")),
            (least, most) => wrong(format!("requires a minimum of {least} and a maximum of {most}")),
        }
    }
}

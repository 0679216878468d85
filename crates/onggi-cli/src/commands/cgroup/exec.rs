//! `onggi cgroup exec` and `mv`, as cgexec(1) and cgclassify(1).

use std::{os::unix::process::CommandExt as _, process::Command};

use clap::Args;
use onggi_primitives::{
    cgroup::{Group, GroupPlan, plan_join, plan_move},
    processes,
};

use super::{Done, found, subject::groups};
use crate::{
    cli::GlobalArgs,
    commands::{explain::ExplainArg, words::no_option},
    error::CliError,
};

/// Arguments of `cgroup exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// A group in the hierarchies of these controllers, as for cgexec; then all other arguments are the command
    #[arg(short = 'g', value_name = "CONTROLLERS:PATH")]
    named: Vec<Group>,
    #[command(flatten)]
    explain: ExplainArg,
    /// Group or container, then the command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "GROUP COMMAND")]
    words: Vec<String>,
}

impl ExecArgs {
    /// Becomes the command; the exit code is the command's.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let (named, command) = match self.named.is_empty() {
            true => {
                let (group, command) = self.words.split_at(1);
                (groups(&[], group, global)?, command)
            }
            false => (self.named, &self.words[..]),
        };
        let command = match command.strip_prefix(&["--".to_owned()]) {
            Some(command) => command,
            None => no_option(command)?,
        };
        let Some((program, arguments)) = command.split_first() else {
            return Err(CliError::usage("there is no command", "write it behind the group"));
        };
        let mut places = Vec::new();
        for group in &named {
            places.extend(found(group)?.1);
        }
        if self.explain.show_or_apply(&plan_join(&places, command))? == Done::Shown {
            return Ok(0);
        }
        let source = Command::new(program).args(arguments).exec();
        Err(CliError::Execute { program: program.clone(), source })
    }
}

/// Arguments of `cgroup mv`.
#[derive(Debug, Args)]
pub(crate) struct MvArgs {
    /// A group in the hierarchies of these controllers, as for cgclassify; then all other arguments are processes
    #[arg(short = 'g', value_name = "CONTROLLERS:PATH")]
    named: Vec<Group>,
    /// Their children too, and the children of those
    #[arg(long)]
    children: bool,
    /// The numbers are those of single threads (version 1, and threaded groups of version 2)
    #[arg(long, conflicts_with = "children")]
    threads: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Group or container, then numbers of processes
    #[arg(required = true, value_name = "GROUP PID")]
    words: Vec<String>,
}

impl MvArgs {
    /// Moves the processes.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let (named, pids) = match self.named.is_empty() {
            true => {
                let (group, pids) = self.words.split_at(1);
                (groups(&[], group, global)?, pids)
            }
            false => (self.named, &self.words[..]),
        };
        let number = |text: &String| match text.as_str() {
            "self" => Ok(std::os::unix::process::parent_id().cast_signed()),
            text => text.parse::<i32>().ok().filter(|pid| *pid > 0).ok_or_else(|| {
                CliError::usage(format!("{text:?} is no process"), "write numbers of processes, as ps shows them")
            }),
        };
        let mut pids = pids.iter().map(number).collect::<Result<Vec<_>, _>>()?;
        if pids.is_empty() {
            return Err(CliError::usage("there is no process", "write its number behind the group"));
        }
        if self.children {
            pids = with_descendants(&pids)?;
        }
        let mut plan = GroupPlan::default();
        for group in &named {
            plan.ops.extend(plan_move(&found(group)?.1, &pids, self.threads).ops);
        }
        self.explain.show_or_apply(&plan)?;
        Ok(0)
    }
}

/// The processes, and all that come from them, parents first.
pub(crate) fn with_descendants(pids: &[i32]) -> Result<Vec<i32>, CliError> {
    let all = processes()?;
    let mut found = pids.to_vec();
    let mut at = 0;
    while at < found.len() {
        let children = all.iter().filter(|p| p.parent == found[at]).map(|p| p.pid);
        let new: Vec<i32> = children.filter(|pid| !found.contains(pid)).collect();
        found.extend(new);
        at += 1;
    }
    Ok(found)
}

//! `onggi ns enter`, as nsenter(1).

use std::{io::ErrorKind, path::PathBuf};

use clap::Args;
use onggi_primitives::{EnterFacts, EnterPlan, EnterRequest, Entered, Kind, Place, Which, enter};

use super::{
    child,
    kinds::{Asked, KindArgs},
};
use crate::{
    cli::GlobalArgs,
    commands::{explain::ExplainArg, subject, words::no_option},
    error::CliError,
};

/// What stands for the process's own directory.
const OF_PROCESS: &str = "-";

/// What somebody who knows nsenter(1) has to know.
const DIFFERENT: &str = "\
As nsenter(1), but:
  the process is named without an option, or by --target; -t names kinds, as for `onggi ns ls`
  without a kind it is all that differ from yours, as nsenter's --all
  -r, --root and --wd take their directory behind `=`; the place of data, as in `onggi --root DIR ns`, comes before `ns`
  /bin/sh is the shell where yours is not found inside";

/// Arguments of `ns enter`.
#[derive(Debug, Args)]
#[command(after_help = DIFFERENT)]
pub(crate) struct EnterArgs {
    /// Only these kinds; all that differ from yours otherwise: cgroup, ipc, mnt, net, pid, time, user, uts
    #[arg(short = 't', long = "type", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<Kind>,
    #[command(flatten)]
    asked: KindArgs,
    /// All kinds of the process, beside those of files
    #[arg(short, long)]
    all: bool,
    /// The process or container; what else would be it belongs to the command then, as with --net=FILE
    #[arg(long = "target", value_name = "PID|CONTAINER")]
    process: Option<String>,
    /// The process's root directory, or another, becomes the root; behind `ns enter`, --root is this option
    #[arg(short = 'r', long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = OF_PROCESS)]
    new_root: Option<PathBuf>,
    /// The process's working directory, or another, found before anything is entered
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = OF_PROCESS, conflicts_with = "workdir")]
    wd: Option<PathBuf>,
    /// Working directory, as it is called inside
    #[arg(short, long, short_alias = 'W', visible_alias = "wdns", value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Be this user, as it is called inside
    #[arg(short = 'S', long, value_name = "UID")]
    setuid: Option<u32>,
    /// Be of this group, as it is called inside, and of no further ones
    #[arg(short = 'G', long, value_name = "GID")]
    setgid: Option<u32>,
    /// Stay who you are, also in another user namespace
    #[arg(long, conflicts_with_all = ["setuid", "setgid"])]
    preserve_credentials: bool,
    /// The process's environment
    #[arg(short, long)]
    env: bool,
    /// The process's label of AppArmor or SELinux
    #[arg(short = 'Z', long)]
    follow_context: bool,
    /// Become the command, although only its children are in a pid or time namespace then
    #[arg(short = 'F', long)]
    no_fork: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// A process, a running container, or a path with a slash to a file that keeps a namespace
    #[arg(value_name = "PID|CONTAINER|FILE")]
    target: Option<String>,
    /// Command and its arguments; your shell otherwise, or /bin/sh where yours is not
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl EnterArgs {
    /// Enters and runs the command; the exit code is the command's.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let explain = self.explain;
        let (request, shell) = self.request(global)?;
        let plan = EnterPlan::new(&request, &EnterFacts::look(&request)?);
        if explain.shown(&plan)? {
            return Ok(0);
        }
        let Entered { command, fork, environment } = enter(&plan)?;
        let become_or_run = |words: &[String]| {
            let program = child::Program { words, environment: environment.as_deref() };
            if fork { program.run(|| Ok(())) } else { program.become_it() }
        };
        match become_or_run(&command) {
            // Your shell may not be there, where this one nearly always is.
            Err(CliError::Execute { source, .. }) if shell && source.kind() == ErrorKind::NotFound => {
                become_or_run(&["/bin/sh".to_owned()])
            }
            done => done,
        }
    }

    /// And whether the command is the user's shell because none was named.
    fn request(self, global: &GlobalArgs) -> Result<(EnterRequest, bool), CliError> {
        let asked = self.asked.asked()?;
        let (files, bare): (Vec<Asked>, Vec<Asked>) = asked.into_iter().partition(|asked| asked.file.is_some());
        let mut files: Vec<_> = files.into_iter().filter_map(|one| Some((Some(one.kind), one.file?))).collect();
        let kinds: Vec<Kind> = self.kinds.into_iter().chain(bare.into_iter().map(|one| one.kind)).collect();
        let (target, command) = match self.process.is_some() || !files.is_empty() {
            true => (self.process, self.target.into_iter().chain(self.command).collect()),
            false => (self.target, self.command),
        };
        let process = match target {
            Some(file) if file.contains('/') => {
                if !kinds.is_empty() || self.all {
                    return Err(CliError::usage(
                        "a file keeps one namespace, whose kind it knows",
                        "leave the kind out",
                    ));
                }
                files.push((None, file.into()));
                None
            }
            Some(name) => {
                let only = !kinds.is_empty() || !files.is_empty();
                let which = if only && !self.all { Which::These(kinds) } else { Which::All };
                Some((subject::pid_not_file(&name, global)?, which))
            }
            None if !kinds.is_empty() || self.all || files.is_empty() => return Err(no_process()),
            None => None,
        };
        let place = |dir: PathBuf| if dir.as_os_str() == OF_PROCESS { Place::OfProcess } else { Place::Dir(dir) };
        let (root, workdir) = (self.new_root.map(place), self.wd.map(place));
        let wanted = self.env || self.follow_context || [&root, &workdir].contains(&&Some(Place::OfProcess));
        if wanted && process.is_none() {
            return Err(no_process());
        }
        let shell = command.is_empty();
        let request = EnterRequest {
            process,
            files,
            root,
            workdir,
            inside: self.workdir,
            uid: self.setuid,
            gid: self.setgid,
            preserve_credentials: self.preserve_credentials,
            environment: self.env,
            context: self.follow_context,
            no_fork: self.no_fork,
            command: child::command_or_shell(no_option(&command)?.to_vec()),
        };
        Ok((request, shell))
    }
}

fn no_process() -> CliError {
    CliError::usage(
        "no process is named whose namespaces, directories, environment or label could be taken",
        "onggi ns enter web COMMAND; onggi ns enter --target web --net=FILE -- COMMAND",
    )
}

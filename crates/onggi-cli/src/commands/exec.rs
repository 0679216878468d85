//! `onggi exec`.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::Args;
use onggi_engine::ExecRequest;

use super::explain::ExplainArg;
use crate::{
    cli::GlobalArgs,
    error::CliError,
    request::{Caller, environment, parse_workdir, said},
    session::{self, detach::DetachKeys},
};

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    tty: bool,
    /// Return as soon as the command runs
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the command running and end this one, where a terminal is typed at
    #[arg(long, default_value = "ctrl-p,ctrl-q", value_name = "KEYS")]
    detach_keys: DetachKeys,
    /// Set an environment variable, or pass your own on
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Give the command every capability
    #[arg(long)]
    privileged: bool,
    /// User to run as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Container, then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["CONTAINER", "COMMAND"])]
    container_and_command: Vec<String>,
}

impl ExecArgs {
    /// Runs a command in a container; the exit code is the command's.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let Self {
            explain,
            interactive,
            tty,
            detach,
            detach_keys,
            env,
            env_file,
            privileged,
            user,
            workdir,
            container_and_command,
        } = self;
        if explain.explain.is_none() && tty && interactive && !detach && !io::stdin().is_terminal() {
            return Err(CliError::usage("-t needs a terminal on stdin, which is not one", "leave -t out"));
        }
        let mut words = container_and_command.into_iter();
        let container = words.next().unwrap_or_default();
        let request = ExecRequest {
            command: words.collect(),
            env: environment(&env_file, &env, &Caller::of_process()?)?,
            user: said(user).map(|u| u.parse()).transpose()?,
            workdir: said(workdir).map(|w| parse_workdir(&w)).transpose()?,
            tty,
            interactive: interactive && !detach,
            detach,
            privileged,
        };
        let engine = global.engine()?;
        if let Some(code) = explain.show(|| Ok(vec![engine.explain_exec(&container, &request)?]))? {
            return Ok(code);
        }
        match engine.exec(&container, &request)? {
            Some(session) => session::exec::run(session, interactive, detach_keys),
            None => Ok(0),
        }
    }
}

//! `onggi ns run`, as unshare(1).

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use onggi_primitives::{Caller, Identity, Kind, Propagation, UnsharePlan, UnshareRequest};

use super::child;
use crate::{
    cli::GlobalArgs,
    commands::plan::{ExplainArgs, carry_out},
    error::CliError,
};

/// Arguments of `ns run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// New mount namespace
    #[arg(short, long)]
    mount: bool,
    /// New host name
    #[arg(short, long)]
    uts: bool,
    /// New System V IPC and POSIX message queues
    #[arg(short, long)]
    ipc: bool,
    /// New network
    #[arg(short, long)]
    net: bool,
    /// New process numbers; the command is number 1
    #[arg(short, long)]
    pid: bool,
    /// New users and capabilities
    #[arg(short = 'U', long)]
    user: bool,
    /// New root of the control groups that are seen
    #[arg(short = 'C', long)]
    cgroup: bool,
    /// New offsets of the monotonic and the boot clock
    #[arg(short = 'T', long)]
    time: bool,
    /// Be root in a new user namespace
    #[arg(short = 'r', long, conflicts_with = "map_current_user")]
    map_root_user: bool,
    /// Keep the same user and group in a new user namespace
    #[arg(short = 'c', long)]
    map_current_user: bool,
    /// Mount a /proc that shows the new process numbers
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "/proc")]
    mount_proc: Option<PathBuf>,
    /// How mounts pass to and from the new mount namespace
    #[arg(long, default_value = "private")]
    propagation: PropagationArg,
    /// Make a directory the root; --root is where data is kept
    #[arg(short = 'R', long, value_name = "DIR")]
    new_root: Option<PathBuf>,
    /// Working directory, as it is called inside
    #[arg(short, long, visible_alias = "wd", value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Host name
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Seconds that the monotonic clock is ahead
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    monotonic: Option<i64>,
    /// Seconds that the boot clock is ahead
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    boottime: Option<i64>,
    /// Run the command as a child, even where that is not needed
    #[arg(short, long)]
    fork: bool,
    /// Kill the command when this program ends
    #[arg(long)]
    kill_child: bool,
    #[command(flatten)]
    explain: ExplainArgs,
    /// Command and its arguments; your shell otherwise
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// `--propagation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PropagationArg {
    /// Neither way
    Private,
    /// From outside only
    Slave,
    /// Both ways
    Shared,
    /// As it is
    Unchanged,
}

impl RunArgs {
    /// Runs a command in new namespaces; the exit code is the command's.
    pub(crate) fn run(self, _global: &GlobalArgs) -> Result<u8, CliError> {
        let explain = self.explain;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let plan = UnsharePlan::new(&self.request(), Caller { uid, gid });
        if explain.show(&plan)? {
            return Ok(0);
        }
        carry_out(&plan)
    }

    fn request(self) -> UnshareRequest {
        let asked = [
            (self.mount, Kind::Mnt),
            (self.uts, Kind::Uts),
            (self.ipc, Kind::Ipc),
            (self.net, Kind::Net),
            (self.pid, Kind::Pid),
            (self.user, Kind::User),
            (self.cgroup, Kind::Cgroup),
            (self.time, Kind::Time),
        ];
        let identity = match (self.map_root_user, self.map_current_user) {
            (true, _) => Some(Identity::Root),
            (false, true) => Some(Identity::Current),
            (false, false) => None,
        };
        UnshareRequest {
            kinds: asked.iter().filter(|(wanted, _)| *wanted).map(|(_, kind)| *kind).collect(),
            identity,
            mount_proc: self.mount_proc,
            propagation: match self.propagation {
                PropagationArg::Private => Propagation::Private,
                PropagationArg::Slave => Propagation::Slave,
                PropagationArg::Shared => Propagation::Shared,
                PropagationArg::Unchanged => Propagation::Unchanged,
            },
            root: self.new_root,
            workdir: self.workdir,
            hostname: self.hostname,
            monotonic: self.monotonic,
            boottime: self.boottime,
            kill_child: self.kill_child,
            fork: self.fork,
            command: child::command_or_shell(self.command),
        }
    }
}

/// What the child of `ns run` gets: the rest of the plan.
#[derive(Debug, Args)]
pub(crate) struct InsideArgs {
    /// As JSON
    plan: String,
}

impl InsideArgs {
    /// Applies the rest and becomes the command.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        carry_out(&serde_json::from_str(&self.plan)?)
    }
}

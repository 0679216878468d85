//! `onggi ns run`, as unshare(1).

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use onggi_primitives::{
    Caller, ForgetPlan, IdRange, Identity, Kept, Outside, Propagation, Setgroups, UnsharePlan, UnshareRequest,
};

use super::{child, kinds::KindArgs};
use crate::{
    cli::GlobalArgs,
    commands::{explain::ExplainArg, plan::carry_out},
    error::CliError,
    render::users::{self, Users},
};

/// Arguments of `ns run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    asked: KindArgs,
    /// Be root in a new user namespace
    #[arg(short = 'r', long, conflicts_with = "map_current_user")]
    map_root_user: bool,
    /// Keep the same user and group in a new user namespace
    #[arg(short = 'c', long)]
    map_current_user: bool,
    /// Be this user (a number or name) in a new user namespace; --map-group is the group
    #[arg(long, value_name = "USER", conflicts_with_all = ["map_root_user", "map_current_user"])]
    map_user: Option<String>,
    /// Be of this group in a new user namespace
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["map_root_user", "map_current_user"])]
    map_group: Option<String>,
    /// Whether groups may be changed in a new user namespace
    #[arg(long, value_name = "WHETHER", conflicts_with = "map_group")]
    setgroups: Option<SetgroupsArg>,
    /// Keep the capabilities of a new user namespace, whoever the command is there
    #[arg(long)]
    keep_caps: bool,
    /// Map users INSIDE:OUTSIDE:COUNT in a new user namespace, or `auto` for the range of /etc/subuid; may be repeated
    #[arg(long, value_name = "RANGE")]
    map_users: Vec<String>,
    /// Map groups, or `auto` for the range of /etc/subgid; may be repeated
    #[arg(long, value_name = "RANGE")]
    map_groups: Vec<String>,
    /// Map the ranges of /etc/subuid and /etc/subgid
    #[arg(long)]
    map_auto: bool,
    /// Be this user, as it is called inside
    #[arg(short = 'S', long, value_name = "UID")]
    setuid: Option<u32>,
    /// Be of this group, as it is called inside
    #[arg(short = 'G', long, value_name = "GID")]
    setgid: Option<u32>,
    /// Mount a /proc that shows the new process numbers
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "/proc")]
    mount_proc: Option<PathBuf>,
    /// How mounts pass to and from the new mount namespace
    #[arg(long, default_value = "private")]
    propagation: PropagationArg,
    /// Make a directory the root; behind `ns run` and `ns enter`, --root is this option
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
    explain: ExplainArg,
    /// Command and its arguments; your shell otherwise
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// `--setgroups`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SetgroupsArg {
    /// They may, where a process outside maps groups
    Allow,
    /// They may not
    Deny,
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
        let plan = UnsharePlan::new(&self.request()?, Caller { uid, gid });
        if explain.shown(&plan)? {
            return Ok(0);
        }
        carry_out(&plan)
    }

    fn request(self) -> Result<UnshareRequest, CliError> {
        let asked = self.asked.asked()?;
        let identity = match (self.map_root_user, self.map_current_user) {
            (true, _) => Some(Identity::Root),
            (false, true) => Some(Identity::Current),
            (false, false) if self.map_user.is_some() || self.map_group.is_some() => Some(Identity::As {
                user: self.map_user.as_deref().map(|name| number(name, "/etc/passwd")).transpose()?,
                group: self.map_group.as_deref().map(|name| number(name, "/etc/group")).transpose()?,
            }),
            (false, false) => None,
        };
        let setgroups = match self.setgroups {
            Some(SetgroupsArg::Allow) if identity.is_some() && self.map_groups.is_empty() && !self.map_auto => {
                return Err(CliError::usage(
                    "groups may not be changed where this program maps its own",
                    "map them by --map-groups or --map-auto, or leave --setgroups out",
                ));
            }
            Some(SetgroupsArg::Allow) => Some(Setgroups::Allow),
            Some(SetgroupsArg::Deny) => Some(Setgroups::Deny),
            None => None,
        };
        let kinds = asked.iter().map(|asked| asked.kind).collect();
        let keep = asked.into_iter().filter_map(|one| Some(Kept { kind: one.kind, file: one.file? })).collect();
        let user = match (self.setuid, self.setgid) {
            (None, None) => None,
            (uid, gid) => Some((uid.unwrap_or_default(), gid.unwrap_or_default())),
        };
        // One's own mapping as root has the first id already.
        let first = u32::from(identity == Some(Identity::Root));
        Ok(UnshareRequest {
            kinds,
            identity,
            setgroups,
            keep_caps: self.keep_caps,
            map_users: ranges(&self.map_users, self.map_auto, "/etc/subuid", first)?,
            map_groups: ranges(&self.map_groups, self.map_auto, "/etc/subgid", first)?,
            keep,
            user,
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
        })
    }
}

/// Ranges as they are written, and those of a file for `auto`.
fn ranges(written: &[String], auto: bool, file: &str, first: u32) -> Result<Vec<IdRange>, CliError> {
    let mut found = Vec::new();
    for text in written.iter().filter(|text| *text != "auto") {
        found.push(text.parse()?);
    }
    if auto || written.iter().any(|text| text == "auto") {
        found.push(subordinate(file, first)?);
    }
    Ok(found)
}

/// The number of a user or group, which may be written by its name.
fn number(name: &str, file: &str) -> Result<u32, CliError> {
    let found = users::number(name, file)?;
    found.ok_or_else(|| CliError::usage(format!("{file} has no {name}"), "write a number, or a name that is there"))
}

/// The caller's first line of subuid(5): `NAME:FIRST:COUNT`.
fn subordinate(file: &str, first: u32) -> Result<IdRange, CliError> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let uid = rustix::process::getuid().as_raw();
    let name = Users::read().name(uid);
    let own = |line: &str| {
        let mut fields = line.split(':');
        let who = fields.next()?;
        let (outside, count) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        (who == name || who == uid.to_string()).then_some(IdRange { inside: first, outside, count })
    };
    text.lines().find_map(own).ok_or_else(|| {
        CliError::usage(
            format!("{file} has no range for {name}"),
            format!("as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"),
        )
    })
}

/// What the helper of `ns run` gets.
#[derive(Debug, Args)]
pub(crate) struct OutsideArgs {
    /// As JSON
    work: String,
}

impl OutsideArgs {
    /// Waits until the parent has its namespaces, then does what it cannot. A parent that failed before has said why.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let work: Outside = serde_json::from_str(&self.work)?;
        let parent = std::os::unix::process::parent_id().cast_signed();
        if !may_go_on(std::io::stdin())? {
            return Ok(1);
        }
        work.apply(parent)?;
        Ok(0)
    }
}

/// Arguments of `ns rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Files that keep namespaces, as --net=FILE and `ip netns add` make them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    explain: ExplainArg,
}

impl RmArgs {
    /// Releases each.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let real = |file: &PathBuf| {
            file.canonicalize().map_err(|source| CliError::ReadFile { path: file.display().to_string(), source })
        };
        let plan = ForgetPlan::new(self.files.iter().map(real).collect::<Result<_, _>>()?)?;
        if !self.explain.shown(&plan)? {
            plan.apply()?;
        }
        Ok(0)
    }
}

/// One byte is a yes; the end of the stream, before any, is a no.
fn may_go_on(mut gate: impl std::io::Read) -> Result<bool, CliError> {
    let mut verdict = Vec::new();
    gate.read_to_end(&mut verdict).map_err(CliError::Stream)?;
    Ok(!verdict.is_empty())
}

/// What the child of `ns run` gets: the rest of the plan.
#[derive(Debug, Args)]
pub(crate) struct InsideArgs {
    /// Descriptor that tells whether to go on
    #[arg(long, value_name = "FD")]
    gate: Option<i32>,
    /// As JSON
    plan: String,
}

impl InsideArgs {
    /// Applies the rest and becomes the command, unless the parent has failed: it has said why.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        if let Some(number) = self.gate {
            let gate = onggi_sys::spawn::take_inherited(number).map_err(|e| CliError::Stream(e.errno.into()))?;
            if !may_go_on(std::fs::File::from(gate))? {
                return Ok(1);
            }
        }
        carry_out(&serde_json::from_str(&self.plan)?)
    }
}

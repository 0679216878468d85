//! `onggi cgroup …`: control groups by hand, over version 1, hybrid and version 2.

mod control;
mod create;
mod exec;
mod get;
mod ls;
mod rm;
mod set;
mod snapshot;
mod stat;
mod subject;

use clap::Subcommand;
use onggi_primitives::cgroup::{self, Group, GroupFacts, GroupPlan, Place, Version, existing, layout, places};
use onggi_spec::facts::CgroupLayout;

use crate::{cli::GlobalArgs, commands::explain::ExplainArg, error::CliError, render};

/// `onggi cgroup …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CgroupCommand {
    /// List groups as a tree, with what they use
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    /// Make groups
    Create(create::CreateArgs),
    /// Change limits of a group
    Set(set::SetArgs),
    /// Show limits and control files of a group
    Get(get::GetArgs),
    /// Run a command in a group
    Exec(exec::ExecArgs),
    /// Move processes into a group
    Mv(exec::MvArgs),
    /// Remove groups
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
    /// Stop every process of a group
    Freeze(control::FreezeArgs),
    /// Let the processes of a group run again
    Thaw(control::FreezeArgs),
    /// Send a signal to every process of a group
    Kill(control::KillArgs),
    /// Show what is counted for a group, and its pressure
    Stat(stat::StatArgs),
    /// Show what groups use as it changes
    Top(crate::commands::top::GroupsArgs),
    /// Keep groups and their limits in a file, as cgsnapshot
    Snapshot(snapshot::SnapshotArgs),
    /// Make the groups of a file again
    Restore(snapshot::RestoreArgs),
    /// Have systemd make a group at each boot
    Persist(snapshot::PersistArgs),
}

impl CgroupCommand {
    /// Carries out the command.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Ls(args) => args.run(global),
            Self::Create(args) => args.run(),
            Self::Set(args) => args.run(global),
            Self::Get(args) => args.run(global),
            Self::Exec(args) => args.run(global),
            Self::Mv(args) => args.run(global),
            Self::Rm(args) => args.run(),
            Self::Freeze(args) => args.run(control::State::Frozen, global),
            Self::Thaw(args) => args.run(control::State::Thawed, global),
            Self::Kill(args) => args.run(global),
            Self::Stat(args) => args.run(global),
            Self::Top(args) => args.run(global),
            Self::Snapshot(args) => args.run(),
            Self::Restore(args) => args.run(),
            Self::Persist(args) => args.run(),
        }
    }
}

impl ExplainArg {
    /// Prints the plan where that was asked for, else does it and tells what was left out.
    fn show_or_apply(self, plan: &GroupPlan) -> Result<Done, CliError> {
        if self.shown(plan)? {
            return Ok(Done::Shown);
        }
        render::notes(&cgroup::apply(plan)?)?;
        Ok(Done::Applied)
    }
}

/// What became of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// It was printed.
    Shown,
    /// It was carried out.
    Applied,
}

/// The groups that were named, by `-g` as for libcgroup or by their paths.
pub(super) fn paths(named: &[Group], words: &[String]) -> Result<Vec<Group>, CliError> {
    let parsed = words.iter().map(|word| word.parse::<Group>()).collect::<Result<Vec<_>, _>>()?;
    at_least_one([named, &parsed[..]].concat())
}

fn at_least_one(all: Vec<Group>) -> Result<Vec<Group>, CliError> {
    if all.is_empty() {
        return Err(CliError::usage("there is no group", "name one, as lab/web"));
    }
    Ok(all)
}

/// A group that exists: where it is.
pub(super) fn found(group: &Group) -> Result<(CgroupLayout, Vec<Place>), CliError> {
    let layout = layout()?;
    let places = existing(group, places(&layout, group)?)?;
    Ok((layout, places))
}

/// A group that exists, with everything that its control files say.
pub(super) fn facts(group: &Group) -> Result<(CgroupLayout, GroupFacts), CliError> {
    let (layout, places) = found(group)?;
    let facts = GroupFacts::gather(Version::of(&layout), places)?;
    Ok((layout, facts))
}

pub(crate) use exec::with_descendants;
pub(crate) use subject::group;

/// The groups of a process: controllers and path of each line of /proc/PID/cgroup.
pub(crate) fn origins(pid: i32) -> Vec<(Vec<String>, String)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let line = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        Some((controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect(), path.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// Whether this process may make the directory, and move processes into it.
pub(crate) fn may_make(place: &Place) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let writable = |path: &std::path::Path| accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    let parent = place.dir.parent().unwrap_or(&place.mount);
    // Version 2 asks for the right to move processes in the common ancestor too, which is beside our own group.
    writable(parent) && (!place.controllers.is_empty() || writable(&parent.join("cgroup.procs")))
}

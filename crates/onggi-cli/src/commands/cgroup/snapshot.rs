//! `onggi cgroup snapshot`, `restore` and `persist`: groups as a file, as cgsnapshot(1) and cgconfigparser(8).

use std::{fs, io::Read as _, os::unix::fs::MetadataExt as _, path::PathBuf};

use clap::Args;
use onggi_primitives::cgroup::{
    Group, GroupError, GroupFacts, MAX_SNAPSHOT, Persist, Snapshot, Version, existing, layout, offered, persist_plan,
    places, saved, tree,
};

use crate::{commands::explain::ExplainArg, error::CliError, render};

/// Arguments of `cgroup snapshot`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// Write to a file instead of stdout
    #[arg(short = 'o', short_alias = 'f', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Path from the root of the hierarchy, as cpu,memory:lab or lab; all groups otherwise
    #[arg(value_name = "GROUP", default_value = "/")]
    group: Group,
}

impl SnapshotArgs {
    /// Prints the limits of the group and of those below it as a cgconfig.conf.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let text = take(&self.group)?.text();
        match &self.output {
            None => render::stdout(&text)?,
            Some(path) => fs::write(path, text)
                .map_err(|source| CliError::WriteFile { path: path.display().to_string(), source })?,
        }
        Ok(0)
    }
}

fn take(group: &Group) -> Result<Snapshot, CliError> {
    let layout = layout()?;
    let version = Version::of(&layout);
    let top = existing(group, places(&layout, group)?)?;
    let mut groups = Vec::new();
    for node in tree(&top, None)?.into_iter().filter(|node| !node.path.is_empty()) {
        let own = Group { controllers: group.controllers.clone(), path: node.path.clone() };
        // One that has gone meanwhile is not there.
        let Ok(found) = existing(&own, places(&layout, &own)?) else { continue };
        let owner = found.first().and_then(|place| fs::metadata(&place.dir).ok()).map(|m| (m.uid(), m.gid()));
        groups.push(saved(&node.path, &GroupFacts::gather(version, found)?, owner));
    }
    Ok(Snapshot { version, groups })
}

/// Arguments of `cgroup restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Make the groups below this one
    #[arg(long, default_value = "/", value_name = "GROUP")]
    prefix: String,
    #[command(flatten)]
    explain: ExplainArg,
    /// What snapshot wrote, or a cgconfig.conf; - is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl RestoreArgs {
    /// Makes the groups of the file with their limits; those that are there are set again.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let name = self.file.display().to_string();
        let failed = |source| CliError::ReadFile { path: name.clone(), source };
        let mut text = String::new();
        match name.as_str() {
            "-" => std::io::stdin().take(MAX_SNAPSHOT).read_to_string(&mut text),
            _ => fs::File::open(&self.file).and_then(|file| file.take(MAX_SNAPSHOT).read_to_string(&mut text)),
        }
        .map_err(failed)?;
        let prefix: Group = self.prefix.parse()?;
        let layout = layout()?;
        let snapshot = Snapshot::parse(&text)?;
        let mut above = Vec::new();
        for saved in &snapshot.groups {
            above.extend(places(&layout, &saved.group(&prefix.path))?);
        }
        let plan = snapshot.plan(&layout, &prefix.path, &offered(&above))?;
        self.explain.show_or_apply(&plan)?;
        Ok(0)
    }
}

/// Arguments of `cgroup persist`.
#[derive(Debug, Args)]
pub(crate) struct PersistArgs {
    /// Forget the group again; it stays until the next boot
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Path from the root of the hierarchy
    #[arg(value_name = "GROUP")]
    group: Group,
}

impl PersistArgs {
    /// Has systemd make the group again at each boot.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        if self.group.path.is_empty() {
            return Err(GroupError::Root(self.group.to_string()).into());
        }
        let program = std::env::current_exe().map_err(CliError::CurrentDirectory)?.display().to_string();
        let snapshot = if self.remove { None } else { Some(take(&self.group)?) };
        let plan: Persist = persist_plan(&self.group, snapshot.as_ref(), &program);
        if self.explain.shown(&plan)? {
            return Ok(0);
        }
        plan.apply()?;
        let what = if self.remove { "forgotten" } else { "made again at each boot" };
        render::line(&format!("{} is {what} by {}", self.group, plan.unit))?;
        Ok(0)
    }
}

//! What a GROUP of the command line means: a control group by its path, or a running container by its name.
//!
//! A word that is the name of both is refused: `/web` is always the group, `container:web` always the container. Commands
//! that make or remove groups take paths alone; a container's group is its engine's to remove.

use onggi_engine::{Engine, ListFilter};
use onggi_primitives::cgroup::{Group, existing, layout, places};

use super::origins;
use crate::{cli::GlobalArgs, error::CliError};

/// What a container's name may be written behind. No controller is called that.
const PREFIX: &str = "container:";
/// Digits of an id that are as good as a name, as `ps` shows them.
const SHORT_ID: usize = 12;

/// The group that the word means.
pub(crate) fn group(word: &str, global: &GlobalArgs) -> Result<Group, CliError> {
    if let Some(name) = word.strip_prefix(PREFIX) {
        return of_container(&global.engine()?, name);
    }
    let group: Group = word.parse()?;
    let is_name = group.controllers.is_empty() && !word.contains('/') && !word.is_empty();
    let Some(id) = is_name.then(|| running(word, global)).flatten() else { return Ok(group) };
    match exists(&group)? {
        false => of_container(&global.engine()?, &id),
        true => Err(CliError::usage(
            format!("{word} is a control group, and a container too"),
            format!("write /{word} for the group, {PREFIX}{word} for the container"),
        )),
    }
}

/// The groups that were named, by `-g` as for libcgroup or as they are.
pub(super) fn groups(named: &[Group], words: &[String], global: &GlobalArgs) -> Result<Vec<Group>, CliError> {
    let meant = words.iter().map(|word| group(word, global)).collect::<Result<Vec<_>, _>>()?;
    super::at_least_one([named, &meant[..]].concat())
}

fn exists(group: &Group) -> Result<bool, CliError> {
    Ok(existing(group, places(&layout()?, group)?).is_ok())
}

/// The id of the running container of that name. Where there is no store, or none that may be read, there is none.
fn running(word: &str, global: &GlobalArgs) -> Option<String> {
    let engine = global.engine().ok().filter(|engine| engine.paths().root.is_dir())?;
    let short_id = word.len() >= SHORT_ID && word.bytes().all(|b| b.is_ascii_hexdigit());
    let filter = match short_id {
        true => ListFilter { id: vec![word.to_owned()], ..ListFilter::default() },
        false => ListFilter { name: vec![word.to_owned()], ..ListFilter::default() },
    };
    let found = engine.list(&filter).ok()?;
    let container = found.iter().find(|c| short_id || c.record.name.to_string() == word)?;
    Some(container.record.id.as_str().to_owned())
}

/// The group that has the container's id in its path, in which its first process is, or below which.
fn of_container(engine: &Engine, name: &str) -> Result<Group, CliError> {
    let first = engine.first_process(name)?;
    let id = engine.container_id(name)?;
    let path = origins(first).into_iter().find_map(|(_, path)| up_to(&path, id.as_str()));
    let path = path.ok_or_else(|| {
        CliError::usage(
            format!("the container {name} has no control group of its own"),
            "an ordinary user's container has one when systemd delegates controllers: onggi doctor --rootless",
        )
    })?;
    Ok(path.parse()?)
}

/// `/onggi-ID` of `/onggi-ID/init.scope`.
fn up_to(path: &str, id: &str) -> Option<String> {
    let names: Vec<&str> = path.split('/').collect();
    let at = names.iter().position(|name| name.contains(id))?;
    Some(names[..=at].join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_a_container_makes_for_itself_are_below_its_own() {
        assert_eq!(up_to("/a/onggi-4f.scope/init.scope", "4f").as_deref(), Some("/a/onggi-4f.scope"));
        assert_eq!(up_to("/onggi/4f", "4f").as_deref(), Some("/onggi/4f"));
        assert_eq!(up_to("/user.slice/session-1.scope", "4f"), None);
    }
}

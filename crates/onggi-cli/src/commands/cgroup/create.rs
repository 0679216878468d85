//! `onggi cgroup create`, as cgcreate(1).

use clap::Args;
use onggi_primitives::cgroup::{Group, GroupPlan, Version, create_plan, layout, offered, owner_ops, places};
use onggi_spec::ParseError;

use super::paths;
use crate::{commands::explain::ExplainArg, error::CliError, render::users};

/// Arguments of `cgroup create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// A group in the hierarchies of these controllers, as for cgcreate
    #[arg(short = 'g', value_name = "CONTROLLERS:PATH")]
    named: Vec<Group>,
    /// Only these controllers; those that limit or count otherwise
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    controllers: Vec<String>,
    /// Give the groups to a user, who may then move processes and make groups below
    #[arg(long, short = 'a', value_name = "USER[:GROUP]")]
    owner: Option<String>,
    #[command(flatten)]
    explain: ExplainArg,
    /// Paths from the root of the hierarchy, as lab/web
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
}

impl CreateArgs {
    /// Makes the groups; those that are there stay.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let owner = self.owner.as_deref().map(owner).transpose()?;
        let layout = layout()?;
        let mut plan = GroupPlan::default();
        for mut group in paths(&self.named, &self.groups)? {
            group.controllers.extend(self.controllers.iter().filter(|c| !c.is_empty()).cloned());
            let places = places(&layout, &group)?;
            let made = create_plan(&layout, &group, &places, &offered(&places))?;
            plan.ops.extend(made.ops);
            plan.notes.extend(made.notes);
            if let Some((uid, gid)) = owner {
                plan.ops.extend(owner_ops(&places, Version::of(&layout), uid, gid));
            }
        }
        plan.ops.dedup();
        self.explain.show_or_apply(&plan)?;
        Ok(0)
    }
}

type Ids = (Option<u32>, Option<u32>);

/// `ann`, `1000:100`, `:staff`; names are those of /etc/passwd and /etc/group.
fn owner(text: &str) -> Result<Ids, CliError> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let id = |name: &str, file: &str| -> Result<Option<u32>, CliError> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = users::number(name, file)?;
        Ok(Some(found.ok_or_else(|| {
            ParseError::new("owner", text, format!("{file} has no {name}")).hint("write USER, USER:GROUP or numbers")
        })?))
    };
    Ok((id(user, "/etc/passwd")?, id(group, "/etc/group")?))
}

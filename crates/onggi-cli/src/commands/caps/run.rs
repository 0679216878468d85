//! `onggi caps run`, as capsh(1) and setpriv(1).

use std::path::Path;

use clap::Args;
use onggi_engine::user_in;
use onggi_primitives::{Caller, CapsRequest, PrimitiveError, UnsharePlan, User, process_capabilities};
use onggi_spec::{
    ParseError,
    capability::{self, CapArg},
    user::UserSpec,
};

use crate::{
    cli::GlobalArgs,
    commands::{explain::ExplainArg, ns::child::command_or_shell, plan},
    error::CliError,
};

/// Arguments of `caps run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Take a capability from every set, also from what exec(2) could give; ALL for all; may be repeated
    #[arg(short, long, value_name = "CAPABILITY", value_delimiter = ',')]
    drop: Vec<String>,
    /// Give a capability to the command, whoever it is; kept with --drop ALL; may be repeated
    #[arg(short, long, value_name = "CAPABILITY", value_delimiter = ',')]
    add: Vec<String>,
    /// Make a capability inheritable: files that have it inheritable give it; may be repeated
    #[arg(long, visible_alias = "inheritable", value_name = "CAPABILITY", value_delimiter = ',')]
    inh: Vec<String>,
    /// Make a capability ambient: plain programs keep it; may be repeated
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    ambient: Vec<String>,
    /// Be this user; root's capabilities do not come along
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<UserSpec>,
    /// exec(2) adds nothing: no set-user-id, no capabilities of files
    #[arg(long, visible_alias = "no-new-privs")]
    no_new_privileges: bool,
    /// In a user namespace of its own, as root there: needs no root
    #[arg(short = 'r', long)]
    map_root_user: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Command and its arguments; your shell otherwise
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

impl RunArgs {
    /// Runs the command; the exit code is its own.
    pub(crate) fn run(self, _global: &GlobalArgs) -> Result<u8, CliError> {
        let caller = Caller { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let all = known()?;
        let user = self.user.map(|spec| user_in(Path::new("/"), &spec)).transpose()?;
        let request = CapsRequest {
            drop: mask(&self.drop, all)?,
            add: mask(&self.add, all)?,
            inheritable: mask(&self.inh, all)?,
            ambient: mask(&self.ambient, all)?,
            user: user.map(|user| User { uid: user.uid, gid: user.gid, groups: user.additional_gids }),
            no_new_privileges: self.no_new_privileges,
            map_root: self.map_root_user,
            command: command_or_shell(self.command),
        };
        let own = process_capabilities(std::process::id().cast_signed())?;
        let plan = UnsharePlan::capabilities(&request, caller, own, all)?;
        if self.explain.shown(&plan)? {
            return Ok(0);
        }
        plan::carry_out(&plan)
    }
}

/// Every capability that this kernel knows.
fn known() -> Result<u64, CliError> {
    let path = "/proc/sys/kernel/cap_last_cap";
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| CliError::ReadFile { path: path.to_owned(), source })?;
    let last: Option<u32> = text.trim().parse().ok();
    let last = last.ok_or_else(|| PrimitiveError::Format { path: path.into() })?;
    Ok(u64::MAX >> (63 - last.min(63)))
}

fn mask(names: &[String], all: u64) -> Result<u64, ParseError> {
    names.iter().try_fold(0, |mask, name| {
        Ok(mask
            | match capability::parse_capability(name)? {
                CapArg::All => all,
                CapArg::One(known) => {
                    let unknown =
                        || ParseError::new("capability", name, "this version of the program does not know it");
                    1 << capability::number(known).ok_or_else(unknown)?
                }
            })
    })
}

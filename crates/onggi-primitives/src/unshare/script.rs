//! Plans with a root directory or with capabilities as a script: unshare(1), mount(8), capsh(1).

use super::{
    Op, Propagation,
    show::{flag, map_flag},
};
use crate::{chroot, credentials, shell};

/// The whole script.
pub(super) fn script(ops: &[Op]) -> String {
    let outer = ops.iter().position(|op| !is_filling(op)).unwrap_or(ops.len());
    let (fill, rest) = ops.split_at(outer);
    let root = ops.iter().find_map(|op| if let Op::Root(op) = op { Some(op.root()) } else { None });
    let mut out = "set -eu\n".to_owned();
    let named = root.map(|root| format!("R={}\n", shell::path(root))).unwrap_or_default();
    if !fill.is_empty() {
        out += &(named.clone() + chroot::FILL + &lines(fill));
    }
    let command = command(rest);
    if command.is_empty() {
        return out;
    }
    let flags = unshare_flags(rest);
    let last = last(rest, root.is_some());
    if root.is_none() && flags.is_empty() && !rest.iter().any(|op| matches!(op, Op::Hostname { .. })) {
        return out + last.strip_suffix("\"$@\"").unwrap_or(&last) + &command + "\n";
    }
    let helpers = if root.is_some() { chroot::INSIDE } else { "" };
    let inside = format!("set -eu\n{named}{helpers}{}{last}\n", lines(rest));
    out + &format!("exec unshare {flags} sh -c {} sh {command}\n", shell::quote(&inside))
}

fn is_filling(op: &Op) -> bool {
    matches!(op, Op::Root(op) if op.fills())
}

fn lines(ops: &[Op]) -> String {
    let line = |op: &Op| match op {
        Op::Root(op) => chroot::shell_line(op),
        Op::Hostname { name } => format!("hostname {}\n", shell::quote(name)),
        _ => String::new(),
    };
    ops.iter().map(line).collect()
}

fn command(ops: &[Op]) -> String {
    let found = ops.iter().find_map(|op| if let Op::Execute { command } = op { Some(command) } else { None });
    found.map(|words| shell::words(words)).unwrap_or_default()
}

fn unshare_flags(ops: &[Op]) -> String {
    let mut flags = Vec::new();
    for op in ops {
        match op {
            Op::MapUser { .. } | Op::MapGroup { .. } => flags.extend(map_flag(op, ops)),
            Op::Propagate { propagation: Propagation::Private } | Op::Workdir { .. } => {}
            other => flags.extend(flag(other)),
        }
    }
    flags.join(" ")
}

/// What becomes the command. Programs of the host do it: none is left once the root is another.
fn last(ops: &[Op], rooted: bool) -> String {
    let workdir = ops.iter().find_map(|op| if let Op::Workdir { dir } = op { Some(shell::path(dir)) } else { None });
    let credentials: Vec<_> =
        ops.iter().filter_map(|op| if let Op::Credentials(op) = op { Some(op) } else { None }).collect();
    match (rooted, credentials.as_slice(), workdir) {
        (true, [credentials::CredentialOp::User { uid, gid, groups }], workdir) => {
            let groups = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let who = format!("--userspec={uid}:{gid} --groups={groups}");
            let inner = workdir.map_or_else(
                || "\"$@\"".to_owned(),
                |dir| format!("/bin/sh -c 'cd \"$0\" && exec \"$@\"' {dir} \"$@\""),
            );
            format!("exec chroot {who} . {inner}")
        }
        (true, _, workdir) => format!("exec unshare --root=. --wd={} \"$@\"", workdir.as_deref().unwrap_or("/")),
        (false, credentials, _) => {
            let options = credentials.iter().flat_map(|op| credentials::options(op)).collect::<Vec<_>>().join(" ");
            format!("exec capsh {options} --shell=/bin/sh -- -c 'exec \"$0\" \"$@\"' \"$@\"")
        }
    }
}

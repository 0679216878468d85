//! `exec`.

use std::{ffi::OsString, fs};

use onggi_sandbox::{ExecOptions, StartFailureError};
use onggi_spec::{
    ParseError,
    oci::{build::apply_user, runtime::Process},
    user::ResolvedUser,
};

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag, utf8},
    create::{read_config, stdio},
    foreground, terminal,
};

const FLAGS: &[Flag] = &[
    Flag::value("console-socket", ""),
    Flag::value("cwd", ""),
    Flag::value("env", "e"),
    Flag::switch("tty", "t"),
    Flag::value("user", "u"),
    Flag::value("additional-gids", "g"),
    Flag::value("process", "p"),
    Flag::switch("detach", "d"),
    Flag::value("pid-file", ""),
    Flag::value("process-label", ""),
    Flag::value("apparmor", ""),
    Flag::switch("no-new-privs", ""),
    Flag::value("cap", "c"),
    Flag::value("preserve-fds", ""),
];

pub(super) fn exec(global: &Global, words: &[OsString]) -> Outcome {
    let args = Args::parse(words, FLAGS)?;
    let Some((id, command)) = args.rest().split_first() else {
        return Err(CliError::Usage("no container id was given".into()));
    };
    let id = utf8(id)?;
    let mut process = process(global, &args, &id, command)?;
    let detach = args.is("detach");
    let relayed = process.terminal && args.path("console-socket").is_none();
    if relayed && detach {
        return Err(CliError::Usage("a terminal with --detach needs --console-socket".into()));
    }
    if relayed {
        terminal::inherit_size(Some(&mut process));
    }
    let executed = onggi_sandbox::exec(ExecOptions {
        id,
        state_root: global.root.clone(),
        stdio: stdio(process.terminal, &args)?,
        process,
        preserve_fds: args.number("preserve-fds")?.unwrap_or(0),
        pid_file: args.path("pid-file"),
        die_with_parent: false,
    })?;
    global.log.notes(&executed.notes);
    match executed.console_master {
        _ if detach => Ok(0),
        Some(master) => terminal::relay(&executed.pidfd, master),
        None => foreground::wait(&executed.pidfd),
    }
}

/// From `--process`, or the container's own process changed by the flags.
fn process(global: &Global, args: &Args, id: &str, command: &[OsString]) -> Result<Process, CliError> {
    if let Some(path) = args.path("process") {
        let bytes = fs::read(&path).map_err(|source| CliError::File { what: "read", path: path.clone(), source })?;
        let mut process: Process = serde_json::from_slice(&bytes)
            .map_err(|e| ParseError::new("process", &path.display().to_string(), e.to_string()))?;
        process.terminal |= args.is("tty");
        return Ok(process);
    }
    if command.is_empty() {
        return Err(CliError::Usage("no command was given".into()));
    }
    let state = onggi_sandbox::stored_state(&global.root, id)?;
    let config = read_config(&state.bundle)?;
    let mut process = config.process.ok_or_else(|| StartFailureError::new("config.json has no process"))?;
    process.args = command.iter().map(|w| utf8(w)).collect::<Result<_, _>>()?;
    process.terminal = args.is("tty");
    process.console_size = None;
    process.env.extend(args.all("env")?);
    if let Some(cwd) = args.text("cwd") {
        process.cwd = cwd.to_owned();
    }
    change_credentials(&mut process, args)?;
    Ok(process)
}

fn change_credentials(process: &mut Process, args: &Args) -> Result<(), CliError> {
    let gids = args.all("additional-gids")?.iter().map(|g| number("group", g)).collect::<Result<Vec<_>, _>>()?;
    if let Some(user) = args.text("user") {
        let (uid, gid) = parse_user(user)?;
        let gid = gid.unwrap_or(if uid == process.user.uid { process.user.gid } else { 0 });
        if uid != process.user.uid {
            // HOME belongs to the other user; without a passwd entry at hand it becomes `/`.
            process.env.retain(|e| !e.starts_with("HOME="));
        }
        let umask = process.user.umask;
        let home = String::from("/");
        apply_user(process, &ResolvedUser { uid, gid, additional_gids: gids, home });
        process.user.umask = umask;
    } else if !gids.is_empty() {
        process.user.additional_gids.extend(gids);
    }
    if args.is("no-new-privs") {
        process.no_new_privileges = true;
    }
    if let Some(profile) = args.text("apparmor") {
        process.apparmor_profile = Some(profile.to_owned());
    }
    if let Some(label) = args.text("process-label") {
        process.selinux_label = Some(label.to_owned());
    }
    let caps = process.capabilities.get_or_insert_default();
    for cap in args.all("cap")? {
        for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
            set.push(cap.clone());
        }
    }
    Ok(())
}

/// `uid[:gid]`, numbers only: the caller resolves names (I10, CVE-2026-30892).
fn parse_user(text: &str) -> Result<(u32, Option<u32>), CliError> {
    match text.split_once(':') {
        None => Ok((number("user", text)?, None)),
        Some((user, group)) => Ok((number("user", user)?, Some(number("group", group)?))),
    }
}

fn number(what: &'static str, text: &str) -> Result<u32, CliError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let id = text.parse::<u32>().ok().filter(|n| plain && *n != u32::MAX);
    id.ok_or_else(|| {
        ParseError::new(what, text, "expected a number below 4294967295").hint("names are not resolved here").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_and_never_become_root_by_accident() {
        assert_eq!(parse_user("1").unwrap(), (1, None));
        assert_eq!(parse_user("1000:100").unwrap(), (1000, Some(100)));
        for bad in ["", ":", "1:", ":1", "root", "-1", "+0", "0x0", "4294967295", "4294967296", "1 ", "1:2:3"] {
            assert!(parse_user(bad).is_err(), "{bad:?}");
        }
    }
}

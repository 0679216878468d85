//! exec: a further process in a running container.

use std::{
    ffi::OsString,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use onggi_sandbox::ExecOptions;
use onggi_spec::{
    capability::{self, CapArg},
    oci::runtime::{Process, Spec, User},
};

use super::{
    Context, Failure,
    args::{self, Opt, Parsed, flag, value},
    check_id, foreground, read_json,
    verbs::{MAX_CONFIG, preserve_fds, stdio},
};

const OPTIONS: [Opt; 19] = [
    value("process", Some('p')),
    value("console-socket", None),
    value("pidfd-socket", None),
    value("cwd", None),
    value("env", Some('e')),
    flag("tty", Some('t')),
    value("user", Some('u')),
    value("additional-gids", Some('g')),
    flag("detach", Some('d')),
    value("pid-file", None),
    value("process-label", None),
    value("apparmor", None),
    flag("no-new-privs", None),
    value("cap", Some('c')),
    value("preserve-fds", None),
    value("cgroup", None),
    flag("ignore-paused", None),
    flag("no-subreaper", None),
    value("console", None),
];

/// runc's exit code of an exec that could not be started, when it is neither 126 nor 127.
const EXIT_EXEC_FAILED: i32 = 255;

pub(crate) fn exec(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let parsed = args::parse(rest, &OPTIONS)?;
    for unsupported in ["cgroup", "console"] {
        if parsed.get(unsupported).is_some() {
            return Err(Failure::new(format!("exec --{unsupported} is not supported")));
        }
    }
    let id = parsed.rest.first().ok_or_else(|| Failure::new("a container id is required")).and_then(check_id)?;
    let process = process(context, &parsed, &id)?;
    let detached = parsed.has("detach");
    let options = ExecOptions {
        id,
        state_root: context.root.clone(),
        stdio: stdio(process.terminal, parsed.text("console-socket").as_deref(), detached)?,
        process,
        preserve_fds: preserve_fds(&parsed)?,
        pid_file: parsed.get("pid-file").map(PathBuf::from),
        die_with_parent: false,
    };
    let executed = onggi_sandbox::exec(options).map_err(exec_failure)?;
    if detached {
        return Ok(0);
    }
    let code = foreground::stay(executed.pidfd.as_fd(), executed.console_master);
    code.map_err(|e| Failure::new(format!("wait for the process: {e}")).code(EXIT_EXEC_FAILED))
}

fn exec_failure(e: onggi_sandbox::StartFailureError) -> Failure {
    let code = match e.0.exit_code {
        code @ (126 | 127) => code,
        _ => EXIT_EXEC_FAILED,
    };
    Failure::from(e).code(code)
}

/// The process document: given whole, or the container's own changed by options.
fn process(context: &Context, parsed: &Parsed, id: &str) -> Result<Process, Failure> {
    if let Some(path) = parsed.get("process") {
        return read_json(Path::new(path), MAX_CONFIG);
    }
    let args: Vec<String> = parsed.rest[1..].iter().map(|a| a.to_string_lossy().into_owned()).collect();
    if args.is_empty() {
        return Err(Failure::new("a command is required"));
    }
    let state = onggi_sandbox::load(&context.root, id)?;
    let config: Spec = read_json(&state.bundle.join("config.json"), MAX_CONFIG)?;
    let mut process = config.process.unwrap_or_default();
    process.args = args;
    process.terminal = parsed.has("tty");
    process.env.extend(parsed.all("env").iter().map(|e| e.to_string_lossy().into_owned()));
    process.no_new_privileges |= parsed.has("no-new-privs");
    if let Some(cwd) = parsed.text("cwd") {
        process.cwd = cwd;
    }
    if let Some(profile) = parsed.text("apparmor") {
        process.apparmor_profile = Some(profile);
    }
    if let Some(label) = parsed.text("process-label") {
        process.selinux_label = Some(label);
    }
    if let Some(user) = parsed.text("user") {
        set_user(&mut process.user, &user)?;
    }
    for gid in parsed.all("additional-gids") {
        process.user.additional_gids.push(id_number(&gid.to_string_lossy())?);
    }
    add_capabilities(&mut process, parsed)?;
    Ok(process)
}

/// `uid[:gid]`, numbers only, as in runc.
fn set_user(user: &mut User, text: &str) -> Result<(), Failure> {
    let (uid, gid) = match text.split_once(':') {
        Some((u, g)) => (u, Some(g)),
        None => (text, None),
    };
    user.uid = id_number(uid)?;
    if let Some(gid) = gid {
        user.gid = id_number(gid)?;
    }
    Ok(())
}

/// Digits only, below 2^32 - 1, which means "unchanged" to the kernel (I10).
fn id_number(text: &str) -> Result<u32, Failure> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse::<u32>().ok().filter(|n| digits && *n != u32::MAX);
    number.ok_or_else(|| Failure::new(format!("invalid user or group id {text:?}: expected a number below 4294967295")))
}

/// `--cap` adds to the bounding, effective and permitted sets; inheritable and ambient stay as they are (I11).
fn add_capabilities(process: &mut Process, parsed: &Parsed) -> Result<(), Failure> {
    for text in parsed.all("cap") {
        let cap = match capability::parse_capability(&text.to_string_lossy()) {
            Ok(CapArg::One(name)) => name.to_owned(),
            Ok(CapArg::All) => return Err(Failure::new("--cap needs one capability")),
            Err(e) => return Err(Failure::new(e.to_string())),
        };
        let sets = process.capabilities.get_or_insert_with(Default::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            if !set.contains(&cap) {
                set.push(cap.clone());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_numbers_and_fail_closed_cve_2026_30892() {
        let mut user = User::default();
        set_user(&mut user, "1:2").unwrap();
        assert_eq!((user.uid, user.gid), (1, 2));
        for bad in ["", ":", "1:", ":1", "-1", "+1", "0x0", "4294967295", "4294967296", "root", " 1"] {
            assert!(set_user(&mut user, bad).is_err(), "{bad:?}");
        }
    }
}

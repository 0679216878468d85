//! `exec`.

use std::{ffi::OsString, path::PathBuf};

use onggi_sandbox::{CgroupChoice, ExecOptions, Paused, StartFailureError};
use onggi_spec::{ParseError, oci::runtime::Process};

use super::{
    CliError, EXIT_EXEC, EXIT_FAILURE, Global, Outcome,
    args::{Args, Flag, utf8},
    create::{Inherited, pidfd_socket, read_document, refuse_terminal, stdio},
    foreground, terminal,
};

pub(super) const FLAGS: &[Flag] = &[
    Flag::value("console-socket", "").help(
        "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal",
    ),
    Flag::value("pidfd-socket", "")
        .help("path to an AF_UNIX socket which will receive a file descriptor referencing the exec process"),
    Flag::value("cwd", "").help("current working directory in the container"),
    Flag::value("env", "e").help("set environment variables"),
    Flag::switch("tty", "t").help("allocate a pseudo-TTY"),
    Flag::value("user", "u").help("UID (format: <uid>[:<gid>])"),
    Flag::number("additional-gids", "g").help("additional gids"),
    Flag::value("process", "p").help("path to the process.json"),
    Flag::switch("detach", "d").help("detach from the container's process"),
    Flag::value("pid-file", "").help("specify the file to write the process id to"),
    Flag::value("process-label", "")
        .help("set the asm process label for the process commonly used with selinux"),
    Flag::value("apparmor", "").help("set the apparmor profile for the process"),
    Flag::switch("no-new-privs", "").help("set the no new privileges value for the process"),
    Flag::value("cap", "c").help("add a capability to the bounding set for the process"),
    Flag::number("preserve-fds", "")
        .help("Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)"),
    Flag::value("cgroup", "")
        .help("run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>."),
    Flag::value("exec-wait-fifo", "")
        .help("path to a FIFO: the process runs its program when somebody opens it for reading"),
    Flag::switch("ignore-paused", "").help("allow exec in a paused container"),
    Flag::switch("no-subreaper", ""),
];

pub(super) fn exec(global: &Global, args: &Args) -> Outcome {
    execute(global, args).map_err(|source| CliError::Start {
        prefix: "exec failed".into(),
        code: code(&source),
        source: Box::new(source),
    })
}

/// A program that was found and that the kernel does not take fails in runc's child, with the code of any program that fails.
fn code(source: &CliError) -> i32 {
    match source {
        CliError::Sandbox(e) if e.0.step.starts_with("exec ") && matches!(e.0.exit_code, 126 | 127) => EXIT_FAILURE,
        _ => EXIT_EXEC,
    }
}

fn execute(global: &Global, args: &Args) -> Outcome {
    let id = args.id()?;
    let detach = args.is("detach");
    let mut process = process(global, args, &id)?;
    refuse_terminal(process.terminal, args.has("console-socket"), detach)?;
    if process.terminal && !args.has("console-socket") {
        terminal::inherit_size(Some(&mut process));
    }
    let inherited = Inherited::preserved(global, args.number("preserve-fds")?.unwrap_or(0))?;
    let (stdio, pidfd_socket) = (stdio(process.terminal, args)?, pidfd_socket(args)?);
    inherited.close_the_others()?;
    let signals = if detach { None } else { Some(foreground::prepare(!args.is("no-subreaper"))?) };
    global.log.debug("nsexec container setup: joining the container's namespaces");
    let executed = onggi_sandbox::exec(ExecOptions {
        id,
        state_root: global.root.clone(),
        stdio,
        process,
        preserve_fds: inherited.count(),
        pid_file: args.path("pid-file"),
        die_with_parent: false,
        paused: if args.is("ignore-paused") { Paused::Enter } else { Paused::Refuse },
        cgroups: cgroups(args)?,
        pidfd_socket,
        wait_fifo: args.path("exec-wait-fifo"),
        executable: global.executable.take(),
    })?;
    if let Some(cpus) = onggi_sys::sched::affinity().ok().filter(|_| global.log.debugs()) {
        global.log.debug(&format!("nsexec-0[{}]: affinity: {}", std::process::id(), onggi_sys::sched::bits(&cpus)));
    }
    global.log.debug(&format!("child process in init() is {}; setns_init: about to exec", executed.pid));
    global.log.notes(&executed.notes);
    let Some(signals) = signals else { return Ok(0) };
    let (pid, pidfd, console) = (executed.pid, executed.pidfd, executed.console_master);
    foreground::Process { pid, pidfd, console, notify: None }.wait(&signals)
}

/// `[controller[,controller]:]path`, as often as it is given.
fn cgroups(args: &Args) -> Result<CgroupChoice, CliError> {
    let mut list = Vec::new();
    for text in args.all("cgroup")? {
        match text.split_once(':') {
            None => list.push((None, PathBuf::from(text))),
            Some((controllers, path)) => {
                list.extend(controllers.split(',').map(|c| (Some(c.to_owned()), PathBuf::from(path))));
            }
        }
    }
    Ok(if list.is_empty() { CgroupChoice::Container } else { CgroupChoice::Below(list) })
}

/// From `--process`, or the container's own process changed by the flags.
fn process(global: &Global, args: &Args, id: &str) -> Result<Process, CliError> {
    if let Some(path) = args.path("process") {
        let mut process: Process = serde_json::from_slice(&read_document(&path)?)
            .map_err(|e| ParseError::new("process", &path.display().to_string(), e.to_string()))?;
        process.terminal |= args.is("tty");
        return Ok(process);
    }
    let config = onggi_sandbox::stored_config(&global.root, id)?;
    let command: &[OsString] = args.rest().get(1..).unwrap_or_default();
    if command.is_empty() {
        return Err(CliError::Usage("process args cannot be empty".into()));
    }
    let mut process = config.process.ok_or_else(|| StartFailureError::new("config.json has no process"))?;
    process.args = command.iter().map(|w| utf8(w)).collect::<Result<_, _>>()?;
    if args.has("tty") || process.terminal {
        process.terminal = args.is("tty");
        process.console_size = None;
    }
    process.env.extend(args.all("env")?);
    if let Some(cwd) = args.text("cwd").filter(|c| !c.is_empty()) {
        process.cwd = cwd.to_owned();
    }
    change_credentials(&mut process, args)?;
    Ok(process)
}

fn change_credentials(process: &mut Process, args: &Args) -> Result<(), CliError> {
    // An empty one is refused, not ignored: whoever computed it meant somebody (CVE-2026-30892).
    if let Some(user) = args.text("user") {
        let (uid, gid) = parse_user(user)?;
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    for gid in args.all("additional-gids")? {
        process.user.additional_gids.push(number("additional gid", &gid)?);
    }
    if args.has("no-new-privs") {
        process.no_new_privileges = args.is("no-new-privs");
    }
    if let Some(profile) = args.text("apparmor").filter(|p| !p.is_empty()) {
        process.apparmor_profile = Some(profile.to_owned());
    }
    if let Some(label) = args.text("process-label").filter(|l| !l.is_empty()) {
        process.selinux_label = Some(label.to_owned());
    }
    add_capabilities(process, &args.all("cap")?);
    Ok(())
}

/// Ambient only what is inheritable: the kernel refuses others.
fn add_capabilities(process: &mut Process, added: &[String]) {
    if added.is_empty() {
        return;
    }
    let caps = process.capabilities.get_or_insert_default();
    for cap in added {
        for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
            set.push(cap.clone());
        }
        if caps.inheritable.contains(cap) {
            caps.ambient.push(cap.clone());
        }
    }
}

/// `uid[:gid]`, numbers only: the caller resolves names (I10, CVE-2026-30892).
fn parse_user(text: &str) -> Result<(u32, Option<u32>), CliError> {
    match text.split_once(':') {
        None => Ok((number("uid", text)?, None)),
        Some((user, group)) => Ok((number("uid", user)?, Some(number("gid", group)?))),
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

//! `process`: command, environment, working directory, user, capability sets.

use super::{BuildError, SpecInput, effective_hostname, limits};
use crate::{
    ContainerRequest, env, id_block,
    image::ImageConfig,
    oci::runtime::{LinuxCapabilities, Process, User},
    path,
    security::SecurityOptions,
    user::ResolvedUser,
};

/// PATH when neither image nor request sets it, as Docker.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command of `host:` and `rootfs:` when none is given.
const DEFAULT_SHELL: &str = "/bin/sh";

/// The process, with `caps` as its bounding set.
pub(super) fn process(input: &SpecInput<'_>, caps: &[&str]) -> Result<Process, BuildError> {
    let mut process = Process {
        terminal: input.request.tty,
        args: effective_command(input.request, input.image)?,
        env: effective_environment(
            input.request,
            input.image,
            &effective_hostname(input.request, input.facts, input.id),
        )?,
        cwd: effective_directory(input.request, input.image)?,
        capabilities: Some(LinuxCapabilities {
            bounding: caps.iter().map(ToString::to_string).collect(),
            ..LinuxCapabilities::default()
        }),
        rlimits: limits::rlimits(input),
        oom_score_adj: input.request.oom_score_adj,
        apparmor_profile: input.apparmor_profile.map(str::to_owned),
        ..Process::default()
    };
    let security = &effective_security(input.request);
    if input.rootless() {
        apply_rootless_user(&mut process, &input.user, security)?;
    } else {
        check_mapped(input)?;
        apply_user(&mut process, &input.user, security);
    }
    Ok(process)
}

/// A privileged container can gain privileges unless it was said that it cannot.
pub fn effective_security(request: &ContainerRequest) -> SecurityOptions {
    let mut security = request.security.clone();
    if request.privileged {
        security.no_new_privileges.get_or_insert(false);
    }
    security
}

fn check_mapped(input: &SpecInput<'_>) -> Result<(), BuildError> {
    let ResolvedUser { uid, gid, additional_gids, .. } = &input.user;
    let mapped = [uid, gid].into_iter().chain(additional_gids).all(|id| *id < id_block::SIZE);
    match input.id_block {
        Some(_) if !mapped => Err(BuildError::UserOutsideMap { uid: *uid, gid: *gid }),
        _ => Ok(()),
    }
}

/// Makes `user` the user of a process: credentials, capability sets, no_new_privs. HOME is set only where the
/// environment has none. Shared by `run` and `exec` (I11).
///
/// Root gets its bounding set; others get no capability, and cannot gain any by executing a program unless
/// `security` says so.
/// The primary group is listed among the supplementary ones too, so that dropping it with setgid cannot
/// escape a file mode that excludes it (CVE-2022-2990, CVE-2022-36109).
pub fn apply_user(process: &mut Process, user: &ResolvedUser, security: &SecurityOptions) {
    let mut groups = user.additional_gids.clone();
    groups.push(user.gid);
    groups.sort_unstable();
    groups.dedup();
    process.user = User { uid: user.uid, gid: user.gid, umask: process.user.umask, additional_gids: groups };
    set_credentials(process, user, security);
}

/// [`apply_user`] in a user namespace of one id: only 0 is mapped, and setgroups(2) is denied.
///
/// # Errors
/// For any user but root.
pub fn apply_rootless_user(
    process: &mut Process,
    user: &ResolvedUser,
    security: &SecurityOptions,
) -> Result<(), BuildError> {
    if (user.uid, user.gid) != (0, 0) {
        return Err(BuildError::RootlessUser { uid: user.uid, gid: user.gid });
    }
    process.user = User::default();
    set_credentials(process, user, security);
    Ok(())
}

fn set_credentials(process: &mut Process, user: &ResolvedUser, security: &SecurityOptions) {
    process.no_new_privileges = security.no_new_privileges.unwrap_or(user.uid != 0);
    let caps = process.capabilities.get_or_insert_default();
    let held = if user.uid == 0 { caps.bounding.clone() } else { Vec::new() };
    caps.effective.clone_from(&held);
    caps.permitted = held;
    caps.inheritable.clear();
    caps.ambient.clear();
    // A newline in HOME could become a line of a passwd file (CVE-2022-4318).
    let home = if user.home.starts_with('/') && !user.home.contains(['\n', '\0']) { &user.home } else { "/" };
    if !process.env.iter().any(|v| v.starts_with("HOME=")) {
        process.env.push(format!("HOME={home}"));
    }
}

/// The command as Docker combines it: a given entry point discards both of the image's, given arguments
/// replace the image's Cmd. `host:` and `rootfs:` run a shell by default.
///
/// # Errors
/// Nothing is left, or an argument contains a NUL byte.
pub fn effective_command(request: &ContainerRequest, image: Option<&ImageConfig>) -> Result<Vec<String>, BuildError> {
    let config = image.map(|i| &i.config);
    let from_image = |list: Option<&Option<Vec<String>>>| list.cloned().flatten().unwrap_or_default();
    let (mut command, default_args) = match &request.entrypoint {
        Some(own) => (own.clone(), Vec::new()),
        None => (from_image(config.map(|c| &c.entrypoint)), from_image(config.map(|c| &c.cmd))),
    };
    command.extend(if request.command.is_empty() { default_args } else { request.command.clone() });
    if command.is_empty() {
        return if image.is_none() { Ok(vec![DEFAULT_SHELL.to_owned()]) } else { Err(BuildError::NoCommand) };
    }
    match command.iter().find(|a| a.contains('\0')) {
        Some(bad) => Err(BuildError::text("argument", bad, "it contains a NUL byte")),
        None => Ok(command),
    }
}

/// Defaults, then the image's, then the request's variables; a later one replaces an earlier one in place, and a bare
/// name of the request's erases it. A variable of an image without `=` is dropped: it never means the host's value
/// (CVE-2026-57231).
/// HOME is not among them unless it was set: it is the user's of the root filesystem, see [`apply_user`].
///
/// # Errors
/// A variable contains a NUL byte, or HOME a newline.
pub fn effective_environment(
    request: &ContainerRequest,
    image: Option<&ImageConfig>,
    hostname: &str,
) -> Result<Vec<String>, BuildError> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if request.tty {
        env.push("TERM=xterm".to_owned());
    }
    let image = image.map(|i| i.config.env.as_slice()).unwrap_or_default();
    let of_image = image.iter().filter(|v| v.contains('='));
    for variable in of_image.chain(&request.env).filter(|v| !v.starts_with('=')) {
        check_variable(variable)?;
        env::apply(&mut env, variable);
    }
    Ok(env)
}

fn check_variable(variable: &str) -> Result<(), BuildError> {
    let err = |reason| Err(BuildError::text("environment variable", variable, reason));
    if variable.contains('\0') {
        return err("it contains a NUL byte");
    }
    if variable.starts_with("HOME=") && variable.contains('\n') {
        return err("HOME contains a newline");
    }
    Ok(())
}

/// The request's, the image's, or `/`. A relative one of an image starts at `/`.
///
/// # Errors
/// It is relative, or has `..` in it.
pub fn effective_directory(request: &ContainerRequest, image: Option<&ImageConfig>) -> Result<String, BuildError> {
    let image = image.map(|i| i.config.working_dir.as_str()).filter(|w| !w.is_empty());
    let (wanted, relative_ok) = match (&request.workdir, image) {
        (Some(own), _) => (own.clone(), false),
        (None, Some(w)) => (w.to_owned(), true),
        (None, None) => return Ok("/".to_owned()),
    };
    let absolute = if relative_ok && !wanted.starts_with('/') { format!("/{wanted}") } else { wanted.clone() };
    path::normalise(&absolute)
        .ok_or_else(|| BuildError::text("working directory", &wanted, "it must be absolute and without '..'"))
}

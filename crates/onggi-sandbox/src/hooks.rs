//! Hooks: programs that the configuration names, with exactly its environment and the state on stdin.
//! config.md "POSIX-platform Hooks".

use std::{
    io::Write,
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use onggi_spec::oci::runtime::Hook;
use onggi_sys::{Errno, process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Result, StartFailureError};

/// Runs `hooks` in order; the first failure ends it.
pub(crate) fn run_all(kind: &str, hooks: &[Hook], state: &[u8]) -> Result<()> {
    hooks.iter().try_for_each(|hook| run(kind, hook, state))
}

/// Runs all of them; failures are returned as texts, as poststart and poststop demand.
pub(crate) fn run_all_lenient(kind: &str, hooks: &[Hook], state: &[u8]) -> Vec<String> {
    hooks.iter().filter_map(|hook| run(kind, hook, state).err()).map(|e| e.to_string()).collect()
}

fn run(kind: &str, hook: &Hook, state: &[u8]) -> Result<()> {
    let fail = |why: String| StartFailureError::new(format!("{kind} hook {}: {why}", hook.path));
    if !hook.path.starts_with('/') {
        return Err(fail("the path is not absolute".into()));
    }
    if hook.timeout.is_some_and(|t| t <= 0) {
        return Err(fail("the timeout is not above 0".into()));
    }
    let mut command = Command::new(&hook.path);
    if let Some((zero, args)) = hook.args.split_first() {
        std::os::unix::process::CommandExt::arg0(&mut command, zero);
        command.args(args);
    }
    // Nothing of ours and nothing of an image's environment (CVE-2025-23266).
    command.env_clear().envs(hook.env.iter().filter_map(|e| e.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|e| fail(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its stdin closes it: no failure.
        let _ = stdin.write_all(state);
    }
    wait(&mut child, hook.timeout).map_err(fail)
}

fn wait(child: &mut Child, timeout: Option<i64>) -> std::result::Result<(), String> {
    if let Some(seconds) = timeout {
        let pid = i32::try_from(child.id()).map_err(|e| e.to_string())?;
        let pidfd = process::pidfd_open(pid).map_err(|e| e.to_string())?;
        let deadline = Instant::now() + Duration::from_secs(seconds.unsigned_abs());
        if !exits_before(&pidfd, deadline) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("still running after {seconds} s, killed"));
        }
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

fn exits_before(pidfd: &std::os::fd::OwnedFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => {}
            r => return r.is_ok_and(|n| n > 0),
        }
    }
}

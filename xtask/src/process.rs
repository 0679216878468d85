//! Running other programs: echoed before they start, failed with their command line.
//!
//! Also the few facts about this machine that several verbs ask for.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::Outcome;

/// The workspace's root directory.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A command that starts in the workspace's root.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace());
    command
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let mut words: Vec<String> = Vec::new();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!("{}={}", key.to_string_lossy(), quote(&value.to_string_lossy())));
        }
    }
    let program = command.get_program().to_string_lossy().into_owned();
    words.push(program.rsplit('/').next().filter(|name| *name == "cargo").map_or(program.clone(), str::to_owned));
    words.extend(command.get_args().map(|arg| quote(&arg.to_string_lossy())));
    words.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Echoes and runs; a status other than zero is an error.
pub(crate) fn run(command: &mut Command) -> Outcome {
    println!("$ {}", line(command));
    run_quietly(command)
}

/// Runs without an echo; a status other than zero is an error.
pub(crate) fn run_quietly(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|e| format!("start {}: {e}", line(command)))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", line(command))) }
}

/// Standard output as text; stderr goes to the terminal.
pub(crate) fn read(command: &mut Command) -> Outcome<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("start {}: {e}", line(command)))?;
    if !output.status.success() {
        return Err(format!("`{}` ended with {}", line(command), output.status));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("`{}` printed other than UTF-8: {e}", line(command)))
}

/// Where a program is, looked up in PATH and the directories of administrators' programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path).collect::<Vec<_>>();
    let usual = ["/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    own.into_iter().chain(usual).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// True when we are root (effective uid 0).
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_uid(&status) == Some(0)
}

fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// How control groups are mounted: `v2`, `v1`, `hybrid` or `none`.
pub(crate) fn cgroup_mode() -> &'static str {
    cgroup_mode_of(&std::fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

fn cgroup_mode_of(mounts: &str) -> &'static str {
    let has = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_uid_is_the_second_of_the_four() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(0));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }

    #[test]
    fn cgroup_mode_counts_both_filesystems() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n";
        let v2 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup_mode_of(v1), "v1");
        assert_eq!(cgroup_mode_of(v2), "v2");
        assert_eq!(cgroup_mode_of(&format!("{v1}{v2}")), "hybrid");
        assert_eq!(cgroup_mode_of("proc /proc proc rw 0 0\n"), "none");
    }

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["test", "it's", ""]).env("A", "b c");
        assert_eq!(line(&command), r"A='b c' cargo test 'it'\''s' ''");
    }
}

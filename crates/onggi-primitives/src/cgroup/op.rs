//! What the kernel is asked for, one operation after the other, and how it is told: in words, as a script.

use std::path::{Path, PathBuf};

use onggi_cgroup::{CgroupWrite, Prepare};
use serde::Serialize;

use crate::shell::quote;

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// Something that must be before limits can be: a directory, an offered controller.
    Prepare {
        /// What.
        step: Prepare,
    },
    /// chown(2) of a group and of the files that its owner may write to.
    Give {
        /// The directory.
        dir: PathBuf,
        /// Its files; those that a kernel lacks are left out.
        files: Vec<String>,
        /// The new owner.
        uid: Option<u32>,
        /// Its group.
        gid: Option<u32>,
    },
    /// Values into control files: all of them or, when one is refused, none.
    Set {
        /// In this order.
        writes: Vec<CgroupWrite>,
    },
    /// A process (with its threads) into a group.
    Move {
        /// Its number.
        pid: i32,
        /// `cgroup.procs` or, for one thread, `tasks`.
        file: PathBuf,
    },
    /// The process of this command into a group.
    Join {
        /// `cgroup.procs`.
        file: PathBuf,
    },
    /// Every process of a group stands still.
    Freeze {
        /// The directory with the freezer.
        dir: PathBuf,
        /// `cgroup.freeze` (version 2, also beside version 1) or `freezer.state`.
        file: &'static str,
    },
    /// They run again.
    Thaw {
        /// The directory with the freezer.
        dir: PathBuf,
        /// As above.
        file: &'static str,
    },
    /// A signal to every process of a group and below it.
    Signal {
        /// The directory.
        dir: PathBuf,
        /// Its number.
        signal: i32,
    },
    /// SIGKILL to every process of a group and below it, and the end of the group.
    Destroy {
        /// The directory.
        dir: PathBuf,
    },
    /// rmdir(2).
    Remove {
        /// The directory.
        dir: PathBuf,
    },
    /// execve(2).
    Execute {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// What will be done, in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct GroupPlan {
    /// The operations.
    pub ops: Vec<Op>,
    /// What was asked for and is not done, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl GroupPlan {
    /// One line per operation.
    pub fn words(&self) -> String {
        let mut lines: Vec<String> = self.ops.iter().flat_map(Op::words).collect();
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines.iter().map(|line| line.clone() + "\n").collect()
    }

    /// A script that does the same with nothing but files.
    pub fn shell(&self) -> String {
        let lines: String = self.ops.iter().flat_map(shell).map(|line| line + "\n").collect();
        format!("set -e\n{lines}")
    }
}

impl Op {
    /// A sentence for each thing that it asks the kernel for.
    pub(super) fn words(&self) -> Vec<String> {
        match self {
            Self::Prepare { step } => vec![prepare_words(step)],
            Self::Give { dir, uid, gid, .. } => vec![format!(
                "chown(2): {} and the files that move processes belong to user {} and group {}",
                dir.display(),
                or_same(*uid),
                or_same(*gid)
            )],
            Self::Set { writes } => {
                let one =
                    |w: &CgroupWrite| format!("write {:?} to {}: {}", w.value, w.path.join(&w.file).display(), w.what);
                writes.iter().map(one).collect()
            }
            Self::Move { pid, file } => {
                vec![format!("write {pid} to {}: the process is in that group", file.display())]
            }
            Self::Join { file } => vec![format!("write 0 to {}: this process is in that group", file.display())],
            Self::Freeze { dir, file } => vec![format!(
                "write {} to {}, and wait until every process stands still",
                freezer_value(file, true),
                dir.join(file).display()
            )],
            Self::Thaw { dir, file } => {
                vec![format!("write {} to {}: they run again", freezer_value(file, false), dir.join(file).display())]
            }
            Self::Signal { dir, signal } => {
                let name = onggi_spec::signal::signal_name(*signal);
                vec![format!("kill(2): {name} to every process of {} and of groups below it", dir.display())]
            }
            Self::Destroy { dir } => {
                vec![format!("kill every process of {} and of groups below it, then rmdir(2) them", dir.display())]
            }
            Self::Remove { dir } => vec![format!("rmdir(2) {}", dir.display())],
            Self::Execute { command } => vec![format!("execve(2): {}", join(command))],
        }
    }
}

fn or_same(id: Option<u32>) -> String {
    id.map_or_else(|| "as before".into(), |id| id.to_string())
}

fn prepare_words(step: &Prepare) -> String {
    match step {
        Prepare::MakeDir { path, .. } => format!("mkdir(2) {}", path.display()),
        Prepare::Inherit { path, file } => format!(
            "copy {file} of the parent to {}: without it no process may enter a version 1 cpuset",
            path.display()
        ),
        Prepare::Enable { path, required, wanted } => format!(
            "write {:?} to {}: a version 2 group has only the controllers that its parent gives",
            enabled(required, wanted),
            path.join("cgroup.subtree_control").display()
        ),
        Prepare::Delegate { path, uid } => format!("give {} to user {uid}", path.display()),
    }
}

fn enabled(required: &[String], wanted: &[String]) -> String {
    let all = required.iter().chain(wanted.iter().filter(|w| !required.contains(w)));
    all.map(|c| format!("+{c}")).collect::<Vec<_>>().join(" ")
}

fn shell(op: &Op) -> Vec<String> {
    match op {
        Op::Prepare { step } => prepare_shell(step),
        Op::Give { dir, files, uid, gid } => {
            let owner = format!(
                "{}:{}",
                uid.map_or(String::new(), |n| n.to_string()),
                gid.map_or(String::new(), |n| n.to_string())
            );
            let mut lines = vec![format!("chown {owner} {}", path(dir))];
            let one = |file: &String| {
                let at = path(&dir.join(file));
                format!("[ ! -e {at} ] || chown {owner} {at}")
            };
            lines.extend(files.iter().map(one));
            lines
        }
        Op::Set { writes } => writes.iter().map(write_shell).collect(),
        Op::Move { pid, file } => vec![format!("echo {pid} > {}", path(file))],
        Op::Join { file } => vec![format!("echo $$ > {}", path(file))],
        Op::Freeze { dir, file } => vec![format!("echo {} > {}", freezer_value(file, true), path(&dir.join(file)))],
        Op::Thaw { dir, file } => vec![format!("echo {} > {}", freezer_value(file, false), path(&dir.join(file)))],
        Op::Signal { dir, signal } => vec![format!(
            "find {} -name cgroup.procs -exec cat {{}} + | while read -r pid; do kill -{signal} \"$pid\"; done",
            path(dir)
        )],
        Op::Destroy { dir } => {
            let dir = path(dir);
            vec![
                format!("while [ -n \"$(find {dir} -name cgroup.procs -exec cat {{}} + 2>/dev/null)\" ]; do"),
                format!("  find {dir} -name cgroup.procs -exec cat {{}} + | xargs -r kill -KILL 2>/dev/null || true"),
                "done".into(),
                format!("[ ! -d {dir} ] || find {dir} -depth -type d -exec rmdir {{}} \\;"),
            ]
        }
        Op::Remove { dir } => vec![format!("rmdir {}", path(dir))],
        Op::Execute { command } => vec![format!("exec {}", join(command))],
    }
}

/// A value that may wait for a later one, or whose file a kernel may lack, is no failure of the script.
fn write_shell(w: &CgroupWrite) -> String {
    let at = path(&w.path.join(&w.file));
    let line = format!("echo {} > {at}", quote(&w.value));
    match (&w.alternative, w.optional) {
        (Some(other), _) => {
            format!("[ -e {at} ] && {line} || echo {} > {}", quote(&other.value), path(&w.path.join(&other.file)))
        }
        (None, true) => format!("[ ! -e {at} ] || {line}"),
        (None, false) => line,
    }
}

fn freezer_value(file: &str, frozen: bool) -> &'static str {
    match (file, frozen) {
        ("cgroup.freeze", true) => "1",
        ("cgroup.freeze", false) => "0",
        (_, true) => "FROZEN",
        (_, false) => "THAWED",
    }
}

fn prepare_shell(step: &Prepare) -> Vec<String> {
    match step {
        Prepare::MakeDir { path: dir, .. } => vec![format!("mkdir -p {}", path(dir))],
        Prepare::Inherit { path: dir, file } => {
            let parent = dir.parent().unwrap_or(dir).join(file);
            let file = path(&dir.join(file));
            vec![format!("[ -n \"$(cat {file})\" ] || cat {} > {file}", path(&parent))]
        }
        Prepare::Enable { path: dir, required, wanted } => {
            let file = path(&dir.join("cgroup.subtree_control"));
            let one = |c: &String| match required.contains(c) {
                true => format!("echo +{c} > {file}"),
                false => format!("echo +{c} > {file} || true"),
            };
            required.iter().chain(wanted.iter().filter(|w| !required.contains(w))).map(one).collect()
        }
        Prepare::Delegate { path: dir, uid } => vec![format!("chown {uid} {0} {0}/cgroup.procs", path(dir))],
    }
}

fn path(path: &Path) -> String {
    quote(&path.display().to_string())
}

fn join(words: &[String]) -> String {
    words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ")
}

//! The plan in words, and as the command of util-linux that does the same.

use super::{EnterOp, EnterPlan};
use crate::{Kind, shell};

impl EnterPlan {
    /// One line per operation.
    pub fn words(&self) -> String {
        self.ops.iter().map(|op| words(op) + "\n").collect()
    }

    /// A script of nsenter(1).
    pub fn shell(&self) -> String {
        let pid = self.ops.iter().find_map(|op| if let EnterOp::Join { pid, .. } = op { Some(*pid) } else { None });
        let context = self.ops.iter().find_map(|op| if let EnterOp::Context { pid } = op { Some(*pid) } else { None });
        let mut options: Vec<String> = pid.or(context).map(|pid| format!("--target {pid}")).into_iter().collect();
        options.extend(self.ops.iter().flat_map(flags));
        if !self.ops.contains(&EnterOp::Fork) && self.ops.iter().any(|op| enters(op, Kind::Pid)) {
            options.push("--no-fork".to_owned());
        }
        let whom = self.ops.iter().any(|op| matches!(op, EnterOp::Become { .. }));
        if !whom && self.ops.iter().any(|op| enters(op, Kind::User)) {
            options.push("--preserve-credentials".to_owned());
        }
        let command =
            self.ops.iter().find_map(|op| if let EnterOp::Execute { command } = op { Some(command) } else { None });
        let command = command.map(|command| shell::words(command)).unwrap_or_default();
        let options = options.join(" ");
        let environment =
            self.ops.iter().find_map(|op| if let EnterOp::Environment { pid } = op { Some(*pid) } else { None });
        match environment {
            None => format!("exec nsenter {options} -- {command}\n"),
            // nsenter(1) has --env since 2.39 only.
            Some(pid) => format!(
                "exec xargs -0 -x -a /proc/{pid}/environ sh -c {} sh\n",
                shell::quote(&format!("exec env -i \"$@\" \"$(command -v nsenter)\" {options} -- {command}"))
            ),
        }
    }
}

fn enters(op: &EnterOp, kind: Kind) -> bool {
    op.kinds().contains(&kind)
}

fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

/// What failed, behind `cannot`.
pub(super) fn tried(op: &EnterOp) -> String {
    match op {
        EnterOp::Context { pid } => format!("take the label of process {pid}"),
        EnterOp::Environment { pid } => format!("take the environment of process {pid}"),
        EnterOp::Join { pid, kinds } => format!("enter {} of process {pid}", names(kinds)),
        EnterOp::JoinFile { kind, file } => format!("enter the {kind} namespace of {}", file.display()),
        EnterOp::Root { dir } => format!("make {} the root directory", dir.display()),
        EnterOp::Workdir { dir } | EnterOp::Inside { dir } => format!("go to {}", dir.display()),
        EnterOp::Become { uid, gid } => {
            let named = [uid.map(|uid| format!("user {uid}")), gid.map(|gid| format!("group {gid}"))];
            format!("become {} there", named.into_iter().flatten().collect::<Vec<_>>().join(", "))
        }
        EnterOp::Fork => "start a child".to_owned(),
        EnterOp::Execute { .. } => "execute the command".to_owned(),
    }
}

pub(super) fn words(op: &EnterOp) -> String {
    match op {
        EnterOp::Context { pid } => {
            format!("write what /proc/{pid}/attr/current says to /proc/thread-self/attr/exec: the command's label")
        }
        EnterOp::Environment { pid } => format!("take /proc/{pid}/environ as the command's environment"),
        EnterOp::Join { pid, kinds } => format!("setns(2) of a pidfd of process {pid}: {}", names(kinds)),
        EnterOp::JoinFile { kind, file } => {
            format!("setns(2) of {}: {kind} ({})", file.display(), kind.meaning())
        }
        EnterOp::Root { dir } => format!("fchdir(2) and chroot(2) to {}, as it was found before", dir.display()),
        EnterOp::Workdir { dir } => format!("fchdir(2) to {}, as it was found before", dir.display()),
        EnterOp::Inside { dir } => format!("chdir(2) to {}", dir.display()),
        EnterOp::Become { uid, gid } => {
            let group = gid.map(|gid| format!("setgroups(2) {{}}, setresgid(2) {gid}"));
            let user = uid.map(|uid| format!("setresuid(2) {uid}"));
            [group, user].into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
        EnterOp::Fork => "fork: only a child is in the pid and time namespaces".to_owned(),
        EnterOp::Execute { command } => format!("execve(2): {}", shell::words(command)),
    }
}

fn flags(op: &EnterOp) -> Vec<String> {
    match op {
        EnterOp::Context { .. } => vec!["--follow-context".to_owned()],
        EnterOp::Join { kinds, .. } => kinds.iter().map(|kind| format!("--{}", kind.option())).collect(),
        EnterOp::JoinFile { kind, file } => vec![format!("--{}={}", kind.option(), shell::path(file))],
        EnterOp::Root { dir } => vec![format!("--root={}", shell::path(dir))],
        EnterOp::Workdir { dir } => vec![format!("--wd={}", shell::path(dir))],
        EnterOp::Inside { dir } => vec![format!("--wdns={}", shell::path(dir))],
        EnterOp::Become { uid, gid } => {
            let user = uid.map(|uid| format!("--setuid {uid}"));
            let group = gid.map(|gid| format!("--setgid {gid}"));
            user.into_iter().chain(group).collect()
        }
        EnterOp::Environment { .. } | EnterOp::Fork | EnterOp::Execute { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_one_nsenter_and_the_words_name_each_call() {
        let plan = EnterPlan {
            ops: vec![
                EnterOp::Join { pid: 42, kinds: vec![Kind::Pid, Kind::Mnt] },
                EnterOp::JoinFile { kind: Kind::Net, file: "/run/a b".into() },
                EnterOp::Root { dir: "/proc/42/root".into() },
                EnterOp::Workdir { dir: "/proc/42/cwd".into() },
                EnterOp::Become { uid: Some(7), gid: None },
                EnterOp::Fork,
                EnterOp::Execute { command: vec!["echo".into(), "it's".into()] },
            ],
        };
        let expected = "exec nsenter --target 42 --pid --mount --net='/run/a b' --root=/proc/42/root \
                        --wd=/proc/42/cwd --setuid 7 -- echo 'it'\\''s'\n";
        assert_eq!(plan.shell(), expected);
        let words = plan.words();
        for part in
            ["pidfd of process 42: pid, mnt", "setns(2) of /run/a b: net", "chroot(2)", "setresuid(2) 7", "fork"]
        {
            assert!(words.contains(part), "{part:?} is missing in\n{words}");
        }
    }

    #[test]
    fn an_environment_reaches_the_command_whole() {
        let plan =
            EnterPlan { ops: vec![EnterOp::Environment { pid: 42 }, EnterOp::Execute { command: vec!["env".into()] }] };
        assert!(plan.shell().starts_with("exec xargs -0 -x -a /proc/42/environ sh -c "), "{}", plan.shell());
    }
}

//! The plan in words, and as the command of util-linux that does the same.

use super::{Clock, Op, Propagation, UnsharePlan};
use crate::{
    Kind, chroot, credentials,
    shell::{self, quote},
};

impl UnsharePlan {
    /// One line per operation.
    pub fn words(&self) -> String {
        self.ops.iter().map(|op| words(op) + "\n").collect()
    }

    /// A script of unshare(1) and what it lacks.
    pub fn shell(&self) -> String {
        let keeps = self.outside().is_some();
        match self.ops.iter().any(|op| matches!(op, Op::Root(_) | Op::Credentials(_))) && !keeps {
            true => super::script::script(&self.ops),
            false => self.unshare_command(),
        }
    }

    fn unshare_command(&self) -> String {
        let mut flags = Vec::new();
        let mut inside = Vec::new();
        let mut command = String::new();
        for op in &self.ops {
            match op {
                Op::Hostname { name } => inside.push(format!("hostname {}", quote(name))),
                Op::Execute { command: words } => {
                    command = words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ");
                }
                // Without a new mount namespace unshare(1) has nothing to set, and with one this is its default.
                Op::Propagate { propagation: Propagation::Private } => {}
                // Mapping a group implies it.
                Op::DenySetgroups if self.ops.iter().any(|op| matches!(op, Op::MapGroup { .. })) => {}
                Op::DenySetgroups => flags.push("--setgroups deny".to_owned()),
                Op::MapUser { .. } | Op::MapGroup { .. } => flags.extend(map_flag(op, &self.ops)),
                Op::Outside(outside) => flags.extend(outside_flags(outside)),
                Op::Unshare { kinds, .. } => flags.extend(self.kind_flags(kinds)),
                Op::Credentials(credentials::CredentialOp::User { uid, gid, .. }) => {
                    flags.push(format!("--setgid {gid} --setuid {uid}"));
                }
                other => flags.extend(flag(other)),
            }
        }
        if !self.ops.iter().any(|op| matches!(op, Op::Propagate { .. })) && self.makes(Kind::Mnt) {
            flags.push("--propagation unchanged".to_owned());
        }
        let flags = flags.join(" ");
        let mut files = self.outside().map(subordinate).unwrap_or_default();
        files.extend(self.kept().iter().map(|kept| format!("touch {}\n", shell::path(&kept.file))));
        match inside.is_empty() {
            true => format!("{files}unshare {flags} {command}\n"),
            false => format!(
                "{files}unshare {flags} sh -c {} sh {command}\n",
                quote(&format!("{} && exec \"$@\"", inside.join(" && ")))
            ),
        }
    }

    fn kept(&self) -> &[super::Kept] {
        self.outside().map_or(&[], |outside| &outside.keep)
    }

    fn kind_flags(&self, kinds: &[Kind]) -> Vec<String> {
        let file = |kind: &Kind| self.kept().iter().find(|kept| kept.kind == *kind).map(|kept| &kept.file);
        let flag = |kind: &Kind| match file(kind) {
            Some(file) => format!("--{}={}", kind.option(), shell::path(file)),
            None => format!("--{}", kind.option()),
        };
        kinds.iter().map(flag).collect()
    }

    fn makes(&self, kind: Kind) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Unshare { kinds, .. } if kinds.contains(&kind)))
    }
}

/// Ranges that we write ourselves are newuidmap(1)'s in the script: from root too it wants them to be root's.
fn subordinate(outside: &super::Outside) -> String {
    let line = |(file, ranges): (&str, &[super::IdRange])| {
        let line = |r: &super::IdRange| {
            format!(
                "# unshare(1) maps by new{}map(1), which wants a line in {file}, from root too: echo \"$(id -un):{}:{}\" >> {file}\n",
                if file.ends_with("uid") { "uid" } else { "gid" },
                r.outside,
                r.count
            )
        };
        ranges.iter().map(line).collect::<String>()
    };
    line(("/etc/subuid", &outside.users)) + &line(("/etc/subgid", &outside.groups))
}

/// unshare(1) before 2.39 takes OUTSIDE,INSIDE,COUNT, later versions too; each range is an option of its own.
fn outside_flags(outside: &super::Outside) -> Vec<String> {
    let mut flags = Vec::new();
    for (name, ranges) in [("users", &outside.users), ("groups", &outside.groups)] {
        flags.extend(ranges.iter().map(|r| format!("--map-{name}={},{},{}", r.outside, r.inside, r.count)));
    }
    flags
}

fn outside_words(outside: &super::Outside) -> String {
    let mut parts = Vec::new();
    for (file, ranges) in [("uid_map", &outside.users), ("gid_map", &outside.groups)] {
        for r in ranges {
            parts.push(format!("{file} gets \"{} {} {}\"", r.inside, r.outside, r.count));
        }
    }
    for kept in &outside.keep {
        parts.push(format!("the {} namespace is mounted on {}", kept.kind, kept.file.display()));
    }
    format!("a helper outside, which was started before: {}", parts.join("; "))
}

/// The option for one line of a map. `--map-root-user` and `--map-current-user` are both lines.
pub(super) fn map_flag(op: &Op, all: &[Op]) -> Option<String> {
    let ids = |op: &Op| match op {
        Op::MapUser { inside, outside } | Op::MapGroup { inside, outside } => Some((*inside, *outside)),
        _ => None,
    };
    let lines: Vec<(u32, u32)> = all.iter().filter_map(ids).collect();
    let both = match lines.as_slice() {
        [(0, _), (0, _)] => Some("--map-root-user"),
        [(a, b), (c, d)] if a == b && c == d => Some("--map-current-user"),
        _ => None,
    };
    match (op, both) {
        (Op::MapUser { .. }, Some(both)) => Some(both.to_owned()),
        (Op::MapUser { inside, .. }, None) => Some(format!("--map-user={inside}")),
        (Op::MapGroup { inside, .. }, None) => Some(format!("--map-group={inside}")),
        _ => None,
    }
}

pub(super) fn words(op: &Op) -> String {
    match op {
        Op::Outside(outside) => outside_words(outside),
        Op::Unshare { kinds, keepable } => {
            let each = kinds.iter().map(|kind| format!("{kind} ({})", kind.meaning())).collect::<Vec<_>>();
            let again = match keepable {
                true => "; the mount namespace again, on another CPU, should the kernel number it as older than ours",
                false => "",
            };
            format!("unshare(2): new namespaces: {}{again}", each.join("; "))
        }
        Op::DenySetgroups => "write deny to /proc/self/setgroups: groups may be mapped only then".to_owned(),
        Op::AllowSetgroups => "write allow to /proc/self/setgroups: groups may be changed there".to_owned(),
        Op::KeepCapabilities => {
            "capset(2), prctl(2) PR_CAP_AMBIENT: what is permitted becomes inheritable and ambient, so that the command has it"
                .to_owned()
        }
        Op::MapUser { inside, outside } => {
            format!("write \"{inside} {outside} 1\" to /proc/self/uid_map: user {outside} is user {inside} there")
        }
        Op::MapGroup { inside, outside } => {
            format!("write \"{inside} {outside} 1\" to /proc/self/gid_map: group {outside} is group {inside} there")
        }
        Op::OffsetClock { clock, seconds } => {
            format!(
                "write \"{} {seconds} 0\" to /proc/self/timens_offsets: that clock is {seconds} s ahead there",
                clock.name()
            )
        }
        Op::Fork { kill_child } => {
            let killed = if *kill_child { ", killed when this process ends (PR_SET_PDEATHSIG)" } else { "" };
            format!("fork: only a child is in the new pid and time namespaces{killed}")
        }
        Op::DieWithParent => "prctl(2): be killed with the parent".to_owned(),
        Op::Propagate { propagation } => format!("mount(2): every mount below / becomes {}", propagation.name()),
        Op::Hostname { name } => format!("sethostname(2): {name:?}"),
        Op::Chroot { dir } => format!("chroot(2) to {}", dir.display()),
        Op::MountProc { dir } => format!("mount(2) a new proc on {}: it shows the new pid namespace", dir.display()),
        Op::Workdir { dir } => format!("chdir(2) to {}", dir.display()),
        Op::Root(op) => chroot::words(op),
        Op::Credentials(op) => credentials::words(op),
        Op::Execute { command } => {
            format!("execve(2): {}", command.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" "))
        }
    }
}

pub(super) fn flag(op: &Op) -> Vec<String> {
    let path = |dir: &std::path::Path| quote(&dir.display().to_string());
    match op {
        Op::Unshare { kinds, .. } => kinds.iter().map(|kind| format!("--{}", kind.option())).collect(),
        Op::OffsetClock { clock, seconds } => vec![format!("--{} {seconds}", clock.name())],
        Op::Fork { kill_child } => match kill_child {
            true => vec!["--fork".to_owned(), "--kill-child".to_owned()],
            false => vec!["--fork".to_owned()],
        },
        Op::Propagate { propagation } => vec![format!("--propagation {}", propagation.name())],
        Op::Chroot { dir } => vec![format!("--root {}", path(dir))],
        Op::MountProc { dir } => vec![format!("--mount-proc={}", path(dir))],
        Op::Workdir { dir } => vec![format!("--wd {}", path(dir))],
        Op::AllowSetgroups => vec!["--setgroups allow".to_owned()],
        Op::KeepCapabilities => vec!["--keep-caps".to_owned()],
        Op::DenySetgroups
        | Op::MapUser { .. }
        | Op::MapGroup { .. }
        | Op::DieWithParent
        | Op::Hostname { .. }
        | Op::Root(_)
        | Op::Outside(_)
        | Op::Credentials(_)
        | Op::Execute { .. } => Vec::new(),
    }
}

impl Clock {
    /// Its name in /proc/PID/timens_offsets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Monotonic => "monotonic",
            Self::Boottime => "boottime",
        }
    }
}

impl Propagation {
    /// mount(8)'s word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Slave => "slave",
            Self::Shared => "shared",
            Self::Unchanged => "unchanged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    fn plan(request: UnshareRequest) -> UnsharePlan {
        let command = vec!["echo".into(), "it's".into()];
        UnsharePlan::new(&UnshareRequest { command, ..request }, Caller { uid: 1000, gid: 1000 })
    }

    #[test]
    fn the_script_is_one_unshare() {
        let all = UnshareRequest {
            kinds: vec![Kind::Net, Kind::Mnt, Kind::Pid],
            identity: Some(Identity::Root),
            root: Some("/a b".into()),
            mount_proc: Some("/proc".into()),
            kill_child: true,
            ..UnshareRequest::default()
        };
        let expected = "unshare --user --net --pid --mount --map-root-user --fork --kill-child --root '/a b' \
                        --mount-proc=/proc echo 'it'\\''s'\n";
        assert_eq!(plan(all).shell(), expected);
        let other = UnshareRequest {
            identity: Some(Identity::As { user: Some(7), group: Some(8) }),
            keep_caps: true,
            ..UnshareRequest::default()
        };
        assert_eq!(plan(other).shell(), "unshare --user --map-user=7 --map-group=8 --keep-caps echo 'it'\\''s'\n");
        let named = UnshareRequest { hostname: Some("jar".into()), ..UnshareRequest::default() };
        assert_eq!(plan(named).shell(), "unshare --uts sh -c 'hostname jar && exec \"$@\"' sh echo 'it'\\''s'\n");
    }

    #[test]
    fn the_words_name_the_call_of_each_operation() {
        let request =
            UnshareRequest { monotonic: Some(60), identity: Some(Identity::Current), ..UnshareRequest::default() };
        let words = plan(request).words();
        for part in [
            "unshare(2): new namespaces: user",
            "uid_map: user 1000 is user 1000",
            "60 s ahead",
            "fork",
            "execve(2): echo",
        ] {
            assert!(words.contains(part), "{part:?} is missing in\n{words}");
        }
    }
}

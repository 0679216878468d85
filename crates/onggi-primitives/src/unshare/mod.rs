//! A command in new namespaces, as unshare(1): request → plan → apply.
//!
//! The plan is made of what the kernel is asked for, one operation after the other. Where the command is in a new pid
//! or time namespace, only a child is: the plan has a [`Op::Fork`], and what follows it is done by the child.

mod apply;
mod keepable;
mod outside;
mod script;
mod show;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{CredentialOp, Kind, chroot::RootOp};

pub use apply::{Stage, apply};
pub use outside::{ForgetPlan, IdRange, Kept, Outside};

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnshareRequest {
    /// Namespaces to be made.
    pub kinds: Vec<Kind>,
    /// Who the caller is in a new user namespace.
    pub identity: Option<Identity>,
    /// Whether processes of a new user namespace may drop and add groups; without an answer only where no group is mapped.
    pub setgroups: Option<Setgroups>,
    /// The command keeps the capabilities of a new user namespace, whoever it is there.
    pub keep_caps: bool,
    /// Further users of a new user namespace.
    pub map_users: Vec<IdRange>,
    /// Further groups of a new user namespace.
    pub map_groups: Vec<IdRange>,
    /// Files that keep the namespaces.
    pub keep: Vec<Kept>,
    /// User and group of the command, as they are called inside.
    pub user: Option<(u32, u32)>,
    /// Where the /proc of a new pid namespace is mounted.
    pub mount_proc: Option<PathBuf>,
    /// How mounts pass between the new mount namespace and the old one.
    pub propagation: Propagation,
    /// The directory that becomes `/`.
    pub root: Option<PathBuf>,
    /// The working directory, as it is called then.
    pub workdir: Option<PathBuf>,
    /// The host name.
    pub hostname: Option<String>,
    /// Seconds that are added to the monotonic clock.
    pub monotonic: Option<i64>,
    /// Seconds that are added to the time since the boot.
    pub boottime: Option<i64>,
    /// The command ends when we do.
    pub kill_child: bool,
    /// A child is the command, even where this process could be.
    pub fork: bool,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// Who the caller is in a new user namespace. Other ids have no meaning there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// root, with every capability there.
    Root,
    /// The same user and group as before.
    Current,
    /// These; what is not named has no id there.
    As {
        /// User.
        user: Option<u32>,
        /// Group.
        group: Option<u32>,
    },
}

impl Identity {
    /// User and group inside.
    fn ids(self, caller: Caller) -> (Option<u32>, Option<u32>) {
        match self {
            Self::Root => (Some(0), Some(0)),
            Self::Current => (Some(caller.uid), Some(caller.gid)),
            Self::As { user, group } => (user, group),
        }
    }
}

/// What /proc/PID/setgroups says (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setgroups {
    /// setgroups(2) works, once a process outside has mapped groups.
    Allow,
    /// It never does.
    Deny,
}

/// Propagation of every mount of a new mount namespace (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Neither way.
    #[default]
    Private,
    /// From the old one only.
    Slave,
    /// Both ways.
    Shared,
    /// As it was.
    Unchanged,
}

/// Facts about the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// A clock that a time namespace offsets (time_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// CLOCK_MONOTONIC.
    Monotonic,
    /// CLOCK_BOOTTIME.
    Boottime,
}

/// One thing that the kernel is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// unshare(2) of these kinds.
    Unshare {
        /// By their names in /proc.
        kinds: Vec<Kind>,
        /// The mount namespace has to count as newer than the caller's: a file there is to keep it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keepable: bool,
    },
    /// `deny` in /proc/self/setgroups: without it an ordinary user may not map groups.
    DenySetgroups,
    /// `allow` there: it cannot be taken back to that once it is `deny`.
    AllowSetgroups,
    /// One line in /proc/self/uid_map.
    MapUser {
        /// Id in the new namespace.
        inside: u32,
        /// Id in the old one.
        outside: u32,
    },
    /// One line in /proc/self/gid_map.
    MapGroup {
        /// Id in the new namespace.
        inside: u32,
        /// Id in the old one.
        outside: u32,
    },
    /// One line in /proc/self/timens_offsets.
    OffsetClock {
        /// Which clock.
        clock: Clock,
        /// Seconds that are added.
        seconds: i64,
    },
    /// What only a process outside can do, for this one.
    Outside(Outside),
    /// A child goes on; this process waits for it.
    Fork {
        /// It is killed when this process ends.
        kill_child: bool,
    },
    /// PR_SET_PDEATHSIG: what the child of [`Op::Fork`] begins with, where it is killed with its parent.
    DieWithParent,
    /// mount(2) of `/` with a new propagation, recursively.
    Propagate {
        /// Which.
        propagation: Propagation,
    },
    /// sethostname(2).
    Hostname {
        /// The name.
        name: String,
    },
    /// chroot(2), and `/` as the working directory.
    Chroot {
        /// The new root.
        dir: PathBuf,
    },
    /// A new proc(5), of the new pid namespace.
    MountProc {
        /// On this directory.
        dir: PathBuf,
    },
    /// chdir(2).
    Workdir {
        /// The directory.
        dir: PathBuf,
    },
    /// Permitted capabilities become inheritable and ambient ones: those that the command begins with.
    KeepCapabilities,
    /// Of a new root directory.
    Root(RootOp),
    /// Of the command's user and capabilities.
    Credentials(CredentialOp),
    /// execve(2).
    Execute {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// What will be done, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsharePlan {
    /// The operations.
    pub ops: Vec<Op>,
}

impl UnsharePlan {
    /// The operations that answer a request. What a request implies is added: a /proc needs its pid and mount
    /// namespaces, a mapping its user namespace, an offset its time namespace, a name its uts namespace.
    pub fn new(request: &UnshareRequest, caller: Caller) -> Self {
        let kinds = implied(request);
        let has = |kind| kinds.contains(&kind);
        let mut ops = Vec::new();
        if !kinds.is_empty() {
            let keepable = request.keep.iter().any(|kept| kept.kind == Kind::Mnt);
            ops.push(Op::Unshare { kinds: kinds.clone(), keepable });
        }
        let ranges = !request.map_users.is_empty() || !request.map_groups.is_empty();
        let mut outside = Outside {
            users: request.map_users.clone(),
            groups: request.map_groups.clone(),
            keep: request.keep.clone(),
        };
        if let Some(identity) = request.identity {
            let (user, group) = identity.ids(caller);
            if ranges {
                let one = |outside| move |inside| IdRange { inside, outside, count: 1 };
                outside.users.splice(0..0, user.map(one(caller.uid)));
                outside.groups.splice(0..0, group.map(one(caller.gid)));
            } else {
                ops.extend(group.map(|_| Op::DenySetgroups));
                ops.extend(user.map(|inside| Op::MapUser { inside, outside: caller.uid }));
                ops.extend(group.map(|inside| Op::MapGroup { inside, outside: caller.gid }));
            }
        }
        match request.setgroups {
            Some(Setgroups::Deny) if !ops.contains(&Op::DenySetgroups) => ops.push(Op::DenySetgroups),
            Some(Setgroups::Allow) => ops.push(Op::AllowSetgroups),
            _ => {}
        }
        if outside != Outside::default() {
            ops.push(Op::Outside(outside));
        }
        for (clock, seconds) in [(Clock::Monotonic, request.monotonic), (Clock::Boottime, request.boottime)] {
            ops.extend(seconds.map(|seconds| Op::OffsetClock { clock, seconds }));
        }
        if request.fork || request.kill_child || has(Kind::Pid) || has(Kind::Time) {
            ops.push(Op::Fork { kill_child: request.kill_child });
        }
        if has(Kind::Mnt) && request.propagation != Propagation::Unchanged {
            ops.push(Op::Propagate { propagation: request.propagation });
        }
        ops.extend(request.hostname.clone().map(|name| Op::Hostname { name }));
        ops.extend(request.root.clone().map(|dir| Op::Chroot { dir }));
        ops.extend(request.mount_proc.clone().map(|dir| Op::MountProc { dir }));
        ops.extend(request.workdir.clone().map(|dir| Op::Workdir { dir }));
        if let Some((uid, gid)) = request.user {
            ops.push(Op::Credentials(CredentialOp::User { uid, gid, groups: Vec::new() }));
        }
        ops.extend(request.keep_caps.then_some(Op::KeepCapabilities));
        ops.push(Op::Execute { command: request.command.clone() });
        Self { ops }
    }

    /// What a helper outside will be needed for. It has to be there before the plan begins.
    pub fn outside(&self) -> Option<&Outside> {
        self.ops.iter().find_map(|op| if let Op::Outside(outside) = op { Some(outside) } else { None })
    }
}

fn implied(request: &UnshareRequest) -> Vec<Kind> {
    let proc = request.mount_proc.is_some();
    let clock = request.monotonic.is_some() || request.boottime.is_some();
    let wanted = |kind: &Kind| {
        request.kinds.contains(kind)
            || request.keep.iter().any(|kept| kept.kind == *kind)
            || match kind {
                Kind::User => {
                    request.identity.is_some() || !request.map_users.is_empty() || !request.map_groups.is_empty()
                }
                Kind::Pid | Kind::Mnt => proc,
                Kind::Time => clock,
                Kind::Uts => request.hostname.is_some(),
                Kind::Cgroup | Kind::Ipc | Kind::Net => false,
            }
    };
    Kind::ALL.into_iter().filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(request: UnshareRequest) -> UnsharePlan {
        UnsharePlan::new(&UnshareRequest { command: vec!["id".into()], ..request }, Caller { uid: 1000, gid: 100 })
    }

    #[test]
    fn what_is_implied_is_made_too_and_a_child_is_in_a_pid_namespace() {
        let request = UnshareRequest {
            identity: Some(Identity::Root),
            mount_proc: Some("/proc".into()),
            hostname: Some("jar".into()),
            ..UnshareRequest::default()
        };
        let kinds = vec![Kind::User, Kind::Uts, Kind::Pid, Kind::Mnt];
        let expected = [
            Op::Unshare { kinds, keepable: false },
            Op::DenySetgroups,
            Op::MapUser { inside: 0, outside: 1000 },
            Op::MapGroup { inside: 0, outside: 100 },
            Op::Fork { kill_child: false },
            Op::Propagate { propagation: Propagation::Private },
            Op::Hostname { name: "jar".into() },
            Op::MountProc { dir: "/proc".into() },
            Op::Execute { command: vec!["id".into()] },
        ];
        assert_eq!(plan(request).ops, expected);
    }

    #[test]
    fn an_identity_may_be_any_and_only_a_mapped_group_denies_setgroups() {
        let ops = |identity, setgroups| {
            let request = UnshareRequest { identity: Some(identity), setgroups, ..UnshareRequest::default() };
            plan(request).ops[1..].to_vec()
        };
        let user = Op::MapUser { inside: 7, outside: 1000 };
        let execute = Op::Execute { command: vec!["id".into()] };
        let only_user = Identity::As { user: Some(7), group: None };
        assert_eq!(ops(only_user, None), [user.clone(), execute.clone()]);
        assert_eq!(ops(only_user, Some(Setgroups::Deny)), [user.clone(), Op::DenySetgroups, execute.clone()]);
        let both = Identity::As { user: Some(7), group: Some(8) };
        let group = Op::MapGroup { inside: 8, outside: 100 };
        assert_eq!(ops(both, Some(Setgroups::Deny)), [Op::DenySetgroups, user, group, execute]);
    }

    #[test]
    fn without_need_there_is_no_child() {
        let request = UnshareRequest { kinds: vec![Kind::Net], ..UnshareRequest::default() };
        let kinds = vec![Kind::Net];
        let expected = [Op::Unshare { kinds, keepable: false }, Op::Execute { command: vec!["id".into()] }];
        assert_eq!(plan(request).ops, expected);
    }

    #[test]
    fn an_offset_needs_a_time_namespace_and_is_set_before_the_child_is_in_it() {
        let request = UnshareRequest { boottime: Some(-5), ..UnshareRequest::default() };
        let kinds = vec![Kind::Time];
        let first = [
            Op::Unshare { kinds, keepable: false },
            Op::OffsetClock { clock: Clock::Boottime, seconds: -5 },
            Op::Fork { kill_child: false },
        ];
        assert_eq!(plan(request).ops[..3], first);
    }

    #[test]
    fn only_a_mount_namespace_with_a_file_has_to_be_newer() {
        let unshared = |kind| {
            let keep = vec![Kept { kind, file: "/f".into() }];
            plan(UnshareRequest { keep, ..UnshareRequest::default() }).ops.remove(0)
        };
        assert_eq!(unshared(Kind::Mnt), Op::Unshare { kinds: vec![Kind::Mnt], keepable: true });
        assert_eq!(unshared(Kind::Net), Op::Unshare { kinds: vec![Kind::Net], keepable: false });
    }

    #[test]
    fn a_plan_is_read_back_from_its_json() {
        let request =
            UnshareRequest { kinds: Kind::ALL.to_vec(), root: Some("/r".into()), ..UnshareRequest::default() };
        let plan = plan(request);
        let text = serde_json::to_string(&plan).expect("plain data");
        assert_eq!(serde_json::from_str::<UnsharePlan>(&text).expect("what was written"), plan);
    }
}

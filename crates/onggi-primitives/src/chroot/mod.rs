//! A command in another root directory: request → plan → apply.
//!
//! chroot(1) only moves `/`: mounts, processes and devices stay the host's, and a process with CAP_SYS_CHROOT leaves it
//! again. Here the directory becomes the root of a mount namespace of its own (pivot_root(2)), with a /proc of new
//! process numbers, a /dev of a few devices, and a /sys that cannot be written. The directory itself gets at most empty
//! mount points, and what it is filled with.

mod apply;
mod fill;
mod show;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Caller, CredentialOp, Identity, Kind, Op, Propagation, UnsharePlan, UnshareRequest};

pub(crate) use apply::apply;
pub use fill::{Source, SourceKind};
pub(crate) use show::{FILL, INSIDE, line as shell_line, words};

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChrootRequest {
    /// The directory, absolute, without links.
    pub dir: PathBuf,
    /// Files of this machine that are copied into it first; a directory before what is in it.
    pub fill: Vec<Source>,
    /// Only what is asked for is mounted: no /proc, /dev, /sys and resolv.conf.
    pub bare: bool,
    /// It cannot be written.
    pub read_only: bool,
    /// Directories and files of this machine that are seen in it.
    pub binds: Vec<Bind>,
    /// Who the command is; the caller otherwise.
    pub user: Option<User>,
    /// Process numbers of the host are seen.
    pub host_pids: bool,
    /// Further namespaces: ipc, net, uts, cgroup.
    pub kinds: Vec<Kind>,
    /// The host name, in an uts namespace of its own.
    pub hostname: Option<String>,
    /// The working directory inside.
    pub workdir: Option<PathBuf>,
    /// Program and arguments. Nothing is executed when empty: the directory is only filled.
    pub command: Vec<String>,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On this machine, absolute.
    pub source: PathBuf,
    /// In the directory.
    pub target: PathBuf,
    /// It cannot be written there.
    pub read_only: bool,
}

/// Ids of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What is known of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChrootFacts {
    /// Who asks.
    pub caller: Caller,
    /// This machine has an /etc/resolv.conf, and the directory an /etc.
    pub resolv_conf: bool,
}

/// What a directory is made, and how it is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum RootOp {
    /// A directory in the new root; one that is there stays as it is.
    Directory {
        /// The new root.
        root: PathBuf,
        /// In it.
        path: PathBuf,
        /// Permissions of a new one.
        mode: u32,
    },
    /// A symbolic link; where something is already, it stays.
    Link {
        /// The new root.
        root: PathBuf,
        /// In it.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A file with its content, permissions and capabilities. One that is equal is left alone.
    Copy {
        /// The new root.
        root: PathBuf,
        /// On this machine.
        from: PathBuf,
        /// In the new root.
        path: PathBuf,
    },
    /// A bind mount of the directory and all below on itself: pivot_root(2) wants a mount.
    Base {
        /// The new root.
        root: PathBuf,
    },
    /// A proc(5) of the process numbers of this namespace.
    Proc {
        /// The new root.
        root: PathBuf,
    },
    /// /dev on memory: null, zero, full, random, urandom, tty, pts, shm.
    Dev {
        /// The new root.
        root: PathBuf,
    },
    /// sysfs, read-only.
    Sys {
        /// The new root.
        root: PathBuf,
        /// A new one, or the host's where none can be made.
        new: bool,
    },
    /// A bind mount of something of the host, with all below.
    Bind {
        /// The new root.
        root: PathBuf,
        /// On this machine.
        source: PathBuf,
        /// In the new root; made when nothing is there.
        target: PathBuf,
        /// It cannot be written there.
        read_only: bool,
    },
    /// The root's own mount becomes read-only.
    ReadOnly {
        /// The new root.
        root: PathBuf,
    },
    /// pivot_root(2), and the old root is detached.
    Enter {
        /// The new root.
        root: PathBuf,
    },
}

impl RootOp {
    /// The directory that becomes the root.
    pub fn root(&self) -> &Path {
        match self {
            Self::Directory { root, .. }
            | Self::Link { root, .. }
            | Self::Copy { root, .. }
            | Self::Base { root }
            | Self::Proc { root }
            | Self::Dev { root }
            | Self::Sys { root, .. }
            | Self::Bind { root, .. }
            | Self::ReadOnly { root }
            | Self::Enter { root } => root,
        }
    }

    /// It puts something into the directory, before anything is mounted.
    pub fn fills(&self) -> bool {
        matches!(self, Self::Directory { .. } | Self::Link { .. } | Self::Copy { .. })
    }
}

impl UnsharePlan {
    /// The operations that put a command into a directory.
    pub fn chroot(request: &ChrootRequest, facts: ChrootFacts) -> Self {
        let mut ops: Vec<Op> = fill::ops(&request.dir, &request.fill).into_iter().map(Op::Root).collect();
        if request.command.is_empty() {
            return Self { ops };
        }
        let mut kinds = request.kinds.clone();
        kinds.push(Kind::Mnt);
        kinds.extend((!request.host_pids).then_some(Kind::Pid));
        let identity = (facts.caller.uid != 0).then_some(Identity::Root);
        let outer = UnshareRequest {
            kinds,
            identity,
            propagation: Propagation::Private,
            hostname: request.hostname.clone(),
            kill_child: !request.host_pids,
            workdir: request.workdir.clone(),
            command: request.command.clone(),
            ..UnshareRequest::default()
        };
        for op in Self::new(&outer, facts.caller).ops {
            match op {
                Op::Workdir { .. } | Op::Execute { .. } => {}
                other => ops.push(other),
            }
        }
        ops.extend(mounts(request, facts).into_iter().map(Op::Root));
        ops.extend(request.workdir.clone().map(|dir| Op::Workdir { dir }));
        if let Some(User { uid, gid, groups }) = request.user.clone() {
            ops.push(Op::Credentials(CredentialOp::User { uid, gid, groups }));
        }
        ops.push(Op::Execute { command: request.command.clone() });
        Self { ops }
    }
}

fn mounts(request: &ChrootRequest, facts: ChrootFacts) -> Vec<RootOp> {
    let root = || request.dir.clone();
    let mut ops = vec![RootOp::Base { root: root() }];
    if !request.bare {
        // A sysfs belongs to a network namespace: without privilege over that one, only the host's can be shown.
        let new = facts.caller.uid == 0 || request.kinds.contains(&Kind::Net);
        match request.host_pids {
            false => ops.push(RootOp::Proc { root: root() }),
            true => ops.push(bind(root(), "/proc", false)),
        }
        ops.extend([RootOp::Dev { root: root() }, RootOp::Sys { root: root(), new }]);
        if facts.resolv_conf {
            ops.push(bind(root(), "/etc/resolv.conf", true));
        }
    }
    for Bind { source, target, read_only } in request.binds.clone() {
        ops.push(RootOp::Bind { root: root(), source, target, read_only });
    }
    if request.read_only {
        ops.push(RootOp::ReadOnly { root: root() });
    }
    ops.push(RootOp::Enter { root: root() });
    ops
}

fn bind(root: PathBuf, path: &str, read_only: bool) -> RootOp {
    RootOp::Bind { root, source: path.into(), target: path.into(), read_only }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(request: ChrootRequest, uid: u32) -> Vec<Op> {
        let facts = ChrootFacts { caller: Caller { uid, gid: uid }, resolv_conf: false };
        UnsharePlan::chroot(&ChrootRequest { dir: "/jar".into(), ..request }, facts).ops
    }

    #[test]
    fn the_root_is_entered_last_and_what_is_inside_is_done_there() {
        let request = ChrootRequest {
            read_only: true,
            user: Some(User { uid: 7, gid: 8, groups: vec![8] }),
            workdir: Some("/tmp".into()),
            binds: vec![Bind { source: "/srv".into(), target: "/mnt".into(), read_only: true }],
            command: vec!["id".into()],
            ..ChrootRequest::default()
        };
        let root = || PathBuf::from("/jar");
        let expected = [
            Op::Unshare { kinds: vec![Kind::Pid, Kind::Mnt], keepable: false },
            Op::Fork { kill_child: true },
            Op::Propagate { propagation: Propagation::Private },
            Op::Root(RootOp::Base { root: root() }),
            Op::Root(RootOp::Proc { root: root() }),
            Op::Root(RootOp::Dev { root: root() }),
            Op::Root(RootOp::Sys { root: root(), new: true }),
            Op::Root(RootOp::Bind { root: root(), source: "/srv".into(), target: "/mnt".into(), read_only: true }),
            Op::Root(RootOp::ReadOnly { root: root() }),
            Op::Root(RootOp::Enter { root: root() }),
            Op::Workdir { dir: "/tmp".into() },
            Op::Credentials(CredentialOp::User { uid: 7, gid: 8, groups: vec![8] }),
            Op::Execute { command: vec!["id".into()] },
        ];
        assert_eq!(plan(request, 0), expected);
    }

    #[test]
    fn without_root_there_is_a_user_namespace_and_the_hosts_sysfs() {
        let ops = plan(ChrootRequest { command: vec!["id".into()], ..ChrootRequest::default() }, 1000);
        assert_eq!(ops[0], Op::Unshare { kinds: vec![Kind::User, Kind::Pid, Kind::Mnt], keepable: false });
        assert!(ops.contains(&Op::Root(RootOp::Sys { root: "/jar".into(), new: false })), "{ops:?}");
    }

    #[test]
    fn without_a_command_the_directory_is_only_filled() {
        let fill = vec![Source { path: "/bin".into(), kind: SourceKind::Directory { mode: 0o755 }, named: Vec::new() }];
        let ops = plan(ChrootRequest { fill, ..ChrootRequest::default() }, 0);
        let expected = RootOp::Directory { root: "/jar".into(), path: "/bin".into(), mode: 0o755 };
        assert_eq!(ops, [Op::Root(expected)]);
    }

    #[test]
    fn a_plan_is_read_back_from_its_json() {
        let ops = plan(ChrootRequest { command: vec!["id".into()], ..ChrootRequest::default() }, 1000);
        let plan = UnsharePlan { ops };
        let text = serde_json::to_string(&plan).expect("plain data");
        assert_eq!(serde_json::from_str::<UnsharePlan>(&text).expect("what was written"), plan);
    }
}

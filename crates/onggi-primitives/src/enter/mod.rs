//! A command in namespaces that exist, as nsenter(1): request, facts → plan → apply.
//!
//! What paths mean changes on the way in, so everything that is named is opened first, and the order of the rest is fixed
//! by the plan. The calling process itself goes; a pid or time namespace is that of its next child.

mod apply;
mod facts;
mod show;

use std::path::PathBuf;

use serde::Serialize;

use crate::Kind;

pub use apply::{Entered, enter};
pub use facts::EnterFacts;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnterRequest {
    /// A process, and which of its namespaces.
    pub process: Option<(i32, Which)>,
    /// Files that keep namespaces; of which kind, where that was said.
    pub files: Vec<(Option<Kind>, PathBuf)>,
    /// The directory that becomes `/`.
    pub root: Option<Place>,
    /// The working directory, found before anything is entered.
    pub workdir: Option<Place>,
    /// The working directory, as it is called inside.
    pub inside: Option<PathBuf>,
    /// User id, as it is called inside.
    pub uid: Option<u32>,
    /// Group id, as it is called inside.
    pub gid: Option<u32>,
    /// User and groups stay, also in another user namespace.
    pub preserve_credentials: bool,
    /// The process's environment instead of the caller's.
    pub environment: bool,
    /// The process's label of the security module.
    pub context: bool,
    /// The caller becomes the command, also where only a child is in a pid or time namespace.
    pub no_fork: bool,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// Which namespaces of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Every one that the caller is not in.
    All,
    /// Those.
    These(Vec<Kind>),
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The process's own.
    OfProcess,
    /// That one.
    Dir(PathBuf),
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum EnterOp {
    /// The label of the command is that of a process (`/proc/PID/attr/current`).
    Context {
        /// Which.
        pid: i32,
    },
    /// The environment of the command is that of a process (`/proc/PID/environ`).
    Environment {
        /// Which.
        pid: i32,
    },
    /// setns(2) of a pidfd.
    Join {
        /// The process.
        pid: i32,
        /// Its namespaces.
        kinds: Vec<Kind>,
    },
    /// setns(2) of a file of nsfs.
    JoinFile {
        /// Its kind.
        kind: Kind,
        /// The file.
        file: PathBuf,
    },
    /// chroot(2).
    Root {
        /// The directory, found before anything was entered.
        dir: PathBuf,
    },
    /// fchdir(2).
    Workdir {
        /// The directory, found before anything was entered.
        dir: PathBuf,
    },
    /// chdir(2).
    Inside {
        /// The directory, as it is called inside.
        dir: PathBuf,
    },
    /// setgroups(2) of none and setresgid(2), setresuid(2).
    Become {
        /// User.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
    },
    /// A child is the command; this process waits for it.
    Fork,
    /// execve(2).
    Execute {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// What will be done, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnterPlan {
    /// The operations.
    pub ops: Vec<EnterOp>,
}

impl EnterPlan {
    /// The operations that answer a request.
    pub fn new(request: &EnterRequest, facts: &EnterFacts) -> Self {
        let pid = request.process.as_ref().map(|(pid, _)| *pid);
        let place = |place: &Place, name: &str| match (place, pid) {
            (Place::Dir(dir), _) => Some(dir.clone()),
            (Place::OfProcess, pid) => pid.map(|pid| format!("/proc/{pid}/{name}").into()),
        };
        let root = request.root.as_ref().and_then(|root| place(root, "root"));
        let workdir = request.workdir.as_ref().and_then(|dir| place(dir, "cwd"));
        let mut ops = Vec::new();
        if let Some(pid) = pid {
            ops.extend(request.context.then_some(EnterOp::Context { pid }));
            ops.extend(request.environment.then_some(EnterOp::Environment { pid }));
        }
        let joined = joins(request, facts);
        let has = |kind| joined.iter().any(|op| op.kinds().contains(&kind));
        let (user, child) = (has(Kind::User), has(Kind::Pid) || has(Kind::Time));
        ops.extend(joined);
        // A working directory outside of the new root would be a way out of it.
        let workdir = workdir.or_else(|| root.clone().filter(|_| request.inside.is_none()));
        ops.extend(root.map(|dir| EnterOp::Root { dir }));
        ops.extend(workdir.map(|dir| EnterOp::Workdir { dir }));
        ops.extend(request.inside.clone().map(|dir| EnterOp::Inside { dir }));
        ops.extend(become_whom(request, user));
        ops.extend((child && !request.no_fork).then_some(EnterOp::Fork));
        ops.push(EnterOp::Execute { command: request.command.clone() });
        Self { ops }
    }
}

impl EnterOp {
    /// Kinds of namespaces that it enters.
    fn kinds(&self) -> &[Kind] {
        match self {
            Self::Join { kinds, .. } => kinds,
            Self::JoinFile { kind, .. } => std::slice::from_ref(kind),
            _ => &[],
        }
    }
}

/// Who may enter everything already enters the user namespace last, where that right ends; another enters it first, and
/// gets the right there.
fn joins(request: &EnterRequest, facts: &EnterFacts) -> Vec<EnterOp> {
    let mut joins = Vec::new();
    if let Some((pid, which)) = &request.process {
        let kinds = differing(which, facts);
        joins.extend((!kinds.is_empty()).then_some(EnterOp::Join { pid: *pid, kinds }));
    }
    let files = request.files.iter().zip(&facts.files).filter(|(_, found)| {
        // A process cannot enter the user namespace that it is in (EINVAL).
        found.kind != Kind::User || facts.own.get(&Kind::User) != Some(&found.inode)
    });
    joins.extend(files.map(|((_, file), found)| EnterOp::JoinFile { kind: found.kind, file: file.clone() }));
    let enters_users = |op: &EnterOp| op.kinds().contains(&Kind::User);
    joins.sort_by_key(|op| enters_users(op) == facts.privileged);
    joins
}

fn differing(which: &Which, facts: &EnterFacts) -> Vec<Kind> {
    let asked = match which {
        Which::All => &Kind::ALL[..],
        Which::These(kinds) => kinds,
    };
    let differs = |kind: &Kind| !facts.theirs.contains_key(kind) || facts.theirs.get(kind) != facts.own.get(kind);
    asked.iter().copied().filter(differs).collect()
}

/// Without a wish, root of a new user namespace, as nsenter(1).
fn become_whom(request: &EnterRequest, user_namespace: bool) -> Option<EnterOp> {
    let (uid, gid) = match user_namespace && !request.preserve_credentials {
        true => (request.uid.or(Some(0)), request.gid.or(Some(0))),
        false => (request.uid, request.gid),
    };
    (uid.is_some() || gid.is_some()).then_some(EnterOp::Become { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::{facts::FileFacts, *};

    fn facts(privileged: bool) -> EnterFacts {
        let namespaces = |first: u64| Kind::ALL.into_iter().zip(first..).collect();
        EnterFacts { own: namespaces(100), theirs: namespaces(200), files: Vec::new(), privileged }
    }

    fn request() -> EnterRequest {
        EnterRequest { command: vec!["id".into()], ..EnterRequest::default() }
    }

    #[test]
    fn what_is_shared_is_not_entered_and_a_child_is_in_a_pid_namespace() {
        let mut facts = facts(true);
        facts.theirs.insert(Kind::User, 100);
        let asked = EnterRequest {
            process: Some((42, Which::These(vec![Kind::User, Kind::Pid]))),
            workdir: Some(Place::OfProcess),
            ..request()
        };
        let expected = [
            EnterOp::Join { pid: 42, kinds: vec![Kind::Pid] },
            EnterOp::Workdir { dir: "/proc/42/cwd".into() },
            EnterOp::Fork,
            EnterOp::Execute { command: vec!["id".into()] },
        ];
        assert_eq!(EnterPlan::new(&asked, &facts).ops, expected);
    }

    #[test]
    fn the_user_namespace_is_last_for_who_may_everything_and_first_for_others() {
        for privileged in [true, false] {
            let mut facts = facts(privileged);
            facts.files = vec![FileFacts { kind: Kind::Net, inode: 300 }];
            let asked = EnterRequest {
                process: Some((42, Which::All)),
                files: vec![(Some(Kind::Net), "/net".into())],
                ..request()
            };
            let ops = EnterPlan::new(&asked, &facts).ops;
            let file = EnterOp::JoinFile { kind: Kind::Net, file: "/net".into() };
            assert_eq!(ops.iter().position(|op| *op == file), Some(usize::from(!privileged)));
            assert!(ops.contains(&EnterOp::Become { uid: Some(0), gid: Some(0) }), "{ops:?}");
        }
    }

    #[test]
    fn a_new_root_is_the_working_directory_unless_another_is_named() {
        let asked = EnterRequest { root: Some(Place::Dir("/jar".into())), uid: Some(7), ..request() };
        let ops = EnterPlan::new(&asked, &facts(true)).ops;
        let become_seven = EnterOp::Become { uid: Some(7), gid: None };
        let expected = [EnterOp::Root { dir: "/jar".into() }, EnterOp::Workdir { dir: "/jar".into() }, become_seven];
        assert_eq!(ops[..3], expected);
        let named = EnterRequest { inside: Some("/tmp".into()), ..asked };
        let ops = EnterPlan::new(&named, &facts(true)).ops;
        assert_eq!(ops[..2], [EnterOp::Root { dir: "/jar".into() }, EnterOp::Inside { dir: "/tmp".into() }]);
    }
}

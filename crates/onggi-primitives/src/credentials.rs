//! Who a command is and what it may do: capabilities(7), credentials(7), capsh(1).
//!
//! A set that a process gives away does not come back, so the order is fixed: the bounding set while the process may
//! still change it, then user and groups (keeping what is permitted), then the sets, then the ambient one.

use onggi_sys::{SysError, cred};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::{Caller, CapabilitySets, Identity, Op, PrimitiveError, UnsharePlan, UnshareRequest, chroot::User, shell};
use onggi_spec::capability;

/// What is asked for. Masks of capabilities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CapsRequest {
    /// Taken from every set; what a later exec(2) cannot give back.
    pub drop: u64,
    /// Kept, and given to the command whoever it is: permitted, effective, inheritable and ambient.
    pub add: u64,
    /// Inheritable.
    pub inheritable: u64,
    /// Ambient (and inheritable).
    pub ambient: u64,
    /// Another user.
    pub user: Option<User>,
    /// exec(2) adds nothing.
    pub no_new_privileges: bool,
    /// In a user namespace of its own, as root there.
    pub map_root: bool,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum CredentialOp {
    /// PR_CAPBSET_DROP of everything else.
    Bounding {
        /// What stays.
        keep: u64,
    },
    /// PR_SET_KEEPCAPS: what is permitted survives the change of the user.
    Keep,
    /// setgroups(2), setresgid(2), setresuid(2).
    User {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
    },
    /// capset(2): permitted and effective are one.
    Sets {
        /// Permitted and effective.
        permitted: u64,
        /// Inheritable.
        inheritable: u64,
    },
    /// PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT_RAISE.
    Ambient {
        /// What is ambient then.
        mask: u64,
    },
    /// PR_SET_NO_NEW_PRIVS.
    NoNewPrivileges,
}

impl UnsharePlan {
    /// The operations that give a command its capabilities. `all`: every capability that this kernel knows.
    ///
    /// # Errors
    /// Something is asked for that the caller does not have.
    pub fn capabilities(
        request: &CapsRequest,
        caller: Caller,
        own: CapabilitySets,
        all: u64,
    ) -> Result<Self, PrimitiveError> {
        let mut ops = Vec::new();
        let own = match request.map_root {
            false => own,
            true => {
                let outer = UnshareRequest { identity: Some(Identity::Root), ..UnshareRequest::default() };
                ops.extend(Self::new(&outer, caller).ops.into_iter().filter(|op| !matches!(op, Op::Execute { .. })));
                CapabilitySets { permitted: all, effective: all, bounding: all, ..CapabilitySets::default() }
            }
        };
        let drop = request.drop & !request.add & !request.ambient & !request.inheritable;
        let raised = request.add | request.ambient;
        available(raised | request.inheritable, own)?;
        let keep = own.bounding & !drop;
        let mut steps = Vec::new();
        if keep != own.bounding {
            allowed(own, "SETPCAP", "take capabilities from the bounding set")?;
            steps.push(CredentialOp::Bounding { keep });
        }
        let permitted = match &request.user {
            Some(user) if user.uid != 0 => raised,
            _ => own.permitted & !drop,
        };
        if let Some(User { uid, gid, groups }) = request.user.clone() {
            steps.push(CredentialOp::Keep);
            steps.push(CredentialOp::User { uid, gid, groups });
        }
        let inheritable = (own.inheritable & !drop) | raised | request.inheritable;
        steps.push(CredentialOp::Sets { permitted: permitted | raised, inheritable });
        let ambient = (own.ambient & permitted & !drop) | raised;
        steps.push(CredentialOp::Ambient { mask: ambient });
        steps.extend(request.no_new_privileges.then_some(CredentialOp::NoNewPrivileges));
        ops.extend(steps.into_iter().map(Op::Credentials));
        ops.push(Op::Execute { command: request.command.clone() });
        Ok(Self { ops })
    }
}

fn available(wanted: u64, own: CapabilitySets) -> Result<(), PrimitiveError> {
    let missing = wanted & !own.permitted;
    match missing {
        0 => Ok(()),
        missing => Err(PrimitiveError::Refused {
            message: format!("cannot give {}: this process does not have it", capability::names(missing)),
            hint:
                "a process gives only what it is permitted itself: try sudo, or --map-root-user for a user namespace \
                   where it is root"
                    .to_owned(),
        }),
    }
}

fn allowed(own: CapabilitySets, name: &str, what: &str) -> Result<(), PrimitiveError> {
    let needed = capability::number(&format!("CAP_{name}")).map_or(0, |number| 1u64 << number);
    match own.effective & needed {
        0 => Err(PrimitiveError::Refused {
            message: format!("cannot {what} without CAP_{name}"),
            hint: "try sudo, or --map-root-user for a user namespace where you are root".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Does one of them.
pub(crate) fn apply(op: &CredentialOp) -> Result<(), PrimitiveError> {
    let done = match op {
        CredentialOp::Bounding { keep } => cred::limit_bounding_set(*keep),
        CredentialOp::Keep => cred::keep_capabilities(true),
        CredentialOp::User { uid, gid, groups } => become_user(*uid, *gid, groups),
        CredentialOp::Sets { permitted, inheritable } => cred::set_capabilities(cred::Capabilities {
            effective: *permitted,
            permitted: *permitted,
            inheritable: *inheritable,
        }),
        CredentialOp::Ambient { mask } => cred::set_ambient(*mask),
        CredentialOp::NoNewPrivileges => cred::set_no_new_privs(),
    };
    done.map_err(|source| PrimitiveError::Sys { operation: words(op), source })
}

fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), SysError> {
    match cred::set_groups(groups) {
        // A user namespace without that right: the groups of outside have no meaning in it.
        Err(e) if e.errno == Errno::PERM && denied_setgroups() => {}
        other => other?,
    }
    cred::set_gid(gid)?;
    cred::set_uid(uid)
}

fn denied_setgroups() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// One of them as a sentence.
pub(crate) fn words(op: &CredentialOp) -> String {
    let names = |mask: u64| if mask == 0 { "nothing".to_owned() } else { capability::names(mask) };
    match op {
        CredentialOp::Bounding { keep } => format!("prctl(2) PR_CAPBSET_DROP: the bounding set keeps {}", names(*keep)),
        CredentialOp::Keep => "prctl(2) PR_SET_KEEPCAPS: what is permitted survives the change of the user".to_owned(),
        CredentialOp::User { uid, gid, groups } => {
            let groups = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            format!("setgroups(2) {{{groups}}}, setresgid(2) {gid}, setresuid(2) {uid}")
        }
        CredentialOp::Sets { permitted, inheritable } => {
            format!("capset(2): permitted and effective {}; inheritable {}", names(*permitted), names(*inheritable))
        }
        CredentialOp::Ambient { mask } => format!("prctl(2) PR_CAP_AMBIENT: ambient is {}", names(*mask)),
        CredentialOp::NoNewPrivileges => "prctl(2) PR_SET_NO_NEW_PRIVS: exec(2) adds nothing any more".to_owned(),
    }
}

/// Options of capsh(1), which does them in the order in which they stand.
pub(crate) fn options(op: &CredentialOp) -> Vec<String> {
    let names = |mask: u64| capability::numbers(mask).map(capability::lower_name).collect::<Vec<_>>().join(",");
    match op {
        // What the kernel does not know is not there to be dropped.
        CredentialOp::Bounding { keep } => {
            let drop = names(!keep & ((1 << capability::ALL.len()) - 1));
            if drop.is_empty() { Vec::new() } else { vec![format!("--drop={drop}")] }
        }
        CredentialOp::Keep => vec!["--keep=1".to_owned()],
        CredentialOp::User { uid, gid, groups } => {
            let groups = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            vec![format!("--groups={groups}"), format!("--gid={gid}"), format!("--uid={uid}")]
        }
        CredentialOp::Sets { permitted, inheritable } => {
            let mut text = "=".to_owned();
            for (mask, flags) in [(*permitted, "ep"), (*inheritable, "i")].into_iter().filter(|(mask, _)| *mask != 0) {
                text += &format!(" {}+{flags}", names(mask));
            }
            vec![shell::quote(&format!("--caps={text}"))]
        }
        CredentialOp::Ambient { mask: 0 } => vec!["--noamb".to_owned()],
        CredentialOp::Ambient { mask } => vec!["--noamb".to_owned(), format!("--addamb={}", names(*mask))],
        CredentialOp::NoNewPrivileges => vec!["--no-new-privs".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = (1 << 41) - 1;
    const NET_RAW: u64 = 1 << 13;
    const BIND: u64 = 1 << 10;

    fn own() -> CapabilitySets {
        CapabilitySets { permitted: ALL, effective: ALL, bounding: ALL, ..CapabilitySets::default() }
    }

    fn steps(request: &CapsRequest) -> Vec<Op> {
        UnsharePlan::capabilities(request, Caller { uid: 0, gid: 0 }, own(), ALL).expect("root may").ops
    }

    #[test]
    fn what_is_dropped_is_in_no_set() {
        let request = CapsRequest { drop: NET_RAW, ..CapsRequest::default() };
        let expected = [
            CredentialOp::Bounding { keep: ALL & !NET_RAW },
            CredentialOp::Sets { permitted: ALL & !NET_RAW, inheritable: 0 },
            CredentialOp::Ambient { mask: 0 },
        ];
        assert_eq!(steps(&request)[..3], expected.map(Op::Credentials));
    }

    #[test]
    fn a_user_gets_what_is_added_and_nothing_else() {
        let user = User { uid: 7, gid: 8, groups: Vec::new() };
        let request = CapsRequest { drop: ALL, add: BIND, user: Some(user), ..CapsRequest::default() };
        let expected = [
            CredentialOp::Bounding { keep: BIND },
            CredentialOp::Keep,
            CredentialOp::User { uid: 7, gid: 8, groups: Vec::new() },
            CredentialOp::Sets { permitted: BIND, inheritable: BIND },
            CredentialOp::Ambient { mask: BIND },
        ];
        assert_eq!(steps(&request)[..5], expected.map(Op::Credentials));
    }

    #[test]
    fn nobody_gives_what_he_does_not_have() {
        let caller = Caller { uid: 1000, gid: 1000 };
        let none = CapabilitySets { bounding: ALL, ..CapabilitySets::default() };
        let plan = |request: CapsRequest| UnsharePlan::capabilities(&request, caller, none, ALL);
        let given = plan(CapsRequest { add: BIND, ..CapsRequest::default() });
        assert!(given.is_err_and(|e| e.to_string().contains("CAP_NET_BIND_SERVICE") && e.hint().is_some()));
        let dropped = plan(CapsRequest { drop: BIND, ..CapsRequest::default() });
        assert!(dropped.is_err_and(|e| e.to_string().contains("without CAP_SETPCAP")));
        let mapped = plan(CapsRequest { drop: BIND, map_root: true, ..CapsRequest::default() });
        assert!(mapped.is_ok_and(|plan| matches!(plan.ops[0], Op::Unshare { .. })));
    }

    #[test]
    fn capsh_is_told_the_same() {
        let all =
            [CredentialOp::Bounding { keep: ALL & !NET_RAW }, CredentialOp::Sets { permitted: BIND, inheritable: 0 }];
        let text = all.iter().flat_map(options).collect::<Vec<_>>().join(" ");
        assert_eq!(text, "--drop=cap_net_raw '--caps== cap_net_bind_service+ep'");
    }
}

//! Which namespaces are new, which are joined, by whom and when. namespaces(7).
//!
//! New ones come with the one clone3, except the cgroup namespace (its root is the cgroup at that moment, so
//! the child enters its cgroup first) and a time namespace with offsets. Existing ones are joined by the
//! runtime before the clone, while it has its privileges; the mount and user namespaces by the child.

use std::path::PathBuf;

use onggi_cgroup::CgroupPlan;
use onggi_spec::oci::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType as Kind};

use super::{NamespaceSource, ParentOp, PlanInput, SandboxFacts, SetupOp, build::Context};
use crate::error::{Result, StartFailureError};

/// Mappings that are accepted; the kernel's own limit is 340 lines.
const MAX_ID_MAPPINGS: usize = 340;

/// The namespaces of one container.
pub(super) struct Namespaces {
    list: Vec<(Kind, Option<NamespaceSource>)>,
    uid: Vec<LinuxIdMapping>,
    gid: Vec<LinuxIdMapping>,
    offsets: bool,
}

impl Namespaces {
    pub(super) fn plan(input: &PlanInput<'_>, linux: &Linux) -> Result<Self> {
        let mut list: Vec<(Kind, Option<NamespaceSource>)> = Vec::new();
        for ns in &linux.namespaces {
            if list.iter().any(|(k, _)| *k == ns.typ) {
                return Err(StartFailureError::new(format!("linux.namespaces has {} twice", ns.typ)));
            }
            let path = ns.path.as_deref().filter(|p| !p.is_empty());
            list.push((ns.typ, path.map(|p| NamespaceSource::Path(PathBuf::from(p)))));
        }
        if input.netns_given {
            list.retain(|(k, _)| *k != Kind::Network);
            list.push((Kind::Network, Some(NamespaceSource::Given)));
        }
        let this = Self {
            list,
            uid: linux.uid_mappings.clone(),
            gid: linux.gid_mappings.clone(),
            offsets: !linux.time_offsets.is_empty(),
        };
        this.check()?;
        Ok(this)
    }

    fn check(&self) -> Result<()> {
        let mapped = !self.uid.is_empty() || !self.gid.is_empty();
        if self.makes(Kind::User) && (self.uid.is_empty() || self.gid.is_empty()) {
            return Err(StartFailureError::new("a new user namespace needs linux.uidMappings and linux.gidMappings"));
        }
        if mapped && !self.makes(Kind::User) {
            return Err(StartFailureError::new("id mappings without a new user namespace"));
        }
        if self.uid.len().max(self.gid.len()) > MAX_ID_MAPPINGS {
            return Err(StartFailureError::new(format!("more than {MAX_ID_MAPPINGS} id mappings")));
        }
        for m in self.uid.iter().chain(&self.gid) {
            let fits = |start: u32| start.checked_add(m.size).is_some();
            if m.size == 0 || !fits(m.container_id) || !fits(m.host_id) {
                return Err(StartFailureError::new(format!(
                    "id mapping {}:{}:{} is empty or exceeds 2^32",
                    m.container_id, m.host_id, m.size
                )));
            }
        }
        if self.offsets && !self.makes(Kind::Time) {
            return Err(StartFailureError::new("linux.timeOffsets without a new time namespace"));
        }
        Ok(())
    }

    /// The container has a namespace of this kind apart from the host's.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.list.iter().any(|(k, _)| *k == kind)
    }

    pub(super) fn has_mount(&self) -> bool {
        self.has(Kind::Mount)
    }

    /// It is a new one.
    pub(super) fn makes(&self, kind: Kind) -> bool {
        self.list.iter().any(|(k, source)| *k == kind && source.is_none())
    }

    fn joined(&self) -> impl Iterator<Item = (Kind, &NamespaceSource)> {
        self.list.iter().filter_map(|(k, s)| s.as_ref().map(|s| (*k, s)))
    }

    /// Only the child can join these: the runtime needs its own, or needs the user namespace first.
    fn by_child(&self, kind: Kind) -> bool {
        let user_joined = self.joined().any(|(k, _)| k == Kind::User);
        matches!(kind, Kind::Mount | Kind::User) || (user_joined && kind != Kind::Pid)
    }

    pub(super) fn parent_ops(&self, linux: &Linux) -> Vec<ParentOp> {
        let mut ops: Vec<ParentOp> = self
            .joined()
            .filter(|(k, _)| !self.by_child(*k))
            .map(|(kind, source)| ParentOp::Join { kind, source: source.clone() })
            .collect();
        if self.offsets {
            let offsets = linux.time_offsets.iter().map(|(k, v)| (k.clone(), *v)).collect();
            ops.push(ParentOp::TimeOffsets { offsets });
        }
        ops
    }

    pub(super) fn cloned(&self) -> Vec<Kind> {
        let at_clone = |k: Kind| k != Kind::Cgroup && !(k == Kind::Time && self.offsets);
        self.list.iter().filter(|(k, s)| s.is_none() && at_clone(*k)).map(|(k, _)| *k).collect()
    }

    pub(super) fn id_map_ops(&self, facts: &SandboxFacts) -> Vec<ParentOp> {
        if !self.makes(Kind::User) {
            return Vec::new();
        }
        let op =
            ParentOp::WriteIdMaps { uid: self.uid.clone(), gid: self.gid.clone(), deny_setgroups: !facts.sets_groups };
        vec![op]
    }

    /// setgroups(2) is possible in the container.
    pub(super) fn setgroups_allowed(&self, facts: &SandboxFacts) -> bool {
        facts.sets_groups || !self.makes(Kind::User)
    }

    pub(super) fn child_ops(&self, cx: &Context<'_>, cgroup: Option<&CgroupPlan>) -> Vec<SetupOp> {
        let mut ops = Vec::new();
        if cgroup.is_some_and(|c| !c.join.tasks.is_empty()) {
            ops.push(SetupOp::EnterCgroups);
        }
        // The user namespace first: the others may belong to it.
        let mut joins: Vec<_> = self.joined().filter(|(k, _)| self.by_child(*k)).collect();
        joins.sort_by_key(|(k, _)| *k != Kind::User);
        ops.extend(joins.into_iter().map(|(kind, source)| SetupOp::Join { kind, source: source.clone() }));
        if self.has(Kind::User) {
            let clear_groups = self.setgroups_allowed(cx.facts);
            ops.push(SetupOp::BecomeRoot { clear_groups });
        }
        if self.makes(Kind::Cgroup) {
            ops.push(SetupOp::NewCgroupNamespace);
        }
        ops.push(SetupOp::NewSession);
        if !cx.input.no_new_keyring {
            ops.push(SetupOp::NewKeyring { name: format!("_ses.{}", cx.input.id) });
        }
        ops
    }
}

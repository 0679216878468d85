//! Which namespaces are new, which are joined, by whom and when. namespaces(7).
//!
//! New ones come with the one clone3, except the cgroup namespace (its root is the cgroup at that moment, so
//! the child enters its cgroup first) and a time namespace with offsets. Existing ones are joined by the child
//! itself, or where it would lack the right to, before the clone. The runtime stays where it is: hooks run in
//! its namespaces, so what has to be joined before is joined by a process between it and the child.

use std::path::PathBuf;

use onggi_cgroup::CgroupPlan;
use onggi_spec::oci::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType as Kind, LinuxTimeOffset};

use super::{
    IdMapSource, NamespaceSource, ParentOp, PlanInput, SandboxFacts, SetupOp, build::Context, keyring_name,
    process::keeps_groups,
};
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
    pub(super) fn plan(input: &PlanInput<'_>, linux: &Linux, facts: &SandboxFacts) -> Result<Self> {
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
        let mut this = Self {
            list,
            uid: linux.uid_mappings.clone(),
            gid: linux.gid_mappings.clone(),
            offsets: !linux.time_offsets.is_empty(),
        };
        this.check()?;
        this.map_the_caller(facts);
        Ok(this)
    }

    fn check(&self) -> Result<()> {
        let mapped = !self.uid.is_empty() || !self.gid.is_empty();
        if mapped && !self.has(Kind::User) {
            return Err(StartFailureError::new(
                "user namespace mappings specified, but user namespace isn't enabled in the config",
            ));
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

    /// The mappings are optional; a namespace without any is of use to nobody. Its root is then who called, and
    /// nobody else is there (as in crun).
    fn map_the_caller(&mut self, facts: &SandboxFacts) {
        if !self.makes(Kind::User) {
            return;
        }
        for (map, host_id) in [(&mut self.uid, facts.caller.0), (&mut self.gid, facts.caller.1)] {
            if map.is_empty() {
                map.push(LinuxIdMapping { container_id: 0, host_id, size: 1 });
            }
        }
    }

    /// The container has a namespace of this kind apart from the host's.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.list.iter().any(|(k, _)| *k == kind)
    }

    pub(super) fn has_mount(&self) -> bool {
        self.has(Kind::Mount)
    }

    /// The ids of the container, for mounts that are to have the same.
    pub(super) fn id_map_source(&self) -> Option<IdMapSource> {
        let user = self.list.iter().find(|(k, _)| *k == Kind::User)?;
        match &user.1 {
            Some(NamespaceSource::Path(at)) => Some(IdMapSource::Namespace(at.clone())),
            _ => Some(IdMapSource::Maps(self.uid.clone(), self.gid.clone())),
        }
    }

    /// It is a new one.
    pub(super) fn makes(&self, kind: Kind) -> bool {
        self.list.iter().any(|(k, source)| *k == kind && source.is_none())
    }

    fn joined(&self) -> impl Iterator<Item = (Kind, &NamespaceSource)> {
        self.list.iter().filter_map(|(k, s)| s.as_ref().map(|s| (*k, s)))
    }

    fn joins_user(&self) -> bool {
        self.has(Kind::User) && !self.makes(Kind::User)
    }

    /// Who joins: the child itself where it keeps the privileges for it. A pid namespace is for children only; the
    /// user namespace must be there before others are made in it; and before it is, the others are joined, which
    /// may belong to its parent. Without privilege it is what gives the right to them.
    fn by_child(&self, kind: Kind, facts: &SandboxFacts) -> bool {
        match kind {
            Kind::Mount => true,
            Kind::User | Kind::Pid => false,
            _ if self.joins_user() => !facts.privileged,
            _ => !self.has(Kind::User),
        }
    }

    pub(super) fn parent_ops(&self, linux: &Linux, facts: &SandboxFacts) -> Vec<ParentOp> {
        let mut joins: Vec<_> = self.joined().filter(|(k, _)| !self.by_child(*k, facts)).collect();
        joins.sort_by_key(|(k, _)| *k == Kind::User);
        let mut ops: Vec<ParentOp> = Vec::new();
        if self.offsets && !self.offsets_by_child(facts) {
            ops.push(ParentOp::TimeOffsets { offsets: offsets(linux) });
        }
        ops.extend(joins.into_iter().map(|(kind, source)| ParentOp::Join { kind, source: source.clone() }));
        ops
    }

    fn offsets_by_child(&self, facts: &SandboxFacts) -> bool {
        !facts.privileged && self.has(Kind::User)
    }

    pub(super) fn cloned(&self) -> Vec<Kind> {
        let at_clone = |k: Kind| k != Kind::Cgroup && !(k == Kind::Time && self.offsets);
        self.list.iter().filter(|(k, s)| s.is_none() && at_clone(*k)).map(|(k, _)| *k).collect()
    }

    pub(super) fn id_map_ops(&self, facts: &SandboxFacts) -> Vec<ParentOp> {
        let (uid, gid) = (self.uid.clone(), self.gid.clone());
        if self.makes(Kind::User) {
            return vec![ParentOp::WriteIdMaps { uid, gid, deny_setgroups: !self.setgroups_allowed(facts) }];
        }
        if uid.is_empty() && gid.is_empty() { Vec::new() } else { vec![ParentOp::CheckIdMaps { uid, gid }] }
    }

    /// setgroups(2) is possible in the container: not where an ordinary user has mapped nothing but one group.
    pub(super) fn setgroups_allowed(&self, facts: &SandboxFacts) -> bool {
        let one_group = matches!(self.gid.as_slice(), [m] if m.size == 1);
        facts.sets_groups || !(self.makes(Kind::User) && one_group)
    }

    /// Root, or the first id that the container has.
    fn first_ids(&self) -> Option<(u32, u32)> {
        let first = |map: &[LinuxIdMapping]| match map.iter().any(|m| m.container_id == 0) {
            true => Some(0),
            false => map.first().map(|m| m.container_id),
        };
        Some((first(&self.uid)?, first(&self.gid)?))
    }

    /// What needs neither the groups nor another namespace is done first: the runtime may still be making the groups.
    /// A loopback that is up would miss what a sysctl of the network says of interfaces to come.
    fn before_groups(&self, cx: &Context<'_>) -> bool {
        let network = |key: &String| key.starts_with("net.") || key.starts_with("net/");
        !self.has(Kind::User) && self.joined().next().is_none() && !cx.linux.sysctl.keys().any(network)
    }

    pub(super) fn child_ops(&self, cx: &Context<'_>, cgroup: Option<&CgroupPlan>) -> Vec<SetupOp> {
        let mut ops = Vec::new();
        let first = self.before_groups(cx);
        if first {
            ops.extend(session(cx));
            ops.extend(self.loopback());
        }
        if cgroup.is_some_and(|c| !c.join.tasks.is_empty()) || cx.linux.intel_rdt.is_some() {
            ops.push(SetupOp::EnterCgroups);
        }
        let joins = self.joined().filter(|(k, _)| self.by_child(*k, cx.facts));
        ops.extend(joins.map(|(kind, source)| SetupOp::Join { kind, source: source.clone() }));
        if self.has(Kind::User) {
            let clear_groups = self.setgroups_allowed(cx.facts) && !keeps_groups(cx.input.config);
            ops.push(SetupOp::BecomeRoot { clear_groups, ids: self.first_ids() });
        }
        if self.offsets && self.offsets_by_child(cx.facts) {
            ops.push(SetupOp::TimeOffsets { offsets: offsets(cx.linux) });
        }
        if self.makes(Kind::Cgroup) {
            ops.push(SetupOp::NewCgroupNamespace);
        }
        if !first {
            ops.extend(session(cx));
        }
        ops
    }

    /// The loopback of a namespace that the container makes, where it has to come after the sysctls.
    pub(super) fn late_loopback(&self, cx: &Context<'_>) -> Option<SetupOp> {
        self.loopback().filter(|_| !self.before_groups(cx))
    }

    fn loopback(&self) -> Option<SetupOp> {
        self.makes(Kind::Network).then_some(SetupOp::LoopbackUp)
    }
}

/// A session and a keyring that nobody else is in.
fn session(cx: &Context<'_>) -> impl Iterator<Item = SetupOp> {
    let keyring = (!cx.input.no_new_keyring).then(|| SetupOp::NewKeyring {
        name: keyring_name(cx.input.id),
        label: cx.process.selinux_label.clone().filter(|l| !l.is_empty()),
    });
    std::iter::once(SetupOp::NewSession).chain(keyring)
}

fn offsets(linux: &Linux) -> Vec<(String, LinuxTimeOffset)> {
    linux.time_offsets.iter().map(|(clock, offset)| (clock.clone(), *offset)).collect()
}

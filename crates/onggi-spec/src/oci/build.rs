//! `build_oci_spec`: request + image configuration + facts → the OCI runtime configuration.
//!
//! Docker's semantics for command, environment and mounts; the default hardened profile for the rest. Pure:
//! what an image says is data (I8), checked here before it becomes a setting. Anything that the host cannot
//! give is a [`BuildError`] when it was asked for, and left out when it was only a default.

mod error;
mod limits;
mod mounts;
mod process;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    runtime::{
        Linux, LinuxDevice, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, LinuxSeccomp, OCI_VERSION, Root, Spec,
    },
    seccomp_default::default_policy,
};
use crate::{
    ContainerId, ContainerRequest, HostFacts, IdBlock, NetworkMode, capability, facts::CgroupLayout, id_block,
    image::ImageConfig, security::SeccompChoice, sysctl, user::ResolvedUser,
};

pub use error::BuildError;
pub use limits::{DEFAULT_PIDS, asked_limits, check_possible, default_device_rules};
pub use mounts::SHM_SIZE;
pub use process::{
    apply_rootless_user, apply_user, effective_command, effective_directory, effective_environment, effective_security,
};

/// Everything that a configuration is made from.
#[derive(Debug, Clone)]
pub struct SpecInput<'a> {
    /// What the user asked for.
    pub request: &'a ContainerRequest,
    /// The image's configuration; none for `host:` and `rootfs:`.
    pub image: Option<&'a ImageConfig>,
    /// The user, resolved in the root filesystem.
    pub user: ResolvedUser,
    /// The host.
    pub facts: &'a HostFacts,
    /// The container.
    pub id: &'a ContainerId,
    /// The host ids of its user namespace, when root asked for one.
    pub id_block: Option<IdBlock>,
    /// A network namespace to join by path; a new one when absent (the engine hands its own down as a
    /// descriptor). Without meaning for the host's network.
    pub netns_path: Option<&'a str>,
    /// `linux.cgroupsPath`.
    pub cgroups_path: String,
    /// The AppArmor profile, which the kernel has.
    pub apparmor_profile: Option<&'a str>,
    /// Files that the engine wrote for this container.
    pub files: GeneratedFiles,
    /// Sources of the request's mounts that are device files.
    pub device_sources: Vec<String>,
    /// Numbers of the block devices that the request limits.
    pub block_devices: BTreeMap<String, (u32, u32)>,
    /// The devices that the request names, as they are on this host; for a privileged container all of them.
    pub devices: Vec<HostDevice>,
}

/// A device node of the host, for a container.
#[derive(Debug, Clone)]
pub struct HostDevice {
    /// Its path on the host, without links.
    pub source: String,
    /// The node to make.
    pub node: LinuxDevice,
    /// Letters of `rwm`.
    pub access: String,
}

/// Host paths of files that are bind-mounted into `/etc`.
#[derive(Debug, Clone)]
pub struct GeneratedFiles {
    /// For `/etc/hosts`.
    pub hosts: PathBuf,
    /// For `/etc/hostname`.
    pub hostname: PathBuf,
    /// For `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

impl SpecInput<'_> {
    /// A user namespace with one uid and one gid is made because the caller is not root.
    fn rootless(&self) -> bool {
        !self.facts.rootful()
    }

    /// The container has a user namespace of its own.
    fn in_user_namespace(&self) -> bool {
        self.rootless() || self.id_block.is_some()
    }

    /// Its network namespace belongs to its user namespace, so that its root may change it.
    fn owns_network(&self) -> bool {
        match self.request.network {
            NetworkMode::Bridge => !self.in_user_namespace(),
            NetworkMode::None => true,
            NetworkMode::Host | NetworkMode::Container => false,
        }
    }

    fn bridged(&self) -> bool {
        self.request.network == NetworkMode::Bridge
    }

    /// Its network namespace is somebody else's.
    fn shares_network(&self) -> bool {
        matches!(self.request.network, NetworkMode::Host | NetworkMode::Container)
    }

    /// Its network namespace is not the host's.
    fn own_network(&self) -> bool {
        self.request.network != NetworkMode::Host
    }
}

/// Builds the configuration.
///
/// # Errors
/// The request contradicts itself, the image or the host; each says what to change.
pub fn build_oci_spec(input: &SpecInput<'_>) -> Result<Spec, BuildError> {
    let shared = input.request.shared;
    if shared.uts && (input.request.hostname.is_some() || input.request.domainname.is_some()) {
        return Err(BuildError::SharedName);
    }
    let caps = bounding_set(input)?;
    let process = process::process(input, &caps)?;
    let mounts = mounts::mounts(input)?;
    let resources = limits::resources(input)?;
    let linux = Linux {
        uid_mappings: mapping(input, input.facts.euid),
        gid_mappings: mapping(input, input.facts.egid),
        sysctl: sysctls(input)?,
        resources,
        cgroups_path: Some(input.cgroups_path.clone()),
        namespaces: namespaces(input),
        seccomp: seccomp(input, &caps)?,
        rootfs_propagation: mounts::rootfs_propagation(input.request),
        devices: input.devices.iter().map(|device| device.node.clone()).collect(),
        masked_paths: if input.request.privileged { Vec::new() } else { mounts::masked_paths(input.facts.cpus) },
        readonly_paths: if input.request.privileged { Vec::new() } else { mounts::readonly_paths() },
        ..Linux::default()
    };
    Ok(Spec {
        oci_version: OCI_VERSION.to_owned(),
        process: Some(process),
        root: Some(Root { path: "rootfs".to_owned(), readonly: input.request.read_only }),
        // The host's own may not be changed.
        hostname: (!shared.uts).then(|| effective_hostname(input.request, input.facts, input.id)),
        domainname: input.request.domainname.clone(),
        mounts,
        annotations: input.request.annotations.clone(),
        linux: Some(linux),
        ..Spec::default()
    })
}

/// The built-in policy where the kernel can have one, or what was asked for.
fn seccomp(input: &SpecInput<'_>, caps: &[&str]) -> Result<Option<LinuxSeccomp>, BuildError> {
    match &input.request.security.seccomp {
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Default if input.request.privileged => Ok(None),
        SeccompChoice::Default => Ok(input.facts.seccomp.then(|| default_policy(caps))),
        SeccompChoice::Profile(_) if !input.facts.seccomp => Err(BuildError::NoSeccomp),
        SeccompChoice::Profile(profile) => Ok(Some(profile.resolve(caps, &input.facts.kernel))),
    }
}

/// The host name: as asked, the host's own where its network is shared, or the short id.
pub fn effective_hostname(request: &ContainerRequest, facts: &HostFacts, id: &ContainerId) -> String {
    let default = || match request.network {
        _ if request.shared.uts => facts.hostname.clone(),
        NetworkMode::Host if !facts.hostname.is_empty() => facts.hostname.clone(),
        _ => id.short().to_owned(),
    };
    request.hostname.clone().unwrap_or_else(default)
}

/// What this host does not allow and is therefore kept as it is: one line each, for the user.
pub fn notes(facts: &HostFacts) -> Vec<String> {
    let mut notes = Vec::new();
    if facts.nofile_hard < limits::NOFILE_HARD {
        let hard = facts.nofile_hard;
        notes.push(format!(
            "the limit of open files stays at this host's {hard} (the default is {})",
            limits::NOFILE_HARD
        ));
    }
    if !facts.seccomp {
        notes.push("this kernel has no seccomp filters: system calls are not restricted".to_owned());
    }
    notes
}

/// The capabilities of the container. The caller can give only what it has, except in a user namespace of
/// the container's own.
fn bounding_set(input: &SpecInput<'_>) -> Result<Vec<&'static str>, BuildError> {
    let request = input.request;
    let all = ["ALL".to_owned()];
    let add = if request.privileged { all.as_slice() } else { &request.cap_add };
    let wanted = capability::bounding_set(add, &request.cap_drop).map_err(BuildError::Capability)?;
    if input.in_user_namespace() {
        check_network_capabilities(input)?;
        return Ok(wanted);
    }
    let held = |cap: &str| capability::number(cap).is_some_and(|n| input.facts.effective_caps >> n & 1 == 1);
    let named = |cap: &str| request.cap_add.iter().any(|t| capability::parse_capability(t) == Ok(one(cap)));
    if let Some(cap) = wanted.iter().find(|cap| !held(cap) && named(cap)) {
        return Err(BuildError::CapabilityNotHeld { capability: (*cap).to_owned() });
    }
    Ok(wanted.into_iter().filter(|cap| held(cap)).collect())
}

fn one(name: &str) -> capability::CapArg {
    let known = capability::ALL.iter().find(|n| **n == name);
    known.map_or(capability::CapArg::All, |n| capability::CapArg::One(n))
}

/// In a user namespace a capability reaches only what that namespace owns, and the bridge's network namespace
/// is the host's: a container that was promised NET_ADMIN there would find it without effect.
fn check_network_capabilities(input: &SpecInput<'_>) -> Result<(), BuildError> {
    if input.id_block.is_none() || input.owns_network() {
        return Ok(());
    }
    let named = |cap| input.request.cap_add.iter().any(|t| capability::parse_capability(t) == Ok(one(cap)));
    match ["CAP_NET_ADMIN", "CAP_NET_RAW"].into_iter().find(|cap| named(cap)) {
        Some(capability) => Err(BuildError::CapabilityOverNetwork { capability }),
        None => Ok(()),
    }
}

/// Without root, container id 0 is the caller and nobody else exists (user_namespaces(7): the only map that an
/// ordinary user may write). With a block, its ids are the container's.
fn mapping(input: &SpecInput<'_>, caller: u32) -> Vec<LinuxIdMapping> {
    let one = |host_id, size| vec![LinuxIdMapping { container_id: 0, host_id, size }];
    match input.id_block {
        Some(block) => one(block.host_start(), id_block::SIZE),
        None if input.rootless() => one(caller, 1),
        None => Vec::new(),
    }
}

fn namespaces(input: &SpecInput<'_>) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as T;
    let new = |typ| LinuxNamespace { typ, path: None };
    let mut list = Vec::new();
    if input.in_user_namespace() {
        list.push(new(T::User));
    }
    let shared = input.request.shared;
    let kinds = [(T::Pid, shared.pid), (T::Ipc, shared.ipc), (T::Uts, shared.uts), (T::Mount, false)];
    list.extend(kinds.into_iter().filter(|(_, shared)| !shared).map(|(typ, _)| new(typ)));
    if input.facts.cgroup != CgroupLayout::None && !shared.cgroup {
        list.push(new(T::Cgroup));
    }
    if input.own_network() {
        list.push(LinuxNamespace { typ: T::Network, path: input.netns_path.map(str::to_owned) });
    }
    list
}

/// What was asked for, over what every container gets.
fn sysctls(input: &SpecInput<'_>) -> Result<BTreeMap<String, String>, BuildError> {
    let mut all = default_sysctls(input);
    for (key, value) in &input.request.sysctls {
        let shared = match sysctl::owner(&key.replace('/', ".")) {
            // Made with the namespace, by who owns it: see `bridge_sysctls`.
            Some(sysctl::Owner::Network) if input.id_block.is_some() && input.bridged() => continue,
            Some(sysctl::Owner::Network) => input.shares_network(),
            Some(sysctl::Owner::Ipc) => input.request.shared.ipc,
            None => true,
        };
        if shared {
            return Err(BuildError::SharedSysctl { key: key.clone() });
        }
        all.insert(key.clone(), value.clone());
    }
    Ok(all)
}

/// As Docker: in a network namespace of its own everybody may open ICMP sockets and low ports, which is why
/// NET_RAW is not needed. Without root only gid 0 is mapped, and only mapped groups may be written.
fn default_sysctls(input: &SpecInput<'_>) -> BTreeMap<String, String> {
    if input.shares_network() || (input.id_block.is_some() && !input.owns_network()) {
        return BTreeMap::new();
    }
    let last = match input.id_block {
        Some(_) => id_block::SIZE - 1,
        None if input.rootless() => 0,
        None => LAST_GROUP,
    };
    network_sysctls(0, last).into()
}

/// Greatest group that net.ipv4.ping_group_range takes.
const LAST_GROUP: u32 = i32::MAX.cast_unsigned();

/// What a container's network namespace is given, for the groups `first` to `last` as the writer sees them.
fn network_sysctls(first: u32, last: u32) -> [(String, String); 2] {
    [
        ("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()),
        ("net.ipv4.ping_group_range".to_owned(), format!("{first} {last}")),
    ]
}

/// The settings of a network namespace that the engine makes for a container over `block`: its root may not
/// change them itself, so they are made with the namespace. Those that were asked for come last.
pub fn bridge_sysctls(request: &ContainerRequest, block: Option<IdBlock>) -> Vec<(String, String)> {
    let Some(block) = block else { return Vec::new() };
    let mut all = Vec::from(network_sysctls(block.host_start(), block.host_start() + (id_block::SIZE - 1)));
    let of_network = |key: &String| sysctl::owner(&key.replace('/', ".")) == Some(sysctl::Owner::Network);
    let asked = request.sysctls.iter().filter(|(key, _)| of_network(key));
    all.extend(asked.map(|(key, value)| (key.clone(), value.clone())));
    all
}

//! A plan in words: the lines of `--explain`, and the step names of errors, so that both say the same.

use std::path::Path;

use onggi_cgroup::{
    Prepare,
    systemd::{Manager, UnitPlan},
};
use onggi_spec::{capability, oci::runtime::LinuxTimeOffset};
use onggi_sys::{mount::attr, sched};

use super::{
    BindMount, CapabilitySets, DeviceKind, DeviceNode, FsMount, NamespaceSource, NetDevice, ParentOp, ProcessOp,
    Propagation, Rlimit, SandboxPlan, SetupOp,
};

fn unit_words(unit: &UnitPlan) -> Vec<String> {
    let who = match unit.manager {
        Manager::System => "systemd",
        Manager::User => "the user's systemd",
    };
    let mut lines = vec![format!("have {who} start unit {}", unit.name)];
    lines.extend(unit.properties.iter().map(|p| format!("  with {}", p.words())));
    lines
}

impl SandboxPlan {
    /// One line per operation, in order.
    pub fn words(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(cgroup) = &self.cgroup {
            let dirs: std::collections::BTreeSet<_> = cgroup.dirs.iter().map(|d| &d.path).collect();
            lines.extend(cgroup.unit.iter().flat_map(unit_words));
            lines.extend(dirs.iter().map(|dir| format!("make cgroup {}", dir.display())));
            lines.extend(cgroup.prepare.iter().filter_map(|step| match step {
                Prepare::Delegate { path, uid } => Some(format!("give cgroup {} to user {uid}", path.display())),
                _ => None,
            }));
            lines.extend(
                cgroup
                    .writes
                    .iter()
                    .map(|w| format!("write {} to {} ({})", w.value, w.path.join(&w.file).display(), w.what)),
            );
            lines.extend(cgroup.devices.iter().map(|rule| {
                let verb = if rule.allow { "allow" } else { "deny" };
                format!("{verb} device {} (eBPF filter of the cgroup)", rule.words())
            }));
        }
        lines.extend(
            self.rdt
                .iter()
                .map(|group| format!("use class of service {} ({})", group.dir.display(), group.schemata.join(", "))),
        );
        lines.extend(self.before.iter().map(ParentOp::words));
        let kinds: Vec<String> = self.clone.iter().map(ToString::to_string).collect();
        lines.push(format!("clone3 a child into new namespaces: {}", kinds.join(", ")));
        lines.extend(self.after.iter().map(ParentOp::words));
        lines.extend(self.setup.iter().map(SetupOp::words));
        lines.extend(self.process.iter().map(ProcessOp::words));
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines
    }
}

impl NamespaceSource {
    fn words(&self) -> String {
        match self {
            Self::Path(p) => p.display().to_string(),
            Self::Given => "the one that was prepared".into(),
        }
    }
}

impl ParentOp {
    /// The operation in words.
    pub fn words(&self) -> String {
        match self {
            Self::Join { kind, source } => format!("join {kind} namespace {}", source.words()),
            Self::TimeOffsets { offsets } => time_offsets(offsets),
            Self::CheckIdMaps { uid, gid } => {
                format!(
                    "make sure that the user namespace maps {} uid and {} gid ranges as asked",
                    uid.len(),
                    gid.len()
                )
            }
            Self::WriteIdMaps { uid, gid, deny_setgroups } => format!(
                "map {} uid and {} gid ranges into the user namespace{}",
                uid.len(),
                gid.len(),
                if *deny_setgroups { ", deny setgroups" } else { "" }
            ),
            Self::Rlimit(limit) => limit.words(),
            Self::OomScore { value } => format!("set oom_score_adj to {value}"),
        }
    }
}

impl Rlimit {
    fn words(&self) -> String {
        format!("limit {} to {}:{}", self.name, bound(self.soft), bound(self.hard))
    }
}

fn time_offsets(offsets: &[(String, LinuxTimeOffset)]) -> String {
    let all: Vec<String> = offsets.iter().map(|(c, o)| format!("{c} {}s {}ns", o.secs, o.nanosecs)).collect();
    format!("new time namespace with offsets {}", all.join(", "))
}

fn bound(n: u64) -> String {
    if n == u64::MAX { "unlimited".into() } else { n.to_string() }
}

impl Propagation {
    /// `private`, `slave`, …
    pub fn words(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Slave => "slave",
            Self::Shared => "shared",
            Self::Unbindable => "unbindable",
        }
    }
}

/// `ro,nosuid` of attribute bits.
pub(super) fn attributes(bits: u64) -> String {
    const NAMES: [(u64, &str); 8] = [
        (attr::RDONLY, "ro"),
        (attr::NOSUID, "nosuid"),
        (attr::NODEV, "nodev"),
        (attr::NOEXEC, "noexec"),
        (attr::NOATIME, "noatime"),
        (attr::STRICTATIME, "strictatime"),
        (attr::NODIRATIME, "nodiratime"),
        (attr::NOSYMFOLLOW, "nosymfollow"),
    ];
    let names: Vec<&str> = NAMES.iter().filter(|(b, _)| bits & b != 0).map(|(_, n)| *n).collect();
    names.join(",")
}

fn with(options: &str) -> String {
    if options.is_empty() { String::new() } else { format!(" ({options})") }
}

impl FsMount {
    /// `mode=755,newinstance`.
    pub(crate) fn data_text(&self) -> String {
        let one = |(k, v): &(String, Option<String>)| match v {
            Some(v) => format!("{k}={v}"),
            None => k.clone(),
        };
        self.data.iter().map(one).collect::<Vec<_>>().join(",")
    }

    fn words(&self) -> String {
        let all = [attributes(self.attributes), self.data_text()];
        let all: Vec<String> = all.into_iter().filter(|s| !s.is_empty()).collect();
        format!("mount {} on {}{}", self.fstype, self.target.display(), with(&all.join(",")))
    }
}

impl BindMount {
    fn words(&self) -> String {
        let how = if self.recursive { "bind tree" } else { "bind" };
        let bits = self.attributes.0 | self.recursive_attributes.0;
        format!("{how} {} on {}{}", self.source.display(), self.target.display(), with(&attributes(bits)))
    }
}

impl NetDevice {
    /// The operation in words.
    pub fn words(&self) -> String {
        match self.name == self.new_name {
            true => format!("move network device {} into the container", self.name),
            false => format!("move network device {} into the container as {}", self.name, self.new_name),
        }
    }
}

impl DeviceNode {
    fn words(&self) -> String {
        let kind = match self.kind {
            DeviceKind::Char => "character device",
            DeviceKind::Block => "block device",
            DeviceKind::Fifo => return format!("make fifo {}", self.path.display()),
        };
        format!("make {kind} {} ({}:{}, mode {:04o})", self.path.display(), self.major, self.minor, self.mode)
    }
}

impl SetupOp {
    /// The operation in words.
    pub fn words(&self) -> String {
        let show = |p: &Path| p.display().to_string();
        match self {
            Self::BecomeRoot { .. } => "become root of the user namespace".into(),
            Self::AwaitLimit => "wait for the limit of processes".into(),
            Self::EnterCgroups => "enter the cgroups".into(),
            Self::Join { kind, source } => format!("join {kind} namespace {}", source.words()),
            Self::NewCgroupNamespace => "new cgroup namespace".into(),
            Self::NewSession => "start a new session".into(),
            Self::NewKeyring { .. } => "join a new session keyring".into(),
            Self::HostPropagation { propagation } => format!("make the mount tree {}", propagation.words()),
            Self::BindRoot { source } => format!("take {} as root filesystem", show(source)),
            Self::OverlayRoot { overlay, ids } => {
                let (count, mapped) = (overlay.lower.len(), mapped(ids.as_ref()));
                let unsynced = if overlay.volatile { ", never synced" } else { "" };
                format!("mount overlay of {count} layers with upper {}{mapped}{unsynced}", show(&overlay.upper))
            }
            Self::AttachRoot { at } => format!("attach the root at {} in this mount namespace", show(at)),
            Self::SubOverlay { path, upper, ids, .. } => {
                format!("mount overlay over {} with upper {}{}", show(path), show(upper), mapped(ids.as_ref()))
            }
            Self::Mount(m) => m.words(),
            Self::Bind(m) => m.words(),
            Self::Attributes { target, set } => format!("make {} {}", show(target), attributes(*set)),
            Self::MakeDir { path, .. } => format!("make sure that directory {} exists", show(path)),
            Self::Symlink { path, target, .. } => format!("link {} to {}", show(path), show(target)),
            Self::Node(node) => node.words(),
            Self::BindNode(node) => format!("bind the host's {}", show(&node.path)),
            Self::Terminal { .. } => "open a terminal, bind it to /dev/console".into(),
            Self::Sysctl { key, value, .. } => format!("set sysctl {key} to {value}"),
            Self::Hostname { name } => format!("set host name {name}"),
            Self::Domainname { name } => format!("set domain name {name}"),
            Self::LoopbackUp => "bring the loopback interface up".into(),
            Self::NetDevices { devices } => devices.iter().map(NetDevice::words).collect::<Vec<_>>().join(", "),
            Self::RuntimeHooks { prestart, create_runtime } => {
                format!("run {} hooks on the host", prestart.len() + create_runtime.len())
            }
            Self::ContainerHooks { hooks } => format!("run {} hooks in the container's namespaces", hooks.len()),
            Self::Mask { path, .. } => format!("hide {}", show(path)),
            Self::ReadOnly { path } => format!("make {} read-only", show(path)),
            Self::ReadOnlyRoot => "make the root filesystem read-only".into(),
            Self::CoverHostSystems => "unmount or cover every procfs and sysfs of the host".into(),
            Self::ChangeRoot => "chroot into the root filesystem, in the host's mount namespace".into(),
            Self::PivotRoot { by_move: false } => "pivot into the root filesystem, detach the old root".into(),
            Self::PivotRoot { by_move: true } => "move the root filesystem over / and chroot".into(),
            Self::RootPropagation { propagation, recursive: false } => {
                format!("make the root mount {}", propagation.words())
            }
            Self::RootPropagation { propagation, .. } => {
                format!("make the root mount and those below {}", propagation.words())
            }
            Self::TimeOffsets { offsets } => time_offsets(offsets),
        }
    }
}

/// `CAP_CHOWN, CAP_KILL`, or `none`.
pub(super) fn capability_names(mask: u64) -> String {
    if mask == 0 { "none".into() } else { capability::names(mask) }
}

impl CapabilitySets {
    fn words(&self) -> String {
        format!("set capabilities: {}", capability_names(self.effective | self.permitted))
    }
}

impl ProcessOp {
    /// The operation in words.
    pub fn words(&self) -> String {
        match self {
            Self::OomScore { value } => format!("set oom_score_adj to {value}"),
            Self::Rlimit(limit) => limit.words(),
            Self::AwaitLimits => "wait for the limits".into(),
            Self::Scheduler(s) => format!("set scheduler {}", s.policy),
            Self::IoPriority(p) => format!("set I/O priority {} {}", p.class, p.priority),
            Self::Affinity { cpus: None } => "let it run on every CPU".into(),
            Self::Affinity { cpus: Some(mask) } => format!("let it run on CPUs {}", sched::bits(mask)),
            Self::MemoryPolicy { mode, nodes } => {
                format!("set memory policy {mode:#x} for nodes {}", sched::bits(nodes))
            }
            Self::Personality { persona } => format!("set personality {persona:#x}"),
            Self::Home { uid } => format!("set HOME to that of uid {uid} in /etc/passwd"),
            Self::EnterDirectory { path, again: false } => format!("enter working directory {}", path.display()),
            Self::EnterDirectory { path, .. } => format!("enter working directory {} as the user", path.display()),
            Self::CheckCommand => "look the command up".into(),
            Self::CheckAccess => "check that the user may execute the command".into(),
            Self::AwaitStart => "wait for start".into(),
            Self::AwaitReader => "wait until somebody opens the exec wait FIFO".into(),
            Self::Hooks { hooks } => format!("run {} hooks in the container", hooks.len()),
            Self::OwnStdio { uid } => format!("give the standard streams' pipes to uid {uid}"),
            Self::ReopenNull => "open the streams that are /dev/null again, in the container".into(),
            Self::ForkInit => "fork: PID 1 reaps and forwards signals, its child goes on".into(),
            Self::AttachTerminal => "make the terminal the controlling terminal and standard streams".into(),
            Self::AppArmor { profile } => format!("set AppArmor profile {profile}"),
            Self::SeLinux { label } => format!("set SELinux label {label}"),
            Self::NoNewPrivileges => "set no_new_privs".into(),
            Self::Seccomp { policy } => format!("load the seccomp filter ({} rules)", policy.syscalls.len()),
            Self::BoundingSet { keep } => format!("limit the bounding set to {}", capability_names(*keep)),
            Self::Credentials { uid, gid, groups } => {
                let groups = groups.as_ref().map_or(String::new(), |g| format!(", groups {g:?}"));
                format!("become uid {uid}, gid {gid}{groups}")
            }
            Self::Capabilities(sets) => sets.words(),
            Self::Umask { mask } => format!("set umask {mask:04o}"),
            Self::CloseOnExec { from } => format!("mark descriptors from {from} close-on-exec"),
            Self::DieWithParent => "die with the parent process".into(),
            Self::Exec { args, .. } => format!("execute {args:?}"),
        }
    }
}

fn mapped(ids: Option<&super::IdMapSource>) -> &'static str {
    if ids.is_some() { ", ids mapped to the container's" } else { "" }
}

//! A plan as a shell script of coreutils, util-linux, iproute2 and libcap tools that builds the same
//! container by hand.
//!
//! Two differences are unavoidable and said in the script: the root is entered by `mount --move` and chroot
//! as switch_root(8) does, because no host program is left to run after pivot_root(2); and no shell tool
//! loads a seccomp filter.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use onggi_cgroup::{CgroupPlan, Prepare, systemd::Manager};
use onggi_spec::{
    oci::runtime::{LinuxIdMapping, LinuxNamespaceType as Kind, Scheduler},
    overlay::{Directories, OverlayFlags},
    shell::quote,
};
use onggi_sys::sched::bits;

use super::{
    BindMount, CapabilitySets, DeviceKind, DeviceNode, FsMount, NamespaceSource, ParentOp, ProcessOp, SandboxPlan,
    SetupOp, words,
};

/// Used when the container's environment has no PATH; the same as the child's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const HEAD: &str = "\
#!/bin/sh
# Builds the container by hand. Needs root (or user namespaces), util-linux, iproute2 and capsh (libcap2-bin).
set -eu
";

/// Functions of the inner shell. `$R` is the new root as a directory of the host.
const FUNCTIONS: &str = "\
target() { # make $2 in the root what $1 is
  if [ -d \"$1\" ]; then mkdir -p \"$R$2\"
  elif [ ! -e \"$R$2\" ]; then mkdir -p \"$(dirname \"$R$2\")\"; : > \"$R$2\"; fi
}
hide() {
  if [ -d \"$R$1\" ]; then mount -t tmpfs -o ro,nosuid,nodev,noexec,mode=555 tmpfs \"$R$1\"
  elif [ -e \"$R$1\" ]; then mount --bind /dev/null \"$R$1\"; mount -o remount,bind,ro,nosuid,noexec \"$R$1\"; fi
}
readonly_path() {
  if [ -e \"$R$1\" ]; then mount --rbind \"$R$1\" \"$R$1\"; mount -o remount,bind,ro \"$R$1\"; fi
}
";

/// Before a root that is only moved.
const COVER: &str = "\
for p in $(findmnt -rno TARGET -t proc,sysfs | grep -vF \"$R\"); do umount -l \"$p\" || mount -t tmpfs tmpfs \"$p\"; done
";

fn path(p: &Path) -> String {
    quote(&p.to_string_lossy())
}

/// A path inside the root.
fn inside(p: &Path) -> String {
    format!("\"$R\"{}", path(p))
}

impl SandboxPlan {
    /// A runnable script for sh(1). Standard streams are the script's own.
    pub fn script(&self) -> String {
        let mut out = String::from(HEAD);
        if let Some(cgroup) = &self.cgroup {
            outer_cgroup(&mut out, cgroup);
        }
        out.push_str("\n# the container's first process, in new namespaces\n");
        let _ = writeln!(out, "exec {}{} /bin/sh -eu /dev/fd/9 9<<'END_OF_INNER'", self.nsenter(), self.unshare());
        self.inner(&mut out);
        out.push_str("END_OF_INNER\n");
        out
    }

    fn nsenter(&self) -> String {
        let parent = self.before.iter().filter_map(|op| match op {
            ParentOp::Join { kind, source } => Some((kind, source)),
            _ => None,
        });
        let child = self.setup.iter().filter_map(|op| match op {
            SetupOp::Join { kind, source } => Some((kind, source)),
            _ => None,
        });
        let mut options = String::new();
        for (kind, source) in parent.chain(child) {
            match source {
                NamespaceSource::Path(p) => drop(write!(options, " --{}={}", option(*kind), path(p))),
                NamespaceSource::Given => drop(write!(options, " --{}=\"$ONGGI_NETNS\"", option(*kind))),
            }
        }
        if options.is_empty() { options } else { format!("nsenter{options} -- ") }
    }

    fn unshare(&self) -> String {
        let mut out = String::from("unshare");
        let cgroup = self.setup.contains(&SetupOp::NewCgroupNamespace).then_some(Kind::Cgroup);
        for kind in self.clone.iter().copied().chain(cgroup) {
            let _ = write!(out, " --{}", option(kind));
        }
        let by_child = self.setup.iter().filter_map(|op| match op {
            SetupOp::TimeOffsets { offsets } => Some(offsets),
            _ => None,
        });
        let by_parent = self.before.iter().filter_map(|op| match op {
            ParentOp::TimeOffsets { offsets } => Some(offsets),
            _ => None,
        });
        for offsets in by_parent.chain(by_child) {
            out.push_str(" --time");
            for (clock, offset) in offsets {
                let _ = write!(out, " --{clock} {}", offset.secs);
            }
        }
        for op in &self.after {
            if let ParentOp::WriteIdMaps { uid, gid, .. } = op {
                id_maps(&mut out, uid, gid);
            }
        }
        out + " --propagation slave --fork --kill-child"
    }

    fn inner(&self, out: &mut String) {
        out.push_str(FUNCTIONS);
        for op in &self.setup {
            setup_line(out, op);
        }
        let mut user = Credentials::default();
        for op in &self.process {
            process_line(out, op, &mut user);
        }
    }
}

fn option(kind: Kind) -> &'static str {
    match kind {
        Kind::Network => "net",
        Kind::Mount => "mount",
        other => other.proc_name(),
    }
}

fn id_maps(out: &mut String, uid: &[LinuxIdMapping], gid: &[LinuxIdMapping]) {
    if let ([u], [_]) = (uid, gid)
        && (u.container_id, u.size) == (0, 1)
    {
        out.push_str(" --map-root-user");
        return;
    }
    for (name, maps) in [("users", uid), ("groups", gid)] {
        for m in maps {
            let _ = write!(out, " --map-{name}={},{},{}", m.host_id, m.container_id, m.size);
        }
    }
}

fn outer_cgroup(out: &mut String, cgroup: &CgroupPlan) {
    out.push_str("\n# control groups and limits\n");
    if let Some(unit) = &cgroup.unit {
        let user = if unit.manager == Manager::User { " --user" } else { "" };
        let _ = writeln!(out, "# a process of its own keeps the unit until the container is in it");
        let _ = write!(out, "systemd-run{user} --scope --quiet --unit={}", quote(&unit.name));
        for property in &unit.properties {
            let _ = write!(out, " -p {}", quote(&property.words()));
        }
        let _ = writeln!(out, " sleep 10 &\nsleep 1");
    }
    for step in &cgroup.prepare {
        match step {
            Prepare::MakeDir { path: dir, .. } => drop(writeln!(out, "mkdir -p {}", path(dir))),
            Prepare::Inherit { path: dir, file } => {
                let (own, parent) = (path(&dir.join(file)), path(&dir.join("..").join(file)));
                let _ = writeln!(out, "[ -s {own} ] && grep -q . {own} || cat {parent} > {own}");
            }
            Prepare::Enable { path: dir, required, wanted } => {
                for controller in required.iter().chain(wanted) {
                    let file = path(&dir.join("cgroup.subtree_control"));
                    let _ = writeln!(out, "echo +{controller} > {file} 2>/dev/null || true");
                }
            }
            Prepare::Delegate { path: dir, uid } => {
                let dir = path(dir);
                let _ = writeln!(out, "chown {uid} {dir}");
                let _ =
                    writeln!(out, "(cd {dir} && chown {uid} $(cat /sys/kernel/cgroup/delegate) 2>/dev/null) || true");
            }
        }
    }
    for w in &cgroup.writes {
        let tolerate = if w.optional { " 2>/dev/null || true" } else { "" };
        let _ = writeln!(out, "echo {} > {}{tolerate}", quote(&w.value), path(&w.path.join(&w.file)));
    }
    for tasks in &cgroup.join.tasks {
        let _ = writeln!(out, "echo $$ > {}", path(tasks));
    }
    if let Some(dir) = &cgroup.join.clone_into {
        let _ = writeln!(out, "echo $$ > {}", path(&dir.join("cgroup.procs")));
    }
}

fn setup_line(out: &mut String, op: &SetupOp) {
    let _ = writeln!(out, "\n# {}", op.words());
    let _ = match op {
        // Done by unshare and nsenter.
        SetupOp::BecomeRoot { .. }
        | SetupOp::AwaitLimit
        | SetupOp::EnterCgroups
        | SetupOp::Join { .. }
        | SetupOp::NewCgroupNamespace
        | SetupOp::NewSession
        | SetupOp::TimeOffsets { .. }
        | SetupOp::NewKeyring { .. }
        | SetupOp::HostPropagation { .. }
        | SetupOp::BindRoot { .. }
        | SetupOp::OverlayRoot { .. }
        | SetupOp::AttachRoot { .. } => {
            root_line(out, op);
            Ok(())
        }
        SetupOp::SubOverlay { path: at, upper, work, flags, ids: _ } => {
            let dirs = Directories { lower: std::slice::from_ref(at), upper: Some((upper, work)) };
            overlay(out, dirs, *flags, &inside(at));
            Ok(())
        }
        SetupOp::Mount(m) => {
            mount(out, m);
            Ok(())
        }
        SetupOp::Bind(m) => {
            bind(out, m);
            Ok(())
        }
        SetupOp::Attributes { target, set } => {
            writeln!(out, "mount -o remount,bind,{} {}", words::attributes(*set), inside(target))
        }
        SetupOp::MakeDir { path: p, .. } => writeln!(out, "mkdir -p {}", inside(p)),
        SetupOp::Symlink { path: at, target, only_if } => {
            let condition = only_if.as_ref().map_or(String::new(), |p| format!("[ ! -e {} ] || ", path(p)));
            writeln!(out, "{condition}[ -L {0} ] || ln -s {1} {0}", inside(at), path(target))
        }
        SetupOp::Node(node) => {
            mknod(out, node);
            Ok(())
        }
        SetupOp::BindNode(node) => {
            writeln!(out, "target {0} {0}; mount --bind {0} {1}", path(&node.path), inside(&node.path))
        }
        SetupOp::Terminal { .. } => writeln!(out, "# (the script's own terminal is used)"),
        SetupOp::Sysctl { path: p, value, .. } => {
            writeln!(out, "echo {} > {}", quote(value), path(&Path::new("/proc/sys").join(p)))
        }
        SetupOp::Hostname { name } => writeln!(out, "echo {} > /proc/sys/kernel/hostname", quote(name)),
        SetupOp::Domainname { name } => writeln!(out, "echo {} > /proc/sys/kernel/domainname", quote(name)),
        SetupOp::LoopbackUp => writeln!(out, "ip link set lo up"),
        SetupOp::NetDevices { devices } => devices.iter().try_for_each(|d| {
            // The host's network namespace is that of the script's parent.
            let (name, new) = (quote(&d.name), quote(&d.new_name));
            writeln!(out, "nsenter --net=/proc/$PPID/ns/net ip link set {name} netns $$ name {new}")?;
            writeln!(out, "ip link set {new} up")
        }),
        SetupOp::RuntimeHooks { prestart, create_runtime } => {
            prestart.iter().chain(create_runtime).try_for_each(|h| writeln!(out, "# hook: {}", quote(&h.path)))
        }
        SetupOp::ContainerHooks { hooks } => hooks.iter().try_for_each(|h| writeln!(out, "# hook: {}", quote(&h.path))),
        SetupOp::Mask { path: p, .. } => writeln!(out, "hide {}", path(p)),
        SetupOp::ReadOnly { path: p } => writeln!(out, "readonly_path {}", path(p)),
        SetupOp::ReadOnlyRoot => writeln!(out, "mount -o remount,bind,ro \"$R\""),
        SetupOp::CoverHostSystems => out.write_str(COVER),
        SetupOp::ChangeRoot => writeln!(out, "cd \"$R\""),
        SetupOp::PivotRoot { .. } => writeln!(
            out,
            "# (moved over / and entered by chroot: after pivot_root no program of the host could finish the work)\n\
             cd \"$R\"\nmount --move . /"
        ),
        SetupOp::RootPropagation { propagation, recursive } => {
            writeln!(out, "mount --make-{}{} .", if *recursive { "r" } else { "" }, propagation.words())
        }
    };
}

fn root_line(out: &mut String, op: &SetupOp) {
    let _ = match op {
        SetupOp::BindRoot { source } => {
            let r = path(source);
            writeln!(out, "R={r}\nmount --rbind \"$R\" \"$R\"\nmount --make-rprivate \"$R\"")
        }
        SetupOp::OverlayRoot { overlay: o, ids: _ } => {
            let _ = writeln!(out, "R={}", path(&o.work));
            overlay(out, o.directories(), o.flags(), "\"$R\"");
            Ok(())
        }
        SetupOp::HostPropagation { propagation } => writeln!(out, "mount --make-r{} /", propagation.words()),
        _ => writeln!(out, "# (done above)"),
    };
}

fn overlay(out: &mut String, dirs: Directories<'_>, flags: OverlayFlags, at: &str) {
    if let Some((upper, work)) = dirs.upper {
        let _ = writeln!(out, "mkdir -p {} {}", path(upper), path(work));
        if flags.volatile {
            let _ = writeln!(out, "rm -rf {}", path(&work.join("work/incompat")));
        }
    }
    let _ = writeln!(out, "{}", dirs.command("overlay", flags.names(), at));
}

fn mount(out: &mut String, m: &FsMount) {
    let all = [words::attributes(m.attributes), m.data_text()];
    let all: Vec<&str> = all.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
    let options = if all.is_empty() { String::new() } else { format!("-o {} ", quote(&all.join(","))) };
    let at = inside(&m.target);
    let source = if m.source.is_empty() { "none" } else { &m.source };
    let _ = writeln!(out, "mkdir -p {at}");
    if m.copy_up {
        let _ = writeln!(out, "exec 8< {at}");
    }
    let _ = writeln!(out, "mount -t {} {options}{} {at}", quote(&m.fstype), quote(source));
    if m.copy_up {
        let _ = writeln!(out, "cp -a /proc/self/fd/8/. {at}; exec 8<&-");
        if let Some((_, Some(mode))) = m.data.iter().find(|(key, _)| key == "mode") {
            let _ = writeln!(out, "chmod {} {at}", quote(mode));
        }
    }
}

fn bind(out: &mut String, m: &BindMount) {
    let (from, at) = (path(&m.source), inside(&m.target));
    let how = if m.recursive { "--rbind" } else { "--bind" };
    let _ = writeln!(out, "target {from} {}\nmount {how} {from} {at}", path(&m.target));
    let bits = words::attributes(m.attributes.0 | m.recursive_attributes.0);
    if !bits.is_empty() {
        let _ = writeln!(out, "mount -o remount,bind,{bits} {at}");
    }
    let (propagation, recursive) = m.propagation.unwrap_or((super::Propagation::Private, true));
    let _ = writeln!(out, "mount --make-{}{} {at}", if recursive { "r" } else { "" }, propagation.words());
}

fn mknod(out: &mut String, node: &DeviceNode) {
    let at = inside(&node.path);
    let numbers = |kind| format!("{kind} {} {}", node.major, node.minor);
    let what = match node.kind {
        DeviceKind::Char => numbers("c"),
        DeviceKind::Block => numbers("b"),
        DeviceKind::Fifo => "p".to_owned(),
    };
    if let Some(parent) = node.path.parent().filter(|parent| *parent != Path::new("/dev")) {
        let _ = writeln!(out, "mkdir -p {}", inside(parent));
    }
    let _ = writeln!(out, "[ -e {at} ] || mknod -m {:04o} {at} {what}", node.mode);
    if (node.uid, node.gid) != (0, 0) {
        let _ = writeln!(out, "chown {}:{} {at}", node.uid, node.gid);
    }
}

/// What capsh is told at the end.
#[derive(Default)]
struct Credentials {
    options: String,
    cwd: PathBuf,
    /// HOME was found in /etc/passwd.
    home: bool,
    /// What the program is run through.
    prefix: &'static str,
    /// Who it becomes: uid, gid, and its further groups where they are set.
    ids: (u32, u32, Option<Vec<u32>>),
    /// Capabilities that stay in the bounding set.
    keep: u64,
    /// What gives it ambient capabilities.
    ambient: String,
}

/// Bit of CAP_SYS_CHROOT (capability.h).
const SYS_CHROOT: u64 = 1 << 18;

impl Credentials {
    /// capsh's options for who it becomes.
    fn identity(&self) -> String {
        let (uid, gid, groups) = &self.ids;
        let list = |groups: &Vec<u32>| groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let groups = groups.as_ref().map(|groups| format!(" --groups={}", list(groups))).unwrap_or_default();
        format!("{groups} --gid={gid} --uid={uid}{}", self.ambient)
    }

    /// unshare(1) changes root and directory as its last, so that nothing of the image is needed for that. It must have
    /// the capability to: another user than root loses it before, so unshare makes that user, who then has no further
    /// groups.
    fn through_unshare(&self) -> Option<String> {
        let (uid, gid, groups) = &self.ids;
        let at = format!("--root=. --wd={}", path(&self.cwd));
        let alone = groups.iter().flatten().all(|group| group == gid) && self.ambient.is_empty();
        match uid {
            _ if self.keep & SYS_CHROOT == 0 => None,
            0 => Some(format!("{} --shell=\"$(command -v unshare)\" -- {at}", self.identity())),
            _ if !alone => None,
            _ => Some(format!(" --shell=\"$(command -v unshare)\" -- {at} --setgid={gid} --setuid={uid}")),
        }
    }
}

/// chrt(1) knows every policy; a nice value is given by renice(1).
fn scheduler(out: &mut String, s: &Scheduler) -> std::fmt::Result {
    let policy = s.policy.trim_start_matches("SCHED_").to_ascii_lowercase();
    let times = match (s.runtime, s.deadline, s.period) {
        (0, 0, 0) => String::new(),
        (r, d, p) => format!(" --sched-runtime {r} --sched-deadline {d} --sched-period {p}"),
    };
    writeln!(out, "chrt --{policy}{times} -p {} $$", s.priority)?;
    if s.nice == 0 { Ok(()) } else { writeln!(out, "renice -n {} -p $$ >/dev/null", s.nice) }
}

fn process_line(out: &mut String, op: &ProcessOp, user: &mut Credentials) {
    if !matches!(op, ProcessOp::EnterDirectory { again: true, .. }) {
        let _ = writeln!(out, "\n# {}", op.words());
    }
    let _ = match op {
        ProcessOp::OomScore { value } => writeln!(out, "echo {value} > /proc/self/oom_score_adj || true"),
        ProcessOp::Rlimit(l) => {
            let name = l.name.trim_start_matches("RLIMIT_").to_ascii_lowercase();
            let n = |v: u64| if v == u64::MAX { "unlimited".to_owned() } else { v.to_string() };
            writeln!(out, "prlimit --pid $$ --{name}={}:{} || true", n(l.soft), n(l.hard))
        }
        ProcessOp::Scheduler(s) => scheduler(out, s),
        ProcessOp::IoPriority(p) => {
            let class = p.class.trim_start_matches("IOPRIO_CLASS_").to_ascii_lowercase();
            let class = match class.as_str() {
                "rt" => "realtime",
                "be" => "best-effort",
                _ => "idle",
            };
            writeln!(out, "ionice -c {class} -n {} -p $$", p.priority)
        }
        ProcessOp::Affinity { cpus } => {
            let mask = cpus.as_deref().map_or_else(|| "0xffffffffffffffff".into(), bits);
            writeln!(out, "taskset -p {mask} $$ >/dev/null")
        }
        ProcessOp::MemoryPolicy { .. } => writeln!(out, "# (numactl sets this at exec; here it is left out)"),
        ProcessOp::Personality { persona } => {
            user.prefix = if *persona == 0 { "" } else { "setarch linux32 " };
            Ok(())
        }
        ProcessOp::Home { uid } => writeln!(
            out,
            "HOME=$(sed -n 's/^[^:]*:[^:]*:{uid}:[^:]*:[^:]*:\\([^:]*\\):.*/\\1/p' etc/passwd 2>/dev/null | head -n 1)\n\
             : \"${{HOME:=/}}\""
        )
        .map(|()| user.home = true),
        ProcessOp::Umask { mask } => writeln!(out, "umask {mask:04o}"),
        ProcessOp::EnterDirectory { path: p, .. } => {
            user.cwd.clone_from(p);
            Ok(())
        }
        ProcessOp::NoNewPrivileges => write!(user.options, " --no-new-privs"),
        ProcessOp::Seccomp { .. } => writeln!(out, "# (no shell tool can do this: the script's container is weaker)"),
        ProcessOp::BoundingSet { keep } => {
            let list = dropped(*keep);
            user.keep = *keep;
            if list.is_empty() { Ok(()) } else { write!(user.options, " --drop={list}") }
        }
        ProcessOp::Credentials { uid, gid, groups } => {
            user.ids = (*uid, *gid, groups.clone());
            Ok(())
        }
        ProcessOp::Capabilities(sets) => capabilities(user, *sets),
        ProcessOp::Exec { args, env } => {
            exec(out, args, env, user);
            Ok(())
        }
        _ => Ok(()),
    };
}

fn dropped(keep: u64) -> String {
    let all = onggi_spec::capability::ALL.iter();
    let gone = all.filter(|name| onggi_spec::capability::number(name).is_some_and(|n| keep >> n & 1 == 0));
    gone.map(|n| n.to_ascii_lowercase()).collect::<Vec<_>>().join(",")
}

/// Root regains its bounding set at exec, others keep nothing: only ambient capabilities have to be said.
fn capabilities(user: &mut Credentials, sets: CapabilitySets) -> std::fmt::Result {
    if sets.ambient == 0 {
        return Ok(());
    }
    let names = words::capability_names(sets.ambient).to_ascii_lowercase().replace(", ", ",");
    write!(user.ambient, " --inh={names} --addamb={names}")
}

fn exec(out: &mut String, args: &[String], env: &[String], user: &Credentials) {
    let Some((name, rest)) = args.split_first() else { return };
    let search = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let _ = writeln!(out, "CMD={}", quote(name));
    if !name.contains('/') {
        let dirs: Vec<String> = search.split(':').filter(|d| d.starts_with('/')).map(quote).collect();
        let _ = writeln!(
            out,
            "for d in {}; do\n  if [ -x \".$d/$CMD\" ] || [ -L \".$d/$CMD\" ]; then CMD=$d/$CMD; break; fi\ndone",
            dirs.join(" ")
        );
    }
    let env: Vec<String> = env.iter().map(|word| quote(word)).collect();
    let rest: Vec<String> = rest.iter().map(|word| quote(word)).collect();
    let home = if user.home { "HOME=\"$HOME\" " } else { "" };
    let capsh = format!("exec {}env -i {home}{} \"$(command -v capsh)\"{}", user.prefix, env.join(" "), user.options);
    let (who, rest) = (user.identity(), rest.join(" "));
    let _ = match user.through_unshare() {
        _ if user.cwd == Path::new("/") || user.cwd.as_os_str().is_empty() => {
            writeln!(out, "{capsh} --chroot=.{who} --shell=\"$CMD\" -- {rest} 9<&-")
        }
        Some(unshare) => writeln!(out, "{capsh}{unshare} \"$CMD\" {rest} 9<&-"),
        None => writeln!(
            out,
            "# (a shell of the image changes the directory: nothing of the host's can with these credentials)\n\
             {capsh} --chroot=.{who} --shell=/bin/sh -- -c 'cd \"$0\" && exec \"$@\"' {} \"$CMD\" {rest} 9<&-",
            path(&user.cwd),
        ),
    };
}

//! The machine on which a page is carried out, and what may not be left on it.
//!
//! ```text
//! network, mounts, processes    crate::isolated
//! host name, System V IPC       new namespaces, kept in /run/onggi-labs/ns
//! /tmp, /var/lib/onggi          empty, in memory
//! /sys/fs/cgroup/CONTROLLER     onggi-labs-PID of the host, seen as the root: a cgroup namespace and mounts of its own
//! /var/lib/onggi-labs           the installed programs; its bin is the first directory of PATH
//! ```
//! So a page may use short names (`lab`, `br0`, `/tmp/lab`) and default directories, and two pages, or two runs of one, never
//! meet. In the virtual machine nothing is hidden; pages wait there for each other.

use std::{
    collections::BTreeSet,
    env, fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Stdio, id},
    thread,
    time::{Duration, Instant},
};

use super::DIR;
use crate::{isolated, machine::sh, onggi::installed};

/// On the host no command of a page takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The virtual machine's processor is emulated.
const PATIENCE_VM: Duration = Duration::from_secs(120);
/// Without /usr/local: pages name Debian's packages.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the machine's namespaces are kept, those that `isolated` does not make.
const KEPT: &str = "/run/onggi-labs/ns";
const KEPT_KINDS: [&str; 3] = ["cgroup", "ipc", "uts"];

/// Where a private machine has the image that its page asks for.
pub const IMAGE: &str = "/var/lib/onggi-labs-image";

/// A machine with control groups.
pub struct Machine {
    /// The groups that are its roots, by paths through `hierarchies`.
    private: Option<Vec<PathBuf>>,
    /// Roots of the host's hierarchies, which no mount shows any more.
    _hierarchies: Vec<fs::File>,
    /// Held as long as the page uses `/tmp/lab` of the virtual machine.
    _alone: Option<fs::File>,
    /// What the default directories of the virtual machine held before.
    was_there: BTreeSet<PathBuf>,
}

/// The engine's default directories, where pages keep their images.
const STORES: [&str; 2] = ["/var/lib/onggi", "/run/onggi"];

/// What is in them, and they themselves.
fn stores() -> BTreeSet<PathBuf> {
    let inner = STORES.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten().map(|entry| entry.path());
    inner.chain(STORES.iter().map(PathBuf::from).filter(|dir| dir.exists())).collect()
}

/// Removes what they hold besides, the deepest first; what cannot be removed is found by the look at what is left.
fn empty_stores(was_there: &BTreeSet<PathBuf>) {
    for path in stores().difference(was_there).collect::<Vec<_>>().into_iter().rev() {
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
}

impl Machine {
    /// A machine that nobody else sees; `image` is a directory that it sees as [`IMAGE`], whatever covers it.
    pub fn private(image: Option<&Path>) -> Machine {
        isolated();
        let prefix = installed("ONGGI_TEST_PREFIX", "dist");
        assert!(prefix.join("bin/onggi").is_file(), "{} is missing; `cargo xtask test` builds it", prefix.display());
        let prefix = fs::canonicalize(&prefix).expect("the prefix has a path");
        sh(&format!(
            "mkdir -p /run/onggi-labs/upper/onggi-labs /run/onggi-labs/upper/onggi /run/onggi-labs/work
             mount -t overlay -o lowerdir=/var/lib,upperdir=/run/onggi-labs/upper,workdir=/run/onggi-labs/work lab /var/lib
             mount --bind {} /var/lib/onggi-labs
             {}
             mount -t tmpfs -o mode=1777 tmpfs /tmp
             mount -t tmpfs tmpfs /var/lib/onggi
             ip netns add lab && ip netns del lab",
            prefix.display(),
            image.map(|dir| format!("mkdir {IMAGE}; mount --bind {} {IMAGE}", dir.display())).unwrap_or_default()
        ));
        let (hierarchies, groups) = private_cgroups();
        Machine { private: Some(groups), _hierarchies: hierarchies, _alone: None, was_there: BTreeSet::new() }
    }

    /// The virtual machine, alone.
    pub fn virtual_machine() -> Machine {
        // A lock file of its own would be left.
        let alone = fs::File::open("/var/lib").expect("open /var/lib");
        alone.lock().expect("lock it");
        Machine { private: None, _hierarchies: Vec::new(), _alone: Some(alone), was_there: stores() }
    }

    /// How long one command may take.
    pub fn patience(&self) -> Duration {
        if self.private.is_some() { PATIENCE } else { PATIENCE_VM }
    }

    /// A root shell of this machine that reads its standard input.
    pub fn shell(&self) -> Command {
        let groups = self.private.iter().flatten();
        // The namespace alone does not put a process into its root.
        let joins: String = groups.map(|group| format!("echo $$ > {}/cgroup.procs; ", group.display())).collect();
        let (enter, path) = match &self.private {
            Some(_) => (format!("nsenter {} bash", kept_namespaces()), format!("/var/lib/onggi-labs/bin:{PATH}")),
            None => ("bash".to_owned(), env::var("PATH").unwrap_or_default()),
        };
        let mut shell = Command::new("sh");
        // Pages show nice values and states of processes; whoever runs the tests may have made them nicer.
        let nice = "renice -n 0 -p $$ > /dev/null; ";
        shell.args(["-c", &format!("{joins}{nice}exec setsid {enter} --norc --noprofile")]);
        shell.current_dir("/tmp").env_clear().env("PATH", path);
        shell.envs([("HOME", "/root"), ("USER", "root"), ("LC_ALL", "C"), ("TERM", "dumb")]);
        shell
    }

    /// Every package that the page names is there.
    pub fn assert_installed(&self, packages: &[String]) {
        for package in packages {
            let status = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
            let found = status.is_ok_and(|output| output.stdout == b"installed");
            assert!(found, "the Debian package {package} is missing; `cargo xtask setup` installs it");
        }
    }

    /// What a page could leave.
    pub fn things(&self) -> BTreeSet<String> {
        let mut things = BTreeSet::new();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        things.extend(table.lines().filter_map(|line| line.split(' ').nth(4)).map(|at| format!("mount {at}")));
        let links = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
        things.extend(links.lines().filter_map(|line| Some(format!("link {}", line.split_once(':')?.0.trim()))));
        things.extend(names_in(Path::new("/run/netns"), "network namespace"));
        things.extend(printed("nft", &["list", "tables"]).lines().map(|table| format!("firewall {table}")));
        let loops = printed("losetup", &["--list", "--noheadings", "--output", "NAME,BACK-FILE"]);
        things.extend(loops.lines().filter(|line| line.contains(DIR)).map(|line| format!("loop device {line}")));
        things.extend(Path::new(DIR).exists().then(|| format!("directory {DIR}")));
        match &self.private {
            Some(groups) => {
                groups.iter().for_each(|group| below(group, &mut things));
                things.extend(processes());
            }
            None => {
                let mut all = BTreeSet::new();
                below(Path::new("/sys/fs/cgroup"), &mut all);
                things.extend(all.into_iter().filter(|group| group.contains("lab")));
            }
        }
        things
    }

    /// Waits until there is nothing that was not there before; the engine's bridge and table stay for its next container.
    ///
    /// # Panics
    /// With what is left.
    pub fn assert_as_before(&self, before: &BTreeSet<String>) {
        let begin = Instant::now();
        loop {
            let mut left: Vec<String> = self.things().difference(before).cloned().collect();
            let stays =
                |thing: &str| thing == "link onggi0" || (thing.starts_with("firewall ") && thing.ends_with(" onggi"));
            left.retain(|thing| !stays(thing));
            if left.is_empty() {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(5), "the page leaves behind:\n  {}", left.join("\n  "));
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn printed(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn names_in(dir: &Path, what: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| format!("{what} {}", entry.file_name().to_string_lossy())).collect()
}

/// Everything in this process namespace but its init and the test itself.
fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let line = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        (!rest.starts_with(" Z")).then(|| format!("process {name})"))
    };
    pids.filter(|pid| *pid != 1 && *pid != id()).filter_map(line).collect()
}

/// The groups below one.
fn below(group: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.insert(format!("cgroup {}", entry.path().display()));
            below(&entry.path(), found);
        }
    }
}

/// One group of ours in every hierarchy, shown as its root. What is above it can be reached by these descriptors alone:
/// programs must find one mount of each hierarchy, as on any machine.
fn private_cgroups() -> (Vec<fs::File>, Vec<PathBuf>) {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
    let mounted: Vec<Hierarchy> = table.lines().filter_map(Hierarchy::parse).collect();
    assert!(!mounted.is_empty(), "no control groups are mounted");
    let (mut hierarchies, mut groups, mut mounts) = (Vec::new(), Vec::new(), String::new());
    for hierarchy in &mounted {
        let root = fs::File::open(&hierarchy.target).expect("open the hierarchy's root");
        let outside = PathBuf::from(format!("/proc/{}/fd/{}", id(), root.as_raw_fd()));
        let group = outside.join(format!("onggi-labs-{}", unique()));
        fs::create_dir(&group).unwrap_or_else(|error| panic!("make cgroup in {}: {error}", hierarchy.target));
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // Where version 1 has it, a new group has no processor and takes no process.
            if let Ok(value) = fs::read_to_string(outside.join(file)) {
                let _ = fs::write(group.join(file), value);
            }
        }
        mounts.push_str(&hierarchy.mount_again());
        groups.push(group);
        hierarchies.push(root);
    }
    let joins: String = groups.iter().map(|group| format!("echo $$ > {}/cgroup.procs; ", group.display())).collect();
    sh(&format!("mkdir {KEPT}; touch {KEPT}/cgroup {KEPT}/ipc {KEPT}/uts"));
    let kept = kept_namespaces();
    sh(&format!("{joins} unshare {kept} hostname lab; nsenter {kept} sh -ec '{mounts}'"));
    (hierarchies, groups)
}

/// Options of unshare and nsenter.
fn kept_namespaces() -> String {
    KEPT_KINDS.map(|kind| format!("--{kind}={KEPT}/{kind}")).join(" ")
}

/// Tells the runs of one host apart: process ids are the namespace's own.
fn unique() -> String {
    let namespace = fs::read_link("/proc/self/ns/pid").expect("read the namespace's link");
    namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}

/// One mount of control groups.
struct Hierarchy {
    target: String,
    kind: String,
    options: String,
}

impl Hierarchy {
    /// A line of mountinfo.
    fn parse(line: &str) -> Option<Hierarchy> {
        let (head, tail) = line.split_once(" - ")?;
        let target = head.split(' ').nth(4)?.to_owned();
        let mut tail = tail.split(' ');
        let kind = tail.next().filter(|kind| kind.starts_with("cgroup"))?.to_owned();
        let options = tail.nth(1)?.split(',').filter(|option| !["rw", "ro", "xattr"].contains(option));
        Some(Hierarchy { target, kind, options: options.collect::<Vec<_>>().join(",") })
    }

    fn mount_again(&self) -> String {
        let options = match (self.kind.as_str(), self.options.as_str()) {
            ("cgroup2", _) => String::new(),
            (_, named) if named.starts_with("name=") => format!("-o none,{named}"),
            (_, controllers) => format!("-o {controllers}"),
        };
        format!("umount -l {0}; mount -t {1} {options} {1} {0}; ", self.target, self.kind)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.private.is_none() {
            empty_stores(&self.was_there);
        }
        // What is left has been reported by then; the groups must go so that the host is as it was.
        let groups = self.private.take().unwrap_or_default();
        let begin = Instant::now();
        while groups.iter().any(|group| group.exists()) && begin.elapsed() < Duration::from_secs(5) {
            for group in &groups {
                remove(group);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Ends what is in a group and below it, and removes it.
fn remove(group: &Path) {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|entry| remove(&entry.path()));
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let thaw = group.join("freezer.state");
    if thaw.exists() {
        let _ = fs::write(thaw, "THAWED");
    }
    for pid in members.lines().filter(|pid| *pid != "0") {
        let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
    }
    let _ = fs::remove_dir(group);
}

//! What a process sees of its container: a script for the container's shell, and the parser of its output.
//!
//! The script reads its own shell in /proc, so that what `env` or `ls` would add is not seen.

use std::{collections::BTreeMap, fs};

use onggi_tests::{Bundle, Instance};

/// Observations by name; equal names are compared between runtimes.
pub(crate) type View = BTreeMap<String, String>;

/// Prints sections that begin with `== name`.
pub(crate) const SCRIPT: &str = r#"
p=/proc/$$
s() { echo "== $1"; }
s process.args; for a in "$0" "$@"; do echo "[$a]"; done
s process.env; tr '\0' '\n' < $p/environ
s process.cwd; readlink $p/cwd
s status; while IFS= read -r l; do echo "$l"; done <$p/status
s limits; cat $p/limits
s process.oomScoreAdj; cat $p/oom_score_adj
s linux.personality; cat $p/personality
s stat; echo $$ $(sed 's/.*) //' $p/stat)
s process.ioPriority; ionice -p $$
s linux.timeOffsets; cat $p/timens_offsets
s hostname; cat /proc/sys/kernel/hostname
s domainname; cat /proc/sys/kernel/domainname
s linux.cgroupsPath; cat $p/cgroup
s mountinfo; cat $p/mountinfo
s ns; for n in cgroup ipc mnt net pid time user uts; do readlink $p/ns/$n; done
s linux.uidMappings; cat $p/uid_map
s linux.gidMappings; cat $p/gid_map
s setgroups; cat $p/setgroups
s fds; for f in $p/fd/*; do echo "${f##*/} $(readlink $f)"; done
s dev; stat -c '%n|%F|%a|%u:%g|%t:%T' /dev /dev/* /dev/pts/*
s links; for l in /dev/*; do [ ! -L $l ] || echo "$l -> $(readlink $l)"; done
s root; stat -c '%a %u:%g' / /proc /sys /tmp
s interfaces; ls /sys/class/net /proc/sys/net/ipv4/conf; cat /sys/class/net/lo/flags
s keyring; cat /proc/sys/kernel/keys/maxkeys >/dev/null && echo readable
s end
"#;

/// A bundle whose process prints what it sees.
pub(crate) fn bundle() -> Bundle {
    Bundle::new(&["sh", "-c", SCRIPT, "probe", "one", "two words"])
}

/// Runs a probe bundle to its end and parses what it printed.
pub(crate) fn look(instance: &Instance, bundle: &Bundle) -> View {
    let id = instance.id("probe");
    let ran = instance.run_bundle(bundle, &id);
    let mut view = parse(&ran.stdout, bundle, &id);
    view.insert("exit".to_owned(), format!("{:?}", ran.code));
    if ran.code != Some(0) || !ran.stderr.is_empty() {
        view.insert("~why".to_owned(), instance.explain(&ran));
    }
    view
}

/// A probe's output as observations, with what names the run taken out.
pub(crate) fn parse(text: &str, bundle: &Bundle, id: &str) -> View {
    let text = normalise(text, bundle, id);
    let mut view = View::new();
    let before = text.split("== ").next().unwrap_or_default().trim_end();
    if !before.is_empty() {
        view.insert("output".to_owned(), before.to_owned());
    }
    for section in text.split("== ").skip(1) {
        let (name, body) = section.split_once('\n').unwrap_or((section, ""));
        add(&mut view, name, body.trim_end());
    }
    view
}

/// Replaces the names of this run.
pub(crate) fn normalise(text: &str, bundle: &Bundle, id: &str) -> String {
    text.replace(&bundle.path().display().to_string(), "BUNDLE").replace(id, "ID")
}

fn add(view: &mut View, name: &str, body: &str) {
    match name {
        "status" => status(view, body),
        "limits" => {
            for line in body.lines().skip(1) {
                let (limit, values) = line.split_at(25.min(line.len()));
                let values: Vec<_> = values.split_whitespace().collect();
                view.insert(format!("process.rlimits {}", limit.trim()), values.join(" "));
            }
        }
        "stat" => stat(view, body),
        // The order of different variables means nothing.
        "process.env" => {
            let mut lines: Vec<_> = body.lines().collect();
            lines.sort_unstable();
            view.insert(name.to_owned(), lines.join("\n"));
        }
        "mountinfo" => mountinfo(view, body),
        "ns" => namespaces(view, body),
        "fds" => {
            let open: Vec<_> = body.lines().map(descriptor).collect();
            view.insert("fds".to_owned(), open.join("\n"));
        }
        "dev" => {
            for line in body.lines() {
                let (path, rest) = line.split_once('|').unwrap_or((line, ""));
                view.insert(format!("dev {path}"), rest.to_owned());
            }
        }
        "linux.cgroupsPath" => {
            for line in body.lines() {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controller, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                // Where a runtime puts a container without cgroupsPath is its own choice; being in one is not.
                let inside = path.contains("ID");
                view.insert(format!("cgroup {controller}"), if inside { "own" } else { "not own" }.to_owned());
            }
        }
        _ => {
            view.insert(name.to_owned(), body.to_owned());
        }
    }
}

/// The lines of /proc/PID/status that a runtime decides.
const STATUS: [&str; 19] = [
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Cpus_allowed_list",
    "Mems_allowed_list",
    "SigBlk",
    "SigIgn",
    "CoreDumping",
    "THP_enabled",
    "Threads",
];

fn status(view: &mut View, body: &str) {
    for line in body.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if !STATUS.contains(&name) {
            continue;
        }
        let words: Vec<_> = value.split_whitespace().collect();
        let value = match (name, u64::from_str_radix(value.trim(), 16)) {
            // Signals 32 and 33 belong to the C library, whose posix_spawn leaves them ignored.
            ("SigIgn", Ok(set)) => format!("{:016x}", set & !(0b11 << 31)),
            _ => words.join(" "),
        };
        view.insert(format!("status {name}"), value);
    }
}

/// proc_pid_stat(5) after the closing bracket of the name: state is field 3.
fn stat(view: &mut View, body: &str) {
    let fields: Vec<_> = body.split_whitespace().collect();
    // The pid itself comes before the state.
    let field = |number: usize| fields.get(number - 2).copied().unwrap_or("?").to_owned();
    let pid = field(2);
    for (name, number) in [("group leader", 5), ("session leader", 6)] {
        view.insert(format!("stat {name}"), (field(number) == pid).to_string());
    }
    view.insert("stat tty_nr".to_owned(), field(7));
    let scheduler = format!("nice {} rt_priority {} policy {}", field(19), field(40), field(41));
    view.insert("process.scheduler".to_owned(), scheduler);
}

/// Masked paths of the base configuration: what covers them is the runtime's choice.
const MASKED: [&str; 4] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"];

/// One observation per mount point; peer groups lose their numbers.
fn mountinfo(view: &mut View, body: &str) {
    let mut mounts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in body.lines() {
        let (left, right) = line.split_once(" - ").unwrap_or((line, ""));
        let left: Vec<_> = left.split(' ').collect();
        let [_, _, _, root, point, options, optional @ ..] = left.as_slice() else { continue };
        let peers: Vec<_> = optional.iter().map(|field| field.split(':').next().unwrap_or_default()).collect();
        let text = match MASKED.contains(point) {
            true => "masked".to_owned(),
            // Of the first mount of this sysfs on the machine, whoever made it.
            false if right.starts_with("sysfs") => format!("root={root} {options} [{}] sysfs", peers.join(",")),
            // 755 is the mode that a tmpfs is given afterwards when it is not an option; the files tell.
            false => format!("root={root} {options} [{}] {}", peers.join(","), right.replace(",mode=755", "")),
        };
        mounts.entry((*point).to_owned()).or_default().push(text);
    }
    for (point, stack) in mounts {
        view.insert(format!("mount {point}"), stack.join("\n"));
    }
}

/// Inode numbers become `own` or `host`.
fn namespaces(view: &mut View, body: &str) {
    for line in body.lines() {
        let kind = line.split(':').next().unwrap_or_default();
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        let whose = if host.to_string_lossy() == line { "host" } else { "own" };
        view.insert(format!("namespace {kind}"), whose.to_owned());
    }
}

/// The streams are the test's own files.
fn descriptor(line: &str) -> String {
    match line.split_once(' ') {
        Some((number @ ("0" | "1" | "2"), _)) => number.to_owned(),
        // Of the command substitution that reads the link.
        Some((_, pipe)) if pipe.starts_with("pipe:") => "pipe".to_owned(),
        _ => line.to_owned(),
    }
}

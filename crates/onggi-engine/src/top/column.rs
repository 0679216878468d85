//! Columns of `top`: Docker's, and Podman's by their names.

use std::str::FromStr;

use onggi_spec::{ParseError, capability};

use super::process::{Host, Names, Process, TICKS};

/// A column of `top`.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    name: &'static str,
    title: &'static str,
    value: fn(&Process, &Host) -> String,
}

impl PartialEq for Column {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Column {}

const fn column(name: &'static str, title: &'static str, value: fn(&Process, &Host) -> String) -> Column {
    Column { name, title, value }
}

/// Those of `ps -ef`.
const USUAL: [Column; 8] = [
    column("uid", "UID", |p, h| h.users.name(p.id("Uid", 1))),
    column("hpid", "PID", |p, _| p.pid.to_string()),
    column("hppid", "PPID", |p, _| p.stat(4).to_string()),
    column("c", "C", |p, h| share(p, h).min(99.0).floor().to_string()),
    column("stime", "STIME", |p, h| h.start(p)),
    column("tty", "TTY", |p, _| terminal(p.stat(7))),
    column("time", "TIME", |p, _| cpu_time(p)),
    column("cmd", "CMD", |p, _| p.command()),
];

/// Podman's, by name. Ids and names are the container's; those that begin with `h` are the host's.
const NAMED: [Column; 30] = [
    column("args", "COMMAND", |p, _| p.command()),
    column("capamb", "AMBIENT CAPS", |p, _| capabilities(p, "CapAmb")),
    column("capbnd", "BOUNDING CAPS", |p, _| capabilities(p, "CapBnd")),
    column("capeff", "EFFECTIVE CAPS", |p, _| capabilities(p, "CapEff")),
    column("capinh", "INHERITED CAPS", |p, _| capabilities(p, "CapInh")),
    column("capprm", "PERMITTED CAPS", |p, _| capabilities(p, "CapPrm")),
    column("comm", "COMMAND", |p, _| p.comm.clone()),
    column("etime", "ELAPSED", |p, h| clock(h.age(p))),
    column("group", "GROUP", |p, h| h.inner_groups.name(p.inner_gid(p.id("Gid", 1)))),
    column("groups", "GROUPS", |p, h| groups(p, &h.inner_groups, |gid| p.inner_gid(gid))),
    column("hgroup", "HGROUP", |p, h| h.groups.name(p.id("Gid", 1))),
    column("hgroups", "HGROUPS", |p, h| groups(p, &h.groups, |gid| gid)),
    column("hpid", "HPID", |p, _| p.pid.to_string()),
    column("huser", "HUSER", |p, h| h.users.name(p.id("Uid", 1))),
    column("label", "LABEL", |p, _| p.label.clone()),
    column("nice", "NI", |p, _| p.stat(19).to_string()),
    column("pcpu", "%CPU", |p, h| format!("{:.3}", share(p, h))),
    column("pgid", "PGID", |p, _| inner(p, "NSpgid")),
    column("pid", "PID", |p, _| p.inner_pid()),
    column("ppid", "PPID", |p, _| parent(p)),
    column("rgroup", "RGROUP", |p, h| h.inner_groups.name(p.inner_gid(p.id("Gid", 0)))),
    column("rss", "RSS", |p, _| p.status("VmRSS").trim_end_matches(" kB").to_owned()),
    column("ruser", "RUSER", |p, h| h.inner_users.name(p.inner_uid(p.id("Uid", 0)))),
    column("seccomp", "SECCOMP", |p, _| seccomp(p)),
    column("state", "STATE", |p, _| p.state().to_owned()),
    column("stime", "STIME", |p, h| h.start(p)),
    column("time", "TIME", |p, _| cpu_time(p)),
    column("tty", "TTY", |p, _| terminal(p.stat(7))),
    column("user", "USER", |p, h| h.inner_users.name(p.inner_uid(p.id("Uid", 1)))),
    column("vsz", "VSZ", |p, _| (p.stat(23) / 1024).to_string()),
];

impl Column {
    /// Docker's columns.
    pub(super) fn usual() -> Vec<Column> {
        USUAL.to_vec()
    }

    /// What stands above it.
    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    pub(super) fn value(&self, process: &Process, host: &Host) -> String {
        (self.value)(process, host)
    }

    /// Every name that a column can be asked for by.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|column| column.name)
    }
}

impl FromStr for Column {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        NAMED.iter().find(|column| column.name == text).copied().ok_or_else(|| {
            let names: Vec<&str> = Self::names().collect();
            ParseError::new("column", text, "there is none of this name").hint(format!("columns: {}", names.join(", ")))
        })
    }
}

/// Percent of one CPU over its life.
fn share(process: &Process, host: &Host) -> f64 {
    match host.age(process) {
        0 => 0.0,
        age => process.cpu_ticks() as f64 * 100.0 / TICKS as f64 / age as f64,
    }
}

/// `[days-]hh:mm:ss`.
fn clock(seconds: u64) -> String {
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let text = format!("{:02}:{minutes:02}:{seconds:02}", hours % 24);
    if hours < 24 { text } else { format!("{}-{text}", hours / 24) }
}

fn cpu_time(process: &Process) -> String {
    clock(process.cpu_ticks() / TICKS)
}

/// The name of a terminal by its device number (Documentation/admin-guide/devices.txt).
fn terminal(device: i64) -> String {
    let device = u32::try_from(device).unwrap_or(0);
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match (major, minor) {
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        (4, 0..=63) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        (5, 1) => "console".to_owned(),
        _ => "?".to_owned(),
    }
}

/// The last number of a line that has one for each pid namespace.
fn inner(process: &Process, key: &str) -> String {
    process.status(key).split_ascii_whitespace().last().unwrap_or("0").to_owned()
}

/// Its parent's number in the container; 0 for one that comes from outside.
fn parent(process: &Process) -> String {
    let depth = |p: &Process| p.status("NSpid").split_ascii_whitespace().count();
    let found = i32::try_from(process.stat(4)).ok().and_then(Process::read);
    found.filter(|parent| depth(parent) == depth(process)).map_or_else(|| "0".to_owned(), |p| p.inner_pid())
}

fn groups(process: &Process, names: &Names, id: impl Fn(u32) -> u32) -> String {
    let ids = process.status("Groups").split_ascii_whitespace().filter_map(|word| word.parse().ok());
    ids.map(|gid| names.name(id(gid))).collect::<Vec<_>>().join(",")
}

/// `none`, `full`, or the names as in capabilities(7) without their beginning, which all share.
fn capabilities(process: &Process, key: &str) -> String {
    let mask = u64::from_str_radix(process.status(key), 16).unwrap_or(0);
    let names: Vec<String> = capability::numbers(mask)
        .map(|number| capability::lower_name(number).trim_start_matches("cap_").to_uppercase())
        .collect();
    match names.len() {
        0 => "none".to_owned(),
        // Linux 5.9 has 41, and there have been no more since.
        41.. => "full".to_owned(),
        _ => names.join(","),
    }
}

fn seccomp(process: &Process) -> String {
    let mode = match process.status("Seccomp") {
        "0" => "disabled",
        "1" => "strict",
        "2" => "filter",
        other => other,
    };
    mode.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_and_times_are_written_as_ps_does() {
        assert_eq!(
            [0, 34_816, 34_818, 1025, 1088, 1281].map(terminal),
            ["?", "pts/0", "pts/2", "tty1", "ttyS0", "console"]
        );
        assert_eq!([0, 61, 3_600, 90_061].map(clock), ["00:00:00", "00:01:01", "01:00:00", "1-01:01:01"]);
    }

    #[test]
    fn columns_are_found_by_their_names() {
        assert_eq!("ppid".parse::<Column>().map(|c| c.title()).ok(), Some("PPID"));
        let hint = "uid".parse::<Column>().expect_err("Docker's own are no names").hint;
        assert!(hint.contains("args, capamb") && hint.ends_with("vsz"), "{hint}");
    }
}

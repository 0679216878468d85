//! What /proc says of a process (proc_pid_stat(5), proc_pid_status(5)). One that has ended meanwhile is left out.

use std::{collections::BTreeMap, path::Path};

use jiff::{Timestamp, tz::TimeZone};
use onggi_sys::small_file;

/// Longest file of /proc that is read; command lines may be longer than anybody reads (I12).
const MAX_FILE: usize = 1 << 20;

/// Clock ticks in a second as user space counts them: a constant of the kernel's interface on x86-64.
pub(super) const TICKS: u64 = 100;

/// A process at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Process {
    /// Its number here.
    pub(super) pid: i32,
    /// Its name.
    pub(super) comm: String,
    /// Fields of `stat` behind the name: the state is the first one.
    stat: Vec<String>,
    /// Fields of `status`.
    status: BTreeMap<String, String>,
    /// Program and arguments; empty of a zombie.
    pub(super) args: String,
    /// Its label of the security module.
    pub(super) label: String,
    uid_map: IdMap,
    gid_map: IdMap,
}

impl Process {
    pub(super) fn read(pid: i32) -> Option<Self> {
        let file = |name: &str| {
            let bytes = small_file::read(Path::new(&format!("/proc/{pid}/{name}")), MAX_FILE).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let mut process = Self::parse(pid, &file("stat")?, &file("status")?)?;
        process.args = file("cmdline").unwrap_or_default().trim_end_matches('\0').replace('\0', " ");
        process.label = file("attr/current").unwrap_or_default().trim_end_matches(['\0', '\n']).to_owned();
        process.uid_map = IdMap::parse(&file("uid_map").unwrap_or_default());
        process.gid_map = IdMap::parse(&file("gid_map").unwrap_or_default());
        Some(process)
    }

    /// The name in parentheses may hold anything, even `)`.
    fn parse(pid: i32, stat: &str, status: &str) -> Option<Self> {
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let comm = stat.get(open + 1..close)?.to_owned();
        let stat = stat.get(close + 1..)?.split_ascii_whitespace().map(str::to_owned).collect();
        let field = |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        Some(Self { pid, comm, stat, status: status.lines().filter_map(field).collect(), ..Self::default() })
    }

    /// Field `number` of `stat`, as proc_pid_stat(5) counts them, from 3 on.
    pub(super) fn stat(&self, number: usize) -> i64 {
        self.stat.get(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub(super) fn state(&self) -> &str {
        self.stat.first().map_or("?", String::as_str)
    }

    /// A line of `status`; empty where this kernel has none.
    pub(super) fn status(&self, key: &str) -> &str {
        self.status.get(key).map_or("", String::as_str)
    }

    /// A word of a line of `status`: of ids the first is the real one, the second the effective one.
    pub(super) fn id(&self, key: &str, at: usize) -> u32 {
        self.status(key).split_ascii_whitespace().nth(at).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Its number in its own pid namespace.
    pub(super) fn inner_pid(&self) -> String {
        self.status("NSpid").split_ascii_whitespace().last().map_or_else(|| self.pid.to_string(), str::to_owned)
    }

    /// Program and arguments; the name in brackets where there are none, as ps(1).
    pub(super) fn command(&self) -> String {
        if self.args.is_empty() { format!("[{}]", self.comm) } else { self.args.clone() }
    }

    /// Ticks of CPU time.
    pub(super) fn cpu_ticks(&self) -> u64 {
        u64::try_from(self.stat(14) + self.stat(15)).unwrap_or(0)
    }

    /// A user id as its user namespace has it.
    pub(super) fn inner_uid(&self, uid: u32) -> u32 {
        self.uid_map.inside(uid)
    }

    /// A group id as its user namespace has it.
    pub(super) fn inner_gid(&self, gid: u32) -> u32 {
        self.gid_map.inside(gid)
    }
}

/// `uid_map`: first id inside, first id outside, how many.
#[derive(Debug, Clone, Default)]
struct IdMap(Vec<[u32; 3]>);

impl IdMap {
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u32>().ok());
            Some([numbers.next()??, numbers.next()??, numbers.next()??])
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// An id that is not mapped is nobody's, as the kernel has it.
    fn inside(&self, id: u32) -> u32 {
        let within = |[_, outside, count]: &&[u32; 3]| id >= *outside && id - outside < *count;
        self.0.iter().find(within).map_or(65_534, |[inside, outside, _]| inside + (id - outside))
    }
}

/// Names by number, from passwd(5) or group(5).
#[derive(Debug, Clone, Default)]
pub(super) struct Names(BTreeMap<u32, String>);

impl Names {
    pub(super) fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
        };
        // The first of several names counts, as for getpwuid(3).
        Self(text.lines().rev().filter_map(entry).collect())
    }

    /// The name, or the number.
    pub(super) fn name(&self, id: u32) -> String {
        self.0.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }
}

/// What is known beside the processes.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// Users and groups of this machine.
    pub(super) users: Names,
    pub(super) groups: Names,
    /// Those of the container.
    pub(super) inner_users: Names,
    pub(super) inner_groups: Names,
    /// Unix time of the boot, and seconds since.
    boot: i64,
    uptime: u64,
    /// Now, where this machine is.
    now: Timestamp,
    zone: TimeZone,
}

impl Host {
    pub(super) fn read(inner_users: Names, inner_groups: Names) -> Self {
        let names = |path| Names::parse(&small_file::read_text(Path::new(path)).unwrap_or_default());
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = Timestamp::now();
        Self {
            users: names("/etc/passwd"),
            groups: names("/etc/group"),
            inner_users,
            inner_groups,
            boot: now.as_second() - up.tv_sec,
            uptime: u64::try_from(up.tv_sec).unwrap_or(0),
            now,
            zone: TimeZone::system(),
        }
    }

    /// Seconds since a process was started.
    pub(super) fn age(&self, process: &Process) -> u64 {
        self.uptime.saturating_sub(u64::try_from(process.stat(22)).unwrap_or(0) / TICKS)
    }

    /// `14:07` of today, `Feb03` of this year, or the year, as ps(1).
    pub(super) fn start(&self, process: &Process) -> String {
        let seconds = self.boot + process.stat(22) / TICKS.cast_signed();
        let Ok(at) = Timestamp::from_second(seconds) else { return "?".to_owned() };
        let (at, now) = (at.to_zoned(self.zone.clone()), self.now.to_zoned(self.zone.clone()));
        let format = match (at.year() == now.year(), at.day_of_year() == now.day_of_year()) {
            (false, _) => "%Y",
            (true, false) => "%b%d",
            (true, true) => "%H:%M",
        };
        at.strftime(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a) (b)) S 1 7 7 34817 7 4194304 1 2 3 4 250 50 0 0 20 -5 1 0 1000 4096 12 0";
    const STATUS: &str = "Name:\ta\nUid:\t1000\t1001\t1\t1\nNSpid:\t7\t3\nGroups:\t\n";

    #[test]
    fn fields_are_counted_behind_a_name_that_holds_anything() {
        let process = Process::parse(7, STAT, STATUS).expect("parses");
        assert_eq!((process.comm.as_str(), process.state()), ("a) (b)", "S"));
        assert_eq!([4, 7, 19, 22].map(|n| process.stat(n)), [1, 34817, -5, 1000]);
        assert_eq!((process.id("Uid", 0), process.id("Uid", 1), process.cpu_ticks()), (1000, 1001, 300));
        assert_eq!((process.inner_pid(), process.command()), ("3".to_owned(), "[a) (b)]".to_owned()));
        assert!(Process::parse(7, "7 a S", "").is_none());
    }

    #[test]
    fn ids_are_shown_as_the_container_has_them() {
        let map = IdMap::parse("         0     100000      65536\n");
        assert_eq!([100_000, 100_033, 0, 165_536].map(|id| map.inside(id)), [0, 33, 65_534, 65_534]);
        let names = Names::parse("root:x:0:0::/:\ntoor:x:0:0::/:\n:x:5:\nbroken\n");
        assert_eq!((names.name(0), names.name(5)), ("root".to_owned(), "5".to_owned()));
    }

    #[test]
    fn this_process_is_read() {
        let own = Process::read(std::process::id().cast_signed()).expect("it is there");
        assert!(own.age_is_sane(&Host::read(Names::default(), Names::default())) && !own.args.is_empty());
        assert!(Process::read(0).is_none());
    }

    impl Process {
        fn age_is_sane(&self, host: &Host) -> bool {
            host.age(self) < 86_400 && host.start(self).contains([':', '0', '1', '2', '3'])
        }
    }
}

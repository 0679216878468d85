//! What a container uses, read from its control files. No sampling: counters as they stand.

use std::{fs, path::Path};

use onggi_spec::monitor::LimitEvents;
use serde::{Deserialize, Serialize};

use crate::{CgroupError, Paths, procs::is_gone};

/// Usage of one container. A counter that this kernel does not keep is 0 or `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Of it in user mode.
    pub cpu_user_ns: u64,
    /// Of it in the kernel.
    pub cpu_system_ns: u64,
    /// Periods in which the CPU limit stopped the container.
    pub throttled_periods: u64,
    /// Nanoseconds for which it was stopped.
    pub throttled_ns: u64,
    /// Memory in bytes, page cache included.
    pub memory: u64,
    /// Of it, page cache that is not in active use; tools show `memory - inactive_file`.
    pub inactive_file: u64,
    /// Highest usage in bytes.
    pub memory_peak: Option<u64>,
    /// Limit in bytes; `None` is unlimited.
    pub memory_limit: Option<u64>,
    /// Swap in bytes.
    pub swap: Option<u64>,
    /// Tasks (processes and threads).
    pub pids: u64,
    /// Limit of tasks; `None` is unlimited.
    pub pids_limit: Option<u64>,
    /// Block I/O per device.
    pub io: Vec<IoStat>,
}

/// Block I/O on one device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IoStat {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// Version 1 shows "unlimited" as the largest page-aligned number.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

/// Reads the counters.
///
/// # Errors
/// A file that exists and cannot be read. Groups that are gone give zeros.
pub fn stats(paths: &Paths) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    for (controller, dir) in paths {
        match controller.as_str() {
            "" => v2(dir, paths, &mut stats)?,
            "cpu" => throttling(&Fields::read(dir, "cpu.stat")?, 1, "throttled_time", &mut stats),
            "cpuacct" => v1_cpuacct(dir, &mut stats)?,
            "memory" => v1_memory(dir, &mut stats)?,
            "pids" => pids(dir, &mut stats)?,
            "blkio" => v1_blkio(dir, &mut stats)?,
            _ => {}
        }
    }
    Ok(stats)
}

/// How many processes of the container the OOM killer has ended.
pub fn oom_count(paths: &Paths) -> Result<u64, CgroupError> {
    let v1 = paths.get("memory").map(|dir| Fields::read(dir, "memory.oom_control"));
    let v2 = paths.get("").map(|dir| Fields::read(dir, "memory.events"));
    let mut count = 0;
    for fields in [v1, v2].into_iter().flatten() {
        count += fields?.get("oom_kill");
    }
    Ok(count)
}

/// What the limits of a group have to do with an end: counted events, limits, the highest usage. What this kernel does
/// not tell is absent or 0; nothing here is worth a failure.
pub fn limit_events(paths: &Paths) -> LimitEvents {
    let read = |dir: &Path, file: &str, key: &str| Fields::read(dir, file).map_or(0, |fields| fields.get(key));
    let value = |dir: &Path, file: &str| number(dir, file).ok().flatten();
    let mut events = LimitEvents { oom_kills: oom_count(paths).unwrap_or(0), ..LimitEvents::default() };
    let unified = paths.get("");
    if let Some(dir) = paths.get("memory") {
        events.memory_peak = value(dir, "memory.max_usage_in_bytes");
        events.memory_limit = value(dir, "memory.limit_in_bytes").filter(|n| *n < V1_UNLIMITED);
        events.memory_hits = value(dir, "memory.failcnt").unwrap_or(0);
    } else if let Some(dir) = unified {
        events.memory_peak = value(dir, "memory.peak");
        events.memory_limit = value(dir, "memory.max");
        events.memory_hits = read(dir, "memory.events", "max");
    }
    if let Some(dir) = paths.get("pids").or(unified) {
        events.pids_limit = value(dir, "pids.max");
        events.pids_hits = read(dir, "pids.events", "max");
    }
    events
}

/// On hybrid layouts this group has no controllers: it counts CPU time and tasks where version 1 does not.
fn v2(dir: &Path, paths: &Paths, stats: &mut Stats) -> Result<(), CgroupError> {
    if !paths.contains_key("cpuacct") {
        let cpu = Fields::read(dir, "cpu.stat")?;
        stats.cpu_ns = cpu.get("usage_usec").saturating_mul(1000);
        stats.cpu_user_ns = cpu.get("user_usec").saturating_mul(1000);
        stats.cpu_system_ns = cpu.get("system_usec").saturating_mul(1000);
        throttling(&cpu, 1000, "throttled_usec", stats);
    }
    if !paths.contains_key("pids") {
        pids(dir, stats)?;
        if stats.pids == 0 {
            stats.pids = text(dir, "cgroup.threads")?.lines().count() as u64;
        }
    }
    if !paths.contains_key("memory") {
        stats.memory = number(dir, "memory.current")?.unwrap_or(0);
        stats.memory_peak = number(dir, "memory.peak")?;
        stats.memory_limit = number(dir, "memory.max")?;
        stats.swap = number(dir, "memory.swap.current")?;
        stats.inactive_file = Fields::read(dir, "memory.stat")?.get("inactive_file");
    }
    stats.io = text(dir, "io.stat")?.lines().filter_map(io_line).collect();
    Ok(())
}

fn throttling(cpu: &Fields, unit: u64, time: &str, stats: &mut Stats) {
    stats.throttled_periods = cpu.get("nr_throttled");
    stats.throttled_ns = cpu.get(time).saturating_mul(unit);
}

fn v1_cpuacct(dir: &Path, stats: &mut Stats) -> Result<(), CgroupError> {
    stats.cpu_ns = number(dir, "cpuacct.usage")?.unwrap_or(0);
    stats.cpu_user_ns = number(dir, "cpuacct.usage_user")?.unwrap_or(0);
    stats.cpu_system_ns = number(dir, "cpuacct.usage_sys")?.unwrap_or(0);
    Ok(())
}

fn v1_memory(dir: &Path, stats: &mut Stats) -> Result<(), CgroupError> {
    stats.memory = number(dir, "memory.usage_in_bytes")?.unwrap_or(0);
    stats.memory_peak = number(dir, "memory.max_usage_in_bytes")?;
    stats.memory_limit = number(dir, "memory.limit_in_bytes")?.filter(|n| *n < V1_UNLIMITED);
    let both = number(dir, "memory.memsw.usage_in_bytes")?;
    stats.swap = both.map(|n| n.saturating_sub(stats.memory));
    stats.inactive_file = Fields::read(dir, "memory.stat")?.get("total_inactive_file");
    Ok(())
}

fn pids(dir: &Path, stats: &mut Stats) -> Result<(), CgroupError> {
    stats.pids = number(dir, "pids.current")?.unwrap_or(0);
    stats.pids_limit = number(dir, "pids.max")?;
    Ok(())
}

fn v1_blkio(dir: &Path, stats: &mut Stats) -> Result<(), CgroupError> {
    for (file, bytes) in
        [("blkio.throttle.io_service_bytes_recursive", true), ("blkio.throttle.io_serviced_recursive", false)]
    {
        for line in text(dir, file)?.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(device), Some(kind), Some(value)) = (words.next(), words.next(), words.next()) else { continue };
            let (Some((major, minor)), Ok(value)) = (device_number(device), value.parse()) else { continue };
            let io = device_entry(&mut stats.io, major, minor);
            match (kind, bytes) {
                ("Read", true) => io.read_bytes = value,
                ("Write", true) => io.write_bytes = value,
                ("Read", false) => io.reads = value,
                ("Write", false) => io.writes = value,
                _ => {}
            }
        }
    }
    Ok(())
}

fn device_entry(all: &mut Vec<IoStat>, major: u32, minor: u32) -> &mut IoStat {
    let at = all.iter().position(|i| (i.major, i.minor) == (major, minor)).unwrap_or_else(|| {
        all.push(IoStat { major, minor, ..IoStat::default() });
        all.len() - 1
    });
    &mut all[at]
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn io_line(line: &str) -> Option<IoStat> {
    let mut words = line.split_ascii_whitespace();
    let (major, minor) = device_number(words.next()?)?;
    let mut io = IoStat { major, minor, ..IoStat::default() };
    for (key, value) in words.filter_map(|w| w.split_once('=')) {
        let value = value.parse().unwrap_or(0);
        match key {
            "rbytes" => io.read_bytes = value,
            "wbytes" => io.write_bytes = value,
            "rios" => io.reads = value,
            "wios" => io.writes = value,
            _ => {}
        }
    }
    Some(io)
}

fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A flat-keyed file: `key value` lines.
pub(crate) struct Fields(String);

impl Fields {
    pub(crate) fn read(dir: &Path, file: &str) -> Result<Self, CgroupError> {
        text(dir, file).map(Self)
    }

    pub(crate) fn get(&self, key: &str) -> u64 {
        let value = self.0.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
    }
}

/// One number; `max` and an absent file are `None`.
fn number(dir: &Path, file: &str) -> Result<Option<u64>, CgroupError> {
    Ok(text(dir, file)?.trim().parse().ok())
}

/// A control file; empty when the kernel or the group lacks it.
fn text(dir: &Path, file: &str) -> Result<String, CgroupError> {
    let path = dir.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        // EOPNOTSUPP: a file of a feature that is switched off (pressure, weights).
        Err(e) if is_gone(e.raw_os_error().unwrap_or(0)) || e.kind() == std::io::ErrorKind::Unsupported => {
            Ok(String::new())
        }
        Err(source) => Err(CgroupError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("write");
        }
        dir
    }

    #[test]
    fn version_2_counters_are_read_in_bytes_and_nanoseconds() {
        let d = dir(&[
            ("cgroup.controllers", "cpu io memory pids\n"),
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 7\nthrottled_usec 9\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\ninactive_file 1024\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n"),
            ("pids.current", "3\n"),
            ("pids.max", "100\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n\n"),
        ]);
        let paths = Paths::from([(String::new(), d.path().to_owned())]);
        let s = stats(&paths).expect("stats");
        assert_eq!((s.cpu_ns, s.cpu_user_ns, s.cpu_system_ns), (5000, 3000, 2000));
        assert_eq!((s.throttled_periods, s.throttled_ns), (7, 9000));
        assert_eq!((s.memory, s.inactive_file, s.memory_limit), (4096, 1024, None));
        assert_eq!((s.pids, s.pids_limit), (3, Some(100)));
        assert_eq!(s.io, [IoStat { major: 8, minor: 0, read_bytes: 1, write_bytes: 2, reads: 3, writes: 4 }]);
        assert_eq!(oom_count(&paths).expect("oom"), 1);
    }

    #[test]
    fn version_1_unlimited_memory_is_none_and_io_is_gathered_per_device() {
        let d = dir(&[
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.memsw.usage_in_bytes", "5000\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"),
            ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n"),
            ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\n8:0 Write 2\n"),
        ]);
        let paths = Paths::from(["memory", "blkio"].map(|c| (c.to_owned(), d.path().to_owned())));
        let s = stats(&paths).expect("stats");
        assert_eq!((s.memory, s.memory_limit, s.swap), (4096, None, Some(904)));
        assert_eq!(s.io, [IoStat { major: 8, minor: 0, read_bytes: 10, write_bytes: 20, reads: 1, writes: 2 }]);
        assert_eq!(oom_count(&paths).expect("oom"), 4);
    }

    #[test]
    fn a_container_that_is_gone_has_used_nothing() {
        let paths = Paths::from([("memory".to_owned(), "/nonexistent".into()), (String::new(), "/nonexistent".into())]);
        assert_eq!(stats(&paths).expect("stats"), Stats::default());
        assert_eq!(oom_count(&paths).expect("oom"), 0);
    }
}

//! Everything the kernel counts for a container, in the shape of runc's `events` command (types/events.go):
//! engines and monitoring tools parse it. Members are left out where runc leaves them out.
//!
//! Counters as they stand, no sampling. What this kernel or version does not count is 0 or left out. Input
//! is the kernel's own text; a line that cannot be read is skipped, never an error.

mod v1;
mod v2;

use std::{collections::BTreeMap, fs, path::Path};

use serde::Serialize;

use crate::{CgroupError, Paths, procs::is_gone};

/// Usage of one container.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Usage {
    /// CPU time.
    pub cpu: Cpu,
    /// CPU and memory node lists.
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block I/O.
    pub blkio: Blkio,
    /// Huge pages by size: `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// RDMA by device; left out when nothing is counted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rdma: BTreeMap<String, Rdma>,
    /// Intel RDT; the runtime has nothing to add.
    pub intel_rdt: BTreeMap<String, String>,
    /// Network interfaces: none, the runtime makes none.
    pub network_interfaces: Option<Vec<()>>,
}

/// CPU usage.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// Time withheld.
    pub throttling: Throttling,
    /// Pressure (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// CPU time in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CpuUsage {
    /// All.
    #[serde(skip_serializing_if = "zero")]
    pub total: u64,
    /// By CPU (version 1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel, by CPU (version 1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// In user mode, by CPU (version 1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}

/// What the CPU limit has withheld.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that have passed.
    #[serde(skip_serializing_if = "zero")]
    pub periods: u64,
    /// Those in which the container was stopped.
    #[serde(skip_serializing_if = "zero")]
    pub throttled_periods: u64,
    /// Nanoseconds for which it was.
    #[serde(skip_serializing_if = "zero")]
    pub throttled_time: u64,
}

/// Pressure stall information (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Psi {
    /// Some tasks waited.
    pub some: PsiLine,
    /// All tasks waited.
    pub full: PsiLine,
}

/// One line of a pressure file.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct PsiLine {
    /// Percent over 10 s.
    pub avg10: f64,
    /// Percent over 60 s.
    pub avg60: f64,
    /// Percent over 300 s.
    pub avg300: f64,
    /// Microseconds in all.
    pub total: u64,
}

/// The cpuset controller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CpuSet {
    /// CPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// `cpuset.cpu_exclusive`.
    pub cpu_exclusive: u64,
    /// Memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// `cpuset.mem_hardwall`.
    pub mem_hardwall: u64,
    /// `cpuset.mem_exclusive`.
    pub mem_exclusive: u64,
    /// `cpuset.memory_migrate`.
    pub memory_migrate: u64,
    /// `cpuset.memory_spread_page`.
    pub memory_spread_page: u64,
    /// `cpuset.memory_spread_slab`.
    pub memory_spread_slab: u64,
    /// `cpuset.memory_pressure`.
    pub memory_pressure: u64,
    /// `cpuset.sched_load_balance`.
    pub sched_load_balance: u64,
    /// `cpuset.sched_relax_domain_level`.
    pub sched_relax_domain_level: i64,
}

/// Memory in bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap (version 1), swap (version 2).
    pub swap: MemoryEntry,
    /// Kernel memory (version 1).
    pub kernel: MemoryEntry,
    /// TCP buffers (version 1).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One kind of memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MemoryEntry {
    /// Limit; unlimited is 2^64 - 1 on version 2 and what the kernel shows on version 1.
    pub limit: u64,
    /// Now.
    #[serde(skip_serializing_if = "zero")]
    pub usage: u64,
    /// At most.
    #[serde(skip_serializing_if = "zero")]
    pub max: u64,
    /// Times the limit was hit.
    pub failcnt: u64,
}

/// Tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Pids {
    /// Processes and threads.
    #[serde(skip_serializing_if = "zero")]
    pub current: u64,
    /// Limit; 0 is unlimited.
    #[serde(skip_serializing_if = "zero")]
    pub limit: u64,
}

/// Block I/O.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Waiting operations.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Nanoseconds of service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Nanoseconds of waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Merged operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Milliseconds of disk time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Pressure (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One counter of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BlkioEntry {
    /// Major number.
    #[serde(skip_serializing_if = "zero")]
    pub major: u64,
    /// Minor number.
    #[serde(skip_serializing_if = "zero")]
    pub minor: u64,
    /// `Read`, `Write`, `Total`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The counter.
    #[serde(skip_serializing_if = "zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Hugetlb {
    /// Now.
    #[serde(skip_serializing_if = "zero")]
    pub usage: u64,
    /// At most (version 1).
    #[serde(skip_serializing_if = "zero")]
    pub max: u64,
    /// Times the limit was hit.
    pub failcnt: u64,
}

/// One RDMA device: what is used and what is allowed; 2^32 - 1 is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Rdma {
    /// Used and allowed handles.
    pub hca_handle: (u32, u32),
    /// Used and allowed objects.
    pub hca_object: (u32, u32),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn zero(n: &u64) -> bool {
    *n == 0
}

/// Reads everything.
///
/// # Errors
/// A file that exists and cannot be read. Groups that are gone give zeros.
pub fn usage(paths: &Paths) -> Result<Usage, CgroupError> {
    let mut usage = Usage::default();
    let version_1 = paths.keys().any(|controller| !controller.is_empty());
    for (controller, dir) in paths {
        match version_1 {
            true => v1::read(controller, dir, &mut usage)?,
            false => v2::read(dir, &mut usage)?,
        }
    }
    Ok(usage)
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

/// One number; `max` is 2^64 - 1, an absent file 0.
fn number(dir: &Path, file: &str) -> Result<u64, CgroupError> {
    Ok(parse_number(&text(dir, file)?))
}

fn parse_number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        // cpuset.sched_relax_domain_level and the like may be negative: nothing to count.
        n => n.parse().unwrap_or(0),
    }
}

/// Numbers of one line: `1 2 3`.
fn numbers(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect()
}

/// `key value` lines.
fn flat(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Most CPUs or nodes that a list may name: the kernel's own NR_CPUS limit.
const MAX_LISTED: usize = 8192;

/// `0-2,7`; what is beyond any machine is left out.
fn list(text: &str) -> Vec<u16> {
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { continue };
        all.extend((first..=last).take(MAX_LISTED.saturating_sub(all.len())));
    }
    all
}

/// `8:0 Read 4096` and `8:0 4096`; totals over all devices have no number and are left out.
fn blkio(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (second, third) = (words.next()?, words.next());
        let (op, value) = third.map_or(("", second), |value| (second, value));
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// `mlx5_0 hca_handle=2 hca_object=max`.
fn rdma(current: &str, max: &str) -> BTreeMap<String, Rdma> {
    let value = |line: &str, key: &str| {
        let word = line.split_ascii_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        word.map_or(0, |n| if n == "max" { u32::MAX } else { n.parse().unwrap_or(0) })
    };
    let mut devices: BTreeMap<String, Rdma> = BTreeMap::new();
    for (text, allowed) in [(current, false), (max, true)] {
        for line in text.lines() {
            let Some(name) = line.split_ascii_whitespace().next() else { continue };
            let device = devices.entry(name.to_owned()).or_default();
            let (handle, object) = (value(line, "hca_handle"), value(line, "hca_object"));
            match allowed {
                false => (device.hca_handle.0, device.hca_object.0) = (handle, object),
                true => (device.hca_handle.1, device.hca_object.1) = (handle, object),
            }
        }
    }
    devices
}

/// A pressure file; `None` when the kernel does not measure it.
fn psi(text: &str) -> Option<Psi> {
    let line = |kind: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(kind)?.strip_prefix(' '))?;
        let value = |key: &str| line.split_ascii_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        let average = |key: &str| value(key).and_then(|v| v.parse::<f64>().ok()).filter(|v| v.is_finite());
        Some(PsiLine {
            avg10: average("avg10").unwrap_or(0.0),
            avg60: average("avg60").unwrap_or(0.0),
            avg300: average("avg300").unwrap_or(0.0),
            total: value("total").and_then(|v| v.parse().ok()).unwrap_or(0),
        })
    };
    Some(Psi { some: line("some")?, full: line("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests;

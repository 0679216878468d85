//! The vocabulary: words that mean the same over version 1 and version 2, and how a value becomes
//! `linux.resources`, which `onggi-cgroup` translates for the engine's containers too.

use onggi_cgroup::weight_to_shares;
use onggi_spec::{
    oci::runtime::{
        LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    },
    quantity::{parse_cpus, parse_size},
};

use super::{Devices, GroupError, GroupFacts, Version, raw};

/// The period that quotas are given for, microseconds.
const PERIOD: u64 = 100_000;
/// The smallest page of any machine, bytes: limits are counted in pages.
const PAGE: i64 = 4096;

/// A word of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The word.
    pub name: &'static str,
    /// Docker's or systemd's word for it.
    pub alias: &'static str,
    /// An example and what it means.
    pub meaning: &'static str,
}

const fn key(name: &'static str, alias: &'static str, meaning: &'static str) -> Key {
    Key { name, alias, meaning }
}

/// The vocabulary.
pub const KEYS: &[Key] = &[
    key("cpus", "CPUQuota", "0.5: half a CPU; max"),
    key("cpu-weight", "CPUWeight", "1 to 10000, 100 by default: share against neighbours"),
    key("cpu-shares", "", "2 to 262144, 1024 by default: the same on version 1's scale"),
    key("cpu-burst", "", "microseconds of unused quota that may be used later"),
    key("cpu-idle", "", "1: only when nobody else wants the CPU"),
    key("cpuset", "cpuset-cpus", "0-1,3: the CPUs that may be used"),
    key("cpuset-mems", "", "0: the memory nodes that may be used"),
    key("memory", "MemoryMax", "100M: beyond it the OOM killer ends a process; max"),
    key("memory-high", "MemoryHigh", "80M: beyond it processes are slowed and memory is taken back (v2)"),
    key("memory-low", "memory-reservation", "50M: taken back last"),
    key("memory-min", "MemoryMin", "20M: never taken back (v2)"),
    key("swap", "MemorySwapMax", "0: none; swap beside the memory"),
    key("memory-swap", "", "200M: memory and swap together, as Docker's; 0 is none beside the memory"),
    key("swappiness", "memory-swappiness", "0 to 100 (v1)"),
    key("oom-group", "", "1: the OOM killer ends all processes together (v2)"),
    key("pids", "pids-limit", "50: processes and threads; max"),
    key("io-weight", "IOWeight", "1 to 10000, 100 by default: share of a busy disk"),
    key("io-read-bps", "device-read-bps", "/dev/sda:1M: bytes read per second; 8:0:1M likewise"),
    key("io-write-bps", "device-write-bps", "/dev/sda:1M: bytes written per second"),
    key("io-read-iops", "device-read-iops", "/dev/sda:100: reads per second"),
    key("io-write-iops", "device-write-iops", "/dev/sda:100: writes per second"),
    key("hugetlb.2MB", "", "100M: huge pages of a size"),
];

/// What a word and a value ask for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// Translated by `onggi-cgroup`.
    Resources(Box<LinuxResources>),
    /// A control file of this machine, as it is written.
    File { file: String, value: String },
}

/// The vocabulary's word for `text`, if it is one.
pub(crate) fn known(text: &str) -> Option<&'static str> {
    let plain = text.replace('_', "-");
    let named = |k: &&Key| k.name == plain || (!k.alias.is_empty() && k.alias.eq_ignore_ascii_case(&plain));
    KEYS.iter().find(named).map(|k| k.name)
}

/// Whether `text` is a word of the vocabulary.
pub fn is_key(text: &str) -> bool {
    known(text).is_some()
}

/// Reads one setting.
///
/// # Errors
/// An unknown word, a wrong value, or what this version cannot keep.
pub(crate) fn change(key: &str, value: &str, facts: &GroupFacts, devices: &Devices) -> Result<Change, GroupError> {
    match known(key) {
        Some(word) => friendly(word, value.trim(), facts, devices),
        None if key.starts_with("hugetlb.") && key.matches('.').count() == 1 => hugetlb(key, value.trim()),
        None => raw::change(key, value, facts),
    }
}

fn friendly(key: &str, value: &str, facts: &GroupFacts, devices: &Devices) -> Result<Change, GroupError> {
    let bad = |reason: &str| bad(key, value, reason);
    let v2 = facts.version == Version::V2;
    match key {
        "cpus" => Ok(cpu(LinuxCpu { quota: Some(quota(key, value)?), period: Some(PERIOD), ..LinuxCpu::default() })),
        "cpu-weight" | "io-weight" => {
            let weight = number(key, value).ok().filter(|w| (1..=10_000).contains(w));
            let weight = weight.ok_or_else(|| bad("use 1 to 10000; 100 is the default"))?;
            Ok(match (key, v2) {
                ("cpu-weight", true) => unified("cpu.weight", &weight.to_string()),
                ("cpu-weight", false) => {
                    cpu(LinuxCpu { shares: Some(weight_to_shares(weight)), ..LinuxCpu::default() })
                }
                (_, true) => io_weight_v2(weight, facts),
                (_, false) => block_io(LinuxBlockIo { weight: Some(bfq_weight(weight)), ..LinuxBlockIo::default() }),
            })
        }
        "cpu-shares" => {
            let shares = number(key, value).ok().filter(|n| (2..=262_144).contains(n));
            let shares = Some(shares.ok_or_else(|| bad("use 2 to 262144; 1024 is the default"))?);
            Ok(cpu(LinuxCpu { shares, ..LinuxCpu::default() }))
        }
        "cpu-burst" => Ok(cpu(LinuxCpu { burst: Some(number(key, value)?), ..LinuxCpu::default() })),
        "cpu-idle" => Ok(cpu(LinuxCpu { idle: Some(i64::from(flag(key, value)?)), ..LinuxCpu::default() })),
        "cpuset" => Ok(cpu(LinuxCpu { cpus: Some(cpu_list(key, value)?), ..LinuxCpu::default() })),
        "cpuset-mems" => Ok(cpu(LinuxCpu { mems: Some(cpu_list(key, value)?), ..LinuxCpu::default() })),
        // A container's 0 is a mistake that is made 1; here it is what was said: nothing new may start.
        "pids" if value == "0" => raw::change("pids.max", value, facts),
        "pids" => {
            let limit = if is_max(value) { -1 } else { i64::try_from(number(key, value)?).unwrap_or(-1) };
            Ok(resources(LinuxResources { pids: Some(LinuxPids { limit: Some(limit) }), ..LinuxResources::default() }))
        }
        "oom-group" if v2 => Ok(unified("memory.oom.group", if flag(key, value)? { "1" } else { "0" })),
        "oom-group" => Err(no_twin(key, facts, "there the OOM killer ends one process after the other")),
        _ if key.starts_with("io-") => throttle(key, value, devices),
        _ => memory(key, value, facts),
    }
}

fn memory(key: &str, value: &str, facts: &GroupFacts) -> Result<Change, GroupError> {
    let v2 = facts.version == Version::V2;
    let of = |memory: LinuxMemory| resources(LinuxResources { memory: Some(memory), ..LinuxResources::default() });
    let none = LinuxMemory::default;
    if key == "swappiness" {
        let swappiness = number(key, value).ok().filter(|n| *n <= 100);
        let swappiness = Some(swappiness.ok_or_else(|| bad(key, value, "use 0 to 100"))?);
        let only_v1 = "there is none per group; /proc/sys/vm/swappiness is for the machine";
        return if v2 { Err(no_twin(key, facts, only_v1)) } else { Ok(of(LinuxMemory { swappiness, ..none() })) };
    }
    let bytes = size(key, value)?;
    let text = if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
    match key {
        "memory" if (0..PAGE).contains(&bytes) => {
            Err(bad(key, value, "less than a page (4096) would end every process; write 100M, or max for no limit"))
        }
        "memory" => Ok(of(LinuxMemory { limit: Some(bytes), ..none() })),
        // 0 means "not set" in linux.resources.
        "memory-low" if bytes == 0 && v2 => Ok(unified("memory.low", "0")),
        "memory-low" => Ok(of(LinuxMemory { reservation: Some(bytes), ..none() })),
        "memory-high" if v2 => Ok(unified("memory.high", &text)),
        "memory-min" if v2 => Ok(unified("memory.min", &text)),
        "memory-high" => Err(no_twin(key, facts, raw::NO_HIGH)),
        "memory-min" => Err(no_twin(key, facts, raw::NO_MIN)),
        "swap" if v2 => Ok(unified("memory.swap.max", &text)),
        "memory-swap" if bytes != 0 => Ok(of(LinuxMemory { swap: Some(bytes), ..none() })),
        _ if v2 => Ok(unified("memory.swap.max", "0")),
        _ if bytes < 0 => Ok(of(LinuxMemory { swap: Some(-1), ..none() })),
        // Version 1 counts both together, above the memory limit that the group has.
        _ => match facts.number("memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED) {
            Some(limit) => {
                let both = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(bytes);
                Ok(of(LinuxMemory { swap: Some(both), ..none() }))
            }
            None => Err(bad(key, value, "version 1 counts memory and swap together: set memory first")),
        },
    }
}

/// Version 1 shows "unlimited" as the largest number of whole pages.
pub(crate) const UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

/// `/dev/sda:1M`, `8:0:1M`; the rate may be `max`.
fn throttle(key: &str, value: &str, devices: &Devices) -> Result<Change, GroupError> {
    let bad = |reason: &str| bad(key, value, reason);
    let (device, rate) = value.rsplit_once(':').ok_or_else(|| bad("use DEVICE:RATE, as /dev/sda:1M"))?;
    let (major, minor) = match devices.get(device) {
        Some(numbers) => *numbers,
        None => raw::device(device).ok_or_else(|| bad("name the device as /dev/sda or 8:0"))?,
    };
    let rate = match rate {
        "max" => 0,
        n if key.ends_with("iops") => n.parse().map_err(|_| bad("the rate is a number"))?,
        n => parse_size(n).map_err(|_| bad("the rate is a size, as 1M"))?,
    };
    let one = vec![LinuxThrottleDevice { major: i64::from(major), minor: i64::from(minor), rate }];
    Ok(block_io(throttled(&key.replace("io-", ""), one)))
}

/// `which` is `read-bps` and so on.
pub(crate) fn throttled(which: &str, devices: Vec<LinuxThrottleDevice>) -> LinuxBlockIo {
    let mut io = LinuxBlockIo::default();
    match which {
        "read-bps" => io.throttle_read_bps_device = devices,
        "write-bps" => io.throttle_write_bps_device = devices,
        "read-iops" => io.throttle_read_iops_device = devices,
        _ => io.throttle_write_iops_device = devices,
    }
    io
}

fn hugetlb(key: &str, value: &str) -> Result<Change, GroupError> {
    let page_size = key.trim_start_matches("hugetlb.").to_owned();
    let limit = u64::try_from(size(key, value)?).unwrap_or(i64::MAX as u64);
    let hugepage_limits = vec![LinuxHugepageLimit { page_size, limit }];
    Ok(resources(LinuxResources { hugepage_limits, ..LinuxResources::default() }))
}

/// io.weight exists with the io.cost policy, io.bfq.weight (to 1000) with the BFQ scheduler.
fn io_weight_v2(weight: u64, facts: &GroupFacts) -> Change {
    match facts.files.contains_key("io.bfq.weight") && !facts.files.contains_key("io.weight") {
        true => unified("io.bfq.weight", &weight.clamp(1, 1000).to_string()),
        false => unified("io.weight", &format!("default {weight}")),
    }
}

/// io.weight (1 … 10000) as blkio.weight (10 … 1000): the inverse of what `onggi-cgroup` does.
fn bfq_weight(weight: u64) -> u16 {
    u16::try_from(10 + (weight.saturating_sub(1) * 990).div_ceil(9999)).unwrap_or(1000).min(1000)
}

pub(crate) fn resources(resources: LinuxResources) -> Change {
    Change::Resources(Box::new(resources))
}

pub(crate) fn cpu(cpu: LinuxCpu) -> Change {
    resources(LinuxResources { cpu: Some(cpu), ..LinuxResources::default() })
}

pub(crate) fn block_io(io: LinuxBlockIo) -> Change {
    resources(LinuxResources { block_io: Some(io), ..LinuxResources::default() })
}

pub(crate) fn unified(file: &str, value: &str) -> Change {
    let mut all = LinuxResources::default();
    all.unified.insert(file.to_owned(), value.to_owned());
    resources(all)
}

pub(crate) fn bad(key: &str, value: &str, reason: &str) -> GroupError {
    let value = value.chars().take(128).collect();
    GroupError::BadValue { key: key.chars().take(128).collect(), value, reason: reason.to_owned() }
}

pub(crate) fn no_twin(key: &str, facts: &GroupFacts, why: &'static str) -> GroupError {
    GroupError::NoTwin { key: key.to_owned(), version: facts.version, why }
}

fn is_max(value: &str) -> bool {
    matches!(value, "max" | "-1" | "infinity" | "unlimited")
}

fn number(key: &str, value: &str) -> Result<u64, GroupError> {
    value.parse().map_err(|_| bad(key, value, "it is a whole number"))
}

fn flag(key: &str, value: &str) -> Result<bool, GroupError> {
    match value {
        "1" | "yes" | "true" | "on" => Ok(true),
        "0" | "no" | "false" | "off" => Ok(false),
        _ => Err(bad(key, value, "use 0 or 1")),
    }
}

/// Bytes; -1 is unlimited.
pub(crate) fn size(key: &str, value: &str) -> Result<i64, GroupError> {
    if is_max(value) {
        return Ok(-1);
    }
    let bytes = parse_size(value).map_err(|_| bad(key, value, "use a size such as 100M or 1.5g, or max"))?;
    Ok(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// `0.5`, `50%` as systemd's CPUQuota, `max`: microseconds of each [`PERIOD`].
fn quota(key: &str, value: &str) -> Result<i64, GroupError> {
    if is_max(value) {
        return Ok(-1);
    }
    if parse_cpus(value.trim_end_matches('%')) == Ok(None) {
        return Err(bad(key, value, "0 would stop every process, and freeze does that; max is no limit"));
    }
    let reason = "use a number of CPUs from 0.01, as 0.5, or 50%, or max";
    let nano = match value.strip_suffix('%') {
        Some(percent) => parse_cpus(percent).ok().flatten().map(|n| n / 100),
        None => parse_cpus(value).ok().flatten(),
    };
    let quota =
        nano.map(|n| n / (1_000_000_000 / PERIOD)).filter(|q| *q >= 1000).ok_or_else(|| bad(key, value, reason))?;
    i64::try_from(quota).map_err(|_| bad(key, value, reason))
}

fn cpu_list(key: &str, value: &str) -> Result<String, GroupError> {
    let fine = value.bytes().all(|b| b.is_ascii_digit() || b == b',' || b == b'-') && !value.is_empty();
    if fine { Ok(value.to_owned()) } else { Err(bad(key, value, "use a list such as 0-1,3")) }
}

/// The word that `key` may have been meant to be.
pub(crate) fn near(key: &str, facts: &GroupFacts) -> Option<String> {
    let words = KEYS.iter().map(|k| k.name).chain(facts.files.keys().map(String::as_str));
    let nearest = words.map(|word| (distance(key, word), word)).min()?;
    (nearest.0 <= 2 + key.len() / 6).then(|| nearest.1.to_owned())
}

/// Levenshtein's; the words are short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().take(64).enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

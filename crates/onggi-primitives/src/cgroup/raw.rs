//! Names of control files, of either version: one that this machine has is written as it is; one of the other version
//! is translated where there is a translation, else the difference is named.

use onggi_spec::oci::runtime::{
    LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
};

use super::{
    GroupError, GroupFacts, Version,
    keys::{self, Change, bad, block_io, cpu, no_twin, resources, size, throttled},
};

pub(super) const NO_HIGH: &str = "memory.soft_limit_in_bytes is not the same: it takes memory back only when the whole \
                                  machine is short of it, and slows nobody down. A limit (memory) is what there is";
pub(super) const NO_MIN: &str = "nothing is protected from reclaim there";

/// Version 2 files that version 1 cannot keep, and why.
const ONLY_V2: &[(&str, &str)] = &[
    ("memory.high", NO_HIGH),
    ("memory.min", NO_MIN),
    ("memory.oom.group", "there the OOM killer ends one process after the other"),
    ("memory.reclaim", "memory.force_empty takes back all that it can"),
    ("cpu.uclamp.min", "utilization clamping is not there"),
    ("cpu.uclamp.max", "utilization clamping is not there"),
    ("cpu.weight.nice", "use cpu-weight"),
    ("io.latency", "latency targets are not there"),
    ("io.cost.qos", "cost models are not there"),
    ("io.cost.model", "cost models are not there"),
    ("cgroup.type", "there are no threaded groups; each thread may be in a group of its own (tasks)"),
];

/// Version 1 files that version 2 cannot keep, and why.
const ONLY_V1: &[(&str, &str)] = &[
    ("memory.swappiness", "there is none per group; /proc/sys/vm/swappiness is for the machine"),
    ("memory.oom_control", "the OOM killer cannot be switched off; memory.high slows a group down instead"),
    ("memory.kmem.limit_in_bytes", "memory counts kernel memory too"),
    ("memory.kmem.tcp.limit_in_bytes", "memory counts buffers of sockets too"),
    ("memory.use_hierarchy", "it is always so"),
    ("memory.move_charge_at_immigrate", "memory stays where it was charged"),
    ("memory.force_empty", "memory.reclaim takes back so many bytes"),
    ("cpu.rt_runtime_us", "real-time processes are not limited by groups"),
    ("cpu.rt_period_us", "real-time processes are not limited by groups"),
    ("net_cls.classid", "match the group in nftables: socket cgroupv2 level 1 \"PATH\""),
    ("net_prio.ifpriomap", "match the group in nftables: socket cgroupv2 level 1 \"PATH\""),
    ("devices.allow", "devices are guarded by an eBPF program"),
    ("devices.deny", "devices are guarded by an eBPF program"),
    ("notify_on_release", "watch cgroup.events"),
    ("release_agent", "watch cgroup.events"),
    ("tasks", "processes are moved by onggi cgroup mv, threads only in threaded groups"),
    ("cgroup.clone_children", "there is nothing to clone: an empty cpuset is the parent's"),
];

/// Files that move or end processes: they have commands of their own.
const NOT_LIMITS: &[(&str, &str)] = &[
    ("cgroup.procs", "onggi cgroup mv GROUP PID"),
    ("cgroup.threads", "onggi cgroup mv GROUP PID"),
    ("tasks", "onggi cgroup mv GROUP PID"),
    ("cgroup.kill", "onggi cgroup kill GROUP"),
    ("cgroup.event_control", "onggi cgroup stat GROUP"),
];

/// Reads a setting that is the name of a control file.
///
/// # Errors
/// An unknown name, a wrong value, a file that only shows, or what this version cannot keep.
pub(super) fn change(file: &str, value: &str, facts: &GroupFacts) -> Result<Change, GroupError> {
    if let Some((_, instead)) = NOT_LIMITS.iter().find(|(name, _)| *name == file && facts.files.contains_key(*name)) {
        return Err(bad(file, value, &format!("it is no limit; use {instead}")));
    }
    match facts.files.get(file) {
        Some(known) if known.writable => {
            return Ok(Change::File { file: file.to_owned(), value: value.to_owned() });
        }
        Some(_) => return Err(GroupError::ReadOnly { file: file.to_owned() }),
        None => {}
    }
    // A controller that the group is given when the setting is made.
    let controller = file.split('.').next().unwrap_or_default();
    let (foreign, only) = match facts.version {
        Version::V1 => (from_v2(file, value.trim())?, ONLY_V2),
        Version::V2 => (from_v1(file, value.trim(), facts)?, ONLY_V1),
    };
    if let Some(change) = foreign {
        return Ok(change);
    }
    if let Some((_, why)) = only.iter().find(|(name, _)| *name == file) {
        return Err(no_twin(file, facts, why));
    }
    if facts.version == Version::V2
        && is_known_v2(controller)
        && file.contains('.')
        && !facts.files.keys().any(|f| f.starts_with(&format!("{controller}.")))
    {
        return Ok(keys::unified(file, value.trim()));
    }
    Err(GroupError::UnknownKey { key: file.chars().take(128).collect(), near: keys::near(file, facts) })
}

fn is_known_v2(controller: &str) -> bool {
    ["cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma", "misc"].contains(&controller)
}

/// A version 2 file on version 1.
fn from_v2(file: &str, value: &str) -> Result<Option<Change>, GroupError> {
    let memory =
        |memory: LinuxMemory| Some(resources(LinuxResources { memory: Some(memory), ..LinuxResources::default() }));
    let none = LinuxMemory::default;
    Ok(match file {
        "cpu.max" => Some(cpu_max(file, value)?),
        "cpu.max.burst" => Some(cpu(LinuxCpu { burst: Some(whole(file, value)?), ..LinuxCpu::default() })),
        "cpu.weight" => {
            let weight = Some(whole(file, value)?).filter(|w| (1..=10_000).contains(w));
            let weight = weight.ok_or_else(|| bad(file, value, "use 1 to 10000"))?;
            Some(cpu(LinuxCpu { shares: Some(onggi_cgroup::weight_to_shares(weight)), ..LinuxCpu::default() }))
        }
        "memory.max" => memory(LinuxMemory { limit: Some(size(file, value)?), ..none() }),
        "memory.low" => memory(LinuxMemory { reservation: Some(size(file, value)?), ..none() }),
        "memory.swap.max" => {
            return Err(bad(file, value, "version 1 counts memory and swap together: use swap, or memory-swap"));
        }
        "io.max" => Some(io_max(file, value)?),
        "cgroup.freeze" => {
            let state = if value == "1" { "FROZEN" } else { "THAWED" };
            Some(Change::File { file: "freezer.state".into(), value: state.into() })
        }
        _ => huge(file, value, ".max")?,
    })
}

/// A version 1 file on version 2.
fn from_v1(file: &str, value: &str, facts: &GroupFacts) -> Result<Option<Change>, GroupError> {
    let memory =
        |memory: LinuxMemory| Some(resources(LinuxResources { memory: Some(memory), ..LinuxResources::default() }));
    let none = LinuxMemory::default;
    let of = |c: LinuxCpu| Some(cpu(c));
    Ok(match file {
        "cpu.shares" => of(LinuxCpu { shares: Some(whole(file, value)?), ..LinuxCpu::default() }),
        "cpu.cfs_quota_us" => {
            let quota = value.parse::<i64>().ok().filter(|q| *q == -1 || *q >= 1000);
            let quota = Some(quota.ok_or_else(|| bad(file, value, "use at least 1000 microseconds, or -1"))?);
            of(LinuxCpu { quota, ..LinuxCpu::default() })
        }
        "cpu.cfs_period_us" => of(LinuxCpu { period: Some(whole(file, value)?), ..LinuxCpu::default() }),
        "cpu.cfs_burst_us" => of(LinuxCpu { burst: Some(whole(file, value)?), ..LinuxCpu::default() }),
        "memory.limit_in_bytes" => memory(LinuxMemory { limit: Some(size(file, value)?), ..none() }),
        "memory.memsw.limit_in_bytes" => memory(LinuxMemory { swap: Some(size(file, value)?), ..none() }),
        "memory.soft_limit_in_bytes" => memory(LinuxMemory { reservation: Some(size(file, value)?), ..none() }),
        "blkio.weight" | "blkio.bfq.weight" => {
            let weight = value.parse::<u16>().ok().filter(|w| (10..=1000).contains(w));
            let weight = Some(weight.ok_or_else(|| bad(file, value, "use 10 to 1000"))?);
            Some(block_io(onggi_spec::oci::runtime::LinuxBlockIo { weight, ..Default::default() }))
        }
        "freezer.state" => {
            let value = if value == "FROZEN" { "1" } else { "0" };
            Some(Change::File { file: "cgroup.freeze".into(), value: value.into() })
        }
        "pids.max" if !facts.files.contains_key(file) => {
            let limit = if value == "max" { -1 } else { i64::try_from(whole(file, value)?).unwrap_or(-1) };
            Some(resources(LinuxResources {
                pids: Some(LinuxPids { limit: Some(limit) }),
                ..LinuxResources::default()
            }))
        }
        _ => match file.strip_prefix("blkio.throttle.").and_then(|rest| rest.strip_suffix("_device")) {
            Some(which @ ("read_bps" | "write_bps" | "read_iops" | "write_iops")) => {
                Some(throttle_v1(file, value, which)?)
            }
            _ => huge(file, value, ".limit_in_bytes")?,
        },
    })
}

/// `50000 100000`, `max`, `max 100000`.
fn cpu_max(file: &str, value: &str) -> Result<Change, GroupError> {
    let wrong = || bad(file, value, "use \"QUOTA PERIOD\" in microseconds (at least 1000), or max");
    let mut words = value.split_ascii_whitespace();
    let quota = match words.next() {
        Some("max") => -1,
        n => n.and_then(|n| n.parse::<i64>().ok()).filter(|q| *q >= 1000).ok_or_else(wrong)?,
    };
    let period = words.next().map(|p| p.parse().ok().filter(|p| (1000..=1_000_000).contains(p)).ok_or_else(wrong));
    if words.next().is_some() {
        return Err(wrong());
    }
    Ok(cpu(LinuxCpu { quota: Some(quota), period: period.transpose()?, ..LinuxCpu::default() }))
}

/// `8:0 rbps=1048576 wiops=max`.
fn io_max(file: &str, value: &str) -> Result<Change, GroupError> {
    let wrong = || bad(file, value, "use \"8:0 rbps=1048576 wbps=max riops=100 wiops=100\"");
    let mut words = value.split_ascii_whitespace();
    let (major, minor) = words.next().and_then(device).ok_or_else(wrong)?;
    let mut io = onggi_spec::oci::runtime::LinuxBlockIo::default();
    for word in words {
        let (which, rate) = word.split_once('=').ok_or_else(wrong)?;
        let rate = if rate == "max" { 0 } else { rate.parse().map_err(|_| wrong())? };
        let one = vec![LinuxThrottleDevice { major: i64::from(major), minor: i64::from(minor), rate }];
        match which {
            "rbps" => io.throttle_read_bps_device = one,
            "wbps" => io.throttle_write_bps_device = one,
            "riops" => io.throttle_read_iops_device = one,
            "wiops" => io.throttle_write_iops_device = one,
            _ => return Err(wrong()),
        }
    }
    Ok(block_io(io))
}

/// `8:0 1048576`.
fn throttle_v1(file: &str, value: &str, which: &str) -> Result<Change, GroupError> {
    let wrong = || bad(file, value, "use \"8:0 1048576\"");
    let (numbers, rate) = value.split_once(' ').ok_or_else(wrong)?;
    let (major, minor) = device(numbers).ok_or_else(wrong)?;
    let rate = rate.trim().parse().map_err(|_| wrong())?;
    let one = vec![LinuxThrottleDevice { major: i64::from(major), minor: i64::from(minor), rate }];
    Ok(block_io(throttled(&which.replace('_', "-"), one)))
}

/// `hugetlb.2MB.max`.
fn huge(file: &str, value: &str, ending: &str) -> Result<Option<Change>, GroupError> {
    let Some(page_size) = file.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(ending)) else {
        return Ok(None);
    };
    let limit = u64::try_from(size(file, value)?).unwrap_or(i64::MAX as u64);
    let hugepage_limits = vec![LinuxHugepageLimit { page_size: page_size.to_owned(), limit }];
    Ok(Some(resources(LinuxResources { hugepage_limits, ..LinuxResources::default() })))
}

fn whole(file: &str, value: &str) -> Result<u64, GroupError> {
    value.parse().map_err(|_| bad(file, value, "it is a whole number"))
}

/// `8:0`.
pub(super) fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

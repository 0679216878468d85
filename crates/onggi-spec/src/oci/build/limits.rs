//! Resource limits: cgroup settings, device rules, rlimits.

use std::collections::BTreeMap;

use super::{BuildError, HostDevice, SpecInput};
use crate::{
    HostFacts,
    facts::CgroupLayout,
    oci::runtime::{
        LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
        LinuxWeightDevice, Rlimit,
    },
    resources::{BlockLimitKind, Resources, parse_list},
};

/// Processes and threads of one container unless asked otherwise: a fork bomb stays inside.
pub const DEFAULT_PIDS: i64 = 4096;
/// CFS period in microseconds, as Docker.
const PERIOD: u64 = 100_000;
/// Default limits of open files. A huge soft limit makes old programs loop over a billion descriptors.
const NOFILE: &str = "RLIMIT_NOFILE";
const NOFILE_SOFT: u64 = 1024;
pub(super) const NOFILE_HARD: u64 = 524_288;

/// Cgroup limits; `None` where the caller cannot have any and asked for none.
pub(super) fn resources(input: &SpecInput<'_>) -> Result<Option<LinuxResources>, BuildError> {
    let wanted = &input.request.resources;
    check_possible(wanted, input.facts)?;
    if input.rootless() || input.facts.cgroup == CgroupLayout::None {
        return Ok(None);
    }
    Ok(Some(LinuxResources {
        devices: device_rules(input),
        pids: Some(LinuxPids { limit: Some(wanted.pids.unwrap_or(DEFAULT_PIDS)) }),
        unified: unified(input.facts),
        ..asked_limits(wanted, input.facts, &input.block_devices)?
    }))
}

/// Whether the caller can have limits on this host, when any are asked for.
///
/// # Errors
/// Without root, or without control groups.
pub fn check_possible(wanted: &Resources, facts: &HostFacts) -> Result<(), BuildError> {
    match wanted.first_option() {
        Some(option) if !facts.rootful() => Err(BuildError::RootlessLimit { option }),
        Some(option) if facts.cgroup == CgroupLayout::None => Err(BuildError::NoCgroup { option }),
        _ => Ok(()),
    }
}

/// The limits that were asked for, and nothing else: what `update` changes in a running container.
///
/// # Errors
/// More CPUs than the host has, or version 1's limits where there is only version 2.
pub fn asked_limits(
    wanted: &Resources,
    facts: &HostFacts,
    devices: &BTreeMap<String, (u32, u32)>,
) -> Result<LinuxResources, BuildError> {
    Ok(LinuxResources {
        memory: memory(wanted, facts)?,
        cpu: cpu(wanted, facts.cpus)?,
        pids: wanted.pids.map(|limit| LinuxPids { limit: Some(limit) }),
        block_io: block_io(wanted, devices),
        ..LinuxResources::default()
    })
}

fn memory(wanted: &Resources, facts: &HostFacts) -> Result<Option<LinuxMemory>, BuildError> {
    if matches!(facts.cgroup, CgroupLayout::V2 { .. }) {
        let swappiness = wanted.memory_swappiness.map(|_| "--memory-swappiness");
        if let Some(option) = swappiness.or(wanted.oom_kill_disable.then_some("--oom-kill-disable")) {
            return Err(BuildError::OnlyVersion1 { option });
        }
    }
    let memory = LinuxMemory {
        limit: wanted.memory.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        swap: wanted.swap(),
        reservation: wanted.memory_reservation.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        swappiness: wanted.memory_swappiness,
        disable_oom_killer: wanted.oom_kill_disable.then_some(true),
        ..LinuxMemory::default()
    };
    Ok((memory != LinuxMemory::default()).then_some(memory))
}

fn cpu(wanted: &Resources, available: u32) -> Result<Option<LinuxCpu>, BuildError> {
    if let Some(list) = &wanted.cpuset_cpus {
        let known = |text| parse_list(text).is_some_and(|numbers| numbers.iter().all(|n| *n < available));
        if !known(list) {
            return Err(BuildError::NoSuchCpus { wanted: list.clone(), available });
        }
    }
    let (quota, period) = match wanted.nano_cpus {
        Some(nano_cpus) => (Some(quota(nano_cpus, available)?), Some(PERIOD)),
        None => (wanted.cpu_quota, wanted.cpu_period),
    };
    let cpu = LinuxCpu {
        quota,
        period,
        shares: wanted.cpu_shares,
        realtime_period: wanted.cpu_rt_period,
        realtime_runtime: wanted.cpu_rt_runtime,
        cpus: wanted.cpuset_cpus.clone(),
        mems: wanted.cpuset_mems.clone(),
        ..LinuxCpu::default()
    };
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

/// In microseconds of each [`PERIOD`].
fn quota(nano_cpus: u64, available: u32) -> Result<i64, BuildError> {
    if nano_cpus > u64::from(available) * 1_000_000_000 {
        let fraction = format!("{}.{:09}", nano_cpus / 1_000_000_000, nano_cpus % 1_000_000_000);
        let wanted = fraction.trim_end_matches('0').trim_end_matches('.').to_owned();
        return Err(BuildError::TooManyCpus { wanted, available });
    }
    // At most 2^32 CPUs times 100 000: far inside an i64.
    Ok(i64::try_from(nano_cpus * (PERIOD / 1000) / 1_000_000).unwrap_or(i64::MAX))
}

/// `devices` are the numbers of the block devices: what is none was refused when they were looked up.
fn block_io(wanted: &Resources, devices: &BTreeMap<String, (u32, u32)>) -> Option<LinuxBlockIo> {
    let mut io = LinuxBlockIo { weight: wanted.blkio_weight, ..LinuxBlockIo::default() };
    for limit in &wanted.block_devices {
        let Some((major, minor)) = devices.get(&limit.path).map(|(a, b)| (i64::from(*a), i64::from(*b))) else {
            continue;
        };
        let rate = LinuxThrottleDevice { major, minor, rate: limit.value };
        match limit.kind {
            BlockLimitKind::Weight => {
                let weight = u16::try_from(limit.value).ok();
                io.weight_device.push(LinuxWeightDevice { major, minor, weight, leaf_weight: None });
            }
            BlockLimitKind::ReadBytes => io.throttle_read_bps_device.push(rate),
            BlockLimitKind::WriteBytes => io.throttle_write_bps_device.push(rate),
            BlockLimitKind::ReadOperations => io.throttle_read_iops_device.push(rate),
            BlockLimitKind::WriteOperations => io.throttle_write_iops_device.push(rate),
        }
    }
    (io != LinuxBlockIo::default()).then_some(io)
}

/// An OOM kill ends the whole container rather than one of its processes (cgroup v2 only).
fn unified(facts: &HostFacts) -> BTreeMap<String, String> {
    match &facts.cgroup {
        CgroupLayout::V2 { controllers, .. } if controllers.iter().any(|c| c == "memory") => {
            [("memory.oom.group".to_owned(), "1".to_owned())].into()
        }
        _ => BTreeMap::new(),
    }
}

/// A privileged container may open everything; others what every one may and what was asked for.
fn device_rules(input: &SpecInput<'_>) -> Vec<LinuxDeviceCgroup> {
    if input.request.privileged {
        return vec![LinuxDeviceCgroup { allow: true, access: Some("rwm".to_owned()), ..LinuxDeviceCgroup::default() }];
    }
    let of_device = |device: &HostDevice| LinuxDeviceCgroup {
        allow: true,
        typ: Some(device.node.typ.clone()),
        major: Some(device.node.major),
        minor: Some(device.node.minor),
        access: Some(device.access.clone()),
    };
    let named = input.devices.iter().map(of_device);
    default_device_rules().into_iter().chain(named).chain(input.request.device_rules.iter().cloned()).collect()
}

/// The device rules of every container: deny all, then what Docker and runc allow: making nodes (guarded by
/// CAP_MKNOD), and opening null, zero, full, tty, random, urandom, console, ptmx and pts.
pub fn default_device_rules() -> Vec<LinuxDeviceCgroup> {
    let rule = |allow, typ: Option<&str>, major, minor, access: &str| LinuxDeviceCgroup {
        allow,
        typ: typ.map(str::to_owned),
        major,
        minor,
        access: Some(access.to_owned()),
    };
    let mut rules = vec![
        rule(false, None, None, None, "rwm"),
        rule(true, Some("c"), None, None, "m"),
        rule(true, Some("b"), None, None, "m"),
    ];
    let nodes = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
    rules.extend(nodes.map(|(major, minor)| rule(true, Some("c"), Some(major), Some(minor), "rwm")));
    rules.push(rule(true, Some("c"), Some(136), None, "rwm"));
    rules
}

/// What was asked for, and open files: 1024 soft, 524288 hard, or this host's hard limit where that is lower.
pub(super) fn rlimits(input: &SpecInput<'_>) -> Vec<Rlimit> {
    let asked = &input.request.ulimits;
    let mut limits: Vec<Rlimit> =
        asked.iter().map(|u| Rlimit { typ: u.kernel_name(), hard: u.hard, soft: u.soft }).collect();
    if !limits.iter().any(|limit| limit.typ == NOFILE) {
        let hard = input.facts.nofile_hard.min(NOFILE_HARD);
        limits.insert(0, Rlimit { typ: NOFILE.to_owned(), hard, soft: hard.min(NOFILE_SOFT) });
    }
    limits
}

//! Resource limits: cgroup settings, device rules, rlimits.

use std::collections::BTreeMap;

use super::{BuildError, SpecInput};
use crate::{
    HostFacts,
    facts::CgroupLayout,
    oci::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources, Rlimit},
    request::Resources,
};

/// Processes and threads of one container unless asked otherwise: a fork bomb stays inside.
pub const DEFAULT_PIDS: i64 = 4096;
/// CFS period in microseconds, as Docker.
const PERIOD: u64 = 100_000;
/// Default limits of open files. A huge soft limit makes old programs loop over a billion descriptors.
const NOFILE_SOFT: u64 = 1024;
pub(super) const NOFILE_HARD: u64 = 524_288;

/// Cgroup limits; `None` where the caller cannot have any and asked for none.
pub(super) fn resources(input: &SpecInput<'_>) -> Result<Option<LinuxResources>, BuildError> {
    let wanted = &input.request.resources;
    let asked = asked_option(wanted);
    if input.rootless() {
        return asked.map_or(Ok(None), |option| Err(BuildError::RootlessLimit { option }));
    }
    if input.facts.cgroup == CgroupLayout::None {
        return asked.map_or(Ok(None), |option| Err(BuildError::NoCgroup { option }));
    }
    Ok(Some(LinuxResources {
        devices: default_device_rules(),
        memory: wanted.memory.map(memory),
        cpu: wanted.nano_cpus.map(|n| cpu(n, input.facts.cpus)).transpose()?,
        pids: Some(LinuxPids { limit: Some(wanted.pids.unwrap_or(DEFAULT_PIDS)) }),
        unified: unified(input.facts),
        ..LinuxResources::default()
    }))
}

/// Limit and swap as Docker sets them: as much swap as memory on top.
fn memory(bytes: u64) -> LinuxMemory {
    let limit = i64::try_from(bytes).unwrap_or(i64::MAX);
    LinuxMemory { limit: Some(limit), swap: Some(limit.saturating_mul(2)), ..LinuxMemory::default() }
}

fn cpu(nano_cpus: u64, available: u32) -> Result<LinuxCpu, BuildError> {
    if nano_cpus > u64::from(available) * 1_000_000_000 {
        let fraction = format!("{}.{:09}", nano_cpus / 1_000_000_000, nano_cpus % 1_000_000_000);
        let wanted = fraction.trim_end_matches('0').trim_end_matches('.').to_owned();
        return Err(BuildError::TooManyCpus { wanted, available });
    }
    // At most 2^32 CPUs times 100 000: far inside an i64.
    let quota = i64::try_from(nano_cpus * (PERIOD / 1000) / 1_000_000).unwrap_or(i64::MAX);
    Ok(LinuxCpu { quota: Some(quota), period: Some(PERIOD), ..LinuxCpu::default() })
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

fn asked_option(wanted: &Resources) -> Option<&'static str> {
    let Resources { nano_cpus, memory, pids } = wanted;
    let named = [(nano_cpus.is_some(), "--cpus"), (memory.is_some(), "--memory"), (pids.is_some(), "--pids-limit")];
    named.iter().find(|(asked, _)| *asked).map(|(_, option)| *option)
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

/// Open files: 1024 soft, 524288 hard, or this host's hard limit where that is lower.
pub(super) fn rlimits(facts: &HostFacts) -> Vec<Rlimit> {
    let hard = facts.nofile_hard.min(NOFILE_HARD);
    vec![Rlimit { typ: "RLIMIT_NOFILE".to_owned(), hard, soft: hard.min(NOFILE_SOFT) }]
}

//! `linux.resources` as properties of a unit, as runc translates them. What systemd has no property for is
//! written to cgroupfs only, as everything else is too: there the exact value stands.

use onggi_spec::oci::runtime::{LinuxCpu, LinuxResources};

use super::{Property, SystemdFacts, value::Value};
use crate::{
    CgroupError,
    controllers::{self, Version, bad, cpu::shares_to_weight, memory::swap_only},
    device_filter::{DeviceKind, DeviceRule},
    device_list::List,
};

/// The kernel's CPU period when none is given, microseconds.
const DEFAULT_PERIOD: u64 = 100_000;
/// Versions that brought numbers for groups of devices (`char-136`), CPUQuotaPeriodUSec, AllowedCPUs, CPUWeight=idle.
const HAS_DEVICE_NUMBERS: u32 = 240;
const HAS_QUOTA_PERIOD: u32 = 242;
const HAS_ALLOWED_CPUS: u32 = 244;
const HAS_IDLE: u32 = 252;

/// The properties that a change of limits sets.
///
/// # Errors
/// A value that cannot be.
pub fn update_properties(
    version_2: bool,
    change: &LinuxResources,
    facts: &SystemdFacts,
) -> Result<Vec<Property>, CgroupError> {
    let mut out = Vec::new();
    if !change.devices.is_empty() {
        out.extend(devices(&controllers::devices::rules(change)?, facts));
    }
    out.extend(limits(if version_2 { Version::V2 } else { Version::V1 }, change, facts)?);
    Ok(out)
}

/// What systemd cannot be told at once: an idle group is spelled as a weight of 0, so it has no other. The weight
/// goes, as in runc, and a note says so.
pub fn one_weight(resources: &mut LinuxResources, facts: &SystemdFacts) -> Vec<String> {
    let mut notes = Vec::new();
    if facts.version < HAS_IDLE {
        return notes;
    }
    let note = |weight: &str| format!("unable to apply both {weight} and cpu.idle to systemd, ignoring {weight}");
    if let Some(cpu) = resources.cpu.as_mut().filter(|cpu| cpu.idle == Some(1)) {
        notes.extend(cpu.shares.take().filter(|n| *n != 0).map(|_| note("cpu.shares")));
    }
    if resources.unified.get("cpu.idle").is_some_and(|v| v.trim() == "1") {
        notes.extend(resources.unified.remove("cpu.weight").map(|_| note("cpu.weight")));
    }
    notes
}

/// Everything but device rules.
pub(super) fn limits(
    version: Version,
    resources: &LinuxResources,
    facts: &SystemdFacts,
) -> Result<Vec<Property>, CgroupError> {
    let mut out = Vec::new();
    memory(version, resources, &mut out)?;
    if let Some(cpu) = &resources.cpu {
        cpu_shares(version, cpu, facts, &mut out);
        cpu_quota(cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0), facts, &mut out);
        for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
            if let Some(list) = list.as_deref().filter(|l| !l.is_empty()) {
                cpu_list(name, list, facts, &mut out)?;
            }
        }
    }
    if let Some(weight) =
        resources.block_io.as_ref().and_then(|io| io.weight).filter(|w| *w != 0 && version == Version::V1)
    {
        out.push(Property::new("BlockIOWeight", Value::U64(u64::from(weight))));
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit) {
        out.push(Property::new("TasksMax", Value::U64(unlimited(limit).max(1))));
    }
    if version == Version::V2 {
        for (file, value) in &resources.unified {
            unified(file, value.trim(), facts, &mut out)?;
        }
    }
    Ok(out)
}

/// Negative is "infinity".
fn unlimited(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn memory(version: Version, resources: &LinuxResources, out: &mut Vec<Property>) -> Result<(), CgroupError> {
    let Some(m) = &resources.memory else { return Ok(()) };
    let set = |n: Option<i64>| n.filter(|v| *v != 0).map(|n| Value::U64(unlimited(n)));
    match version {
        Version::V1 => out.extend(set(m.limit).map(|v| Property::new("MemoryLimit", v))),
        Version::V2 => {
            out.extend(set(m.limit).map(|v| Property::new("MemoryMax", v)));
            out.extend(set(m.reservation).map(|v| Property::new("MemoryLow", v)));
            out.extend(swap_only(m)?.map(|n| Property::new("MemorySwapMax", Value::U64(unlimited(n)))));
        }
    }
    Ok(())
}

fn cpu_shares(version: Version, cpu: &LinuxCpu, facts: &SystemdFacts, out: &mut Vec<Property>) {
    let shares = cpu.shares.filter(|n| *n != 0);
    match version {
        Version::V1 => out.extend(shares.map(|n| Property::new("CPUShares", Value::U64(n)))),
        // systemd spells cpu.idle=1 as a weight of 0, and knows no other way to set it.
        Version::V2 if cpu.idle == Some(1) && facts.version >= HAS_IDLE => {
            out.push(Property::new("CPUWeight", Value::U64(0)));
        }
        Version::V2 => out.extend(shares.map(|n| Property::new("CPUWeight", Value::U64(shares_to_weight(n))))),
    }
}

/// systemd keeps whole percents of a CPU. They are rounded up, so that what is written below fits.
fn cpu_quota(quota: i64, period: u64, facts: &SystemdFacts, out: &mut Vec<Property>) {
    if period != 0 && facts.version >= HAS_QUOTA_PERIOD {
        out.push(Property::new("CPUQuotaPeriodUSec", Value::U64(period)));
    }
    if quota == 0 && period == 0 {
        return;
    }
    let per_second = match u64::try_from(quota) {
        Ok(quota) if quota > 0 => {
            let period = if period == 0 { DEFAULT_PERIOD } else { period };
            let exact = u128::from(quota) * 1_000_000 / u128::from(period);
            u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(u64::MAX)
        }
        _ => u64::MAX,
    };
    out.push(Property::new("CPUQuotaPerSecUSec", Value::U64(per_second)));
}

fn cpu_list(name: &str, list: &str, facts: &SystemdFacts, out: &mut Vec<Property>) -> Result<(), CgroupError> {
    if facts.version < HAS_ALLOWED_CPUS {
        return Ok(());
    }
    let mask = mask(list).ok_or_else(|| bad("cpu.cpus", list, "use a list such as 0-3,7"))?;
    out.push(Property::new(name, Value::Array("y".into(), mask.into_iter().map(Value::Byte).collect())));
    Ok(())
}

/// Most CPUs of a list: the kernel's own NR_CPUS limit.
const MAX_CPUS: usize = 8192;

/// `0-2,7` as a bit mask, lowest byte first.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MAX_CPUS {
            return None;
        }
        if mask.len() <= last / 8 {
            mask.resize(last / 8 + 1, 0u8);
        }
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    (!mask.is_empty()).then_some(mask)
}

/// A version 2 file by its name; one that systemd has no property for is left to cgroupfs.
fn unified(file: &str, value: &str, facts: &SystemdFacts, out: &mut Vec<Property>) -> Result<(), CgroupError> {
    let wrong = || bad("unified", format!("{file}={value}"), "the value is not one of this file");
    let number = || match value {
        "max" => Ok(u64::MAX),
        n => n.parse().map_err(|_| wrong()),
    };
    let name = match file {
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpu.idle" if value == "1" && facts.version >= HAS_IDLE => {
            out.push(Property::new("CPUWeight", Value::U64(0)));
            return Ok(());
        }
        "cpu.max" => {
            let mut words = value.split_ascii_whitespace();
            let quota = match words.next() {
                Some("max") => 0,
                n => n.and_then(|n| n.parse().ok()).ok_or_else(wrong)?,
            };
            let period = words.next().map_or(Ok(DEFAULT_PERIOD), str::parse).map_err(|_| wrong())?;
            cpu_quota(quota, period, facts, out);
            return Ok(());
        }
        "cpuset.cpus" => return cpu_list("AllowedCPUs", value, facts, out),
        "cpuset.mems" => return cpu_list("AllowedMemoryNodes", value, facts, out),
        _ => return Ok(()),
    };
    out.push(Property::new(name, Value::U64(number()?)));
    Ok(())
}

/// Device rules. systemd allows by list only, so a list of refusals is left to our own filter.
pub(super) fn devices(rules: &[DeviceRule], facts: &SystemdFacts) -> Vec<Property> {
    let list = List::after(rules);
    let (policy, allowed) = match list.default_allow {
        true => ("auto", Vec::new()),
        false => ("strict", named(list.allowed(), facts)),
    };
    let entry = |(name, rule): (String, DeviceRule)| {
        let access: String = [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')]
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, c)| c)
            .collect();
        Value::Struct(vec![Value::Str(name), Value::Str(access)])
    };
    let entries = |all: Vec<_>| Value::Array("(ss)".into(), all.into_iter().map(entry).collect());
    let mut out = vec![
        Property::new("DevicePolicy", Value::str(policy)),
        // Empties the list, so that an update replaces it.
        Property::new("DeviceAllow", entries(Vec::new())),
    ];
    if !allowed.is_empty() {
        out.push(Property::new("DeviceAllow", entries(allowed)));
    }
    out
}

/// Rules by the names that systemd has for their devices. It keeps one entry for a name, the last one.
fn named(rules: Vec<DeviceRule>, facts: &SystemdFacts) -> Vec<(String, DeviceRule)> {
    let mut all: Vec<(String, DeviceRule)> = Vec::new();
    for rule in rules {
        let Some(name) = device(&rule, facts) else { continue };
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => {
                known.read |= rule.read;
                known.write |= rule.write;
                known.mknod |= rule.mknod;
            }
            None => all.push((name, rule)),
        }
    }
    all
}

/// A device as systemd names it: `/dev/char/1:3`, `char-136`, `char-*`.
fn device(rule: &DeviceRule, facts: &SystemdFacts) -> Option<String> {
    let kind = match rule.kind? {
        DeviceKind::Block => "block",
        DeviceKind::Char => "char",
    };
    match (rule.major, rule.minor) {
        // A minor number of every major one: systemd has no word for that, so it allows more and our own filter decides.
        (None, _) => Some(format!("{kind}-*")),
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        // The driver need not be there yet.
        (Some(major), None) if facts.version >= HAS_DEVICE_NUMBERS => Some(format!("{kind}-{major}")),
        (Some(major), None) => driver(&facts.devices, kind, major).map(|name| format!("{kind}-{name}")),
    }
}

/// The driver of a major number: `/proc/devices` has a section per kind.
fn driver<'d>(proc_devices: &'d str, kind: &str, major: u32) -> Option<&'d str> {
    let title = if kind == "char" { "Character devices:" } else { "Block devices:" };
    let section = proc_devices.lines().skip_while(|l| *l != title).skip(1).take_while(|l| !l.trim().is_empty());
    section.filter_map(|l| l.trim().split_once(' ')).find(|(n, _)| n.parse() == Ok(major)).map(|(_, name)| name.trim())
}

//! Limits by systemd: a transient scope around the command, or a service that is the command (systemd-run(1)).

use onggi_cgroup::{
    CgroupError,
    systemd::{Manager, Property, SystemdFacts, UnitPlan, Value, update_properties},
};

use super::{LimitFacts, LimitPlan, LimitRequest, Target, plan::inside};
use crate::cgroup::{GroupError, Version, merged_resources};

/// Which unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitRequest {
    /// Its name, with or without its ending.
    pub name: String,
    /// The slice that it is in.
    pub slice: Option<String>,
    /// A scope around the command instead of a service.
    pub scope: bool,
    /// What the planner may know of systemd.
    pub systemd: SystemdFacts,
    /// Working directory of a service.
    pub directory: String,
    /// The program's absolute path, which a service needs.
    pub program: String,
}

/// Asks systemd about itself: the system's, or the user's own.
///
/// # Errors
/// There is none to be reached.
pub fn systemd_facts(system: bool) -> Result<SystemdFacts, GroupError> {
    Ok(onggi_cgroup::systemd::facts(system)?)
}

/// Starts the service; returns when systemd has.
///
/// # Errors
/// systemd refuses.
pub fn start_service(unit: &UnitPlan) -> Result<(), GroupError> {
    Ok(onggi_cgroup::systemd::start_service(unit)?)
}

pub(super) fn plan(request: &LimitRequest, facts: &LimitFacts, unit: &UnitRequest) -> Result<LimitPlan, GroupError> {
    let Target::Command(command) = &request.target else {
        return Err(CgroupError::SystemdPlan(
            "a process that runs is limited without a unit: leave --unit, --slice and --scope out".into(),
        )
        .into());
    };
    let version = Version::of(&facts.layout);
    let resources = merged_resources(&facts.layout, version, &request.settings, &facts.devices)?;
    let mut properties = vec![text("Description", &command.join(" "))];
    properties.extend(unit.slice.as_ref().map(|slice| text("Slice", &with_ending(slice, ".slice"))));
    properties.extend(update_properties(version == Version::V2, &resources, &unit.systemd)?);
    properties.extend(io(request, facts)?);
    let name = with_ending(&unit.name, if unit.scope { ".scope" } else { ".service" });
    let mut plan = LimitPlan { systemd_run: systemd_run(request, unit, &name), ..LimitPlan::default() };
    if unit.scope {
        let scope = UnitPlan { manager: unit.systemd.manager, name, properties };
        plan.inside = Some(super::Inside { scope: Some(scope), ..inside(request) });
        return Ok(plan);
    }
    properties.extend(service(request, command, unit));
    plan.service = Some(UnitPlan { manager: unit.systemd.manager, name, properties });
    Ok(plan)
}

fn text(name: &str, value: &str) -> Property {
    Property { name: name.to_owned(), value: Value::Str(value.to_owned()) }
}

fn with_ending(name: &str, ending: &str) -> String {
    if name.ends_with(ending) { name.to_owned() } else { format!("{name}{ending}") }
}

fn service(request: &LimitRequest, command: &[String], unit: &UnitRequest) -> Vec<Property> {
    let words = command.iter().map(|w| Value::Str(w.clone())).collect();
    let start =
        Value::Struct(vec![Value::Str(unit.program.clone()), Value::Array("s".into(), words), Value::Bool(false)]);
    let mut out = vec![
        text("Type", "exec"),
        text("WorkingDirectory", &unit.directory),
        Property { name: "ExecStart".into(), value: Value::Array("(sasb)".into(), vec![start]) },
    ];
    out.extend(request.nice.map(|n| Property { name: "Nice".into(), value: Value::I32(n) }));
    for limit in &request.rlimits {
        let name = format!("Limit{}", limit.name.trim_start_matches("RLIMIT_"));
        out.push(Property { name: format!("{name}Soft"), value: Value::U64(limit.soft) });
        out.push(Property { name, value: Value::U64(limit.hard) });
    }
    out
}

/// What `linux.resources` has no property for.
fn io(request: &LimitRequest, facts: &LimitFacts) -> Result<Vec<Property>, GroupError> {
    let mut out = Vec::new();
    for (key, value) in &request.settings {
        let bad = || GroupError::BadValue {
            key: key.clone(),
            value: value.clone(),
            reason: "use DEVICE:RATE, as /dev/sda:1M".into(),
        };
        if key == "io-weight" {
            let weight = value.parse().map_err(|_| bad())?;
            out.push(Property { name: "IOWeight".into(), value: Value::U64(weight) });
        }
        let Some(name) = io_name(key) else { continue };
        let (device, rate) = value.rsplit_once(':').ok_or_else(bad)?;
        let path = match facts.devices.get(device) {
            Some(_) => device.to_owned(),
            None => format!("/dev/block/{device}"),
        };
        let rate = match rate {
            "max" => u64::MAX,
            n => onggi_spec::quantity::parse_size(n).map_err(|_| bad())?,
        };
        let one = Value::Struct(vec![Value::Str(path), Value::U64(rate)]);
        out.push(Property { name: name.into(), value: Value::Array("(st)".into(), vec![one]) });
    }
    Ok(out)
}

fn io_name(key: &str) -> Option<&'static str> {
    Some(match key {
        "io-read-bps" => "IOReadBandwidthMax",
        "io-write-bps" => "IOWriteBandwidthMax",
        "io-read-iops" => "IOReadIOPSMax",
        "io-write-iops" => "IOWriteIOPSMax",
        _ => return None,
    })
}

/// The options of systemd-run(1) that ask for the same.
fn systemd_run(request: &LimitRequest, unit: &UnitRequest, name: &str) -> Vec<String> {
    let mut out = Vec::new();
    if unit.systemd.manager == Manager::User {
        out.push("--user".to_owned());
    }
    if unit.scope {
        out.push("--scope".to_owned());
    }
    out.push(format!("--unit={name}"));
    out.extend(unit.slice.as_ref().map(|slice| format!("--slice={slice}")));
    out.extend(request.settings.iter().map(|(key, value)| format!("-p{}", property(key, value))));
    out.extend(request.nice.map(|n| if unit.scope { format!("--nice={n}") } else { format!("-pNice={n}") }));
    for limit in &request.rlimits {
        let name = limit.name.trim_start_matches("RLIMIT_");
        out.push(format!("-pLimit{name}={}:{}", limit.soft, limit.hard));
    }
    if let Target::Command(command) = &request.target {
        out.extend(command.iter().cloned());
    }
    out
}

/// A word of the vocabulary as a property of a unit file.
fn property(key: &str, value: &str) -> String {
    let limit = if matches!(value, "max" | "-1") { "infinity" } else { value };
    match key {
        "cpus" => {
            let nano = onggi_spec::quantity::parse_cpus(value).ok().flatten();
            nano.map_or_else(|| "CPUQuota=".into(), |n| format!("CPUQuota={}%", n as f64 / 1e7))
        }
        "cpu-weight" => format!("CPUWeight={value}"),
        "cpuset" => format!("AllowedCPUs={value}"),
        "cpuset-mems" => format!("AllowedMemoryNodes={value}"),
        "memory" => format!("MemoryMax={}", limit.to_uppercase()),
        "memory-high" => format!("MemoryHigh={}", limit.to_uppercase()),
        "memory-low" => format!("MemoryLow={}", limit.to_uppercase()),
        "memory-min" => format!("MemoryMin={}", limit.to_uppercase()),
        "swap" => format!("MemorySwapMax={}", limit.to_uppercase()),
        "pids" => format!("TasksMax={limit}"),
        "io-weight" => format!("IOWeight={value}"),
        other => match (io_name(other), value.rsplit_once(':')) {
            (Some(name), Some((device, rate))) => format!("{name}={device} {}", rate.to_uppercase()),
            _ => format!("{other}={value}"),
        },
    }
}

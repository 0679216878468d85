//! Limits by systemd: a transient scope around the command, or a service that is the command (systemd-run(1)).

use onggi_cgroup::{
    CgroupError,
    systemd::{Property, SystemdFacts, UnitPlan, Value, update_properties},
};
use onggi_sys::trace;

use super::{LimitFacts, LimitPlan, LimitRequest, Target, plan::inside, systemd_run::systemd_run};
use crate::cgroup::{GroupError, Version, known, merged_resources};

/// The kernel's and systemd's CPU period, microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

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
    let ask = || onggi_cgroup::systemd::start_service(unit);
    Ok(trace::step("primitives", || format!("ask systemd to start {}", unit.name), ask)?)
}

pub(super) fn plan(request: &LimitRequest, facts: &LimitFacts, unit: &UnitRequest) -> Result<LimitPlan, GroupError> {
    let Target::Command(command) = &request.target else {
        return Err(CgroupError::SystemdPlan(
            "a process that runs is limited without a unit: leave --unit, --slice and --scope out".into(),
        )
        .into());
    };
    let words = |(key, value): &(String, String)| (known(key).unwrap_or(key.as_str()).to_owned(), value.clone());
    let settings: Vec<(String, String)> = request.settings.iter().map(words).collect();
    let limits = limits(&settings, facts, unit)?;
    refuse_what_systemd_does_not_know(&settings, &limits, facts, unit)?;
    let mut properties = vec![text("Description", &command.join(" "))];
    properties.extend(unit.slice.as_ref().map(|slice| text("Slice", &with_ending(slice, ".slice"))));
    properties.extend(limits);
    let name = with_ending(&unit.name, if unit.scope { ".scope" } else { ".service" });
    let mut plan = LimitPlan::default();
    if !unit.scope {
        properties.extend(service(request, command, unit));
    }
    let made = UnitPlan { manager: unit.systemd.manager, name, properties };
    plan.systemd_run = systemd_run(request, &made, unit.scope);
    match unit.scope {
        true => plan.inside = Some(super::Inside { scope: Some(made), ..inside(request) }),
        false => plan.service = Some(made),
    }
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

/// The properties of the settings.
fn limits(settings: &[(String, String)], facts: &LimitFacts, unit: &UnitRequest) -> Result<Vec<Property>, GroupError> {
    let version = Version::of(&facts.layout);
    let resources = merged_resources(&facts.layout, version, settings, &facts.devices)?;
    let mut properties = update_properties(version == Version::V2, &resources, &unit.systemd)?;
    // systemd's own default, which it shows as such.
    properties.retain(|p| !(p.name == "CPUQuotaPeriodUSec" && p.value == Value::U64(DEFAULT_PERIOD)));
    properties.extend(io(settings, facts)?);
    Ok(properties)
}

/// A setting without which the properties are the same is one that nobody would keep.
fn refuse_what_systemd_does_not_know(
    settings: &[(String, String)],
    all: &[Property],
    facts: &LimitFacts,
    unit: &UnitRequest,
) -> Result<(), GroupError> {
    for (at, (key, value)) in settings.iter().enumerate() {
        let mut others = settings.to_vec();
        others.remove(at);
        let twice = others.iter().any(|(other, _)| other == key);
        // Where the others make no sense without it, it counts for something.
        if !twice && limits(&others, facts, unit).is_ok_and(|without| without == all) {
            return Err(GroupError::BadValue {
                key: key.clone(),
                value: value.clone(),
                reason: "systemd has no property for it; without --scope, --unit and --slice a group keeps it".into(),
            });
        }
    }
    Ok(())
}

/// What `linux.resources` has no property for.
fn io(settings: &[(String, String)], facts: &LimitFacts) -> Result<Vec<Property>, GroupError> {
    let mut out = Vec::new();
    for (key, value) in settings {
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

#[cfg(test)]
mod tests {
    use onggi_cgroup::systemd::Manager;

    use super::*;
    use crate::limit::{Means, Rlimit, plan_limit};

    fn plan_of(settings: &[(&str, &str)], scope: bool) -> Result<LimitPlan, GroupError> {
        let systemd = SystemdFacts {
            manager: Manager::System,
            version: 252,
            control_group: String::new(),
            devices: String::new(),
        };
        let unit = UnitRequest {
            name: "lab".into(),
            slice: Some("lab".into()),
            scope,
            systemd,
            directory: "/tmp".into(),
            program: "/bin/true".into(),
        };
        let controllers = ["cpu", "cpuset", "io", "memory", "pids"].map(str::to_owned).to_vec();
        let facts = LimitFacts {
            layout: onggi_spec::facts::CgroupLayout::V2 { mount: "/c".into(), controllers, own: "/".into() },
            means: Means::Unit(unit),
            offered: Default::default(),
            devices: Default::default(),
            origins: Vec::new(),
            before: (0, "0".into()),
        };
        let nofile = Rlimit { name: "RLIMIT_NOFILE".into(), number: 7, soft: 99, hard: u64::MAX };
        let request = LimitRequest {
            settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            nice: Some(5),
            rlimits: vec![nofile],
            target: Target::Command(vec!["true".into(), "a b".into()]),
        };
        plan_limit(&request, &facts)
    }

    const SETTINGS: [(&str, &str); 8] = [
        ("cpus", "0.5"),
        ("cpu-weight", "50"),
        ("cpuset", "0,2-3"),
        ("memory-high", "80M"),
        ("memory", "100M"),
        ("swap", "0"),
        ("pids", "9"),
        ("io-read-bps", "8:0:1M"),
    ];

    #[test]
    fn a_unit_has_what_systemd_run_would_ask_for() {
        let service = plan_of(&SETTINGS, false).expect("a plan").systemd_run;
        let options = [
            "--unit=lab.service",
            "--slice=lab.slice",
            "-pMemoryMax=100M",
            "-pCPUQuota=50%",
            "-pAllowedCPUs=0,2,3",
            "-pTasksMax=9",
            "-pCPUWeight=50",
            "-pMemoryHigh=80M",
            "-pMemorySwapMax=0",
            "-pIOReadBandwidthMax=/dev/block/8:0 1048576",
            "-pType=exec",
            "-pWorkingDirectory=/tmp",
            "-pNice=5",
            "-pLimitNOFILE=99:infinity",
        ];
        assert_eq!(service, [&options[..], &["true", "a b"]].concat());
        let scope = plan_of(&SETTINGS[..1], true).expect("a plan").systemd_run;
        let options = ["--scope", "--unit=lab.scope", "--slice=lab.slice", "-pCPUQuota=50%", "--nice=5"];
        assert_eq!(scope, [&options[..], &["prlimit", "--nofile=99:unlimited", "true", "a b"]].concat());
    }

    #[test]
    fn what_systemd_has_no_property_for_is_refused() {
        for key in [("oom-group", "1"), ("cpu-burst", "1000"), ("io.latency", "8:0 target=9")] {
            let refused = plan_of(&[("memory", "9M"), key], true).expect_err(key.0);
            assert!(refused.to_string().contains("systemd has no property for it"), "{refused}");
        }
        assert!(plan_of(&[("memory", "9M"), ("memory-swap", "9M")], true).is_ok(), "they belong together");
    }
}

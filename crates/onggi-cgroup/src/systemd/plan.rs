//! Which unit a container is, where its groups are, and what is written there.

use std::collections::BTreeMap;

use onggi_spec::facts::CgroupLayout;

use super::{Manager, Property, SystemdFacts, UnitPlan, limits, text, value::Value};
use crate::{
    CgroupError, CgroupPlan, CgroupRequest, Prepare,
    controllers::{self, Version},
    plan as plan_groups,
};

/// Prefix of units whose `cgroupsPath` names none.
const PREFIX: &str = "onggi";
/// Longest name of a unit (UNIT_NAME_MAX).
const MAX_NAME: usize = 255;
/// What an annotation begins with that is a property.
const ANNOTATION: &str = "org.systemd.property.";
/// Properties that decide what the container is: they are the runtime's to say.
const OURS: [&str; 6] = ["PIDs", "Slice", "Scope", "Controller", "DevicePolicy", "DeviceAllow"];

/// What a unit is made from besides the groups.
#[derive(Debug, Clone, Copy)]
pub struct UnitRequest<'a> {
    /// The container.
    pub id: &'a str,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a str>,
    /// The systemd.
    pub facts: &'a SystemdFacts,
    /// The configuration's annotations.
    pub annotations: &'a BTreeMap<String, String>,
}

/// Plans a container's unit and its groups. The path of `groups` is not looked at.
///
/// # Errors
/// A `cgroupsPath` that is not `slice:prefix:name`, an annotation that is no property, and as
/// [`crate::plan()`].
pub fn plan(
    layout: &CgroupLayout,
    groups: &CgroupRequest<'_>,
    unit: &UnitRequest<'_>,
) -> Result<CgroupPlan, CgroupError> {
    let version = match layout {
        CgroupLayout::V2 { .. } => Version::V2,
        CgroupLayout::V1 { .. } if unit.facts.manager == Manager::User => {
            return Err(CgroupError::SystemdPlan("cannot use rootless systemd cgroups manager on cgroup v1".into()));
        }
        CgroupLayout::V1 { .. } => Version::V1,
        CgroupLayout::None => return Err(CgroupError::NotMounted { what: "systemd cgroup driver".into() }),
    };
    let place = Place::parse(unit)?;
    let path = format!("{}{}/{}", unit.facts.control_group, expand(&place.slice)?, place.unit);
    let mut resources = groups.resources.clone();
    let notes = match version {
        Version::V2 => limits::one_weight(&mut resources, unit.facts),
        Version::V1 => Vec::new(),
    };
    let groups = &CgroupRequest { path: &path, resources: &resources, ..*groups };
    let mut plan = plan_groups::plan(layout, groups)?;
    plan.notes.extend(notes);
    for step in &mut plan.prepare {
        // systemd has made them by then, with the process that was lent to the unit inside.
        if let Prepare::MakeDir { own, .. } = step {
            *own = false;
        }
    }
    let mut properties = described(&place, unit.id, version);
    properties.extend(annotated(unit.annotations)?);
    properties.extend(oom_policy(groups));
    let rules = controllers::devices::rules(groups.resources)?;
    if !rules.is_empty() && !groups.rootless {
        properties.extend(limits::devices(&rules, unit.facts));
    }
    properties.extend(limits::limits(version, groups.resources, unit.facts)?);
    plan.unit = Some(UnitPlan { manager: unit.facts.manager, name: place.unit, properties });
    Ok(plan)
}

/// Slice and unit of a container.
struct Place {
    slice: String,
    unit: String,
}

impl Place {
    fn parse(unit: &UnitRequest<'_>) -> Result<Self, CgroupError> {
        let default_slice = match unit.facts.manager {
            Manager::System => "system.slice",
            Manager::User => "user.slice",
        };
        let (slice, prefix, name) = match unit.cgroups_path.filter(|p| !p.is_empty()) {
            None => ("", PREFIX, unit.id),
            Some(path) => match path.split(':').collect::<Vec<_>>()[..] {
                [slice, prefix, name] => (slice, prefix, name),
                _ => return Err(wrong_form(path)),
            },
        };
        let slice = if slice.is_empty() { default_slice } else { slice };
        let this = Self { slice: slice.to_owned(), unit: format!("{prefix}-{name}.scope") };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        if name.is_empty() || this.unit.len() > MAX_NAME || !this.unit.bytes().all(plain) {
            return Err(CgroupError::SystemdPlan(format!("{:?} is not the name of a systemd unit", cut(&this.unit))));
        }
        if name.ends_with(".slice") {
            return Err(CgroupError::SystemdPlan(format!("a container cannot be the slice {:?}", cut(name))));
        }
        Ok(this)
    }
}

fn wrong_form(path: &str) -> CgroupError {
    CgroupError::SystemdPlan(format!(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {:?} instead",
        cut(path)
    ))
}

fn cut(text: &str) -> String {
    text.chars().take(128).collect()
}

/// `a-b.slice` is in `a.slice`: `/a.slice/a-b.slice`. `-.slice` is the root (systemd.slice(5)).
fn expand(slice: &str) -> Result<String, CgroupError> {
    let wrong = || CgroupError::SystemdPlan(format!("invalid slice name: {}", cut(slice)));
    let stem = slice.strip_suffix(".slice").filter(|stem| !stem.is_empty()).ok_or_else(wrong)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    if slice.len() > MAX_NAME || !slice.bytes().all(plain) {
        return Err(wrong());
    }
    if stem == "-" {
        return Ok(String::new());
    }
    let (mut path, mut prefix) = (String::new(), String::new());
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(wrong());
        }
        path += &format!("/{prefix}{part}.slice");
        prefix += &format!("{part}-");
    }
    Ok(path)
}

fn described(place: &Place, id: &str, version: Version) -> Vec<Property> {
    let yes = |name: &str| Property::new(name, Value::Bool(true));
    vec![
        Property::new("Description", Value::Str(format!("onggi container {id}"))),
        Property::new("Slice", Value::str(&place.slice)),
        yes("Delegate"),
        yes("MemoryAccounting"),
        yes("CPUAccounting"),
        yes(if version == Version::V2 { "IOAccounting" } else { "BlockIOAccounting" }),
        yes("TasksAccounting"),
        Property::new("DefaultDependencies", Value::Bool(false)),
    ]
}

/// The properties among the annotations. Names are letters only, as in runc, and never one of [`OURS`].
fn annotated(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, CgroupError> {
    let property = |(key, value): (&String, &String)| {
        let name = key.strip_prefix(ANNOTATION).filter(|name| !name.is_empty())?;
        Some(one_annotation(name, value))
    };
    annotations.iter().filter_map(property).collect()
}

fn one_annotation(name: &str, text: &str) -> Result<Property, CgroupError> {
    let wrong =
        |why: &str| CgroupError::SystemdPlan(format!("annotation {ANNOTATION}{}={:?}: {why}", cut(name), cut(text)));
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(wrong("the name of a property has letters only"));
    }
    if OURS.contains(&name) {
        return Err(wrong("the runtime itself decides this property"));
    }
    let value = text::parse(text).map_err(wrong)?;
    // Files of units say seconds where D-Bus says microseconds: TimeoutStopSec, TimeoutStopUSec.
    let stem = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    match stem {
        None => Ok(Property::new(name, value)),
        Some(stem) => {
            let micros = microseconds(&value).ok_or_else(|| wrong("it is not a number of seconds"))?;
            Ok(Property { name: format!("{stem}USec"), value: Value::U64(micros) })
        }
    }
}

fn microseconds(value: &Value) -> Option<u64> {
    let whole = |n: i128| u64::try_from(n.checked_mul(1_000_000)?).ok();
    match value {
        Value::Byte(n) => whole(i128::from(*n)),
        Value::I16(n) => whole(i128::from(*n)),
        Value::U16(n) => whole(i128::from(*n)),
        Value::I32(n) => whole(i128::from(*n)),
        Value::U32(n) => whole(i128::from(*n)),
        Value::I64(n) => whole(i128::from(*n)),
        Value::U64(n) => whole(i128::from(*n)),
        // Beyond 2^63 microseconds nothing is meant but "for ever".
        Value::F64(n) if *n >= 0.0 && *n < 9.2e12 => Some((n * 1e6) as u64),
        _ => None,
    }
}

/// systemd ends a scope of which a process was killed for memory unless it is told otherwise.
fn oom_policy(groups: &CgroupRequest<'_>) -> Option<Property> {
    let policy = match groups.resources.unified.get("memory.oom.group")?.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    Some(Property::new("OOMPolicy", Value::str(policy)))
}

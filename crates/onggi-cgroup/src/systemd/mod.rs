//! Cgroups by systemd: a container as a transient scope.
//!
//! systemd owns the tree that it manages; a group made behind its back may be taken away by it. So the unit is
//! asked for over D-Bus ([`bus`], a small client of our own) and what systemd has no word for is written to
//! cgroupfs below it (`Delegate=yes`). [`plan()`] is pure; it says which unit, which properties and which
//! writes. `org.freedesktop.systemd1(5)`, `systemd.resource-control(5)`.
//!
//! A scope needs a process from its beginning. The runtime makes the cgroup before the container, so it lends
//! a process of its own until the container's first one is in the scope.

mod bus;
mod limits;
mod plan;
mod text;
mod value;
mod wire;

use serde::{Deserialize, Serialize};

pub use bus::BusError;
pub use limits::{one_weight, update_properties};
pub use plan::{UnitRequest, plan};
pub use value::Value;

use crate::CgroupError;
use bus::Bus;

/// Which systemd manages the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    /// PID 1, over the system bus.
    System,
    /// A user's own, over the user bus.
    User,
}

/// What a planner may know of a systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdFacts {
    /// Which.
    pub manager: Manager,
    /// Its version: properties come with versions.
    pub version: u32,
    /// The manager's own group; units of a user's manager are below it.
    pub control_group: String,
    /// `/proc/devices`: what the group names of device rules mean.
    pub devices: String,
}

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Property {
    /// `MemoryMax`.
    pub name: String,
    /// Its value.
    pub value: Value,
}

impl Property {
    fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value }
    }

    /// As `systemctl show` would print it, roughly: for people who read a plan.
    pub fn words(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

/// A transient unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitPlan {
    /// Whose it is.
    pub manager: Manager,
    /// `onggi-web.scope`.
    pub name: String,
    /// Its properties, in order; the first process is added when it is known.
    pub properties: Vec<Property>,
}

impl UnitPlan {
    /// Lets at least `least` tasks in for now.
    pub fn raise_tasks(&mut self, least: u64) {
        for property in self.properties.iter_mut().filter(|p| p.name == "TasksMax") {
            if let Value::U64(n) = &mut property.value {
                *n = least.max(*n);
            }
        }
    }
}

// A property's number is never NaN: the text of an annotation cannot say so.
impl Eq for UnitPlan {}

/// Asks systemd about itself: the system's for privileged callers, else the user's.
///
/// # Errors
/// There is no systemd to be reached, which the error's hint explains.
pub fn facts(privileged: bool) -> Result<SystemdFacts, CgroupError> {
    let manager = if privileged { Manager::System } else { Manager::User };
    let mut bus = connect(manager)?;
    let version = bus.manager_property("Version").map_err(|e| failure(manager, "read its version", e))?;
    let control_group = match manager {
        Manager::System => String::new(),
        Manager::User => {
            bus.manager_property("ControlGroup").map_err(|e| failure(manager, "read its control group", e))?
        }
    };
    let devices = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    Ok(SystemdFacts { manager, version: parse_version(&version), control_group, devices })
}

/// `252.38-1~deb12u1`, `v245.4-1.fc32`; 0 when it makes no sense: then nothing new is used.
fn parse_version(text: &str) -> u32 {
    let digits: String = text.trim_start_matches(['v', '"']).chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Starts the unit with `pid` as its first process and waits until systemd has made its groups.
///
/// # Errors
/// systemd refuses, or does not finish in time.
pub fn start(unit: &UnitPlan, pid: i32) -> Result<(), CgroupError> {
    let what = format!("start unit {}", unit.name);
    let pids = Value::Array("u".into(), vec![Value::U32(pid.unsigned_abs())]);
    let mut properties = unit.properties.clone();
    properties.push(Property::new("PIDs", pids));
    let mut bus = connect(unit.manager)?;
    let fail = |e| failure(unit.manager, &what, e);
    let result = match bus.start_transient_unit(&unit.name, &properties) {
        Err(e) if e.is_named("org.freedesktop.systemd1.UnitExists") => {
            // What a failed unit of this name left behind goes away when it is reset.
            let _ = bus.reset_failed_unit(&unit.name);
            bus.start_transient_unit(&unit.name, &properties).map_err(fail)?
        }
        other => other.map_err(fail)?,
    };
    if result == "done" {
        return Ok(());
    }
    let _ = bus.reset_failed_unit(&unit.name);
    Err(fail(BusError::Job(result)))
}

/// Starts a unit that brings its own process, and waits until systemd has done so.
///
/// # Errors
/// systemd refuses, or the process cannot be started.
pub fn start_service(unit: &UnitPlan) -> Result<(), CgroupError> {
    let fail = |e| failure(unit.manager, &format!("start unit {}", unit.name), e);
    let mut bus = connect(unit.manager)?;
    let result = match bus.start_transient_unit(&unit.name, &unit.properties) {
        Err(e) if e.is_named("org.freedesktop.systemd1.UnitExists") => {
            // As for a scope: one that runs stays, one that has failed makes room.
            let _ = bus.reset_failed_unit(&unit.name);
            bus.start_transient_unit(&unit.name, &unit.properties).map_err(fail)?
        }
        other => other.map_err(fail)?,
    };
    match result {
        result if result == "done" => Ok(()),
        result => Err(fail(BusError::Job(result))),
    }
}

/// Moves a process of the caller's into the unit. A user may not take a process from his session to a unit of
/// his systemd; that one has it done by PID 1.
///
/// # Errors
/// systemd refuses.
pub fn attach(manager: Manager, unit: &str, pid: i32) -> Result<(), CgroupError> {
    let fail = |e| failure(manager, &format!("move process {pid} into unit {unit}"), e);
    connect(manager)?.attach_process(unit, pid.unsigned_abs()).map_err(fail)
}

/// Changes the limits of a running unit.
///
/// # Errors
/// systemd refuses.
pub fn set(manager: Manager, unit: &str, properties: &[Property]) -> Result<(), CgroupError> {
    if properties.is_empty() {
        return Ok(());
    }
    let fail = |e| failure(manager, &format!("set properties of unit {unit}"), e);
    connect(manager)?.set_unit_properties(unit, properties).map_err(fail)
}

/// Stops the unit, which kills what is left in it, and forgets its failure. One that is gone is no error.
///
/// # Errors
/// systemd does not finish in time.
pub fn stop(manager: Manager, unit: &str) -> Result<(), CgroupError> {
    let mut bus = connect(manager)?;
    let stopped = match bus.stop_unit(unit) {
        Err(e) if e.is_named("org.freedesktop.systemd1.NoSuchUnit") => Ok(()),
        // What was done instead of "done" is removed below us anyway.
        other => other.map(drop),
    };
    let _ = bus.reset_failed_unit(unit);
    stopped.map_err(|e| failure(manager, &format!("stop unit {unit}"), e))
}

fn connect(manager: Manager) -> Result<Bus, CgroupError> {
    Bus::connect(manager).map_err(|e| failure(manager, "connect", e))
}

fn failure(manager: Manager, what: &str, source: BusError) -> CgroupError {
    let who = match manager {
        Manager::System => "systemd",
        Manager::User => "the user's systemd",
    };
    CgroupError::Systemd { what: format!("{who}: {what}"), source }
}

#[cfg(test)]
mod tests;

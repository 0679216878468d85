//! `linux.resources.devices`: which device nodes may be made and opened.
//!
//! Version 1 has the devices controller: rules in order, a later one wins. On version 2 they become a
//! program ([`crate::device_filter`]), so there they yield no control file.

use onggi_spec::oci::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::{Setting, Settings, Version, bad};
use crate::{
    CgroupError,
    device_filter::{DeviceKind, DeviceRule, MAX_RULES},
};

pub(super) fn settings(resources: &LinuxResources, version: Version) -> Settings {
    let rules = rules(resources)?;
    let setting = |rule: &DeviceRule| {
        let (file, verb) = if rule.allow { ("devices.allow", "allowing") } else { ("devices.deny", "denying") };
        let line = rule.words();
        Setting::new("devices", file, line.clone(), format!("device rule {verb} {line}"))
    };
    Ok(match version {
        Version::V1 => rules.iter().map(setting).collect(),
        Version::V2 => Vec::new(),
    })
}

/// The rules, checked.
pub(crate) fn rules(resources: &LinuxResources) -> Result<Vec<DeviceRule>, CgroupError> {
    if resources.devices.len() > MAX_RULES {
        return Err(bad("devices", resources.devices.len(), "there are more rules than any container needs"));
    }
    resources.devices.iter().map(rule).collect()
}

fn rule(rule: &LinuxDeviceCgroup) -> Result<DeviceRule, CgroupError> {
    let kind = match rule.typ.as_deref() {
        None | Some("" | "a") => None,
        Some("b") => Some(DeviceKind::Block),
        Some("c" | "u") => Some(DeviceKind::Char),
        Some(other) => return Err(bad("devices.type", other, "use a, b or c")),
    };
    let access = match rule.access.as_deref() {
        None | Some("") => "rwm",
        // Other letters beside these mean nothing, as in runc.
        Some(access) if access.contains(['r', 'w', 'm']) => access,
        Some(other) => return Err(bad("devices.access", other, "use letters of rwm")),
    };
    let (major, minor) = (number("devices.major", rule.major)?, number("devices.minor", rule.minor)?);
    let has = |letter| access.contains(letter);
    let (read, write, mknod) = (has('r'), has('w'), has('m'));
    Ok(match kind {
        // As the kernel, and so runc and crun: it is about everything, whatever else it says.
        None => DeviceRule { allow: rule.allow, kind, major: None, minor: None, read: true, write: true, mknod: true },
        _ => DeviceRule { allow: rule.allow, kind, major, minor, read, write, mknod },
    })
}

fn number(member: &str, value: Option<i64>) -> Result<Option<u32>, CgroupError> {
    match value {
        None | Some(-1) => Ok(None),
        Some(n) => match u32::try_from(n) {
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(bad(member, n, "use a device number, or -1 for every one")),
        },
    }
}

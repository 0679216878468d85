//! `linux.resources.devices`: which device nodes may be made and opened.
//!
//! Version 1 has the devices controller: rules in order, a later one wins. Version 2 needs an eBPF
//! program, see [`crate::plan`]; there, rules yield no control file.

use onggi_spec::oci::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::{Setting, Settings, Version, bad};

pub(super) fn settings(resources: &LinuxResources, version: Version) -> Settings {
    let mut out = Vec::new();
    for rule in &resources.devices {
        let line = line(rule)?;
        if version == Version::V1 {
            let (file, verb) = if rule.allow { ("devices.allow", "allowing") } else { ("devices.deny", "denying") };
            out.push(Setting::new("devices", file, line.clone(), format!("device rule {verb} {line}")));
        }
    }
    Ok(out)
}

/// `c 1:3 rwm`.
fn line(rule: &LinuxDeviceCgroup) -> Result<String, crate::CgroupError> {
    let typ = match rule.typ.as_deref() {
        None | Some("" | "a") => 'a',
        Some("b") => 'b',
        Some("c" | "u") => 'c',
        Some(other) => return Err(bad("devices.type", other, "use a, b or c")),
    };
    let access = match rule.access.as_deref() {
        None | Some("") => "rwm",
        Some(access) if access.len() <= 3 && access.bytes().all(|b| b"rwm".contains(&b)) => access,
        Some(other) => return Err(bad("devices.access", other, "use letters of rwm")),
    };
    if typ == 'a' && access.len() < 3 {
        // The kernel would silently read it as all three.
        return Err(bad("devices.access", access, "a rule for all devices is about rwm"));
    }
    let (major, minor) = (number("devices.major", rule.major)?, number("devices.minor", rule.minor)?);
    if typ == 'a' && (major != "*" || minor != "*") {
        return Err(bad("devices.type", "a", "a rule for a device number needs type b or c"));
    }
    Ok(format!("{typ} {major}:{minor} {access}"))
}

fn number(member: &str, value: Option<i64>) -> Result<String, crate::CgroupError> {
    match value {
        None | Some(-1) => Ok("*".into()),
        Some(n) if (0..=i64::from(u32::MAX)).contains(&n) => Ok(n.to_string()),
        Some(n) => Err(bad(member, n, "use a device number, or -1 for every one")),
    }
}

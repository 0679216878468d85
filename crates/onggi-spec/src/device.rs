//! `--device` and `--device-cgroup-rule`.

use serde::{Deserialize, Serialize};

use crate::{ParseError, oci::runtime::LinuxDeviceCgroup, path};

/// A device of the host that a container may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Path on the host: a device, or a directory of them.
    pub host: String,
    /// Absolute path in the container, normalised.
    pub target: String,
    /// Letters of `r` (read), `w` (write) and `m` (make nodes of it).
    pub access: String,
}

/// Letters of access, each once.
fn access(text: &str) -> Option<&str> {
    let once = |c: char| text.matches(c).count() <= 1;
    (!text.is_empty() && text.chars().all(|c| "rwm".contains(c) && once(c))).then_some(text)
}

/// Reads one `--device`: `HOST[:CONTAINER][:ACCESS]`.
///
/// # Errors
/// Outside the grammar.
pub fn parse_device(text: &str) -> Result<DeviceSpec, ParseError> {
    let err = |reason: &str| ParseError::new("device", text, reason).hint("write /dev/NAME[:/dev/NAME][:rwm]");
    let parts: Vec<&str> = text.split(':').collect();
    let (host, target, letters) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, second] if access(second).is_some() => (*host, *host, *second),
        [host, target] => (*host, *target, "rwm"),
        [host, target, letters] => (*host, *target, *letters),
        _ => return Err(err("too many colons")),
    };
    if text.contains('\0') || !host.starts_with('/') || host.len() > path::MAX_PATH {
        return Err(err("the device must be an absolute path"));
    }
    let access = access(letters).ok_or_else(|| err("access is made of r, w and m"))?.to_owned();
    let target = path::normalise(target).ok_or_else(|| err("the target must be an absolute path without '..'"))?;
    Ok(DeviceSpec { host: host.to_owned(), target, access })
}

/// Reads one `--device-cgroup-rule`: `c 1:3 rwm`, `*` for every number.
///
/// # Errors
/// Outside the grammar.
pub fn parse_device_rule(text: &str) -> Result<LinuxDeviceCgroup, ParseError> {
    let err =
        || ParseError::new("device rule", text, "it is no rule").hint("write TYPE MAJOR:MINOR ACCESS, as in c 1:3 rwm");
    let words: Vec<&str> = text.split(' ').collect();
    let [typ @ ("a" | "b" | "c"), numbers, letters] = words.as_slice() else { return Err(err()) };
    let number = |text: &str| match text {
        "*" => Some(None),
        _ => text.parse::<u32>().ok().map(|n| Some(i64::from(n))),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(err)?;
    Ok(LinuxDeviceCgroup {
        allow: true,
        typ: Some((*typ).to_owned()),
        major: number(major).ok_or_else(err)?,
        minor: number(minor).ok_or_else(err)?,
        access: Some(access(letters).ok_or_else(err)?.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_a_path_and_letters() {
        let read = |text| parse_device(text).map(|d| (d.host, d.target, d.access)).expect(text);
        let own = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(read("/dev/null"), own("/dev/null", "/dev/null", "rwm"));
        assert_eq!(read("/dev/null:r"), own("/dev/null", "/dev/null", "r"));
        assert_eq!(read("/dev/null:/dev/x"), own("/dev/null", "/dev/x", "rwm"));
        assert_eq!(read("/dev/null:/dev/x:rw"), own("/dev/null", "/dev/x", "rw"));
        for bad in [
            "",
            "null",
            "/dev/null:x",
            "/dev/null:/dev/x:q",
            "/dev/null:/a/../b",
            "/a:/b:r:x",
            "/dev/null:/x:",
            "/a:/b:rr",
        ] {
            assert!(parse_device(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rules_name_a_type_numbers_and_letters() {
        let rule = parse_device_rule("c 42:* rw").expect("parses");
        assert_eq!((rule.allow, rule.typ.as_deref(), rule.major, rule.minor), (true, Some("c"), Some(42), None));
        assert_eq!(rule.access.as_deref(), Some("rw"));
        for bad in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 q", "c -1:3 r", "c 1:3 rw x", "c  1:3 r"] {
            assert!(parse_device_rule(bad).is_err(), "{bad:?}");
        }
    }
}

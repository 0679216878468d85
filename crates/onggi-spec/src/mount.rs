//! `-v`: `source:target[:ro,dev,suid,noexec,...]`.

use serde::{Deserialize, Serialize};

use crate::{ParseError, path};

const WHAT: &str = "volume";

/// A mount that the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute host path of a bind mount.
    pub source: String,
    /// Absolute path in the container, normalised, without `..`.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// Mount propagation of the bind.
    pub propagation: Propagation,
    /// What may be done with its files.
    #[serde(default)]
    pub permits: Permits,
    /// What is mounted below the source is not seen.
    #[serde(default)]
    pub non_recursive: bool,
}

/// What may be done with the files of a mount; where nothing was said, the engine decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Permits {
    /// `dev` or `nodev`: device files may be opened.
    pub dev: Option<bool>,
    /// `suid` or `nosuid`: set-user-ID bits and file capabilities have effect.
    pub suid: Option<bool>,
    /// `exec` or `noexec`: programs may be executed.
    pub exec: Option<bool>,
}

/// Propagation of a bind mount (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// `rprivate`, the default.
    #[default]
    Rprivate,
    /// `rslave`.
    Rslave,
    /// `rshared`.
    Rshared,
}

impl Propagation {
    /// The mount option.
    pub fn option(self) -> &'static str {
        match self {
            Self::Rprivate => "rprivate",
            Self::Rslave => "rslave",
            Self::Rshared => "rshared",
        }
    }
}

/// Of each row one word can be given.
const EXCLUSIVE: [&[&str]; 5] = [
    &["ro", "readonly", "rw"],
    &["rprivate", "rslave", "rshared"],
    &["dev", "nodev"],
    &["suid", "nosuid"],
    &["exec", "noexec"],
];

/// Reads one `-v` value. The caller has already made a relative source absolute.
///
/// `z`, `Z` (SELinux relabelling), `cached`, `delegated` and `consistent` have no meaning on a host without
/// SELinux or a virtual machine in between and change nothing, as with Docker.
///
/// # Errors
/// Outside the grammar; for volumes that are not a host path, which do not exist yet.
pub fn parse_volume(text: &str) -> Result<MountSpec, ParseError> {
    let err = |reason: &str| ParseError::new(WHAT, text, reason).hint("write /host/path:/container/path[:ro]");
    if text.contains('\0') || text.len() > 2 * path::MAX_PATH {
        return Err(err("it contains a NUL byte or is too long"));
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        [_] => return Err(err("anonymous volumes do not exist yet")),
        _ => return Err(err("too many colons (a path with ':' cannot be given to -v)")),
    };
    if source.is_empty() || target.is_empty() {
        return Err(err("the source or the target is empty"));
    }
    if !source.starts_with('/') {
        return Err(ParseError::new(WHAT, text, "named volumes do not exist yet")
            .hint("use an absolute host path, or ./name for a directory here"));
    }
    let target = path::normalise(target).ok_or_else(|| err("the target must be an absolute path without '..'"))?;
    if target == "/" {
        return Err(err("the target must not be /"));
    }
    let (propagation, permits) = (Propagation::default(), Permits::default());
    let mut mount =
        MountSpec { source: source.to_owned(), target, read_only: false, propagation, permits, non_recursive: false };
    let options: Vec<&str> = options.split(',').filter(|o| !o.is_empty()).collect();
    for same_kind in EXCLUSIVE {
        if options.iter().filter(|o| same_kind.contains(o)).count() > 1 {
            return Err(err(&format!("only one of {} can be given", same_kind.join(", "))));
        }
    }
    for option in options {
        apply_option(&mut mount, option).map_err(|reason| err(&reason))?;
    }
    Ok(mount)
}

const OPTIONS: &str = "ro, rw, dev, nodev, suid, nosuid, exec, noexec, rprivate, rslave, rshared, z, Z";

fn apply_option(mount: &mut MountSpec, option: &str) -> Result<(), String> {
    match option {
        "ro" | "readonly" => mount.read_only = true,
        "rw" => mount.read_only = false,
        "rprivate" => mount.propagation = Propagation::Rprivate,
        "rslave" => mount.propagation = Propagation::Rslave,
        "rshared" => mount.propagation = Propagation::Rshared,
        "dev" | "nodev" => mount.permits.dev = Some(option == "dev"),
        "suid" | "nosuid" => mount.permits.suid = Some(option == "suid"),
        "exec" | "noexec" => mount.permits.exec = Some(option == "exec"),
        "rbind" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
        "private" | "slave" | "shared" => return Err(format!("only the recursive form r{option} is supported")),
        _ => return Err(format!("unknown option {option:?} ({OPTIONS})")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_mounts_are_read() {
        let m = parse_volume("/src:/a//b/./c/:ro,rslave").expect("parses");
        assert_eq!((m.source.as_str(), m.target.as_str()), ("/src", "/a/b/c"));
        assert!(m.read_only);
        assert_eq!(m.propagation, Propagation::Rslave);
        assert!(!parse_volume("/src:/dst:z").expect("parses").read_only);
        let permits = |text: &str| parse_volume(text).expect("parses").permits;
        assert_eq!(permits("/a:/b"), Permits::default());
        assert_eq!(permits("/a:/b:dev,suid,exec"), Permits { dev: Some(true), suid: Some(true), exec: Some(true) });
        assert_eq!(permits("/a:/b:noexec,nodev"), Permits { dev: Some(false), suid: None, exec: Some(false) });
    }

    #[test]
    fn what_is_not_a_bind_mount_is_refused() {
        for text in [
            "",
            ":",
            "/a",
            "/a:",
            ":/a",
            "name:/a",
            "./a:/b",
            "/a:b",
            "/a:/b/../c",
            "/a:/",
            "/a:/b:rox",
            "/a:/b:shared",
            "/a:/b:dev,nodev",
            "/a:/b:suid,ro,nosuid",
            "/a:/b:ro:x",
            "/a\0:/b",
            "../x:/b",
        ] {
            assert!(parse_volume(text).is_err(), "{text:?}");
        }
        let e = parse_volume("data:/var/lib").expect_err("named");
        assert_eq!(e.reason, "named volumes do not exist yet");
        assert!(e.hint.contains("absolute"));
    }
}

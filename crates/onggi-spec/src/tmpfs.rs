//! `--tmpfs` and `--mount`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    ParseError,
    mount::{MountSpec, Permits, Propagation},
    path,
    quantity::parse_size,
};

/// A temporary filesystem of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute path in the container, normalised.
    pub target: String,
    /// Mount options, as they were given.
    pub options: Vec<String>,
}

/// What `--mount` makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyMount {
    /// `type=bind`; a relative source is the caller's to resolve.
    Bind(MountSpec),
    /// `type=tmpfs`.
    Tmpfs(Tmpfs),
}

/// Options that mean something without a value, of each row one.
const WORDS: [&[&str]; 5] =
    [&["ro", "rw"], &["suid", "nosuid"], &["dev", "nodev"], &["exec", "noexec"], &["atime", "noatime", "relatime"]];

/// Options with a value (tmpfs(5)).
const KEYS: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

fn target(what: &'static str, text: &str, target: &str) -> Result<String, ParseError> {
    let err = |reason| ParseError::new(what, text, reason);
    let target = path::normalise(target).ok_or_else(|| err("the target must be an absolute path without '..'"))?;
    if target == "/" || text.contains('\0') {
        return Err(err("the target must not be /"));
    }
    Ok(target)
}

/// Reads one `--tmpfs`: `PATH[:OPTIONS]`.
///
/// # Errors
/// Outside the grammar.
pub fn parse_tmpfs(text: &str) -> Result<Tmpfs, ParseError> {
    let err = |reason: String| ParseError::new("tmpfs", text, reason).hint("write /path[:size=64m,mode=1777,ro,exec]");
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let options: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
    for option in &options {
        let known = match option.split_once('=') {
            Some((key, value)) => KEYS.contains(&key) && !value.is_empty(),
            None => WORDS.iter().any(|row| row.contains(&option.as_str())),
        };
        if !known {
            return Err(err(format!("invalid tmpfs option [{option:?}]")));
        }
    }
    Ok(Tmpfs { target: target("tmpfs", text, path)?, options })
}

impl Tmpfs {
    /// The mount's options: Docker's defaults, each unless its opposite was asked for.
    pub fn mount_options(&self) -> Vec<String> {
        let row_of = |word: &str| WORDS.iter().find(|row| row.contains(&word));
        let given: BTreeSet<&str> = self.options.iter().map(String::as_str).collect();
        let silent = |word: &&str| row_of(word).is_some_and(|row| !row.iter().any(|w| given.contains(w)));
        let defaults = ["noexec", "nosuid", "nodev"].into_iter().filter(silent);
        defaults.map(str::to_owned).chain(["rprivate".to_owned()]).chain(self.options.iter().cloned()).collect()
    }
}

/// Reads one `--mount`: `type=bind|tmpfs,source=…,target=…[,OPTION…]`.
///
/// # Errors
/// Outside the grammar; for volumes, which do not exist yet.
pub fn parse_mount(text: &str) -> Result<AnyMount, ParseError> {
    let hint = "write type=bind,source=PATH,target=PATH[,readonly] or type=tmpfs,target=PATH[,tmpfs-size=64m]";
    let err = |reason: String| ParseError::new("mount", text, reason).hint(hint);
    let mut read = Fields::default();
    for field in fields(text).map_err(err)? {
        read.take(&field).map_err(err)?;
    }
    let path = read.target.as_deref().ok_or_else(|| err("target is required".to_owned()))?;
    let target = target("mount", text, path)?;
    match read.typ.as_deref() {
        Some("bind") => read.bind(target).map(AnyMount::Bind).map_err(err),
        Some("tmpfs") => read.tmpfs(target).map(AnyMount::Tmpfs).map_err(err),
        None | Some("volume") => Err(ParseError::new("mount", text, "named volumes do not exist yet")
            .hint("use type=bind with a directory of the host, or type=tmpfs")),
        Some(other) => Err(err(format!("mount type {other:?} is unknown"))),
    }
}

/// What commas separate, as in CSV (RFC 4180): a field in double quotes may hold commas, and quotes written twice.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (part, after) = quoted.split_once('"').ok_or("a quotation mark is not closed")?;
                field.push_str(part);
                match after.strip_prefix('"') {
                    Some(more) => (field.push('"'), quoted = more).1,
                    None => break rest = after,
                }
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        all.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(all),
            None => return Err("a comma must follow a closing quotation mark".to_owned()),
        }
    }
}

#[derive(Default)]
struct Fields {
    typ: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: bool,
    propagation: Option<Propagation>,
    non_recursive: bool,
    size: Option<u64>,
    mode: Option<u32>,
}

impl Fields {
    fn take(&mut self, field: &str) -> Result<(), String> {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let text = || value.filter(|v| !v.is_empty()).map(str::to_owned).ok_or_else(|| format!("{key} has no value"));
        let truth = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("{key} is true or false, not {other:?}")),
        };
        match key {
            "type" => self.typ = Some(text()?.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(text()?),
            "target" | "destination" | "dst" => self.target = Some(text()?),
            "readonly" | "ro" => self.read_only = truth()?,
            "rw" => self.read_only = !truth()?,
            "bind-propagation" => {
                self.propagation = Some(match text()?.as_str() {
                    "rprivate" => Propagation::Rprivate,
                    "rslave" => Propagation::Rslave,
                    "rshared" => Propagation::Rshared,
                    other => return Err(format!("bind-propagation {other:?}: use rprivate, rslave or rshared")),
                });
            }
            "bind-nonrecursive" => self.non_recursive = truth()?,
            // Nothing here moves files of a host without SELinux or through a virtual machine.
            "consistency" => drop(text()?),
            "tmpfs-size" => self.size = Some(parse_size(&text()?).map_err(|e| e.to_string())?),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(&text()?, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or("tmpfs-mode is an octal number, as in 1770")?);
            }
            _ => return Err(format!("unexpected key {key:?}")),
        }
        Ok(())
    }

    fn bind(self, target: String) -> Result<MountSpec, String> {
        if self.size.is_some() || self.mode.is_some() {
            return Err("tmpfs-size and tmpfs-mode are for type=tmpfs".to_owned());
        }
        Ok(MountSpec {
            source: self.source.ok_or("source is required for type=bind")?,
            target,
            read_only: self.read_only,
            propagation: self.propagation.unwrap_or_default(),
            permits: Permits::default(),
            non_recursive: self.non_recursive,
        })
    }

    fn tmpfs(self, target: String) -> Result<Tmpfs, String> {
        if self.source.is_some() || self.propagation.is_some() || self.non_recursive {
            return Err("type=tmpfs has no source and no bind options".to_owned());
        }
        let size = self.size.map(|bytes| format!("size={bytes}"));
        let mode = self.mode.map(|mode| format!("mode={mode:o}"));
        let options = size.into_iter().chain(mode).chain(self.read_only.then(|| "ro".to_owned())).collect();
        Ok(Tmpfs { target, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_tmpfs_replace_the_defaults() {
        let options = |text: &str| parse_tmpfs(text).expect(text).mount_options().join(",");
        assert_eq!(options("/run"), "noexec,nosuid,nodev,rprivate");
        assert_eq!(options("/run:exec,size=64m"), "nosuid,nodev,rprivate,exec,size=64m");
        assert_eq!(options("/run:ro,dev,suid,mode=1777"), "noexec,rprivate,ro,dev,suid,mode=1777");
        for bad in ["", "run", "/", "/a/../b", "/run:bogus", "/run:size=", "/run:remount"] {
            assert!(parse_tmpfs(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mounts_are_read_in_any_order_and_under_every_name() {
        let read = |text: &str| parse_mount(text).expect(text);
        let AnyMount::Bind(bind) = read("dst=/b,src=/a,type=bind,ro,bind-propagation=rslave,bind-nonrecursive") else {
            panic!("a bind")
        };
        assert_eq!((bind.source.as_str(), bind.target.as_str()), ("/a", "/b"));
        assert!(bind.read_only && bind.non_recursive);
        assert_eq!(bind.propagation, Propagation::Rslave);
        let AnyMount::Bind(bind) = read("type=bind,\"src=/a,\"\"b\"\"\",dst=/b") else { panic!("a bind") };
        assert_eq!(bind.source, "/a,\"b\"");
        let AnyMount::Tmpfs(tmpfs) = read("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700,readonly=true") else {
            panic!("a tmpfs")
        };
        assert_eq!(tmpfs.options, ["size=1048576", "mode=700", "ro"]);
        for bad in [
            "",
            "type=bind,source=/a",
            "type=bind,target=/a",
            "type=tmpfs,target=/a,source=/b",
            "type=bind,source=/a,target=/b,tmpfs-size=1",
            "type=npipe,target=/a",
            "type=volume,source=x,target=/a",
            "type=bind,source=/a,target=/b,what=1",
            "type=bind,source=/a,target=/b,ro=maybe",
            "type=tmpfs,target=/a,tmpfs-mode=9",
            "type=bind,\"source=/a,target=/b",
            "type=bind,\"source=/a\"b,target=/b",
        ] {
            assert!(parse_mount(bad).is_err(), "{bad:?}");
        }
    }
}

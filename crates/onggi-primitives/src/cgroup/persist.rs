//! A group that systemd makes again at each boot: a snapshot, and a service that restores it.
//!
//! ```text
//! /etc/onggi/cgroups/NAME.conf                         the snapshot (a cgconfig.conf)
//! /etc/systemd/system/onggi-cgroup-NAME.service        onggi cgroup restore of it, once
//! ```
//!
//! Both are written by `onggi cgroup persist` alone. A crash between them leaves a snapshot that nobody reads; the next
//! `persist` writes both again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use onggi_sys::trace;
use serde::Serialize;

use super::{Group, GroupError, Snapshot};
use crate::shell::quote;

/// Where programs of the system are: never a PATH.
const TRUSTED: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];

/// What is written, and what systemd is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Persist {
    /// The service.
    pub unit: String,
    /// Files with their contents; none means that they are removed.
    pub files: Vec<(PathBuf, Option<String>)>,
    /// Arguments of systemctl(1), before the files are removed or after they are written.
    pub systemctl: Vec<Vec<String>>,
}

/// Controllers that systemd can be asked for (systemd.resource-control(5), `Delegate=`).
const DELEGATED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Plans the files of a group; without a snapshot they are removed.
pub fn persist_plan(group: &Group, snapshot: Option<&Snapshot>, program: &str) -> Persist {
    let remove = snapshot.is_none();
    let name = file_name(&group.path);
    let unit = format!("onggi-cgroup-{name}.service");
    let config = PathBuf::from(format!("/etc/onggi/cgroups/{name}.conf"));
    let text = format!(
        "[Unit]\nDescription=Control group {}\nAfter=sys-fs-cgroup.mount\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
         {}ExecStart={program} cgroup restore {}\n\n[Install]\nWantedBy=multi-user.target\n",
        group.path,
        snapshot.map(delegate).unwrap_or_default(),
        config.display()
    );
    let files = vec![
        (config, snapshot.map(Snapshot::text)),
        (PathBuf::from(format!("/etc/systemd/system/{unit}")), (!remove).then_some(text)),
    ];
    let words = |line: &[&str]| line.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let systemctl = match remove {
        false => vec![words(&["daemon-reload"]), words(&["enable", "--now", &unit])],
        true => vec![words(&["disable", "--now", &unit]), words(&["daemon-reload"])],
    };
    Persist { unit, files, systemctl }
}

/// A group's name as a part of a unit's (systemd.unit(5)): `/` becomes `:`, what is not allowed there `::` and two
/// hexadecimal digits. No name has `//`, so no two groups share a file.
fn file_name(path: &str) -> String {
    let plain = |b: u8| match b {
        b'/' => ":".to_owned(),
        b if b.is_ascii_alphanumeric() || b"._-".contains(&b) => char::from(b).to_string(),
        b => format!("::{b:02x}"),
    };
    path.bytes().map(plain).collect()
}

/// systemd switches controllers off for which no unit has asked, and limits of other groups go with them. A service that
/// has them given to itself keeps them on, from the root down.
fn delegate(snapshot: &Snapshot) -> String {
    let used = |c: &&str| snapshot.groups.iter().any(|group| group.sections.iter().any(|(name, _)| name == c));
    let names: Vec<&str> = DELEGATED.into_iter().filter(used).collect();
    if names.is_empty() { String::new() } else { format!("Delegate={}\n", names.join(" ")) }
}

impl Persist {
    fn removes(&self) -> bool {
        self.files.iter().all(|(_, content)| content.is_none())
    }

    /// One line per operation.
    pub fn words(&self) -> String {
        let files: String = self.files.iter().map(|file| file_words(file) + "\n").collect();
        let told: String = self.systemctl.iter().map(|words| format!("systemctl {}\n", words.join(" "))).collect();
        if self.removes() { told + &files } else { files + &told }
    }

    /// A script that does the same.
    pub fn shell(&self) -> String {
        let file = |(path, content): &(PathBuf, Option<String>)| {
            let at = quote(&path.display().to_string());
            let parent = path.parent().map(|p| quote(&p.display().to_string())).unwrap_or_default();
            match content {
                Some(text) => format!("mkdir -p {parent}\nprintf '%s' {} > {at}\n", quote(text)),
                None => format!("rm -f {at}\n"),
            }
        };
        let files: String = self.files.iter().map(file).collect();
        let told: String = self.systemctl.iter().map(|words| format!("systemctl {}\n", words.join(" "))).collect();
        format!("set -e\n{}", if self.removes() { told + &files } else { files + &told })
    }

    /// Does it.
    ///
    /// # Errors
    /// There is no systemd, or a file cannot be written.
    pub fn apply(&self) -> Result<(), GroupError> {
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(GroupError::NoSystemd);
        }
        if self.removes() {
            // Forgotten already.
            if self.files.iter().all(|(path, _)| !path.exists()) {
                return Ok(());
            }
            self.tell()?;
        }
        self.files.iter().try_for_each(|file| trace::step("primitives", || file_words(file), || keep(file)))?;
        if self.removes() { Ok(()) } else { self.tell() }
    }

    fn tell(&self) -> Result<(), GroupError> {
        let program = TRUSTED.iter().find(|path| Path::new(path).exists()).ok_or(GroupError::NoSystemd)?;
        for words in &self.systemctl {
            let failed = |source| GroupError::Io { operation: "execute", path: program.into(), source };
            let told = || Command::new(program).args(words).output().map_err(failed);
            let done = trace::step("primitives", || format!("systemctl {}", words.join(" ")), told)?;
            if !done.status.success() {
                let said = String::from_utf8_lossy(&done.stderr).trim().chars().take(300).collect();
                return Err(GroupError::Systemctl { words: words.join(" "), said });
            }
        }
        Ok(())
    }
}

/// A file with its content; none means that it is removed.
type Kept = (PathBuf, Option<String>);

fn file_words((path, content): &Kept) -> String {
    let verb = if content.is_some() { "write" } else { "remove" };
    format!("{verb} {}", path.display())
}

fn keep((path, content): &Kept) -> Result<(), GroupError> {
    let failed = |source| GroupError::Io { operation: "write", path: path.clone(), source };
    match content {
        Some(text) => {
            path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
            let next = path.with_extension("new");
            fs::write(&next, text).and_then(|()| fs::rename(&next, path)).map_err(failed)
        }
        None => match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_groups_share_a_unit() {
        let names = ["a/b", "a:b", "a b", "a-b", "a/ b", "a::20b", "a/20b", "a@b", "a+b", "\u{c639}", "a.b_c"];
        let files: std::collections::BTreeSet<String> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(files.len(), names.len(), "{files:?}");
        assert_eq!((file_name("web/db-1"), file_name("a b")), ("web:db-1".to_owned(), "a::20b".to_owned()));
        let plain = |c: char| c.is_ascii_alphanumeric() || ":._-".contains(c);
        assert!(files.iter().all(|name| name.chars().all(plain)), "{files:?}");
    }
}

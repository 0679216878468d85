//! Classes of service below resctrl: made, filled, entered, removed. resctrl.rst.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use onggi_spec::oci::runtime::Spec;
use onggi_sys::SysContext;
use rustix::fs::{Mode, OFlags};

use crate::{
    error::{Result, StartFailureError, Step},
    plan::rdt::{RdtFacts, RdtGroup, RdtOrigin},
};

/// What this machine has; `None` without a mounted resctrl.
pub(crate) fn facts() -> Option<RdtFacts> {
    facts_below(mount_point(&fs::read_to_string("/proc/self/mountinfo").ok()?)?)
}

fn facts_below(mount: PathBuf) -> Option<RdtFacts> {
    let info = |names: &[&str]| names.iter().any(|name| mount.join("info").join(name).is_dir());
    Some(RdtFacts {
        cache: info(&["L3", "L3CODE", "L3DATA"]),
        bandwidth: info(&["MB"]),
        monitoring: info(&["L3_MON"]),
        mount,
    })
}

/// The first mount of that type (proc_pid_mountinfo(5)).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    let of_type = |line: &&str| line.split_once(" - ").is_some_and(|(_, fs)| fs.starts_with("resctrl "));
    mountinfo.lines().find(of_type)?.split(' ').nth(4).map(PathBuf::from)
}

/// Makes the group where it has to be made; returns the `tasks` files that the process writes itself into.
pub(crate) fn prepare(group: &RdtGroup) -> Result<Vec<OwnedFd>> {
    let made = match group.origin {
        RdtOrigin::Existing if !group.dir.is_dir() => {
            return Err(StartFailureError::new(format!("linux.intelRdt: no class of service {}", group.dir.display()))
                .hint("make it before, or give schemata with intelRdt.closID"));
        }
        RdtOrigin::Existing => false,
        RdtOrigin::Own | RdtOrigin::Shared => make(&group.dir)?,
    };
    match (made, group.origin) {
        (false, RdtOrigin::Shared) => compare(group)?,
        _ if !group.schemata.is_empty() => {
            // One write for all lines: either all take effect or none.
            write(&group.dir, "schemata", &(group.schemata.join("\n") + "\n"))?;
        }
        _ => {}
    }
    if let Some(monitor) = &group.monitor {
        make(monitor)?;
    }
    // The monitoring group last: moving to a class leaves the monitoring groups of others.
    [Some(&group.dir), group.monitor.as_ref()].into_iter().flatten().map(|dir| open_tasks(dir)).collect()
}

/// The `tasks` files of a container's groups, for a further process.
pub(crate) fn tasks_of(config: &Spec, id: &str) -> Result<Vec<OwnedFd>> {
    let Some(rdt) = config.linux.as_ref().and_then(|l| l.intel_rdt.as_ref()) else { return Ok(Vec::new()) };
    let group = crate::plan::rdt::plan_group(rdt, id, facts().as_ref())?;
    [Some(&group.dir), group.monitor.as_ref()].into_iter().flatten().map(|dir| open_tasks(dir)).collect()
}

/// Removes groups that were made for one container; gone already is fine.
pub(crate) fn remove(dirs: &[PathBuf]) {
    for dir in dirs {
        // What is left is an empty group that the next container of this id takes over.
        let _ = fs::remove_dir(dir);
    }
}

/// True when it was not there.
fn make(dir: &Path) -> Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(failure("make Intel RDT group", dir, &e, dir)),
    }
}

fn write(dir: &Path, file: &str, text: &str) -> Result<()> {
    let at = dir.join(file);
    fs::write(&at, text).map_err(|e| failure(&format!("write {:?} to", text.trim_end()), &at, &e, dir))
}

/// The kernel says more in info/last_cmd_status.
fn failure(what: &str, at: &Path, e: &io::Error, dir: &Path) -> StartFailureError {
    let status = dir.ancestors().find_map(|d| fs::read_to_string(d.join("info/last_cmd_status")).ok());
    let status = status.map_or(String::new(), |s| format!(", last_cmd_status: {}", s.trim()));
    StartFailureError::new(format!("{what} {}: {e}{status}", at.display()))
}

fn open_tasks(dir: &Path) -> Result<OwnedFd> {
    let at = dir.join("tasks");
    rustix::fs::open(&at, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .sys("open", || format!("{at:?}"))
        .step(|| "enter the Intel RDT group".into())
}

/// A class that exists must be the one that is described.
fn compare(group: &RdtGroup) -> Result<()> {
    let at = group.dir.join("schemata");
    let text = fs::read_to_string(&at).map_err(|e| failure("read", &at, &e, &group.dir))?;
    let (have, want) = (values(text.lines()), values(group.schemata.iter().map(String::as_str)));
    match want.iter().find(|(key, value)| have.get(*key) != Some(value)) {
        None => Ok(()),
        Some(((kind, domain), value)) => Err(StartFailureError::new(format!(
            "linux.intelRdt: class of service {} exists with other schemata: {kind}:{domain} is not {value}",
            group.dir.display()
        ))
        .hint("use another closID, or leave the schemata out")),
    }
}

/// `L3:0=7f0;1=1f` → one value for each kind and domain; hexadecimal numbers by value, not by spelling.
fn values<'t>(lines: impl Iterator<Item = &'t str>) -> BTreeMap<(String, String), String> {
    let mut all = BTreeMap::new();
    for (kind, rest) in lines.filter_map(|l| l.trim().split_once(':')) {
        for (domain, value) in rest.split(';').filter_map(|d| d.split_once('=')) {
            let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
            all.insert((kind.trim().to_owned(), domain.trim().to_owned()), value);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like resctrl with one class.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("onggi-rdt-{}-{name}", std::process::id()));
            for d in ["info/L3", "info/L3_MON", "gold"] {
                fs::create_dir_all(dir.join(d)).unwrap();
            }
            fs::write(dir.join("info/last_cmd_status"), "ok\n").unwrap();
            fs::write(dir.join("gold/schemata"), "    L3:0=07f0;1=1f\n    MB:0=20\n").unwrap();
            fs::write(dir.join("gold/tasks"), "").unwrap();
            Self(dir)
        }

        fn group(&self, name: &str, origin: RdtOrigin, schemata: &[&str]) -> RdtGroup {
            let schemata = schemata.iter().map(ToString::to_string).collect();
            RdtGroup { dir: self.0.join(name), origin, schemata, monitor: None }
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn facts_are_those_of_the_mount() {
        let fake = Fake::new("facts");
        let facts = facts_below(fake.0.clone()).unwrap();
        assert_eq!((facts.cache, facts.bandwidth, facts.monitoring), (true, false, true));
        let text = "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /sys/fs/resctrl rw - resctrl resctrl rw\n";
        assert_eq!(mount_point(text), Some("/sys/fs/resctrl".into()));
        assert_eq!(mount_point("1 0 0:1 / / rw - ext4 resctrl rw\n"), None);
    }

    #[test]
    fn a_shared_class_must_have_the_schemata_that_are_asked_for() {
        let fake = Fake::new("shared");
        let with = |schemata: &[&str]| prepare(&fake.group("gold", RdtOrigin::Shared, schemata));
        assert_eq!(with(&["L3:0=7f0;1=1F"]).unwrap().len(), 1);
        let error = with(&["L3:0=1"]).unwrap_err().to_string();
        assert!(error.contains("exists with other schemata"), "{error}");
    }

    #[test]
    fn a_missing_class_is_an_error_without_schemata() {
        let fake = Fake::new("missing");
        let error = prepare(&fake.group("silver", RdtOrigin::Existing, &[])).unwrap_err().to_string();
        assert!(error.contains("no class of service"), "{error}");
        assert_eq!(prepare(&fake.group("gold", RdtOrigin::Existing, &[])).unwrap().len(), 1);
    }

    #[test]
    fn a_class_of_its_own_is_made_with_its_schemata() {
        let fake = Fake::new("own");
        // The kernel would make the files together with the directory.
        fs::create_dir(fake.0.join("box")).unwrap();
        fs::write(fake.0.join("box/tasks"), "").unwrap();
        prepare(&fake.group("box", RdtOrigin::Own, &["L3:0=f", "MB:0=20"])).unwrap();
        assert_eq!(fs::read_to_string(fake.0.join("box/schemata")).unwrap(), "L3:0=f\nMB:0=20\n");
    }
}

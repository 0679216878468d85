//! New schemata for a container's Intel RDT group (Documentation/arch/x86/resctrl.rst).

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::error::{Result, StartFailureError};

/// The group whose schemata change; none when nothing is asked for.
pub(super) struct Group(Option<PathBuf>);

impl Group {
    /// Finds the group of a container, `<resctrl>/<id>`.
    ///
    /// # Errors
    /// This machine has no such control, or the container no such group.
    pub(super) fn of(id: &str, schemata: &[Option<(&str, String)>]) -> Result<Self> {
        if schemata.iter().all(Option::is_none) {
            return Ok(Self(None));
        }
        let mount = mount_point(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        Self::below(mount.as_deref(), id, schemata)
    }

    fn below(mount: Option<&Path>, id: &str, schemata: &[Option<(&str, String)>]) -> Result<Self> {
        for (kind, _) in schemata.iter().flatten() {
            let present = |name: &str| mount.is_some_and(|m| m.join("info").join(name).is_dir());
            let (names, words): (&[&str], &str) = match *kind {
                "L3" => (&["L3", "L3CODE", "L3DATA"], "Intel RDT/CAT: l3 cache schema is not enabled"),
                _ => (&["MB"], "Intel RDT/MBA: memory bandwidth schema is not enabled"),
            };
            if !names.iter().any(|name| present(name)) {
                return Err(StartFailureError::new(words).hint("it needs the CPU's support and a mounted resctrl"));
            }
        }
        let group = mount.map(|m| m.join(id)).filter(|g| g.is_dir());
        let group = group.ok_or_else(|| StartFailureError::new(format!("container {id} has no Intel RDT group")))?;
        Ok(Self(Some(group)))
    }

    /// Writes the lines.
    pub(super) fn set(&self, schemata: &[Option<(&str, String)>]) -> Result<()> {
        let Some(group) = &self.0 else { return Ok(()) };
        let file = group.join("schemata");
        for (_, lines) in schemata.iter().flatten() {
            fs::write(&file, format!("{}\n", lines.trim_end()))
                .map_err(|e| StartFailureError::new(format!("write {lines:?} to {}: {e}", file.display())))?;
        }
        Ok(())
    }
}

/// Where resctrl is mounted (proc_pid_mountinfo(5)).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    let line = mountinfo.lines().find(|l| l.split_once(" - ").is_some_and(|(_, fs)| fs.starts_with("resctrl ")))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_the_machine_cannot_keep_is_named() {
        let l3 = [Some(("L3", "L3:0=f".to_owned())), None];
        let error = Group::below(None, "x", &l3).err().unwrap().to_string();
        assert_eq!(error, "Intel RDT/CAT: l3 cache schema is not enabled");
        let mb = [None, Some(("MB", "MB:0=20".to_owned()))];
        assert!(Group::below(None, "x", &mb).err().unwrap().to_string().contains("MBA"));
        assert!(Group::below(None, "x", &[None, None]).is_err(), "no group without resctrl");
        assert!(Group::of("x", &[None, None]).unwrap().0.is_none());
    }

    #[test]
    fn schemata_are_written_to_the_containers_group() {
        let dir = std::env::temp_dir().join(format!("onggi-resctrl-{}", std::process::id()));
        fs::create_dir_all(dir.join("info/L3")).unwrap();
        fs::create_dir_all(dir.join("box")).unwrap();
        let l3 = [Some(("L3", "L3:0=f".to_owned()))];
        assert!(Group::below(Some(&dir), "other", &l3).is_err());
        Group::below(Some(&dir), "box", &l3).unwrap().set(&l3).unwrap();
        assert_eq!(fs::read_to_string(dir.join("box/schemata")).unwrap(), "L3:0=f\n");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn resctrl_is_found_by_its_type() {
        let text = "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /sys/fs/resctrl rw - resctrl resctrl rw\n";
        assert_eq!(mount_point(text), Some("/sys/fs/resctrl".into()));
        assert_eq!(mount_point("1 0 0:1 / / rw - ext4 /dev/a rw\n"), None);
    }
}

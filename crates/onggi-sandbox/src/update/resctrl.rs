//! New schemata for a container's Intel RDT group (Documentation/arch/x86/resctrl.rst).

use std::{fs, path::PathBuf};

use onggi_spec::oci::runtime::{LinuxIntelRdt, Spec};

use crate::{
    error::{Result, StartFailureError},
    plan::rdt::{RdtFacts, plan_group},
    rdt,
};

/// The group whose schemata change; none when nothing is asked for.
pub(super) struct Group(Option<PathBuf>);

impl Group {
    /// Finds the group of a container: the class of service that its configuration names, else `<resctrl>/<id>`.
    ///
    /// # Errors
    /// This machine has no such control, or the container no such group.
    pub(super) fn of(id: &str, config: &Spec, schemata: &[Option<(&str, String)>]) -> Result<Self> {
        if schemata.iter().all(Option::is_none) {
            return Ok(Self(None));
        }
        let asked = config.linux.as_ref().and_then(|l| l.intel_rdt.clone()).unwrap_or_default();
        Self::below(rdt::facts().as_ref(), id, &asked, schemata)
    }

    fn below(
        facts: Option<&RdtFacts>,
        id: &str,
        asked: &LinuxIntelRdt,
        schemata: &[Option<(&str, String)>],
    ) -> Result<Self> {
        for (kind, _) in schemata.iter().flatten() {
            let (present, words) = match *kind {
                "L3" => (facts.is_some_and(|f| f.cache), "Intel RDT/CAT: l3 cache schema is not enabled"),
                _ => (facts.is_some_and(|f| f.bandwidth), "Intel RDT/MBA: memory bandwidth schema is not enabled"),
            };
            if !present {
                return Err(StartFailureError::new(words).hint("it needs the CPU's support and a mounted resctrl"));
            }
        }
        let group = plan_group(asked, id, facts).ok().map(|group| group.dir).filter(|g| g.is_dir());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(mount: PathBuf, cache: bool) -> RdtFacts {
        RdtFacts { mount, cache, ..RdtFacts::default() }
    }

    #[test]
    fn a_schema_that_the_machine_cannot_keep_is_named() {
        let none = LinuxIntelRdt::default();
        let without = |schemata: &[Option<(&str, String)>]| Group::below(None, "x", &none, schemata).err();
        let l3 = without(&[Some(("L3", "L3:0=f".to_owned())), None]).unwrap();
        assert_eq!(l3.to_string(), "Intel RDT/CAT: l3 cache schema is not enabled");
        assert!(without(&[None, Some(("MB", "MB:0=20".to_owned()))]).unwrap().to_string().contains("MBA"));
        assert!(without(&[None, None]).is_some(), "no group without resctrl");
        assert!(Group::of("x", &Spec::default(), &[None, None]).unwrap().0.is_none());
    }

    #[test]
    fn schemata_are_written_to_the_containers_own_or_named_group() {
        let dir = std::env::temp_dir().join(format!("onggi-resctrl-{}", std::process::id()));
        for group in ["box", "gold"] {
            fs::create_dir_all(dir.join(group)).unwrap();
        }
        let facts = facts(dir.clone(), true);
        let l3 = [Some(("L3", "L3:0=f".to_owned()))];
        let own = LinuxIntelRdt::default();
        assert!(Group::below(Some(&facts), "other", &own, &l3).is_err());
        Group::below(Some(&facts), "box", &own, &l3).unwrap().set(&l3).unwrap();
        assert_eq!(fs::read_to_string(dir.join("box/schemata")).unwrap(), "L3:0=f\n");
        let named = LinuxIntelRdt { clos_id: Some("gold".into()), ..LinuxIntelRdt::default() };
        Group::below(Some(&facts), "box", &named, &l3).unwrap().set(&l3).unwrap();
        assert_eq!(fs::read_to_string(dir.join("gold/schemata")).unwrap(), "L3:0=f\n");
        fs::remove_dir_all(dir).unwrap();
    }
}

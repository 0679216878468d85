//! `linux.intelRdt` → a class of service below resctrl. config-linux.md "IntelRdt", resctrl.rst. Pure.

use std::path::PathBuf;

use onggi_spec::oci::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::error::{Result, StartFailureError};

/// What the planner may know of resctrl on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RdtFacts {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Cache allocation of the last level.
    pub cache: bool,
    /// Memory bandwidth allocation.
    pub bandwidth: bool,
    /// Monitoring.
    pub monitoring: bool,
}

/// The container's class of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdtGroup {
    /// Its directory below resctrl.
    pub dir: PathBuf,
    /// How it comes to be.
    pub origin: RdtOrigin,
    /// Lines for `schemata`.
    pub schemata: Vec<String>,
    /// A monitoring group of the container's own.
    pub monitor: Option<PathBuf>,
}

/// Where a class of service comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RdtOrigin {
    /// The container's own: made for it, removed with it.
    Own,
    /// Named, with schemata: made when it is missing, else it must have these.
    Shared,
    /// Named alone: somebody else has made it.
    Existing,
}

/// Plans the group of container `id`.
pub(crate) fn plan_group(rdt: &LinuxIntelRdt, id: &str, facts: Option<&RdtFacts>) -> Result<RdtGroup> {
    let fail = |why: String| StartFailureError::new(format!("linux.intelRdt: {why}"));
    let name = rdt.clos_id.as_deref().filter(|n| !n.is_empty());
    if let Some(name) = name
        && (matches!(name, "." | ".." | "info" | "mon_groups" | "mon_data") || (name != "/" && name.contains('/')))
    {
        return Err(fail(format!("invalid intelRdt.ClosID {name:?}")));
    }
    let Some(facts) = facts else {
        return Err(fail("Intel RDT is not enabled: resctrl is not mounted".into())
            .hint("mount -t resctrl resctrl /sys/fs/resctrl, where CPU and kernel have it"));
    };
    let given = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.trim().is_empty());
    if given(&rdt.l3_cache_schema) && !facts.cache {
        return Err(fail("intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled".into()));
    }
    if given(&rdt.mem_bw_schema) && !facts.bandwidth {
        return Err(fail("intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled".into()));
    }
    let monitored = rdt.enable_monitoring || rdt.enable_cmt || rdt.enable_mbm;
    if monitored && !facts.monitoring {
        return Err(fail("monitoring is asked for, but Intel RDT monitoring is not enabled".into()));
    }
    let schemata = schemata(rdt);
    let origin = match (name, schemata.is_empty()) {
        (None, _) => RdtOrigin::Own,
        (Some(_), false) => RdtOrigin::Shared,
        (Some(_), true) => RdtOrigin::Existing,
    };
    let dir = match name {
        Some("/") => facts.mount.clone(),
        Some(name) => facts.mount.join(name),
        None => facts.mount.join(id),
    };
    let monitor = rdt.enable_monitoring.then(|| dir.join("mon_groups").join(id));
    Ok(RdtGroup { dir, origin, schemata, monitor })
}

/// All lines to write: a bandwidth line beside the cache schema gives way to `memBwSchema`.
fn schemata(rdt: &LinuxIntelRdt) -> Vec<String> {
    let lines =
        |text: &str| text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let bandwidth = lines(rdt.mem_bw_schema.as_deref().unwrap_or_default());
    let mut all = lines(rdt.l3_cache_schema.as_deref().unwrap_or_default());
    if !bandwidth.is_empty() {
        all.retain(|line| !line.starts_with("MB:"));
    }
    all.extend(bandwidth);
    all.extend(rdt.schemata.iter().flat_map(|text| lines(text)));
    all
}

impl RdtGroup {
    /// The directories that are made for this container and nobody else, innermost first.
    pub(crate) fn own_dirs(&self) -> Vec<PathBuf> {
        let own = (self.origin == RdtOrigin::Own).then(|| self.dir.clone());
        self.monitor.clone().into_iter().chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> RdtFacts {
        RdtFacts { mount: "/r".into(), cache: true, bandwidth: true, monitoring: true }
    }

    fn with(change: impl Fn(&mut LinuxIntelRdt)) -> Result<RdtGroup> {
        let mut rdt = LinuxIntelRdt::default();
        change(&mut rdt);
        plan_group(&rdt, "box", Some(&facts()))
    }

    #[test]
    fn a_container_without_a_class_has_one_of_its_own() {
        let group = with(|r| r.l3_cache_schema = Some("L3:0=f".into())).unwrap();
        assert_eq!((group.dir, group.origin), ("/r/box".into(), RdtOrigin::Own));
        assert_eq!(group.schemata, ["L3:0=f"]);
    }

    #[test]
    fn a_named_class_is_shared_and_made_only_with_schemata() {
        let shared = with(|r| {
            r.clos_id = Some("gold".into());
            r.schemata = vec!["L3:0=f".into(), "MB:0=20".into()];
        });
        assert_eq!(shared.unwrap().origin, RdtOrigin::Shared);
        let existing = with(|r| r.clos_id = Some("gold".into())).unwrap();
        assert_eq!((existing.dir, existing.origin), ("/r/gold".into(), RdtOrigin::Existing));
        assert_eq!(with(|r| r.clos_id = Some("/".into())).unwrap().dir, PathBuf::from("/r"));
        for bad in [".", "..", "a/b", "../x", "info", "/x"] {
            let error = with(|r| r.clos_id = Some(bad.into())).unwrap_err().to_string();
            assert!(error.contains("invalid intelRdt.ClosID"), "{error}");
        }
    }

    #[test]
    fn a_bandwidth_line_of_the_cache_schema_gives_way() {
        let group = with(|r| {
            r.l3_cache_schema = Some("L3:0=f\nMB:0=10\n".into());
            r.mem_bw_schema = Some("MB:0=20;1=70".into());
        });
        assert_eq!(group.unwrap().schemata, ["L3:0=f", "MB:0=20;1=70"]);
        assert_eq!(with(|r| r.l3_cache_schema = Some("L3:0=f\nMB:0=10".into())).unwrap().schemata.len(), 2);
    }

    #[test]
    fn what_the_machine_lacks_is_named() {
        let mut rdt = LinuxIntelRdt { l3_cache_schema: Some("L3:0=f".into()), ..LinuxIntelRdt::default() };
        let why = |rdt: &LinuxIntelRdt, facts: Option<&RdtFacts>| plan_group(rdt, "x", facts).unwrap_err().to_string();
        assert!(why(&rdt, None).contains("resctrl is not mounted"));
        let none = RdtFacts { cache: false, bandwidth: false, monitoring: false, ..facts() };
        assert!(why(&rdt, Some(&none)).contains("Intel RDT/CAT is not enabled"));
        rdt = LinuxIntelRdt { mem_bw_schema: Some("MB:0=1".into()), ..LinuxIntelRdt::default() };
        assert!(why(&rdt, Some(&none)).contains("Intel RDT/MBA is not enabled"));
        rdt = LinuxIntelRdt { enable_monitoring: true, ..LinuxIntelRdt::default() };
        assert!(why(&rdt, Some(&none)).contains("monitoring is not enabled"));
    }

    #[test]
    fn only_what_was_made_for_the_container_goes_with_it() {
        let own = with(|r| r.enable_monitoring = true).unwrap().own_dirs();
        assert_eq!(own, [PathBuf::from("/r/box/mon_groups/box"), PathBuf::from("/r/box")]);
        let named = with(|r| (r.enable_monitoring, r.clos_id) = (true, Some("gold".into()))).unwrap().own_dirs();
        assert_eq!(named, [PathBuf::from("/r/gold/mon_groups/box")]);
    }
}

//! `info`: this host and this store.

use onggi_spec::{HostFacts, facts::CgroupLayout};

use crate::{Engine, EngineError, ListFilter};

/// What `info` and `version` report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Containers that run and are not paused.
    pub running: usize,
    /// Containers whose processes stand still.
    pub paused: usize,
    /// Not running.
    pub stopped: usize,
    /// Distinct images.
    pub images: usize,
    /// Facts of the host.
    pub facts: HostFacts,
    /// `uname -m`: `x86_64`, where the facts have the name of images' platforms.
    pub machine: String,
    /// `1`, `2` or `none`.
    pub cgroup_version: &'static str,
    /// The version is 1, and there is a hierarchy of version 2 beside it.
    pub cgroup_hybrid: bool,
    /// Memory in bytes.
    pub memory: u64,
    /// Host name.
    pub hostname: String,
    /// PRETTY_NAME of os-release.
    pub operating_system: String,
    /// Storage driver.
    pub driver: &'static str,
    /// Data root.
    pub root: std::path::PathBuf,
    /// Run root.
    pub runroot: std::path::PathBuf,
    /// Without root.
    pub rootless: bool,
}

impl Engine {
    /// Gathers the report.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn info(&self) -> Result<Info, EngineError> {
        let containers = self.list(&ListFilter { all: true, ..ListFilter::default() })?;
        let running = containers.iter().filter(|c| c.status.is_running()).count();
        let paused = containers.iter().filter(|c| c.status.is_paused()).count();
        let mut images: Vec<_> = self.state()?.list_images()?.into_iter().map(|i| i.config_digest).collect();
        images.dedup();
        let uname = rustix::system::uname();
        Ok(Info {
            running: running - paused,
            paused,
            stopped: containers.len() - running,
            images: images.len(),
            facts: self.facts().clone(),
            machine: uname.machine().to_string_lossy().into_owned(),
            cgroup_hybrid: matches!(self.facts().cgroup, CgroupLayout::V1 { unified: Some(_), .. }),
            cgroup_version: cgroup_version(&self.facts().cgroup),
            memory: rustix_memory(),
            hostname: uname.nodename().to_string_lossy().into_owned(),
            operating_system: operating_system(&std::fs::read_to_string("/etc/os-release").unwrap_or_default()),
            driver: self.driver_kind()?.name(),
            root: self.paths.root.clone(),
            runroot: self.paths.runroot.clone(),
            rootless: !self.rootful(),
        })
    }
}

pub(crate) fn rustix_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

fn cgroup_version(layout: &CgroupLayout) -> &'static str {
    match layout {
        CgroupLayout::V2 { .. } => "2",
        CgroupLayout::V1 { .. } => "1",
        CgroupLayout::None => "none",
    }
}

fn operating_system(os_release: &str) -> String {
    let line = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".to_owned(), |v| v.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operating_system_is_its_pretty_name() {
        assert_eq!(operating_system("ID=x\nPRETTY_NAME=\"Some Linux 1\"\n"), "Some Linux 1");
        assert_eq!(operating_system(""), "Linux");
    }
}

//! `ps`.

use onggi_spec::{port::PortMapping, request::ImageSource};
use onggi_state::ContainerRecord;

use crate::{Engine, EngineError, Status};

/// Which containers to list. Several values of one filter are alternatives, several filters must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Also those that do not run.
    pub all: bool,
    /// Beginnings of ids.
    pub id: Vec<String>,
    /// Parts of names.
    pub name: Vec<String>,
    /// `created`, `running`, `exited`; implies `all`.
    pub status: Vec<String>,
    /// `KEY` or `KEY=VALUE`.
    pub label: Vec<String>,
    /// Image names or ids.
    pub ancestor: Vec<String>,
    /// Exit codes; implies `all`.
    pub exited: Vec<i32>,
    /// `bridge`, `none`, `host`.
    pub network: Vec<String>,
}

/// One line of `ps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    /// What is stored.
    pub record: ContainerRecord,
    /// What it is doing.
    pub status: Status,
    /// Published ports as they are now.
    pub ports: Vec<PortMapping>,
}

impl Engine {
    /// Containers, newest first.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<ContainerSummary>, EngineError> {
        self.recover()?;
        let all = filter.all || !filter.status.is_empty() || !filter.exited.is_empty();
        let records = self.state()?.list_containers()?;
        let mut found = Vec::new();
        for record in records.into_iter().filter(|r| filter.matches_record(r)) {
            let status = self.status(&record.id)?;
            if (all || status.is_running()) && filter.matches_status(&status) {
                let ports = self.published(&record, &status)?;
                found.push(ContainerSummary { record, status, ports });
            }
        }
        Ok(found)
    }

    /// Bytes that a container has written to its own layer.
    ///
    /// # Errors
    /// Its directory cannot be read.
    pub fn written(&self, record: &ContainerRecord) -> Result<u64, EngineError> {
        Ok(onggi_storage::written(&self.layers()?, &record.id, &record.chain_ids)?)
    }

    /// Ports with the host ports that were chosen at the start; none for a container that does not run.
    pub(crate) fn published(&self, record: &ContainerRecord, status: &Status) -> Result<Vec<PortMapping>, EngineError> {
        if record.request.ports.is_empty() || !status.is_running() {
            return Ok(Vec::new());
        }
        Ok(self.network_record(&record.id)?.map(|n| n.port_mappings()).unwrap_or_default())
    }
}

impl ListFilter {
    fn matches_record(&self, r: &ContainerRecord) -> bool {
        let any =
            |values: &[String], holds: &dyn Fn(&str) -> bool| values.is_empty() || values.iter().any(|v| holds(v));
        any(&self.id, &|v| r.id.as_str().starts_with(v))
            && any(&self.name, &|v| r.name.as_str().contains(v.trim_start_matches('/')))
            && self.label.iter().all(|v| has_label(r, v))
            && any(&self.ancestor, &|v| is_ancestor(r, v))
            && any(&self.network, &|v| v == r.request.network.name())
    }

    fn matches_status(&self, status: &Status) -> bool {
        let named = self.status.is_empty() || self.status.iter().any(|s| s == status.name());
        let coded = match status {
            _ if self.exited.is_empty() => true,
            Status::Exited(exit) => self.exited.contains(&exit.exit_code),
            _ => false,
        };
        named && coded
    }
}

fn has_label(r: &ContainerRecord, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((k, v)) => r.request.labels.get(k).is_some_and(|x| x == v),
        None => r.request.labels.contains_key(wanted),
    }
}

fn is_ancestor(r: &ContainerRecord, wanted: &str) -> bool {
    let by_id = r.image_id.as_ref().is_some_and(|d| {
        let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        hex.len() >= 4 && d.hex().starts_with(hex)
    });
    let by_name = match &r.request.image {
        ImageSource::Image(reference) => wanted.parse::<onggi_spec::ImageReference>().is_ok_and(|w| &w == reference),
        ImageSource::Rootfs(_) | ImageSource::Host => r.image_name == wanted,
    };
    by_id || by_name
}

//! `ps`.

use std::collections::HashMap;

use onggi_spec::{Digest, ParseError, port::PortMapping};
use onggi_state::ContainerRecord;
use regex::bytes::{Regex, RegexBuilder};

use crate::{Engine, EngineError, Status};

/// Which containers to list. Several values of one filter are alternatives, several filters must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Also those that do not run.
    pub all: bool,
    /// Beginnings of ids, or regular expressions that an id matches somewhere.
    pub id: Vec<String>,
    /// Regular expressions that a name, with or without a slash before it, matches somewhere.
    pub name: Vec<String>,
    /// `created`, `running`, `exited`; implies `all`.
    pub status: Vec<String>,
    /// `KEY` or `KEY=VALUE`.
    pub label: Vec<String>,
    /// Names or ids of images; a name stands for the image that it means now.
    pub ancestor: Vec<String>,
    /// Exit codes; implies `all`.
    pub exited: Vec<i32>,
    /// `bridge`, `none`, `host`.
    pub network: Vec<String>,
    /// Only those made before this container.
    pub before: Option<String>,
    /// Only those made after this container.
    pub since: Option<String>,
    /// Paths of the host or of the container that are mounted.
    pub volume: Vec<String>,
    /// Host ports.
    pub publish: Vec<PortRange>,
    /// Container ports that are published.
    pub expose: Vec<PortRange>,
}

/// Ports from the first to the last of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

impl PortRange {
    fn holds(&self, port: u16, of: &PortMapping) -> bool {
        (self.first..=self.last).contains(&port) && of.protocol.to_string() == self.protocol
    }
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
    /// The name that it was made from means another image by now, or none.
    pub renamed: bool,
}

impl Engine {
    /// Containers, newest first.
    ///
    /// # Errors
    /// The state cannot be read; a name of the filter is no regular expression.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<ContainerSummary>, EngineError> {
        let patterns = Patterns::of(filter)?;
        self.recover()?;
        let ancestors: Vec<Ancestor> = filter.ancestor.iter().map(|name| self.ancestor(name)).collect();
        let all = filter.all || !filter.status.is_empty() || !filter.exited.is_empty();
        let records = self.state()?.list_containers()?;
        let made = |name: &Option<String>| name.as_ref().map(|n| self.find(n).map(|r| r.created_at)).transpose();
        let (before, since) = (made(&filter.before)?, made(&filter.since)?);
        let in_time = |r: &ContainerRecord| {
            before.is_none_or(|time| r.created_at < time) && since.is_none_or(|time| r.created_at > time)
        };
        let descends = |r: &ContainerRecord| ancestors.is_empty() || ancestors.iter().any(|a| a.is_of(r));
        let mut found = Vec::new();
        let mut meant = HashMap::new();
        for record in records {
            if !(filter.matches_record(&record)
                && patterns.match_record(&record)
                && descends(&record)
                && in_time(&record))
            {
                continue;
            }
            let status = self.status(&record.id)?;
            if (all || status.is_running()) && filter.matches_status(&status) {
                let ports = self.published(&record, &status)?;
                if filter.matches_ports(&ports) {
                    let renamed = self.is_renamed(&record, &mut meant);
                    found.push(ContainerSummary { record, status, ports, renamed });
                }
            }
        }
        Ok(found)
    }

    /// As Docker, which then shows the image's id. `meant` keeps what names mean from one container to the next.
    fn is_renamed(&self, r: &ContainerRecord, meant: &mut HashMap<String, Option<Digest>>) -> bool {
        let Some(id) = &r.image_id else { return false };
        let now = meant.entry(r.image_name.clone());
        let now = now.or_insert_with(|| self.find_image(&r.image_name).ok().map(|image| image.config_digest));
        now.as_ref() != Some(id)
    }

    fn ancestor(&self, wanted: &str) -> Ancestor {
        let id = self.find_image(wanted).ok().map(|image| image.config_digest);
        Ancestor { wanted: wanted.to_owned(), id }
    }

    /// Bytes that a container has written to its own layer.
    ///
    /// # Errors
    /// Its directory cannot be read.
    pub fn written(&self, record: &ContainerRecord) -> Result<u64, EngineError> {
        Ok(onggi_storage::written(&self.layers()?, &record.id, &record.chain_ids)?)
    }

    /// Bytes that a container has written to its own layer, and those with its image's.
    ///
    /// # Errors
    /// No such container, or its directory cannot be read.
    pub fn container_sizes(&self, name: &str) -> Result<(u64, u64), EngineError> {
        self.sizes(&self.find(name)?)
    }

    /// The same of a known container.
    ///
    /// # Errors
    /// Its directory cannot be read.
    pub fn sizes(&self, record: &ContainerRecord) -> Result<(u64, u64), EngineError> {
        let written = self.written(record)?;
        let layers = self.layers()?;
        let sizes = record.chain_ids.iter().map(|id| Ok(layers.get(id)?.map_or(0, |layer| layer.size)));
        Ok((written, written + sizes.sum::<Result<u64, EngineError>>()?))
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
        self.label.iter().all(|v| has_label(r, v))
            && any(&self.network, &|v| v == r.request.network.name())
            && any(&self.volume, &|v| r.request.mounts.iter().any(|m| m.source == v || m.target == v))
    }

    fn matches_ports(&self, ports: &[PortMapping]) -> bool {
        let host = |p: &PortMapping| p.host_port.map_or(0, std::num::NonZeroU16::get);
        let published = |r: &PortRange| ports.iter().any(|p| r.holds(host(p), p));
        let exposed = |r: &PortRange| ports.iter().any(|p| r.holds(p.container_port.get(), p));
        (self.publish.is_empty() || self.publish.iter().any(published))
            && (self.expose.is_empty() || self.expose.iter().any(exposed))
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

/// What names and ids are compared with.
struct Patterns {
    names: Vec<Regex>,
    ids: Vec<IdPattern>,
}

/// As Podman, which takes the beginning of an id for one, and anything else for an expression.
enum IdPattern {
    Beginning(String),
    Expression(Regex),
}

impl Patterns {
    fn of(filter: &ListFilter) -> Result<Self, ParseError> {
        let names = filter.name.iter().map(|text| pattern("filter name", text)).collect::<Result<_, _>>()?;
        let ids = filter.id.iter().map(|text| IdPattern::parse(text)).collect::<Result<_, _>>()?;
        Ok(Self { names, ids })
    }

    fn match_record(&self, r: &ContainerRecord) -> bool {
        (self.names.is_empty() || self.names.iter().any(|name| matches_name(name, r.name.as_str())))
            && (self.ids.is_empty() || self.ids.iter().any(|id| id.matches(r.id.as_str())))
    }
}

impl IdPattern {
    fn parse(text: &str) -> Result<Self, ParseError> {
        match text.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => Ok(Self::Beginning(text.to_ascii_lowercase())),
            false => pattern("filter id", text).map(Self::Expression),
        }
    }

    fn matches(&self, id: &str) -> bool {
        match self {
            Self::Beginning(text) => id.starts_with(text),
            Self::Expression(regex) => regex.is_match(id.as_bytes()),
        }
    }
}

/// An image that containers may be made from.
struct Ancestor {
    wanted: String,
    /// What the name means now.
    id: Option<Digest>,
}

impl Ancestor {
    /// Images are compared by their ids; one that was removed by force is known by its id still.
    fn is_of(&self, r: &ContainerRecord) -> bool {
        let Some(image) = &r.image_id else { return r.image_name == self.wanted };
        match &self.id {
            Some(id) => id == image,
            None => {
                let hex = self.wanted.strip_prefix("sha256:").unwrap_or(&self.wanted);
                hex.len() >= 4 && image.hex().starts_with(hex)
            }
        }
    }
}

/// Bounds the memory of an expression that somebody else may have written (I12).
const MAX_PATTERN: usize = 1 << 20;

fn pattern(what: &'static str, text: &str) -> Result<Regex, ParseError> {
    let wrong = |e: regex::Error| {
        // The last line says why; those before it show where, over several lines.
        let reason = e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        ParseError::new(what, text, &reason)
            .hint("it is a regular expression: ^a matches what begins with a, ^web$ exactly web")
    };
    RegexBuilder::new(text).unicode(false).size_limit(MAX_PATTERN).build().map_err(wrong)
}

/// Docker keeps names with a slash before them, and looks for both.
fn matches_name(pattern: &Regex, name: &str) -> bool {
    pattern.is_match(name.as_bytes()) || pattern.is_match(format!("/{name}").as_bytes())
}

fn has_label(r: &ContainerRecord, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((k, v)) => r.request.labels.get(k).is_some_and(|x| x == v),
        None => r.request.labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filtered_by_regular_expressions_as_docker_does() {
        let matches = |text: &str, name: &str| matches_name(&pattern("name", text).expect(text), name);
        for yes in ["web", "^web$", "^/web$", "w.b", "/web", "e", "^w", "\\w+", "^(web|db)$"] {
            assert!(matches(yes, "web"), "{yes}");
        }
        for no in ["^web$", "^/web$", "x", "^eb"] {
            assert!(!matches(no, "web2"), "{no}");
        }
        assert!(pattern("name", "(").is_err() && pattern("name", "(a{1000}){1000}").is_err());
    }

    #[test]
    fn ids_are_filtered_by_beginnings_and_by_regular_expressions() {
        let matches = |text: &str| IdPattern::parse(text).expect(text).matches("f30a99");
        for yes in ["f3", "F30", "", "^f3", "[0-9a-f]", "99$", "^f30a99$", "0.9"] {
            assert!(matches(yes), "{yes}");
        }
        for no in ["30", "99", "^3", "g", "web"] {
            assert!(!matches(no), "{no}");
        }
        assert!(IdPattern::parse("(").is_err());
    }
}

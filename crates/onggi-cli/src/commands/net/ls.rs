//! `onggi net ls`: one picture of every network namespace.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use onggi_engine::ListFilter;
use onggi_network::hand::{LinkView, NamespaceView, Place, look, peer};
use onggi_primitives::{Kind, NamespaceId, namespaces, process, processes};
use serde_json::{Value, json};

use super::failed;
use crate::{
    cli::GlobalArgs,
    commands::ns::ls::containers,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
        table::printable,
    },
};

const COLUMNS: Columns = Columns {
    headers: &[
        ("Namespace", "NAMESPACE"),
        ("Container", "CONTAINER"),
        ("Inode", "NS"),
        ("Index", "INDEX"),
        ("Name", "DEVICE"),
        ("Kind", "KIND"),
        ("State", "STATE"),
        ("Up", "UP"),
        ("Mtu", "MTU"),
        ("Mac", "MAC"),
        ("Addresses", "ADDRESSES"),
        ("Master", "BRIDGE"),
        ("Peer", "PEER"),
        ("PeerNamespace", "PEER NAMESPACE"),
    ],
    default: "{{.Namespace}}\t{{.Name}}\t{{.Kind}}\t{{.State}}\t{{.Addresses}}\t{{.Master}}\t{{.Peer}}\t{{.PeerNamespace}}",
};

/// Arguments of `net ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only these namespaces, by the names that are shown
    #[arg(value_name = "NS")]
    only: Vec<String>,
    /// `json` (a line for each namespace), or `table`, a template or `table TEMPLATE` over the devices
    #[arg(long)]
    format: Option<String>,
}

/// A view, and the containers that it belongs to.
struct Seen {
    views: Vec<NamespaceView>,
    containers: Vec<String>,
    /// Names of containers by their ids.
    names: BTreeMap<String, String>,
}

impl LsArgs {
    /// Prints the picture.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let seen = see(global)?;
        let wanted = |at: &usize| {
            let shown = &seen.views[*at].place.name;
            // As other commands call it where a container could be meant for something else.
            let bare = |name: &String| name.strip_prefix("container:").unwrap_or(name).to_owned();
            self.only.is_empty() || self.only.iter().any(|name| name == shown || bare(name) == seen.containers[*at])
        };
        let chosen: Vec<usize> = (0..seen.views.len()).filter(wanted).collect();
        if chosen.is_empty() && !self.only.is_empty() {
            return Err(CliError::usage(
                format!("there is no network namespace {}", self.only.join(", ")),
                "without a name all are shown, as far as you may enter them",
            ));
        }
        render::stdout(&match self.format.as_deref() {
            None | Some("") => chosen.iter().map(|at| seen.picture(*at)).collect::<Vec<_>>().join("\n"),
            Some("json") => chosen.iter().map(|at| format!("{}\n", seen.json(*at))).collect(),
            format => {
                let rows: Vec<Value> = chosen.iter().flat_map(|at| seen.rows(*at)).collect();
                format::rows(format, &COLUMNS, &rows)?
            }
        })?;
        Ok(0)
    }
}

/// One's own first, then those of files and processes.
fn see(global: &GlobalArgs) -> Result<Seen, CliError> {
    let all = processes()?;
    let own = process(std::process::id().cast_signed())?.namespaces.get(&Kind::Net).copied();
    let owners = containers(global, &all);
    let mut places = vec![Place::host()];
    let mut belongs = vec![String::new()];
    for namespace in namespaces(&all)? {
        let NamespaceId { inode, kind } = namespace.id;
        if kind != Kind::Net || Some(inode) == own {
            continue;
        }
        let container = owners.get(&namespace.id).map(|names| names.join(",")).unwrap_or_default();
        let named = namespace.file.as_ref().and_then(|file| file.strip_prefix("/run/netns").ok());
        let path = match (&namespace.file, &namespace.first) {
            (Some(file), _) => file.clone(),
            (None, Some(first)) => PathBuf::from(format!("/proc/{}/ns/net", first.pid)),
            (None, None) => continue,
        };
        let name = match (container.as_str(), named, &namespace.first) {
            ("", Some(named), _) => named.display().to_string(),
            ("", None, Some(first)) if namespace.file.is_none() => first.pid.to_string(),
            ("", None, _) => path.display().to_string(),
            (container, ..) => container.to_owned(),
        };
        places.push(Place { name, path: Some(path) });
        belongs.push(container);
    }
    let views = look(&places).map_err(failed)?;
    let of = |view: &NamespaceView| places.iter().position(|place| *place == view.place).unwrap_or(0);
    let containers = views.iter().map(|view| belongs[of(view)].clone()).collect();
    Ok(Seen { containers, views, names: names(global) })
}

/// A store that cannot be read names nothing.
fn names(global: &GlobalArgs) -> BTreeMap<String, String> {
    let listed = global.engine().and_then(|engine| Ok(engine.list(&ListFilter::default())?)).unwrap_or_default();
    listed.into_iter().map(|c| (c.record.id.to_string(), c.record.name.to_string())).collect()
}

impl Seen {
    /// Bridges with their ports below them, the other devices, routes, translations, ports.
    fn picture(&self, at: usize) -> String {
        let view = &self.views[at];
        let container = match self.containers[at].as_str() {
            "" => String::new(),
            name => format!(", container {name}"),
        };
        let path = view.place.path.as_ref().map(|path| format!(", {}", path.display())).unwrap_or_default();
        let mut out = format!("{} (net:[{}]{path}{container})\n", view.place.name, view.inode);
        for link in view.links.iter().filter(|link| link.master.is_none()) {
            out += &format!("  {}\n", self.line(at, link));
            for port in view.links.iter().filter(|port| port.master == Some(link.index)) {
                out += &format!("    +- {}\n", self.line(at, port));
            }
        }
        for route in &view.routes {
            let part = |word: &str, value: &Option<String>| value.as_ref().map(|v| format!(" {word} {v}"));
            let rest = [part("via", &route.via), part("dev", &route.link)].into_iter().flatten().collect::<String>();
            out += &format!("  route {}{rest}\n", route.to);
        }
        for rule in &view.nat {
            out += &format!("  nat   {}   (table {} {}, chain {})\n", rule.rule, rule.family, rule.table, rule.chain);
        }
        for port in &view.ports {
            let name = self.names.get(&port.container).unwrap_or(&port.container);
            out += &format!(
                "  port  {}:{}/{} -> {}:{} (container {name})\n",
                port.host_ip, port.host_port, port.protocol, port.to, port.port
            );
        }
        if view.forwards {
            out += "  forwards packets between its devices\n";
        }
        printable_lines(&out)
    }

    fn line(&self, at: usize, link: &LinkView) -> String {
        let mut words = vec![link.name.clone()];
        words.extend((!link.kind.is_empty()).then(|| link.kind.clone()));
        words.push(if link.up { "up" } else { "down" }.to_owned());
        words.extend(link.addresses.iter().map(ToString::to_string));
        words.extend(self.end(at, link).map(|(name, place)| format!("<-> {name} in {place}")));
        words.join("  ")
    }

    /// The other end of a pair, by name and place.
    fn end(&self, at: usize, link: &LinkView) -> Option<(String, String)> {
        if link.kind != "veth" {
            return None;
        }
        Some(match peer(&self.views, at, link) {
            Some((there, other)) => (other.name.clone(), self.views[there].place.name.clone()),
            None => (format!("device {}", link.peer?), "a namespace that is not seen".to_owned()),
        })
    }

    fn rows(&self, at: usize) -> Vec<Value> {
        let view = &self.views[at];
        let row = |link: &LinkView| {
            let (peer, place) = self.end(at, link).unwrap_or_default();
            let addresses = link.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            json!({
                "Namespace": view.place.name,
                "Container": self.containers[at],
                "Inode": view.inode,
                "Index": link.index,
                "Name": link.name,
                "Kind": link.kind,
                "State": link.state,
                "Up": link.up,
                "Mtu": link.mtu,
                "Mac": link.mac,
                "Addresses": addresses,
                "Master": master(view, link),
                "Peer": peer,
                "PeerNamespace": place,
            })
        };
        view.links.iter().map(row).collect()
    }

    fn json(&self, at: usize) -> Value {
        let view = &self.views[at];
        json!({
            "Namespace": view.place.name,
            "Path": view.place.path,
            "Container": self.containers[at],
            "Inode": view.inode,
            "Links": self.rows(at),
            "Routes": view.routes,
            "Nat": view.nat,
            "Ports": view.ports,
            "Forwards": view.forwards,
        })
    }
}

fn master(view: &NamespaceView, link: &LinkView) -> String {
    let found = view.links.iter().find(|bridge| Some(bridge.index) == link.master);
    found.map(|bridge| bridge.name.clone()).unwrap_or_default()
}

/// What others chose as a name stays on its line.
fn printable_lines(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}

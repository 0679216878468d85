//! Dependencies point downward only, and nothing below the engine links an async runtime.
//!
//! The input is what `cargo metadata` prints.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::Outcome;

/// Every crate and its layer. Crates of one layer never import each other.
const LAYERS: &[(&str, u32)] = &[
    ("onggi-spec", 0),
    ("onggi-sys", 0),
    ("onggi-state", 10),
    ("onggi-cgroup", 10),
    ("onggi-image", 20),
    ("onggi-storage", 20),
    ("onggi-network", 20),
    ("onggi-sandbox", 20),
    ("onggi-primitives", 20),
    // The runtime is the sandbox's own program.
    ("onggi-oci", 25),
    ("onggi-engine", 30),
    ("onggi-cli", 40),
    ("onggi-server", 40),
];

/// Downward, but still wrong.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("onggi-engine", "onggi-sandbox", "the sandbox runs in a program of its own"),
    ("onggi-engine", "onggi-oci", "the runtime is executed, not linked"),
    ("onggi-oci", "onggi-engine", "the runtime stands alone"),
];

/// Only these may link an async runtime.
const ASYNC: &[&str] = &["onggi-engine", "onggi-server", "onggi-cli"];

/// What an async runtime is called.
const RUNTIMES: &[&str] = &["tokio", "async-std", "smol"];

/// Complaints about the dependencies in `metadata` (JSON of `cargo metadata --format-version 1`).
pub(crate) fn check(metadata: &str) -> Outcome<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|e| format!("read cargo metadata: {e}"))?;
    let graph = Graph::read(&metadata).ok_or("cargo metadata has an unknown shape")?;
    let mut complaints = Vec::new();
    for name in graph.links.keys().filter(|name| name.starts_with("onggi-")) {
        complaints.extend(wrong_direction(name, &graph.links[name]));
        complaints.extend(async_runtime(name, &graph));
    }
    Ok(complaints)
}

fn layer(name: &str) -> Option<u32> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

fn wrong_direction(name: &str, links: &BTreeSet<String>) -> Vec<String> {
    if name == "onggi-tests" || name == "onggi-bench" {
        return Vec::new();
    }
    let Some(own) = layer(name) else { return vec![format!("{name} has no layer: add it to the table of tidy")] };
    let mut complaints = Vec::new();
    for link in links {
        if layer(link).is_some_and(|other| other >= own) {
            complaints.push(format!("{name} must not depend on {link}: dependencies point downward"));
        }
        if let Some((_, _, why)) = FORBIDDEN.iter().find(|(from, to, _)| *from == name && to == link) {
            complaints.push(format!("{name} must not depend on {link}: {why}"));
        }
    }
    complaints
}

fn async_runtime(name: &str, graph: &Graph) -> Option<String> {
    if ASYNC.contains(&name) {
        return None;
    }
    let linked = graph.reachable(name);
    let runtime = RUNTIMES.iter().find(|runtime| linked.contains(**runtime))?;
    Some(format!("{name} links {runtime}: only {} may", ASYNC.join(", ")))
}

/// Crate name → names of the crates that it links (no build or dev dependencies).
struct Graph {
    links: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read(metadata: &Value) -> Option<Graph> {
        let packages = metadata["packages"].as_array()?.iter();
        let names: BTreeMap<&str, &str> =
            packages.filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?))).collect();
        let mut links: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array()? {
            let name = names.get(node["id"].as_str()?)?;
            let normal = node["deps"].as_array()?.iter().filter(|dep| is_linked(dep));
            let deps = normal.filter_map(|dep| names.get(dep["pkg"].as_str()?));
            links.entry((*name).to_owned()).or_default().extend(deps.map(|dep| (*dep).to_owned()));
        }
        Some(Graph { links })
    }

    fn reachable(&self, from: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(name) = open.pop() {
            for link in self.links.get(name).into_iter().flatten() {
                if seen.insert(link.as_str()) {
                    open.push(link);
                }
            }
        }
        seen
    }
}

fn is_linked(dep: &Value) -> bool {
    dep["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(links: &[(&str, &[&str])]) -> String {
        let names: BTreeSet<&str> = links.iter().flat_map(|(a, b)| b.iter().chain([a])).copied().collect();
        let packages: Vec<Value> = names.iter().map(|name| json!({ "id": name, "name": name })).collect();
        let node = |name: &str, deps: &[&str]| {
            let deps: Vec<Value> =
                deps.iter().map(|dep| json!({ "pkg": dep, "dep_kinds": [{ "kind": null }] })).collect();
            json!({ "id": name, "deps": deps })
        };
        let nodes: Vec<Value> = links.iter().map(|(name, deps)| node(name, deps)).collect();
        json!({ "packages": packages, "resolve": { "nodes": nodes } }).to_string()
    }

    #[test]
    fn downward_dependencies_pass() {
        let text =
            metadata(&[("onggi-engine", &["onggi-image", "onggi-spec", "tokio"]), ("onggi-image", &["onggi-spec"])]);
        assert_eq!(check(&text), Ok(vec![]));
    }

    #[test]
    fn upward_sibling_and_unknown_crates_are_reported() {
        let up = check(&metadata(&[("onggi-image", &["onggi-engine"])])).unwrap();
        assert_eq!(up, ["onggi-image must not depend on onggi-engine: dependencies point downward"]);
        assert_eq!(check(&metadata(&[("onggi-image", &["onggi-storage"])])).unwrap().len(), 1);
        assert_eq!(check(&metadata(&[("onggi-new", &[])])).unwrap().len(), 1);
    }

    #[test]
    fn an_async_runtime_is_found_through_other_crates() {
        let found = check(&metadata(&[("onggi-sys", &["nice"]), ("nice", &["tokio"])])).unwrap();
        assert_eq!(found, ["onggi-sys links tokio: only onggi-engine, onggi-server, onggi-cli may"]);
    }

    #[test]
    fn the_engine_does_not_link_the_sandbox() {
        assert_eq!(check(&metadata(&[("onggi-engine", &["onggi-sandbox"])])).unwrap().len(), 1);
    }
}

//! state, list, ps, features, spec, plan, version: verbs that only tell.

use std::{ffi::OsString, fs::OpenOptions, io::Write, path::Path, process::Command};

use onggi_sandbox::plan;
use onggi_spec::{
    monitor::SandboxState,
    oci::runtime::{OCI_VERSION, Spec},
};
use serde_json::json;

use super::{
    Context, Failure,
    args::{self, flag, value},
    check_id, only_id, print, read_json,
    verbs::MAX_CONFIG,
};

pub(crate) fn version() -> String {
    format!("onggi-oci version {}\nspec: {OCI_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn state(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let id = only_id(&args::parse(rest, &[])?)?;
    let state = onggi_sandbox::load(&context.root, &id)?;
    let document = document(&state)?;
    print(&format!("{:#}\n", document))
}

/// The OCI state of a container with runc's additions.
fn document(state: &SandboxState) -> Result<serde_json::Value, Failure> {
    let status = onggi_sandbox::status(state)?.name();
    let pid = if status == "stopped" { 0 } else { state.pid };
    let config: Option<Spec> = read_json(&state.bundle.join("config.json"), MAX_CONFIG).ok();
    let root = config.and_then(|c| c.root).map(|r| state.bundle.join(r.path));
    Ok(json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": pid,
        "status": status,
        "bundle": state.bundle,
        "rootfs": root,
        "created": super::log::rfc3339(state.created_at.div_euclid(1_000_000_000)),
        "annotations": state.annotations,
        "owner": owner(state.owner_uid),
    }))
}

/// The user's name from /etc/passwd, read as a file: a static program must not load NSS modules.
fn owner(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = |l: &str| l.split(':').map(str::to_owned).collect::<Vec<_>>();
    let line = passwd.lines().map(fields).find(|f| f.get(2).is_some_and(|u| u.parse() == Ok(uid)));
    line.and_then(|f| f.into_iter().next()).unwrap_or_else(|| format!("#{uid}"))
}

pub(crate) fn list(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let parsed = args::parse(rest, &[value("format", Some('f')), flag("quiet", Some('q'))])?;
    let states = onggi_sandbox::list(&context.root)?;
    if parsed.has("quiet") {
        return print(&states.iter().map(|s| format!("{}\n", s.id)).collect::<String>());
    }
    let documents = states.iter().map(document).collect::<Result<Vec<_>, _>>()?;
    match parsed.text("format").as_deref() {
        Some("json") => print(&format!("{}\n", serde_json::Value::from(documents))),
        None | Some("table") => print(&table(&documents)),
        Some(other) => Err(Failure::new(format!("invalid format {other:?}: expected table or json"))),
    }
}

fn table(documents: &[serde_json::Value]) -> String {
    const COLUMNS: [&str; 6] = ["id", "pid", "status", "bundle", "created", "owner"];
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut rows = vec![COLUMNS.map(str::to_uppercase).to_vec()];
    rows.extend(documents.iter().map(|d| COLUMNS.map(|c| text(&d[c])).to_vec()));
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0) + 3;
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}"));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}

pub(crate) fn ps(context: &Context, rest: &[OsString]) -> Result<i32, Failure> {
    let parsed = args::parse(rest, &[value("format", Some('f'))])?;
    let id = parsed.rest.first().ok_or_else(|| Failure::new("a container id is required")).and_then(check_id)?;
    let pids = onggi_sandbox::pids(&context.root, &id)?;
    match parsed.text("format").as_deref() {
        Some("json") => print(&format!("{}\n", serde_json::Value::from(pids))),
        None | Some("table") => print(&ps_table(&pids, &parsed.rest[1..])?),
        Some(other) => Err(Failure::new(format!("invalid format {other:?}: expected table or json"))),
    }
}

/// The host's ps(1), from a fixed directory, reduced to the container's processes.
fn ps_table(pids: &[i32], options: &[OsString]) -> Result<String, Failure> {
    let program = ["/usr/bin/ps", "/bin/ps"].into_iter().find(|p| Path::new(p).is_file());
    let program = program.ok_or_else(|| Failure::new("ps is not installed: use --format json"))?;
    let default = [OsString::from("-ef")];
    let output = Command::new(program).args(if options.is_empty() { &default } else { options }).env_clear().output();
    let output = output.map_err(|e| Failure::new(format!("run {program}: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|c| c == "PID");
    let column = column.ok_or_else(|| Failure::new("the output of ps has no column PID"))?;
    let ours = |l: &&str| l.split_whitespace().nth(column).and_then(|p| p.parse().ok()).is_some_and(|p: i32| pids.contains(&p));
    Ok(std::iter::once(header).chain(lines.filter(ours)).map(|l| format!("{l}\n")).collect())
}

pub(crate) fn features(rest: &[OsString]) -> Result<i32, Failure> {
    args::parse(rest, &[])?;
    print(&format!("{:#}\n", onggi_sandbox::features()))
}

/// A configuration to start from: sh in `rootfs`, all namespaces but user's, runc's default capabilities.
pub(crate) fn spec(rest: &[OsString]) -> Result<i32, Failure> {
    let parsed = args::parse(rest, &[value("bundle", Some('b')), flag("rootless", None)])?;
    let bundle = parsed.get("bundle").map_or(Path::new("."), Path::new);
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(include_str!("spec.json"))
        .map_err(|e| Failure::new(format!("the built-in configuration: {e}")))?;
    config["ociVersion"] = OCI_VERSION.into();
    if parsed.has("rootless") {
        make_rootless(&mut config);
    }
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let written = file.and_then(|mut f| writeln!(f, "{config:#}"));
    written.map(|()| 0).map_err(|e| Failure::new(format!("write {}: {e}", path.display())))
}

/// The caller becomes root of a user namespace; what needs the real root is left out.
fn make_rootless(config: &mut serde_json::Value) {
    let mapping = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    let linux = &mut config["linux"];
    linux["uidMappings"] = mapping(rustix::process::geteuid().as_raw());
    linux["gidMappings"] = mapping(rustix::process::getegid().as_raw());
    linux["resources"] = json!({});
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|n| n["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|m| m["destination"] != "/sys/fs/cgroup");
        for mount in mounts {
            if mount["destination"] == "/dev/pts" {
                mount["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
            }
            if mount["destination"] == "/sys" {
                *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
            }
        }
    }
}

/// The operations for a configuration given on stdin; see `onggi_sandbox::plan`.
pub(crate) fn plan(rest: &[OsString]) -> Result<i32, Failure> {
    use std::io::Read;
    let parsed = args::parse(rest, &[value("format", Some('f'))])?;
    let format = match parsed.text("format").as_deref() {
        None | Some("words") => plan::Format::Words,
        Some("json") => plan::Format::Json,
        Some("sh") => plan::Format::Shell,
        Some(other) => return Err(Failure::new(format!("invalid format {other:?}: expected words, json or sh"))),
    };
    let mut input = Vec::new();
    let read = std::io::stdin().take(MAX_CONFIG).read_to_end(&mut input);
    read.map_err(|e| Failure::new(format!("read stdin: {e}")))?;
    print(&plan::render(&input, format)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_configuration_is_one() {
        let config: Spec = serde_json::from_str(include_str!("spec.json")).unwrap();
        assert_eq!(config.process.unwrap().args, ["sh"]);
    }

    #[test]
    fn a_rootless_configuration_maps_the_caller_to_root() {
        let mut config: serde_json::Value = serde_json::from_str(include_str!("spec.json")).unwrap();
        make_rootless(&mut config);
        assert_eq!(config["linux"]["uidMappings"][0]["containerID"], 0);
        let namespaces = config["linux"]["namespaces"].as_array().unwrap();
        assert!(namespaces.iter().any(|n| n["type"] == "user") && !namespaces.iter().any(|n| n["type"] == "network"));
    }

    #[test]
    fn tables_align_their_columns() {
        let row = json!({ "id": "a", "pid": 7, "status": "running", "bundle": "/b", "created": "t", "owner": "root" });
        assert_eq!(table(&[row]), "ID   PID   STATUS    BUNDLE   CREATED   OWNER\na    7     running   /b       t         root\n");
    }
}

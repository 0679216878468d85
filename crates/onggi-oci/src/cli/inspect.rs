//! `kill`, `delete`, `state`, `pause`, `resume`.

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use onggi_sandbox::{Listed, Scope};
use onggi_spec::{oci::runtime::ContainerState, signal};
use serde::Serialize;

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag, utf8},
    log::{print, rfc3339_nano},
};

const SIGTERM: i32 = onggi_sys::signal::number::TERM;

pub(super) const KILL_FLAGS: &[Flag] =
    &[Flag::switch("all", "a").help("send the specified signal to all processes inside the container")];
pub(super) const DELETE_FLAGS: &[Flag] =
    &[Flag::switch("force", "f").help("Forcibly deletes the container if it is still running (uses SIGKILL)")];

pub(super) fn kill(global: &Global, args: &Args) -> Outcome {
    // An empty word is what a script has whose variable is not set.
    let signal = match args.rest().get(1).filter(|word| !word.is_empty()) {
        Some(word) => parse_signal(&utf8(word)?)?,
        None => SIGTERM,
    };
    let scope = if args.is("all") { Scope::All } else { Scope::First };
    onggi_sandbox::kill(&global.root, &args.id()?, signal, scope)?;
    Ok(0)
}

/// 0 asks whether the process is there, as kill(2) has it.
fn parse_signal(text: &str) -> Result<i32, CliError> {
    if text == "0" {
        return Ok(0);
    }
    signal::parse_signal(text).map_err(|_| CliError::Signal(text.to_owned()))
}

pub(super) fn delete(global: &Global, args: &Args) -> Outcome {
    let notes = onggi_sandbox::delete(&global.root, &args.id()?, args.is("force"))?;
    global.log.notes(&notes);
    Ok(0)
}

/// What `state` and `list` show: the specification's members and runc's, in runc's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown<'a> {
    oci_version: &'a str,
    id: &'a str,
    pub(super) pid: i32,
    status: ContainerState,
    bundle: &'a Path,
    rootfs: &'a Path,
    pub(super) created: String,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: &'a std::collections::BTreeMap<String, String>,
    pub(super) owner: String,
}

impl<'a> Shown<'a> {
    pub(super) fn new(listed: &'a Listed, owner: String) -> Self {
        let state = &listed.state;
        let created = UNIX_EPOCH + Duration::from_nanos(state.created_at.max(0).unsigned_abs());
        Self {
            oci_version: &state.oci_version,
            id: &state.id,
            pid: if listed.status == ContainerState::Stopped { 0 } else { state.pid },
            status: listed.status,
            bundle: &state.bundle,
            rootfs: &state.rootfs,
            created: rfc3339_nano(created),
            annotations: &state.annotations,
            owner,
        }
    }
}

pub(super) fn to_json(value: &impl Serialize, pretty: bool) -> Result<String, CliError> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map(|t| t + "\n").map_err(|e| CliError::Usage(format!("encode the result: {e}")))
}

pub(super) fn state(global: &Global, args: &Args) -> Outcome {
    let listed = onggi_sandbox::listed(&global.root, &args.id()?)?;
    print(&to_json(&Shown::new(&listed, String::new()), true)?);
    Ok(0)
}

pub(super) fn pause(global: &Global, args: &Args) -> Outcome {
    onggi_sandbox::pause(&global.root, &args.id()?)?;
    Ok(0)
}

pub(super) fn resume(global: &Global, args: &Args) -> Outcome {
    onggi_sandbox::resume(&global.root, &args.id()?)?;
    Ok(0)
}

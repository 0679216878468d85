//! `kill`, `delete`, `state`, `list`, `ps`, `pause`, `resume`.

use std::{
    ffi::OsString,
    fmt::Write,
    time::{Duration, UNIX_EPOCH},
};

use onggi_sandbox::{Listed, Scope};
use onggi_spec::{oci::runtime::ContainerState, signal};
use serde_json::{Value, json};

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag, utf8},
    create::read_config,
    log::{print, rfc3339},
};

const SIGTERM: i32 = onggi_sys::signal::number::TERM;

pub(super) fn kill(global: &Global, words: &[OsString]) -> Outcome {
    let args = Args::parse(words, &[Flag::switch("all", "a")])?;
    let (id, signal) = match args.rest() {
        [id] => (utf8(id)?, SIGTERM),
        [id, signal] => (utf8(id)?, signal::parse_signal(&utf8(signal)?)?),
        _ => return Err(CliError::Usage("kill wants a container id and at most one signal".into())),
    };
    let scope = if args.is("all") { Scope::All } else { Scope::First };
    onggi_sandbox::kill(&global.root, &id, signal, scope)?;
    Ok(0)
}

pub(super) fn delete(global: &Global, words: &[OsString]) -> Outcome {
    let args = Args::parse(words, &[Flag::switch("force", "f")])?;
    let notes = onggi_sandbox::delete(&global.root, &args.id()?, args.is("force"))?;
    global.log.notes(&notes);
    Ok(0)
}

/// What `state` and `list` show: the specification's members and runc's.
fn describe(listed: &Listed) -> Value {
    let state = &listed.state;
    let stopped = listed.status == ContainerState::Stopped;
    let rootfs = read_config(&state.bundle).ok().and_then(|c| c.root).map(|r| state.bundle.join(r.path));
    let created = UNIX_EPOCH + Duration::from_nanos(state.created_at.max(0).unsigned_abs());
    json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": if stopped { 0 } else { state.pid },
        "status": listed.status,
        "bundle": state.bundle,
        "rootfs": rootfs,
        "created": rfc3339(created),
        "annotations": state.annotations,
        "owner": state.owner_uid.to_string(),
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(super) fn state(global: &Global, words: &[OsString]) -> Outcome {
    let id = Args::parse(words, &[])?.id()?;
    let status = onggi_sandbox::state(&global.root, &id)?.status;
    let listed = Listed { state: onggi_sandbox::stored_state(&global.root, &id)?, status };
    print(&pretty(&describe(&listed)));
    Ok(0)
}

pub(super) fn list(global: &Global, words: &[OsString]) -> Outcome {
    let args = Args::parse(words, &[Flag::value("format", "f"), Flag::switch("quiet", "q")])?;
    let all = onggi_sandbox::list(&global.root)?;
    if args.is("quiet") {
        let ids: String = all.iter().fold(String::new(), |text, c| text + &c.state.id + "\n");
        print(&ids);
        return Ok(0);
    }
    match args.text("format").unwrap_or("table") {
        "json" => print(&format!("{}\n", Value::Array(all.iter().map(describe).collect()))),
        "table" => print(&table(&all)),
        other => return Err(CliError::Usage(format!("--format {other:?} is neither table nor json"))),
    }
    Ok(0)
}

fn table(all: &[Listed]) -> String {
    let mut text = format!("{:<20}  {:>8}  {:<10}  {:<40}  {}\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED");
    for c in all {
        let created = UNIX_EPOCH + Duration::from_nanos(c.state.created_at.max(0).unsigned_abs());
        let pid = if c.status == ContainerState::Stopped { 0 } else { c.state.pid };
        let status = format!("{:?}", c.status).to_lowercase();
        let bundle = c.state.bundle.display().to_string();
        let _ = writeln!(text, "{:<20}  {pid:>8}  {status:<10}  {bundle:<40}  {}", c.state.id, rfc3339(created));
    }
    text
}

pub(super) fn ps(global: &Global, words: &[OsString]) -> Outcome {
    let args = Args::parse(words, &[Flag::value("format", "f")])?;
    let id = args.rest().first().ok_or_else(|| CliError::Usage("no container id was given".into()))?;
    let pids = onggi_sandbox::processes(&global.root, &utf8(id)?)?;
    match args.text("format").unwrap_or("table") {
        "json" => print(&format!("{}\n", json!(pids))),
        "table" => {
            let mut text = format!("{:>8}  COMMAND\n", "PID");
            for pid in pids {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let _ = writeln!(text, "{pid:>8}  {}", name.trim_end());
            }
            print(&text);
        }
        other => return Err(CliError::Usage(format!("--format {other:?} is neither table nor json"))),
    }
    Ok(0)
}

pub(super) fn pause(global: &Global, words: &[OsString]) -> Outcome {
    onggi_sandbox::pause(&global.root, &Args::parse(words, &[])?.id()?)?;
    Ok(0)
}

pub(super) fn resume(global: &Global, words: &[OsString]) -> Outcome {
    onggi_sandbox::resume(&global.root, &Args::parse(words, &[])?.id()?)?;
    Ok(0)
}

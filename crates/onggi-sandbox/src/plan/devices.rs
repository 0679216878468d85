//! /dev: the specification's default devices and links, then `linux.devices`. config-linux.md "Default Devices".

use std::path::{Component, Path, PathBuf};

use onggi_spec::oci::runtime::{LinuxDevice, LinuxNamespaceType};

use super::{DeviceKind, DeviceNode, MountOptions, SetupOp, build::Context};
use crate::error::{Result, StartFailureError};

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// False when the host's own /dev is bound there.
pub(super) fn are_made(cx: &Context<'_>) -> bool {
    let bound = |m: &onggi_spec::oci::runtime::Mount| {
        Path::new(&m.destination) == Path::new("/dev")
            && (m.typ.as_deref() == Some("bind") || MountOptions::parse(&m.options).bind.is_some())
    };
    !cx.input.config.mounts.iter().any(bound)
}

/// Nodes and links; nothing when the host's own /dev is bound there.
pub(super) fn plan_devices(cx: &Context<'_>) -> Result<Vec<SetupOp>> {
    if !are_made(cx) {
        return Ok(Vec::new());
    }
    // No user namespace but the initial one may make nodes, be it the container's own or its caller's.
    let user = cx.namespaces.has(LinuxNamespaceType::User) || !cx.facts.privileged;
    let op = |node: DeviceNode| match user && node.kind != DeviceKind::Fifo {
        true => SetupOp::BindNode(node),
        false => SetupOp::Node(node),
    };
    let mut asked = cx.linux.devices.iter().map(node).collect::<Result<Vec<_>>>()?;
    // The link to the container's own devpts takes its place.
    asked.retain(|device| device.path != Path::new("/dev/ptmx"));
    let defaults = DEFAULTS.iter().map(|(path, major, minor)| DeviceNode {
        path: PathBuf::from(path),
        kind: DeviceKind::Char,
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    });
    // What the configuration mounts at the very path of a device is meant to be there in its place.
    let mounted: Vec<PathBuf> =
        cx.input.config.mounts.iter().map(|m| by_its_letters(Path::new(&m.destination))).collect();
    let free = |d: &DeviceNode| !mounted.contains(&d.path);
    let mut ops: Vec<SetupOp> =
        defaults.filter(|d| free(d) && !asked.iter().any(|a| a.path == d.path)).map(op).collect();
    ops.extend(asked.into_iter().filter(free).map(op));
    let link = |path: &str, target: &str, only_if: Option<&str>| SetupOp::Symlink {
        path: path.into(),
        target: target.into(),
        only_if: only_if.map(PathBuf::from),
    };
    ops.extend(LINKS.iter().map(|(p, t)| link(p, t, None)));
    ops.push(link("/dev/ptmx", "pts/ptmx", None));
    ops.push(link("/dev/core", "/proc/kcore", Some("/proc/kcore")));
    Ok(ops)
}

/// Without `.` and `..`, as runc and crun take it; what is there is opened inside the root all the same.
fn by_its_letters(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn node(device: &LinuxDevice) -> Result<DeviceNode> {
    let fail = |why: &str| StartFailureError::new(format!("linux.devices {:?}: {why}", device.path));
    if !device.path.starts_with('/') {
        return Err(fail("the path is not absolute"));
    }
    let path = by_its_letters(Path::new(&device.path));
    if path.file_name().is_none() {
        return Err(fail("the path names no file"));
    }
    let number = |n: i64| u32::try_from(n).map_err(|_| fail("major or minor is out of range"));
    let kind = match device.typ.as_str() {
        "c" | "u" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        "p" => DeviceKind::Fifo,
        _ => return Err(fail("the type is none of c, u, b, p")),
    };
    Ok(DeviceNode {
        path,
        kind,
        major: number(device.major)?,
        minor: number(device.minor)?,
        // What the file is says `type`; a device is nobody's program.
        mode: device.file_mode.unwrap_or(0o666) & 0o777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

//! `spec`: a config.json to begin with, like runc's.

use std::fs;

use serde_json::{Value, json};

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag},
};

const CAPS: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

pub(super) const FLAGS: &[Flag] = &[
    Flag::value("bundle", "b").help("path to the root of the bundle directory"),
    Flag::switch("rootless", "").help("generate a configuration for a rootless container"),
];

pub(super) fn spec(_: &Global, args: &Args) -> Outcome {
    let path = args.path("bundle").unwrap_or_default().join("config.json");
    if path.exists() {
        return Err(CliError::Usage(format!("File {} exists. Remove it first", path.display())));
    }
    let mut document = rootful();
    if let (true, Some(list)) = (only_cgroup2(), document["linux"]["namespaces"].as_array_mut()) {
        list.push(json!({ "type": "cgroup" }));
    }
    if args.is("rootless") {
        make_rootless(&mut document);
    }
    fs::write(&path, format!("{document:#}\n")).map_err(|source| CliError::File { what: "write", path, source })?;
    Ok(0)
}

/// Where the hierarchies of version 1 are too, a namespace would only show paths that the host does not know (runc
/// adds none either).
fn only_cgroup2() -> bool {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.f_type == CGROUP2_SUPER_MAGIC)
}

fn mount(destination: &str, typ: &str, options: &[&str]) -> Value {
    let source = if destination == "/dev/shm" { "shm" } else { typ };
    json!({ "destination": destination, "type": typ, "source": source, "options": options })
}

fn rootful() -> Value {
    json!({
        "ociVersion": onggi_spec::oci::runtime::OCI_VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": CAPS, "effective": CAPS, "permitted": CAPS },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "onggi",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
                "/sys/devices/virtual/tpm"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// One id each, no cgroup limits, no group that is not mapped.
fn make_rootless(document: &mut Value) {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let linux = &mut document["linux"];
    linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
    linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
    if let Some(map) = linux.as_object_mut() {
        map.remove("resources");
    }
    if let Some(list) = linux["namespaces"].as_array_mut() {
        list.retain(|n| n["type"] != "network");
        list.push(json!({ "type": "user" }));
    }
    if let Some(list) = document["mounts"].as_array_mut() {
        for m in list {
            if m["destination"] == "/dev/pts" {
                m["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
            }
            if m["destination"] == "/sys" {
                *m = json!({
                    "destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro", "rro"]
                });
            }
        }
    }
}

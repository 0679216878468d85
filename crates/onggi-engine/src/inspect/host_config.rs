//! `HostConfig` of `inspect`: what was asked of the host. What there is no option for has the value that it has in Docker when
//! nobody asks, as far as it is true here too; nothing else is made up.

use onggi_spec::{
    HostFacts,
    facts::CgroupLayout,
    oci::build::{DEFAULT_PIDS, SHM_SIZE},
};
use onggi_state::ContainerRecord;
use serde_json::{Value, json};

use super::port_map;

/// Lists are empty where Docker's JSON has `null`: its templates print both as `[]`.
pub(super) fn of(r: &ContainerRecord, facts: &HostFacts) -> Value {
    let q = &r.request;
    let mut value = not_asked();
    let binds: Vec<String> = q
        .mounts
        .iter()
        .map(|m| format!("{}:{}:{}", m.source, m.target, if m.read_only { "ro" } else { "rw" }))
        .collect();
    let asked = json!({
        "Binds": binds,
        "NetworkMode": q.network.name(),
        "PortBindings": port_map(&q.ports),
        // `host`: root in the container is root outside, held back by capabilities, seccomp and masks.
        "UsernsMode": q.userns.name(),
        "CgroupnsMode": if facts.cgroup == CgroupLayout::None { "host" } else { "private" },
        "AutoRemove": q.remove,
        "CapAdd": q.cap_add,
        "CapDrop": q.cap_drop,
        "SecurityOpt": q.security.words(),
        "ReadonlyRootfs": q.read_only,
        "Memory": q.resources.memory.unwrap_or(0),
        // As much swap as memory on top of it.
        "MemorySwap": q.resources.memory.map_or(0, |bytes| bytes.saturating_mul(2)),
        "NanoCpus": q.resources.nano_cpus.unwrap_or(0),
        "PidsLimit": q.resources.pids.unwrap_or(DEFAULT_PIDS),
        "Init": q.init,
    });
    if let (Value::Object(value), Value::Object(asked)) = (&mut value, asked) {
        value.extend(asked);
    }
    value
}

/// What no option changes. PID and UTS namespaces are the container's own, which Docker writes as the empty text.
fn not_asked() -> Value {
    json!({
        "Privileged": false,
        "PublishAllPorts": false,
        "PidMode": "",
        "IpcMode": "private",
        "UTSMode": "",
        "ShmSize": SHM_SIZE,
        "CgroupParent": "",
        "CpuShares": 0,
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpusetCpus": "",
        "CpusetMems": "",
        "BlkioWeight": 0,
        "MemoryReservation": 0,
        "OomKillDisable": false,
        "OomScoreAdj": 0,
        "Ulimits": [],
        "Devices": [],
        "ExtraHosts": [],
        "Dns": [],
        "DnsOptions": [],
        "DnsSearch": [],
        "GroupAdd": [],
        "Sysctls": {},
        "Tmpfs": {},
        "LogConfig": { "Type": "json-file", "Config": {} },
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
    })
}

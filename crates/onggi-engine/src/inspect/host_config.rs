//! `HostConfig` of `inspect`: what was asked of the host. What there is no option for has the value that it has in Docker when
//! nobody asks, as far as it is true here too; nothing else is made up.

use onggi_spec::{
    HostFacts,
    facts::CgroupLayout,
    oci::build::{DEFAULT_PIDS, SHM_SIZE},
    resources::{BlockLimitKind, Resources},
    ulimit::Ulimit,
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
        "Init": q.init,
        "ShmSize": q.shm_size.unwrap_or(SHM_SIZE),
        "OomScoreAdj": q.oom_score_adj.unwrap_or(0),
        "Ulimits": q.ulimits.iter().map(ulimit).collect::<Vec<_>>(),
        "GroupAdd": q.group_add.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "Sysctls": q.sysctls,
        "Annotations": q.annotations,
    });
    for part in [asked, resources(&q.resources)] {
        if let (Value::Object(value), Value::Object(part)) = (&mut value, part) {
            value.extend(part);
        }
    }
    value
}

/// Unlimited is -1, as with Docker.
fn ulimit(limit: &Ulimit) -> Value {
    let number = |n: u64| i64::try_from(n).unwrap_or(-1);
    json!({ "Name": limit.name, "Soft": number(limit.soft), "Hard": number(limit.hard) })
}

fn resources(r: &Resources) -> Value {
    let devices = |kind: BlockLimitKind, value: &str| -> Vec<Value> {
        let of_kind = r.block_devices.iter().filter(|limit| limit.kind == kind);
        of_kind.map(|limit| json!({ "Path": limit.path, value: limit.value })).collect()
    };
    json!({
        "Memory": r.memory.unwrap_or(0),
        // As much swap as memory on top of it, unless said otherwise.
        "MemorySwap": r.memory_swap.unwrap_or_else(|| twice(r.memory)),
        "MemoryReservation": r.memory_reservation.unwrap_or(0),
        "MemorySwappiness": r.memory_swappiness,
        "OomKillDisable": r.oom_kill_disable,
        "NanoCpus": r.nano_cpus.unwrap_or(0),
        "CpuShares": r.cpu_shares.unwrap_or(0),
        "CpuPeriod": r.cpu_period.unwrap_or(0),
        "CpuQuota": r.cpu_quota.unwrap_or(0),
        "CpuRealtimePeriod": r.cpu_rt_period.unwrap_or(0),
        "CpuRealtimeRuntime": r.cpu_rt_runtime.unwrap_or(0),
        "CpusetCpus": r.cpuset_cpus.as_deref().unwrap_or_default(),
        "CpusetMems": r.cpuset_mems.as_deref().unwrap_or_default(),
        "PidsLimit": r.pids.unwrap_or(DEFAULT_PIDS),
        "BlkioWeight": r.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": devices(BlockLimitKind::Weight, "Weight"),
        "BlkioDeviceReadBps": devices(BlockLimitKind::ReadBytes, "Rate"),
        "BlkioDeviceWriteBps": devices(BlockLimitKind::WriteBytes, "Rate"),
        "BlkioDeviceReadIOps": devices(BlockLimitKind::ReadOperations, "Rate"),
        "BlkioDeviceWriteIOps": devices(BlockLimitKind::WriteOperations, "Rate"),
    })
}

fn twice(memory: Option<u64>) -> i64 {
    memory.map_or(0, |bytes| i64::try_from(bytes.saturating_mul(2)).unwrap_or(i64::MAX))
}

/// What no option changes. PID and UTS namespaces are the container's own, which Docker writes as the empty text.
fn not_asked() -> Value {
    json!({
        "Privileged": false,
        "PublishAllPorts": false,
        "PidMode": "",
        "IpcMode": "private",
        "UTSMode": "",
        "CgroupParent": "",
        "Devices": [],
        "ExtraHosts": [],
        "Dns": [],
        "DnsOptions": [],
        "DnsSearch": [],
        "Tmpfs": {},
        "LogConfig": { "Type": "json-file", "Config": {} },
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
    })
}

//! `HostConfig` of `inspect`: what was asked of the host. What there is no option for has the value that it has in Docker when
//! nobody asks, as far as it is true here too; nothing else is made up.

use onggi_spec::{
    ContainerRequest, HostFacts,
    device::DeviceSpec,
    facts::CgroupLayout,
    oci::{
        build::{DEFAULT_PIDS, SHM_SIZE},
        runtime::LinuxDeviceCgroup,
    },
    resolver::ExtraHost,
    resources::{BlockLimitKind, Resources},
    ulimit::Ulimit,
};
use onggi_state::ContainerRecord;
use serde_json::{Map, Value, json};

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
        "NetworkMode": q.network_words(),
        "PortBindings": port_map(&q.ports),
        // `host`: root in the container is root outside, held back by capabilities, seccomp and masks.
        "UsernsMode": q.userns.name(),
        "CgroupnsMode": if facts.cgroup == CgroupLayout::None || q.shared.cgroup { "host" } else { "private" },
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
    for part in [asked, resources(&q.resources), of_host(q)] {
        if let (Value::Object(value), Value::Object(part)) = (&mut value, part) {
            value.extend(part);
        }
    }
    value
}

/// What it has of the host. A namespace of its own is the empty text in Docker's words, but for IPC.
fn of_host(q: &ContainerRequest) -> Value {
    let mode = |shared: bool| if shared { "host" } else { "" };
    let device =
        |d: &DeviceSpec| json!({ "PathOnHost": d.host, "PathInContainer": d.target, "CgroupPermissions": d.access });
    let host = |h: &ExtraHost| {
        let address = h.address.map_or_else(|| "host-gateway".to_owned(), |address| address.to_string());
        format!("{}:{address}", h.name)
    };
    let tmpfs: Map<String, Value> = q.tmpfs.iter().map(|t| (t.target.clone(), t.options.join(",").into())).collect();
    json!({
        "Privileged": q.privileged,
        "PublishAllPorts": q.publish_all,
        "PidMode": mode(q.shared.pid),
        "IpcMode": if q.shared.ipc { "host" } else { "private" },
        "UTSMode": mode(q.shared.uts),
        "Devices": q.devices.iter().map(device).collect::<Vec<_>>(),
        "DeviceCgroupRules": q.device_rules.iter().map(rule).collect::<Vec<_>>(),
        "ExtraHosts": q.extra_hosts.iter().map(host).collect::<Vec<_>>(),
        "Dns": q.dns.servers,
        "DnsOptions": q.dns.options,
        "DnsSearch": q.dns.search,
        "Tmpfs": tmpfs,
    })
}

/// As `--device-cgroup-rule` takes it.
fn rule(rule: &LinuxDeviceCgroup) -> String {
    let number = |n: Option<i64>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let (typ, access) = (rule.typ.as_deref().unwrap_or("a"), rule.access.as_deref().unwrap_or_default());
    format!("{typ} {}:{} {access}", number(rule.major), number(rule.minor))
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
        "MemorySwap": r.swap().unwrap_or(0),
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

/// What no option changes.
fn not_asked() -> Value {
    json!({
        "CgroupParent": "",
        "LogConfig": { "Type": "json-file", "Config": {} },
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
    })
}

//! Version 1: one hierarchy per controller.

use std::{collections::BTreeMap, path::Path};

use super::{CpuSet, Hugetlb, MemoryEntry, Usage, blkio, flat, list, number, numbers, rdma, text};
use crate::CgroupError;

/// CPU times of `cpuacct.stat` are in these: USER_HZ is 100 on every architecture that matters.
const NS_PER_TICK: u64 = 10_000_000;

pub(super) fn read(controller: &str, dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    match controller {
        "cpu" => cpu(dir, usage),
        "cpuacct" => cpuacct(dir, usage),
        "cpuset" => cpuset(dir, usage),
        "memory" => memory(dir, usage),
        "pids" => {
            usage.pids.current = number(dir, "pids.current")?;
            usage.pids.limit = Some(number(dir, "pids.max")?).filter(|n| *n != u64::MAX).unwrap_or(0);
            Ok(())
        }
        "blkio" => block_io(dir, usage),
        "hugetlb" => hugetlb(dir, usage),
        "rdma" => {
            usage.rdma = rdma(&text(dir, "rdma.current")?, &text(dir, "rdma.max")?);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn cpu(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    let stat = flat(&text(dir, "cpu.stat")?);
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    let throttling = &mut usage.cpu.throttling;
    throttling.periods = get("nr_periods");
    throttling.throttled_periods = get("nr_throttled");
    throttling.throttled_time = get("throttled_time");
    Ok(())
}

fn cpuacct(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    let stat = flat(&text(dir, "cpuacct.stat")?);
    let time = |key: &str| stat.get(key).copied().unwrap_or(0).saturating_mul(NS_PER_TICK);
    let cpu = &mut usage.cpu.usage;
    cpu.user = time("user");
    cpu.kernel = time("system");
    cpu.total = number(dir, "cpuacct.usage")?;
    cpu.percpu = numbers(&text(dir, "cpuacct.usage_percpu")?);
    // `cpu user system` lines after a title (4.9).
    for line in text(dir, "cpuacct.usage_all")?.lines().skip(1) {
        if let [_, user, system, ..] = numbers(line)[..] {
            cpu.percpu_user.push(user);
            cpu.percpu_kernel.push(system);
        }
    }
    Ok(())
}

fn cpuset(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    let get = |name: &str| number(dir, &format!("cpuset.{name}"));
    usage.cpuset = CpuSet {
        cpus: list(&text(dir, "cpuset.cpus")?),
        cpu_exclusive: get("cpu_exclusive")?,
        mems: list(&text(dir, "cpuset.mems")?),
        mem_hardwall: get("mem_hardwall")?,
        mem_exclusive: get("mem_exclusive")?,
        memory_migrate: get("memory_migrate")?,
        memory_spread_page: get("memory_spread_page")?,
        memory_spread_slab: get("memory_spread_slab")?,
        memory_pressure: get("memory_pressure")?,
        sched_load_balance: get("sched_load_balance")?,
        sched_relax_domain_level: text(dir, "cpuset.sched_relax_domain_level")?.trim().parse().unwrap_or(0),
    };
    Ok(())
}

fn memory(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    let entry = |kind: &str| -> Result<MemoryEntry, CgroupError> {
        let get = |name: &str| number(dir, &format!("memory.{kind}{name}"));
        Ok(MemoryEntry {
            limit: get("limit_in_bytes")?,
            usage: get("usage_in_bytes")?,
            max: get("max_usage_in_bytes")?,
            failcnt: get("failcnt")?,
        })
    };
    usage.memory.usage = entry("")?;
    usage.memory.swap = entry("memsw.")?;
    usage.memory.kernel = entry("kmem.")?;
    usage.memory.kernel_tcp = entry("kmem.tcp.")?;
    usage.memory.raw = flat(&text(dir, "memory.stat")?);
    usage.memory.cache = usage.memory.raw.get("cache").copied().unwrap_or(0);
    Ok(())
}

/// With the BFQ scheduler its own counters, else those of throttling, which every kernel keeps.
fn block_io(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    let io = &mut usage.blkio;
    let bfq = |name: &str| Ok::<_, CgroupError>(blkio(&text(dir, &format!("blkio.bfq.{name}_recursive"))?));
    io.io_serviced_recursive = bfq("io_serviced")?;
    if io.io_serviced_recursive.is_empty() {
        for (of, name) in
            [(&mut io.io_service_bytes_recursive, "io_service_bytes"), (&mut io.io_serviced_recursive, "io_serviced")]
        {
            *of = blkio(&text(dir, &format!("blkio.throttle.{name}_recursive"))?);
        }
        return Ok(());
    }
    io.io_service_bytes_recursive = bfq("io_service_bytes")?;
    io.sectors_recursive = bfq("sectors")?;
    io.io_queued_recursive = bfq("io_queued")?;
    io.io_service_time_recursive = bfq("io_service_time")?;
    io.io_wait_time_recursive = bfq("io_wait_time")?;
    io.io_merged_recursive = bfq("io_merged")?;
    io.io_time_recursive = bfq("time")?;
    Ok(())
}

fn hugetlb(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    for size in page_sizes(dir, ".usage_in_bytes") {
        let get = |name: &str| number(dir, &format!("hugetlb.{size}.{name}"));
        let entry =
            Hugetlb { usage: get("usage_in_bytes")?, max: get("max_usage_in_bytes")?, failcnt: get("failcnt")? };
        usage.hugetlb.insert(size, entry);
    }
    Ok(())
}

/// Page sizes that the group has a file of this ending for.
pub(super) fn page_sizes(dir: &Path, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |name: String| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(ending)?.to_owned();
        (!size.contains('.')).then_some((size, ()))
    };
    let sizes: BTreeMap<String, ()> = entries.filter_map(|e| size(e.file_name().into_string().ok()?)).collect();
    sizes.into_keys().collect()
}

//! Version 2: one directory.

use std::path::Path;

use super::{BlkioEntry, Hugetlb, MemoryEntry, Usage, flat, list, number, psi, rdma, text, v1::page_sizes};
use crate::CgroupError;

pub(super) fn read(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    cpu(dir, usage)?;
    usage.cpuset.cpus = list(&text(dir, "cpuset.cpus")?);
    usage.cpuset.mems = list(&text(dir, "cpuset.mems")?);
    memory(dir, usage)?;
    pids(dir, usage)?;
    block_io(dir, usage)?;
    hugetlb(dir, usage)?;
    usage.rdma = rdma(&text(dir, "rdma.current")?, &text(dir, "rdma.max")?);
    Ok(())
}

fn cpu(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    let stat = flat(&text(dir, "cpu.stat")?);
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    let time = |key: &str| get(key).saturating_mul(1000);
    let cpu = &mut usage.cpu;
    cpu.usage.total = time("usage_usec");
    cpu.usage.user = time("user_usec");
    cpu.usage.kernel = time("system_usec");
    cpu.throttling.periods = get("nr_periods");
    cpu.throttling.throttled_periods = get("nr_throttled");
    cpu.throttling.throttled_time = time("throttled_usec");
    cpu.psi = psi(&text(dir, "cpu.pressure")?);
    Ok(())
}

fn memory(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    let entry = |kind: &str| -> Result<MemoryEntry, CgroupError> {
        let get = |name: &str| number(dir, &format!("memory.{kind}{name}"));
        let failcnt = flat(&text(dir, &format!("memory.{kind}events"))?).get("max").copied().unwrap_or(0);
        Ok(MemoryEntry { limit: get("max")?, usage: get("current")?, max: get("peak")?, failcnt })
    };
    usage.memory.usage = entry("")?;
    let swap = entry("swap.")?;
    // Memory and swap together, as version 1 counts and as readers of this shape expect.
    let both = |memory: u64, swap: u64| if swap == u64::MAX { swap } else { memory.saturating_add(swap) };
    usage.memory.swap = MemoryEntry {
        limit: both(usage.memory.usage.limit, swap.limit),
        usage: both(usage.memory.usage.usage, swap.usage),
        max: 0,
        failcnt: swap.failcnt,
    };
    usage.memory.raw = flat(&text(dir, "memory.stat")?);
    usage.memory.cache = usage.memory.raw.get("file").copied().unwrap_or(0);
    usage.memory.psi = psi(&text(dir, "memory.pressure")?);
    Ok(())
}

fn pids(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    usage.pids.current = number(dir, "pids.current")?;
    if usage.pids.current == 0 {
        // Without the controller.
        usage.pids.current = text(dir, "cgroup.threads")?.lines().count() as u64;
    }
    usage.pids.limit = Some(number(dir, "pids.max")?).filter(|n| *n != u64::MAX).unwrap_or(0);
    Ok(())
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn block_io(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    for line in text(dir, "io.stat")?.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(|d| d.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (op, bytes) = match key {
                "rbytes" => ("Read", true),
                "wbytes" => ("Write", true),
                "dbytes" => ("Discard", true),
                "rios" => ("Read", false),
                "wios" => ("Write", false),
                "dios" => ("Discard", false),
                _ => continue,
            };
            let entry = BlkioEntry { major, minor, op: op.into(), value };
            match bytes {
                true => usage.blkio.io_service_bytes_recursive.push(entry),
                false => usage.blkio.io_serviced_recursive.push(entry),
            }
        }
    }
    usage.blkio.psi = psi(&text(dir, "io.pressure")?);
    Ok(())
}

fn hugetlb(dir: &Path, usage: &mut Usage) -> Result<(), CgroupError> {
    for size in page_sizes(dir, ".current") {
        let events = flat(&text(dir, &format!("hugetlb.{size}.events"))?);
        let entry = Hugetlb {
            usage: number(dir, &format!("hugetlb.{size}.current"))?,
            max: 0,
            failcnt: events.get("max").copied().unwrap_or(0),
        };
        usage.hugetlb.insert(size, entry);
    }
    Ok(())
}

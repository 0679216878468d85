//! `linux.resources.memory`.
//!
//! Version 1 counts memory+swap in one limit, version 2 swap alone. memory+swap of twice the memory is
//! what engines fill in for "no wish": there a kernel without swap accounting is no error.

use onggi_spec::oci::runtime::{LinuxMemory, LinuxResources};

use super::{Setting, Settings, Version, bad, bytes, max_or};

pub(super) fn settings(resources: &LinuxResources, version: Version) -> Settings {
    let none = LinuxMemory::default();
    let memory = resources.memory.as_ref().unwrap_or(&none);
    for (member, value) in [
        ("memory.limit", memory.limit),
        ("memory.reservation", memory.reservation),
        ("memory.swap", memory.swap),
        ("memory.kernel", memory.kernel),
        ("memory.kernelTCP", memory.kernel_tcp),
    ] {
        if value.is_some_and(|v| v < -1) {
            return Err(bad(member, value.unwrap_or_default(), "use bytes, or -1 for unlimited"));
        }
    }
    match version {
        Version::V1 => v1(memory),
        Version::V2 => v2(memory),
    }
}

fn v1(m: &LinuxMemory) -> Settings {
    let set = |file: &str, value: i64, what: String| Setting::new("memory", file, value, what);
    let mut out = Vec::new();
    if let Some(limit) = limit(m) {
        // Above the old memory+swap limit it is refused until that one is raised; below it, it has to go first.
        out.push(set("memory.limit_in_bytes", limit, format!("memory limit of {}", bytes(limit))).again());
    }
    if let Some(swap) = memory_and_swap(m)? {
        let s = set("memory.memsw.limit_in_bytes", swap, format!("memory+swap limit of {}", bytes(swap)));
        out.push(if swap_is_default(m) { s.wished() } else { s });
    }
    if let Some(soft) = m.reservation.filter(|v| *v != 0) {
        out.push(set("memory.soft_limit_in_bytes", soft, format!("memory reservation of {}", bytes(soft))));
    }
    if let Some(kernel) = m.kernel.filter(|v| *v != 0) {
        // Withdrawn by the kernel in 5.16; the memory limit counts kernel memory too.
        out.push(set("memory.kmem.limit_in_bytes", kernel, "kernel memory limit".into()).wished());
    }
    if let Some(tcp) = m.kernel_tcp.filter(|v| *v != 0) {
        out.push(set("memory.kmem.tcp.limit_in_bytes", tcp, format!("TCP buffer limit of {}", bytes(tcp))));
    }
    if let Some(swappiness) = m.swappiness {
        if swappiness > 100 {
            return Err(bad("memory.swappiness", swappiness, "use 0 to 100"));
        }
        out.push(Setting::new("memory", "memory.swappiness", swappiness, format!("swappiness {swappiness}")));
    }
    if m.use_hierarchy == Some(true) {
        // Always on since 5.11.
        out.push(set("memory.use_hierarchy", 1, "hierarchical accounting".into()).bonus());
    }
    if m.disable_oom_killer == Some(true) {
        out.push(set("memory.oom_control", 1, "disabled OOM killer".into()));
    }
    Ok(out)
}

fn v2(m: &LinuxMemory) -> Settings {
    let set = |file: &str, value: String, what: String| Setting::new("memory", file, value, what);
    let asked = [
        (m.disable_oom_killer == Some(true), "a disabled OOM killer"),
        (m.swappiness.is_some(), "swappiness"),
        (m.kernel.is_some_and(|v| v > 0), "a limit of kernel memory"),
        (m.kernel_tcp.is_some_and(|v| v > 0), "a limit of TCP buffers"),
    ];
    let ignored = asked.iter().filter(|(asked, _)| *asked).map(|(_, what)| Setting::ignored(Version::V2, what));
    let mut out: Vec<Setting> = ignored.collect();
    if let Some(limit) = limit(m) {
        out.push(set("memory.max", max_or(limit), format!("memory limit of {}", bytes(limit))));
    }
    if let Some(swap) = swap_only(m)? {
        let s = set("memory.swap.max", max_or(swap), format!("swap limit of {}", bytes(swap)));
        out.push(if swap_is_default(m) || swap == 0 { s.wished() } else { s });
    }
    if let Some(low) = m.reservation.filter(|v| *v != 0) {
        out.push(set("memory.low", max_or(low), format!("memory reservation of {}", bytes(low))));
    }
    Ok(out)
}

/// 0 means "not set", as runc reads it.
fn limit(m: &LinuxMemory) -> Option<i64> {
    m.limit.filter(|v| *v != 0)
}

/// The limit of memory and swap together; unlimited memory implies unlimited swap.
fn memory_and_swap(m: &LinuxMemory) -> Result<Option<i64>, crate::CgroupError> {
    match (limit(m), m.swap.filter(|v| *v != 0)) {
        (Some(-1), None) => Ok(Some(-1)),
        (Some(limit), Some(swap)) if swap > 0 && (limit == -1 || swap < limit) => {
            Err(bad("memory.swap", swap, "memory+swap limit should be >= memory limit"))
        }
        (_, swap) => Ok(swap),
    }
}

/// The same on version 2's scale: swap without the memory.
pub(crate) fn swap_only(m: &LinuxMemory) -> Result<Option<i64>, crate::CgroupError> {
    match (limit(m), memory_and_swap(m)?) {
        (_, Some(-1)) => Ok(Some(-1)),
        (None, Some(swap)) => Err(bad("memory.swap", swap, "unable to set swap limit without memory limit")),
        (Some(limit), Some(swap)) => Ok(Some(swap - limit)),
        // Nothing that it could be a part of: no swap at all, as crun reads it.
        (None, None) if m.swap == Some(0) => Ok(Some(0)),
        (_, None) => Ok(None),
    }
}

fn swap_is_default(m: &LinuxMemory) -> bool {
    m.swap.is_none() || m.swap == Some(-1) || limit(m).and_then(|l| l.checked_mul(2)) == m.swap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_swap_at_all_can_be_asked_for_without_a_limit_of_memory() {
        let swap = |limit, swap| swap_only(&LinuxMemory { limit, swap, ..LinuxMemory::default() }).ok().flatten();
        assert_eq!(swap(None, Some(0)), Some(0));
        assert_eq!([swap(Some(4096), Some(0)), swap(None, None), swap(Some(4096), None)], [None; 3]);
        assert_eq!((swap(Some(4096), Some(4096)), swap(Some(-1), Some(0))), (Some(0), Some(-1)));
    }
}

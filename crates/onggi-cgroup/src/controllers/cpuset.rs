//! The CPU and memory node lists of `linux.resources.cpu`; the same files in both versions.

use onggi_spec::oci::runtime::LinuxResources;

use super::{Setting, Settings, Version, bad};

/// Longest list: 8192 CPUs (the kernel's limit) one by one.
const MAX_LIST: usize = 64 * 1024;

pub(super) fn settings(resources: &LinuxResources, _version: Version) -> Settings {
    let Some(cpu) = &resources.cpu else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for (member, file, list, noun) in
        [("cpu.cpus", "cpuset.cpus", &cpu.cpus, "CPUs"), ("cpu.mems", "cpuset.mems", &cpu.mems, "memory nodes")]
    {
        let Some(list) = list.as_deref().filter(|l| !l.is_empty()) else { continue };
        let allowed = |b: u8| b.is_ascii_digit() || matches!(b, b',' | b'-' | b':' | b'/');
        if list.len() > MAX_LIST || !list.bytes().all(allowed) {
            return Err(bad(member, list, "use a list such as 0-3,7"));
        }
        out.push(Setting::new("cpuset", file, list, format!("binding to {noun} {list}")));
    }
    Ok(out)
}

//! `linux.resources.unified`: version 2 files by name. Only limits: the files that move, kill or freeze
//! processes belong to the runtime.

use onggi_spec::oci::runtime::LinuxResources;

use super::{Setting, Settings, Version, bad};
use crate::CgroupError;

/// Core files that are limits.
const CORE_LIMITS: [&str; 3] = ["cgroup.max.descendants", "cgroup.max.depth", "cgroup.pressure"];

pub(super) fn settings(resources: &LinuxResources, version: Version) -> Settings {
    let mut out = Vec::new();
    for (file, value) in &resources.unified {
        if version == Version::V1 {
            return Err(CgroupError::Unified { file: cut(file) });
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let controller = match file.split_once('.') {
            Some((controller, rest)) if !controller.is_empty() && !rest.is_empty() => controller,
            _ => return Err(CgroupError::UnifiedKey { key: cut(file) }),
        };
        if file.len() > 128 || !file.bytes().all(plain) {
            return Err(CgroupError::UnifiedKey { key: cut(file) });
        }
        if controller == "cgroup" && !CORE_LIMITS.contains(&file.as_str()) {
            return Err(bad("unified", file, "only the limits among the cgroup.* files can be set"));
        }
        // Keyed files (io.max, rdma.max) take one line per write.
        for line in value.lines().map(str::trim).filter(|line| !line.is_empty()) {
            out.push(Setting::new(controller, file.as_str(), line, format!("value of {file}")));
        }
    }
    Ok(out)
}

/// A name in a message.
fn cut(name: &str) -> String {
    name.chars().take(128).collect()
}

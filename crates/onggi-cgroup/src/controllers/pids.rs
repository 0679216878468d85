//! `linux.resources.pids`; the same file in both versions.

use onggi_spec::oci::runtime::LinuxResources;

use super::{Setting, Settings, Version};

pub(super) fn settings(resources: &LinuxResources, _version: Version) -> Settings {
    let limit = resources.pids.as_ref().and_then(|p| p.limit);
    Ok(match limit {
        None => Vec::new(),
        Some(n) if n > 0 => vec![Setting::new("pids", "pids.max", n, format!("limit of {n} processes"))],
        // runtime-spec 1.3: 0 is a limit. systemd knows no 0, and 1 is the same to a container.
        Some(0) => vec![Setting::new("pids", "pids.max", 1, "limit of 0 processes")],
        // Unlimited, which is how a new group begins: no controller is needed for that.
        Some(_) => vec![Setting::new("pids", "pids.max", "max", "unlimited processes").bonus()],
    })
}

//! `linux.resources.network`: net_cls and net_prio, which only version 1 has.

use onggi_spec::oci::runtime::LinuxResources;

use super::{Setting, Settings, Version, bad};

pub(super) fn settings(resources: &LinuxResources, version: Version) -> Settings {
    let Some(network) = &resources.network else { return Ok(Vec::new()) };
    let class = network.class_id.filter(|class| *class != 0);
    if version == Version::V2 && (class.is_some() || !network.priorities.is_empty()) {
        return Ok(vec![Setting::ignored(version, "a network class or priority")]);
    }
    let mut out = Vec::new();
    if let Some(class) = class {
        out.push(Setting::new("net_cls", "net_cls.classid", class, format!("network class {class:#x}")));
    }
    for p in &network.priorities {
        // IFNAMSIZ is 16 with the terminating zero.
        if !(1..=15).contains(&p.name.len()) || p.name.bytes().any(|b| b <= b' ' || b == b'/') {
            return Err(bad("network.priorities.name", &p.name, "use the name of an interface"));
        }
        let value = format!("{} {}", p.name, p.priority);
        out.push(Setting::new("net_prio", "net_prio.ifpriomap", value, format!("network priority on {}", p.name)));
    }
    Ok(out)
}

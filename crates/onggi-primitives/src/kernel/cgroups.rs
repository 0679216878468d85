//! Control groups of a process: what is used of which limit, in the kernel's own words.

use std::{fs, path::Path};

use serde::Serialize;

use crate::namespaces::unescape;

/// A group of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupView {
    /// `memory`, `cpu,cpuacct`; `unified` for version 2.
    pub controllers: String,
    /// Its directory here; empty when the hierarchy is not mounted.
    pub path: String,
    /// What is in it.
    pub values: Vec<CgroupValue>,
}

/// A value and its limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupValue {
    /// What it is.
    pub name: &'static str,
    /// The file with the usage, and what it says.
    pub usage: Option<(String, String)>,
    /// The file with the limit, and what it says.
    pub limit: Option<(String, String)>,
}

/// Controller (empty: version 2), name, file of the usage, file of the limit. A colon picks a line.
const VALUES: [(&str, &str, &str, &str); 23] = [
    ("", "memory", "memory.current", "memory.max"),
    ("", "memory, throttled above", "", "memory.high"),
    ("", "memory, highest", "memory.peak", ""),
    ("", "swap", "memory.swap.current", "memory.swap.max"),
    ("", "OOM kills", "memory.events:oom_kill", ""),
    ("", "tasks", "pids.current", "pids.max"),
    ("", "refused forks", "pids.events:max", ""),
    ("", "CPU time, us", "cpu.stat:usage_usec", "cpu.max"),
    ("", "CPU throttled, us", "cpu.stat:throttled_usec", ""),
    ("", "CPU share", "", "cpu.weight"),
    ("", "CPUs", "cpuset.cpus.effective", "cpuset.cpus"),
    ("", "frozen", "cgroup.events:frozen", "cgroup.freeze"),
    ("memory", "memory", "memory.usage_in_bytes", "memory.limit_in_bytes"),
    ("memory", "memory, highest", "memory.max_usage_in_bytes", ""),
    ("memory", "memory and swap", "memory.memsw.usage_in_bytes", "memory.memsw.limit_in_bytes"),
    ("memory", "OOM kills", "memory.oom_control:oom_kill", ""),
    ("pids", "tasks", "pids.current", "pids.max"),
    ("pids", "refused forks", "pids.events:max", ""),
    ("cpu", "CPU quota, us per period", "cpu.stat:nr_throttled", "cpu.cfs_quota_us"),
    ("cpu", "CPU share", "", "cpu.shares"),
    ("cpuacct", "CPU time, ns", "cpuacct.usage", ""),
    ("cpuset", "CPUs", "cpuset.effective_cpus", "cpuset.cpus"),
    ("freezer", "frozen", "freezer.state", ""),
];

/// The groups of `/proc/PID/cgroup`, found by the caller's mounts.
pub(super) fn view(groups: &str, mountinfo: &str) -> Vec<CgroupView> {
    groups.lines().filter_map(|line| one(line, mountinfo)).collect()
}

fn one(line: &str, mountinfo: &str) -> Option<CgroupView> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, group) = (parts.next()?, parts.next()?);
    let mount = mountinfo.lines().find_map(|mount| mount_of(mount, controllers));
    let path = mount.map_or_else(String::new, |mount| format!("{mount}{}", if group == "/" { "" } else { group }));
    let own: Vec<&str> = controllers.split(',').collect();
    let rows = VALUES.iter().filter(|(controller, ..)| own.contains(controller));
    let values = rows.filter_map(|(_, name, usage, limit)| value(&path, name, usage, limit)).collect();
    let controllers = if controllers.is_empty() { "unified" } else { controllers };
    Some(CgroupView { controllers: controllers.to_owned(), path, values })
}

/// The mount point of the hierarchy with these controllers.
fn mount_of(line: &str, controllers: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    let point = unescape(left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    let (fstype, options) = (right.next()?, right.nth(1).unwrap_or_default());
    let fits = match controllers {
        "" => fstype == "cgroup2",
        list => fstype == "cgroup" && list.split(',').all(|c| options.split(',').any(|o| o == c)),
    };
    fits.then_some(point)
}

fn value(path: &str, name: &'static str, usage: &str, limit: &str) -> Option<CgroupValue> {
    let read = |file: &str| {
        let (name, key) = file.split_once(':').unwrap_or((file, ""));
        let text = fs::read_to_string(Path::new(path).join(name)).ok().filter(|_| !file.is_empty())?;
        let said = match key {
            "" => text.trim(),
            key => text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '))?.trim(),
        };
        Some((name.to_owned(), said.to_owned()))
    };
    let (usage, limit) = (read(usage), read(limit));
    (usage.is_some() || limit.is_some()).then_some(CgroupValue { name, usage, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_the_mounts_of_their_hierarchies() {
        let mounts = "32 31 0:29 / /cg/cpu\\040x rw - cgroup cgroup rw,cpu,cpuacct\n\
                      41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n";
        let found = view("3:cpu,cpuacct:/a\n2:memory:/b\n0::/\n", mounts);
        let paths: Vec<(&str, &str)> = found.iter().map(|v| (v.controllers.as_str(), v.path.as_str())).collect();
        assert_eq!(paths, [("cpu,cpuacct", "/cg/cpu x/a"), ("memory", ""), ("unified", "/cg/unified")]);
    }
}

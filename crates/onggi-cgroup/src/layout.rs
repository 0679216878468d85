//! Which cgroup hierarchies this machine has, and where we are in them.
//!
//! Read once per command from /proc/self/mountinfo, /proc/self/cgroup and `cgroup.controllers`.

use std::{fs, path::Path};

use onggi_spec::facts::{CgroupLayout, V1Hierarchy};

use crate::CgroupError;

/// Reads the layout of this machine, as this process sees it.
pub fn detect() -> Result<CgroupLayout, CgroupError> {
    let read = |path: &str| fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.into(), source });
    let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
    let mut layout = parse(&mounts, &own);
    if let CgroupLayout::V2 { mount, controllers, .. } = &mut layout {
        let path = Path::new(mount).join("cgroup.controllers");
        let text = fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
        *controllers = text.split_ascii_whitespace().map(str::to_owned).collect();
    }
    Ok(layout)
}

/// The layout that mountinfo (proc_pid_mountinfo(5)) and a cgroup file (cgroups(7)) describe.
/// The controllers of a version 2 layout are left empty: they are in a third file.
pub fn parse(mountinfo: &str, own: &str) -> CgroupLayout {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
    let unified = mounts.iter().find(|m| m.fstype == "cgroup2").map(|m| m.point.clone());
    let hierarchies = v1(&mounts, own);
    match (hierarchies.is_empty(), unified) {
        (false, unified) => CgroupLayout::V1 { hierarchies, unified },
        (true, Some(mount)) => {
            let own = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/");
            CgroupLayout::V2 { mount, controllers: Vec::new(), own: own.to_owned() }
        }
        (true, None) => CgroupLayout::None,
    }
}

/// One hierarchy per version 1 line of the cgroup file that is mounted somewhere.
fn v1(mounts: &[Mount], own: &str) -> Vec<V1Hierarchy> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let controllers: Vec<String> = controllers.split(',').map(str::to_owned).collect();
        let has = |m: &&Mount| m.fstype == "cgroup" && controllers.iter().all(|c| m.has_option(c));
        if let Some(mount) = mounts.iter().find(has) {
            let mount = mount.point.clone();
            found.push(V1Hierarchy { controllers, mount, own: path.to_owned() });
        }
    }
    found.sort_by(|a, b| a.mount.cmp(&b.mount));
    found
}

/// What a mountinfo line says of a mount.
struct Mount {
    point: String,
    fstype: String,
    super_options: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        Some(Self {
            point: unescape(before.split(' ').nth(4)?),
            fstype: after.next()?.to_owned(),
            super_options: after.nth(1)?.to_owned(),
        })
    }

    fn has_option(&self, option: &str) -> bool {
        self.super_options.split(',').any(|o| o == option)
    }
}

/// Octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_machine_has_v1_hierarchies_and_a_unified_one() {
        let own = "4:perf_event:/\n3:name=systemd:/init\n2:memory:/a\n1:cpu,cpuacct:/\n0::/init\n";
        let CgroupLayout::V1 { hierarchies, unified } = parse(HYBRID, own) else { panic!("not v1") };
        assert_eq!(unified.as_deref(), Some("/sys/fs/cgroup/unified"));
        let seen: Vec<_> = hierarchies.iter().map(|h| (h.controllers.join(","), h.own.as_str())).collect();
        // perf_event is not mounted.
        assert_eq!(seen, [("cpu,cpuacct".into(), "/"), ("memory".into(), "/a"), ("name=systemd".into(), "/init")]);
    }

    #[test]
    fn a_pure_v2_machine_has_one_mount_and_our_own_group() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let want =
            CgroupLayout::V2 { mount: "/sys/fs/cgroup".into(), controllers: vec![], own: "/user.slice/a:b".into() };
        assert_eq!(parse(mounts, "0::/user.slice/a:b\n"), want);
    }

    #[test]
    fn a_machine_without_cgroups_has_none() {
        assert_eq!(parse("1 2 0:3 / / rw - ext4 /dev/sda rw\n", "0::/\n"), CgroupLayout::None);
        assert_eq!(parse("", ""), CgroupLayout::None);
        assert_eq!(parse("rubbish - \n - - -", ":::\n:"), CgroupLayout::None);
    }

    #[test]
    fn mount_points_with_spaces_are_unescaped() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\04"), r"/a\04");
    }

    #[test]
    fn this_machine_is_recognised() {
        detect().expect("read /proc");
    }
}

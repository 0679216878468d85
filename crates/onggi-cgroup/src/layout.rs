//! Which cgroup hierarchies this machine has, and where we are in them.
//!
//! Read once per command from /proc/self/cgroup, statfs(2) or /proc/self/mountinfo, `cgroup.controllers`.

use std::path::Path;

use onggi_spec::facts::{CgroupLayout, V1Hierarchy};

use crate::CgroupError;

/// Where distributions mount cgroup filesystems.
const USUAL: &str = "/sys/fs/cgroup";

/// Magic numbers of statfs(2).
const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// Reads the layout of this machine, as this process sees it.
///
/// mountinfo is read only when the filesystems are not at their usual places: its price grows with the
/// number of mounts on the machine.
pub fn detect() -> Result<CgroupLayout, CgroupError> {
    let own = read("/proc/self/cgroup")?;
    let mut layout = match usual(&own) {
        Some(layout) => layout,
        None => parse(&read("/proc/self/mountinfo")?, &own),
    };
    if !is_visible(&layout) {
        show(&mut layout, &read("/proc/self/mountinfo")?);
    }
    if let CgroupLayout::V2 { mount, controllers, .. } = &mut layout {
        let text = read(&format!("{mount}/cgroup.controllers"))?;
        *controllers = text.split_ascii_whitespace().map(str::to_owned).collect();
    }
    Ok(layout)
}

fn read(path: &str) -> Result<String, CgroupError> {
    onggi_sys::small_file::read_text(Path::new(path)).map_err(|source| CgroupError::Read { path: path.into(), source })
}

/// Our own groups are below the mounts. In a container without a cgroup namespace they are not: the paths are the host's,
/// the mounts show the container's group alone. One stands for all.
fn is_visible(layout: &CgroupLayout) -> bool {
    let exists = |mount: &str, own: &str| own == "/" || Path::new(&format!("{mount}{own}")).exists();
    match layout {
        CgroupLayout::V1 { hierarchies, .. } => {
            hierarchies.iter().find(|h| h.own != "/").is_none_or(|h| exists(&h.mount, &h.own))
        }
        CgroupLayout::V2 { mount, own, .. } => exists(mount, own),
        CgroupLayout::None => true,
    }
}

/// Makes our own groups relative to what the mounts show of their hierarchies.
fn show(layout: &mut CgroupLayout, mountinfo: &str) {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
    let relative = |mount: &str, own: &mut String| {
        // The last one of a place covers the others.
        let Some(shown) = mounts.iter().rfind(|m| m.point == mount) else { return };
        let rest = own.strip_prefix(shown.root.trim_end_matches('/'));
        if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            *own = if rest.is_empty() { "/".to_owned() } else { rest.to_owned() };
        }
    };
    match layout {
        CgroupLayout::V1 { hierarchies, .. } => hierarchies.iter_mut().for_each(|h| relative(&h.mount, &mut h.own)),
        CgroupLayout::V2 { mount, own, .. } => relative(mount, own),
        CgroupLayout::None => {}
    }
}

/// The layout, if every hierarchy that we are in is mounted at its usual place.
fn usual(own: &str) -> Option<CgroupLayout> {
    if magic(USUAL) == Some(CGROUP2_SUPER_MAGIC) {
        return Some(v2(USUAL.to_owned(), own));
    }
    let mut hierarchies = Vec::new();
    for (controllers, path) in v1_lines(own) {
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        let mount = format!("{USUAL}/{name}");
        if magic(&mount) != Some(CGROUP_SUPER_MAGIC) {
            return None;
        }
        hierarchies.push(hierarchy(controllers, mount, path));
    }
    let unified = format!("{USUAL}/unified");
    let unified = (magic(&unified) == Some(CGROUP2_SUPER_MAGIC)).then_some(unified);
    (!hierarchies.is_empty()).then(|| CgroupLayout::V1 { hierarchies: sorted(hierarchies), unified })
}

/// The type of the filesystem that is mounted at `path`.
fn magic(path: &str) -> Option<i64> {
    rustix::fs::statfs(path).ok().map(|s| s.f_type)
}

/// The layout that mountinfo (proc_pid_mountinfo(5)) and a cgroup file (cgroups(7)) describe.
/// The controllers of a version 2 layout are left empty: they are in a third file.
pub fn parse(mountinfo: &str, own: &str) -> CgroupLayout {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
    let unified = mounts.iter().find(|m| m.fstype == "cgroup2").map(|m| m.point.clone());
    let hierarchies = v1(&mounts, own);
    match (hierarchies.is_empty(), unified) {
        (false, unified) => CgroupLayout::V1 { hierarchies, unified },
        (true, Some(mount)) => v2(mount, own),
        (true, None) => CgroupLayout::None,
    }
}

fn v2(mount: String, own: &str) -> CgroupLayout {
    let own = own.lines().find_map(|l| l.strip_prefix("0::")).filter(|own| !own.is_empty()).unwrap_or("/");
    CgroupLayout::V2 { mount, controllers: Vec::new(), own: own.to_owned() }
}

/// One hierarchy per version 1 line of the cgroup file that is mounted somewhere.
fn v1(mounts: &[Mount], own: &str) -> Vec<V1Hierarchy> {
    let mounted = |(controllers, path): (&str, &str)| {
        let has = |m: &&Mount| m.fstype == "cgroup" && controllers.split(',').all(|c| m.has_option(c));
        let mount = mounts.iter().find(has)?.point.clone();
        Some(hierarchy(controllers, mount, path))
    };
    sorted(v1_lines(own).filter_map(mounted).collect())
}

/// Controllers and path of every version 1 line: `4:memory:/a`.
fn v1_lines(own: &str) -> impl Iterator<Item = (&str, &str)> {
    own.lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .filter(|(controllers, _)| !controllers.is_empty())
}

fn hierarchy(controllers: &str, mount: String, own: &str) -> V1Hierarchy {
    V1Hierarchy { controllers: controllers.split(',').map(str::to_owned).collect(), mount, own: own.to_owned() }
}

fn sorted(mut hierarchies: Vec<V1Hierarchy>) -> Vec<V1Hierarchy> {
    hierarchies.sort_by(|a, b| a.mount.cmp(&b.mount));
    hierarchies
}

/// What a mountinfo line says of a mount.
struct Mount {
    /// What of the filesystem is mounted.
    root: String,
    point: String,
    fstype: String,
    super_options: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        Some(Self {
            root: unescape(before.split(' ').nth(3)?),
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
    fn in_a_container_without_a_cgroup_namespace_our_groups_are_relative_to_what_is_mounted() {
        let mounts = "\
31 30 0:27 /docker/a /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu
32 30 0:28 /docker/a /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
33 30 0:29 /docker /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
";
        let mut layout = parse(mounts, "3:pids:/docker/a\n2:memory:/docker/a/b\n1:cpu:/docker/a\n");
        assert!(!is_visible(&layout));
        show(&mut layout, mounts);
        let CgroupLayout::V1 { hierarchies, .. } = &layout else { panic!("not v1") };
        let seen: Vec<_> = hierarchies.iter().map(|h| h.own.as_str()).collect();
        assert_eq!(seen, ["/", "/b", "/a"]);
        let mut other = parse("1 2 0:1 /docker/ab /none rw - cgroup2 cgroup2 rw\n", "0::/docker/abc\n");
        let before = other.clone();
        show(&mut other, "1 2 0:1 /docker/ab /none rw - cgroup2 cgroup2 rw\n");
        assert_eq!(other, before, "a neighbour whose name begins alike");
        show(&mut other, "1 2 0:1 /docker/abc /none rw - cgroup2 cgroup2 rw\n");
        assert_eq!(other, CgroupLayout::V2 { mount: "/none".into(), controllers: vec![], own: "/".into() });
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

    proptest::proptest! {
        #[test]
        fn files_of_any_content_never_panic(mounts in "([a-z0-9:/ ,=\\\\-]{0,20} - )?[a-z0-9:/ ,=\n-]{0,60}", own in "[a-z0-9:/,=\n]{0,60}") {
            parse(&mounts, &own);
        }
    }

    #[test]
    fn the_usual_places_and_mountinfo_tell_the_same_of_this_machine() {
        let own = read("/proc/self/cgroup").expect("read");
        let from_mounts = parse(&read("/proc/self/mountinfo").expect("read"), &own);
        if let Some(layout) = usual(&own) {
            assert_eq!(layout, from_mounts);
        }
        detect().expect("read");
    }
}

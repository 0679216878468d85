//! What is left of the machine's cgroups for a user without privilege.
//!
//! systemd gives a user's session a subtree of version 2 (`Delegate=yes`); an administrator may have given
//! away any directory. Looked at before planning, so that a plan holds only what can be done. The kernel has
//! the last word: nothing here grants anything.

use std::path::{Path, PathBuf};

use onggi_spec::facts::CgroupLayout;
use rustix::fs::{Access, AtFlags, CWD};

use crate::{CgroupError, plan::Location};

/// The layout without what the caller may not use for `cgroups_path`.
///
/// # Errors
/// The path is not one.
pub fn permitted(layout: CgroupLayout, cgroups_path: &str) -> Result<CgroupLayout, CgroupError> {
    let location = Location::parse(cgroups_path)?;
    Ok(match layout {
        CgroupLayout::None => CgroupLayout::None,
        CgroupLayout::V2 { mount, controllers, own } => {
            let levels = location.levels_v2(&mount, &own);
            let enters = || may_move(Path::new(&mount), &own, levels.last().map_or(Path::new("/"), PathBuf::as_path));
            if may_make(Path::new(&mount), &levels) && enters() {
                CgroupLayout::V2 { mount, controllers, own }
            } else {
                CgroupLayout::None
            }
        }
        CgroupLayout::V1 { mut hierarchies, unified } => {
            hierarchies.retain(|h| may_make(Path::new(&h.mount), &location.levels(&h.mount, &h.own)));
            let unified = unified.filter(|mount| may_make(Path::new(mount), &location.levels(mount, "/")));
            match hierarchies.is_empty() {
                true => CgroupLayout::None,
                false => CgroupLayout::V1 { hierarchies, unified },
            }
        }
    })
}

/// The layout without hierarchies in which the caller's own group cannot be seen.
pub fn visible(layout: CgroupLayout) -> CgroupLayout {
    let seen = |mount: &str, own: &str| Path::new(mount).join(own.trim_start_matches('/')).is_dir();
    match layout {
        CgroupLayout::V2 { mount, own, .. } if !seen(&mount, &own) => CgroupLayout::None,
        CgroupLayout::V1 { mut hierarchies, unified } => {
            hierarchies.retain(|h| seen(&h.mount, &h.own));
            CgroupLayout::V1 { hierarchies, unified }
        }
        layout => layout,
    }
}

fn writable(path: &Path) -> bool {
    rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// The first missing directory can be made, or the last one entered.
fn may_make(mount: &Path, levels: &[PathBuf]) -> bool {
    let existing = levels.iter().take_while(|level| level.is_dir()).count();
    match existing.checked_sub(1) {
        Some(last) if existing == levels.len() => writable(&levels[last].join("cgroup.procs")),
        Some(last) => writable(&levels[last]),
        None => {
            levels.first().and_then(|first| first.parent()).is_some_and(|dir| dir.starts_with(mount) && writable(dir))
        }
    }
}

/// Version 2 asks for the right to write to the `cgroup.procs` of the common ancestor of both groups.
fn may_move(mount: &Path, own: &str, leaf: &Path) -> bool {
    let from = mount.join(own.trim_start_matches('/'));
    let common = from.ancestors().find(|a| leaf.starts_with(a)).unwrap_or(mount);
    common.starts_with(mount) && writable(&common.join("cgroup.procs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(mount: &Path, own: &str) -> CgroupLayout {
        CgroupLayout::V2 { mount: mount.display().to_string(), controllers: Vec::new(), own: own.into() }
    }

    #[test]
    fn a_subtree_that_was_given_away_can_be_used_and_nothing_else() {
        let dir = tempfile::tempdir().expect("tempdir");
        let given = dir.path().join("user/service");
        std::fs::create_dir_all(given.join("me")).expect("mkdir");
        std::fs::write(given.join("cgroup.procs"), "").expect("write");
        let here = permitted(v2(dir.path(), "/user/service/me"), "box").expect("path");
        assert!(matches!(here, CgroupLayout::V2 { .. }));
        // The common ancestor is the root, which has no cgroup.procs of ours.
        let elsewhere = permitted(v2(dir.path(), "/user/service/me"), "/box").expect("path");
        assert_eq!(elsewhere, CgroupLayout::None);
        let missing = permitted(v2(Path::new("/nonexistent"), "/"), "/box").expect("path");
        assert_eq!(missing, CgroupLayout::None);
    }
}

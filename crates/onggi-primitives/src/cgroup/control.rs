//! Signals to a group, and its freezer.
//!
//! On a hybrid host a group of one name may be in several hierarchies with different processes in each: what is meant
//! are all of them.

use std::collections::BTreeSet;

use super::{Group, GroupError, GroupPlan, Op, Place};

/// Plans a signal to every process of a group, by the directory that sees them best.
///
/// # Errors
/// The group is the root of its hierarchy, so every process of the machine is in it or below it.
pub fn plan_kill(group: &Group, places: &[Place], signal: i32) -> Result<GroupPlan, GroupError> {
    if group.path.is_empty() {
        return Err(GroupError::Everything(group.to_string()));
    }
    let signal = |place: &Place| Op::Signal { dir: place.dir.clone(), signal };
    Ok(GroupPlan { ops: places.iter().map(signal).collect(), notes: Vec::new() })
}

/// Plans the freezer of a group. To stop it, in the `places` that [`covering`] names; to let it run, wherever there is a
/// freezer.
///
/// # Errors
/// The group is in no hierarchy with a freezer.
pub fn freezer_plan(group: &Group, places: &[Place], frozen: bool) -> Result<GroupPlan, GroupError> {
    if group.path.is_empty() {
        return Err(GroupError::Root(group.to_string()));
    }
    let op = |place: &Place| {
        let dir = place.dir.clone();
        let file = if place.controllers.is_empty() { "cgroup.freeze" } else { "freezer.state" };
        if frozen { Op::Freeze { dir, file } } else { Op::Thaw { dir, file } }
    };
    let ops: Vec<Op> = places.iter().filter(|place| freezes(place)).map(op).collect();
    if ops.is_empty() {
        return Err(GroupError::NotIn {
            key: "freeze".into(),
            controller: "freezer".into(),
            group: group.path.clone(),
        });
    }
    Ok(GroupPlan { ops, notes: Vec::new() })
}

/// True for version 2, which always has a freezer, and for version 1's of that name.
pub fn freezes(place: &Place) -> bool {
    place.controllers.is_empty() || place.controllers.iter().any(|c| c == "freezer")
}

/// Those of the places in which, together, every process of the group and of groups below it is: version 2's first,
/// because what it stops can still be killed, then each in which there are more. The first alone when there are none.
///
/// # Errors
/// The members of one cannot be read.
pub fn covering(mut places: Vec<Place>) -> Result<Vec<Place>, GroupError> {
    places.sort_by_key(|place| !place.controllers.is_empty());
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for place in &places {
        let mut members = onggi_cgroup::members(&place.dir)?;
        if !members.is_subset(&seen) {
            seen.append(&mut members);
            out.push(place.clone());
        }
    }
    places.truncate(1);
    Ok(if out.is_empty() { places } else { out })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn place(root: &Path, controllers: &[&str], name: &str, procs: &str) -> Place {
        let dir = root.join(name);
        fs::create_dir(&dir).expect("a directory");
        fs::write(dir.join("cgroup.procs"), procs).expect("its members");
        Place { controllers: controllers.iter().map(|c| (*c).to_owned()).collect(), mount: root.to_owned(), dir }
    }

    fn names(places: &[Place]) -> Vec<String> {
        places.iter().map(|p| p.dir.file_name().expect("a name").to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn every_process_is_covered_whichever_hierarchy_it_is_in() {
        let root = tempfile::tempdir().expect("a directory");
        let v1 = place(root.path(), &["freezer"], "v1", "7\n8\n");
        let same = place(root.path(), &["pids"], "same", "8\n");
        let v2 = place(root.path(), &[], "v2", "8\n");
        let empty = place(root.path(), &[], "empty", "");
        let covered =
            |places: &[&Place]| names(&covering(places.iter().map(|p| (*p).clone()).collect()).expect("members"));
        assert_eq!(covered(&[&v1, &same, &v2]), ["v2", "v1"]);
        assert_eq!(covered(&[&same, &v2]), ["v2"]);
        assert_eq!(covered(&[&v1, &empty]), ["v1"]);
        assert_eq!(covered(&[&empty]), ["empty"]);
        // What is below counts.
        place(&v2.dir, &[], "below", "7\n");
        assert_eq!(covered(&[&v1, &v2]), ["v2"]);
    }

    #[test]
    fn a_group_without_a_freezer_cannot_be_stopped() {
        let group: Group = "a".parse().expect("a name");
        let memory = Place { controllers: vec!["memory".into()], mount: "/m".into(), dir: "/m/a".into() };
        assert!(matches!(freezer_plan(&group, &[memory], true), Err(GroupError::NotIn { .. })));
        let v2 = Place { controllers: Vec::new(), mount: "/u".into(), dir: "/u/a".into() };
        let plan = freezer_plan(&group, &[v2], true).expect("a plan");
        assert!(matches!(&plan.ops[..], [Op::Freeze { file: "cgroup.freeze", .. }]));
        assert!(matches!(plan_kill(&Group::root(), &[], 9), Err(GroupError::Everything(_))));
    }
}

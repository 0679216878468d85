//! The layer store: what is committed is complete and right, what is not leaves nothing.

mod common;

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::{H, Tar, chain, tree};
use onggi_spec::monitor::{OverlayMount, RootFs};
use onggi_spec::{ContainerId, Digest};
use onggi_storage::{Layers, StorageError, UnpackRequest, Verdict, chain_id, chain_ids};
use sha2::{Digest as _, Sha256};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn digest(data: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(data).into())
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    w.write_all(data).unwrap();
    w.finish().unwrap()
}

fn request<'a>(blob: &'a [u8], tar: &[u8], parent: Option<&Digest>) -> UnpackRequest<&'a [u8]> {
    UnpackRequest { blob, media_type: GZIP.to_owned(), diff_id: digest(tar), parent: parent.cloned() }
}

/// Unpacks layers on top of each other; returns their ChainIDs, bottom first.
fn stack(layers: &Layers, tars: &[Vec<u8>]) -> Vec<Digest> {
    let mut ids: Vec<Digest> = Vec::new();
    for tar in tars {
        let info = layers.unpack(request(&gzip(tar), tar, ids.last())).unwrap();
        ids.push(info.chain_id);
    }
    ids
}

fn id(byte: u8) -> ContainerId {
    ContainerId::from_random([byte; 32])
}

/// The overlay of a container.
fn snapshot(root: &Path, id: &ContainerId, ids: &[Digest]) -> Result<OverlayMount, StorageError> {
    match onggi_storage::snapshot(&Layers::open(root)?, id, ids)? {
        RootFs::Overlay(mount) => Ok(mount),
        RootFs::Path => panic!("the default driver makes overlays"),
    }
}

fn leftovers(root: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(root.join("tmp")).unwrap().map(|e| e.unwrap().path()).collect()
}

#[test]
fn a_layer_is_committed_under_its_chain_id_and_found_again() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let (a, b) = (Tar::default().file("etc/a", "1").end(), Tar::default().file("etc/b", "22").end());
    let ids = stack(&layers, &[a.clone(), b.clone()]);
    assert_eq!(ids, chain_ids(&[digest(&a), digest(&b)]));
    assert_eq!(ids[1], chain_id(Some(&ids[0]), &digest(&b)));
    let info = layers.get(&ids[1]).unwrap().unwrap();
    assert_eq!((info.size, info.parent.as_ref(), &info.diff_id), (2, Some(&ids[0]), &digest(&b)));
    assert_eq!(std::fs::read(layers.diff_dir(&ids[1]).join("etc/b")).unwrap(), b"22");
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(layers.list().unwrap(), sorted);
    assert!(leftovers(root.path()).is_empty());
}

#[test]
fn the_data_root_may_be_a_link() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("real")).unwrap();
    let link = root.path().join("link");
    std::os::unix::fs::symlink("real", &link).unwrap();
    let layers = Layers::open(&link).unwrap();
    let ids = stack(&layers, &[Tar::default().file("a", "").end()]);
    assert_eq!(snapshot(&link, &id(1), &ids).unwrap().lower.len(), 1);
    layers.remove(&ids[0]).unwrap();
    assert_eq!(Layers::open(&root.path().join("real")).unwrap().list().unwrap(), []);
}

#[test]
fn nobody_else_reaches_the_setuid_files_of_images() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    stack(&layers, &[Tar::default().raw(H::new(b'0', "su").mode(0o4755), []).end()]);
    for dir in ["layers", "tmp"] {
        assert_eq!(root.path().join(dir).metadata().unwrap().mode() & 0o777, 0o700, "{dir}");
    }
}

#[test]
fn bad_layers_leave_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let good = Tar::default().file("a", [b'x'; 100_000]).end();
    let escape = Tar::default().file("../a", "x").end();
    let blob = gzip(&good);
    let wrong = UnpackRequest { diff_id: digest(b"other"), ..request(&blob, &good, None) };
    let kinds: Vec<(&str, StorageError)> = vec![
        ("says sha256", layers.unpack(wrong).unwrap_err()),
        ("stream of the layer is truncated", layers.unpack(request(&blob[..blob.len() / 2], &good, None)).unwrap_err()),
        ("contains '..'", layers.unpack(request(&gzip(&escape), &escape, None)).unwrap_err()),
        ("corrupt", layers.unpack(request(&[&blob[..], b"trailing garbage"].concat(), &good, None)).unwrap_err()),
        ("not in the store", layers.unpack(request(&blob, &good, Some(&digest(b"missing")))).unwrap_err()),
    ];
    for (reason, e) in kinds {
        assert!(chain(&e).contains(reason), "{reason}: {}", chain(&e));
        assert!(e.hint().is_some(), "{reason} has no hint");
    }
    assert_eq!(layers.list().unwrap(), []);
    assert!(leftovers(root.path()).is_empty());
    let media = UnpackRequest {
        media_type: "application/vnd.oci.image.layer.v1.tar+encrypted".into(),
        ..request(&blob, &good, None)
    };
    assert!(matches!(layers.unpack(media), Err(StorageError::MediaType { .. })));
}

#[test]
fn layers_prepared_in_any_order_are_committed_together() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let tars: Vec<Vec<u8>> = (0..4).map(|n| Tar::default().file(format!("d/f{n}"), "x").end()).collect();
    let ids = chain_ids(&tars.iter().map(|t| digest(t)).collect::<Vec<_>>());
    let prepared: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .rev()
            .map(|n| {
                let (layers, tar, parent) = (&layers, &tars[n], n.checked_sub(1).map(|p| &ids[p]));
                scope.spawn(move || layers.prepare(request(&gzip(tar), tar, parent)).unwrap())
            })
            .collect();
        threads.into_iter().rev().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(layers.list().unwrap(), []);
    let infos = layers.commit_all(prepared).unwrap();
    assert_eq!(infos.iter().map(|i| i.chain_id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(layers.list().unwrap().len(), 4);
}

#[test]
fn two_unpacks_of_one_layer_at_once_make_it_once() {
    let root = tempfile::tempdir().unwrap();
    let tar = Tar::default().file("a", vec![b'x'; 2_000_000]).end();
    let blob = gzip(&tar);
    let infos: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| Layers::open(root.path()).unwrap().unpack(request(&blob, &tar, None)).unwrap()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(infos.windows(2).all(|w| w[0] == w[1]));
    assert!(leftovers(root.path()).is_empty());
}

#[test]
fn what_a_dead_process_left_is_taken_over_or_collected() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let tar = Tar::default().file("a", "x").end();
    let half = root.path().join("tmp").join(format!("layer-{}", digest(&tar).hex()));
    std::fs::create_dir_all(half.join("diff/half")).unwrap();
    std::fs::write(half.join("layer.json"), "{").unwrap();
    let ids = stack(&layers, &[tar]);
    assert_eq!(tree(&layers.diff_dir(&ids[0])).len(), 1);

    std::fs::create_dir_all(root.path().join("tmp/layer-00/diff/x")).unwrap();
    std::fs::write(root.path().join("tmp/download-1"), "x").unwrap();
    std::fs::write(root.path().join("tmp/download-2"), "x").unwrap();
    let held = std::fs::File::open(root.path().join("tmp/download-2")).unwrap();
    held.lock().unwrap();
    assert_eq!(layers.gc().unwrap(), 2);
    assert_eq!(leftovers(root.path()), [root.path().join("tmp/download-2")]);
    drop(held);
    assert_eq!(layers.gc().unwrap(), 1);
    assert_eq!(layers.gc().unwrap(), 0);
}

#[test]
fn a_prepared_layer_that_is_dropped_disappears() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let tar = Tar::default().file("a", "x").end();
    let prepared = layers.prepare(request(&gzip(&tar), &tar, None)).unwrap();
    assert_eq!(leftovers(root.path()).len(), 1);
    // Somebody else's gc does not take it: it is locked.
    assert_eq!(layers.gc().unwrap(), 0);
    drop(prepared);
    assert!(leftovers(root.path()).is_empty());
}

#[test]
fn directories_that_a_layer_does_not_describe_look_as_below() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let base = Tar::default()
        .raw(H::new(b'5', "./").mode(0o711), [])
        .raw(H::new(b'5', "tmp").mode(0o1777), [])
        .raw(H::new(b'5', "gone").mode(0o700), [])
        .dir("a")
        .raw(H::new(b'5', "a/b").mode(0o750), [])
        .end();
    let middle = Tar::default().file(".wh.gone", "").raw(H::new(b'5', "other").mode(0o700), []).end();
    let top = Tar::default().file("tmp/x", "").file("gone/x", "").file("a/b/c", "").file("new/x", "").end();
    let ids = stack(&layers, &[base, middle, top]);
    let mode = |p: &str| layers.diff_dir(&ids[2]).join(p).metadata().unwrap().mode() & 0o7777;
    assert_eq!([mode(""), mode("tmp"), mode("gone"), mode("a/b"), mode("new")], [0o711, 0o1777, 0o755, 0o750, 0o755]);
    let time = layers.diff_dir(&ids[2]).join("tmp").metadata().unwrap().mtime();
    assert_eq!(time, 1_000_000_000);
}

#[test]
fn a_snapshot_lists_layers_topmost_first_and_is_kept_when_made_again() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let first = Tar::default().raw(H::new(b'5', "/").mode(0o751), []).file("a", "").end();
    let ids = stack(&layers, &[first, Tar::default().file("b", "").end()]);
    let mount = snapshot(root.path(), &id(1), &ids).unwrap();
    assert_eq!(mount.lower, [layers.diff_dir(&ids[1]), layers.diff_dir(&ids[0])]);
    assert_eq!(mount.upper.metadata().unwrap().mode() & 0o7777, 0o751);
    assert_eq!(mount.upper.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
    std::fs::write(mount.upper.join("kept"), "x").unwrap();
    assert_eq!(snapshot(root.path(), &id(1), &ids).unwrap(), mount);
    assert!(mount.upper.join("kept").exists());
    let missing = snapshot(root.path(), &id(2), &[digest(b"nothing")]).unwrap_err();
    assert!(matches!(missing, StorageError::MissingLayer { .. }));
    assert_eq!(snapshot(root.path(), &id(3), &[]).unwrap().lower.len(), 1);
}

#[test]
fn an_opaque_root_hides_the_layers_below() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let top = Tar::default().file(".wh..wh..opq", "").file("b", "").end();
    let ids = stack(&layers, &[Tar::default().file("a", "").end(), top]);
    assert_eq!(snapshot(root.path(), &id(1), &ids).unwrap().lower, [layers.diff_dir(&ids[1])]);
}

#[test]
fn removal_is_idempotent_never_follows_links_and_is_not_stopped_by_depth_or_modes() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("sentinel"), "x").unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let mount = snapshot(root.path(), &id(1), &[]).unwrap();
    std::os::unix::fs::symlink(outside.path(), mount.upper.join("out")).unwrap();
    let mut at = mount.upper.clone();
    for _ in 0..150 {
        at.push("d");
        std::fs::create_dir(&at).unwrap();
        std::fs::write(at.join("f"), "x").unwrap();
    }
    std::fs::set_permissions(mount.upper.join("d/d"), std::fs::Permissions::from_mode(0o000)).unwrap();
    onggi_storage::remove_snapshot(root.path(), &id(1)).unwrap();
    onggi_storage::remove_snapshot(root.path(), &id(1)).unwrap();
    onggi_storage::remove_container_dir(root.path(), &id(1)).unwrap();
    onggi_storage::remove_container_dir(root.path(), &id(1)).unwrap();
    assert!(!root.path().join("containers").join(id(1).as_str()).exists());
    assert!(outside.path().join("sentinel").exists());
    assert!(leftovers(root.path()).is_empty());
    let ids = stack(&layers, &[Tar::default().file("a", "").end()]);
    layers.remove(&ids[0]).unwrap();
    layers.remove(&ids[0]).unwrap();
    assert_eq!(layers.list().unwrap(), []);
}

#[test]
fn a_damaged_record_is_a_named_error() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let ids = stack(&layers, &[Tar::default().file("a", "").end()]);
    for text in ["", "{", "null", "{\"chain_id\":\"sha256:x\"}"] {
        std::fs::write(layers.diff_dir(&ids[0]).with_file_name("layer.json"), text).unwrap();
        assert!(matches!(layers.get(&ids[0]), Err(StorageError::LayerRecord { .. })), "{text:?}");
    }
    assert!(layers.list().unwrap().contains(&ids[0]));
}

/// The record is written from what unpacking saw; `verify` looks at every file anew.
#[test]
fn the_record_of_a_layer_says_what_its_files_are_whatever_the_archive_did_to_them() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let mut tar = Tar::default();
    tar.dir("d/").file("d/plain", "1").file("d/empty", "").sym("d/link", "plain").hard("d/second", "d/plain");
    for (name, mode) in [("d/suid", 0o4755), ("d/sgid", 0o2711), ("d/sticky", 0o1644), ("d/none", 0), ("d/all", 0o777)]
    {
        tar.raw(H::new(b'0', name).mode(mode).size(3), "abc");
    }
    tar.pax(&[("SCHILY.xattr.user.note", b"x"), ("mtime", b"1234567890.123456789")]).file("d/attribute", "2");
    tar.pax(&[("mtime", b"1234567890.987654321")]).file("d/moment", "3");
    // Replaced by something else, and the number of a removed file used again.
    tar.file("d/again", "old").file("d/again", "newer").file("d/becomes-link", "x").sym("d/becomes-link", "again");
    tar.file("d/becomes-dir", "x").dir("d/becomes-dir/").file("d/becomes-dir/inside", "y");
    tar.sym("d/becomes-file", "x").pax(&[("SCHILY.xattr.user.note", b"y")]).file("d/becomes-file", "z");
    let tar = tar.end();
    let ids = stack(&layers, std::slice::from_ref(&tar));
    assert_eq!(layers.verify(&ids[0]).unwrap(), Verdict::Sound);
    // And it is a record of these files: a changed one is found.
    std::fs::write(layers.diff_dir(&ids[0]).join("d/moment"), "4").unwrap();
    assert_eq!(layers.verify(&ids[0]).unwrap(), Verdict::Damaged(vec!["d/moment".to_owned()]));
}

/// A layer may be unpacked before the one whose directories it inherits; its record says what they are in the end.
#[test]
fn the_record_of_a_layer_has_its_directories_as_they_were_inherited() {
    let root = tempfile::tempdir().unwrap();
    let layers = Layers::open(root.path()).unwrap();
    let mut base = Tar::default();
    base.raw(H::new(b'5', "./").mode(0o711), "").raw(H::new(b'5', "tmp/").mode(0o1777), "");
    let base = base.raw(H::new(b'5', "gone/").mode(0o700), "").end();
    let mut top = Tar::default();
    // `gone` is replaced by a file after it was made for what was in it.
    top.file("tmp/deep/x", "1").file("own/y", "2").file("gone/z", "3").file("gone", "4");
    let top = top.end();
    let ids = chain_ids(&[digest(&base), digest(&top)]);
    let upper = layers.prepare(request(&gzip(&top), &top, Some(&ids[0]))).unwrap();
    let lower = layers.prepare(request(&gzip(&base), &base, None)).unwrap();
    layers.commit_all(vec![lower, upper]).unwrap();
    for id in &ids {
        assert_eq!(layers.verify(id).unwrap(), Verdict::Sound);
    }
    let diff = layers.diff_dir(&ids[1]);
    let record = std::fs::read_to_string(diff.with_file_name("layer.tree")).unwrap();
    let modes = |name: &str| -> Vec<&str> {
        let lines = record.lines().filter(|line| line.split(' ').nth(8) == Some(name));
        lines.map(|line| line.rsplitn(8, ' ').last().unwrap()).collect()
    };
    for (name, wanted) in
        [(".", "d 711"), ("tmp", "d 1777"), ("tmp/deep", "d 755"), ("own", "d 755"), ("gone", "f 644")]
    {
        assert_eq!(modes(name), [wanted], "{name}: {record}");
    }
    std::fs::set_permissions(diff.join("tmp"), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(layers.verify(&ids[1]).unwrap(), Verdict::Damaged(vec!["tmp".to_owned()]));
}

/// A directory that the archive does not describe inherits only what the layers below still show under its name.
#[test]
fn nothing_is_inherited_from_a_directory_that_is_hidden() {
    let mut base = Tar::default();
    for (name, mode) in [("a/", 0o711), ("a/b/", 0o750), ("a/b/c/", 0o1777)] {
        base.raw(H::new(b'5', name).mode(mode), "");
    }
    let base = base.end();
    let own = |first: &str, second: &str| Tar::default().file(first, "").file(second, "").end();
    let mut middle = Tar::default();
    middle.raw(H::new(b'5', "a/"), "").file("a/.wh..wh..opq", "").raw(H::new(b'5', "a/b/"), "");
    let plain = Tar::default().file("a/b/c/x", "").end();
    for (what, layers_above, wanted) in [
        ("shown", vec![plain.clone()], 0o1777),
        ("below an opaque directory", vec![own("a/b/.wh..wh..opq", "a/b/c/x")], 0o755),
        ("below a removed directory", vec![own("a/.wh.b", "a/b/c/x")], 0o755),
        ("below one that is opaque in the layer between", vec![middle.end(), plain], 0o755),
    ] {
        let root = tempfile::tempdir().unwrap();
        let layers = Layers::open(root.path()).unwrap();
        let ids = stack(&layers, &[vec![base.clone()], layers_above].concat());
        let top = layers.diff_dir(ids.last().unwrap()).join("a/b/c");
        assert_eq!(top.metadata().unwrap().mode() & 0o7777, wanted, "{what}");
        assert_eq!(layers.verify(ids.last().unwrap()).unwrap(), Verdict::Sound, "{what}");
    }
}

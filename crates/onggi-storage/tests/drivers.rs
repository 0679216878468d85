//! One contract for all storage drivers: what a container sees, what its changes are, what is left when it is gone.
//!
//! Each promise runs on overlay, on vfs, on vfs with shared extents (XFS) and on btrfs; the filesystems are files on loop
//! devices in a mount namespace of the test's own, so the kernel takes them away with the test.

mod common;

use std::io::Write as _;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{H, Tar, name, tree};
use onggi_spec::monitor::{OverlayMount, RootFs};
use onggi_spec::{ContainerId, Digest};
use onggi_storage::{DriverKind, Layers, StorageError, UnpackRequest, snapshot};
use sha2::{Digest as _, Sha256};

/// A store on a filesystem of its own.
struct Store {
    root: PathBuf,
    layers: Layers,
    kind: DriverKind,
}

fn sh(script: &str) {
    let out = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
}

/// Runs `promise` on every driver.
fn each(promise: impl Fn(&Store)) {
    // Everything mounted here goes with the thread's namespace.
    onggi_sys::ns::unshare(libc_newns()).unwrap();
    sh("mount --make-rprivate /");
    let dir = tempfile::tempdir().unwrap();
    for (at, kind, mkfs) in [
        ("overlay", DriverKind::Overlay, ""),
        ("vfs", DriverKind::Vfs, ""),
        ("vfs-on-xfs", DriverKind::Vfs, "mkfs.xfs -q"),
        ("btrfs", DriverKind::Btrfs, "mkfs.btrfs -q"),
    ] {
        let root = dir.path().join(at);
        std::fs::create_dir(&root).unwrap();
        if !mkfs.is_empty() {
            let (image, at) = (dir.path().join(format!("{at}.img")).display().to_string(), root.display());
            sh(&format!("truncate -s 400M {image}; {mkfs} {image}; mount -o loop {image} {at}"));
        }
        let layers = Layers::open_with(&root, Some(kind)).unwrap();
        let store = Store { root: root.clone(), layers, kind };
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| promise(&store))) {
            let said = panic.downcast_ref::<String>().map_or("", String::as_str);
            panic!("the promise is broken on {at}: {said}");
        }
        if !mkfs.is_empty() {
            sh(&format!("umount {}", root.display()));
        }
    }
}

/// `CLONE_NEWNS` of sched.h.
fn libc_newns() -> u64 {
    0x0002_0000
}

fn digest(data: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(data).into())
}

fn id(byte: u8) -> ContainerId {
    ContainerId::from_random([byte; 32])
}

impl Store {
    /// Unpacks layers above each other with one commit; their ChainIDs, bottom first.
    fn stack(&self, tars: &[Vec<u8>]) -> Vec<Digest> {
        let ids = onggi_storage::chain_ids(&tars.iter().map(|tar| digest(tar)).collect::<Vec<_>>());
        let prepare = |(at, tar): (usize, &Vec<u8>)| {
            let parent = at.checked_sub(1).map(|below| ids[below].clone());
            let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
            self.layers.prepare(UnpackRequest { blob: &tar[..], media_type, diff_id: digest(tar), parent }).unwrap()
        };
        let prepared = tars.iter().enumerate().map(prepare).collect();
        self.layers.commit_all(prepared).unwrap();
        ids
    }

    /// A container's root filesystem, mounted where that is needed.
    fn container(&self, number: u8, ids: &[Digest]) -> PathBuf {
        let dir = self.root.join("containers").join(id(number).as_str());
        match snapshot(&self.layers, &id(number), ids).unwrap() {
            RootFs::Path => dir.join("rootfs"),
            RootFs::Overlay(mount) => mounted(&mount, &dir.join("mounted")),
        }
    }

    fn unmount(&self, number: u8) {
        if self.kind == DriverKind::Overlay {
            sh(&format!("umount {}/containers/{}/mounted", self.root.display(), id(number)));
        }
    }

    fn changes(&self, number: u8, ids: &[Digest]) -> Vec<String> {
        let changes = onggi_storage::changes(&self.layers, &id(number), ids).unwrap();
        tree(&changes.upper).into_iter().map(|(path, words)| format!("{path} {words}")).collect()
    }
}

fn mounted(mount: &OverlayMount, at: &Path) -> PathBuf {
    let lower: Vec<String> = mount.lower.iter().map(|path| path.display().to_string()).collect();
    let (upper, work, at) = (mount.upper.display(), mount.work.display(), at.display());
    let lower = lower.join(":");
    sh(&format!("mkdir -p {at}; mount -t overlay -o lowerdir={lower},upperdir={upper},workdir={work} overlay {at}"));
    at.to_string().into()
}

#[test]
fn root_layers_stack_with_whiteouts_and_opaque_directories() {
    each(|store| {
        let ids = store.stack(&[
            Tar::default()
                .dir("d")
                .file("d/kept", "1")
                .file("d/gone", "1")
                .dir("o")
                .file("o/old", "1")
                .file("f", "1")
                .dir("becomes")
                .file("becomes/x", "1")
                .end(),
            Tar::default()
                .file("d/.wh.gone", "")
                .dir("o")
                .file("o/.wh..wh..opq", "")
                .file("o/new", "2")
                .file("becomes", "now a file")
                .end(),
            Tar::default().file("f", "3").file("d/more", "3").end(),
        ]);
        let root = store.container(1, &ids);
        let seen: Vec<_> = tree(&root).into_iter().map(|(path, words)| format!("{path} {words}")).collect();
        let opaque = if store.kind == DriverKind::Overlay { "o d! 755" } else { "o d 755" };
        let wanted = [
            "becomes f 644 now a file",
            "d d 755",
            "d/kept f 644 1",
            "d/more f 644 3",
            "f f 644 3",
            opaque,
            "o/new f 644 2",
        ];
        // overlayfs shows its own mark of the other namespace.
        assert_eq!(seen, wanted);
        // Containers of the image and of its base are apart.
        let base = store.container(2, &ids[..1]);
        assert_eq!(std::fs::read_to_string(base.join("d/gone")).unwrap(), "1");
        std::fs::write(root.join("d/kept"), "changed").unwrap();
        assert_eq!(std::fs::read_to_string(base.join("d/kept")).unwrap(), "1");
        let third = store.container(3, &ids);
        assert_eq!(std::fs::read_to_string(third.join("d/kept")).unwrap(), "1");
        for number in 1..=3 {
            store.unmount(number);
        }
    });
}

#[test]
fn root_an_opaque_root_hides_all_below() {
    each(|store| {
        let top = Tar::default().file(".wh..wh..opq", "").file("b", "").end();
        let ids = store.stack(&[Tar::default().file("a", "").end(), top]);
        let root = store.container(1, &ids);
        assert_eq!(tree(&root).into_keys().collect::<Vec<_>>(), ["b"]);
        store.unmount(1);
    });
}

/// An archive with one of everything that an image may hold.
fn everything() -> Vec<u8> {
    let capability: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let acl: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    let deep = "d/".repeat(900);
    Tar::default()
        .raw(H::new(b'0', "su").mode(0o4755).owner(12, 34), [])
        .pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.binary", b"a\0\n=\xff")])
        .file("capable", "x")
        .pax(&[("SCHILY.xattr.system.posix_acl_access", acl)])
        .file("acl", "x")
        .pax(&[("mtime", b"1234567890.987654321")])
        .file("time", "x")
        .file("first", "linked")
        .hard("second", "first")
        .sym("link", "first")
        .raw(H::new(b'3', "null").device(1, 3).mode(0o666), [])
        .raw(H::new(b'4', "disk").device(8, 1), [])
        .raw(H::new(b'6', "fifo"), [])
        .pax(&[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.size", b"8388608"),
            ("GNU.sparse.map", b"0,4,8388600,8"),
        ])
        .raw(H::new(b'0', "sparse").size(12), b"headthe tail")
        .pax(&[("path", "n".repeat(255).as_bytes())])
        .file("short", "long")
        .raw(H::new(b'5', "closed").mode(0o555), [])
        .file("closed/inside", "x")
        .pax(&[("path", format!("{deep}bottom").as_bytes())])
        .file("short", "deep")
        .end()
}

#[test]
fn root_everything_about_a_file_arrives_in_the_container() {
    each(|store| {
        let ids = store.stack(&[Tar::default().file("base", "").end(), everything()]);
        let root = store.container(1, &ids);
        let meta = |path: &str| root.join(path).symlink_metadata().unwrap();
        assert_eq!((meta("su").mode() & 0o7777, meta("su").uid(), meta("su").gid()), (0o4755, 12, 34));
        let xattr = |path: &str, key: &str| {
            let mut value = vec![0; 256];
            let n = rustix::fs::getxattr(root.join(path), key, &mut value[..]).unwrap();
            value.truncate(n);
            value
        };
        assert_eq!(xattr("capable", "security.capability")[5], 4);
        assert_eq!(xattr("capable", "user.binary"), b"a\0\n=\xff");
        assert_eq!(xattr("acl", "system.posix_acl_access").len(), 44);
        assert_eq!((meta("time").mtime(), meta("time").mtime_nsec()), (1_234_567_890, 987_654_321));
        assert_eq!(meta("first").ino(), meta("second").ino());
        assert_eq!(std::fs::read_link(root.join("link")).unwrap(), Path::new("first"));
        assert_eq!(meta("null").rdev(), rustix::fs::makedev(1, 3));
        assert_eq!(meta("disk").rdev(), rustix::fs::makedev(8, 1));
        assert_eq!(meta("sparse").len(), 8 << 20);
        assert!(meta("sparse").blocks() * 512 < 1 << 20, "the hole was filled");
        let mut tail = [0; 8];
        std::fs::File::open(root.join("sparse")).unwrap().read_exact_at(&mut tail, 8_388_600).unwrap();
        assert_eq!(&tail, b"the tail");
        assert_eq!(std::fs::read_to_string(root.join("n".repeat(255))).unwrap(), "long");
        assert_eq!(meta("closed").mode() & 0o777, 0o555);
        let deep = root.join("d/".repeat(900));
        assert_eq!(std::fs::read_to_string(deep.join("bottom")).unwrap(), "deep");
        store.unmount(1);
    });
}

#[test]
fn root_changes_are_the_smallest_layer_and_make_the_same_tree_again() {
    each(|store| {
        let base = Tar::default()
            .dir("d")
            .file("d/a", "1")
            .file("d/b", "1")
            .dir("whole")
            .file("whole/x", "1")
            .file("touched", "same")
            .file("put-back", "one")
            .file("mode", "x")
            .dir("e")
            .file("e/stays", "1")
            .end();
        let ids = store.stack(&[base]);
        let root = store.container(1, &ids);
        assert_eq!(store.changes(1, &ids), Vec::<String>::new());
        let written = || onggi_storage::written(&store.layers, &id(1), &ids).unwrap();
        assert_eq!(written(), 0, "directories and what the image has do not count");
        std::fs::write(root.join("d/a"), "2").unwrap();
        std::fs::remove_file(root.join("d/b")).unwrap();
        std::fs::remove_dir_all(root.join("whole")).unwrap();
        std::fs::create_dir_all(root.join("new/dir")).unwrap();
        std::fs::write(root.join("new/dir/file"), "n").unwrap();
        std::fs::set_permissions(root.join("mode"), std::fs::Permissions::from_mode(0o600)).unwrap();
        // Another content of the same length, and the old time again.
        let time = root.join("put-back").metadata().unwrap().modified().unwrap();
        let mut file = std::fs::File::create(root.join("put-back")).unwrap();
        file.write_all(b"two").unwrap();
        file.set_modified(time).unwrap();
        drop(file);
        let changes = store.changes(1, &ids);
        let wanted = [
            "d d 755",
            "d/a f 644 2",
            "d/b w",
            "mode f 600 x",
            "new d 755",
            "new/dir d 755",
            "new/dir/file f 644 n",
            "put-back f 644 two",
            "whole w",
        ];
        assert_eq!(changes, wanted);
        store.unmount(1);
        assert_eq!(written(), 6, "the contents of d/a, mode, new/dir/file and put-back");
    });
}

#[test]
fn root_a_container_survives_a_second_snapshot_and_is_gone_when_removed() {
    each(|store| {
        let ids = store.stack(&[everything()]);
        let root = store.container(1, &ids);
        std::fs::write(root.join("kept"), "x").unwrap();
        store.unmount(1);
        let root = store.container(1, &ids);
        assert_eq!(std::fs::read_to_string(root.join("kept")).unwrap(), "x");
        store.unmount(1);
        onggi_storage::remove_container_dir(&store.root, &id(1)).unwrap();
        onggi_storage::remove_container_dir(&store.root, &id(1)).unwrap();
        store.layers.remove(&ids[0]).unwrap();
        assert_eq!(store.layers.list().unwrap(), []);
        for dir in ["tmp", "containers", "layers"] {
            assert_eq!(std::fs::read_dir(store.root.join(dir)).unwrap().count(), 0, "{dir}");
        }
    });
}

#[test]
fn root_a_store_refuses_another_driver_and_remembers_its_own() {
    each(|store| {
        assert_eq!(std::fs::read_to_string(store.root.join("driver")).unwrap(), format!("{}\n", store.kind));
        let other = DriverKind::ALL.into_iter().find(|kind| *kind != store.kind).unwrap();
        let e = Layers::open_with(&store.root, Some(other)).unwrap_err();
        assert!(matches!(e, StorageError::OtherDriver { .. }), "{e}");
        assert!(e.to_string().contains(store.kind.name()) && e.hint().is_some());
        assert_eq!(Layers::open(&store.root).unwrap().driver().kind(), store.kind);
    });
}

#[test]
fn btrfs_elsewhere_is_refused_with_a_hint() {
    // Whatever /proc is, it is not btrfs.
    let e = onggi_storage::driver::open(Path::new("/proc/self"), Some(DriverKind::Btrfs)).unwrap_err();
    assert!(matches!(e, StorageError::NotBtrfs { .. }) && e.hint().is_some(), "{e}");
}

#[test]
fn names_of_drivers_are_dockers_too() {
    assert_eq!("overlay2".parse::<DriverKind>().unwrap(), DriverKind::Overlay);
    assert!("zfs".parse::<DriverKind>().unwrap_err().hint().is_some());
    assert_eq!(name(b"x"), "x");
}

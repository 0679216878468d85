//! Promises of the database: uniqueness, transactions, many processes, damage.

use std::{fs, path::Path, thread};

use onggi_spec::{ContainerId, ContainerName, ContainerRequest, Digest, ImageReference};
use onggi_state::{ContainerRecord, ImageRecord, LayerRecord, PulledParts, State, StateError};
use proptest::prelude::*;

fn digest(n: u32) -> Digest {
    Digest::try_from(format!("sha256:{n:064x}")).expect("digest")
}

fn reference(name: &str) -> ImageReference {
    ImageReference::try_from(name.to_owned()).expect("reference")
}

fn image(name: Option<&str>, id: u32, layers: &[u32]) -> ImageRecord {
    ImageRecord {
        name: name.map(reference),
        manifest_digest: digest(id + 1000),
        config_digest: digest(id),
        chain_ids: layers.iter().map(|n| digest(*n)).collect(),
        layer_digests: layers.iter().map(|n| digest(*n + 5000)).collect(),
        size: 10,
        created: i64::from(id),
        pulled_at: 2,
    }
}

fn layer(n: u32, parent: Option<u32>) -> LayerRecord {
    LayerRecord { chain_id: digest(n), diff_id: digest(n + 7000), parent: parent.map(digest), size: 3 }
}

fn request() -> ContainerRequest {
    let json = r#"{"image":"host","name":null,"command":["sh"],"entrypoint":null,"env":[],"workdir":null,
        "user":null,"hostname":null,"labels":{},"tty":false,"interactive":false,"remove":false,"init":false,
        "read_only":false,"cap_add":[],"cap_drop":[],"network":"bridge","ports":[],"mounts":[],
        "resources":{"nano_cpus":null,"memory":null,"pids":null}}"#;
    serde_json::from_str(json).expect("request")
}

fn container(id: u8, name: &str, image: Option<u32>) -> ContainerRecord {
    ContainerRecord {
        id: ContainerId::from_random([id; 32]),
        name: name.parse::<ContainerName>().expect("name"),
        created_at: i64::from(id),
        request: request(),
        image_id: image.map(digest),
        image_name: "host:".into(),
        chain_ids: Vec::new(),
        command: vec!["sh".into()],
    }
}

fn open(root: &Path) -> State {
    State::open(root).expect("open")
}

#[test]
fn records_come_back_as_they_were_put_also_after_reopening() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("root");
    let (i, l, c) = (image(Some("nginx"), 1, &[2, 3]), layer(2, None), container(7, "web", Some(1)));
    {
        let mut state = open(&root);
        state.put_image(&i).expect("image");
        state.put_layer(&l).expect("layer");
        state.insert_container(&c).expect("container");
    }
    let state = open(&root);
    assert_eq!(state.image_by_name(&reference("nginx")).expect("read"), Some(i.clone()));
    assert_eq!(state.list_images().expect("read"), [i]);
    assert_eq!(state.layer(&digest(2)).expect("read"), Some(l));
    assert_eq!(state.list_containers().expect("read"), [c]);
}

#[test]
fn the_database_is_private_and_its_directory_only_searchable() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("a/root");
    let mut state = open(&root);
    state.put_layer(&layer(1, None)).expect("write");
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        let mode = fs::metadata(root.join(file)).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let mode = fs::metadata(&root).expect("stat").permissions().mode() & 0o777;
    assert!(mode == 0o711 || mode == 0o700, "{mode:o}");
}

#[test]
fn retagging_moves_the_name_and_leaves_the_old_image_without_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    state.put_image(&image(Some("app:1"), 1, &[])).expect("first");
    state.put_image(&image(Some("app:1"), 2, &[])).expect("second");
    let ids: Vec<_> = state.list_images().expect("list").into_iter().map(|i| (i.config_digest, i.name)).collect();
    assert_eq!(ids, [(digest(2), Some(reference("app:1"))), (digest(1), None)]);
}

#[test]
fn an_image_goes_with_its_last_name_unless_a_container_uses_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    let first = image(Some("app:1"), 1, &[]);
    state.put_image(&first).expect("put");
    state.put_name(&reference("app:2"), &first).expect("tag");
    assert_eq!(state.remove_name(&reference("app:1")).expect("untag").deleted, None);
    assert_eq!(state.remove_name(&reference("app:2")).expect("untag").deleted, Some(digest(1)));
    let gone = state.remove_name(&reference("app:2"));
    assert!(matches!(gone, Err(StateError::ImageNotFound { .. })));

    state.put_image(&first).expect("put");
    state.insert_container(&container(1, "web", Some(1))).expect("insert");
    assert_eq!(state.remove_name(&reference("app:1")).expect("untag").deleted, None);
    assert!(matches!(state.remove_image(&digest(1), false), Err(StateError::ImageInUse { .. })));
    assert_eq!(state.remove_image(&digest(1), true).expect("force").deleted, Some(digest(1)));
    assert_eq!(state.list_images().expect("list"), []);
}

#[test]
fn a_container_of_a_removed_image_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let refused = open(dir.path()).insert_container(&container(1, "web", Some(9)));
    assert!(matches!(refused, Err(StateError::ImageNotFound { .. })));
}

#[test]
fn images_are_found_by_the_beginning_of_their_id() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    state.put_image(&image(Some("a:1"), 0x10, &[])).expect("put");
    state.put_image(&image(Some("b:1"), 0x11, &[])).expect("put");
    let found = |state: &State, p: &str| state.images_by_id_prefix(p).expect("read").len();
    let full = format!("{:064x}", 0x10);
    assert_eq!((found(&state, &full), found(&state, &format!("sha256:{}", &full[..63]))), (1, 2));
    assert_eq!((found(&state, "0"), found(&state, "f"), found(&state, ""), found(&state, "%")), (2, 0, 0, 0));
}

#[test]
fn a_taken_name_is_refused_and_the_holder_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    state.insert_container(&container(1, "web", None)).expect("insert");
    state.insert_container(&container(2, "db", None)).expect("insert");
    let holder = ContainerId::from_random([1; 32]).to_string();
    let refused = state.insert_container(&container(3, "web", None));
    assert!(matches!(refused, Err(StateError::NameTaken { by, .. }) if by == holder));
    let renamed = state.rename_container(&ContainerId::from_random([2; 32]), &"web".parse().expect("name"));
    assert!(matches!(renamed, Err(StateError::NameTaken { by, .. }) if by == holder));
    let again = state.insert_container(&container(1, "other", None));
    assert!(matches!(again, Err(StateError::IdTaken { .. })));
}

#[test]
fn a_container_is_found_by_id_then_name_then_unique_beginning() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    let (one, other) = (container(0xa1, "web", None), container(0xa2, "a1a1", None));
    state.insert_container(&one).expect("insert");
    state.insert_container(&other).expect("insert");
    assert_eq!(state.container(one.id.as_str()).expect("id"), one);
    assert_eq!(state.container("web").expect("name"), one);
    assert_eq!(state.container("a1a1").expect("a name wins over a beginning"), other);
    assert_eq!(state.container("a1a").expect("beginning"), one);
    assert!(matches!(state.container("a"), Err(StateError::Ambiguous { .. })));
    for none in ["", "x", "b", "a%", "' OR 1"] {
        assert!(matches!(state.container(none), Err(StateError::ContainerNotFound { .. })), "{none}");
    }
}

#[test]
fn a_deleted_container_frees_its_name_and_deleting_again_is_no_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    let c = container(1, "web", None);
    state.insert_container(&c).expect("insert");
    assert!(state.delete_container(&c.id).expect("delete"));
    assert!(!state.delete_container(&c.id).expect("delete again"));
    state.insert_container(&container(2, "web", None)).expect("the name is free");
    assert!(matches!(state.update_container(&c), Err(StateError::ContainerNotFound { .. })));
}

#[test]
fn layers_and_blobs_are_unreferenced_only_when_no_image_and_no_container_uses_them() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    for n in 1..=4 {
        state.put_layer(&layer(n, (n > 1).then(|| n - 1))).expect("layer");
    }
    state.put_image(&image(Some("a:1"), 100, &[1, 2])).expect("image");
    let mut user = container(1, "web", None);
    user.chain_ids = vec![digest(3)];
    state.insert_container(&user).expect("insert");
    let free: Vec<_> = state.unreferenced_layers().expect("read").into_iter().map(|l| l.chain_id).collect();
    assert_eq!(free, [digest(4)]);
    assert!(!state.remove_layer(&digest(3)).expect("used"));
    assert!(state.remove_layer(&digest(4)).expect("free"));
    assert!(state.remove_layer(&digest(4)).expect("again"));

    let on_disk = [100, 1100, 5001, 5002, 5003].map(digest);
    assert_eq!(state.unreferenced_blobs(&on_disk).expect("read"), [digest(5003)]);
}

#[test]
fn writers_in_parallel_lose_nothing_and_exactly_one_gets_a_name() {
    let dir = tempfile::tempdir().expect("tempdir");
    open(dir.path());
    let write = |n: u8| {
        let mut state = open(dir.path());
        for i in 0..10 {
            state.put_layer(&layer(u32::from(n) * 100 + i, None)).expect("layer");
        }
        state.insert_container(&container(n, "same", None)).is_ok()
    };
    let won = thread::scope(|s| {
        let threads: Vec<_> = (1..=8).map(|n| s.spawn(move || write(n))).collect();
        threads.into_iter().map(|t| t.join().expect("thread")).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
    assert_eq!(open(dir.path()).list_layers().expect("read").len(), 80);
}

#[test]
fn many_processes_may_open_a_new_store_at_once() {
    // Many times: what goes wrong here needs one opener between two reads of another.
    for _ in 0..30 {
        let dir = tempfile::tempdir().expect("tempdir");
        thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| open(dir.path()).list_images().expect("read"));
            }
        });
    }
}

#[test]
fn modify_reads_and_writes_in_one_transaction() {
    let dir = tempfile::tempdir().expect("tempdir");
    let c = container(1, "web", None);
    open(dir.path()).insert_container(&c).expect("insert");
    let count = || {
        let mut state = open(dir.path());
        for _ in 0..20 {
            let add = |c: &mut ContainerRecord| c.created_at += 1;
            state.modify_container(&c.id, add).expect("modify");
        }
    };
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(count);
        }
    });
    assert_eq!(open(dir.path()).container("web").expect("read").created_at, 81);
}

#[test]
fn a_checkpoint_makes_the_database_file_complete() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    state.put_layer(&layer(1, None)).expect("write");
    state.checkpoint().expect("checkpoint");
    let other = tempfile::tempdir().expect("tempdir");
    fs::copy(state.path(), other.path().join("state.db")).expect("copy");
    assert_eq!(open(other.path()).list_layers().expect("read").len(), 1);
}

/// Runs `body` on a filesystem of one megabyte, in a mount namespace of its own.
fn on_a_small_disk(body: impl FnOnce(&Path) + Send + 'static) {
    let thread = thread::spawn(move || {
        let dir = tempfile::tempdir().expect("tempdir");
        onggi_sys::ns::unshare(onggi_sys::ns::flag::MOUNT).expect("unshare");
        onggi_sys::mount::set_root_propagation(
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
        )
        .expect("private");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, Some(c"size=1m")).expect("mount");
        body(dir.path());
        onggi_sys::mount::detach(dir.path()).expect("umount");
    });
    thread.join().expect("thread");
}

#[test]
fn root_a_container_can_be_removed_on_a_full_disk() {
    on_a_small_disk(|root| {
        let mut state = open(root);
        for n in 0..40 {
            state.insert_container(&container(n, &format!("c-{n}"), None)).expect("insert");
        }
        fs::write(root.join("ballast"), vec![0; 2 << 20]).expect_err("the disk is full now");
        drop(state);
        let mut state = open(root);
        for n in 0..40 {
            assert!(state.delete_container(&ContainerId::from_random([n; 32])).expect("delete"));
        }
        assert_eq!(state.list_containers().expect("list"), []);
        // With room again, the next writer keeps a reserve for the next time.
        fs::remove_file(root.join("ballast")).expect("remove");
        open(root).put_layer(&layer(1, None)).expect("write");
        assert_eq!(fs::metadata(root.join("state.reserve")).expect("stat").len(), 128 * 1024);
    });
}

/// Whoever has stored a container and can do nothing more takes it back.
#[test]
fn root_what_was_stored_in_the_last_pages_of_a_disk_can_be_taken_back() {
    on_a_small_disk(|root| {
        let ballast = root.join("ballast");
        let fill = |pages: u64| {
            let mut file = fs::File::options().append(true).create(true).open(&ballast).expect("open");
            while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
            let end = file.metadata().expect("stat").len() / 4096;
            file.set_len(end.saturating_sub(pages) * 4096).expect("make room");
        };
        let (mut stored, mut refused) = (0, 0);
        for pages in 0..40 {
            open(root).checkpoint().expect("empty the WAL");
            let _ = fs::remove_file(root.join("state.reserve"));
            fill(pages);
            let mut container = container(1, "box", None);
            container.command = vec!["x".repeat(9000)];
            match open(root).insert_container(&container) {
                Ok(()) => {
                    stored += 1;
                    fill(0);
                    assert!(open(root).delete_container(&container.id).expect("delete"), "{pages} pages");
                }
                Err(StateError::DiskFull { .. }) => refused += 1,
                Err(other) => panic!("{pages} pages: {other}"),
            }
            assert_eq!(open(root).list_containers().expect("list"), [], "{pages} pages");
            fs::remove_file(&ballast).expect("remove");
        }
        assert!(stored > 0 && refused > 0, "{stored} {refused}");
    });
}

#[test]
fn root_a_full_disk_is_named_and_nothing_is_half_written() {
    on_a_small_disk(|root| {
        let mut state = open(root);
        fs::write(root.join("ballast"), vec![0; 2 << 20]).expect_err("the disk is full now");
        let mut big = container(1, "big", None);
        big.command = vec!["x".repeat(1 << 20)];
        let refused = state.insert_container(&big).expect_err("no room");
        assert!(matches!(refused, StateError::DiskFull { .. }), "{refused}");
        assert_eq!(state.list_containers().expect("list"), []);
        fs::remove_file(root.join("ballast")).expect("remove");
        state.insert_container(&container(1, "small", None)).expect("room again");
    });
}

#[test]
fn what_a_pull_found_is_kept_with_its_name_and_goes_with_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    let mut image = image(Some("a:1"), 1, &[2]);
    let name = image.name.clone().expect("a name");
    let parts = |size| PulledParts {
        platform: "linux/amd64".to_owned(),
        documents: vec![image.manifest_digest.clone(), image.config_digest.clone()],
        layers: vec![(digest(7), size)],
    };
    let (first, second) = (parts(1), parts(2));
    let found = |state: &State| state.pulled(&name, 0).expect("read").map(|pulled| pulled.parts);
    // Nothing is kept of a name that is not there.
    state.remember_parts(&name, &first).expect("no error");
    assert_eq!(found(&state), None);
    state.put_pulled(&image, &first).expect("store");
    assert_eq!(found(&state).as_ref(), Some(&first));
    state.remember_parts(&name, &second).expect("store");
    let read = open(dir.path()).pulled(&name, 0).expect("read").expect("one was noted");
    assert_eq!((&read.image, &read.parts), (&image, &second));
    state.remove_name(&name).expect("remove");
    image.pulled_at += 1;
    state.put_image(&image).expect("store");
    assert_eq!(found(&state), None, "what was found went with the name");
}

#[test]
fn a_newer_schema_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = open(dir.path()).path().to_owned();
    let conn = rusqlite::Connection::open(&path).expect("open");
    conn.pragma_update(None, "user_version", 99).expect("pragma");
    drop(conn);
    let refused = State::open(dir.path()).expect_err("newer");
    assert!(matches!(refused, StateError::Newer { found: 99, .. }), "{refused}");
    assert!(refused.hint().is_some());
}

#[test]
fn another_programs_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("state.db");
    rusqlite::Connection::open(&path).and_then(|c| c.execute_batch("CREATE TABLE t (x)")).expect("make");
    let refused = State::open(dir.path()).expect_err("foreign");
    assert!(matches!(refused, StateError::Damaged { .. }), "{refused}");
    assert!(refused.hint().is_some_and(|h| h.contains("state.db")));
}

/// A store with something in every table, as bytes of its (checkpointed) file.
fn seed() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    for n in 0..20 {
        state.put_image(&image(Some(&format!("app:{n}")), n, &[n])).expect("image");
        state.put_layer(&layer(n, None)).expect("layer");
        state.insert_container(&container(n as u8, &format!("c-{n}"), Some(n))).expect("container");
    }
    state.checkpoint().expect("checkpoint");
    let path = state.path().to_owned();
    drop(state);
    fs::read(path).expect("read")
}

/// Every operation on a store that may be damaged: an error is fine, a panic is not.
fn exercise(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(dir.path().join("state.db"), bytes).expect("write");
    let Ok(mut state) = State::open(dir.path()) else { return };
    let _ = state.list_images();
    let _ = state.list_containers();
    let _ = state.container("c-3");
    let _ = state.unreferenced_layers();
    let _ = state.unreferenced_blobs(&[digest(1)]);
    let _ = state.put_image(&image(Some("new:1"), 77, &[1]));
    let _ = state.insert_container(&container(99, "new", None));
    let _ = state.remove_image(&digest(3), true);
    let _ = state.delete_container(&ContainerId::from_random([3; 32]));
}

#[test]
fn a_truncated_or_zeroed_database_is_a_named_refusal() {
    let whole = seed();
    for length in [1, 50, 100, 4095, 4096, whole.len() / 2, whole.len() - 1] {
        exercise(&whole[..length]);
    }
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(dir.path().join("state.db"), vec![0; 8192]).expect("write");
    let refused = State::open(dir.path()).expect_err("zeroed");
    assert!(matches!(refused, StateError::Damaged { .. }), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_anywhere_never_panics(at in any::<prop::sample::Index>(), bit in 0u8..8, n in 1usize..4) {
        thread_local!(static SEED: Vec<u8> = seed());
        let mut bytes = SEED.with(Clone::clone);
        for i in 0..n {
            let at = (at.index(bytes.len()) + i * 997) % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        exercise(&bytes);
    }
}

#[test]
fn the_wal_stays_short_however_many_processes_write_one_after_the_other() {
    let root = tempfile::tempdir().expect("tempdir");
    let wal = || fs::metadata(root.path().join("state.db-wal")).map_or(0, |m| m.len());
    let mut longest = 0;
    for n in 0..300 {
        let mut state = State::open(root.path()).expect("open");
        state.put_image(&image(Some("a:1"), 1, &[2])).expect("put");
        state.pulled_again(&digest(1), n * 2 * HOUR).expect("note");
        drop(state);
        longest = longest.max(wal());
    }
    assert!((1..400_000).contains(&longest), "{longest} bytes");
    let state = State::open(root.path()).expect("open");
    assert_eq!(state.image_by_name(&reference("a:1")).expect("read").expect("image").pulled_at, 299 * 2 * HOUR);
}

/// In nanoseconds.
const HOUR: i64 = 3_600_000_000_000;

#[test]
fn a_pull_is_noted_unless_its_image_was_used_last_within_the_hour() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    for id in [1, 2] {
        state.put_image(&image(Some(&format!("a:{id}")), id, &[])).expect("put");
    }
    let oldest = |state: &State| state.least_recently_used_image(&digest(99)).expect("read");
    let noted = |state: &State| state.image_by_name(&reference("a:2")).expect("read").expect("image").pulled_at;
    state.pulled_again(&digest(1), 10).expect("note");
    assert_eq!(oldest(&state), Some(digest(2)));
    state.pulled_again(&digest(2), 20).expect("note");
    assert_eq!((oldest(&state), noted(&state)), (Some(digest(1)), 20));
    state.pulled_again(&digest(2), 30).expect("note");
    assert_eq!((oldest(&state), noted(&state)), (Some(digest(1)), 20));
    state.pulled_again(&digest(2), 20 + HOUR).expect("note");
    assert_eq!(noted(&state), 20 + HOUR);
    let parts = PulledParts { platform: "linux/amd64".to_owned(), documents: Vec::new(), layers: Vec::new() };
    for (name, now, enough) in [("a:2", 20 + 2 * HOUR - 1, true), ("a:2", 20 + 2 * HOUR, false), ("a:1", 20, false)] {
        let name = reference(name);
        state.remember_parts(&name, &parts).expect("store");
        assert_eq!(state.pulled(&name, now).expect("read").expect("one").noted, enough, "{name} {now}");
    }
}

#[test]
fn images_that_no_pull_brings_back_are_the_last_to_go() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut state = open(dir.path());
    let parts = PulledParts { platform: "linux/amd64".to_owned(), documents: Vec::new(), layers: Vec::new() };
    for (id, name, at) in [(1, Some("local:1"), 10), (2, Some("pulled:1"), 30), (3, None, 40), (4, Some("local:2"), 20)]
    {
        state.put_image(&image(name, id, &[])).expect("put");
        state.pulled_again(&digest(id), at).expect("note");
    }
    state.remember_parts(&reference("pulled:1"), &parts).expect("store");
    let mut order = Vec::new();
    while let Some(id) = state.least_recently_used_image(&digest(99)).expect("read") {
        state.remove_image(&id, false).expect("remove");
        order.push(id);
    }
    assert_eq!(order, [2, 3, 1, 4].map(digest));
}

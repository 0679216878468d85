//! What the content store promises to its users and to other processes.

use std::{
    fs,
    io::{Read, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use onggi_image::{Begin, BlobStore, FinishError, digest_of};
use proptest::prelude::*;

fn store() -> (tempfile::TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(&dir.path().join("deep/root")).unwrap();
    (dir, store)
}

fn temporaries(dir: &tempfile::TempDir) -> usize {
    fs::read_dir(dir.path().join("deep/root/tmp")).unwrap().count()
}

fn begin(store: &BlobStore, content: &[u8]) -> onggi_image::BlobWriter {
    match store.begin(&digest_of(content), None).unwrap() {
        Begin::Mine(writer) => writer,
        Begin::Exists(_) => panic!("it cannot exist yet"),
    }
}

#[test]
fn content_with_another_digest_leaves_nothing() {
    let (dir, store) = store();
    let result = store.put_verified(&digest_of(b"expected"), &b"something else"[..]);
    assert!(matches!(result, Err(FinishError::WrongDigest { actual, .. }) if actual == digest_of(b"something else")));
    assert!(store.list().unwrap().is_empty());
    assert_eq!(temporaries(&dir), 0);
}

#[test]
fn a_writer_that_gives_up_leaves_nothing() {
    let (dir, store) = store();
    let mut writer = begin(&store, b"abc");
    writer.write(b"ab").unwrap();
    assert_eq!(temporaries(&dir), 1);
    drop(writer);
    assert_eq!(temporaries(&dir), 0);
    assert!(!store.has(&digest_of(b"abc"), None));
}

#[test]
fn content_is_no_blob_before_it_is_committed() {
    let (_dir, store) = store();
    let mut writer = begin(&store, b"abc");
    writer.write(b"abc").unwrap();
    let verified = writer.finish().unwrap();
    assert!(!store.has(&digest_of(b"abc"), None));
    let mut early = String::new();
    verified.reader().unwrap().read_to_string(&mut early).unwrap();
    verified.commit().unwrap();
    assert_eq!(early, "abc");
    assert!(store.has(&digest_of(b"abc"), Some(3)) && !store.has(&digest_of(b"abc"), Some(4)));
}

#[test]
fn a_second_writer_waits_and_then_finds_the_blob() {
    let (_dir, store) = store();
    let mut writer = begin(&store, b"abc");
    let (done, waiting) = mpsc::channel();
    let second = store.clone();
    let thread = thread::spawn(move || {
        let found = matches!(second.begin(&digest_of(b"abc"), Some(3)).unwrap(), Begin::Exists(_));
        done.send(()).unwrap();
        found
    });
    assert!(waiting.recv_timeout(Duration::from_millis(200)).is_err(), "it did not wait");
    writer.write(b"abc").unwrap();
    writer.finish().unwrap().commit().unwrap();
    assert!(thread.join().unwrap());
}

#[test]
fn a_second_writer_takes_over_when_the_first_gives_up() {
    let (dir, store) = store();
    let writer = begin(&store, b"abc");
    let second = store.clone();
    let thread = thread::spawn(move || second.put_verified(&digest_of(b"abc"), &b"abc"[..]));
    thread::sleep(Duration::from_millis(100));
    drop(writer);
    thread.join().unwrap().unwrap();
    assert_eq!((store.list().unwrap().len(), temporaries(&dir)), (1, 0));
}

#[test]
fn what_a_killed_process_left_is_overwritten() {
    let (dir, store) = store();
    let part = dir.path().join(format!("deep/root/tmp/blob-{}.part", digest_of(b"abc").hex()));
    fs::File::create(&part).unwrap().write_all(b"left by a killed process, longer").unwrap();
    store.put_verified(&digest_of(b"abc"), &b"abc"[..]).unwrap();
    assert_eq!(fs::read(store.path(&digest_of(b"abc"))).unwrap(), b"abc");
    assert_eq!(temporaries(&dir), 0);
}

#[test]
fn reading_a_small_blob_verifies_it_and_its_bound() {
    let (_dir, store) = store();
    let digest = store.put_bytes(b"hello").unwrap();
    assert_eq!(store.read_small(&digest, 5).unwrap().as_deref(), Some(&b"hello"[..]));
    assert_eq!(store.read_small(&digest, 4).unwrap(), None);
    fs::write(store.path(&digest), b"jello").unwrap();
    assert_eq!(store.read_small(&digest, 5).unwrap(), None);
    store.put_bytes(b"hello").unwrap();
    assert!(store.read_small(&digest, 5).unwrap().is_some());
}

#[test]
fn what_is_no_file_is_no_blob_and_is_not_waited_for() {
    let (_dir, store) = store();
    let digest = store.put_bytes(b"hello").unwrap();
    let path = store.path(&digest);
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(store.open_blob(&digest).unwrap().is_none() && !store.has(&digest, None));
    assert_eq!(store.read_small(&digest, 5).unwrap(), None);
    assert!(store.is_sound(&digest).unwrap(), "it is missing, not damaged");
    store.put_bytes(b"hello").unwrap();
    assert_eq!(store.read_small(&digest, 5).unwrap().as_deref(), Some(&b"hello"[..]));
}

#[test]
fn listing_passes_over_files_that_are_no_blobs() {
    let (_dir, store) = store();
    let digest = store.put_bytes(b"hello").unwrap();
    fs::write(store.path(&digest).with_file_name("README"), b"x").unwrap();
    assert_eq!(store.list().unwrap(), [(digest, 5)]);
}

#[test]
fn a_blob_that_is_a_symbolic_link_does_not_count() {
    let (_dir, store) = store();
    let digest = digest_of(b"root");
    std::os::unix::fs::symlink("/etc/passwd", store.path(&digest)).unwrap();
    assert!(!store.has(&digest, None));
    store.put_verified(&digest, &b"root"[..]).unwrap();
    assert!(fs::symlink_metadata(store.path(&digest)).unwrap().is_file());
}

#[test]
fn errors_name_the_operation_and_the_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let error = BlobStore::open(&dir.path().join("file/root")).expect_err("below a file");
    assert!(error.to_string().starts_with("create directory ") && error.to_string().ends_with("file/root"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_is_put_comes_back(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6), restart in any::<bool>()) {
        let (_dir, store) = store();
        let content = pieces.concat();
        let mut writer = begin(&store, &content);
        if restart {
            writer.write(b"a false start").unwrap();
            writer.restart().unwrap();
        }
        for piece in &pieces {
            writer.write(piece).unwrap();
        }
        prop_assert_eq!(writer.written(), content.len() as u64);
        writer.finish().unwrap().commit().unwrap();
        prop_assert_eq!(fs::read(store.path(&digest_of(&content))).unwrap(), content);
    }
}

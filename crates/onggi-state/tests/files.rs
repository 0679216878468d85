//! Promises of the runtime files: locks end with their holder, intents of the dead are found, leases
//! have one owner, a write is seen whole or not at all.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use onggi_state::files::{Durability, FileError, Intents, Leases, Lock, ProcessIdentity, atomic_write, boot_id};

#[test]
fn an_atomic_write_has_the_exact_mode_and_leaves_no_temporary() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("exit.json");
    for (text, durability) in [("one", Durability::Crash), ("two", Durability::PowerCut)] {
        atomic_write(&path, text.as_bytes(), 0o644, durability).expect("write");
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
    }
    assert_eq!(fs::metadata(&path).expect("stat").permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
}

#[test]
fn a_failed_write_keeps_the_old_content_and_leaves_no_temporary() {
    let dir = tempfile::tempdir().expect("tempdir");
    // A directory that is not empty cannot be replaced by rename(2).
    let path = dir.path().join("target");
    fs::create_dir(&path).expect("mkdir");
    fs::write(path.join("x"), "").expect("write");
    assert!(atomic_write(&path, b"new", 0o600, Durability::Crash).is_err());
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
}

#[test]
fn readers_see_the_old_or_the_new_file_never_a_part() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("f");
    let (a, b) = (vec![b'a'; 100_000], vec![b'b'; 50_000]);
    atomic_write(&path, &a, 0o600, Durability::Crash).expect("write");
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            for n in 0..200 {
                atomic_write(&path, if n % 2 == 0 { &b } else { &a }, 0o600, Durability::Crash).expect("write");
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let seen = fs::read(&path).expect("read");
            assert!(seen == a || seen == b);
        }
    });
}

#[test]
fn a_lock_excludes_others_until_it_is_dropped() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = Lock::named(dir.path(), "store").expect("path");
    let held = Lock::exclusive(&path).expect("lock");
    assert!(Lock::is_held(&path).expect("ask"));
    assert!(Lock::try_exclusive(&path).expect("try").is_none());
    assert!(Lock::try_shared(&path).expect("try").is_none());
    drop(held);
    assert!(!Lock::is_held(&path).expect("ask"));
    let first = Lock::shared(&path).expect("shared");
    assert!(Lock::try_shared(&path).expect("try").is_some());
    assert!(Lock::try_exclusive(&path).expect("try").is_none());
    drop(first);
    assert!(Lock::try_exclusive(&path).expect("try").is_some());
}

#[test]
fn asking_about_a_missing_lock_makes_none() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("monitor.lock");
    assert!(!Lock::is_held(&path).expect("ask"));
    assert!(!path.exists());
}

#[test]
fn a_removed_lock_never_has_two_holders() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("l");
    let inside = Arc::new(AtomicU32::new(0));
    thread::scope(|s| {
        for _ in 0..4 {
            let (path, inside) = (path.clone(), inside.clone());
            s.spawn(move || {
                for _ in 0..200 {
                    let lock = Lock::exclusive(&path).expect("lock");
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    lock.remove().expect("remove");
                }
            });
        }
    });
}

#[test]
fn names_that_leave_or_hide_are_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    for name in ["", ".", "..", "a/b", "../x", ".hidden", "a\nb", &"x".repeat(256)] {
        assert!(matches!(Lock::named(dir.path(), name), Err(FileError::BadName { .. })), "{name:?}");
        assert!(matches!(Leases::open(dir.path(), name), Err(FileError::BadName { .. })), "{name:?}");
    }
}

#[test]
fn an_intent_is_held_by_one_and_gone_when_complete() {
    let dir = tempfile::tempdir().expect("tempdir");
    let intents = Intents::open(dir.path()).expect("open");
    let intent = intents.wait("abc").expect("begin");
    assert!(intents.try_begin("abc").expect("look").is_none());
    assert!(intents.is_held("abc").expect("ask"));
    assert!(intents.abandoned().expect("list").is_empty());
    intent.complete().expect("complete");
    assert!(!dir.path().join("intents/abc").exists());
    assert!(intents.abandoned().expect("list").is_empty());
}

#[test]
fn a_new_intent_does_not_fail_because_somebody_looks_for_abandoned_ones() {
    let dir = tempfile::tempdir().expect("tempdir");
    let intents = Intents::open(dir.path()).expect("open");
    // What the other one finds: a file that its maker has not locked yet.
    let looked_at = fs::File::create(dir.path().join("intents/new")).expect("create");
    looked_at.lock_shared().expect("lock");
    assert!(intents.try_begin("new").expect("look").is_none());
    thread::scope(|scope| {
        let beginning = scope.spawn(|| intents.wait("new").expect("begin"));
        drop(looked_at);
        beginning.join().expect("no panic").complete().expect("complete");
    });
}

#[test]
fn an_intent_whose_owner_died_is_taken_over() {
    let dir = tempfile::tempdir().expect("tempdir");
    let intents = Intents::open(dir.path()).expect("open");
    // Dropping releases the lock and leaves the file, exactly as the kernel does for a dead process.
    drop(intents.wait("dead").expect("begin"));
    let alive = intents.wait("alive").expect("begin");
    let found = intents.abandoned().expect("list");
    assert_eq!(found.iter().map(|i| i.id()).collect::<Vec<_>>(), ["dead"]);
    for intent in found {
        intent.complete().expect("complete");
    }
    assert!(intents.abandoned().expect("list").is_empty());
    alive.complete().expect("complete");
}

#[test]
fn an_address_has_one_owner_and_only_the_owner_gives_it_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let leases = Leases::open(dir.path(), "onggi0").expect("open");
    let ip = Ipv4Addr::new(10, 89, 0, 2);
    assert!(leases.acquire(ip, "one").expect("acquire"));
    assert!(leases.acquire(ip, "one").expect("again"));
    assert!(!leases.acquire(ip, "two").expect("taken"));
    assert!(!leases.release(ip, "two").expect("not the owner"));
    assert_eq!(leases.owner(ip).expect("read").as_deref(), Some("one"));
    assert!(leases.acquire(Ipv4Addr::new(10, 89, 0, 10), "one").expect("second"));
    assert_eq!(leases.list().expect("list").len(), 2);
    assert_eq!(leases.release_all("one").expect("release").len(), 2);
    assert!(!leases.release(ip, "one").expect("idempotent"));
    assert_eq!(fs::read_dir(dir.path().join("leases/onggi0")).expect("list").count(), 0);
}

#[test]
fn parallel_requests_for_one_address_have_one_winner() {
    let dir = tempfile::tempdir().expect("tempdir");
    let leases = Leases::open(dir.path(), "n").expect("open");
    for last in 2..40 {
        let ip = Ipv4Addr::new(10, 0, 0, last);
        let won = thread::scope(|s| {
            let leases = &leases;
            let threads: Vec<_> =
                (0..4).map(|n| s.spawn(move || leases.acquire(ip, &format!("c{n}")).expect("acquire"))).collect();
            threads.into_iter().map(|t| t.join().expect("thread")).filter(|won| *won).count()
        });
        assert_eq!(won, 1);
    }
}

#[test]
fn a_process_that_never_was_is_none() {
    assert_eq!(ProcessIdentity::of(i32::MAX).expect("read"), None);
    assert_eq!(boot_id().expect("read").len(), 36);
}

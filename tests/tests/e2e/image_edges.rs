//! Images at the edges: a pull that is interrupted, and many hands on one store.

use std::{
    fs,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use onggi_tests::{
    Onggi, eventually,
    gate::{Act, Gate},
    image::{Compression, Flavour, ImageBuilder, busybox_tree},
    isolated,
    machine::sh,
    registry::Registry,
    tarball::Tarball,
};

use crate::Stage;

/// What no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn e2e_a_pull_that_is_interrupted_at_the_keyboard_goes_on_where_it_was() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::new());
    let layer = Tarball::new().file("noise", 0o644, &noise(600_000)).finish();
    let image = ImageBuilder::new(Flavour::Oci).layer(&layer, Compression::Gzip).build();
    registry.push("app", &image);
    let blob = image.layers[0].digest();
    let count = Arc::new(AtomicUsize::new(0));
    let (asked, name) = (Arc::clone(&count), blob.clone());
    let gate = Gate::new(registry.port(), move |request| {
        match request.method == "GET" && request.target.ends_with(&name) {
            true => match asked.fetch_add(1, Ordering::SeqCst) {
                0 => Act::Cut(200_000),
                // The one that goes on; nobody waits for its end.
                1 => Act::Late(Duration::from_secs(60)),
                _ => Act::Forward,
            },
            false => Act::Forward,
        }
    });
    let mut pull = onggi.command(&["pull", &gate.name("app:latest")]);
    let mut pull = pull.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start onggi");
    eventually("the download goes on after the break", || (count.load(Ordering::SeqCst) >= 2).then_some(()));
    let pid = rustix::process::Pid::from_child(&pull);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("interrupt it");
    let status = pull.wait().expect("wait for it");
    assert!(!status.success(), "{status}");
    assert_eq!(onggi.ok(&["images", "-q"]), "", "what was not finished is not there");
    onggi.ok(&["pull", &gate.name("app:latest")]);
    let ranges: Vec<String> =
        gate.seen().iter().map(|a| a.header("range").to_owned()).filter(|r| !r.is_empty()).collect();
    assert_eq!(ranges.last().map(String::as_str), Some("bytes=200000-"), "{ranges:?}");
    assert_eq!(fs::read_dir(onggi.root().join("tmp")).expect("tmp").count(), 0, "nothing is left of it");
    onggi.ok(&["system", "check"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_pulls_removals_and_prunes_at_once_leave_a_sound_store() {
    let stage = Stage::new();
    let names: Vec<String> = (0..3)
        .map(|number| {
            let own = Tarball::new().file(&format!("own{number}"), 0o644, &noise(20_000 + number)).finish();
            let builder = ImageBuilder::new(Flavour::Oci).layer(&busybox_tree().finish(), Compression::Gzip);
            stage.registry.serve(&format!("image{number}"), "latest", &builder.layer(&own, Compression::Gzip).build())
        })
        .collect();
    let fine = ["no such image", "No such image", "is not stored", "not found", "has several names"];
    let round = |at: usize| {
        for turn in 0..4 {
            let name = names[(at + turn) % names.len()].as_str();
            let ran = match (at + turn) % 4 {
                0 | 1 => stage.onggi.run(&["pull", "-q", name]),
                2 => stage.onggi.run(&["rmi", name]),
                _ => stage.onggi.run(&["image", "prune", "-af"]),
            };
            assert!(!ran.stderr.contains("panicked"), "{ran}");
            assert!(ran.code == Some(0) || fine.iter().any(|text| ran.stderr.contains(text)), "{ran}");
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|at| scope.spawn(move || round(at))).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("no worker panics"));
    });
    let check = stage.onggi.run(&["system", "check"]);
    assert_eq!(check.code, Some(0), "{check}");
    for name in &names {
        stage.onggi.ok(&["pull", "-q", name]);
        assert_eq!(stage.onggi.ok(&["run", "--rm", "--network", "none", name, "echo", "runs"]), "runs");
    }
    stage.onggi.ok(&["image", "prune", "-af"]);
    let left = sh(&format!("find {0}/layers {0}/tmp {0}/blobs/sha256 -mindepth 1", stage.onggi.root().display()));
    assert_eq!(left, "");
    stage.onggi.assert_nothing_left();
}

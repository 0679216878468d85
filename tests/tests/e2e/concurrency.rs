//! Several processes at work on one store at the same time.

use std::thread;

use onggi_tests::{Ran, image::Flavour};

use crate::Stage;

/// Runs the same kind of command in several processes at once.
fn all_at_once(count: usize, act: impl Fn(usize) -> Ran + Sync) -> Vec<Ran> {
    thread::scope(|scope| {
        let act = &act;
        let started: Vec<_> = (0..count).map(|at| scope.spawn(move || act(at))).collect();
        started.into_iter().map(|one| one.join().expect("a command's thread does not panic")).collect()
    })
}

#[test]
fn e2e_many_runs_at_once_each_get_an_address_and_leave_nothing() {
    let stage = Stage::new();
    let script = "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'; sleep 1";
    let ran = all_at_once(8, |_| stage.onggi.run(&["run", "--rm", &stage.busybox, "sh", "-c", script]));
    let mut addresses: Vec<&str> = Vec::new();
    for one in &ran {
        assert_eq!(one.code, Some(0), "{one}");
        addresses.push(one.stdout.trim());
    }
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 8, "every container has its own address: {addresses:?}");
    let base = onggi_tests::image::busybox(Flavour::Oci).layers[0].digest();
    let fetched = stage.registry.asked().iter().filter(|path| path.ends_with(&base)).count();
    assert_eq!(fetched, 1, "eight processes that miss a layer fetch it once");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_of_many_that_want_one_name_or_port_exactly_one_gets_it() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let winners = |ran: &[Ran]| ran.iter().filter(|one| one.code == Some(0)).count();
    let ran = all_at_once(6, |_| {
        stage.onggi.run(&["run", "-d", "--name", "one", "--network", "none", &stage.busybox, "sleep", "100"])
    });
    assert_eq!(winners(&ran), 1, "{ran:#?}");
    let ran = all_at_once(6, |_| stage.onggi.run(&["run", "-d", "-p", "8080:80", &stage.busybox, "sleep", "100"]));
    assert_eq!(winners(&ran), 1, "{ran:#?}");
    let ids = stage.onggi.ok(&["ps", "-a", "-q"]);
    for id in ids.lines() {
        stage.onggi.ok(&["rm", "-f", id]);
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_starting_stopping_listing_and_removing_at_once_never_fails_oddly() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let ran = all_at_once(6, |at| {
        let name = format!("box{at}");
        for _ in 0..3 {
            stage.onggi.ok(&["run", "-d", "--name", &name, &stage.busybox, "sleep", "100"]);
            stage.onggi.ok(&["ps", "-a"]);
            stage.onggi.ok(&["exec", &name, "true"]);
            stage.onggi.ok(&["stop", "-t", "0", &name]);
            stage.onggi.ok(&["rm", &name]);
        }
        stage.onggi.run(&["ps", "-a"])
    });
    assert!(ran.iter().all(|one| one.code == Some(0)));
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_two_removals_of_one_container_agree() {
    let stage = Stage::new();
    stage.onggi.ok(&["run", "-d", "--name", "box", &stage.busybox, "sleep", "100"]);
    let ran = all_at_once(4, |_| stage.onggi.run(&["rm", "-f", "box"]));
    assert!(ran.iter().any(|one| one.code == Some(0)), "{ran:#?}");
    assert!(ran.iter().all(|one| !one.stderr.contains("panicked")), "{ran:#?}");
    stage.onggi.assert_nothing_left();
}

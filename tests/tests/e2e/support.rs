//! The tests' own tools, tested: a leak check that finds nothing proves little otherwise.

use std::{collections::BTreeSet, path::Path};

use onggi_tests::{
    eventually,
    image::{self, Flavour},
    isolated,
    leaks::Snapshot,
    machine::{Client, HOST_ADDRESS, http_get, sh},
    nginx,
    registry::Registry,
};

#[test]
fn e2e_support_the_registry_holds_what_skopeo_pushed() {
    let layout = nginx::layout();
    isolated();
    let registry = Registry::new();
    let name = registry.push("busybox", &image::busybox(Flavour::Oci));
    let nginx = registry.push_layout("nginx", &layout);
    let port: u16 = name.split([':', '/']).nth(1).and_then(|port| port.parse().ok()).expect("the reference has a port");
    let tags = http_get("127.0.0.1", port, "/v2/busybox/tags/list").expect("the registry answers");
    assert!(tags.ends_with("{\"name\":\"busybox\",\"tags\":[\"latest\"]}\n"), "{tags}");
    assert!(nginx.ends_with("/nginx:latest"));
}

#[test]
fn e2e_support_the_private_machine_has_an_address_and_a_neighbour() {
    isolated();
    let client = Client::new();
    assert!(client.sh(&format!("busybox ping -c 1 -W 2 {HOST_ADDRESS} > /dev/null && echo yes")).starts_with("yes"));
    assert_eq!(sh("ip -o link | grep -c onggi || true").trim(), "0");
}

#[test]
fn e2e_support_the_leak_check_sees_every_kind_of_thing() {
    isolated();
    let before = Snapshot::take();
    let dir = tempfile::tempdir().expect("make a directory");
    let point = dir.path().join("point");
    std::fs::create_dir(&point).expect("make a directory");
    sh(&format!("mount -t tmpfs none {}", point.display()));
    sh("ip link add leak0 type bridge; ip netns add leak
        nft add table ip onggi; nft add map ip onggi published '{ type inet_service : ipv4_addr; elements = { 80 : 10.9.0.2 }; }'");
    let orphan = sh("sleep 60 > /dev/null 2>&1 & echo $!");
    std::fs::create_dir_all(dir.path().join("run/leases/bridge/10.9.0.2")).expect("make a lease");
    let none = BTreeSet::new();
    let left = Snapshot::take().left_behind(&before, Path::new("/nonexistent"), &dir.path().join("run"), &none);
    for kind in ["mount ", "link leak0", "network namespace: leak", "nft element ", "process ", "lease: 10.9.0.2"] {
        assert!(left.iter().any(|thing| thing.starts_with(kind)), "{kind} is missing in {left:#?}");
    }
    sh(&format!(
        "umount {}; ip link del leak0; ip netns del leak; umount /run/netns; nft delete table ip onggi",
        point.display()
    ));
    std::fs::remove_dir_all(dir.path().join("run")).expect("remove the lease");
    sh(&format!("kill {}", orphan.trim()));
    eventually("nothing is left", || {
        let left = Snapshot::take().left_behind(&before, Path::new("/nonexistent"), Path::new("/nonexistent"), &none);
        left.is_empty().then_some(())
    });
}

//! Attaching and detaching containers in namespaces of our own.

mod common;

use common::*;

#[test]
fn root_an_attached_container_has_address_route_and_mtu_and_no_ipv6_but_loopback() {
    let world = World::new();
    let (record, applied) = world.container(1, &[]);
    let addresses = inside(&applied.netns, || run("ip -br addr"));
    let address = format!("{}/{}", record.ip, record.subnet.prefix());
    let expected = [vec!["lo", "UNKNOWN", "127.0.0.1/8", "::1/128"], vec!["eth0@", "UP", &address]];
    for (line, expected) in addresses.lines().zip(expected) {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[1..], expected[1..], "{addresses}");
        assert!(words[0].starts_with(expected[0]), "{addresses}");
    }
    let routes = inside(&applied.netns, || run("ip route; ip -6 route show dev eth0"));
    assert!(routes.starts_with(&format!("default via {} dev eth0", record.gateway)), "{routes}");
    assert_eq!(routes.lines().count(), 2, "{routes}");
    let link = inside(&applied.netns, || run("ip link show eth0"));
    assert!(link.contains("mtu 1400") && link.contains(&record.mac.to_string()), "{link}");
}

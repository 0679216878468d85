//! Real packets through published ports, masquerading and isolation, between namespaces of our own.

mod common;

use std::{net::Ipv4Addr, os::fd::AsFd};

use common::{traffic::*, *};
use onggi_spec::port::Protocol;

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn root_a_published_tcp_port_answers_from_outside_from_the_host_and_over_loopback() {
    let world = World::new();
    let (record, web) = world.container(1, &[tcp_port(8080, 80)]);
    tcp_server(&web.netns, 80, "web");
    assert_eq!(tcp(&world.outside, HOST, 8080), sees("web", OUTSIDE), "the client's address is kept");
    assert_eq!(tcp(&world.host, HOST, 8080), sees("web", HOST));
    assert_eq!(tcp(&world.host, LOOPBACK, 8080), sees("web", record.gateway));
    assert_eq!(tcp(&world.host, record.gateway, 8080), sees("web", record.gateway));
    assert_eq!(tcp(&world.host, record.ip, 80), sees("web", record.gateway));
    world.detach(&record);
    assert!(tcp_refused(&world.outside, HOST, 8080));
    assert!(tcp_refused(&world.host, LOOPBACK, 8080));
}

#[test]
fn root_a_published_udp_port_answers_from_outside_from_the_host_and_over_loopback() {
    let world = World::new();
    let (record, dns) = world.container(1, &[udp_port(5353, 53)]);
    udp_server(&dns.netns, 53, "dns");
    assert_eq!(udp(&world.outside, HOST, 5353), sees("dns", OUTSIDE));
    assert_eq!(udp(&world.host, HOST, 5353), sees("dns", HOST));
    assert_eq!(udp(&world.host, LOOPBACK, 5353), sees("dns", record.gateway));
    assert!(tcp_refused(&world.outside, HOST, 5353), "another protocol is not published");
}

#[test]
fn root_udp_clients_that_keep_their_port_follow_the_container_that_publishes_now() {
    let world = World::new();
    let _bridge = world.container(9, &[]);
    // One client is outside, the other on the host; both keep one socket all the time.
    let client = |namespace| inside(namespace, || std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    let clients = [client(&world.outside), client(&world.host)];
    let answers =
        || clients.each_ref().map(|c| ask(c, HOST, 5353).ok().map(|a| a.split(' ').next().unwrap().to_owned()));
    let all = |name: &str| [Some(name.to_owned()), Some(name.to_owned())];
    let unrelated = client(&world.outside);
    udp_server(&world.host, 9999, "unrelated");
    assert!(ask(&unrelated, HOST, 9999).is_ok());
    assert_eq!(answers(), [None, None], "nobody is there yet");
    for (number, name) in [(1, "first"), (2, "second")] {
        let (record, dns) = world.container(number, &[udp_port(5353, 53)]);
        udp_server(&dns.netns, 53, name);
        assert_eq!(answers(), all(name));
        world.detach(&record);
        assert_eq!(answers(), [None, None], "{name} is gone");
    }
    assert!(ask(&unrelated, HOST, 9999).is_ok());
}

#[test]
fn root_a_port_published_on_one_address_answers_there_only() {
    let world = World::new();
    let on = |ip, number| port(ip, number, 80, Protocol::Tcp);
    let (_, web) = world.container(1, &[on(HOST, 8080), on(LOOPBACK, 9090)]);
    tcp_server(&web.netns, 80, "web");
    assert_eq!(tcp(&world.outside, HOST, 8080), sees("web", OUTSIDE));
    assert!(tcp_refused(&world.host, LOOPBACK, 8080));
    assert!(tcp(&world.host, LOOPBACK, 9090).is_ok());
    assert!(tcp_refused(&world.host, HOST, 9090));
    assert!(tcp_refused(&world.outside, HOST, 9090));
}

#[test]
fn root_containers_reach_the_outside_with_the_hosts_address() {
    let world = World::new();
    let (_, client) = world.container(1, &[]);
    tcp_server(&world.outside, 443, "internet");
    udp_server(&world.outside, 53, "internet");
    assert_eq!(tcp(&client.netns, OUTSIDE, 443), sees("internet", HOST));
    assert_eq!(tcp(&client.netns, FOREIGN, 443), sees("internet", HOST));
    assert_eq!(udp(&client.netns, OUTSIDE, 53), sees("internet", HOST));
}

#[test]
fn root_containers_reach_each_other_directly_with_their_own_addresses() {
    let world = World::new();
    let (a, first) = world.container(1, &[]);
    let (b, second) = world.container(2, &[]);
    tcp_server(&second.netns, 80, "second");
    assert_eq!(tcp(&first.netns, b.ip, 80), sees("second", a.ip));
}

/// With bridge netfilter, bridged packets meet the same rules; both ways must work.
fn hairpin(bridge_netfilter: bool) {
    let world = World::new();
    let (record, web) = world.container(1, &[tcp_port(8080, 80)]);
    let (_, client) = world.container(2, &[]);
    let value = u8::from(bridge_netfilter);
    world.on_host(&format!("test ! -e /proc/sys/net/bridge || sysctl -qw net.bridge.bridge-nf-call-iptables={value}"));
    tcp_server(&web.netns, 80, "web");
    for address in [HOST, record.gateway] {
        assert_eq!(tcp(&client.netns, address, 8080), sees("web", record.gateway), "from another container");
        assert_eq!(tcp(&web.netns, address, 8080), sees("web", record.gateway), "from itself");
    }
    assert!(tcp(&client.netns, record.ip, 80).is_ok());
}

#[test]
fn root_a_container_reaches_published_ports_of_itself_and_others_through_the_host() {
    hairpin(false);
}

#[test]
fn root_a_container_reaches_published_ports_also_with_bridge_netfilter() {
    hairpin(true);
}

#[test]
fn root_cve_2025_67499_traffic_to_foreign_addresses_is_not_intercepted() {
    let world = World::new();
    let (_, web) = world.container(1, &[tcp_port(8080, 80)]);
    let (_, client) = world.container(2, &[]);
    tcp_server(&web.netns, 80, "web");
    tcp_server(&world.outside, 8080, "internet");
    for address in [FOREIGN, OUTSIDE] {
        assert_eq!(tcp(&client.netns, address, 8080), sees("internet", HOST));
        assert_eq!(tcp(&world.host, address, 8080), sees("internet", HOST));
    }
}

#[test]
fn root_unpublished_ports_of_containers_are_not_routable_from_outside() {
    let world = World::new();
    let (record, web) = world.container(1, &[tcp_port(8080, 80)]);
    tcp_server(&web.netns, 80, "web");
    tcp_server(&web.netns, 81, "secret");
    inside(&world.outside, || run(&format!("ip route add {} via {HOST}", record.subnet)));
    assert!(tcp_refused(&world.outside, record.ip, 81));
    assert!(tcp_refused(&world.outside, record.ip, 80));
    assert!(tcp(&world.outside, HOST, 8080).is_ok());
}

#[test]
fn root_a_container_cannot_claim_to_be_loopback_nor_reach_it() {
    let world = World::new();
    let (record, evil) = world.container(1, &[]);
    let (ear, secret) = (udp_ear(&world.host, Ipv4Addr::UNSPECIFIED, 7000), udp_ear(&world.host, LOOPBACK, 7001));
    let forge = |from, to, port| forge_udp(&evil.netns, record.gateway, from, to, port);
    forge(record.ip, record.gateway, 7000);
    assert!(hears(&ear), "the benign twin arrives");
    forge(LOOPBACK, record.gateway, 7000);
    assert!(!hears(&ear), "source 127.0.0.1");
    forge(Ipv4Addr::new(127, 9, 9, 9), record.gateway, 7000);
    assert!(!hears(&ear), "source 127.9.9.9");
    forge(record.ip, LOOPBACK, 7001);
    assert!(!hears(&secret), "destination 127.0.0.1");
    // The rules are what protects: without them the packet gets through, because of route_localnet.
    world.on_host("nft flush chain ip onggi spoofing");
    forge(record.ip, LOOPBACK, 7001);
    assert!(hears(&secret), "this test has power");
}

#[test]
fn root_a_neighbour_cannot_reach_ports_published_on_loopback() {
    let world = World::new();
    let (_, dns) = world.container(1, &[port(LOOPBACK, 5353, 53, Protocol::Udp)]);
    let ear = udp_ear(&dns.netns, Ipv4Addr::UNSPECIFIED, 53);
    forge_udp(&world.outside, HOST, OUTSIDE, LOOPBACK, 5353);
    assert!(!hears(&ear));
    forge_udp(&world.host, LOOPBACK, LOOPBACK, LOOPBACK, 5353);
    assert!(hears(&ear), "the host itself reaches it");
    world.on_host(
        "handle=$(nft -a list chain ip onggi publish_in | sed -n 's/.*return.* handle //p'); \
         nft delete rule ip onggi publish_in handle $handle",
    );
    forge_udp(&world.outside, HOST, OUTSIDE, LOOPBACK, 5353);
    assert!(hears(&ear), "this test has power: without the rule it gets through");
}

#[test]
fn root_cve_2020_13401_a_containers_router_advertisement_is_ignored() {
    let world = World::new();
    let (_, evil) = world.container(1, &[]);
    let (_, victim) = world.container(2, &[]);
    // A container with the right to do so turns IPv6 on for itself and claims to be a router.
    let enable = "sysctl -qw net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.disable_ipv6=0; \
                  until ip -6 addr show dev eth0 scope link -tentative | grep -q fe80; do sleep 0.02; done";
    inside(&evil.netns, || run(enable));
    let advertise = || {
        advertise_router(&evil.netns, 2);
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    let v6 = |namespace: &dyn AsFd, link: &str| {
        inside(namespace.as_fd(), || {
            run(&format!("ip -6 addr show dev {link} scope global; ip -6 route show dev {link}"))
        })
    };
    advertise();
    assert_eq!(v6(&victim.netns, "eth0"), "");
    assert_eq!(v6(&world.host, "onggi0"), "");
    // The benign twin: whoever wants IPv6 and listens gets it, so the advertisement was a good one.
    inside(&victim.netns, || run(&format!("sysctl -qw net.ipv6.conf.eth0.accept_ra=1; {enable}")));
    advertise();
    assert!(v6(&victim.netns, "eth0").contains("2001:db8::"));
}

#[test]
fn root_an_attach_heals_a_flushed_firewall_for_everybody() {
    let world = World::new();
    let (_, web) = world.container(1, &[tcp_port(8080, 80), udp_port(5353, 53)]);
    tcp_server(&web.netns, 80, "web");
    udp_server(&web.netns, 53, "dns");
    let works = || tcp(&world.outside, HOST, 8080).is_ok() && udp(&world.outside, HOST, 5353).is_ok();
    assert!(works());
    let damage = [
        "nft flush ruleset",
        "nft flush table ip onggi",
        "nft flush chain ip onggi publish_in",
        "nft delete table ip onggi; nft add table ip onggi",
        "nft add rule ip onggi publish_in drop",
        "nft flush set ip onggi bridges; nft flush set ip onggi subnets; nft flush set ip onggi peers",
    ];
    for (number, damage) in (10..).zip(damage) {
        world.on_host(damage);
        let (_, other) = world.container(number, &[]);
        assert!(works(), "after {damage}");
        tcp_server(&world.outside, 4000 + u16::from(number), "internet");
        assert!(tcp(&other.netns, OUTSIDE, 4000 + u16::from(number)).is_ok(), "after {damage}");
    }
}

#[test]
fn root_heal_rebuilds_a_flushed_firewall_without_a_new_container() {
    let world = World::new();
    let heal = || inside(&world.host, || onggi_network::heal(world.runroot.path())).unwrap();
    assert!(!heal(), "no bridge, nothing to do");
    assert_eq!(world.on_host("nft list ruleset"), "");
    let (_, web) = world.container(1, &[tcp_port(8080, 80)]);
    tcp_server(&web.netns, 80, "web");
    tcp_server(&world.outside, 443, "internet");
    assert!(!heal(), "complete");
    let before = world.on_host("nft list ruleset");
    world.on_host("nft flush ruleset");
    assert!(heal());
    assert_eq!(world.on_host("nft list ruleset"), before);
    assert!(tcp(&world.outside, HOST, 8080).is_ok() && tcp(&web.netns, OUTSIDE, 443).is_ok());
}

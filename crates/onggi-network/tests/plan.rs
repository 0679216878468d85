//! What the planner decides, as readable snapshots; no root, no kernel.

use std::{collections::BTreeSet, net::Ipv4Addr, num::NonZeroU16};

use onggi_network::{
    BridgeFacts, BridgeRequest, ForwardPolicy, Ipv4Subnet, NetFacts, NetOp, NetworkPlan, Obstacle, PlanError, PortFact,
    PublishedPort, TableFacts, plan_bridge, plan_none,
};
use onggi_spec::{
    ContainerId,
    port::{PortMapping, Protocol},
};

fn id(number: u8) -> ContainerId {
    ContainerId::from_random([number; 32])
}

fn net(text: &str) -> Ipv4Subnet {
    text.to_owned().try_into().unwrap()
}

fn published(host: u16, container: u16) -> PublishedPort {
    PublishedPort {
        host_ip: Ipv4Addr::UNSPECIFIED,
        host_port: NonZeroU16::new(host).unwrap(),
        container_port: NonZeroU16::new(container).unwrap(),
        protocol: Protocol::Tcp,
    }
}

fn wants(found: Result<PublishedPort, Obstacle>) -> PortFact {
    PortFact { wanted: PortMapping::from(published(8080, 80)), found }
}

fn fresh_host() -> NetFacts {
    NetFacts {
        bridge: None,
        routes: vec![net("192.0.2.0/24")],
        mtu: 1400,
        ip_forward: false,
        ipv6: true,
        table: TableFacts::Incomplete { generation: Some(1), restore: Vec::new() },
        leased: BTreeSet::new(),
        ports: Vec::new(),
        links: BTreeSet::new(),
        forward_policies: Vec::new(),
    }
}

fn busy_host() -> NetFacts {
    let address = Some((Ipv4Addr::new(10, 89, 0, 1), net("10.89.0.0/20")));
    let bridge =
        BridgeFacts { kind: "bridge".into(), mtu: 1500, up: true, address, route_localnet: true, ipv6_off: true };
    NetFacts { bridge: Some(bridge), ip_forward: true, table: TableFacts::Complete, mtu: 1500, ..fresh_host() }
}

fn plan(facts: &NetFacts) -> Result<NetworkPlan, PlanError> {
    let ports = facts.ports.iter().map(|p| p.wanted).collect();
    plan_bridge(&BridgeRequest { id: id(1), name: None, hostname: None, ports, sysctls: Vec::new() }, facts)
}

#[test]
fn the_first_container_builds_the_whole_network() {
    let facts = NetFacts { ports: vec![wants(Ok(published(8080, 80)))], ..fresh_host() };
    insta::assert_snapshot!(plan(&facts).unwrap().words());
}

#[test]
fn a_later_container_adds_only_itself() {
    insta::assert_snapshot!(plan(&busy_host()).unwrap().words());
}

#[test]
fn none_is_a_namespace_with_loopback() {
    insta::assert_snapshot!(plan_none().words(), @r"
    create a network namespace
    bring lo up inside the namespace
    ");
}

#[test]
fn the_script_is_plain_shell() {
    let facts = NetFacts { ports: vec![wants(Ok(published(8080, 80)))], ..fresh_host() };
    insta::assert_snapshot!(plan(&facts).unwrap().shell());
}

#[test]
fn a_plan_survives_json() {
    let facts = NetFacts { ports: vec![wants(Ok(published(8080, 80)))], ..fresh_host() };
    let plan = plan(&facts).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<NetworkPlan>(&json).unwrap(), plan);
}

#[test]
fn routes_of_the_host_are_avoided() {
    let chosen = |routes: &[&str]| {
        let facts = NetFacts { routes: routes.iter().map(|r| net(r)).collect(), ..fresh_host() };
        plan(&facts).map(|p| p.record.unwrap().subnet.to_string())
    };
    assert_eq!(chosen(&[]).unwrap(), "10.89.0.0/20");
    assert_eq!(chosen(&["10.89.3.0/24"]).unwrap(), "10.90.0.0/20");
    assert_eq!(chosen(&["10.0.0.0/8"]).unwrap(), "172.20.0.0/20");
    assert_eq!(chosen(&["10.0.0.0/8", "172.16.0.0/12"]).unwrap(), "192.168.160.0/22");
    assert_eq!(chosen(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]).unwrap_err(), PlanError::NoSubnet);
}

#[test]
fn addresses_are_never_given_twice_and_run_out_with_a_named_error() {
    let small = net("10.89.0.0/29");
    let mut facts = busy_host();
    facts.bridge.as_mut().unwrap().address = Some((small.gateway(), small));
    for _ in 0..5 {
        let ip = plan(&facts).unwrap().record.unwrap().ip;
        assert!(small.contains(ip) && ip != small.gateway() && ip != small.broadcast() && ip != small.address());
        assert!(facts.leased.insert(ip), "{ip} twice");
    }
    assert_eq!(plan(&facts).unwrap_err(), PlanError::NoAddress { subnet: small });
}

#[test]
fn a_taken_port_is_refused_with_its_holder_and_a_hint() {
    let error = |obstacle| plan(&NetFacts { ports: vec![wants(Err(obstacle))], ..busy_host() }).unwrap_err();
    let by_container = error(Obstacle::Container(id(7)));
    assert_eq!(
        by_container.to_string(),
        format!("cannot publish tcp port 8080 on 0.0.0.0: it is already used by container {}", id(7))
    );
    assert_eq!(by_container.hint(), "choose another host port, or stop that container");
    assert!(error(Obstacle::OtherProgram).to_string().ends_with("already used by another program on this host"));
    assert!(error(Obstacle::OtherProgram).hint().contains("ss -lntup"));
    let twice = NetFacts { ports: vec![wants(Ok(published(8080, 80))), wants(Ok(published(8080, 81)))], ..busy_host() };
    assert_eq!(plan(&twice).unwrap_err(), PlanError::PortTwice { port: 8080, protocol: "tcp".into() });
}

#[test]
fn a_device_with_the_bridges_name_is_not_taken_over() {
    let mut facts = busy_host();
    facts.bridge.as_mut().unwrap().kind = "dummy".into();
    let error = plan(&facts).unwrap_err();
    assert_eq!(error.to_string(), "onggi0 exists and is a dummy device, not a bridge");
}

#[test]
fn a_firewall_that_drops_forwarded_packets_is_named_not_overridden() {
    let policy = ForwardPolicy { family: "ip".into(), table: "filter".into(), chain: "FORWARD".into() };
    let plan = plan(&NetFacts { forward_policies: vec![policy], ..busy_host() }).unwrap();
    assert!(plan.warnings[0].contains("`ip filter FORWARD` drops forwarded packets"), "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("nft insert rule ip filter FORWARD iifname \"onggi0\" accept"));
}

#[test]
fn a_flushed_table_comes_back_with_the_ports_of_others_and_ours_win() {
    let other = |number, port| {
        let mut record = plan(&busy_host()).unwrap().record.unwrap();
        record.id = id(number);
        record.ports = vec![published(port, 80)];
        record
    };
    // 8080 is ours now, so the record of container 3 is stale; 9090 is claimed twice and kept once.
    let restore = vec![other(2, 9090), other(3, 8080), other(4, 9090)];
    let facts = NetFacts {
        table: TableFacts::Incomplete { generation: Some(5), restore },
        ports: vec![wants(Ok(published(8080, 80)))],
        ..busy_host()
    };
    let plan = plan(&facts).unwrap();
    let restored = plan.ops.iter().find_map(|op| match op {
        NetOp::InstallTable { restore, generation: Some(5) } => Some(restore.clone()),
        _ => None,
    });
    let text = serde_json::to_string(&restored.unwrap()).unwrap();
    assert_eq!(text.matches("\"host_port\":9090").count(), 1, "{text}");
    assert!(text.contains(id(2).as_str()) && !text.contains(":8080"), "{text}");
}

#[test]
fn a_lingering_device_of_the_same_container_is_stepped_around() {
    let first = plan(&busy_host()).unwrap().record.unwrap().veth;
    assert_eq!(first.len(), 15);
    let facts = NetFacts { links: [first.clone()].into(), ..busy_host() };
    let second = plan(&facts).unwrap().record.unwrap().veth;
    assert_ne!(first, second);
}

#[test]
fn a_kernel_without_ipv6_gets_no_ipv6_settings() {
    let words = plan(&NetFacts { ipv6: false, ..fresh_host() }).unwrap().words();
    assert!(!words.to_lowercase().contains("ipv6"), "{words}");
}

//! `net …`: beside ip(8), bridge(8) and nft(8).

use std::collections::BTreeSet;

use onggi_tests::machine::sh;
use serde_json::Value;

use crate::Stage;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// What `net ls --format json` says of a namespace.
fn view(stage: &Stage, name: &str) -> Value {
    json(&stage.onggi.ok(&["net", "ls", name, "--format", "json"]))
}

/// `name kind state addresses` of every device, as `ip -j -d addr` tells it.
fn devices_of_ip(namespace: &str) -> BTreeSet<String> {
    let all = json(&sh(&format!("ip {namespace} -j -d addr")));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
    let one = |link: &Value| {
        let addresses: Vec<String> = link["addr_info"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|a| format!("{}/{}", a["local"].as_str().unwrap_or_default(), a["prefixlen"]))
            .collect();
        let kind = text(&link["linkinfo"]["info_kind"]);
        format!("{} {kind} {} {} {}", text(&link["ifname"]), link["mtu"], text(&link["master"]), addresses.join(","))
    };
    all.as_array().expect("a list").iter().map(one).collect()
}

fn devices_of(view: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |link: &Value| {
        let [name, kind, master, addresses] = ["Name", "Kind", "Master", "Addresses"].map(|key| text(&link[key]));
        format!("{name} {kind} {} {master} {addresses}", link["Mtu"])
    };
    view["Links"].as_array().expect("a list").iter().map(one).collect()
}

fn routes_of_ip(namespace: &str) -> BTreeSet<String> {
    let all = json(&sh(&format!("ip {namespace} -j route")));
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    all.as_array()
        .expect("a list")
        .iter()
        .map(|r| ["dst", "gateway", "dev"].map(|key| text(&r[key])).join(" "))
        .collect()
}

fn routes_of(view: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let all = view["Routes"].as_array().expect("a list").iter();
    all.map(|r| ["To", "Via", "Link"].map(|key| text(&r[key])).join(" ")).filter(|r| !r.contains(':')).collect()
}

/// Devices without their hardware addresses, routes and rules, of this machine and of named namespaces.
fn everything(names: &[&str]) -> String {
    let look = "link | grep -o '^[0-9]*: [^:]*\\|alias .*\\|master [^ ]*' | sed 's/@if[0-9]*//'";
    let mut out = sh(&format!(
        "ip {look}; ip -4 addr | grep inet || true; ip -4 route; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward"
    ));
    for name in names {
        out += &sh(&format!("ip -n {name} {look}; ip -n {name} -4 addr | grep inet || true; ip -n {name} -4 route"));
    }
    out
}

#[test]
fn e2e_networks_are_shown_as_ip_and_nft_show_them() {
    let stage = Stage::new();
    sh("ip netns add blue; ip link add v0 type veth peer name v1 netns blue; ip link add br0 type bridge
        ip link set v0 master br0; ip link set br0 up; ip link set v0 up; ip addr add 10.10.0.1/24 dev br0
        ip -n blue addr add 10.10.0.2/24 dev v1; ip -n blue link set v1 up; ip -n blue route add default via 10.10.0.1
        nft add table ip my; nft add chain ip my post '{ type nat hook postrouting priority 100; }'
        nft add rule ip my post ip saddr 10.10.0.0/24 oifname != br0 masquerade
        nft add chain ip my pre '{ type nat hook prerouting priority -100; }'
        nft add rule ip my pre tcp dport 8080 dnat to 10.10.0.2:80");
    let publish = ["run", "-d", "--name", "box", "-p", "8099:80", &stage.busybox, "sleep", "300"];
    stage.onggi.ok(&publish);
    for (name, option) in [("host", ""), ("blue", "-n blue")] {
        let seen = view(&stage, name);
        assert_eq!(devices_of(&seen), devices_of_ip(option), "{name}");
        assert_eq!(routes_of(&seen), routes_of_ip(option), "{name}");
    }
    let host = view(&stage, "host");
    let link = |view: &Value, name: &str| {
        view["Links"].as_array().expect("a list").iter().find(|l| l["Name"] == name).cloned().expect(name)
    };
    assert_eq!((&link(&host, "v0")["Peer"], &link(&host, "v0")["PeerNamespace"]), (&"v1".into(), &"blue".into()));
    let blue = view(&stage, "blue");
    assert_eq!((&link(&blue, "v1")["Peer"], &link(&blue, "v1")["PeerNamespace"]), (&"v0".into(), &"host".into()));
    let container = view(&stage, "box");
    assert_eq!((&container["Container"], &link(&container, "eth0")["PeerNamespace"]), (&"box".into(), &"host".into()));
    let rules: Vec<&str> = host["Nat"].as_array().expect("a list").iter().filter_map(|r| r["Rule"].as_str()).collect();
    assert!(rules.contains(&"ip saddr 10.10.0.0/24 oifname != \"br0\" masquerade"), "{rules:?}");
    assert!(rules.iter().any(|r| r.contains("dport 8080") && r.contains("dnat to 10.10.0.2:80")), "{rules:?}");
    let address = stage.onggi.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "box"]);
    let ports = &host["Ports"][0];
    assert_eq!((&ports["HostPort"], &ports["Port"], &ports["To"]), (&8099.into(), &80.into(), &address.into()));
    let picture = stage.onggi.ok(&["net", "ls"]);
    for part in [
        "+- v0  veth  up",
        "<-> v1 in blue",
        "port  0.0.0.0:8099/tcp",
        "(container box)",
        "container box)",
        "masquerade",
    ] {
        assert!(picture.contains(part), "{part:?} is missing in\n{picture}");
    }
    stage.onggi.ok(&["rm", "-f", "box"]);
    sh("ip netns del blue; umount /run/netns; ip link del br0; nft delete table ip my");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_namespaces_are_connected_as_by_hand_and_again_changes_nothing() {
    let stage = Stage::new();
    sh("ip netns add jail");
    let pair = ["net", "connect", "host", "jail", "--name", "veth0,veth1", "--address", "10.0.123.1/24,10.0.123.2/24"];
    let script = stage.onggi.ok(&[&pair[..], &["--explain=sh"]].concat());
    sh(&script);
    let by_hand = everything(&["jail"]);
    sh("ip link del veth0; ip -n jail link set lo down");
    let words = stage.onggi.ok(&[&pair[..], &["--explain"]].concat());
    assert!(words.contains("create a veth pair: veth0 in host, veth1 in jail"), "{words}");
    stage.onggi.ok(&pair);
    let numberless = |text: &str| {
        text.lines().map(|l| l.split_once(": ").map_or(l, |(_, rest)| rest).to_owned() + "\n").collect::<String>()
    };
    assert_eq!(numberless(&everything(&["jail"])), numberless(&by_hand), "{script}");
    assert_eq!(sh("busybox ping -c 1 -W 2 10.0.123.2 > /dev/null && ip netns exec jail busybox ping -c 1 -W 2 10.0.123.1 > /dev/null && echo pong").trim(), "pong");
    let before = everything(&["jail"]);
    stage.onggi.ok(&pair);
    assert_eq!(everything(&["jail"]), before);
    assert_eq!(stage.onggi.ok(&[&pair[..], &["--explain"]].concat()), "nothing is to be done: it is so already");
    let made = ["net", "connect", "jail", "green", "--create", "--address", "10.0.9.1/24,10.0.9.2/24"];
    stage.onggi.ok(&made);
    assert_eq!(sh("ip netns exec jail busybox ping -c 1 -W 2 10.0.9.2 > /dev/null && echo pong").trim(), "pong");
    assert!(sh("ip netns list").contains("green"));
    for (arguments, part) in [
        (&["host", "nowhere"][..], "there is no network namespace nowhere"),
        (&["host", "jail", "--name", "lo,x"], "there is another lo in host"),
        (&["host", "jail", "--name", "a/b"], "is no name of a device"),
        (&["host", "jail", "--address", "10.0.0.300/24"], "10.0.0.300/24"),
        (&["host", "/etc/passwd"], "is no network namespace that you may enter"),
    ] {
        let refused = stage.onggi.run(&[&["net", "connect"], arguments].concat());
        assert!(refused.code != Some(0) && refused.stderr.contains(part), "{refused}");
    }
    for _ in 0..2 {
        stage.onggi.ok(&["net", "connect", "host", "jail", "--name", "veth0", "--remove"]);
    }
    sh("ip netns del jail; ip netns del green; umount /run/netns");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_bridge_with_nat_is_made_as_by_hand_and_taken_away_again() {
    let stage = Stage::new();
    sh("ip netns add blue; ip netns add red; ip netns add world; echo 0 > /proc/sys/net/ipv4/ip_forward");
    let clean = everything(&["blue", "red"]);
    let bridge = [
        "net",
        "bridge",
        "br9",
        "--address",
        "10.20.0.1/16",
        "--nat",
        "--attach",
        "blue=10.20.0.2",
        "--attach",
        "red=10.20.1.3/16,net0",
    ];
    let script = stage.onggi.ok(&[&bridge[..], &["--explain=sh"]].concat());
    sh(&script);
    let by_hand = everything(&["blue", "red"]);
    let numberless = |text: &str| {
        let mut lines: Vec<String> =
            text.lines().map(|l| l.split_once(": ").map_or(l, |(_, rest)| rest).to_owned()).collect();
        lines.sort();
        lines.join("\n")
    };
    stage.onggi.ok(&["net", "bridge", "br9", "--remove"]);
    sh(
        "for n in blue red; do ip -n $n link set lo down; ip -n $n addr flush dev lo; done; echo 0 > /proc/sys/net/ipv4/ip_forward",
    );
    assert_eq!(numberless(&everything(&["blue", "red"])), numberless(&clean), "the remover knows what the script made");
    stage.onggi.ok(&bridge);
    assert_eq!(numberless(&everything(&["blue", "red"])), numberless(&by_hand), "{script}");
    let before = everything(&["blue", "red"]);
    stage.onggi.ok(&bridge);
    assert_eq!(everything(&["blue", "red"]), before, "again changes nothing");
    let members = sh("bridge -j link show | tr ',' '\\n' | grep -c '\"master\":\"br9\"'");
    assert_eq!(members.trim(), "2");
    assert_eq!(sh("ip netns exec blue busybox ping -c 1 -W 2 10.20.1.3 > /dev/null && echo pong").trim(), "pong");
    stage.onggi.ok(&["net", "connect", "host", "world", "--address", "203.0.113.1/24,203.0.113.2/24"]);
    let through = sh("ip netns exec blue busybox ping -c 1 -W 2 203.0.113.2 > /dev/null && echo pong");
    assert_eq!(through.trim(), "pong", "the world has no route back: only translation brings the answer");
    let refused = stage.onggi.run(&["net", "bridge", "lo", "--address", "10.1.0.1/24"]);
    assert!(refused.stderr.contains("there is another lo"), "{refused}");
    let refused = stage.onggi.run(&["net", "bridge", "br8", "--nat"]);
    assert!(refused.stderr.contains("NAT needs the bridge's network"), "{refused}");
    for (attach, part) in
        [("red=10.21.0.2,net1", "outside of the network 10.20.0.0/16"), ("red=10.20.0.1,net1", "br9 itself")]
    {
        let refused = stage.onggi.run(&["net", "bridge", "br9", "--attach", attach]);
        assert!(refused.stderr.contains(part) && refused.stderr.contains("hint: choose"), "{refused}");
    }
    assert_eq!(everything(&["blue", "red"]).matches("net1").count(), 0, "a refusal makes nothing");
    let refused = stage.onggi.run(&["net", "connect", "blue", "red", "--address", "10.9.0.1/24,10.9.0.1/24"]);
    assert!(refused.stderr.contains("both ends cannot have the address 10.9.0.1"), "{refused}");
    for _ in 0..2 {
        stage.onggi.ok(&["net", "bridge", "br9", "--remove"]);
    }
    sh("ip netns del blue; ip netns del red; ip netns del world; umount /run/netns");
    stage.onggi.assert_nothing_left();
}

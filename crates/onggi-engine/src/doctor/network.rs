//! The network: nftables, forwarding, the bridge, rules of others that are in the way, name servers.

use onggi_network::TableFacts;

use super::{DoctorFacts, Finding, Level};

const GROUP: &str = "network";

pub(super) fn judge(f: &DoctorFacts) -> Vec<Finding> {
    let mut out = Vec::new();
    if !f.rootless {
        out.extend([nftables(f), forwarding(f), bridge(f), table(f), policies(f)]);
    } else {
        out.push(low_ports(f));
    }
    out.push(dns(f));
    out
}

fn nftables(f: &DoctorFacts) -> Finding {
    let why = "address translation and published ports of the bridge network";
    match &f.network {
        Ok(_) => Finding::ok(GROUP, "nftables", "yes", why),
        Err(e) => Finding::ok(GROUP, "nftables", e, why)
            .bad(Level::Fail, "modprobe nf_tables nft_chain_nat nft_masq; or use --network host or none"),
    }
}

/// The engine turns it on with the first bridge; a rule of the administrator may turn it off again.
fn forwarding(f: &DoctorFacts) -> Finding {
    let on = f.sysctls.get("net/ipv4/ip_forward").is_some_and(|v| v == "1");
    let in_use = f.network.as_ref().is_ok_and(|n| n.bridge.is_some());
    let text = match (on, in_use) {
        (true, _) => "on",
        (false, true) => "off, although the bridge is there",
        (false, false) => "off; turned on with the first container on the bridge",
    };
    let found = Finding::ok(GROUP, "ip-forward", text, "packets between the bridge and the rest of the world");
    found.when(!on && in_use, Level::Warn, "sysctl -w net.ipv4.ip_forward=1")
}

fn bridge(f: &DoctorFacts) -> Finding {
    let there = f.network.as_ref().is_ok_and(|n| n.bridge.is_some());
    let text = if there { "onggi0 is there" } else { "made with the first container that needs it" };
    Finding::ok(GROUP, "bridge", text, "containers with addresses of their own")
}

/// A table that somebody has flushed is noticed by nobody until a container starts.
fn table(f: &DoctorFacts) -> Finding {
    let network = f.network.as_ref().ok();
    let whole = network.is_some_and(|n| n.table == TableFacts::Complete);
    let in_use = network.is_some_and(|n| n.bridge.is_some() && !n.leased.is_empty());
    let text = match (whole, in_use) {
        (true, _) => "the table ip onggi is whole",
        (false, true) => "the table ip onggi is not whole: somebody has flushed or changed the rules",
        (false, false) => "made with the first container that needs it",
    };
    let found =
        Finding::ok(GROUP, "firewall", text, "running containers reach the world, and their published ports work");
    found.when(!whole && in_use, Level::Fail, "onggi net repair")
}

fn policies(f: &DoctorFacts) -> Finding {
    let list = f.network.as_ref().map(|n| n.forward_policies.len()).unwrap_or_default();
    let text = if list == 0 { "none".to_owned() } else { format!("{list} chain(s) drop forwarded packets") };
    let found = Finding::ok(GROUP, "forward-policy", text, "a DROP policy of Docker or ufw also drops our packets");
    found.when(
        list > 0,
        Level::Warn,
        "iptables -I FORWARD -i onggi0 -j ACCEPT; iptables -I FORWARD -o onggi0 -j ACCEPT",
    )
}

fn low_ports(f: &DoctorFacts) -> Finding {
    let first: u32 = f.sysctls.get("net/ipv4/ip_unprivileged_port_start").and_then(|v| v.parse().ok()).unwrap_or(1024);
    let text = format!("from {first} on");
    let found = Finding::ok(GROUP, "low-ports", text, "ports that --network host lets you open without root");
    found.when(first > 80, Level::Ok, "sysctl -w net.ipv4.ip_unprivileged_port_start=80 (if you want port 80)")
}

fn dns(f: &DoctorFacts) -> Finding {
    let local = |s: &String| s.starts_with("127.") || s == "::1";
    let found = |text: String| Finding::ok(GROUP, "dns", text, "containers get these name servers");
    match f.nameservers.as_slice() {
        [] => found("resolv.conf names no server".to_owned())
            .bad(Level::Warn, "echo nameserver 9.9.9.9 >> /etc/resolv.conf"),
        all if all.iter().all(local) => found(format!("{}: only on the host's own loopback", all.join(" ")))
            .bad(Level::Warn, "systemctl enable --now systemd-resolved (its upstream servers are then used)"),
        all => found(all.join(" ")),
    }
}

//! Worlds for tests that need root: a "host" network namespace of its own, an "outside" machine beyond a veth,
//! and containers attached by the library. Nothing touches the machine's own network.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod traffic;

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    num::NonZeroU16,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
};

use onggi_network::{Applied, BridgeRequest, NetworkPlan, NetworkRecord, apply, detach, prepare};
use onggi_spec::{
    ContainerId,
    port::{PortMapping, Protocol},
};
use onggi_sys::netns;
use tempfile::TempDir;

/// The host's address on the wire to the outside.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The outside machine.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// A machine that the host only forwards to, behind the outside one.
pub(crate) const FOREIGN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// A host with one neighbour.
pub(crate) struct World {
    pub(crate) host: OwnedFd,
    pub(crate) outside: OwnedFd,
    pub(crate) runroot: TempDir,
}

/// Runs a command; its output, or a panic with everything it said.
pub(crate) fn run(command: &str) -> String {
    let out = Command::new("sh").args(["-ec", command]).output().expect("sh");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{command}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// Runs `work` on a thread inside a namespace.
pub(crate) fn inside<T: Send>(namespace: impl AsFd, work: impl FnOnce() -> T + Send) -> T {
    netns::enter(namespace.as_fd(), work).expect("setns")
}

impl World {
    /// Host and outside, connected by `uplink` with MTU 1400.
    pub(crate) fn new() -> Self {
        let (host, ()) = netns::create(|| {
            // New namespaces inherit from the machine's own (net.core.devconf_inherit_init_net).
            run("ip link set lo up; sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.route_localnet=0");
        })
        .expect("unshare");
        let (outside, ()) = netns::create(|| {
            run("ip link set lo up");
        })
        .expect("unshare");
        let pid = std::process::id();
        inside(&host, || {
            run(&format!(
                "ip link add uplink mtu 1400 type veth peer name wire mtu 1400 netns /proc/{pid}/fd/{}",
                outside.as_raw_fd()
            ));
            run(&format!(
                "ip addr add {HOST}/24 dev uplink; ip link set uplink up; ip route add default via {OUTSIDE}"
            ));
        });
        inside(&outside, || {
            run(&format!(
                "ip addr add {OUTSIDE}/24 dev wire; ip addr add {FOREIGN}/32 dev lo; ip link set wire up; \
                 ip route add default via {HOST}"
            ));
        });
        Self { host, outside, runroot: TempDir::new_in("/dev/shm").expect("tempdir") }
    }

    pub(crate) fn attach(&self, request: &BridgeRequest) -> (NetworkPlan, Applied) {
        inside(&self.host, || {
            let plan = prepare(self.runroot.path(), request).unwrap_or_else(|e| panic!("{e:?}"));
            let applied = apply(self.runroot.path(), &plan).unwrap_or_else(|e| panic!("{e:?}"));
            (plan, applied)
        })
    }

    pub(crate) fn detach(&self, record: &NetworkRecord) {
        inside(&self.host, || detach(self.runroot.path(), record, false)).unwrap_or_else(|e| panic!("{e:?}"));
    }

    pub(crate) fn container(&self, number: u8, ports: &[PortMapping]) -> (NetworkRecord, Applied) {
        let (plan, applied) = self.attach(&request(number, ports));
        (plan.record.expect("a bridge plan has a record"), applied)
    }

    pub(crate) fn on_host(&self, command: &str) -> String {
        inside(&self.host, || run(command))
    }
}

pub(crate) fn id(number: u8) -> ContainerId {
    ContainerId::from_random([number; 32])
}

pub(crate) fn request(number: u8, ports: &[PortMapping]) -> BridgeRequest {
    BridgeRequest { id: id(number), name: None, hostname: None, ports: ports.to_vec(), sysctls: Vec::new() }
}

pub(crate) fn port(host_ip: Ipv4Addr, host: u16, container: u16, protocol: Protocol) -> PortMapping {
    let container_port = NonZeroU16::new(container).expect("not 0");
    PortMapping { host_ip, host_port: NonZeroU16::new(host), container_port, protocol }
}

pub(crate) fn tcp_port(host: u16, container: u16) -> PortMapping {
    port(Ipv4Addr::UNSPECIFIED, host, container, Protocol::Tcp)
}

pub(crate) fn udp_port(host: u16, container: u16) -> PortMapping {
    port(Ipv4Addr::UNSPECIFIED, host, container, Protocol::Udp)
}

pub(crate) fn nobody() -> BTreeSet<ContainerId> {
    BTreeSet::new()
}

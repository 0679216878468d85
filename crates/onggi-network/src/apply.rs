//! Applying a plan: one `match`, no policy. Requests to the same netlink socket are collected and sent at once.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use onggi_sys::{Errno, netns, trace};

use crate::{
    error::NetworkError,
    facts::{facts, ipv6},
    firewall, flows,
    plan::{NetOp, NetworkPlan, Side, container_sysctls, plan_bridge},
    ports, record,
    socket::Socket,
    sysctl,
    types::{BridgeRequest, PublishedPort},
    wire::{Batch, route},
};

/// How often facts are gathered again because another process got there first.
const TRIES: u32 = 24;

/// Sockets that are kept for one container; the ports beyond are only checked. A published range must not use up
/// the descriptors (1024 by default) or the memory of the process that keeps them.
const MAX_RESERVED: usize = 256;

/// A connected container.
#[derive(Debug)]
pub struct Applied {
    /// The container's network namespace; it lives as long as this or a process in it.
    pub netns: OwnedFd,
    /// The container's address; absent for `none`.
    pub ip: Option<Ipv4Addr>,
    /// Sockets bound to the published host ports, the first 256 of them. Whoever keeps them (the container's monitor) keeps other
    /// programs from taking the ports.
    pub reserved: Vec<OwnedFd>,
}

/// Gathers facts, plans, and takes the planned address, again and again until it is ours. What comes back is
/// stored by the engine (`NetworkPlan::record`) before `apply`.
///
/// # Errors
/// As `facts` and `plan_bridge`.
pub fn prepare(runroot: &Path, request: &BridgeRequest) -> Result<NetworkPlan, NetworkError> {
    for _ in 0..TRIES {
        let plan = plan_bridge(request, &facts(runroot, request)?).map_err(NetworkError::Plan)?;
        let Some(record) = &plan.record else { return Ok(plan) };
        if record::leases(runroot)?.acquire(record.ip, record.id.as_str()).map_err(NetworkError::File)? {
            return Ok(plan);
        }
    }
    Err(NetworkError::Busy)
}

/// Carries out a plan. On failure some of it may be done: call `detach` with the plan's record, as after a crash.
/// If only the firewall changed since the facts were gathered, its part is planned again by itself.
///
/// # Errors
/// Names the operation and the errno. `NetworkError::is_stale` tells that another process was faster.
pub fn apply(runroot: &Path, plan: &NetworkPlan) -> Result<Applied, NetworkError> {
    apply_with(runroot, plan, None)
}

/// As `apply`, with a namespace that was begun earlier; it is used if it has the settings that the plan wants.
///
/// # Errors
/// As `apply`.
pub fn apply_with(runroot: &Path, plan: &NetworkPlan, pending: Option<PendingNetns>) -> Result<Applied, NetworkError> {
    let mut applier = Applier::new(runroot, plan, pending)?;
    for op in &plan.ops {
        trace::step("network", || op.words(), || applier.operation(op))?;
    }
    trace::step(
        "network",
        || "send what is left to the kernel, the firewall in one transaction".into(),
        || applier.commit(),
    )?;
    let netns = applier.container.take().map(|c| c.netns).ok_or(NetworkError::Busy)?;
    Ok(Applied { netns, ip: plan.record.as_ref().map(|r| r.ip), reserved: applier.reserved })
}

struct Container {
    netns: OwnedFd,
    socket: Socket,
}

struct Applier<'a> {
    runroot: &'a Path,
    plan: &'a NetworkPlan,
    pending: Option<PendingNetns>,
    host: Socket,
    container: Option<Container>,
    /// Link requests not yet sent, all for one side, and which of them may find their work done already.
    links: Batch,
    side: Side,
    existing_is_fine: Vec<u32>,
    /// Interface indexes by (on the host, name).
    indexes: HashMap<(bool, String), u32>,
    /// Firewall requests, sent at the end as one transaction.
    firewall: Vec<&'a NetOp>,
    reserved: Vec<OwnedFd>,
}

impl<'a> Applier<'a> {
    fn new(runroot: &'a Path, plan: &'a NetworkPlan, pending: Option<PendingNetns>) -> Result<Self, NetworkError> {
        Ok(Self {
            runroot,
            plan,
            pending,
            host: Socket::route()?,
            container: None,
            links: Batch::default(),
            side: Side::Host,
            existing_is_fine: Vec::new(),
            indexes: HashMap::new(),
            firewall: Vec::new(),
            reserved: Vec::new(),
        })
    }

    fn operation(&mut self, op: &'a NetOp) -> Result<(), NetworkError> {
        match op {
            NetOp::TakeLease { ip, id, .. } => take_lease(self.runroot, *ip, id.as_str())?,
            NetOp::ReservePort { port } => {
                let held = reserve(port)?;
                if self.reserved.len() < MAX_RESERVED {
                    self.reserved.push(held);
                }
            }
            NetOp::Sysctl { key, value } => {
                self.send_links()?;
                sysctl::write(key, value)?;
            }
            NetOp::CreateNetns { sysctls } => self.container = Some(self.netns(sysctls)?),
            NetOp::CreateBridge { name, mac, mtu } => {
                self.on(Side::Host)?;
                route::create_bridge(&mut self.links, name, *mac, *mtu);
                self.existing_is_fine.push(self.links.last());
            }
            NetOp::CreateVeth { .. } => self.create_veth(op)?,
            NetOp::NoLinkLocal { name } => {
                self.on(Side::Host)?;
                route::no_link_local(&mut self.links, name);
            }
            NetOp::AddAddress { side, link, ip, subnet } => {
                let index = self.index(*side, link)?;
                route::add_address(&mut self.links, index, *ip, *subnet);
                self.existing_is_fine.push(self.links.last());
            }
            NetOp::LinkUp { side, link } => {
                self.on(*side)?;
                route::link_up(&mut self.links, link);
            }
            NetOp::AddDefaultRoute { via } => {
                self.on(Side::Container)?;
                route::add_default_route(&mut self.links, *via);
            }
            NetOp::SaveRecord => self.plan.record.iter().try_for_each(|r| record::save(self.runroot, r))?,
            NetOp::InstallTable { .. } | NetOp::AddElements { .. } => self.firewall.push(op),
            NetOp::ForgetFlows { ports } => {
                self.commit()?;
                flows::forget_before_publishing(ports)?;
            }
        }
        Ok(())
    }

    fn netns(&mut self, sysctls: &[(String, String)]) -> Result<Container, NetworkError> {
        let begun = self.pending.take().filter(|p| p.sysctls == sysctls);
        begun.map_or_else(|| PendingNetns::with(sysctls.to_vec()), Ok)?.wait()
    }

    fn create_veth(&mut self, op: &NetOp) -> Result<(), NetworkError> {
        let NetOp::CreateVeth { name, bridge, peer, peer_mac, mtu, alias } = op else { return Ok(()) };
        let index = self.index(Side::Host, bridge)?;
        let container = self.container.as_ref().ok_or(NetworkError::Busy)?;
        let netns = container.netns.as_fd();
        let veth = route::Veth { name, bridge: index, mtu: *mtu, peer, peer_mac: *peer_mac, netns, alias };
        route::create_veth(&mut self.links, &veth);
        Ok(())
    }

    /// Directs the following link requests to one side.
    fn on(&mut self, side: Side) -> Result<(), NetworkError> {
        if self.side != side {
            self.send_links()?;
            self.side = side;
        }
        Ok(())
    }

    fn send_links(&mut self) -> Result<(), NetworkError> {
        let mut batch = std::mem::take(&mut self.links);
        let fine = std::mem::take(&mut self.existing_is_fine);
        self.socket()?.change(&mut batch, |seq, errno| errno == Errno::EXIST && fine.contains(&seq))
    }

    fn socket(&self) -> Result<&Socket, NetworkError> {
        match self.side {
            Side::Host => Ok(&self.host),
            Side::Container => self.container.as_ref().map(|c| &c.socket).ok_or(NetworkError::Busy),
        }
    }

    /// The index of a device, after everything that may create it has been sent.
    fn index(&mut self, side: Side, name: &str) -> Result<u32, NetworkError> {
        self.on(side)?;
        let key = (side == Side::Host, name.to_owned());
        if let Some(index) = self.indexes.get(&key) {
            return Ok(*index);
        }
        self.send_links()?;
        let mut batch = Batch::default();
        route::get_link(&mut batch, name);
        let found = self.socket()?.ask(&mut batch, route::link)?;
        let Some(link) = found.first() else {
            let source = onggi_sys::SysError::new("netlink", format!("RTM_GETLINK {name}"), Errno::NODEV);
            return Err(NetworkError::Request { operation: format!("find {name}"), message: String::new(), source });
        };
        self.indexes.insert(key, link.index);
        Ok(link.index)
    }

    fn commit(&mut self) -> Result<(), NetworkError> {
        self.send_links()?;
        let firewall = std::mem::take(&mut self.firewall);
        firewall::commit(self.runroot, self.plan.record.as_ref(), &firewall)
    }
}

fn take_lease(runroot: &Path, ip: Ipv4Addr, id: &str) -> Result<(), NetworkError> {
    let leases = record::leases(runroot)?;
    // Usually `prepare` has taken it.
    let own = leases.owner(ip).map_err(NetworkError::File)?.as_deref() == Some(id);
    let taken = own || leases.acquire(ip, id).map_err(NetworkError::File)?;
    if taken { Ok(()) } else { Err(NetworkError::LeaseTaken { ip }) }
}

fn reserve(port: &PublishedPort) -> Result<OwnedFd, NetworkError> {
    let reserved = ports::reserve(port.host_ip, port.host_port.get(), port.protocol);
    reserved.map(|(fd, _)| fd).map_err(|obstacle| NetworkError::port(port, obstacle))
}

/// A container's network namespace in the making. The kernel takes about a millisecond for it, so an engine
/// starts it before anything else and hands it to `apply_with`.
#[derive(Debug)]
pub struct PendingNetns {
    sysctls: Vec<(String, String)>,
    pending: netns::Pending<Result<Socket, NetworkError>>,
}

impl PendingNetns {
    /// Starts one for a container on the bridge.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start() -> Result<Self, NetworkError> {
        Self::with(container_sysctls(ipv6()?))
    }

    /// The settings are written by the thread that made the namespace, because /proc/sys/net follows the thread.
    fn with(sysctls: Vec<(String, String)>) -> Result<Self, NetworkError> {
        let settings = sysctls.clone();
        let inside = move || {
            settings.iter().try_for_each(|(key, value)| sysctl::write(key, value))?;
            Socket::route()
        };
        let pending = netns::start(inside).map_err(create_error)?;
        Ok(Self { sysctls, pending })
    }

    fn wait(self) -> Result<Container, NetworkError> {
        let (netns, socket) = self.pending.wait().map_err(create_error)?;
        Ok(Container { netns, socket: socket? })
    }
}

fn create_error(source: onggi_sys::SysError) -> NetworkError {
    NetworkError::Call { operation: "create a network namespace", source }
}

//! The planners. Pure.

use std::net::IpAddr;

use super::{Cidr, End, HandOp, HandPlan, LinkView, NamespaceView, Place, fit, peer};
use crate::error::NetworkError;

/// IFNAMSIZ without the NUL.
const NAME_MAX: usize = 15;

/// A veth pair between two places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Names of the ends, where they are chosen: first and second.
    pub names: Vec<String>,
    /// Their addresses.
    pub addresses: Vec<Cidr>,
}

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeWish {
    /// Its name.
    pub name: String,
    /// Its own address.
    pub address: Option<Cidr>,
    /// Translate what leaves its network.
    pub nat: bool,
    /// What is attached; place `n` is view `n + 1`.
    pub attach: Vec<Attach>,
}

/// A namespace that is attached to a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// Name of the end inside.
    pub link: String,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Length of its network's prefix; the bridge's own when absent.
    pub prefix: Option<u8>,
}

/// The plan for a pair between the two places that `views` shows.
///
/// # Errors
/// A name is taken by another device, or is no name; one address for both ends.
pub fn plan_connect(request: &ConnectRequest, views: &[NamespaceView; 2]) -> Result<HandPlan, NetworkError> {
    fit::two_ends(&request.addresses)?;
    let same = views[0].inode == views[1].inode;
    // Both ends in one namespace can only be meant by who has named both.
    if same && request.names.len() < 2 {
        let [a, b] = [&views[0].place.name, &views[1].place.name];
        let message = match a == b {
            true => format!("{a} cannot be connected with itself"),
            false => format!("{a} and {b} have the same network: there is nothing to connect"),
        };
        return Err(refused(message, "name two network namespaces: onggi net ls shows them, --create makes one"));
    }
    let names: Vec<String> = (0..2)
        .map(|at| request.names.get(at).cloned().unwrap_or_else(|| default_name(same, at, &views[1 - at].place)))
        .collect();
    names.iter().try_for_each(|name| check_name(name))?;
    if same && names[0] == names[1] {
        return Err(refused(format!("both ends cannot be called {}", names[0]), "name them: --name A --name B"));
    }
    let ends = [0, 1].map(|at| End { place: views[at].place.clone(), link: names[at].clone() });
    let mut plan = HandPlan::default();
    if !connected(views, &names)? {
        plan.ops.push(HandOp::CreateVeth { a: ends[0].clone(), b: ends[1].clone(), alias: None });
    }
    for (at, end) in ends.iter().enumerate() {
        let there = find(&views[at], &end.link);
        if let Some(address) = request.addresses.get(at) {
            address_op(&mut plan, end, *address, there);
            fit::others(&mut plan, &views[at], *address, there);
        }
        up(&mut plan, end, there);
        loopback_up(&mut plan, &views[at]);
    }
    Ok(plan)
}

/// The plan that takes the pair away again.
///
/// # Errors
/// A device of that name is no veth.
pub fn plan_disconnect(request: &ConnectRequest, views: &[NamespaceView; 2]) -> Result<HandPlan, NetworkError> {
    let same = views[0].inode == views[1].inode;
    let name = request.names.first().cloned().unwrap_or_else(|| default_name(same, 0, &views[1].place));
    let mut plan = HandPlan::default();
    match find(&views[0], &name) {
        Some(link) if link.kind == "veth" => {
            plan.ops.push(HandOp::DeleteLink { end: End { place: views[0].place.clone(), link: name } });
        }
        Some(link) => return Err(taken(&views[0], link)),
        None => {}
    }
    Ok(plan)
}

/// The plan for a bridge in the place of the first view, with the other views attached.
///
/// # Errors
/// A name is taken, or is none; NAT is asked for without an address; an address that cannot work behind this bridge.
pub fn plan_bridge_by_hand(wish: &BridgeWish, views: &[NamespaceView]) -> Result<HandPlan, NetworkError> {
    check_name(&wish.name)?;
    let host = &views[0];
    let bridge = End { place: host.place.clone(), link: wish.name.clone() };
    let there = find(host, &wish.name);
    let mut plan = HandPlan::default();
    match there {
        Some(link) if link.kind != "bridge" => return Err(taken(host, link)),
        Some(_) => {}
        None => plan.ops.push(HandOp::CreateBridge { link: wish.name.clone() }),
    }
    if let Some(address) = wish.address {
        address_op(&mut plan, &bridge, address, there);
    }
    up(&mut plan, &bridge, there);
    let known = there.into_iter().flat_map(|link| &link.addresses).filter(|a| a.ip().is_ipv4());
    let own: Vec<Cidr> = wish.address.iter().chain(known).copied().collect();
    for (attach, at) in wish.attach.iter().zip(1..) {
        attach_one(&mut plan, &bridge, (attach, at), &own, views)?;
    }
    if wish.nat {
        nat(&mut plan, wish, own.first().copied(), host)?;
    }
    Ok(plan)
}

/// The plan that takes a bridge away, with its table and with what was attached.
///
/// # Errors
/// A device of that name is no bridge.
pub fn plan_remove_bridge(name: &str, host: &NamespaceView) -> Result<HandPlan, NetworkError> {
    check_name(name)?;
    let mut plan = HandPlan::default();
    let table = table(name);
    if host.nat.iter().any(|rule| rule.table == table) {
        plan.ops.push(HandOp::RemoveNat { table });
    }
    let Some(bridge) = find(host, name) else { return Ok(plan) };
    if bridge.kind != "bridge" {
        return Err(taken(host, bridge));
    }
    let end = |link: &str| End { place: host.place.clone(), link: link.to_owned() };
    for port in host.links.iter().filter(|link| link.master == Some(bridge.index)) {
        match port.alias == alias(name) {
            true => plan.ops.push(HandOp::DeleteLink { end: end(&port.name) }),
            false => plan.warnings.push(format!("{} was a port of it and stays, on its own", port.name)),
        }
    }
    plan.ops.push(HandOp::DeleteLink { end: end(name) });
    Ok(plan)
}

fn attach_one(
    plan: &mut HandPlan,
    bridge: &End,
    (attach, at): (&Attach, usize),
    own: &[Cidr],
    views: &[NamespaceView],
) -> Result<(), NetworkError> {
    check_name(&attach.link)?;
    let gateway = fit::gateway(attach, &bridge.link, own)?;
    let (host, view) = (&views[0], &views[at]);
    if view.inode == host.inode {
        return Err(refused(
            format!("{} is where the bridge itself is", view.place.name),
            "give the bridge an address with --address instead",
        ));
    }
    let inside = End { place: view.place.clone(), link: attach.link.clone() };
    let there = find(view, &inside.link);
    let port = there.and_then(|link| peer(views, at, link)).filter(|(place, _)| *place == 0).map(|(_, port)| port);
    let port = port.filter(|port| port.alias == alias(&bridge.link));
    let name = port.map_or_else(|| port_name(&bridge.link, &view.place.name), |port| port.name.clone());
    let outside = End { place: host.place.clone(), link: name };
    match (port, there, find(host, &outside.link)) {
        (Some(_), ..) => {}
        (None, Some(link), _) => return Err(taken(view, link)),
        (None, None, Some(link)) => return Err(taken(host, link)),
        (None, None, None) => {
            let alias = Some(alias(&bridge.link));
            plan.ops.push(HandOp::CreateVeth { a: outside.clone(), b: inside.clone(), alias });
        }
    }
    let index = find(host, &bridge.link).map(|bridge| bridge.index);
    if port.is_none_or(|port| port.master.is_none() || port.master != index) {
        plan.ops.push(HandOp::SetMaster { link: outside.link.clone(), bridge: bridge.link.clone() });
    }
    up(plan, &outside, port);
    if let Some(ip) = attach.address {
        let prefix = attach.prefix.or(gateway.or(own.first().copied()).map(Cidr::prefix)).unwrap_or(if ip.is_ipv4() {
            24
        } else {
            64
        });
        let wrong = || refused(format!("{ip}/{prefix} is no address"), "as in 10.10.0.2/24");
        let address = Cidr::new(ip, prefix).ok_or_else(wrong)?;
        address_op(plan, &inside, address, there);
        fit::others(plan, view, address, there);
    }
    up(plan, &inside, there);
    loopback_up(plan, view);
    let has_default = view.routes.iter().any(|route| route.to == "default");
    if let Some(own) = gateway.filter(|_| !has_default) {
        plan.ops.push(HandOp::AddDefaultRoute { place: view.place.clone(), via: own.ip() });
    }
    Ok(())
}

fn nat(plan: &mut HandPlan, wish: &BridgeWish, own: Option<Cidr>, host: &NamespaceView) -> Result<(), NetworkError> {
    let subnet = own
        .and_then(Cidr::subnet)
        .ok_or_else(|| refused("NAT needs the bridge's network", "give it an IPv4 address: --address 10.10.0.1/24"))?;
    let table = table(&wish.name);
    if !host.forwards {
        plan.ops.push(HandOp::Sysctl { key: "net.ipv4.ip_forward".to_owned(), value: "1".to_owned() });
        plan.warnings.push("net.ipv4.ip_forward is switched on for this machine, and stays so".to_owned());
    }
    let rule = format!("ip saddr {subnet} oifname != \"{}\" masquerade", wish.name);
    if !host.nat.iter().any(|found| found.table == table && found.rule == rule) {
        plan.ops.push(HandOp::InstallNat { table, subnet, bridge: wish.name.clone() });
    }
    Ok(())
}

fn find<'a>(view: &'a NamespaceView, name: &str) -> Option<&'a LinkView> {
    view.links.iter().find(|link| link.name == name)
}

/// The two names are the ends of one pair already.
fn connected(views: &[NamespaceView; 2], names: &[String]) -> Result<bool, NetworkError> {
    let found = [find(&views[0], &names[0]), find(&views[1], &names[1])];
    match found {
        [None, None] => Ok(false),
        [Some(a), Some(_)] if peer(views, 0, a).is_some_and(|(_, other)| other.name == names[1]) => Ok(true),
        [Some(link), _] => Err(taken(&views[0], link)),
        [None, Some(link)] => Err(taken(&views[1], link)),
    }
}

fn address_op(plan: &mut HandPlan, end: &End, address: Cidr, there: Option<&LinkView>) {
    if !there.is_some_and(|link| link.addresses.contains(&address)) {
        plan.ops.push(HandOp::AddAddress { end: end.clone(), address });
    }
}

fn up(plan: &mut HandPlan, end: &End, there: Option<&LinkView>) {
    if !there.is_some_and(|link| link.up) {
        plan.ops.push(HandOp::LinkUp { end: end.clone() });
    }
}

/// A new namespace has its loopback down.
fn loopback_up(plan: &mut HandPlan, view: &NamespaceView) {
    let lo = find(view, "lo").filter(|lo| !lo.up && view.place.path.is_some());
    let end = End { place: view.place.clone(), link: "lo".to_owned() };
    let op = HandOp::LinkUp { end };
    if lo.is_some() && !plan.ops.contains(&op) {
        plan.ops.push(op);
    }
}

fn default_name(same: bool, at: usize, other: &Place) -> String {
    if same {
        return format!("veth{at}");
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let last = other.name.rsplit('/').next().unwrap_or(&other.name);
    let name: String = last.chars().map(plain).collect();
    format!("to-{name}").chars().take(NAME_MAX).collect()
}

/// Always the same for a bridge and a namespace.
fn port_name(bridge: &str, namespace: &str) -> String {
    // FNV-1a: short, and no secret.
    let bytes = bridge.bytes().chain([0]).chain(namespace.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("ob{:010x}", hash >> 24)
}

fn alias(bridge: &str) -> String {
    format!("onggi net bridge {bridge}")
}

fn table(bridge: &str) -> String {
    format!("onggi_{bridge}")
}

/// The kernel's rule (dev_valid_name), and none that nft(8) would have to quote.
fn check_name(name: &str) -> Result<(), NetworkError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(plain) && name != "." && name != ".." {
        return Ok(());
    }
    Err(refused(format!("{name:?} is no name of a device"), "up to 15 letters, digits, - _ ."))
}

fn taken(view: &NamespaceView, link: &LinkView) -> NetworkError {
    let kind = match link.kind.as_str() {
        "" => "a device of another kind".to_owned(),
        kind if kind.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {kind} device"),
        kind => format!("a {kind} device"),
    };
    refused(
        format!("there is another {} in {}: {kind}", link.name, view.place.name),
        "choose another name, or remove that one: onggi net ls shows where it leads",
    )
}

pub(super) fn refused(message: impl Into<String>, hint: impl Into<String>) -> NetworkError {
    NetworkError::Refused { message: message.into(), hint: hint.into() }
}

//! Whether a wished address can work where it is wished for. Pure.

use std::net::IpAddr;

use super::{Attach, Cidr, HandPlan, LinkView, NamespaceView, plan::refused};
use crate::{Ipv4Subnet, error::NetworkError};

/// The two ends of a pair need two addresses.
pub(super) fn two_ends(addresses: &[Cidr]) -> Result<(), NetworkError> {
    match addresses {
        [a, b, ..] if a.ip() == b.ip() => Err(refused(
            format!("both ends cannot have the address {}", a.ip()),
            "as in --address 10.0.1.1/24,10.0.1.2/24",
        )),
        _ => Ok(()),
    }
}

/// The bridge's address in the network of `attach`, which is its way out; none where they have none of one version.
pub(super) fn gateway(attach: &Attach, bridge: &str, own: &[Cidr]) -> Result<Option<Cidr>, NetworkError> {
    let ip = match attach.address {
        None => return Ok(None),
        Some(IpAddr::V6(_)) => return Ok(own.iter().find(|own| own.ip().is_ipv6()).copied()),
        Some(IpAddr::V4(ip)) => ip,
    };
    let networks: Vec<(Cidr, Ipv4Subnet)> = own.iter().filter_map(|own| Some((*own, own.subnet()?))).collect();
    let Some((_, first)) = networks.first() else { return Ok(None) };
    let Some((own, network)) = networks.iter().find(|(_, network)| network.contains(ip)) else {
        let message = format!("{ip} is outside of the network {first} of {bridge}");
        return Err(refused(message, "choose an address in it, or give the bridge one beside yours with --address"));
    };
    let what = match ip {
        _ if own.ip() == IpAddr::V4(ip) => format!("the address of {bridge} itself"),
        // Networks of one or two addresses have none to spare (RFC 3021).
        _ if network.prefix() > 30 => return Ok(Some(*own)),
        _ if ip == network.address() => format!("the name of the network {network}"),
        _ if ip == network.broadcast() => format!("the broadcast address of {network}"),
        _ => return Ok(Some(*own)),
    };
    Err(refused(format!("{ip} is {what}"), format!("choose another address in {network}")))
}

/// Tells of addresses that an end has beside the one that is wished for: they stay.
pub(super) fn others(plan: &mut HandPlan, view: &NamespaceView, wished: Cidr, there: Option<&LinkView>) {
    let Some(link) = there else { return };
    let others =
        link.addresses.iter().filter(|other| **other != wished && other.ip().is_ipv4() == wished.ip().is_ipv4());
    // Every IPv6 device has an address of its link.
    let meant = others.filter(|other| !matches!(other.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()));
    plan.warnings
        .extend(meant.map(|other| format!("{} in {} has {other} too, which stays", link.name, view.place.name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(ip: &str, own: &[&str]) -> Result<Option<String>, String> {
        let own: Vec<Cidr> = own.iter().map(|one| one.parse().expect("an address")).collect();
        let attach = Attach { link: "eth0".to_owned(), address: Some(ip.parse().expect("an address")), prefix: None };
        gateway(&attach, "br9", &own).map(|found| found.map(|own| own.to_string())).map_err(|e| e.to_string())
    }

    #[test]
    fn an_address_behind_a_bridge_is_in_one_of_its_networks() {
        let own = ["10.1.5.1/24", "10.1.6.1/24"];
        assert_eq!(attached("10.1.6.2", &own), Ok(Some("10.1.6.1/24".to_owned())));
        assert_eq!(attached("10.1.5.2", &[]), Ok(None));
        assert_eq!(attached("fd00::2", &own), Ok(None));
        assert!(attached("10.1.7.2", &own).is_err_and(|e| e.contains("outside of the network 10.1.5.0/24 of br9")));
    }

    #[test]
    fn an_address_that_is_not_for_a_host_is_refused() {
        let refused = |ip: &str, part: &str| {
            assert!(attached(ip, &["10.1.5.1/24"]).is_err_and(|e| e.contains(part)), "{ip}");
        };
        refused("10.1.5.1", "the address of br9 itself");
        refused("10.1.5.0", "the name of the network 10.1.5.0/24");
        refused("10.1.5.255", "the broadcast address of 10.1.5.0/24");
        assert_eq!(attached("10.1.5.3", &["10.1.5.2/31"]), Ok(Some("10.1.5.2/31".to_owned())));
    }

    #[test]
    fn two_ends_have_two_addresses() {
        let cidr = |text: &str| text.parse::<Cidr>().expect("an address");
        assert!(two_ends(&[cidr("10.0.1.1/24"), cidr("10.0.1.1/16")]).is_err());
        assert!(two_ends(&[cidr("10.0.1.1/24"), cidr("10.0.1.2/24")]).is_ok() && two_ends(&[]).is_ok());
    }
}

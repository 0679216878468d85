//! Addresses with the length of their network's prefix.

use std::{fmt, net::IpAddr, str::FromStr};

use onggi_spec::ParseError;
use serde::{Deserialize, Serialize};

/// `10.10.0.1/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    ip: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// None for a prefix longer than an address.
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Self> {
        (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some(Self { ip, prefix })
    }

    /// The address.
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// The length of its network's prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its network, for IPv4.
    pub fn subnet(self) -> Option<crate::Ipv4Subnet> {
        match self.ip {
            IpAddr::V4(ip) => crate::Ipv4Subnet::new(ip, self.prefix),
            IpAddr::V6(_) => None,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = |reason: &str| {
            ParseError::new("address", text, reason)
                .hint("an address and the length of its network, as in 10.10.0.1/24")
        };
        let (ip, prefix) = text.split_once('/').ok_or_else(|| wrong("expected ADDRESS/LENGTH"))?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong("it is no IPv4 or IPv6 address"))?;
        let prefix = prefix.parse().map_err(|_| wrong("the length is no number"))?;
        Self::new(ip, prefix).ok_or_else(|| wrong("the length is beyond the address"))
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_prefix() {
        for text in ["10.10.0.1/24", "0.0.0.0/0", "fe80::1/64"] {
            assert_eq!(text.parse::<Cidr>().expect(text).to_string(), text);
        }
        for text in ["10.10.0.1", "10.10.0.1/33", "x/24", "10.10.0.1/", "::/129"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}

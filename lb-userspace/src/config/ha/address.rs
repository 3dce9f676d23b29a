//! An address with the length of its subnet's prefix.

use std::{
    fmt::{self, Display},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An address as an interface has it, written `203.0.113.1` or `203.0.113.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of the prefix: all, where none is given.
    pub prefix: u8,
}

impl Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.address.is_ipv4() { 32 } else { 128 };
        match self.prefix == all {
            true => self.address.fmt(f),
            false => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

impl From<VirtualAddress> for String {
    fn from(address: VirtualAddress) -> String {
        address.to_string()
    }
}

impl TryFrom<String> for VirtualAddress {
    type Error = &'static str;

    fn try_from(text: String) -> Result<VirtualAddress, &'static str> {
        (text.parse().ok())
            .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            .filter(|net: &IpNet| net.prefix_len() > 0)
            .map(|net| VirtualAddress {
                address: net.addr(),
                prefix: net.prefix_len(),
            })
            .ok_or("an address such as 203.0.113.1, 203.0.113.1/24 or 2001:db8::1")
    }
}

//! Networks, for lists of who is trusted.

use std::{
    fmt::{self, Display},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Addresses with a common prefix, written `10.0.0.0/8`, or as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// Whether an address is in it; an IPv4 one may be in IPv6 form.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => self.0.addr().fmt(f),
            false => self.0.fmt(f),
        }
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

impl TryFrom<String> for Network {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Network, &'static str> {
        (text.parse().ok())
            .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            .map(|net: IpNet| Network(net.trunc()))
            .ok_or("a network such as 10.0.0.0/8 or 2001:db8::/32, or one address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses() {
        let net = |text: &str| Network::try_from(text.to_owned());
        assert!(net("10.1.2.3/8").unwrap().contains([10, 9, 9, 9].into()));
        assert_eq!(net("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(net("::1").unwrap().to_string(), "::1");
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert!(net("10.0.0.1").unwrap().contains(mapped));
        assert!(!net("10.0.0.1").unwrap().contains([10, 0, 0, 2].into()));
        for wrong in ["", "10.0.0.0/33", "10.0.0", "example.org"] {
            assert!(net(wrong).is_err(), "{wrong}");
        }
    }
}
